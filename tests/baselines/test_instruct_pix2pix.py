"""InstructPix2Pix and MagicBrush with tiny random weights in diffusers' folders, against diffusers' own pipeline."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionInstructPix2PixPipeline
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from baselines import METHODS
from baselines.instruct_pix2pix import (
    INSTRUCT_PIX2PIX,
    MAGICBRUSH,
    Instructed,
    InstructedDiffusion,
    instruct_diffusion,
    instruct_pix2pix,
    magicbrush,
)
from baselines.method import EditRequest, MethodContext, NoAnswer, Unsupported
from tests.baselines.tiny_diffusion import SCHEDULER, SIDE, filled, requests, tiny_unet, write_base

FOLDERS = {"instruct-pix2pix": "instruct-pix2pix", "magicbrush": "magicbrush-jul7"}
FEW = 6  # steps where their number does not matter
# As the hub has them: the first leaves the spacing of the steps open, the second names PNDM's.
SCHEDULERS: dict[str, dict[str, Any]] = {
    "instruct-pix2pix": {
        **SCHEDULER, "_class_name": "EulerAncestralDiscreteScheduler", "_diffusers_version": "0.12.0.dev0",
        "prediction_type": "epsilon",
    },
    "magicbrush": {
        **SCHEDULER, "_diffusers_version": "0.18.1", "prediction_type": "epsilon", "timestep_spacing": "leading",
    },
}  # fmt: skip


def write_folder(folder: Path, name: str, seed: int) -> Path:
    write_base(folder)
    unet = folder / "unet"
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    filled(tiny_unet(inputs=8), seed).save_pretrained(unet, safe_serialization=name != "magicbrush")
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULERS[name]))
    if name == "instruct-pix2pix":  # of a time when diffusers called the VAE's attention so
        path = folder / "vae" / "diffusion_pytorch_model.safetensors"
        old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
        state = load_file(path)
        for new, former in old.items():
            state = {key.replace(new, former): value for key, value in state.items()}
        assert "encoder.mid_block.attentions.0.query.weight" in state
        save_file(state, path, metadata={"format": "pt"})
    if name == "magicbrush":  # the hub has it in PyTorch's format alone
        text_encoder = folder / "text_encoder"
        torch.save(load_file(text_encoder / "model.safetensors"), text_encoder / "pytorch_model.bin")
        (text_encoder / "model.safetensors").unlink()
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    for seed, (name, place) in enumerate(FOLDERS.items(), 20):
        write_folder(folder / place, name, seed)
    return folder


@pytest.fixture(scope="module")
def method(weights: Path) -> InstructedDiffusion:
    return short(context(weights), INSTRUCT_PIX2PIX)


def context(weights: Path | None, suite: str = "paper") -> MethodContext:
    return MethodContext(suite=suite, weights=weights, device="cpu", image_side=SIDE)


def loaded(method: InstructedDiffusion) -> InstructedDiffusion:
    method.load()
    return method


def short(context: MethodContext, row: Instructed, dtype: str = "float32") -> InstructedDiffusion:
    return loaded(InstructedDiffusion(context, replace(row, steps=FEW), dtype))


def edits(count: int) -> list[EditRequest]:
    """Images, instructions and seeds all differ."""
    return [
        EditRequest(
            sample_id=each.sample_id, image=each.condition, instruction=each.caption, source_prompt="",
            target_prompt="", blend_words=None, seed=each.seed,
        )
        for each in requests("segmentation", count)
    ]  # fmt: skip


def pixels(images: list[Any]) -> np.ndarray:
    assert all(image.size == (SIDE, SIDE) and image.mode == "RGB" for image in images), images
    return np.stack([np.asarray(image) for image in images]).astype(int)


def by_hand(folder: Path, asked: list[EditRequest], steps: int) -> np.ndarray:
    """The images of diffusers' pipeline, called as its documentation does."""
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(
        folder, safety_checker=None, requires_safety_checker=False, image_encoder=None
    )
    pipeline.scheduler = EulerAncestralDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="linspace"
    )
    return pixels(
        pipeline(
            prompt=[each.instruction for each in asked],
            image=[each.image for each in asked],
            num_inference_steps=steps,
            guidance_scale=7.5,
            image_guidance_scale=1.5,
            generator=[torch.Generator("cpu").manual_seed(each.seed) for each in asked],
        ).images
    )


@pytest.mark.parametrize(
    ("make", "folder", "steps"),
    [
        (instruct_pix2pix, "instruct-pix2pix", 50),
        (lambda context: InstructedDiffusion(context, replace(MAGICBRUSH, steps=FEW)), "magicbrush-jul7", FEW),
    ],
)
def test_images_are_those_of_diffusers_pipeline(
    weights: Path, make: Callable[[MethodContext], InstructedDiffusion], folder: str, steps: int
) -> None:
    found = pixels(loaded(make(context(weights))).edit(edits(1)))
    expected = by_hand(weights / folder, edits(1), steps)
    assert expected.std() > 5
    assert (found == expected).all()


def test_an_edit_depends_on_its_request_and_not_on_its_batch(weights: Path, method: InstructedDiffusion) -> None:
    asked = edits(3)
    together = pixels(method.edit(asked))
    alone = pixels([method.edit([request])[0] for request in reversed(asked)])[::-1]
    assert (together == alone).all()
    assert abs(together - by_hand(weights / FOLDERS["instruct-pix2pix"], asked, FEW)).max() <= 1
    changed = [
        replace(asked[0], seed=5),
        replace(asked[0], image=asked[1].image),
        replace(asked[0], instruction=""),
    ]
    assert all(abs(image - together[0]).max() > 5 for image in pixels(method.edit(changed)))


@pytest.mark.parametrize("name", FOLDERS)
def test_settings_are_the_published_ones(weights: Path, name: str) -> None:
    settings = METHODS[name](context(weights)).settings()
    digests = settings.pop("weights")
    network = "unet/diffusion_pytorch_model." + ("bin" if name == "magicbrush" else "safetensors")
    assert f"{FOLDERS[name]}/{network}" in digests and all(len(digest) == 64 for digest in digests.values())
    scheduler = settings.pop("scheduler")
    expected = {
        "class": "EulerAncestralDiscreteScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085,
        "beta_end": 0.012, "timestep_spacing": "linspace", "prediction_type": "epsilon",
    }  # fmt: skip
    assert {key: scheduler[key] for key in expected} == expected
    assert settings == {
        "steps": {"instruct-pix2pix": 50, "magicbrush": 100}[name], "guidance": "instruct-pix2pix",
        "text_guidance": 7.5, "image_guidance": 1.5, "dtype": "float32", "safety_checker": "off", "ema": None,
        "images_at_once": 1,
    }  # fmt: skip


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dtypes_are_recorded_and_used(weights: Path, method: InstructedDiffusion, dtype: str) -> None:
    half = short(context(weights), INSTRUCT_PIX2PIX, dtype)
    assert half.settings()["dtype"] == dtype
    networks = (half.model.unet, half.model.vae, half.model.text_encoder)
    assert {network.dtype for network in networks} == {getattr(torch, dtype)}
    difference = abs(pixels(half.edit(edits(1))) - pixels(method.edit(edits(1))))
    assert 0 < difference.mean() < 8  # the same noise
    with pytest.raises(ValueError):
        instruct_pix2pix(context(weights), dtype="float8")


def test_an_image_that_is_not_finite_is_no_answer(weights: Path) -> None:
    method = short(context(weights), INSTRUCT_PIX2PIX)
    method.model.vae.decoder.conv_out.bias.data[1] = float("nan")
    (answer,) = method.edit(edits(1))
    assert isinstance(answer, NoAnswer) and "not finite in float32" in str(answer)


@pytest.mark.parametrize("network", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("fault", ["lacks 1 of its weights", "has 1 weights that its configuration has no place for"])
def test_folders_with_keys_that_do_not_fit_are_refused(weights: Path, tmp_path: Path, network: str, fault: str) -> None:
    folder = write_folder(tmp_path / "instruct-pix2pix", "instruct-pix2pix", seed=1)
    (path,) = (folder / network).glob("*.safetensors")
    state = load_file(path)
    key = next(name for name in state if name.endswith("bias"))
    if fault.startswith("lacks"):
        del state[key]
    else:
        key = f"other.{key}"
        state[key] = torch.zeros(1)
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"{network} {fault}, {key} first"):
        instruct_pix2pix(context(tmp_path)).load()


def test_a_text_to_image_model_is_refused(tmp_path: Path) -> None:
    write_base(tmp_path / "instruct-pix2pix")
    with pytest.raises(ValueError):
        instruct_pix2pix(context(tmp_path)).load()


def test_missing_weights_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"00-22000\.ckpt"):
        instruct_pix2pix(context(None)).settings()
    with pytest.raises(FileNotFoundError) as error:
        magicbrush(context(tmp_path)).settings()
    assert f"put it at {tmp_path / 'InstructPix2Pix-MagicBrush' / 'MagicBrush-epoch-52-step-4999.ckpt'}." in str(
        error.value
    )
    with pytest.raises(FileNotFoundError):
        instruct_diffusion(context(tmp_path)).settings()
    (write_folder(tmp_path / "magicbrush-jul7", "magicbrush", seed=1) / "vae" / "config.json").unlink()
    with pytest.raises(FileNotFoundError):
        magicbrush(context(tmp_path)).settings()


def test_needs_are_told_before_anything_is_loaded(weights: Path, tmp_path: Path) -> None:
    ports: dict[str, Callable[..., InstructedDiffusion]] = {
        "instruct-pix2pix": instruct_pix2pix,
        "magicbrush": magicbrush,
    }
    told = {name: build(context(weights)).requirements() for name, build in ports.items()}
    assert {name: needs.passes for name, needs in told.items()} == {
        "instruct-pix2pix": {"UNet": 150}, "magicbrush": {"UNet": 300},
    }  # fmt: skip
    paths = {file.name: file.path for needs in told.values() for file in needs.files}
    unet = weights / "magicbrush-jul7" / "unet" / "diffusion_pytorch_model.bin"
    assert paths["magicbrush-jul7/unet/diffusion_pytorch_model.safetensors"] == unet
    assert not any(needs.absent for needs in told.values())
    first, *_ = instruct_pix2pix(context(tmp_path)).requirements().files  # the checkpoints
    assert (first.size, first.licence, first.comes) == (7_703_927_910, "MIT", "fetched")
    (absent,) = instruct_diffusion(context(tmp_path)).requirements().absent
    assert absent.name == "v1-5-pruned-emaonly-adaption-task.ckpt"
    (tmp_path / absent.name).write_bytes(b"1")
    assert not instruct_diffusion(context(tmp_path)).requirements().absent


def test_each_step_takes_three_passes(method: InstructedDiffusion) -> None:
    passes: list[int] = []
    hook = method.model.unet.register_forward_pre_hook(lambda _, given: passes.append(len(given[0])))
    method.edit(edits(1))
    hook.remove()
    assert method.requirements().passes == {"UNet": sum(passes)}


def test_the_miniature_has_a_unet_and_a_text_encoder_of_its_own(tmp_path: Path) -> None:
    base, own = tmp_path / "diffusion", tmp_path / "diffusion" / "instruct-pix2pix"
    write_base(base)
    filled(tiny_unet(inputs=8), 7).save_pretrained(own)
    source = write_base(tmp_path / "other")
    state = {name: 1.5 * value for name, value in load_file(source / "text_encoder" / "model.safetensors").items()}
    (own / "text_encoder").mkdir()
    save_file(state, own / "text_encoder" / "model.safetensors", metadata={"format": "pt"})
    (own / "text_encoder" / "config.json").write_bytes((base / "text_encoder" / "config.json").read_bytes())

    method = instruct_pix2pix(context(tmp_path, suite="miniature"))
    settings = method.settings()
    digests = settings["weights"]
    assert {"diffusion/vae/config.json", "diffusion/instruct-pix2pix/text_encoder/model.safetensors"} <= set(digests)
    assert not any(name.startswith(("diffusion/unet/", "diffusion/text_encoder/")) for name in digests)
    for other in (magicbrush, instruct_diffusion):  # on the same networks, sampled otherwise
        others = other(context(tmp_path, suite="miniature")).settings()
        assert others["weights"] == digests
        assert any(others[name] != settings[name] for name in ("steps", "guidance", "text_guidance"))
    needed = {file.name for file in method.requirements().files}
    assert not method.requirements().absent and needed <= set(digests)
    assert all("/tokenizer/" in name for name in set(digests) - needed)
    found = pixels(short(context(tmp_path, suite="miniature"), INSTRUCT_PIX2PIX).edit(edits(1)))

    whole = write_base(tmp_path / "whole")
    for network in ("unet", "text_encoder"):
        for path in (own if network == "unet" else own / network).glob("*.*"):
            (whole / network / path.name).write_bytes(path.read_bytes())
    assert (found == by_hand(whole, edits(1), FEW)).all()


def test_a_miniature_without_the_networks_is_unsupported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "diffusion").mkdir()
    monkeypatch.setattr("editar.pipeline.miniature_weights", lambda: tmp_path / "editar")
    with pytest.raises(Unsupported):
        instruct_pix2pix(context(None, suite="miniature"))
