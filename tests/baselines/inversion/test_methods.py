"""The rows as the benchmark sees them: where weights come from, settings, the cache of inversions."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

import editar.pipeline
from baselines.inversion.ddim import DiffusionSettings, Schedule
from baselines.inversion.masactrl import MasaCtrl, MasaCtrlSettings
from baselines.inversion.null_text import NullTextInversion, NullTextSettings
from baselines.inversion.pix2pix_zero import Pix2PixZero, Pix2PixZeroSettings
from baselines.inversion.prompt_to_prompt import PnPInversion, PromptToPrompt, PromptToPromptSettings
from baselines.method import MethodContext, Unsupported
from tests.flips import COUNTS, flips

CLASSES = (PromptToPrompt, NullTextInversion, PnPInversion, MasaCtrl, Pix2PixZero)
TWO_STEPS = PromptToPromptSettings(steps=2)


@pytest.mark.parametrize("kind", CLASSES)
def test_missing_weights_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError):
        kind(MethodContext(suite="miniature", weights=tmp_path, device="cpu", image_side=64)).settings()
    with pytest.raises(FileNotFoundError):
        kind(MethodContext(suite="paper", weights=tmp_path, device="cpu", image_side=512)).settings()


@pytest.mark.parametrize("kind", CLASSES)
def test_the_miniature_may_have_no_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind) -> None:
    monkeypatch.setattr(editar.pipeline, "miniature_weights", lambda: tmp_path / "editar")
    context = MethodContext(suite="miniature", weights=None, device="cpu", image_side=64)
    with pytest.raises(Unsupported):
        kind(context)
    (tmp_path / "diffusion").mkdir()
    kind(context)


COUNTED = {
    PromptToPrompt: TWO_STEPS,
    PnPInversion: TWO_STEPS,
    NullTextInversion: NullTextSettings(
        steps=2, inner_steps=3, tolerance=0.0, tolerance_growth=0.0
    ),  # never near enough
    MasaCtrl: MasaCtrlSettings(steps=2, first_step=1),
    Pix2PixZero: Pix2PixZeroSettings(steps=2),
}


@pytest.mark.parametrize("kind", CLASSES)
def test_the_network_runs_as_often_as_the_method_says(context: MethodContext, make_request, kind) -> None:
    method = kind(context, COUNTED[kind])
    method.load()
    passes = {True: 0, False: 0}  # with a gradient, without

    def count(module, inputs, output) -> None:
        passes[output.sample.requires_grad] += len(inputs[0])

    handle = method.model.unet.register_forward_hook(count)
    method.edit([make_request(0), make_request(1)])
    handle.remove()
    told = method.requirements().passes
    with_gradient = sum(count for name, count in told.items() if "gradient" in name)
    assert (passes[False], passes[True]) == (2 * told["UNet"], 2 * with_gradient)


def test_pix2pix_zero_asks_for_its_captioner(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    shutil.copytree(weights / "diffusion", tmp_path / "stable-diffusion-v1-4")
    with pytest.raises(FileNotFoundError):
        Pix2PixZero(MethodContext(suite="paper", weights=tmp_path, device="cpu", image_side=64)).settings()


@pytest.mark.parametrize("kind", CLASSES)
def test_settings_are_the_published_ones_and_follow_the_weights(context: MethodContext, tmp_path: Path, kind) -> None:
    settings = kind(context).settings()
    assert json.loads(json.dumps(settings)) == settings
    assert (settings["steps"], settings["guidance"], settings["steps_offset"]) == (50, 7.5, 1)
    assert {"diffusion/unet/config.json", "diffusion/tokenizer/merges.txt"} <= set(settings["weights"])
    assert all(len(digest) == 64 for digest in settings["weights"].values())
    assert context.weights is not None
    shutil.copytree(context.weights, tmp_path, dirs_exist_ok=True)
    network = tmp_path / "diffusion" / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(network)
    tensors["conv_in.bias"] += 1
    save_file(tensors, network, {"format": "pt"})
    other = kind(replace(context, weights=tmp_path)).settings()
    changed = {name for name in settings["weights"] if settings["weights"][name] != other["weights"][name]}
    assert changed == {"diffusion/unet/diffusion_pytorch_model.safetensors"}


def test_a_network_that_predicts_something_else_is_refused(context: MethodContext, tmp_path: Path) -> None:
    assert context.weights is not None
    shutil.copytree(context.weights, tmp_path, dirs_exist_ok=True)
    config = tmp_path / "diffusion" / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace('"epsilon"', '"v_prediction"'))
    with pytest.raises(ValueError):
        PromptToPrompt(replace(context, weights=tmp_path)).load()


def rename(path: Path, *changes: tuple[str, str]) -> None:
    tensors = load_file(path)
    for old, new in changes:
        tensors = {name.replace(old, new): tensor for name, tensor in tensors.items()}
    save_file(tensors, path, {"format": "pt"})


def test_the_official_files_names_of_weights_are_read(context: MethodContext, make_request, tmp_path: Path) -> None:
    assert context.weights is not None
    shutil.copytree(context.weights, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "diffusion"
    attention = ((".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn."))
    rename(folder / "vae" / "diffusion_pytorch_model.safetensors", *attention)
    text = folder / "text_encoder" / "model.safetensors"
    tensors = {name.removeprefix("text_model."): tensor for name, tensor in load_file(text).items()}
    official = {f"text_model.{name}": tensor for name, tensor in tensors.items()}
    position_ids = {"text_model.embeddings.position_ids": torch.arange(20)[None]}
    save_file({**official, **position_ids}, text, {"format": "pt"})
    methods = [PromptToPrompt(replace(context, weights=each), TWO_STEPS) for each in (context.weights, tmp_path)]
    for method in methods:
        method.load()
    ours, officials = (method.latents([make_request()]) for method in methods)
    assert torch.equal(ours, officials)


def test_missing_weights_are_not_left_random(context: MethodContext, tmp_path: Path) -> None:
    assert context.weights is not None
    shutil.copytree(context.weights, tmp_path, dirs_exist_ok=True)
    rename(tmp_path / "diffusion" / "text_encoder" / "model.safetensors", ("final_layer_norm.bias", "elsewhere"))
    with pytest.raises(ValueError, match=r"final_layer_norm\.bias"):
        PromptToPrompt(replace(context, weights=tmp_path)).load()


def test_the_published_timesteps() -> None:
    config = {
        "_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    }  # fmt: skip
    schedule = Schedule(config, DiffusionSettings())
    assert schedule.timesteps == list(range(981, 0, -20)) and schedule.stride == 20
    assert Schedule(config, DiffusionSettings(steps=4)).timesteps == [751, 501, 251, 1]
    latents, noise = torch.randn(2, 4, 8, 8).double()
    there_and_back = schedule.move(schedule.move(latents, noise, -19, 981), noise, 981, -19)
    assert torch.allclose(there_and_back, latents, atol=1e-9)
    with pytest.raises(ValueError):
        Schedule(config, DiffusionSettings(steps=1000))


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError):
        DiffusionSettings(steps=0)
    with pytest.raises(ValueError):
        PromptToPromptSettings(cross_replace=1.5)
    with pytest.raises(ValueError):
        MasaCtrlSettings(steps=4, first_step=9)
    with pytest.raises(ValueError):
        NullTextSettings(steps=200)


def test_methods_share_their_inversions(context: MethodContext, make_request, tmp_path: Path) -> None:
    cached = replace(context, cache=tmp_path)
    first, second = PromptToPrompt(cached, TWO_STEPS), PnPInversion(cached, TWO_STEPS)
    first.load()
    second.load()
    requests = [make_request(0), make_request(1)]
    expected = first.trajectories(requests)
    paths = list(tmp_path.rglob("*.safetensors"))
    assert len(paths) == 2 and not list(tmp_path.rglob("*.tmp"))
    assert torch.equal(second.trajectories(requests[::-1]), expected.flip(1))

    written = [path.stat().st_mtime_ns for path in paths]
    for path in paths:  # what is read is what lies there
        save_file({"tensor": load_file(path)["tensor"] + 1}, path)
        path.with_name(f"{path.name}.sha256").unlink()  # with it the change would be seen
        os.utime(path, ns=(0, 0))
    assert torch.equal(second.trajectories(requests), expected + 1) and all(written)
    assert all(path.stat().st_mtime_ns == 0 for path in paths)

    paths[0].write_bytes(b"")
    with pytest.raises(ValueError):
        second.trajectories(requests)


def test_as_many_images_are_inverted_together_however_many_are_known(
    context: MethodContext, make_request, tmp_path: Path
) -> None:
    """Products of other sizes round differently."""
    method = PromptToPrompt(replace(context, cache=tmp_path, images_at_once=3), TWO_STEPS)
    method.load()
    rows: set[int] = set()
    handle = method.model.unet.register_forward_hook(lambda module, inputs, output: rows.add(len(inputs[0])))
    first, second, third = (make_request(number) for number in range(3))
    for requests in ([first, first, first], [first, second, second], [first, second, third], [first, second, third]):
        method.trajectories(requests)
    handle.remove()
    assert rows == {3} and len(list(tmp_path.rglob("*.safetensors"))) == 3


@pytest.mark.parametrize("count", COUNTS)
def test_an_inversion_that_lost_a_bit_is_made_again(
    context: MethodContext, make_request, tmp_path: Path, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    method = PromptToPrompt(replace(context, cache=tmp_path), TWO_STEPS)
    method.load()
    expected = method.trajectories([make_request()])
    (path,) = tmp_path.rglob("*.safetensors")
    whole = path.read_bytes()
    for damaged in flips(whole, count):
        path.write_bytes(damaged)
        assert torch.equal(method.trajectories([make_request()]), expected) and path.read_bytes() == whole
    assert capsys.readouterr().err.count(f"{path} was damaged, and is made again") == count


@pytest.mark.parametrize("changes", [{"source_prompt": "a cat"}, {"image": None}, {"steps": 3}])
def test_another_inversion_is_another_entry(context: MethodContext, make_request, tmp_path: Path, changes) -> None:
    cached = replace(context, cache=tmp_path)
    method = PromptToPrompt(cached, TWO_STEPS)
    method.load()
    method.trajectories([make_request()])
    if "image" in changes:
        changes = {"image": make_request(1).image}
    other = PromptToPrompt(cached, replace(TWO_STEPS, steps=changes.pop("steps", 2)))
    other.load()
    other.trajectories([make_request(**changes)])
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2


def test_without_a_folder_nothing_is_kept(context: MethodContext, make_request) -> None:
    method = PromptToPrompt(context, TWO_STEPS)
    method.load()
    assert torch.equal(method.trajectories([make_request()]), method.trajectories([make_request()]))
