"""T2I-Adapter with tiny random weights in the hub's folders and format, loaded as the real ones are."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionAdapterPipeline, T2IAdapter

from baselines import TRANSLATORS
from baselines.controlnet import ControlledDiffusion, t2i_adapter
from baselines.method import Unsupported
from tests.baselines.tiny_diffusion import BASE, SIDE, context, requests, write_adapter, write_base

FOLDERS = {"depth": "t2iadapter_depth_sd15v2", "canny": "t2iadapter_canny_sd15v2"}
CHANNELS = {"depth": 3, "canny": 1}
NEGATIVE = "worst quality, low quality"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_base(folder / BASE)
    for task, name in FOLDERS.items():
        write_adapter(folder / name, seed=20 + CHANNELS[task], channels=CHANNELS[task])
    return folder


@pytest.fixture(scope="module")
def canny(weights: Path) -> ControlledDiffusion:
    method = t2i_adapter(context(weights, "canny"))
    method.load()
    return method


def pixels(images: list[Any]) -> np.ndarray:
    assert all(image.size == (SIDE, SIDE) and image.mode == "RGB" for image in images), images
    return np.stack([np.asarray(image) for image in images]).astype(int)


@pytest.mark.parametrize("task", FOLDERS)
def test_settings_are_the_published_ones(weights: Path, task: str) -> None:
    settings = TRANSLATORS["t2i-adapter"](context(weights, task)).settings()
    assert f"{FOLDERS[task]}/diffusion_pytorch_model.bin" in settings.pop("weights")
    scheduler = settings.pop("scheduler")
    expected = {
        "class": "PNDMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
        "steps_offset": 1, "timestep_spacing": "leading", "skip_prk_steps": True, "set_alpha_to_one": False,
    }  # fmt: skip
    assert {key: scheduler[key] for key in expected} == expected
    assert settings == {
        "steps": 50, "guidance": 7.5, "negative_prompt": NEGATIVE, "dtype": "float32", "safety_checker": "off",
        "images_at_once": 2,
    }  # fmt: skip


def test_images_are_those_of_the_published_way_with_canny_in_one_channel(
    weights: Path, canny: ControlledDiffusion
) -> None:
    adapter = T2IAdapter.from_pretrained(weights / FOLDERS["canny"])
    pipeline = StableDiffusionAdapterPipeline.from_pretrained(weights / BASE, adapter=adapter, safety_checker=None)
    asked = requests("canny", 2)
    edges = [each.condition.getchannel("R") for each in asked]
    assert all(set(image.tobytes()) == {0, 255} for image in edges)
    expected = pipeline(
        prompt=[each.caption for each in asked],
        image=edges,
        num_inference_steps=50,
        guidance_scale=7.5,
        negative_prompt=[NEGATIVE] * 2,
        generator=[torch.Generator("cpu").manual_seed(each.seed) for each in asked],
    ).images
    seen: list[torch.Tensor] = []
    handle = canny.pipeline.adapter.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    answers = canny.translate(asked)
    handle.remove()
    assert (pixels(answers) == pixels(expected)).all() and pixels(expected).std() > 5
    (given,) = seen  # once, before sampling
    assert given.shape == (2, 1, SIDE, SIDE)
    assert given.equal(torch.from_numpy(np.stack([np.asarray(image) for image in edges]))[:, None] / 255)


def test_depth_gets_three_channels(weights: Path) -> None:
    method = t2i_adapter(replace(context(weights, "depth"), images_at_once=1))
    method.load()
    seen: list[torch.Tensor] = []
    method.pipeline.adapter.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    asked = requests("depth", 1)
    method.translate(asked)
    expected = torch.from_numpy(np.array(asked[0].condition)).permute(2, 0, 1)[None] / 255
    assert len(seen) == 1 and seen[0].equal(expected)


@pytest.mark.slow  # the quick test of blocks is in test_in_blocks.py
def test_an_image_depends_on_its_seed_and_condition_and_not_on_its_batch(canny: ControlledDiffusion) -> None:
    asked = requests("canny")
    together = pixels(canny.translate(asked))
    alone = pixels([canny.translate([request])[0] for request in reversed(asked)])[::-1]
    assert (together == alone).all()
    changed = [
        replace(asked[0], seed=5),
        replace(asked[0], condition=asked[1].condition),
    ]
    assert all(abs(image - together[0]).max() > 5 for image in pixels(canny.translate(changed)))


def test_the_call_uses_the_recorded_scheduler(canny: ControlledDiffusion) -> None:
    calls: list[Any] = []
    handle = canny.pipeline.unet.register_forward_hook(lambda module, inputs, output: calls.append(inputs[1].item()))
    canny.translate(requests("canny", 1))
    handle.remove()
    recorded = canny.settings()["scheduler"]
    scheduler = canny.pipeline.scheduler
    assert type(scheduler).__name__ == recorded.pop("class") == "PNDMScheduler"
    assert {key: scheduler.config[key] for key in recorded} == recorded
    # PNDM evaluates its second step twice to start its multistep formula.
    assert len(calls) == 51 and calls[:3] == [981, 961, 961] and calls[-1] == 1


@pytest.mark.parametrize("suite", ["paper", "miniature"])
def test_it_was_never_published_for_segmentation(weights: Path, suite: str) -> None:
    with pytest.raises(Unsupported):
        t2i_adapter(context(weights, "segmentation", suite))


def test_the_miniature_has_folders_of_its_own(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "diffusion").mkdir()
    for part in (weights / BASE).iterdir():
        (tmp_path / "diffusion" / part.name).symlink_to(part)
    write_adapter(tmp_path / "diffusion" / "t2i-adapter-canny", seed=1, channels=1)
    method = t2i_adapter(context(tmp_path, "canny", suite="miniature"))
    method.load()
    assert method.settings()["negative_prompt"] == ""
    assert pixels(method.translate(requests("canny", 1))).shape == (1, SIDE, SIDE, 3)


def test_the_network_runs_as_often_as_the_method_says(canny: ControlledDiffusion) -> None:
    passes = {"UNet": 0, "T2I-Adapter": 0}
    handles = [
        canny.pipeline.unet.register_forward_pre_hook(
            lambda module, inputs: passes.update({"UNet": passes["UNet"] + len(inputs[0])})
        ),
        canny.pipeline.adapter.register_forward_pre_hook(
            lambda module, inputs: passes.update({"T2I-Adapter": passes["T2I-Adapter"] + len(inputs[0])})
        ),
    ]
    canny.translate(requests("canny", 2))
    for handle in handles:
        handle.remove()
    assert passes == {network: 2 * each for network, each in canny.requirements().passes.items()}
