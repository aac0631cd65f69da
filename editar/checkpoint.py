"""Checkpoints: the authors' pickles, read without running their code, and our folders of safetensors.

A folder holds `vq.safetensors`, `transformer.safetensors` and `text.safetensors`. The metadata of each file carries
`format`, `kind` and `config` (JSON); that of the transformer also `sampling`, the settings it is sampled with by
default. Tensors are stored as float32 or float16 and loaded as float32. A T5 text encoder is stored by reference:
its file has no tensors, only where it comes from.
"""

import argparse
import dataclasses
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from editar.config import SIZES, SamplingConfig, TransformerConfig, VQConfig, WordTextConfig
from editar.text import T5TextEncoder, WordTextEncoder
from editar.transformer import EditARTransformer
from editar.vq import VQModel

FORMAT = "editar-bench/1"
FILES = ("vq.safetensors", "transformer.safetensors", "text.safetensors")
OFFICIAL_TRANSFORMER = "editar_release.pt"
OFFICIAL_VQ = "vq_ds16_t2i.pt"
OFFICIAL_T5 = "google/flan-t5-xl"
NESTED_UNDER = ("model", "module", "state_dict")
# What EditAR adds to the text-to-image model it starts from.
NOT_IN_TEXT_TO_IMAGE = frozenset({"img_uncond_embedding", "alignment.weight", "alignment.bias"})

ConfigT = TypeVar("ConfigT", VQConfig, TransformerConfig, WordTextConfig, SamplingConfig)
ModuleT = TypeVar("ModuleT", bound=nn.Module)


class CheckpointError(ValueError):
    """A checkpoint that is refused; the message names the file, what is wrong and what was expected."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """The networks of one model, in evaluation mode, and the settings it is sampled with by default."""

    vq: VQModel
    transformer: EditARTransformer
    text: WordTextEncoder | T5TextEncoder
    sampling: SamplingConfig

    def __post_init__(self) -> None:
        text, codes, config = self.text, self.vq.config.codebook_size, self.transformer.config
        if (text.length, text.dim) != (config.text_length, config.text_dim):
            raise CheckpointError(
                f"the text encoder gives {text.length} x {text.dim}, but the transformer expects "
                f"{config.text_length} x {config.text_dim}"
            )
        if codes != config.vocab_size:
            raise CheckpointError(f"the tokenizer has {codes} codes, but the transformer {config.vocab_size}")


# --- official files


def read_pickle(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An official .pt file -> its state dict (float32 copies) and its training arguments ({} if it has none)."""
    state, arguments = map_pickle(path)
    return {name: value.to(torch.float32, copy=True) for name, value in state.items()}, arguments


def map_pickle(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """As `read_pickle`, but the tensors are the file's own: mapped from it, not copied, and of its dtypes.

    Only tensors, plain containers and argparse.Namespace are accepted: a pickle that would run code is refused.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused, because it holds more than tensors and argparse.Namespace, and loading it could run "
            "code. Use the file as the authors released it"
        ) from error
    except (RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable PyTorch checkpoint (an incomplete download?)") from error
    arguments = content.get("args") if isinstance(content, dict) else None
    if isinstance(arguments, argparse.Namespace):
        arguments = vars(arguments)
    state = content
    while isinstance(state, dict) and (inner := [key for key in NESTED_UNDER if isinstance(state.get(key), dict)]):
        state = state[inner[0]]
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(
            f"{path}: no state dict found; expected one at the top or under {', '.join(NESTED_UNDER)}"
        )
    return state, arguments or {}


def load_official_vq(path: Path, config: VQConfig | None = None) -> VQModel:
    """`vq_ds16_t2i.pt`; without a configuration it is VQ-16, with the codebook's size as in the file."""
    state, _ = read_pickle(path)
    if config is None:
        codebook = state.get("quantize.embedding.weight")
        config = VQConfig() if codebook is None else VQConfig(codebook_size=len(codebook))
    return _filled(lambda: VQModel(config), state, path)


def load_official_transformer(path: Path, config: TransformerConfig | None = None) -> EditARTransformer:
    """`editar_release.pt`; the configuration is read off the tensors' shapes if none is given."""
    state, arguments = read_pickle(path)
    return _filled(lambda: EditARTransformer(config or infer_config(state, arguments, path)), state, path)


def load_text_to_image(path: Path, config: TransformerConfig | None = None) -> EditARTransformer:
    """`t2i_XL_stage2_512.pt`, to start training from: what EditAR adds keeps its fresh initialisation."""
    state, _ = read_pickle(path)
    model = EditARTransformer(config or SIZES["XL"])
    check_state(model, state, path, may_lack=NOT_IN_TEXT_TO_IMAGE)
    model.load_state_dict(state, strict=False)
    return model


def infer_config(state: Mapping[str, Tensor], arguments: Mapping[str, Any], path: Path) -> TransformerConfig:
    """The configuration behind an official state dict. The number of heads leaves no trace in the shapes: it comes
    from the training arguments, or from the released size of this depth and width."""
    try:
        vocab_size, dim = state["tok_embeddings.weight"].shape
        text_length, text_dim = state["cls_embedding.uncond_embedding"].shape
        image_tokens = state["img_uncond_embedding"].shape[0]
        distillation_dim = state["alignment.bias"].shape[0]
    except KeyError as error:
        raise CheckpointError(f"{path}: not an EditAR checkpoint, {error.args[0]} is missing") from error
    layers = len({name.split(".")[1] for name in state if name.startswith("layers.")})
    heads = arguments.get("n_head") or next(
        (size.heads for size in SIZES.values() if (size.layers, size.dim) == (layers, dim)), None
    )
    if heads is None:
        raise CheckpointError(f"{path}: no released size has {layers} layers of width {dim}; pass the configuration")
    return TransformerConfig(
        layers=layers,
        heads=heads,
        dim=dim,
        vocab_size=vocab_size,
        grid=round(image_tokens**0.5),
        text_length=text_length,
        text_dim=text_dim,
        distillation_dim=distillation_dim,
    )


def check_state(
    module: nn.Module, state: Mapping[str, Tensor], path: Path, *, may_lack: frozenset[str] = frozenset()
) -> None:
    """Raise CheckpointError naming every missing, unexpected and misshapen key."""
    wanted = module.state_dict()
    faults = [f"missing {name}" for name in wanted if name not in state and name not in may_lack]
    faults += [f"unexpected {name}" for name in state if name not in wanted]
    faults += [
        f"{name} has shape {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if faults:
        raise CheckpointError(f"{path} does not fit {type(module).__name__}: " + "; ".join(faults))


class Uninitialised(TorchFunctionMode):
    """Modules are built without drawing initial values: on the meta device PyTorch imports sympy for that (10 s)."""

    FILLS = (Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init" or func in self.FILLS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _filled(build: Callable[[], ModuleT], state: Mapping[str, Tensor], path: Path) -> ModuleT:
    with torch.device("meta"), Uninitialised():  # neither memory nor time for values that are overwritten
        module = build()
    check_state(module, state, path)
    module.load_state_dict(state, assign=True)
    return module.eval()


# --- our folders


def save_folder(folder: Path, parts: Parts, *, dtype: torch.dtype = torch.float32) -> None:
    """Write a model as a folder; `dtype` (float32 or float16) is how floating-point tensors are stored."""
    if dtype not in (torch.float32, torch.float16):
        raise ValueError(f"dtype is {dtype}; tensors are stored as torch.float32 or torch.float16")
    folder.mkdir(parents=True, exist_ok=True)
    vq_path, transformer_path, text_path = (folder / name for name in FILES)
    _save(vq_path, "vq", parts.vq, dtype)
    sampling = {"sampling": json.dumps(dataclasses.asdict(parts.sampling))}
    _save(transformer_path, "transformer", parts.transformer, dtype, sampling)
    if isinstance(parts.text, WordTextEncoder):
        _save(text_path, "text-words", parts.text, dtype)
    else:
        _write(text_path, {}, _metadata("text-t5", {"source": parts.text.source, "length": parts.text.length}))


def load_folder(folder: Path, text_source: str | Path | None = None) -> Parts:
    """Read a folder written by `save_folder`, on the CPU in float32; text_source: another place for its T5."""
    vq_path, transformer_path, text_path = (folder / name for name in FILES)
    state, metadata = _read(vq_path, ("vq",))
    vq_config = _config(VQConfig, metadata["config"], vq_path)
    vq = _filled(lambda: VQModel(vq_config), state, vq_path)
    state, metadata = _read(transformer_path, ("transformer",))
    config = _config(TransformerConfig, metadata["config"], transformer_path)
    transformer = _filled(lambda: EditARTransformer(config), state, transformer_path)
    sampling = _config(SamplingConfig, metadata.get("sampling", "{}"), transformer_path)
    text = _load_text(text_path, text_source)
    return Parts(vq=vq, transformer=transformer, text=text, sampling=sampling)


def _load_text(path: Path, source: str | Path | None) -> WordTextEncoder | T5TextEncoder:
    state, metadata = _read(path, ("text-words", "text-t5"))
    if metadata["kind"] == "text-t5":
        settings = json.loads(metadata["config"])
        return T5TextEncoder(source or settings["source"], length=settings["length"])
    config = _config(WordTextConfig, metadata["config"], path)
    return _filled(lambda: WordTextEncoder(config), state, path)


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
    _write(path, stored, {**_metadata(kind, dataclasses.asdict(module.config)), **(more or {})})


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    unfinished = path.with_name(path.name + ".part")
    save_file(tensors, unfinished, metadata)
    os.replace(unfinished, path)


def _read(path: Path, kinds: tuple[str, ...]) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file; a model's folder holds {', '.join(FILES)}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a readable safetensors file (an incomplete download?)") from error
    if metadata.get("format") != FORMAT or metadata.get("kind") not in kinds:
        raise CheckpointError(
            f"{path}: its metadata say format {metadata.get('format')!r}, kind {metadata.get('kind')!r}; expected "
            f"format {FORMAT!r}, kind {' or '.join(map(repr, kinds))}"
        )
    return state, metadata


def _config(kind: type[ConfigT], text: str, path: Path) -> ConfigT:
    try:
        return kind(**json.loads(text))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its {kind.__name__} can't be read: {error}") from error
