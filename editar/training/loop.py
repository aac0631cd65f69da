"""One training loop for every network of the project: deterministic by step, resumable, with atomic checkpoints."""

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from editar.training.log import Log, Work, forget_after

ModuleT = TypeVar("ModuleT", bound=nn.Module)
BatchT = TypeVar("BatchT")
Values = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a network is trained. The defaults are EditAR's (paper, section 4 and appendix D).

    The paper's learning rate is constant: `warmup_steps` and `decay_steps` (linear up, cosine down to 2%) are 0 there.
    """

    steps: int
    """Steps of the optimiser."""
    batch_size: int = 64
    """Samples of a step."""
    accumulate: int = 1
    """Parts that the batch is computed in, one after the other, to save memory."""
    learning_rate: float = 1e-4
    """Of AdamW."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Of AdamW."""
    weight_decay: float = 0.05
    """On tensors of two or more dimensions."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    warmup_steps: int = 0
    """Steps of a linear rise of the rate."""
    decay_steps: int = 0
    """Steps of a cosine fall of the rate, at the end."""
    ema: float = 0.0
    """Decay of a moving average of the weights; 0 is none, as in the paper."""
    bfloat16: bool = True
    """Autocast over float32 weights."""
    seed: int = 0
    """Of dropout."""
    checkpoint_every: int = 500
    """Steps."""
    log_every: int = 50
    """Steps."""

    def __post_init__(self):
        for name in ("steps", "batch_size", "accumulate", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 1")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} can't be computed in {self.accumulate} equal parts")
        if self.warmup_steps + self.decay_steps > self.steps:
            raise ValueError(f"warmup_steps + decay_steps is more than steps ({self.steps})")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}, but must be in [0, 1)")

    def rate(self, step: int) -> float:
        """Learning rate of a step (0-based)."""
        scale = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        done = step - (self.steps - self.decay_steps)
        if self.decay_steps and done > 0:
            scale *= 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done / self.decay_steps))
        return self.learning_rate * scale


@runtime_checkable
class Stateful(Protocol):
    """A stream of batches that knows where it stands: its state goes into the checkpoints."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What a training does besides. All may be left out."""

    work: Work | None = None
    """What a sample costs, for tokens per second and the share of the device's peak."""
    names: Callable[[Any], Sequence[str]] | None = None
    """What a batch is made of, for the report on a loss that is not finite."""
    saved: Callable[[int, nn.Module], None] | None = None
    """Called after each checkpoint with the step and the network, or its moving average."""


def optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on tensors of two or more dimensions only (paper, appendix D)."""
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


def train(
    module: ModuleT,
    loss: Callable[[ModuleT, BatchT, int], Values],
    batch: Callable[[int], BatchT],
    config: TrainConfig,
    folder: Path,
    hooks: Hooks | None = None,
) -> None:
    """Train `module` in place to `config.steps`, resuming from `folder/last.pt` where there is one.

    `batch(index)` makes a batch, or a part of one with `accumulate`, from nothing but its number since the start; or it
    is `Stateful` and gives the next one. The random state is set from (seed, step). So a resumed run goes on bit for
    bit as the uninterrupted one would. `loss(module, batch, step)` returns a dict of scalars, of which "loss" is
    minimised; all are logged to `folder/metrics.jsonl`.

    Raises FloatingPointError, with the step, if the loss or the gradient is no longer finite; `folder/not_finite.json`
    then says what the batch was made of. The weights are left as they were before that step.
    """
    folder.mkdir(parents=True, exist_ok=True)
    hooks = hooks or Hooks()
    run = Run(module, batch, config, folder)
    device = next(module.parameters()).device
    log = Log(folder, device, config.log_every, config.batch_size, hooks.work)
    module.train()
    bar = tqdm(range(run.first, config.steps), initial=run.first, total=config.steps, desc=folder.name, mininterval=5)
    for step in bar:
        torch.manual_seed((config.seed << 32) + step)
        names: list[str] = []
        waited = 0.0
        finite = True
        for part in range(config.accumulate):
            before = time.perf_counter()
            inputs = batch(step * config.accumulate + part)
            waited += time.perf_counter() - before
            names += hooks.names(inputs) if hooks.names else []
            with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
                values = loss(module, inputs, step)
            finite = finite and bool(torch.isfinite(values["loss"]))
            (values["loss"] / config.accumulate).backward()
            log.add(values)
        norm = nn.utils.clip_grad_norm_(module.parameters(), config.clip_norm)
        if not finite or not torch.isfinite(norm):
            raise _not_finite(folder, step, values["loss"], norm, names)
        log.add({"gradient_norm": norm})
        run.update(step)
        log.step(step + 1, config.rate(step), waited, bar)
        if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
            run.save(step + 1)
            if hooks.saved:
                hooks.saved(step + 1, run.averaged.module if run.averaged else module)
    module.eval()


class Run:
    """What a checkpoint holds: network, optimiser, moving average, and the position in the data."""

    def __init__(self, module: nn.Module, batch: Callable, config: TrainConfig, folder: Path) -> None:
        """Goes on from `folder/last.pt` if there is one; `first` is the step to take next."""
        self.module, self.config, self.folder = module, config, folder
        self.stream = batch if isinstance(batch, Stateful) else None
        self.adam = optimizer(module, config)
        self.averaged = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(config.ema)) if config.ema else None
        self.first = 0
        if (folder / "last.pt").exists():
            self._resume()

    def update(self, step: int) -> None:
        """One step of the optimiser, and of the average."""
        for group in self.adam.param_groups:
            group["lr"] = self.config.rate(step)
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        if self.averaged is not None:
            self.averaged.update_parameters(self.module)

    def save(self, step: int) -> None:
        """Write beside the last checkpoint and rename, so that a kill while saving leaves the last good one."""
        state = {"model": self.module.state_dict(), "optimizer": self.adam.state_dict(), "step": step}
        if self.averaged is not None:
            state["averaged"] = self.averaged.state_dict()
        if self.stream is not None:
            state["data"] = self.stream.state_dict()
        temporary = self.folder / "last.pt.tmp"
        torch.save(state, temporary)
        os.replace(temporary, self.folder / "last.pt")

    def _resume(self) -> None:
        device = next(self.module.parameters()).device
        state = torch.load(self.folder / "last.pt", map_location=device, weights_only=True)
        for name, part in (("averaged", self.averaged), ("data", self.stream)):
            if (name in state) != (part is not None):
                raise ValueError(
                    f"{self.folder / 'last.pt'} was {'' if name in state else 'not '}written with {name}; "
                    "go on with the settings of then, or train in another folder"
                )
            if part is not None:
                part.load_state_dict(state[name])
        self.module.load_state_dict(state["model"])
        self.adam.load_state_dict(state["optimizer"])
        self.first = state["step"]
        forget_after(self.folder / "metrics.jsonl", self.first)


def _not_finite(folder: Path, step: int, loss: Tensor, norm: Tensor, names: list[str]) -> FloatingPointError:
    report = {"step": step, "loss": str(loss.item()), "gradient_norm": str(norm.item()), "batch": names}
    (folder / "not_finite.json").write_text(json.dumps(report, indent=1) + "\n")
    return FloatingPointError(
        f"the loss of step {step} is {loss.item()}, the norm of its gradient {norm.item()}; its batch is named in "
        f"{folder / 'not_finite.json'}, the steps before in metrics.jsonl"
    )
