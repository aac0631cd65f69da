"""UniControl with narrow random weights in the official layout, against a slow transcription of the published code."""

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
from baselines.unified.methods import UNICONTROL, UnifiedControl
from baselines.unified.unicontrol_branch import read_branch
from editar.io.tensors import CheckpointError, map_pickle
from tests.baselines import ldm_reference as slow
from tests.baselines.compare import pixels, relative
from tests.baselines.ldm_layout import NARROW, OFFICIAL, POSITIONS, Touch, random_state, unicontrol, write_weights
from tests.baselines.tiny_diffusion import SIDE, requests

EXPERTS = {"canny": 1, "segmentation": 2, "depth": 3}
INSTRUCTIONS = {
    "canny": "canny edge to image",
    "segmentation": "segmentation map to image",
    "depth": "depth map to image",
}


@pytest.fixture(scope="module")
def state() -> slow.State:
    return random_state(unicontrol(NARROW))


@pytest.fixture(scope="module")
def context(state: slow.State, tmp_path_factory: pytest.TempPathFactory) -> MethodContext:
    content = {"epoch": 3, "state_dict": state}  # as Lightning writes it
    return write_weights(tmp_path_factory.mktemp("weights"), "unicontrol.ckpt", content)


@pytest.fixture(scope="module")
def exact(state: slow.State) -> slow.State:
    return {name: value.double() for name, value in state.items()}


@pytest.fixture(scope="module")
def method(context: MethodContext) -> UnifiedControl:
    method = UnifiedControl(context, UNICONTROL)
    method.load()
    return method


@pytest.mark.parametrize("expert", [1, 12])
def test_control_and_noise_are_those_of_the_published_architecture(
    context: MethodContext, exact: slow.State, expert: int
) -> None:
    assert context.weights is not None
    path = context.weights / "unicontrol.ckpt"
    loaded, _ = map_pickle(path)
    sizes = Sizes.of(loaded, path)
    branch = read_branch(loaded, sizes, path, "cpu")
    model = read_stable_diffusion(loaded, sizes, path, context.weights / "clip-vit-large-patch14", "cpu")
    random = torch.Generator().manual_seed(expert)
    latents, text = torch.randn(2, 4, 8, 8, generator=random), torch.randn(2, 77, 64, generator=random)
    hint, feature = torch.rand(2, 3, SIDE, SIDE, generator=random), torch.randn(1, 64, generator=random)

    times = torch.full((2,), 741)
    expected = slow.unicontrol(exact, latents.double(), hint.double(), times, text.double(), expert, feature.double())
    expected_noise = slow.unet(exact, latents.double(), times, text.double(), expected)
    with torch.inference_mode():
        task = branch.embed_task(feature)
        down, middle = branch(latents, torch.tensor(741), text, branch.embed_hint(hint, expert, task), task)
        noise = model.unet(
            latents,
            torch.tensor(741),
            encoder_hidden_states=text,
            down_block_additional_residuals=tuple(down),
            mid_block_additional_residual=middle,
        ).sample
    assert len(down) == 12 and all(float(each.std()) > 0.01 for each in expected)
    for found, reference in zip([*down, middle], expected, strict=True):
        assert found.shape == reference.shape and relative(found, reference) < 1e-4
    assert relative(noise, expected_noise) < 1e-4
    other = slow.unicontrol(exact, latents.double(), hint.double() / 2, times, text.double(), expert, feature.double())
    assert relative(slow.unet(exact, latents.double(), times, text.double(), other), expected_noise) > 0.01


@pytest.mark.slow
def test_an_image_is_that_of_the_published_script(method: UnifiedControl, exact: slow.State) -> None:
    asked = requests("depth", 1)
    assert method.weights is not None
    tokenizer = CLIPTokenizer.from_pretrained(method.weights / "clip-vit-large-patch14")

    def tokens(texts: list[str]) -> torch.Tensor:
        return tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt")["input_ids"]

    feature = slow.text_encoder(exact, tokens([INSTRUCTIONS["depth"]]))[:, 0]
    hint = torch.stack([torch.from_numpy(np.array(each.condition)) for each in asked]).permute(0, 3, 1, 2) / 255.0
    noise = [torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(each.seed)) for each in asked]
    expected = slow.images(
        exact,
        (tokens([f"{each.caption}, best quality, extremely detailed" for each in asked]), tokens([""])),
        torch.stack(noise),
        lambda latents, times, text: slow.unicontrol(
            exact, latents, hint.double(), times, text, EXPERTS["depth"], feature
        ),
        guidance=9.0,
    )
    assert expected.std() > 20
    # Whole levels are what is left of the fraction; an error of rounding may cost one more.
    off = expected - pixels(method.translate(asked))
    assert off.min() > -0.1 and off.max() < 1.1


@pytest.mark.slow
def test_images_follow_seeds_captions_and_maps_and_not_batches(method: UnifiedControl) -> None:
    asked = requests("depth", 2)
    together = pixels(method.translate(asked))
    alone = np.concatenate([pixels(method.translate([request])) for request in reversed(asked)])[::-1]
    assert (together == alone).all()
    first = asked[0]
    others = pixels(
        method.translate(
            [replace(first, seed=7), replace(first, caption="a goat"), replace(first, condition=asked[1].condition)]
        )
    )
    changes = [float(np.abs(other - together[0]).max()) for other in others]
    assert min(changes) > 5, changes


def test_tasks_are_not_mixed(method: UnifiedControl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method, "images_at_once", 2)
    with pytest.raises(ValueError):
        method.translate([*requests("depth", 1), *requests("canny", 1)])


def test_settings_say_how_and_with_which_files(context: MethodContext) -> None:
    settings = UnifiedControl(context, UNICONTROL).settings()  # before any load
    assert (settings["steps"], settings["guidance"], settings["negative_prompt"]) == (50, 9.0, "")
    assert {task: (each["expert"], each["instruction"]) for task, each in settings["tasks"].items()} == {
        task: (EXPERTS[task], INSTRUCTIONS[task]) for task in EXPERTS
    }
    names = {"unicontrol.ckpt", "clip-vit-large-patch14/vocab.json", "clip-vit-large-patch14/merges.txt"}
    assert set(settings["weights"]) == names and all(len(digest) == 64 for digest in settings["weights"].values())
    json.dumps(settings)


def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path) -> None:
    weights = write_weights(tmp_path, "unicontrol.ckpt", {"state_dict": {}, "hook": Touch(tmp_path / "ran")})
    method = UnifiedControl(weights, UNICONTROL)
    with pytest.raises(CheckpointError):
        method.load()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("control_model.task_id_layernet.3.weight", None, "missing {key}"),
        ("control_model.input_blocks.4.0.in_layers.2.bias", None, "missing {key}"),
        ("control_model.zero_convs.5.0.bias", torch.zeros(3), r"{key} has shape \(3,\) instead of \(64,\)"),
        ("control_model.task_weight", torch.zeros(3), "unexpected {key}"),
    ],
)
def test_keys_that_do_not_fit_are_named(state: slow.State, key: str, value: torch.Tensor | None, fault: str) -> None:
    wrong = {**state, key: value} if value is not None else {name: state[name] for name in state if name != key}
    path = Path("unicontrol.ckpt")
    with pytest.raises(CheckpointError, match=r"unicontrol\.ckpt .*" + fault.format(key=key)):
        read_branch(wrong, Sizes.of(wrong, path), path, "cpu")


def test_the_official_checkpoint_maps_one_to_one() -> None:
    shapes = unicontrol(OFFICIAL)
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    path = Path("unicontrol.ckpt")
    branch = read_branch(state, Sizes.of(state, path), path, "meta")  # raises where a key is left over or missing
    own = {name: shape for name, shape in shapes.items() if name.startswith("control_model.")}
    assert len(own) == 450 and len(branch.state_dict()) == 446  # without the twins of two convolutions
    twins = 32 * 32 * 9 + 32 + 256 * 320 * 9 + 320
    assert sum(each.numel() for each in branch.parameters()) == sum(map(math.prod, own.values())) - twins == 376_667_792
    # The file unicontrol_v1.1.ckpt on the hub, of the same layout, has 5 775 335 939 bytes; PyTorch's format takes some
    # 430 for each tensor besides its values.
    values = sum(math.prod(shape) * (8 if name == POSITIONS else 4) for name, shape in shapes.items())
    assert 400 < (5_775_335_939 - values) / len(shapes) < 450


def test_weights_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    nowhere = MethodContext(suite="paper", weights=tmp_path, device="cpu", image_side=SIDE)
    method = TRANSLATORS["unicontrol"](nowhere)
    with pytest.raises(FileNotFoundError, match=r"unicontrol\.ckpt"):
        method.settings()
    torch.save({}, tmp_path / "unicontrol.ckpt")
    with pytest.raises(FileNotFoundError, match=r"merges\.txt, vocab\.json"):
        method.settings()
    with pytest.raises(Unsupported):
        TRANSLATORS["unicontrol"](replace(nowhere, suite="miniature"))
