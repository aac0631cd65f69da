"""Makes the miniature's weights from a seed: codebook, tokenizer, perception, tokens, transformer, then the export.

    python -m benchmarks.miniature.build                       everything, one stage after the other
    python -m benchmarks.miniature.build --stages decoder      one stage, say beside another that trains

Each stage goes on where it stopped, and a finished one does nothing. `decoder` and `tokens` need `refining`, `adapting`
needs `decoder` and `perception`, which needs nothing; `transformer` reads the shards as `tokens` writes them, so the
two can run side by side.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from benchmarks.miniature.evaluate.backbones import save_perception
from benchmarks.miniature.evaluate.perception import Perception, PerceptionConfig
from benchmarks.miniature.paths import BUILD, WEIGHTS
from benchmarks.miniature.train import perception_training, tokenizer, transformer
from benchmarks.miniature.train.export import save_curve, write_digests
from benchmarks.miniature.train.tokens import CROWDED, GENERAL, HARD, make_shards
from editar.config import SamplingConfig
from editar.model.checkpoint import save_folder
from editar.model.files import Parts
from editar.model.text import WordTextEncoder

STAGES = (
    "encoder",
    "refining",
    "decoder",
    "perception",
    "adapting",
    "tokens",
    "transformer",
    "binding",
    "finishing",
    "export",
)
SAMPLING = SamplingConfig(guidance=1.15, top_k=1)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Build the miniature's weights from a seed, resumably."""

    stages: tuple[str, ...] = STAGES
    """What to do, of: encoder refining decoder perception adapting tokens transformer binding finishing export."""
    folder: Path = BUILD
    """Checkpoints and token shards."""
    out: Path = WEIGHTS
    """Where the finished weights go."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    threads: int = 0
    """CPU threads; 0: torch's choice."""

    def __post_init__(self):
        for stage in self.stages:
            if stage not in STAGES:
                raise ValueError(f"--stages {stage}: must be one of {' '.join(STAGES)}")


def main(arguments: Arguments) -> None:
    """Run the stages in their order, whatever order they were named in."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    folder, device = arguments.folder, arguments.device
    for stage in STAGES:
        if stage not in arguments.stages:
            continue
        print(f"stage {stage}", flush=True)
        if stage in tokenizer.STAGES:
            tokenizer.train_tokenizer(folder / "tokenizer", stage, device)
        elif stage == "perception":
            perception_training.train_perception(folder / "perception", device)
        elif stage == "adapting":
            vq = tokenizer.load_tokenizer(folder / "tokenizer").to(device)
            perception_training.adapt_perception(folder / "perception", vq, folder / "adapting", device)
        elif stage == "tokens":
            vq, text = tokenizer.load_tokenizer(folder / "tokenizer").to(device), WordTextEncoder(transformer.TEXT)
            make_shards(vq, text, GENERAL, transformer.SHARDS, folder / "tokens")
            make_shards(vq, text, CROWDED, transformer.BINDING_SHARDS, folder / "tokens-crowded")
            make_shards(vq, text, HARD, transformer.FINISHING_SHARDS, folder / "tokens-hard")
        elif stage == "transformer":
            centroids = tokenizer.codebook(folder / "tokenizer")["centroids"]
            transformer.train_transformer(folder / "tokens", centroids, folder / "transformer", device)
        elif stage == "binding":
            transformer.bind_transformer(folder / "transformer", folder / "tokens-crowded", folder / "binding", device)
        elif stage == "finishing":
            transformer.finish_transformer(folder / "binding", folder / "tokens-hard", folder / "finishing", device)
        else:
            export(folder, arguments.out)


def export(folder: Path, out: Path) -> None:
    """Write what has been trained so far: weights (float16), training curves and digests."""
    trained = transformer.MiniatureEditAR()
    trained.load_state_dict(_last(folder / "finishing"))
    parts = Parts(
        vq=tokenizer.load_tokenizer(folder / "tokenizer"),
        transformer=trained.transformer,
        text=trained.text,
        sampling=SAMPLING,
    )
    save_folder(out / "editar", parts, dtype=torch.float16)
    network = Perception(PerceptionConfig())
    network.load_state_dict(_last(folder / "adapting"))
    save_perception(network, out / "perception.safetensors")
    for name in (
        *(f"tokenizer/{stage}" for stage in tokenizer.STAGES),
        "perception",
        "adapting",
        "transformer",
        "binding",
        "finishing",
    ):
        save_curve(folder / name, out / "curves")
    write_digests(out)


def _last(folder: Path) -> dict[str, torch.Tensor]:
    path = folder / "last.pt"
    if not path.exists():
        raise FileNotFoundError(f"{path}: train this stage first (--stages {folder.name})")
    return torch.load(path, map_location="cpu", weights_only=True)["model"]


if __name__ == "__main__":
    main(tyro.cli(Arguments))
