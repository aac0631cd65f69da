"""Makes the miniature's latent diffusion from a seed: autoencoder, latents, text-to-image model, ControlNets and
T2I-Adapters, edit pairs and the InstructPix2Pix, then the export as diffusers folders.

    python -m benchmarks.miniature.build_diffusion                                    everything, one after the other
    python -m benchmarks.miniature.build_diffusion --stages controlnet-depth --threads 1      one stage of several that
                                                                                              can run side by side

Each stage goes on where it stopped, and a finished one does nothing. `latents` and `pairs` need `vae`, `unet` needs
`latents`, and what goes on from it needs `unet`, `instruct-pix2pix` also `pairs`; ControlNets, T2I-Adapters and the
InstructPix2Pix do not need one another.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import tyro
from diffusers import AutoencoderKL, StableDiffusionPipeline

from benchmarks.miniature import BUILD, WEIGHTS
from benchmarks.miniature.train.clip_words import TOKENIZER, clip_tokenizer
from benchmarks.miniature.train.diffusion_networks import make_scheduler
from benchmarks.miniature.train.diffusion_training import (
    CONTROLS,
    INSTRUCT,
    Plan,
    load_control,
    load_instruct,
    load_text_to_image,
    load_vae,
    train_control,
    train_instruct,
    train_unet,
    train_vae,
    validate,
)
from benchmarks.miniature.train.latents import make_pair_shards, make_shards
from benchmarks.miniature.train.stages import Measured, run_stages, save_curve, write_digests

TRAINED = ("vae", "unet", *CONTROLS, INSTRUCT)
STAGES = ("vae", "latents", "unet", *CONTROLS, "pairs", INSTRUCT, "export")


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Example: python -m benchmarks.miniature.build_diffusion --stages vae latents unet --threads 2

    Build the miniature's latent diffusion models from a seed. The same command resumes a build.
    """

    stages: tuple[str, ...] = STAGES
    """What to do, of: vae latents unet controlnet-depth controlnet-canny controlnet-segmentation t2i-adapter-depth
    t2i-adapter-canny pairs instruct-pix2pix export."""
    folder: Path = BUILD / "diffusion"
    """Checkpoints and shards of latents and of pairs."""
    out: Path = WEIGHTS
    """Where the finished weights go, to its folder diffusion/."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    threads: int = 0
    """CPU threads; 0: torch's choice."""


def main(arguments: Arguments, plan: Plan | None = None) -> None:
    """plan: instead of the miniature's own."""
    plan, folder, device = plan or Plan(), arguments.folder, arguments.device

    def vae() -> AutoencoderKL:
        return load_vae(plan, folder).to(device)

    def trained(stage: str, train: Callable[[], None]) -> Callable[[], Measured]:
        def run() -> Measured:
            train()
            return validate(plan, folder, stage, device)

        return run

    stages: dict[str, Callable[[], Measured]] = {
        "vae": trained("vae", lambda: train_vae(plan, folder, device)),
        "latents": lambda: make_shards(vae(), folder / "latents", plan.shards, plan.scenes),
        "unet": trained("unet", lambda: train_unet(plan, folder, device)),
        **{stage: trained(stage, partial(train_control, plan, folder, stage, device)) for stage in CONTROLS},
        "pairs": lambda: make_pair_shards(vae(), folder / "pairs", plan.pair_shards, plan.scenes),
        INSTRUCT: trained(INSTRUCT, lambda: train_instruct(plan, folder, device)),
        "export": lambda: export(plan, folder, arguments.out),
    }
    run_stages(stages, arguments.stages, arguments.threads)


def export(plan: Plan, folder: Path, out: Path) -> None:
    """Write the finished weights (float16) as diffusers folders, the training curves and the digests."""
    target = out / "diffusion"
    tokenizer = {path.name: path.read_bytes() for path in TOKENIZER.iterdir()}  # it may lie where all is written
    base = load_text_to_image(plan, folder)
    pipeline = StableDiffusionPipeline(
        vae=load_vae(plan, folder).half(),
        text_encoder=base.text_encoder.half(),
        tokenizer=clip_tokenizer(),
        unet=base.unet.half(),
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(target)
    _as_float32(target / "text_encoder")
    shutil.rmtree(target / "tokenizer")  # transformers writes another format than Stable Diffusion's folders have
    (target / "tokenizer").mkdir()
    for name, content in tokenizer.items():
        (target / "tokenizer" / name).write_bytes(content)
    for stage in CONTROLS:
        load_control(plan, folder, stage).half().save_pretrained(target / stage)
    instruct = load_instruct(plan, folder).half()
    instruct.unet.save_pretrained(target / INSTRUCT)
    instruct.text_encoder.save_pretrained(target / INSTRUCT / "text_encoder")
    _as_float32(target / INSTRUCT / "text_encoder")
    for stage in TRAINED:
        save_curve(folder / stage, out / "curves" / "diffusion")
    write_digests(out)
    size = sum(file.stat().st_size for file in target.rglob("*.safetensors"))
    print(f"{target}: {size / 1e6:.1f} MB of weights")


def _as_float32(text_encoder: Path) -> None:
    """transformers makes a network of the type that its configuration names, diffusers of float32 unless told else;
    without this a pipeline would mix the two."""
    config = text_encoder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "dtype": "float32"}, indent=2) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
