"""Models on disk: our folders of safetensors, and folders with the authors' files.

A folder of ours holds `vq.safetensors`, `transformer.safetensors` and `text.safetensors`. The metadata of each file
carries `format`, `kind` and `config` (JSON); that of the transformer also `sampling`, the settings it is sampled with
by default. A T5 text encoder is a folder of its own in transformers' format: `t5/`, or wherever the metadata of
`text.safetensors`, which then has no tensors, say.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from editar.config import SamplingConfig, TransformerConfig, VQConfig, WordTextConfig
from editar.io.tensors import CheckpointError, State, map_safetensors, write_safetensors
from editar.model.files import ConfigT, ModelFiles, NetworkT, Part, Parts, VQPart, WordTextPart
from editar.model.official import (
    OFFICIAL_TEXT_TO_IMAGE,
    OFFICIAL_TRANSFORMER,
    OFFICIAL_VQ,
    find_t5,
    official_transformer,
    official_vq,
)
from editar.model.t5 import T5TextEncoder
from editar.model.text import WordTextEncoder
from editar.model.transformer import EditARTransformer
from editar.model.vq import VQModel

FORMAT = "editar-bench/1"
FILES = ("vq.safetensors", "transformer.safetensors", "text.safetensors")
T5_FOLDER = "t5"  # in a folder of ours
WRITER = "model"  # nobody else writes into the folder of a model meanwhile
# A folder in the model's, or a hub id: never a path that leads elsewhere.
_SOURCE = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
LONGEST = 1 << 16  # tokens of a text

SettingsT = TypeVar("SettingsT", VQConfig, TransformerConfig, WordTextConfig, SamplingConfig)


def read_model(folder: Path, text_source: str | Path | None = None) -> ModelFiles:
    """What is in a folder of ours, or one with the authors' files. Raises CheckpointError where there is no model.

    text_source: folder or hub id of the T5, if it is not where the folder says.
    """
    if not is_official(folder):
        vq_path, transformer_path, text_path = (folder / name for name in FILES)
        part, metadata = _part(TransformerConfig, EditARTransformer, transformer_path, "transformer")
        return ModelFiles(
            folder=folder,
            vq=_part(VQConfig, VQModel, vq_path, "vq")[0],
            transformer=part,
            text=_text(text_path, text_source),
            sampling=_config(SamplingConfig, metadata.get("sampling", "{}"), transformer_path),
        )
    transformer = official_transformer(folder / OFFICIAL_TRANSFORMER)
    return ModelFiles(
        folder=folder,
        vq=official_vq(folder / OFFICIAL_VQ),
        transformer=transformer,
        text=T5TextEncoder(text_source or find_t5(folder), length=transformer.config.text_length),
        sampling=SamplingConfig(),
    )


def read_vq(folder: Path) -> VQPart:
    """The tokenizer of a model's folder, alone."""
    if is_official(folder):
        return official_vq(folder / OFFICIAL_VQ)
    return _part(VQConfig, VQModel, folder / FILES[0], "vq")[0]


def is_official(folder: Path) -> bool:
    """Whether a folder holds the authors' files; a folder without any model is an error."""
    if any((folder / name).is_file() for name in FILES):
        return False
    if all((folder / name).is_file() for name in (OFFICIAL_TRANSFORMER, OFFICIAL_VQ)):
        return True
    started = (folder / OFFICIAL_TEXT_TO_IMAGE).is_file()
    raise CheckpointError(
        f"{folder}: no model here; expected {', '.join(FILES)}, or the authors' files {OFFICIAL_TRANSFORMER} and "
        f"{OFFICIAL_VQ}" + f" ({OFFICIAL_TEXT_TO_IMAGE} is what training starts from; it cannot edit)" * started
    )


# --- our folders


def save_folder(folder: Path, model: Parts | ModelFiles, *, dtype: torch.dtype = torch.float32) -> None:
    """Write a model as a folder; of one on disk, one network is in memory at a time.

    dtype: how floating-point tensors are stored, float32, float16 or bfloat16. As bfloat16, transformer and T5 are what
    a bfloat16 run makes of them anyway; the tokenizer, which always runs in float32, stays float32.
    """
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise ValueError(f"dtype is {dtype}; tensors are stored as torch.float32, torch.float16 or torch.bfloat16")
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / FILES[0], "vq", _loaded(model.vq), torch.float32 if dtype == torch.bfloat16 else dtype)
    save_transformer(folder, _loaded(model.transformer, dtype=dtype), model.sampling, dtype=dtype)
    text = _loaded(model.text)
    if isinstance(text, WordTextEncoder):
        _save(folder / FILES[2], "text-words", text, dtype)
    else:
        text.save(folder / T5_FOLDER, dtype)
        metadata = _metadata("text-t5", {"source": T5_FOLDER, "length": text.length})
        write_safetensors(folder / FILES[2], {}, metadata, writer=WRITER)


def _loaded(network: Any, **options: Any) -> Any:
    return network.load(**options) if isinstance(network, Part) else network


def save_transformer(
    folder: Path, transformer: EditARTransformer, sampling: SamplingConfig, *, dtype: torch.dtype = torch.float32
) -> None:
    """The transformer's part of `save_folder`: into a folder that has the others, the model that it makes with them."""
    settings = {"sampling": json.dumps(dataclasses.asdict(sampling))}
    _save(folder / FILES[1], "transformer", transformer, dtype, settings)


def _text(path: Path, source: str | Path | None) -> WordTextPart | T5TextEncoder:
    _, metadata = _read(path, ("text-words", "text-t5"))
    if metadata["kind"] == "text-words":
        return _part(WordTextConfig, WordTextEncoder, path, "text-words")[0]
    try:
        settings = json.loads(metadata["config"])
        named, length = settings["source"], settings["length"]
        if not (isinstance(named, str) and _SOURCE.fullmatch(named) and type(length) is int and 0 < length <= LONGEST):
            raise ValueError(
                f"source {named!r} and length {length!r} must be a folder in it, or a hub id, and a number"
            )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: where its T5 is can't be read: {error}") from error
    inside = path.parent / named
    return T5TextEncoder(source or (inside if inside.is_dir() else named), length=length)


def _part(
    kind: type[ConfigT], network: Callable[[ConfigT], NetworkT], path: Path, name: str
) -> tuple[Part[ConfigT, NetworkT], dict[str, str]]:
    _, metadata = _read(path, (name,))
    config = _config(kind, metadata.get("config", ""), path)
    return Part(path=path, config=config, network=network, mapped=lambda: map_safetensors(path)[0]), metadata


def _metadata(kind: str, config: Mapping[str, Any]) -> dict[str, str]:
    return {"format": FORMAT, "kind": kind, "config": json.dumps(config)}


def _save(
    path: Path,
    kind: str,
    module: VQModel | EditARTransformer | WordTextEncoder,
    dtype: torch.dtype,
    more: Mapping[str, str] | None = None,
) -> None:
    stored = {}
    for name, tensor in module.state_dict().items():
        stored[name] = tensor.detach().to("cpu", dtype).contiguous()
        if not stored[name].isfinite().all():
            raise CheckpointError(f"{path}: {name} is not finite as {dtype}; store the model as float32")
    metadata = {**_metadata(kind, dataclasses.asdict(module.config)), **(more or {})}
    write_safetensors(path, stored, metadata, writer=WRITER)


def _read(path: Path, kinds: tuple[str, ...]) -> tuple[State, dict[str, str]]:
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file; a model's folder holds {', '.join(FILES)}")
    state, metadata = map_safetensors(path)
    if metadata.get("format") != FORMAT or metadata.get("kind") not in kinds:
        raise CheckpointError(
            f"{path}: its metadata say format {metadata.get('format')!r}, kind {metadata.get('kind')!r}; expected "
            f"format {FORMAT!r}, kind {' or '.join(map(repr, kinds))}"
        )
    return state, metadata


def _config(kind: type[SettingsT], text: str, path: Path) -> SettingsT:
    try:
        return kind(**json.loads(text))
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its {kind.__name__} can't be read: {error}") from error
