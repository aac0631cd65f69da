"""ControlNet v1.1 and ControlNet++ with tiny random weights in the hub's folders, loaded as the real ones are."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionPipeline
from diffusers import UniPCMultistepScheduler as UniPC
from huggingface_hub import constants
from PIL import Image

from baselines import TRANSLATORS
from baselines.controlnet import CONTROLNET, CONTROLNET_PLUS_PLUS, ControlledDiffusion, controlnet, controlnet_plus_plus
from baselines.method import NoAnswer, Unsupported
from baselines.stable_diffusion.networks import noise
from tests.baselines.tiny_diffusion import BASE, SIDE, context, requests, write_base, write_controlnet

ROWS = {"controlnet": CONTROLNET, "controlnet-plus-plus": CONTROLNET_PLUS_PLUS}
FOLDERS = {
    ("controlnet", "depth"): "control_v11f1p_sd15_depth",
    ("controlnet", "canny"): "control_v11p_sd15_canny",
    ("controlnet", "segmentation"): "control_v11p_sd15_seg",
    ("controlnet-plus-plus", "depth"): "reward_controlnet/checkpoints/depth/controlnet",
    ("controlnet-plus-plus", "canny"): "reward_controlnet/checkpoints/canny/controlnet",
    ("controlnet-plus-plus", "segmentation"): "reward_controlnet/checkpoints/cocostuff/reward_5k",
}
NEGATIVE = "worst quality, low quality"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_base(folder / BASE)
    for seed, name in enumerate(FOLDERS.values(), 10):
        write_controlnet(folder / name, seed)
    return folder


@pytest.fixture(scope="module")
def depth(weights: Path) -> ControlledDiffusion:
    return loaded(controlnet(context(weights, "depth")))


def loaded(method: ControlledDiffusion) -> ControlledDiffusion:
    method.load()
    return method


def pixels(images: list[Any]) -> np.ndarray:
    assert all(image.size == (SIDE, SIDE) and image.mode == "RGB" for image in images), images
    return np.stack([np.asarray(image) for image in images]).astype(int)


def by_hand(pipeline: Any, task: str, **options: Any) -> np.ndarray:
    """The images of a diffusers pipeline that is set up and called as the published evaluation does."""
    pipeline.scheduler = UniPC.from_config(pipeline.scheduler.config)
    asked = requests(task, 2)
    return pixels(
        pipeline(
            prompt=[each.caption for each in asked],
            num_inference_steps=20,
            guidance_scale=7.5,
            negative_prompt=[NEGATIVE] * 2,
            generator=[torch.Generator("cpu").manual_seed(each.seed) for each in asked],
            **options,
        ).images
    )


@pytest.mark.parametrize(("name", "task"), FOLDERS)
def test_settings_are_the_published_ones(weights: Path, name: str, task: str) -> None:
    settings = TRANSLATORS[name](context(weights, task)).settings()
    digests = settings.pop("weights")
    assert {file.rpartition("/")[0] for file in digests} == {
        BASE, f"{BASE}/scheduler", f"{BASE}/text_encoder", f"{BASE}/tokenizer", f"{BASE}/unet", f"{BASE}/vae",
        FOLDERS[name, task],
    }  # fmt: skip
    scheduler = settings.pop("scheduler")
    expected = {
        "class": "UniPCMultistepScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
        "steps_offset": 1, "timestep_spacing": "linspace", "solver_order": 2, "prediction_type": "epsilon",
    }  # fmt: skip
    assert {key: scheduler[key] for key in expected} == expected
    assert settings == {
        "steps": 20, "guidance": 7.5, "negative_prompt": NEGATIVE, "dtype": "float32", "safety_checker": "off",
        "images_at_once": 2,
    }  # fmt: skip


def test_settings_follow_the_weights(weights: Path, tmp_path: Path) -> None:
    (tmp_path / BASE).symlink_to(weights / BASE)
    name = FOLDERS["controlnet", "depth"]
    write_controlnet(tmp_path / name, seed=99)
    old, new = (controlnet(context(folder, "depth")).settings()["weights"] for folder in (weights, tmp_path))
    assert [file for file in old if old[file] != new[file]] == [f"{name}/diffusion_pytorch_model.safetensors"]


@pytest.mark.parametrize(("name", "task"), [("controlnet", "depth"), ("controlnet-plus-plus", "segmentation")])
def test_images_are_those_of_the_published_way(weights: Path, depth: ControlledDiffusion, name: str, task: str) -> None:
    method = depth if task == "depth" else loaded(controlnet_plus_plus(context(weights, task)))
    network = ControlNetModel.from_pretrained(weights / FOLDERS[name, task])
    pipeline = StableDiffusionControlNetPipeline.from_pretrained(
        weights / BASE, controlnet=network, safety_checker=None
    )
    expected = by_hand(pipeline, task, image=[each.condition for each in requests(task, 2)])
    assert expected.std() > 5
    assert (pixels(method.translate(requests(task, 2))) == expected).all()


def test_the_call_uses_the_recorded_scheduler_for_the_recorded_steps(depth: ControlledDiffusion) -> None:
    calls: list[Any] = []
    handle = depth.pipeline.unet.register_forward_hook(lambda module, inputs, output: calls.append(inputs[1].item()))
    depth.translate(requests("depth", 1))
    handle.remove()
    recorded = depth.settings()
    scheduler = depth.pipeline.scheduler
    assert type(scheduler).__name__ == recorded["scheduler"].pop("class")
    assert {key: scheduler.config[key] for key in recorded["scheduler"]} == recorded["scheduler"]
    assert calls == scheduler.timesteps.tolist() and len(calls) == recorded["steps"]
    assert depth.requirements().passes == {"UNet": 2 * len(calls), "ControlNet": 2 * len(calls)}


@pytest.mark.slow  # the quick test of blocks is in test_in_blocks.py
def test_an_image_depends_on_its_seed_and_condition_and_not_on_its_batch(depth: ControlledDiffusion) -> None:
    asked = requests("depth")
    together = pixels(depth.translate(asked))
    alone = pixels([depth.translate([request])[0] for request in reversed(asked)])[::-1]
    assert (together == alone).all()
    changed = [
        replace(asked[0], seed=5),
        replace(asked[0], condition=asked[1].condition),
    ]
    assert all(abs(image - together[0]).max() > 5 for image in pixels(depth.translate(changed)))


def test_noise_is_each_samples_own() -> None:
    rows = noise([3, 2**63 - 1, 3], (4, 8, 8))
    assert rows.shape == (3, 4, 8, 8) and rows.dtype == torch.float32
    assert rows[0].equal(rows[2]) and rows[1].equal(noise([2**63 - 1], (4, 8, 8))[0])
    assert not rows[0].equal(rows[1])
    assert rows[0].equal(torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))[0])


def test_a_controlnet_that_adds_nothing_leaves_stable_diffusion(
    weights: Path, depth: ControlledDiffusion, tmp_path: Path
) -> None:
    (tmp_path / BASE).symlink_to(weights / BASE)
    write_controlnet(tmp_path / FOLDERS["controlnet", "depth"], seed=10, zeroed=True)
    zeroed = pixels(loaded(controlnet(context(tmp_path, "depth"))).translate(requests("depth", 2)))
    plain = by_hand(
        StableDiffusionPipeline.from_pretrained(weights / BASE, safety_checker=None), "depth", height=SIDE, width=SIDE
    )
    assert (zeroed == plain).all()
    assert abs(pixels(depth.translate(requests("depth", 2))) - plain).max() > 5


def test_dtypes_are_recorded_and_used(weights: Path, depth: ControlledDiffusion) -> None:
    half = loaded(controlnet(context(weights, "depth"), dtype="bfloat16"))
    assert half.settings()["dtype"] == "bfloat16"
    assert {half.pipeline.unet.dtype, half.pipeline.vae.dtype, half.pipeline.controlnet.dtype} == {torch.bfloat16}
    difference = abs(pixels(half.translate(requests("depth", 1))) - pixels(depth.translate(requests("depth", 1))))
    assert 0 < difference.mean() < 5  # the same noise
    published = replace(context(weights, "depth"), device="cuda")
    assert controlnet(published).settings()["dtype"] == "float16"
    with pytest.raises(ValueError):
        controlnet(context(weights, "depth"), dtype="float8")


def test_an_image_that_is_not_finite_is_no_answer(weights: Path) -> None:
    method = loaded(controlnet(context(weights, "depth")))
    method.pipeline.vae.decoder.conv_out.bias.data[1] = float("nan")
    (answer,) = method.translate(requests("depth", 1))
    assert isinstance(answer, NoAnswer) and "not finite in float32" in str(answer)


def test_the_miniature_has_folders_of_its_own(tmp_path: Path) -> None:
    write_base(tmp_path / "diffusion")
    write_controlnet(tmp_path / "diffusion" / "controlnet-canny", seed=1)
    method = loaded(controlnet(context(tmp_path, "canny", suite="miniature")))
    settings = method.settings()
    assert settings["negative_prompt"] == "" and settings["dtype"] == "float32"
    assert "diffusion/controlnet-canny/diffusion_pytorch_model.safetensors" in settings["weights"]
    (image,) = method.translate(requests("canny", 1))
    assert isinstance(image, Image.Image) and image.size == (SIDE, SIDE)


def test_missing_weights_are_asked_for(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="DIR/stable-diffusion-v1-5"):
        controlnet(context(None, "depth")).settings()
    (tmp_path / BASE).symlink_to(weights / BASE)
    place = tmp_path / FOLDERS["controlnet-plus-plus", "depth"]
    with pytest.raises(FileNotFoundError) as error:
        controlnet_plus_plus(context(tmp_path, "depth")).settings()
    assert f"put them at {place}." in str(error.value) and "limingcv/reward_controlnet" in str(error.value)
    write_controlnet(place, seed=1)
    (place / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="diffusion_pytorch_model"):
        controlnet_plus_plus(context(tmp_path, "depth")).settings()
    with pytest.raises(FileNotFoundError):
        controlnet(context(tmp_path, "depth", suite="miniature")).settings()


def test_what_it_cannot_do_is_told_before_anything_is_loaded(weights: Path, depth: ControlledDiffusion) -> None:
    with pytest.raises(Unsupported, match="normals"):
        controlnet(context(weights, "normals"))
    with pytest.raises(Unsupported):
        controlnet_plus_plus(context(weights, "depth", suite="miniature"))
    with pytest.raises(ValueError):
        depth.translate(requests("canny", 1))
