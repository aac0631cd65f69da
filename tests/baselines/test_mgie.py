"""MGIE with tiny random weights; for LLaVA stands a program that speaks the exchange format by the recipe's module."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionInstructPix2PixPipeline

from baselines.method import EditRequest, MethodContext, NoAnswer, Unsupported
from baselines.mgie.edit_head import read_edit_head
from baselines.mgie.mgie import LLAVA_7B, MGIE, ROW
from editar.io.tensors import CheckpointError
from tests.baselines.mgie_layout import TINY, write_mllm
from tests.baselines.test_instruct_pix2pix import FEW, context, edits, pixels, write_folder
from tests.baselines.tiny_diffusion import filled, tiny_unet

LANGUAGE_MODEL = """#!{python}
import os, sys
sys.path.insert(0, os.getcwd())  # the recipe's folder, where its script lies
import numpy
from exchange import NoImage, answer_all

script, llava, weights, mllm, folder = sys.argv[1:]
assert os.path.isfile(script) and llava == "a checkout", sys.argv
assert os.path.isfile(weights + "/tokenizer.model") and os.path.basename(mllm) == "mllm.pt", sys.argv

def answer(request, image):
    words = request["instruction"]
    if "nothing" in words:
        raise NoImage("LLaVA had nothing to say")
    shape = (7, {hidden}) if "short" in words else (8, {hidden})
    noise = numpy.random.RandomState(len(words)).standard_normal(shape)
    return (noise * (numpy.inf if "overflow" in words else 1)).astype(numpy.float16)

answer_all(folder, answer)
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_folder(folder / "instruct-pix2pix", "instruct-pix2pix", 20)
    write_mllm(folder / "mgie_7b" / "mllm.pt")
    unet = {name: each.half() for name, each in filled(tiny_unet(inputs=8), 31).state_dict().items()}
    torch.save(unet, folder / "mgie_7b" / "unet.pt")
    (folder / "LLaVA-7B-v1").mkdir()
    for name in LLAVA_7B.files:
        (folder / "LLaVA-7B-v1" / name).write_text(name)
    return folder


@pytest.fixture(autouse=True)
def language_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "python"
    program.write_text(LANGUAGE_MODEL.format(python=sys.executable, hidden=TINY.hidden))
    program.chmod(0o755)
    monkeypatch.setenv("MGIE_PYTHON", str(program))
    monkeypatch.setenv("MGIE_LLAVA", "a checkout")


@pytest.fixture
def method(weights: Path) -> MGIE:
    method = MGIE(context(weights), replace(ROW, steps=FEW))
    method.load()
    return method


def by_hand(weights: Path, asked: list[EditRequest]) -> np.ndarray:
    """The images of diffusers' pipeline, guided by its defaults, from embeddings as the published demo gives them."""
    pipeline: Any = StableDiffusionInstructPix2PixPipeline.from_pretrained(
        weights / "instruct-pix2pix", safety_checker=None, requires_safety_checker=False, image_encoder=None
    )
    pipeline.unet.load_state_dict(torch.load(weights / "mgie_7b" / "unet.pt"))
    pipeline.scheduler = EulerAncestralDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="linspace"
    )
    head = read_edit_head(weights / "mgie_7b" / "mllm.pt")
    states = [
        np.random.RandomState(len(each.instruction)).standard_normal((8, TINY.hidden)).astype(np.float16)
        for each in asked
    ]
    with torch.no_grad():
        embeddings, null = head(torch.from_numpy(np.stack(states)).float()), head.null()
    generators = [torch.Generator().manual_seed(each.seed) for each in asked]
    made = pipeline(
        image=[each.image for each in asked], prompt_embeds=embeddings,
        negative_prompt_embeds=null.repeat(len(asked), 1, 1), generator=generators,
        num_inference_steps=FEW,
    )  # fmt: skip
    return pixels(made.images)


def test_images_are_those_of_diffusers_pipeline(weights: Path, method: MGIE) -> None:
    asked = edits(2)
    expected = by_hand(weights, asked)
    assert expected.std() > 5
    assert abs(pixels(method.edit(asked)) - expected).max() <= 1
    assert abs(pixels(method.edit(asked[1:])) - expected[1:]).max() <= 1  # whatever the batch
    assert abs(pixels(method.edit([replace(asked[0], instruction="else")])) - expected[:1]).max() > 5


def test_no_states_no_image(method: MGIE) -> None:
    first, second = edits(2)
    words = ["say nothing", "be short", first.instruction, "overflow", "1", "22", "333", "4444"]  # five have states
    asked = [replace(first, sample_id=f"1.{place}", instruction=each) for place, each in enumerate(words)]
    answers = method.edit(asked)
    assert [isinstance(each, NoAnswer) for each in answers] == [True, True, False, True, *[False] * 4]
    assert str(answers[0]) == "LLaVA had nothing to say"
    assert "(7, 12)" in str(answers[1]) and "(8, 12)" in str(answers[1])
    assert "not finite" in str(answers[3])
    alone = [method.edit([each])[0] for each in (first, asked[-1])]
    assert abs(pixels([answers[2], answers[-1]]) - pixels(alone)).max() <= 1
    assert abs(pixels(alone[:1]) - pixels(alone[1:])).max() > 5
    assert isinstance(method.edit([replace(second, instruction="nothing")])[0], NoAnswer)


def test_settings_have_both_sides(weights: Path) -> None:
    settings = MGIE(context(weights)).settings()
    assert {"steps": 100, "text_guidance": 7.5, "image_guidance": 1.5, "dtype": "float32"}.items() <= settings.items()
    assert {"mgie_7b/mllm.pt", "mgie_7b/unet.pt", "instruct-pix2pix/vae/config.json"} <= set(settings["weights"])
    language_model = settings["language_model"]
    assert {"mgie.py", "exchange.py", "${LLAVA_7B}/config.json", "${MGIE_7B}/mllm.pt"} <= set(language_model["files"])
    assert language_model["settings"]["new_tokens"] == 96
    assert str(weights) not in str(settings)  # numbers don't depend on where the files lie


def test_half_precision_on_a_gpu_as_published(weights: Path) -> None:
    gpu = MethodContext(suite="paper", weights=weights, device="cuda:0", image_side=64)
    assert MGIE(gpu).settings()["dtype"] == "float16"


def test_unsupported_where_it_cannot_run(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unsupported):
        MGIE(context(weights, "miniature"))
    monkeypatch.delenv("MGIE_LLAVA")
    assert MGIE(context(weights)).requirements().unset == ("MGIE_LLAVA",)
    with pytest.raises(ValueError, match="MGIE_LLAVA"):
        MGIE(context(weights)).settings()


def test_needs_both_sides(weights: Path, tmp_path: Path) -> None:
    needs = MGIE(context(weights)).requirements()
    assert (needs.passes, needs.unset, needs.absent) == ({"LLaVA": 96, "UNet": 300}, (), ())
    folder = weights / "mgie_7b"
    assert {file.name: file.path for file in needs.files}["mgie_7b/unet.pt"] == folder / "unet.pt"
    fetched = {file.name for file in MGIE(context(tmp_path)).requirements().files if file.comes == "fetched"}
    assert {"instruct-pix2pix/instruct-pix2pix-00-22000.ckpt", "mgie_7b/mllm.pt", "LLaVA-7B-v1/config.json"} < fetched


def test_missing_files_are_named(weights: Path, tmp_path: Path) -> None:
    for name in ("instruct-pix2pix", "mgie_7b"):
        os.symlink(weights / name, tmp_path / name)
    (tmp_path / "LLaVA-7B-v1").mkdir()
    with pytest.raises(FileNotFoundError):
        MGIE(context(tmp_path)).settings()


def test_another_unet_is_refused(weights: Path, tmp_path: Path) -> None:
    for name in ("instruct-pix2pix", "LLaVA-7B-v1"):
        os.symlink(weights / name, tmp_path / name)
    write_mllm(tmp_path / "mgie_7b" / "mllm.pt")
    torch.save({"conv_in.weight": torch.zeros(1)}, tmp_path / "mgie_7b" / "unet.pt")
    with pytest.raises(CheckpointError):
        MGIE(context(tmp_path)).load()
