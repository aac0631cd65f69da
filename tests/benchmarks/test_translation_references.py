"""The reference rows of translation: what the real images score, as they are and through autoencoders."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from baselines.method import EditRequest, MethodContext, TranslateRequest
from baselines.references import VAEReconstruction, VQReconstruction
from benchmarks.miniature.world.embedded import held_out_scenes
from benchmarks.miniature.world.render import condition, render
from benchmarks.runs.generate import ChosenMethod
from benchmarks.runs.translation_references import REFERENCES, with_real_images
from benchmarks.translation import Arguments, evaluate
from tests.benchmarks.killable_translation import TINY
from tests.benchmarks.tiny_translation import write

CONTEXT = MethodContext(suite="miniature", weights=None, device="cpu", image_side=64, task="depth")


def test_real_images_score_as_well_as_can_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Four images a prompt are four times the same one."""
    data, out = write(tmp_path / "data", "canny", 6), tmp_path / "out"
    args = Arguments(task="canny", data=data, out=out, methods=("real-image",), protocol="translation/controlnet++/v1")
    evaluate(args, TINY)
    run = out / "tiny" / "translation-canny" / "real-image"
    table = pd.read_parquet(run / "samples.parquet")
    assert len(table) == 24 and table["image_sha256"].nunique() == table["source_id"].nunique() == 6
    assert table["ssim"].to_numpy() == pytest.approx(1) and table["f1"].dropna().to_numpy() == pytest.approx(1)
    fid = json.loads((run / "fid.json").read_text())
    assert len(fid["draws"]) == 4 and fid["fid"] == pytest.approx(0, abs=1e-6)
    assert "| real-image | reference |" in capsys.readouterr().out


@pytest.mark.parametrize("editor", [VQReconstruction, VAEReconstruction])
def test_a_reconstruction_is_that_of_the_real_image(editor: type[VQReconstruction] | type[VAEReconstruction]) -> None:
    scenes = {f"{number:05d}": scene for number, scene in enumerate(held_out_scenes("depth", 2))}
    (name,) = (name for name, build in REFERENCES.items() if build is editor)
    (chosen,) = with_real_images(
        [ChosenMethod(name=name, build=REFERENCES[name])], lambda sample_id: Image.fromarray(render(scenes[sample_id]))
    )
    reference, plain = chosen.build(CONTEXT), editor(CONTEXT)
    reference.load()  # type: ignore[union-attr]
    plain.load()
    maps = [
        TranslateRequest(
            sample_id=each,
            condition=Image.fromarray(condition(scene, "depth")),
            caption="a picture",
            task="depth",
            seed=0,
        )
        for each, scene in scenes.items()
    ]
    images = [
        EditRequest(
            sample_id=each,
            image=Image.fromarray(render(scene)),
            instruction="",
            source_prompt="",
            target_prompt="",
            blend_words=None,
            seed=0,
        )
        for each, scene in scenes.items()
    ]
    found, expected = reference.translate(maps), plain.edit(images)  # type: ignore[union-attr]
    assert [np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(found, expected, strict=True)] == [True] * 2
    assert (reference.card.kind, reference.settings()) == ("reference", plain.settings())
    assert chosen.lacks(CONTEXT) is None


def test_a_users_own_method_of_such_a_name_gets_no_real_image() -> None:
    own = ChosenMethod(name="vq-reconstruction", build=lambda context: VQReconstruction(context))
    assert with_real_images([own], lambda sample_id: Image.new("RGB", (64, 64))) == [own]
