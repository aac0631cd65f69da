"""What a training resumes from, and the two ways to keep it: in one file, or shared out among processes."""

import io
import os
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from editar.io.atomic import WriteError, replacing
from editar.io.digests import DamagedError, check_sums, is_intact, replacing_checked, write_sums
from editar.io.tensors import CheckpointError, check_archives
from editar.training.distributed import Group

STEP = re.compile(r"step-[0-9]{8}")


@runtime_checkable
class Stateful(Protocol):
    """A stream of batches that knows where it stands."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Run:
    """A network in training: its optimiser, the moving average of its weights, the stream of its batches, the step."""

    def __init__(self, module: nn.Module, adam: torch.optim.Optimizer, batch: Callable, ema: float) -> None:
        """ema: decay of the average, 0 for none."""
        self.module, self.adam, self.ema = module, adam, ema
        self.stream = batch if isinstance(batch, Stateful) else None
        self.step = 0
        self.average: dict[str, Tensor] = {}
        if ema:
            self.average = {name: value.detach().clone() for name, value in module.named_parameters()}

    def update(self, rate: float, broken: Tensor) -> None:
        """One step of the optimiser, and of the average. broken: a bool scalar on the device; where it is true the
        weights stay as they are."""
        # As torch.amp.GradScaler tells it to a fused optimiser: it looks on the device, so that nothing waits.
        self.adam.found_inf, self.adam.grad_scale = broken.float(), None  # type: ignore[attr-defined]
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        self.step += 1
        for name, value in self.module.named_parameters() if self.ema else ():
            self.average[name].lerp_(value.detach(), 1 - self.ema)

    def weights(self) -> dict[str, Tensor]:
        """The state dict to use: averaged where there is an average."""
        return {**self.module.state_dict(), **self.average}


class Store(Protocol):
    """A place for checkpoints, of which the last one is kept."""

    def exists(self) -> bool: ...

    def save(self, run: Run) -> None: ...

    def load(self, run: Run) -> None: ...


class FileStore:
    """`last.pt`, for one process."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "last.pt"

    def exists(self) -> bool:
        return self.path.exists()

    def save(self, run: Run) -> None:
        """Write beside the last one and rename, so that a kill while saving leaves the last good one."""
        assert run.stream is None and not run.ema, "a SharedStore keeps these"
        state = {"model": run.module.state_dict(), "optimizer": run.adam.state_dict(), "step": run.step}
        with replacing_checked(self.path, writer="training") as file:
            file.write(_pickled(state))

    def load(self, run: Run) -> None:
        device = next(run.module.parameters()).device
        check_last(self.path)
        check_archives(self.path)
        state = torch.load(self.path, map_location=device, weights_only=True)
        run.module.load_state_dict(state["model"])
        run.adam.load_state_dict(state["optimizer"])
        run.step = state["step"]


def check_last(path: Path) -> None:
    """Raises CheckpointError where a FileStore's file is damaged."""
    if not is_intact(path):
        raise CheckpointError(f"{path} is damaged: it isn't what was written; remove it to start anew")


class SharedStore:
    """`step-*/` by torch.distributed.checkpoint: each process writes its share, and any number of them reads it.

    A folder gets its name when all of it is written, and the one before goes afterwards.
    """

    def __init__(self, folder: Path, group: Group) -> None:
        self.folder, self.group = folder, group

    def exists(self) -> bool:
        return self._last() is not None

    def save(self, run: Run) -> None:
        import torch.distributed.checkpoint as dcp
        from torch.distributed.checkpoint.api import CheckpointException

        unfinished = self.folder / "unfinished"
        if self.group.first:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
        self.group.wait()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process needs none
            try:
                dcp.save(_tensors(run), checkpoint_id=unfinished)
            except CheckpointException as error:  # no Exception, so that nobody would tell of it in a line
                fault = next(iter(error.failures.values()))[0]
                raise WriteError(unfinished, OSError(str(fault))) from error
        position = run.stream.state_dict() if run.stream else None
        with replacing(unfinished / f"process-{self.group.rank}.pt") as file:
            file.write(_pickled({"step": run.step, "position": position}))
        self.group.wait()
        if self.group.first:
            write_sums(unfinished)
            before = self._all()
            os.replace(unfinished, self.folder / f"step-{run.step:08d}")
            for old in before:
                shutil.rmtree(old)
        self.group.wait()

    def load(self, run: Run) -> None:
        """Processes in another number than those that saved all take the first one's position in the data. Raises
        CheckpointError where the folder holds more than tensors or is damaged."""
        import torch.distributed.checkpoint as dcp

        from editar.training.tensor_reader import TensorReader

        folder = self._last()
        assert folder is not None
        self._check(folder)
        tensors = _tensors(run)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            reader = TensorReader(folder)
            reader.check_sizes()
            dcp.load(tensors, storage_reader=reader)  # into the tensors as they lie
        rank = self.group.rank if len(list(folder.glob("process-*.pt"))) == self.group.size else 0
        check_archives(folder)
        state = torch.load(folder / f"process-{rank}.pt", weights_only=True)
        run.step = state["step"]
        if run.stream:
            run.stream.load_state_dict(state["position"])

    def _check(self, folder: Path) -> None:
        """The first process reads everything, and all raise."""
        fault = ""
        if self.group.first:
            try:
                check_sums(folder)
            except DamagedError as error:
                fault = f"{error}; remove {folder} to start anew"
        if fault := self.group.all(fault)[0]:
            raise CheckpointError(fault)

    def _all(self) -> list[Path]:
        """Sorted by their steps; no copies of them that somebody keeps."""
        return sorted(path for path in self.folder.glob("step-*") if STEP.fullmatch(path.name))

    def _last(self) -> Path | None:
        return self._all()[-1] if self._all() else None


def _pickled(state: dict[str, Any]) -> bytes:
    """In memory: PyTorch's writer hides why a file could not be written."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _tensors(run: Run) -> dict[str, Any]:
    """All tensors of a run by name, those of the optimiser under the parameter's: nothing depends on an order."""
    adam = {}
    for name, parameter in run.module.named_parameters():
        if parameter.requires_grad:
            state = run.adam.state[parameter]
            if not state:  # before the first step, and of what no loss reaches
                state["step"] = torch.zeros((), device=parameter.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            adam[name] = state
    return {"model": run.module.state_dict(), "adam": adam, "average": run.average}
