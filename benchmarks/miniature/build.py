"""Makes the miniature's weights from a seed: codebook, tokenizer, perception, tokens, transformer, then the export.

    python -m benchmarks.miniature.build                       everything, one stage after the other
    python -m benchmarks.miniature.build --stages decoder      one stage, say beside another that trains

Each stage goes on where it stopped, and a finished one does nothing. `decoder` and `tokens` need `refining`, `adapting`
needs `decoder` and `perception`, which needs nothing; `transformer` reads the shards as `tokens` writes them, so the
two can run side by side.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import tyro

from benchmarks.miniature import BUILD, WEIGHTS
from benchmarks.miniature.evaluate.backbones import save_perception
from benchmarks.miniature.evaluate.perception import Perception, PerceptionConfig
from benchmarks.miniature.train import perception_training, tokenizer, transformer
from benchmarks.miniature.train.stages import run_stages, save_curve, trained_weights, write_digests
from benchmarks.miniature.train.tokens import CROWDED, GENERAL, HARD, make_shards
from editar.config import SamplingConfig
from editar.model.checkpoint import save_folder
from editar.model.files import Parts
from editar.model.text import WordTextEncoder
from editar.model.vq import VQModel

STAGES = (
    *tokenizer.STAGES, "perception", "adapting", "tokens", "transformer", "binding", "finishing", "export",
)  # fmt: skip
SAMPLING = SamplingConfig(guidance=1.15, top_k=1)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Example: python -m benchmarks.miniature.build --stages transformer binding --threads 2

    Build the miniature's weights from a seed. The same command resumes a build.
    """

    stages: tuple[str, ...] = STAGES
    """What to do, of: encoder refining decoder perception adapting tokens transformer binding finishing export."""
    folder: Path = BUILD
    """Checkpoints and token shards."""
    out: Path = WEIGHTS
    """Where the finished weights go."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    threads: int = 0
    """CPU threads; 0: torch's choice."""


def main(arguments: Arguments) -> None:
    folder, device = arguments.folder, arguments.device

    def vq() -> VQModel:
        return tokenizer.load_tokenizer(folder / "tokenizer").to(device)

    def tokens() -> None:
        encoder, text = vq(), WordTextEncoder(transformer.TEXT)
        make_shards(encoder, text, GENERAL, transformer.SHARDS, folder / "tokens")
        make_shards(encoder, text, CROWDED, transformer.BINDING_SHARDS, folder / "tokens-crowded")
        make_shards(encoder, text, HARD, transformer.FINISHING_SHARDS, folder / "tokens-hard")

    def train_transformer() -> None:
        centroids = tokenizer.codebook(folder / "tokenizer")["centroids"]
        transformer.train_transformer(folder / "tokens", centroids, folder / "transformer", device)

    def go_on(stage: str, trained: str, shards: str) -> None:
        transformer.continue_transformer(stage, folder / trained, folder / shards, folder / stage, device)

    stages: dict[str, Callable[[], None]] = {
        stage: partial(tokenizer.train_tokenizer, folder / "tokenizer", stage, device) for stage in tokenizer.STAGES
    }
    stages |= {
        "perception": lambda: perception_training.train_perception(folder / "perception", device),
        "adapting": lambda: perception_training.adapt_perception(
            folder / "perception", vq(), folder / "adapting", device
        ),
        "tokens": tokens,
        "transformer": train_transformer,
        "binding": lambda: go_on("binding", "transformer", "tokens-crowded"),
        "finishing": lambda: go_on("finishing", "binding", "tokens-hard"),
        "export": lambda: export(folder, arguments.out),
    }
    run_stages(stages, arguments.stages, arguments.threads)


def export(folder: Path, out: Path) -> None:
    """Write what has been trained so far: weights (float16), training curves and digests."""
    trained = transformer.MiniatureEditAR()
    trained.load_state_dict(trained_weights(folder / "finishing"))
    parts = Parts(
        vq=tokenizer.load_tokenizer(folder / "tokenizer"),
        transformer=trained.transformer,
        text=trained.text,
        sampling=SAMPLING,
    )
    save_folder(out / "editar", parts, dtype=torch.float16)
    network = Perception(PerceptionConfig())
    network.load_state_dict(trained_weights(folder / "adapting"))
    save_perception(network, out / "perception.safetensors")
    for name in STAGES:
        if name not in ("tokens", "export"):
            save_curve(folder / "tokenizer" / name if name in tokenizer.STAGES else folder / name, out / "curves")
    write_digests(out)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
