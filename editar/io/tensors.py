"""Files of tensors, mapped into memory: the authors' pickles, read without running their code, and safetensors.

A module is filled from such a file in groups of tensors, so that the memory it takes is its own and one group's,
however large the file and whatever its dtypes.
"""

import argparse
import json
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from editar.devices import is_lack_of_memory
from editar.io.atomic import replacing
from editar.io.foreign import what_it_is

# Under which names training code keeps the weights, those that it trains before their moving average.
NESTED_UNDER = (
    "model", "module", "state_dict", "model_state_dict", "ema", "ema_state_dict", "model_ema", "ema_model",
)  # fmt: skip
WRAPPERS = ("module.", "_orig_mod.")  # what DistributedDataParallel and torch.compile put before every name
ARCHIVES = (".bin", ".ckpt", ".pt", ".pth")
GROUP_BYTES = 2**28  # read from a file before it is mapped anew

ModuleT = TypeVar("ModuleT", bound=nn.Module)
State = Mapping[str, Tensor]


class Weights(dict[str, Tensor]):
    """The tensors of a file by name. taken: where in the file they lie, and what is dropped of their names: "ema",
    "model, without module."; "" where they lie plainly in it."""

    taken = ""


class CheckpointError(ValueError):
    """A checkpoint that is refused; the message names the file, what is wrong and what was expected."""


def map_pickle(path: Path) -> tuple[Weights, dict[str, Any]]:
    """A .pt file -> its state dict and its training arguments ({} if it has none).

    The state dict may lie under some of NESTED_UNDER, and where all names begin with one of WRAPPERS, that is dropped.
    The tensors are the file's own: mapped from it, not copied, and of its dtypes. Only tensors, plain containers and
    argparse.Namespace are accepted: a pickle that would run code is refused, and so is one that says more than it
    holds: an archive that unfolds to more than the file has, tensors of more numbers than are stored.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    try:
        check_archives(path)
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_archive(path))
    except pickle.UnpicklingError as error:
        _refuse_other_files(path, error)
        raise CheckpointError(
            f"{path}: refused, because it holds more than tensors and argparse.Namespace, and loading it could run "
            "code. Use the file as the authors released it"
        ) from error
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # a damaged file raises any kind: RuntimeError, EOFError, KeyError, AttributeError ...
        if is_lack_of_memory(error):
            raise
        _refuse_other_files(path, error)
        raise CheckpointError(f"{path}: not a readable PyTorch checkpoint (an incomplete download?)") from error
    arguments = content.get("args") if isinstance(content, dict) else None
    if isinstance(arguments, argparse.Namespace):
        arguments = vars(arguments)
    state, place = content, []
    for _ in NESTED_UNDER:  # a pickle may hold itself, and would be searched for ever
        inner = [key for key in NESTED_UNDER if isinstance(state, dict) and isinstance(state.get(key), dict)]
        if inner:
            state = state[inner[0]]
            place.append(inner[0])
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(
            f"{path}: no state dict found; expected one at the top or under {', '.join(NESTED_UNDER)}"
        )
    for name, tensor in state.items():
        if not isinstance(name, str) or not _is_stored(tensor):
            raise CheckpointError(
                f"{path}: refused, because {name!r} is no plain tensor of which the file holds every number. Use the "
                "file as the authors released it"
            )
    return _unwrapped(state, place), arguments if isinstance(arguments, dict) else {}


def _refuse_other_files(path: Path, error: Exception) -> None:
    if what := what_it_is(path):
        raise CheckpointError(f"{path}: not a readable PyTorch checkpoint, {what}; fetch it again") from error
    with path.open("rb") as file:
        head = file.read(16)
    if not head.startswith((b"\x80", b"PK")):  # a pickle, a zip archive
        raise CheckpointError(f"{path}: not a readable PyTorch checkpoint, it begins with {head!r}") from error


def _unwrapped(state: Mapping[str, Tensor], place: Sequence[str] = ()) -> Weights:
    """The tensors without the wrappers' part of their names. place: the keys under which they lay."""
    dropped = ""
    while state and (found := next((each for each in WRAPPERS if all(name.startswith(each) for name in state)), "")):
        state = {name.removeprefix(found): tensor for name, tensor in state.items()}
        dropped += found
    weights = Weights(state)
    weights.taken = ", ".join(filter(None, (".".join(place), dropped and f"without {dropped}")))
    return weights


def check_archives(place: Path) -> None:
    """Raises CheckpointError where an archive of PyTorch's, a file or those in a folder, unfolds to more than it has,
    as a compressed member may to any size.

    PyTorch's own reader is asked, since two readers can be made to find two archives in one file.
    """
    found = [place] if place.is_file() else [path for path in sorted(place.rglob("*")) if path.suffix in ARCHIVES]
    for path in found:
        if not path.is_file() or not _is_archive(path):
            continue
        try:
            unfolded = unfolded_bytes(str(path))
        except RuntimeError as error:
            why = what_it_is(path) or str(error).splitlines()[0]
            raise CheckpointError(f"{path}: not a readable PyTorch checkpoint, {why}; fetch it again") from error
        if unfolded > (size := path.stat().st_size):
            raise CheckpointError(
                f"{path}: refused, because it unfolds to {unfolded} bytes and has {size}. Use the file as the authors "
                "released it"
            )


def unfolded_bytes(archive: str | IO[bytes]) -> int:
    """Of what PyTorch's reader finds in a file. Raises RuntimeError where it finds no archive."""
    reader = torch._C.PyTorchFileReader(archive)
    return sum(map(reader.get_record_size, reader.get_all_records()))


def _is_archive(path: Path) -> bool:
    """As PyTorch tells it, which reads older files otherwise."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _is_stored(tensor: Tensor) -> bool:
    """Whether the file holds the tensor's numbers: a stride of 0 makes terabytes of a few."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def map_safetensors(path: Path) -> tuple[Weights, dict[str, str]]:
    """A safetensors file -> its tensors, mapped from it and of its dtypes, and its metadata. WRAPPERS are dropped."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return _unwrapped(tensors), file.metadata() or {}
    except (FileNotFoundError, MemoryError):
        raise
    except Exception as error:  # SafetensorError, OSError, and for types that PyTorch lacks any other
        if is_lack_of_memory(error):
            raise MemoryError(f"{path}: {error}") from error
        why = f", {what}; fetch it again" if (what := what_it_is(path)) else " (an incomplete download?)"
        raise CheckpointError(f"{path}: not a readable safetensors file{why}") from error


def read_tensors(path: Path) -> Weights:
    """The state dict of a safetensors file, or of a pickle as `map_pickle` reads it. Raises CheckpointError."""
    return map_safetensors(path)[0] if path.suffix == ".safetensors" else map_pickle(path)[0]


def copies(
    mapped: Callable[[], State], names: Iterable[str], *, dtype: torch.dtype, device: str | torch.device = "cpu"
) -> dict[str, Tensor]:
    """Copies of the named tensors on a device, the floating-point ones as `dtype`.

    mapped: maps the file. That is done anew for each group of GROUP_BYTES, because what was read through a mapping
    counts as this process's memory for as long as the mapping lives.
    """
    state, taken, read = mapped(), {}, 0
    for name in names:
        if read > GROUP_BYTES:
            state, read = mapped(), 0
        tensor = state[name]
        taken[name] = tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype, copy=True)
        read += tensor.nbytes
        del tensor  # it would keep the old mapping
    return taken


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None, *, writer: str | None = None
) -> None:
    """Replaces a safetensors file, whole or not at all: equal content gives equal bytes. writer and
    errors: see `editar.io.atomic.replacing`."""
    with replacing(path, writer=writer) as file:
        try:
            save_file(dict(tensors), file.name, dict(metadata or {}))
        except SafetensorError as error:  # no room, for one
            raise OSError(str(error)) from error
        _sort_metadata(Path(file.name))


def _sort_metadata(path: Path) -> None:
    """safetensors sorts the tensors, but writes the metadata in an order that changes from process to process."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(text) <= size
        file.seek(8)
        file.write(text.ljust(size))


def fill(
    build: Callable[[], ModuleT],
    mapped: Callable[[], State],
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    may_lack: Mapping[str, str] | None = None,
) -> ModuleT:
    """A module in evaluation mode with the tensors of a file; CheckpointError if they do not fit it.

    build: makes the module; its initial values cost neither time nor memory. path: for messages. may_lack: from
    names that the file may leave out to those whose tensor they share.
    """
    with torch.device("meta"), Uninitialised():
        module = build()
    check_state(module, mapped(), path, may_lack=frozenset(may_lack or ()))
    names = [name for name in module.state_dict() if name not in (may_lack or {})]
    state = copies(mapped, names, dtype=dtype, device=device)
    state.update({name: state[shared] for name, shared in (may_lack or {}).items()})
    module.load_state_dict(state, assign=True)
    return module.eval()


def check_state(module: nn.Module, state: State, path: Path, *, may_lack: frozenset[str] = frozenset()) -> None:
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
        if shared := _shared_prefix(state):
            faults.insert(0, f"every name in the file begins with {shared!r}, which it should not")
        raise CheckpointError(f"{path} does not fit {type(module).__name__}: " + "; ".join(faults))


def _shared_prefix(state: State) -> str:
    """The first part of a name, such as "model.", that all names have; "" where there is none."""
    first = {name.partition(".")[0] for name in state}
    return f"{first.pop()}." if len(first) == 1 and all("." in name for name in state) else ""


class Uninitialised(TorchFunctionMode):
    """Modules are built without drawing initial values: on the meta device PyTorch imports sympy for that (10 s)."""

    FILLS = (Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init" or func in self.FILLS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
