"""Which rows the flags of a benchmark name."""

from collections.abc import Collection
from pathlib import Path

import pytest

from baselines import METHODS, TRANSLATORS
from baselines.method import MethodContext, Requirements, Unsupported
from baselines.references import CopySource
from benchmarks.cli import build_methods, choose_methods
from benchmarks.datasets.finished_images import FinishedImages
from benchmarks.translation import Arguments
from editar.io.assets import AssetFile

CONTEXT = MethodContext(suite="miniature", weights=None, device="cpu", image_side=64, task="depth")


def segmentation_only(context: MethodContext) -> CopySource:
    raise Unsupported(f"no network for {context.task}")


class Weightless(CopySource):
    """Its weights are on no hub and not here."""

    def requirements(self) -> Requirements:
        return Requirements(files=tuple(AssetFile(name=f"net/{name}", source="") for name in ("config.json", "net.pt")))


class Published(CopySource):
    def requirements(self) -> Requirements:
        return Requirements(files=(AssetFile(name="net.pt", source="a hub", comes="fetched"),))


class Elsewhere(CopySource):
    def requirements(self) -> Requirements:
        return Requirements(files=(AssetFile(name="net.pt", source="", path=Path("net.pt")),), unset=("ITS_PYTHON",))


KNOWN = {
    "some": CopySource,
    "other": segmentation_only,
    "lacking": Weightless,
    "elsewhere": Elsewhere,
    "fetched": Published,
}


def rows(*methods: str, quick: Collection[str] | None = None) -> dict:
    args = Arguments(task="depth", methods=methods)
    chosen = choose_methods(args, KNOWN, quick)
    return build_methods(args, chosen, CONTEXT, lambda folder: FinishedImages(folder, {}, 64), [])


@pytest.mark.parametrize("methods", [(), ("all",)])
def test_all_leaves_out_what_cannot_be_made(methods: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert list(rows(*methods)) == ["some", "fetched"]
    assert capsys.readouterr().err.splitlines() == [
        "other is left out: no network for depth",
        "lacking is left out: net/config.json and 1 more can't be found or fetched (--weights); --dry-run shows all",
        "elsewhere is left out: the environment variable ITS_PYTHON is not set",
    ]


def test_a_method_that_is_named_is_not_left_out() -> None:
    named = rows("some", "other", "lacking")
    assert list(named) == ["some", "other", "lacking"]
    with pytest.raises(Unsupported):
        named["other"]()


def test_without_names_there_are_the_quick_rows_in_the_order_of_the_table() -> None:
    assert list(rows(quick={"fetched", "some", "to come"})) == ["some", "fetched"]
    assert list(rows("all", quick={"some"})) == ["some", "fetched"]


DIFFUSION = ["instruct-pix2pix", "prompt-to-prompt", "null-text-inversion", "pnp-inversion", "pix2pix-zero", "masactrl"]


@pytest.mark.parametrize(
    ("known", "task", "without"), [(METHODS, None, DIFFUSION), (TRANSLATORS, "depth", ["t2i-adapter", "controlnet"])]
)
def test_weights_without_diffusion_networks_leave_those_rows_out_of_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], known, task: str | None, without: list[str]
) -> None:
    for name in ("vq", "transformer", "text"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"")
    context = MethodContext(suite="miniature", weights=tmp_path, device="cpu", image_side=64, task=task)
    args = Arguments(task="depth", methods=("all",))
    wanted = {name: constructor for name, constructor in known.items() if name in without}
    built = build_methods(args, choose_methods(args, wanted), context, lambda _: FinishedImages(tmp_path, {}, 64), [])
    assert list(built) == []
    errors = capsys.readouterr().err
    for name in without:
        assert f"{name} is left out: diffusion/" in errors
        with pytest.raises(FileNotFoundError):
            known[name](context).settings()
