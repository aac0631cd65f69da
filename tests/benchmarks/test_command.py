"""Which rows the flags of a benchmark name."""

import pytest

from baselines.copy_source import CopySource
from baselines.method import MethodContext, Unsupported
from benchmarks.command import build_methods
from benchmarks.finished import FinishedImages
from benchmarks.translation import Arguments

CONTEXT = MethodContext(suite="miniature", weights=None, device="cpu", image_side=64, task="depth")


def segmentation_only(context: MethodContext) -> CopySource:
    raise Unsupported(f"no network for {context.task}")


def rows(*methods: str) -> dict:
    known = {"some": CopySource, "other": segmentation_only}
    return build_methods(
        Arguments(task="depth", methods=methods), known, CONTEXT, lambda folder: FinishedImages(folder, {}, 64), []
    )


@pytest.mark.parametrize("methods", [(), ("all",)])
def test_all_leaves_out_what_the_suite_has_no_network_for(
    methods: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(rows(*methods)) == ["some"]
    assert capsys.readouterr().err == "other is left out: no network for depth\n"


def test_a_method_that_is_named_is_not_left_out() -> None:
    with pytest.raises(Unsupported, match="no network for depth"):
        rows("some", "other")["other"]()
