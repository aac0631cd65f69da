"""The networks of MGIE's language side out of the published files, every tensor of which has to be accounted for."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaForCausalLM

from baselines.llama import EMBEDDINGS, HEAD, is_size, map_weights, read_json, read_llama
from baselines.mgie.edit_head import IMAGE_EMBEDDINGS, PREFIX
from editar.io.tensors import CheckpointError, State, fill, map_pickle, read_tensors

PROJECTOR = "model.mm_projector."
VISION = "vision_model."
CLIP_FILES = ("model.safetensors", "pytorch_model.bin")
LAYER = -2  # of the vision tower, whose states are taken
EXPECTED = {"mm_vision_select_layer": LAYER, "mm_use_im_start_end": True}  # of LLaVA's config.json
COMPARED = 4096  # rows of the embeddings
UNLIKE = 0.5  # relative distance of two rows; 0 for a token that no training saw, 1 for a difference of weights


def read_language_model(
    llava: Path, mllm: Path, *, dtype: torch.dtype, device: str
) -> tuple[LlamaForCausalLM, nn.Linear]:
    """The language model, and what takes the vision tower's features to its embeddings.

    llava: the folder LLaVA-7B-v1. mllm: MGIE's mllm.pt, whose embeddings and output layer take the place of the
    folder's. Raises CheckpointError naming every tensor at fault, and for a folder with differences of weights.
    """
    features = _read_features(llava / "config.json")
    own = partial(_map_own, mllm)
    _refuse_differences(llava, map_weights(llava), own())
    beside = [f"{PROJECTOR}weight", f"{PROJECTOR}bias"]
    model = read_llama(llava, dtype=dtype, device=device, replaced=own, beside=beside)

    def mapped() -> State:
        return {name: tensor for name, tensor in map_weights(llava).items() if name in beside}

    def build() -> nn.Module:
        linear = nn.Linear(features, model.config.hidden_size)
        return nn.ModuleDict({"model": nn.ModuleDict({"mm_projector": linear})})

    projector: Any = fill(build, mapped, llava, dtype=dtype, device=device)
    return model, projector["model"]["mm_projector"].requires_grad_(False)


def read_vision(folder: Path, *, dtype: torch.dtype, device: str) -> CLIPVisionModel:
    """The vision tower out of a folder with a whole CLIP. Raises CheckpointError."""
    config = CLIPVisionConfig.from_pretrained(folder, local_files_only=True)
    path = next((path for name in CLIP_FILES if (path := folder / name).is_file()), folder / CLIP_FILES[0])

    def mapped() -> State:
        return {
            name.removeprefix(VISION): tensor
            for name, tensor in read_tensors(path).items()
            if name.startswith(VISION) and not name.endswith(".position_ids")  # which old versions stored
        }

    vision = fill(lambda: CLIPVisionModel(config), mapped, path, dtype=dtype, device=device)
    embeddings: Any = vision.embeddings
    embeddings.position_ids = torch.arange(embeddings.num_positions, device=device)[None]
    return vision.requires_grad_(False)


def _map_own(path: Path) -> dict[str, Tensor]:
    """Embeddings and output layer of an mllm.pt."""
    state, _ = map_pickle(path)
    names = (EMBEDDINGS, HEAD)
    faults = [f"missing {name}" for name in (*names, IMAGE_EMBEDDINGS) if name not in state]
    known = (*names, IMAGE_EMBEDDINGS)
    faults += [f"unexpected {name}" for name in state if name not in known and not name.startswith(PREFIX)]
    if faults:
        raise CheckpointError(f"{path}: no mllm.pt of MGIE: " + "; ".join(faults))
    return {name: state[name] for name in names}


def _refuse_differences(llava: Path, published: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """LLaVA was published as its difference from LLaMA too, under the same names and shapes, and such weights write
    nonsense. MGIE tuned the embeddings of the whole weights: the rows of rare tokens are still the same in its file,
    while a difference has next to nothing there. A quarter of all rows has to be alike."""
    before, after = published.get(EMBEDDINGS), own[EMBEDDINGS]
    if before is None or before.ndim != 2 or before.shape[1:] != after.shape[1:] or not len(before) or not len(after):
        return  # reading them will say so
    rows = torch.linspace(0, min(len(before), len(after)) - 1, COMPARED).long().unique()
    tuned = after[rows].float()
    distance = (tuned - before[rows].float()).norm(dim=1) / tuned.norm(dim=1).clamp_min(1e-6)
    if distance.quantile(0.25) > UNLIKE:
        raise CheckpointError(
            f"{llava}: its embeddings are not those that MGIE was tuned from. The difference LLaVA-Lightning-7B-delta-"
            "v1-1 looks like that: add LLaMA-7B to it, or take LLaVA-7B-v1 of the hub's tsujuifu/ml-mgie, where that "
            "is done"
        )


def _read_features(path: Path) -> int:
    """How many the projector takes, of LLaVA's config.json, which is checked besides."""
    given = read_json(path)
    for name, wanted in EXPECTED.items():
        if given.get(name, wanted) != wanted:
            raise CheckpointError(f"{path}: {name} is {given[name]!r:.99}; MGIE's LLaVA has {wanted!r}")
    if not is_size(features := given.get("mm_hidden_size")):
        raise CheckpointError(f"{path}: mm_hidden_size is {features!r:.99}; it must be a whole number above 0")
    assert isinstance(features, int)
    return features
