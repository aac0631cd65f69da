"""What stands between SEED-X's language model and images: its two resamplers and the embeddings of where a view lies in
the image."""

from pathlib import Path

import torch
from torch import Tensor, nn

from baselines.seed_x.resampler import Resampler, build_resampler
from editar.io.tensors import CheckpointError, fill, map_pickle

EPS = 1e-5
CENTRE = (0.5, 0.5)  # of the only view and of the whole image, which are one
LANGUAGE_MODEL = "llm."  # what training code may have left of it in the file


class Agent(nn.Module):
    """The published module without its language model, under its parameters' names.

    input_resampler: from the visual encoder's tokens to what the language model reads. output_resampler: from the
    language model's states at image tokens to features of an image.
    """

    def __init__(self, width: int, input_resampler: Resampler, output_resampler: Resampler) -> None:
        super().__init__()
        self.patch_pos_embed = nn.Parameter(torch.empty(2 * len(CENTRE), width))
        self.input_resampler = input_resampler
        self.output_resampler = output_resampler

    def view(self, tokens: Tensor) -> Tensor:
        """(B, 64, width), what the language model reads of a view, from the visual encoder's (B, 256, inputs)."""
        position = torch.tensor([*CENTRE, *(1 - each for each in CENTRE)]).to(self.patch_pos_embed) / 2
        return self.input_resampler(tokens) + position @ self.patch_pos_embed


def read_agent(path: Path, heads: int, dtype: torch.dtype, device: str) -> Agent:
    """heads: of both resamplers. Raises CheckpointError naming every missing, unexpected and misshapen tensor."""

    def mapped() -> dict[str, Tensor]:
        state, _ = map_pickle(path)
        return {name: tensor for name, tensor in state.items() if not name.startswith(LANGUAGE_MODEL)}

    def build() -> Agent:
        state = mapped()
        resamplers = (
            build_resampler(state, f"{side}_resampler.", heads=heads, eps=EPS) for side in ("input", "output")
        )
        return Agent(state["patch_pos_embed"].shape[1], *resamplers)

    try:
        return fill(build, mapped, path, dtype=dtype, device=device)
    except KeyError as error:
        raise CheckpointError(f"{path}: not SEED-X's agent, {error.args[0]} is missing") from error
