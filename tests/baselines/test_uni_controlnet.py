"""Uni-ControlNet with narrow random weights in the official layout, against a slow transcription of the published
code."""

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from transformers import CLIPTokenizer

from baselines import TRANSLATORS
from baselines.method import MethodContext, Unsupported
from baselines.stable_diffusion.ldm import Sizes, read_stable_diffusion
from baselines.unified.local_adapter import read_adapters
from baselines.unified.methods import UNI_CONTROLNET, UnifiedControl, combined_hints
from editar.io.tensors import CheckpointError, map_pickle
from tests.baselines import ldm_reference as slow
from tests.baselines.compare import pixels, relative
from tests.baselines.ldm_layout import NARROW, OFFICIAL, POSITIONS, Touch, random_state, uni_controlnet, write_weights
from tests.baselines.tiny_diffusion import SIDE, requests

CHANNELS = {"canny": (0, 3), "depth": (15, 18), "segmentation": (18, 21)}
NEGATIVE = (
    "longbody, lowres, bad anatomy, bad hands, missing fingers, extra digit, fewer digits, cropped, worst quality, "
    "low quality"
)


@pytest.fixture(scope="module")
def state() -> slow.State:
    return random_state(uni_controlnet(NARROW))


@pytest.fixture(scope="module")
def context(state: slow.State, tmp_path_factory: pytest.TempPathFactory) -> MethodContext:
    return write_weights(tmp_path_factory.mktemp("weights"), "uni.ckpt", state)  # bare, as their script saves it


@pytest.fixture(scope="module")
def exact(state: slow.State) -> slow.State:
    return {name: value.double() for name, value in state.items()}


@pytest.fixture(scope="module")
def method(context: MethodContext) -> UnifiedControl:
    method = UnifiedControl(context, UNI_CONTROLNET)
    method.load()
    return method


def test_control_and_noise_are_those_of_the_published_architecture(context: MethodContext, exact: slow.State) -> None:
    assert context.weights is not None
    path = context.weights / "uni.ckpt"
    loaded, _ = map_pickle(path)
    sizes = Sizes.of(loaded, path)
    local, content = read_adapters(loaded, sizes, path, "cpu")
    model = read_stable_diffusion(loaded, sizes, path, context.weights / "clip-vit-large-patch14", "cpu")
    random = torch.Generator().manual_seed(0)
    latents, text = torch.randn(2, 4, 8, 8, generator=random), torch.randn(2, 81, 64, generator=random)
    hint, example = torch.rand(2, 21, SIDE, SIDE, generator=random), torch.randn(2, 64, generator=random)

    times = torch.full((2,), 741)
    expected = slow.local_adapter(exact, latents.double(), hint.double(), times, text.double())
    expected_noise = slow.unet(exact, latents.double(), times, text.double(), expected)
    with torch.inference_mode():
        down, middle = local(latents, torch.tensor(741), text, local.embed_hint(hint))
        noise = model.unet(
            latents,
            torch.tensor(741),
            encoder_hidden_states=text,
            down_block_additional_residuals=tuple(down),
            mid_block_additional_residual=middle,
        ).sample
        words = content(example)
    assert len(down) == 12 and all(float(each.std()) > 0.01 for each in expected)
    for found, reference in zip([*down, middle], expected, strict=True):
        assert found.shape == reference.shape and relative(found, reference) < 1e-4
    assert relative(noise, expected_noise) < 1e-4
    other = slow.local_adapter(exact, latents.double(), hint.double() / 2, times, text.double())
    assert relative(slow.unet(exact, latents.double(), times, text.double(), other), expected_noise) > 0.01
    assert words.shape == (2, 4, 64) and relative(words, slow.global_adapter(exact, example.double())) < 1e-4


@pytest.mark.slow
def test_an_image_is_that_of_the_published_script(method: UnifiedControl, exact: slow.State) -> None:
    asked = requests("segmentation", 1)
    assert method.weights is not None
    tokenizer = CLIPTokenizer.from_pretrained(method.weights / "clip-vit-large-patch14")

    def tokens(texts: list[str]) -> torch.Tensor:
        return tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt")["input_ids"]

    maps = torch.stack([torch.from_numpy(np.array(each.condition)) for each in asked]).permute(0, 3, 1, 2) / 255.0
    hint = torch.cat([torch.zeros(1, 18, SIDE, SIDE), maps], dim=1).double()
    noise = [torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(each.seed)) for each in asked]
    words = slow.global_adapter(exact, torch.zeros(1, 64, dtype=torch.float64))
    assert float(words.abs().max()) > 0.01  # an absent example image is not the same as no global adapter
    expected = slow.images(
        exact,
        (tokens([f"{each.caption}, best quality, extremely detailed" for each in asked]), tokens([NEGATIVE])),
        torch.stack(noise),
        lambda latents, times, text: slow.local_adapter(exact, latents, hint, times, text),
        guidance=7.5,
        words=words,
    )
    assert expected.std() > 20
    # Whole levels are what is left of the fraction; an error of rounding may cost one more.
    off = expected - pixels(method.translate(asked))
    assert off.min() > -0.1 and off.max() < 1.1


@pytest.mark.parametrize("task", sorted(CHANNELS))
def test_a_map_lands_in_its_kinds_channels(task: str) -> None:
    asked = requests(task, 2)
    hint = combined_hints(asked)
    assert hint.shape == (2, 21, SIDE, SIDE) and hint.dtype == torch.float32
    first, last = CHANNELS[task]
    for found, request in zip(hint, asked, strict=True):
        levels = np.asarray(request.condition)
        assert np.array_equal((found[first:last] * 255).round().byte().permute(1, 2, 0).numpy(), levels)
    assert float(hint.max()) <= 1 and not hint[:, :first].any() and not hint[:, last:].any()


@pytest.mark.slow
def test_images_follow_seeds_captions_and_maps_and_not_batches(method: UnifiedControl) -> None:
    asked = requests("depth", 2)
    together = pixels(method.translate(asked))
    alone = np.concatenate([pixels(method.translate([request])) for request in reversed(asked)])[::-1]
    assert (together == alone).all()
    first = asked[0]
    others = pixels(
        method.translate(
            [
                replace(first, seed=7),
                replace(first, caption="a goat"),
                replace(first, condition=asked[1].condition),
                replace(first, task="canny"),
            ]
        )
    )
    changes = [float(np.abs(other - together[0]).max()) for other in others]
    assert min(changes) > 5, changes


def test_settings_say_how_and_with_which_files(context: MethodContext) -> None:
    settings = UnifiedControl(context, UNI_CONTROLNET).settings()  # before any load
    assert (settings["steps"], settings["guidance"], settings["negative_prompt"]) == (50, 7.5, NEGATIVE)
    assert settings["hint_channels"] == {task: first for task, (first, _) in CHANNELS.items()}
    names = {"uni.ckpt", "clip-vit-large-patch14/vocab.json", "clip-vit-large-patch14/merges.txt"}
    assert set(settings["weights"]) == names and all(len(digest) == 64 for digest in settings["weights"].values())
    json.dumps(settings)


def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path) -> None:
    weights = write_weights(tmp_path, "uni.ckpt", {"weight": Touch(tmp_path / "ran")})
    method = UnifiedControl(weights, UNI_CONTROLNET)
    with pytest.raises(CheckpointError):
        method.load()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("local_adapter.input_blocks.4.0.norm_in.conv_gamma.weight", None, "missing {key}"),
        ("local_adapter.feature_extractor.zero_convs.2.bias", None, "missing {key}"),
        (
            "local_adapter.input_blocks.7.0.norm_out.conv_beta.bias",
            torch.zeros(3),
            r"{key} has shape \(3,\) instead of",
        ),
        ("local_adapter.input_blocks.1.0.in_layers.0.weight", torch.zeros(32), "unexpected {key}"),
        ("global_adapter.ff1.net.2.bias", None, "missing {key}"),
    ],
)
def test_keys_that_do_not_fit_are_named(state: slow.State, key: str, value: torch.Tensor | None, fault: str) -> None:
    wrong = {**state, key: value} if value is not None else {name: state[name] for name in state if name != key}
    path = Path("uni.ckpt")
    with pytest.raises(CheckpointError, match=r"uni\.ckpt .*" + fault.format(key=key)):
        read_adapters(wrong, Sizes.of(wrong, path), path, "cpu")


def test_the_official_checkpoint_maps_one_to_one() -> None:
    shapes = uni_controlnet(OFFICIAL)
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    path = Path("uni.ckpt")
    local, content = read_adapters(state, Sizes.of(state, path), path, "meta")  # raises where a key is left or missing
    for module, prefix, keys, numbers in (
        (local, "local_adapter.", 366, 411_903_552),
        (content, "global_adapter.", 12, 47_213_568),
    ):
        own = [math.prod(shape) for name, shape in shapes.items() if name.startswith(prefix)]
        assert len(own) == len(module.state_dict()) == keys
        assert sum(own) == sum(each.numel() for each in module.parameters()) == numbers
    # The published file has 6 102 119 495 bytes; PyTorch's format takes some 430 for each tensor besides its values.
    values = sum(math.prod(shape) * (8 if name == POSITIONS else 4) for name, shape in shapes.items())
    assert 400 < (6_102_119_495 - values) / len(shapes) < 450


def test_weights_are_found_in_the_hubs_cache_or_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    nowhere = MethodContext(suite="paper", weights=None, device="cpu", image_side=SIDE)
    method = TRANSLATORS["uni-controlnet"](nowhere)
    with pytest.raises(FileNotFoundError, match=r"uni\.ckpt"):
        method.settings()
    for repository, revision, names in (
        ("shihaozhao--uni-controlnet", "bf7c447d577e82a15d9f54d9f2db401fa7f82a4e", ["uni.ckpt"]),
        (
            "openai--clip-vit-large-patch14",
            "32bd64288804d66eefd0ccbe215aa642df71cc41",
            ["vocab.json", "merges.txt"],
        ),
    ):
        folder = tmp_path / "hub" / f"models--{repository}" / "snapshots" / revision
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).write_text(name)
    digests = method.settings()["weights"]
    assert digests["uni.ckpt"] == hashlib.sha256(b"uni.ckpt").hexdigest() and len(digests) == 3
    with pytest.raises(Unsupported):
        TRANSLATORS["uni-controlnet"](replace(nowhere, suite="miniature"))
