"""What a training tells: metrics.jsonl, the progress bar, and TensorBoard where it is installed."""

import importlib.util
import json
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from editar.io.atomic import append_text, write_text
from editar.training.distributed import Group

# Dense bfloat16 peak by the makers' data sheets, in FLOP/s, for a part of the device's name.
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12}


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one sample costs: its tokens, and the floating-point operations of a training step."""

    tokens: int
    operations: float


class Log:
    """Means over the steps since the last line and over all processes: a line every `every` steps, and one before each
    checkpoint, so that a resumed run has the lines of an uninterrupted one. Values stay on the device until then.

    samples: those of a step, in all processes.
    """

    def __init__(self, folder: Path, group: Group, every: int, samples: int, work: Work | None) -> None:
        self.path = folder / "metrics.jsonl"
        self.group, self.every, self.samples, self.work = group, every, samples, work
        self.values: dict[str, list[Tensor]] = defaultdict(list)
        self.steps, self.waited, self.clock = 0, 0.0, time.perf_counter()
        self.board = None
        if group.first and importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"))

    def add(self, values: Mapping[str, Tensor]) -> None:
        """The scalars of a batch; a name that a batch lacks (its task did not occur) doesn't count for it."""
        for name, value in values.items():
            self.values[name].append(value.detach())

    def due(self, step: int, saves: bool) -> bool:
        """Whether there is a line after this step, which counts from 1; saves: a checkpoint comes next."""
        return saves or step % self.every == 0

    def step(self, step: int, rate: float, waited: float, bar: tqdm, saves: bool) -> None:
        """After each step, as `due`; `waited` are the seconds that its data took."""
        self.steps += 1
        self.waited += waited
        if not self.due(step, saves):
            return
        means = self._means()
        seconds = time.perf_counter() - self.clock
        line = {"step": step, **means, "rate": rate, "seconds": seconds, **self._speed(seconds)}
        if self.group.first:
            append_text(self.path, json.dumps({name: float(f"{value:.6g}") for name, value in line.items()}) + "\n")
            bar.set_postfix({name: f"{value:.3f}" for name, value in means.items() if "/" not in name}, refresh=False)
        if self.board is not None:
            for name, value in line.items():
                self.board.add_scalar(name, value, step)
        self.values.clear()
        self.steps, self.waited, self.clock = 0, 0.0, time.perf_counter()

    def _means(self) -> dict[str, float]:
        totals: dict[str, float] = defaultdict(float)
        counts: dict[str, int] = defaultdict(int)
        values = {name: torch.stack(scalars).tolist() for name, scalars in self.values.items()}
        for own in self.group.all({name: (sum(numbers), len(numbers)) for name, numbers in values.items()}):
            for name, (total, count) in own.items():
                totals[name] += total
                counts[name] += count
        return {name: total / counts[name] for name, total in totals.items()}

    def _speed(self, seconds: float) -> dict[str, float]:
        """Samples and tokens per second of all processes; this one's waiting, memory in GB, and share of its peak."""
        rate = self.steps * self.samples / seconds
        speed = {"samples_per_second": rate, "data_wait": self.waited / seconds}
        if memory := _memory(self.group.device):
            speed["memory"] = memory / 1e9
        if self.work is not None:
            speed["tokens_per_second"] = rate * self.work.tokens
            name = torch.cuda.get_device_name(self.group.device) if self.group.device.type == "cuda" else ""
            if peak := next((peak for part, peak in PEAKS.items() if part in name), None):
                speed["mfu"] = rate * self.work.operations / (peak * self.group.size)
        return speed


def _memory(device: torch.device) -> int | None:
    """The most bytes that were in use so far: of the GPU's memory, else of the process's, where the system tells."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if not importlib.util.find_spec("resource"):  # Windows
        return None
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def forget_after(log: Path, step: int, name: str = "step") -> None:
    """Drop the lines of a jsonl file past `step`, and a torn last one: those steps are taken again."""
    if not log.exists():
        return
    lines = log.read_text().splitlines()
    kept = [line for line in lines if line.endswith("}") and json.loads(line)[name] <= step]
    write_text(log, "".join(f"{line}\n" for line in kept), writer="training")  # a kill here loses none of the lines
