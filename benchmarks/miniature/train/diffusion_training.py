"""How the miniature's latent diffusion is trained: the autoencoder, the text-to-image model, then what steers it.

Losses are those of the published recipes: reconstruction with a little KL; the mean square error of the predicted noise
with one caption in ten left out; the same with everything but the ControlNet or T2I-Adapter frozen.

InstructPix2Pix goes on from the text-to-image model (Brooks et al. 2023, section 3.2): the U-Net also reads the
source's latents, and text and source are left out now and then, for guidance by each. One thing differs. Stable
Diffusion's text encoder had read all kinds of text and stays frozen; the miniature's has read captions alone, in which
"make", "turn" or "remove" never occur. So this model has its own text encoder, which goes on
learning from the text-to-image model's.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, T2IAdapter
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn

from benchmarks.miniature.train.clip_words import read_words
from benchmarks.miniature.train.diffusion_networks import (
    ADAPTER_CHANNELS,
    DiffusionConfig,
    TextToImage,
    make_adapter,
    make_controlnet,
    make_instruct,
    make_scheduler,
    make_vae,
    silence_unknown_words,
    standardise,
)
from benchmarks.miniature.train.latents import (
    Encoded,
    Pairs,
    make_pairs,
    make_shard,
    read_pairs,
    read_shards,
    training_scenes,
)
from benchmarks.miniature.train.stages import settings, trained_weights
from benchmarks.miniature.world.edits import KINDS
from benchmarks.miniature.world.embedded import held_out_edits, held_out_scenes
from benchmarks.miniature.world.render import BATCH, render, to_tensor
from editar.prompts import TASKS
from editar.training.loop import TrainConfig, train

CONTROLS = (*(f"controlnet-{task}" for task in TASKS), *(f"t2i-adapter-{task}" for task in ADAPTER_CHANNELS))
INSTRUCT = "instruct-pix2pix"
VALIDATION_SEED = 4
CAPTION_DROPOUT = 0.1
DROPOUT = 0.05  # of the instruction alone, of the source alone, and of both: 5% of the examples each
GRADIENT_WEIGHT, KL_WEIGHT = 0.25, 2e-4
SCHEDULER = make_scheduler()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Sizes of the networks, how each is trained, and how many shards of how many scenes they learn from (pair_shards
    of edited ones); `sample` pictures say how latents are spread, and as many held-out ones what a stage has reached.
    """

    networks: DiffusionConfig = field(default_factory=DiffusionConfig)
    vae: TrainConfig = field(default_factory=partial(settings, "vae"))
    unet: TrainConfig = field(default_factory=partial(settings, "unet"))
    controlnet: TrainConfig = field(default_factory=partial(settings, "controlnet"))
    adapter: TrainConfig = field(default_factory=partial(settings, "t2i-adapter"))
    instruct: TrainConfig = field(default_factory=partial(settings, INSTRUCT))
    shards: int = 24
    pair_shards: int = 8
    scenes: int = 1024
    sample: int = 256

    def training(self, stage: str) -> TrainConfig:
        """How a stage trains: vae, unet, one of CONTROLS, or INSTRUCT."""
        if stage in CONTROLS:
            return self.controlnet if stage.startswith("controlnet") else self.adapter
        return {"vae": self.vae, "unet": self.unet, INSTRUCT: self.instruct}[stage]


def vae_loss(vae: AutoencoderKL, images: Tensor) -> dict[str, Tensor]:
    """Of images (B, 3, 64, 64) in [-1, 1]: mean square error, GRADIENT_WEIGHT times the L1 error of the image
    gradients, and KL_WEIGHT times the KL divergence of a latent number."""
    posterior = DiagonalGaussianDistribution(vae.encode(images).latent_dist.parameters.float())
    error = vae.decode(posterior.sample()).sample.float() - images
    slopes = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    squared, kl = error.square().mean(), posterior.kl().mean() / posterior.mean[0].numel()
    return {
        "loss": squared + GRADIENT_WEIGHT * slopes + KL_WEIGHT * kl,
        "psnr": -10 * torch.log10(squared.detach() / 4),
        "kl": kl.detach(),
        "noise": posterior.std.detach().mean() / posterior.mean.detach().std(),
    }


def spread_timesteps(count: int, cubic: bool = False) -> Tensor:
    """`count` timesteps (int64), evenly spread so that each batch has all kinds; cubic: more of the noisy ones, where
    the layout is decided (T2I-Adapter, section 3.4)."""
    uniform = (torch.arange(count) + torch.rand(())) / count
    steps = SCHEDULER.config.num_train_timesteps
    return (steps * (1 - uniform**3 if cubic else uniform)).long().clamp(0, steps - 1)


def steering(control: nn.Module | None, noisy: Tensor, timesteps: Tensor, text: Tensor, maps: Tensor) -> dict[str, Any]:
    """What a ControlNet or a T2I-Adapter adds to the U-Net's arguments; maps (B, 1 or 3, 64, 64) in [0, 1]."""
    if isinstance(control, ControlNetModel):
        maps = maps.expand(-1, control.config.conditioning_channels, -1, -1)
        down, middle = control(noisy, timesteps, text, controlnet_cond=maps, return_dict=False)
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
    if isinstance(control, T2IAdapter):
        return {"down_intrablock_additional_residuals": control(maps.expand(-1, control.config.in_channels, -1, -1))}
    return {}


def noise_error(
    base: TextToImage, control: nn.Module | None, batch: Encoded, timesteps: Tensor, noise: Tensor
) -> Tensor:
    """Mean square error of the predicted noise, of each image (B,)."""
    noisy = SCHEDULER.add_noise(batch.latents, noise, timesteps)
    text = base.read(batch.words)
    extra = {} if batch.maps is None else steering(control, noisy, timesteps, text, batch.maps)
    predicted = base.unet(noisy, timesteps, text, **extra).sample
    return (predicted.float() - noise).square().mean((1, 2, 3))


def train_vae(plan: Plan, folder: Path, device: str) -> None:
    """Train the autoencoder, or go on where it stopped."""
    torch.manual_seed(plan.vae.seed)
    vae = make_vae(plan.networks).to(device, memory_format=torch.channels_last)

    def batch(step: int) -> Tensor:
        return pictures(plan.vae.seed, step, plan.vae.batch_size).to(device)

    train(vae, lambda vae, images, step: vae_loss(vae, images), batch, plan.vae, folder / "vae")


def pictures(seed: int, step: int, count: int) -> Tensor:
    """Training pictures (count, 3, 64, 64) in [-1, 1]."""
    return to_tensor([render(scene) for scene in itertools.islice(training_scenes(seed, step), count)])


def train_unet(plan: Plan, folder: Path, device: str) -> None:
    """Train U-Net and text encoder on the shards, or go on where it stopped."""
    torch.manual_seed(plan.unet.seed)
    base = TextToImage(plan.networks).to(device)
    _train(base, lambda base, batch, times, noise: noise_error(base, None, batch, times, noise), plan, "unet", folder)


def train_control(plan: Plan, folder: Path, stage: str, device: str) -> None:
    """Train one of CONTROLS beside the finished, frozen text-to-image model, or go on where it stopped."""
    base = load_text_to_image(plan, folder).to(device)
    control = make_control(plan, base, stage).to(device)
    _train(control, lambda control, *rest: noise_error(base, control, *rest), plan, stage, folder)


def _train(module: nn.Module, error: Callable[..., Tensor], plan: Plan, stage: str, folder: Path) -> None:
    """`error(module, batch, timesteps, noise)` per image is what is minimised."""
    config, device = plan.training(stage), str(next(module.parameters()).device)
    data = read_shards(folder / "latents", plan.shards, task_of(stage))
    no_words = read_words([""]).to(device)

    def loss(module: nn.Module, batch: Encoded, step: int) -> dict[str, Tensor]:
        left_out = (torch.rand(len(batch.words), 1) < CAPTION_DROPOUT).to(device)
        batch = replace(batch, words=torch.where(left_out, no_words, batch.words))
        timesteps = spread_timesteps(len(batch.words), cubic=stage.startswith("t2i")).to(device)
        noise = torch.randn(batch.latents.shape).to(device)
        return {"loss": error(module, batch, timesteps, noise).mean()}

    train(module, loss, partial(data.draw, config.seed, config.batch_size, device), config, folder / stage)


def leave_out(batch: Pairs, no_words: Tensor, draws: Tensor) -> Pairs:
    """`batch` without the text, the source (zeros then) or both, by DROPOUT and `draws` (B,) from [0, 1)."""
    text = draws < 2 * DROPOUT
    source = (draws >= DROPOUT) & (draws < 3 * DROPOUT)
    return replace(
        batch,
        words=torch.where(text[:, None], no_words, batch.words),
        source=batch.source.masked_fill(source[:, None, None, None], 0.0),
    )


def edit_noise_error(model: TextToImage, batch: Pairs, timesteps: Tensor, noise: Tensor) -> Tensor:
    """Mean square error of the noise predicted in the targets, of each edit (B,)."""
    noisy = SCHEDULER.add_noise(batch.target, noise, timesteps)
    predicted = model.unet(torch.cat([noisy, batch.source], 1), timesteps, model.read(batch.words)).sample
    return (predicted.float() - noise).square().mean((1, 2, 3))


def train_instruct(plan: Plan, folder: Path, device: str) -> None:
    """Train on the shards of pairs, or go on where it stopped."""
    config = plan.training(INSTRUCT)
    model = make_instruct(load_text_to_image(plan, folder)).to(device)
    data = read_pairs(folder / "pairs", plan.pair_shards)
    no_words = read_words([""]).to(device)

    def loss(model: TextToImage, batch: Pairs, step: int) -> dict[str, Tensor]:
        count = len(batch.words)
        batch = leave_out(batch, no_words, torch.rand(count).to(device))
        noise = torch.randn(batch.target.shape).to(device)
        return {"loss": edit_noise_error(model, batch, spread_timesteps(count).to(device), noise).mean()}

    train(model, loss, partial(data.draw, config.seed, config.batch_size, device), config, folder / INSTRUCT)


def task_of(stage: str) -> str | None:
    """The task of one of CONTROLS, None of other stages."""
    return stage.rsplit("-", 1)[1] if stage in CONTROLS else None


def make_control(plan: Plan, base: TextToImage, stage: str) -> ControlNetModel | T2IAdapter:
    """One of CONTROLS as it is before its training."""
    torch.manual_seed(plan.training(stage).seed)
    kind, task = stage.rsplit("-", 1)
    return make_controlnet(plan.networks, base.unet) if kind == "controlnet" else make_adapter(plan.networks, task)


def load_vae(plan: Plan, folder: Path) -> AutoencoderKL:
    """The finished autoencoder, its latents standardised, frozen."""
    vae = make_vae(plan.networks)
    vae.load_state_dict(finished(plan, folder, "vae"))
    standardise(vae, pictures(plan.vae.seed, -1, plan.sample))
    return frozen(vae)


def load_text_to_image(plan: Plan, folder: Path) -> TextToImage:
    """The finished U-Net and text encoder, frozen; words that the world does not have are silent."""
    base = TextToImage(plan.networks)
    base.load_state_dict(finished(plan, folder, "unet"))
    silence_unknown_words(base.text_encoder)
    return frozen(base)


def load_control(plan: Plan, folder: Path, stage: str) -> ControlNetModel | T2IAdapter:
    """One of CONTROLS, finished and frozen."""
    control = make_control(plan, load_text_to_image(plan, folder), stage)
    control.load_state_dict(finished(plan, folder, stage))
    return frozen(control)


def load_instruct(plan: Plan, folder: Path) -> TextToImage:
    """The finished model, frozen; words that the world does not have are silent."""
    model = make_instruct(load_text_to_image(plan, folder))
    model.load_state_dict(finished(plan, folder, INSTRUCT))
    silence_unknown_words(model.text_encoder)
    return frozen(model)


def finished(plan: Plan, folder: Path, stage: str) -> dict[str, Tensor]:
    """The weights of a stage that has been trained to its end; raises ValueError if it has not."""
    return trained_weights(folder / stage, plan.training(stage).steps)


def frozen(module: Any) -> Any:
    """The module itself, in evaluation mode and without gradients."""
    return module.eval().requires_grad_(False)


@torch.inference_mode()
def validate(plan: Plan, folder: Path, stage: str, device: str = "cpu") -> dict[str, float]:
    """Of a finished stage: the autoencoder's PSNR in dB, or the error of the predicted noise, over all timesteps and
    over the noisier half, where the layout is decided."""
    vae = load_vae(plan, folder).to(device)
    if stage == INSTRUCT:
        return _instruct_error(plan, folder, vae, device)
    held_out = held_out_scenes("depth", plan.sample, seed=VALIDATION_SEED)
    if stage == "vae":
        images = to_tensor([render(scene) for scene in held_out]).to(device)
        return {"psnr": _psnr(torch.cat([_restore(vae, part) for part in images.split(BATCH)]), images)}
    base = load_text_to_image(plan, folder).to(device)
    control = load_control(plan, folder, stage).to(device) if stage in CONTROLS else None
    data = Encoded.join([make_shard(vae, held_out)], maps=task_of(stage))
    return _noise_errors(
        data.latents, lambda rows, *rest: noise_error(base, control, data.pick(rows, device), *rest), device
    )


def _instruct_error(plan: Plan, folder: Path, vae: AutoencoderKL, device: str) -> dict[str, float]:
    """On edits of every type, as many of each."""
    model = load_instruct(plan, folder).to(device)
    each = math.ceil(plan.sample / (len(KINDS) - 1))
    by_type = held_out_edits({type_id: each for type_id in KINDS if type_id != "0"}, VALIDATION_SEED)
    edits = [edit for first in range(each) for edit in by_type[first::each]]  # all types at every noise level
    pairs = make_pairs(vae, [(edit.source, [edit]) for edit in edits])
    data = Pairs.join([pairs])
    return _noise_errors(
        data.target, lambda rows, *rest: edit_noise_error(model, data.pick(rows, device), *rest), device
    )


def _noise_errors(latents: Tensor, error: Callable[[Tensor, Tensor, Tensor], Tensor], device: str) -> dict[str, float]:
    """Means of `error(rows, timesteps, noise)` over the rows that `latents` has."""
    torch.manual_seed(VALIDATION_SEED)
    timesteps, noise = spread_timesteps(len(latents)), torch.randn(latents.shape)
    errors = torch.cat([
        error(rows, timesteps[rows].to(device), noise[rows].to(device)).cpu()
        for rows in torch.arange(len(latents)).split(BATCH)
    ])  # fmt: skip
    return {"error": errors.mean().item(), "error of the noisier half": errors[timesteps >= 500].mean().item()}


def _restore(vae, images: Tensor) -> Tensor:
    return vae.decode(vae.encode(images).latent_dist.mean).sample.clamp(-1, 1)


def _psnr(restored: Tensor, images: Tensor) -> float:
    """Mean over the images, which have a range of 2."""
    return (-10 * torch.log10((restored - images).square().mean((1, 2, 3)) / 4)).mean().item()
