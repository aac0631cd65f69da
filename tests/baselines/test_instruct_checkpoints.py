"""InstructPix2Pix and InstructDiffusion with narrow random weights in their authors' checkpoint layout."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from baselines.instruct_pix2pix import (
    INSTRUCT_DIFFUSION,
    INSTRUCT_PIX2PIX,
    MAGICBRUSH,
    Instructed,
    InstructedDiffusion,
    instruct_diffusion,
    instruct_pix2pix,
)
from baselines.method import MethodContext
from baselines.stable_diffusion.editing import GUIDANCE, euler_ancestral
from baselines.stable_diffusion.ldm import ema_name, unet_name
from editar.io.tensors import CheckpointError
from tests.baselines import edit_reference as slow
from tests.baselines.ldm_layout import (
    OFFICIAL,
    Touch,
    Widths,
    instructed,
    random_state,
    stable_diffusion,
    write_weights,
)
from tests.baselines.test_instruct_pix2pix import edits, loaded, pixels

FILES = {
    "instruct-pix2pix": "instruct-pix2pix-00-22000.ckpt",
    "instruct-diffusion": "v1-5-pruned-emaonly-adaption-task.ckpt",
}
# At these widths products in one thread round alike, however a file's tensors are aligned in memory: at those of
# `ldm_layout.NARROW` a port and its checkpoint differ by 1 in 3 of 12288 numbers.
NARROW = Widths(unet=(32, 64, 128, 128), vae=(32, 32, 64, 64), text=64, text_layers=2)
STEPS = 6  # few, where their number does not matter
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    """With a moving average."""
    return random_state(instructed(NARROW, average=True))


@pytest.fixture(scope="module")
def context(state: State, tmp_path_factory: pytest.TempPathFactory) -> MethodContext:
    folder = tmp_path_factory.mktemp("weights")
    write_weights(folder, FILES["instruct-pix2pix"], {"global_step": 22000, "state_dict": state})
    return write_weights(folder, FILES["instruct-diffusion"], {"state_dict": state})


def short(context: MethodContext, row: Instructed = INSTRUCT_PIX2PIX) -> InstructedDiffusion:
    return loaded(InstructedDiffusion(context, replace(row, steps=STEPS)))


def average_in_place(state: State) -> State:
    """As a pruned checkpoint has it: the average under the names of the weights, and no others."""
    unet = {name: name.removeprefix("model.").replace(".", "") for name in state if name.startswith("model.diffusion_")}
    rest = {name: value for name, value in state.items() if not name.startswith("model_ema.")}
    return {**rest, **{name: state[f"model_ema.{buffer}"] for name, buffer in unet.items()}}


def write_port(folder: Path, state: State, tokenizer: Path, *, average: bool) -> None:
    """The checkpoint as diffusers converts it."""
    unet = UNet2DConditionModel(
        in_channels=8, block_out_channels=NARROW.unet, cross_attention_dim=NARROW.text, attention_head_dim=8
    )
    unet.load_state_dict(convert_ldm_unet_checkpoint(state, {"layers_per_block": 2}, extract_ema=average))
    unet.save_pretrained(folder / "unet")
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=NARROW.vae, layers_per_block=2, latent_channels=4,
    )  # fmt: skip
    vae.load_state_dict(convert_ldm_vae_checkpoint(state, vae.config))
    vae.save_pretrained(folder / "vae")
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=NARROW.vocabulary, hidden_size=NARROW.text, intermediate_size=4 * NARROW.text,
            num_hidden_layers=NARROW.text_layers, num_attention_heads=1,
        )
    )  # fmt: skip
    prefix = "cond_stage_model.transformer.text_model."
    text.load_state_dict({name: state[prefix + name.removeprefix("text_model.")] for name in text.state_dict()})
    text.save_pretrained(folder / "text_encoder")
    CLIPTokenizer.from_pretrained(tokenizer, model_max_length=77).save_pretrained(folder / "tokenizer")
    DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").save_pretrained(
        folder / "scheduler"
    )
    (folder / "model_index.json").write_text("{}")


def test_an_edit_is_that_of_the_published_script(context: MethodContext, state: State) -> None:
    asked = edits(1)
    exact = {name: value.double() for name, value in state.items()}
    assert context.weights is not None
    tokenizer = CLIPTokenizer.from_pretrained(context.weights / "clip-vit-large-patch14")
    words, no_words = (
        tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt")["input_ids"]
        for texts in ([asked[0].instruction], [""])
    )
    image = torch.from_numpy(np.array(asked[0].image)).permute(2, 0, 1)[None].double() / 127.5 - 1
    generator = torch.Generator().manual_seed(asked[0].seed)
    noise = [torch.randn(1, 4, 8, 8, generator=generator) for _ in range(STEPS + 1)]
    expected = slow.edit(exact, (words, no_words), image, noise)
    assert expected.std() > 20
    off = abs(expected - pixels(short(context, INSTRUCT_DIFFUSION).edit(asked)))
    # Rounding is worth half a level, and diffusers interpolates the noise levels otherwise than k-diffusion.
    assert off.max() < 1.1 and off.mean() < 0.3


@pytest.mark.parametrize("steps", [50, 100])
def test_noise_levels_are_k_diffusions(steps: int) -> None:
    scheduler = euler_ancestral({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"})
    scheduler.set_timesteps(steps)
    times, sigmas = slow.noise_levels(steps)
    assert np.allclose(scheduler.timesteps.numpy(), times, atol=1e-3)
    assert np.allclose(scheduler.sigmas.numpy(), sigmas, rtol=1e-4)


def test_guidance_is_the_published_formula() -> None:
    both, image, third = torch.randn(3, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sums = (
        (INSTRUCT_PIX2PIX, 7.5 * both - 6 * image - 0.5 * third),
        (INSTRUCT_DIFFUSION, 6.25 * both - 4.5 * image - 0.75 * third),
    )
    for row, expected in sums:
        assert torch.allclose(GUIDANCE[row.guidance](both, image, third, row.by_text, row.by_image), expected)


@pytest.mark.parametrize(("row", "average"), [(INSTRUCT_PIX2PIX, True), (INSTRUCT_DIFFUSION, False)])
def test_a_port_of_the_same_weights_gives_the_same_images(
    context: MethodContext, state: State, tmp_path: Path, row: Instructed, average: bool
) -> None:
    assert context.weights is not None
    write_port(tmp_path / row.port.name, state, context.weights / "clip-vit-large-patch14", average=average)
    ported = short(replace(context, weights=tmp_path), row)
    assert ported.settings()["ema"] is None
    found = pixels(short(context, row).edit(edits(1)))
    assert found.std() > 5 and (found == pixels(ported.edit(edits(1)))).all()


def test_the_checkpoint_comes_before_its_port(context: MethodContext, tmp_path: Path) -> None:
    assert context.weights is not None
    (tmp_path / "instruct-pix2pix").mkdir()  # as the hub's repository has both
    for name in (FILES["instruct-pix2pix"], "clip-vit-large-patch14"):
        place = tmp_path / "instruct-pix2pix" / name if name.endswith("ckpt") else tmp_path / name
        place.symlink_to(context.weights / name)
    assert FILES["instruct-pix2pix"] in instruct_pix2pix(replace(context, weights=tmp_path)).settings()["weights"]


def test_the_average_is_taken_where_the_authors_do(context: MethodContext, state: State, tmp_path: Path) -> None:
    pruned = write_weights(tmp_path, FILES["instruct-pix2pix"], average_in_place(state))
    methods = {True: short(context), False: short(pruned)}
    assert all(method.settings()["ema"] is averaged for averaged, method in methods.items())
    first, second = (pixels(method.edit(edits(1))) for method in methods.values())
    assert (first == second).all()

    kept = instruct_diffusion(context)
    assert kept.settings()["ema"] is False
    weight = loaded(kept).model.unet.conv_in.weight
    assert weight.equal(state["model.diffusion_model.input_blocks.0.0.weight"])
    assert not weight.equal(methods[True].model.unet.conv_in.weight)


def test_every_weight_has_a_place_of_its_own_in_the_average() -> None:
    keys = instructed(OFFICIAL, average=True)
    unet = [name for name in keys if name.startswith("model_ema.diffusion_model")]
    converted = convert_ldm_unet_checkpoint(
        {name: torch.empty(shape, device="meta") for name, shape in keys.items()}, {"layers_per_block": 2}
    )
    assert {f"model_ema.{ema_name(name)}" for name in converted} == set(unet)
    assert {f"model.diffusion_model.{unet_name(name)}" for name in converted} <= set(keys)
    assert len(unet) == len(converted) == 686


def _drop(key: str) -> Callable[[State], object]:
    return lambda state: state.pop(key)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (_drop("model_ema.diffusion_modelout2bias"), "missing model_ema.diffusion_modelout2bias"),
        (lambda state: state.update({"model_ema.other": torch.zeros(1)}), "unexpected model_ema.other"),
        (_drop("first_stage_model.encoder.conv_in.bias"), "missing first_stage_model.encoder.conv_in.bias"),
        (
            lambda state: state.update({"first_stage_model.loss.logvar": torch.zeros(1)}),
            "unexpected first_stage_model.loss.logvar",
        ),
        (_drop("model.diffusion_model.input_blocks.0.0.weight"), "input_blocks.0.0.weight is missing"),
    ],
)
def test_keys_that_do_not_fit_are_named(
    state: State, tmp_path: Path, change: Callable[[State], object], fault: str
) -> None:
    changed = dict(state)
    change(changed)
    context = write_weights(tmp_path, FILES["instruct-pix2pix"], changed)
    with pytest.raises(CheckpointError) as error:
        instruct_pix2pix(context).load()
    assert fault in str(error.value) and str(tmp_path / FILES["instruct-pix2pix"]) in str(error.value)


def test_a_pickle_that_would_run_code_is_refused(state: State, tmp_path: Path) -> None:
    content = {"state_dict": state, "callbacks": Touch(tmp_path / "touched")}
    context = write_weights(tmp_path, FILES["instruct-pix2pix"], content)
    with pytest.raises(CheckpointError):
        instruct_pix2pix(context).load()
    assert not (tmp_path / "touched").exists()


def test_a_text_to_image_checkpoint_is_refused(tmp_path: Path) -> None:
    context = write_weights(tmp_path, FILES["instruct-pix2pix"], random_state(stable_diffusion(NARROW)))
    with pytest.raises(ValueError):
        instruct_pix2pix(context).load()


def test_settings_are_the_published_ones(context: MethodContext) -> None:
    settings = instruct_diffusion(context).settings()
    assert set(settings.pop("weights")) == {
        FILES["instruct-diffusion"], "clip-vit-large-patch14/merges.txt", "clip-vit-large-patch14/vocab.json",
    }  # fmt: skip
    scheduler = settings.pop("scheduler")
    assert (scheduler["class"], scheduler["timestep_spacing"]) == ("EulerAncestralDiscreteScheduler", "linspace")
    assert (scheduler["beta_schedule"], scheduler["beta_start"], scheduler["beta_end"]) == (
        "scaled_linear", 0.00085, 0.012,
    )  # fmt: skip
    assert settings == {
        "steps": 50, "guidance": "instruct-diffusion", "text_guidance": 5.0, "image_guidance": 1.25,
        "dtype": "float32", "safety_checker": "off", "ema": False, "images_at_once": 1,
    }  # fmt: skip
    published = MAGICBRUSH.checkpoint
    assert MAGICBRUSH.steps == 100 and published.repository.startswith("osunlp/")
