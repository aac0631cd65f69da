"""What the unified methods share: Stable Diffusion out of an LDM checkpoint, and the published sampler."""

from pathlib import Path

import pytest
import torch
from diffusers.loaders.single_file_utils import (
    convert_controlnet_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from transformers import CLIPTokenizer

from baselines.stable_diffusion.ldm import Sizes, read_stable_diffusion, unet_name, vae_name
from baselines.unified.sampling import ddim, decode, sample
from baselines.unified.settings import SamplerSettings
from editar.io.tensors import CheckpointError
from tests.baselines import ldm_reference as slow
from tests.baselines.compare import pixels, relative
from tests.baselines.ldm_layout import (
    NARROW,
    OFFICIAL,
    POSITIONS,
    random_state,
    stable_diffusion,
    unicontrol,
    write_weights,
)

PATH = Path("sd.ckpt")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_weights(folder, "sd.ckpt", {})
    return folder / "clip-vit-large-patch14"


def shapes_only(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def test_the_official_layout_of_stable_diffusion_maps_one_to_one(tokenizer: Path) -> None:
    state = shapes_only(stable_diffusion(OFFICIAL))
    model = read_stable_diffusion(state, Sizes.of(state, PATH), PATH, tokenizer, "meta")
    counts = {
        name: (len(module.state_dict()), sum(each.numel() for each in module.parameters()))
        for name, module in (("unet", model.unet), ("vae", model.vae), ("text", model.text_encoder))
    }
    # Stable Diffusion 1.5's, as its diffusers folders on the hub have them.
    assert counts == {"unet": (686, 859_520_964), "vae": (248, 83_653_863), "text": (196, 123_060_480)}


def test_names_are_those_of_diffusers_converters() -> None:
    state = shapes_only(unicontrol(OFFICIAL))
    unet = convert_ldm_unet_checkpoint(state, {"layers_per_block": 2})
    assert len(unet) == 686
    for name, tensor in unet.items():
        assert tensor is state[f"model.diffusion_model.{unet_name(name)}"]
    parts = ("time_embed.", "input_blocks.", "middle_block")
    trunk = {name.removeprefix("control_model."): each for name, each in state.items() if "control_model." in name}
    trunk = {name: each for name, each in trunk.items() if name.startswith(parts)}
    control = convert_controlnet_checkpoint(trunk, {"layers_per_block": 2})
    control = {name: each for name, each in control.items() if not name.startswith("controlnet_")}
    assert len(control) == 298
    for name, tensor in control.items():
        assert tensor is trunk[unet_name(name)]
    vae = convert_ldm_vae_checkpoint(state, {"down_block_types": [""] * 4, "up_block_types": [""] * 4})
    named = {name: state[f"first_stage_model.{vae_name(name)}"] for name in vae}
    assert len({id(each) for each in named.values()}) == 248
    for name, tensor in vae.items():  # the mid attention is reshaped
        assert tensor is named[name] or ("attentions" in name and tensor.numel() == named[name].numel())


def test_texts_and_pixels_are_those_of_the_published_architecture(tokenizer: Path) -> None:
    state = random_state(stable_diffusion(NARROW))
    exact = {name: value.double() for name, value in state.items()}
    model = read_stable_diffusion(state, Sizes.of(state, PATH), PATH, tokenizer, "cpu")
    texts = ["a red disc", "a " + "very " * 100 + "long text"]
    library = CLIPTokenizer.from_pretrained(tokenizer)
    tokens = library(texts, padding="max_length", truncation=True, max_length=77, return_tensors="pt")
    assert tokens["input_ids"].shape == (2, 77)
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        encoded, images = model.embed(texts), decode(model, latents)
    expected = slow.text_encoder(exact, tokens["input_ids"])
    assert relative(encoded, expected) < 1e-4
    # The encoder is causal: its state at the first token, UniControl's task feature, is the same for all texts.
    assert torch.allclose(encoded[0, 0], encoded[1, 0], atol=1e-6) and not torch.allclose(
        encoded[0, 1:], encoded[1, 1:]
    )
    levels = (slow.vae_decode(exact, latents.double()) * 127.5 + 127.5).clamp(0, 255).permute(0, 2, 3, 1).numpy()
    off = levels - pixels(images)  # the fraction is cut off
    assert off.min() > -0.01 and off.max() < 1.01


@pytest.mark.parametrize("steps", [50, 20])
def test_the_scheduler_has_the_published_samplers_times_and_alphas(steps: int) -> None:
    scheduler = ddim(steps)
    table = slow.ddim_table(steps)
    assert scheduler.timesteps.tolist() == [time for time, _, _ in table]
    if steps == 50:
        assert scheduler.timesteps.tolist() == list(range(981, 0, -20))
    latents = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(1))
    for time, alpha, after in table:
        expected = slow.ddim_step(latents.double(), noise.double(), alpha, after)
        found = scheduler.step(noise, time, latents).prev_sample
        assert relative(found, expected) < 1e-5


def test_sampling_is_the_published_loop_in_float64() -> None:
    settings = SamplerSettings(steps=50, guidance=9.0, added_prompt="", negative_prompt="")
    start = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def half(latents: torch.Tensor, time: int, shift: float) -> torch.Tensor:
        return torch.tanh(latents * (0.5 + time / 2000) + shift)

    def both(latents: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        negative, prompted = latents.chunk(2)
        return torch.cat([half(negative, int(time), 0.0), half(prompted, int(time), 0.05)])

    expected = start.double()
    for time, alpha, after in slow.ddim_table(50):
        negative, prompted = half(expected, time, 0.0), half(expected, time, 0.05)
        expected = slow.ddim_step(expected, negative + 9.0 * (prompted - negative), alpha, after)
    found = sample(both, start, settings)
    assert relative(found, expected) < 1e-4


def test_steps_divide_the_training_steps() -> None:
    with pytest.raises(ValueError):
        SamplerSettings(steps=30, guidance=9.0, added_prompt="", negative_prompt="")


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("model.diffusion_model.output_blocks.2.1.conv.bias", None, "UNet2DConditionModel: missing {key}"),
        ("first_stage_model.decoder.mid.attn_1.q.weight", None, "AutoencoderKL: missing {key}"),
        ("first_stage_model.post_quant_conv.bias", torch.zeros(5), r"{key} has shape \(5,\) instead of \(4,\)"),
        ("cond_stage_model.transformer.text_model.final_layer_norm.bias", None, "CLIPTextModel: missing {key}"),
        ("model.diffusion_model.label_emb.weight", torch.zeros(5), "unexpected {key}"),
        ("model.diffusion_model.input_blocks.1.0.out_layers.3.weight", None, "in LDM's layout, {key} is missing"),
    ],
)
def test_keys_that_do_not_fit_are_named(key: str, value: torch.Tensor | None, fault: str, tokenizer: Path) -> None:
    state = shapes_only(stable_diffusion(NARROW))
    state.pop(key, None)
    if value is not None:
        state[key] = value
    with pytest.raises(CheckpointError, match=r"sd\.ckpt.*" + fault.format(key=key)):
        read_stable_diffusion(state, Sizes.of(state, PATH), PATH, tokenizer, "meta")


def test_old_transformers_buffer_is_no_fault(tokenizer: Path) -> None:
    state = shapes_only(stable_diffusion(NARROW))
    del state[POSITIONS]
    read_stable_diffusion(state, Sizes.of(state, PATH), PATH, tokenizer, "meta")
