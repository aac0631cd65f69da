"""One training loop for every network of the project: deterministic by step, resumable, with atomic checkpoints."""

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from editar.config import require_seed
from editar.io.atomic import lock_or_refuse, write_text
from editar.training.checkpoints import FileStore, Run, Store
from editar.training.distributed import Group, add_up_gradients, full
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
        require_seed(self.seed, end=2**31)  # the step's number comes below it
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}, but must be in [0, 1)")

    def rate(self, step: int) -> float:
        """Learning rate of a step (0-based)."""
        scale = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        done = step - (self.steps - self.decay_steps)
        if self.decay_steps and done > 0:
            scale *= 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done / self.decay_steps))
        return self.learning_rate * scale


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
    *,
    group: Group | None = None,
    store: Store | None = None,
    work: Work | None = None,
    names: Callable[[BatchT], Sequence[str]] | None = None,
    saved: Callable[[Run], None] | None = None,
) -> None:
    """Train `module` in place to `config.steps`, resuming from the last checkpoint where there is one.

    `batch(index)` makes a batch, or this process's part of one, from nothing but its number since the start; or it is
    `Stateful` and gives the next one. The random state is set from (seed, step, rank). So a resumed run goes on bit for
    bit as the uninterrupted one would. `loss(module, batch, step)` returns a dict of scalars, of which "loss" is
    minimised; all are logged to `folder/metrics.jsonl`.

    group: the processes that train together, by default this one alone. store: where checkpoints go, by default
    `last.pt` in the folder, which holds no moving average and no stream's position. work: what a sample costs, for
    tokens per second and the share of the device's peak. names: what a batch is made of, for the report on a loss that
    is not finite. saved: called after each checkpoint, in all processes.

    Raises ValueError where another process trains in the folder; FloatingPointError, with the step, if the loss or the
    gradient is no longer finite, when the next line of the log is due. `folder/not_finite.json` then says what the
    batch was made of, and the weights are left as they were before that step.
    """
    folder.mkdir(parents=True, exist_ok=True)
    group, store = group or Group(device=next(module.parameters()).device), store or FileStore(folder)
    with lock_or_refuse(folder) if group.first else nullcontext():
        _train(module, loss, batch, config, folder, group, store, work, names, saved)
    module.eval()


def _train(
    module: ModuleT,
    loss: Callable[[ModuleT, BatchT, int], Values],
    batch: Callable[[int], BatchT],
    config: TrainConfig,
    folder: Path,
    group: Group,
    store: Store,
    work: Work | None,
    names: Callable[[BatchT], Sequence[str]] | None,
    saved: Callable[[Run], None] | None,
) -> None:
    """As `train`, in a folder that no other process trains in."""
    device = next(module.parameters()).device
    run = Run(module, optimizer(module, config), batch, config.ema)
    if store.exists():
        store.load(run)
        if group.first:
            forget_after(folder / "metrics.jsonl", run.step)
    log = Log(folder, group, config.log_every, config.batch_size, work)
    bar = tqdm(
        range(run.step, config.steps), initial=run.step, total=config.steps, desc=folder.name, mininterval=5,
        disable=not group.first,
    )  # fmt: skip
    started = run.step
    # Looked at where a line is due: before that the host would wait for the device in every step.
    broken = torch.zeros((), dtype=torch.bool, device=device)
    taken: list[Step] = []
    module.train()
    for step in bar:
        torch.manual_seed((config.seed << 32) + step * group.size + group.rank)
        origins: list[str] = []
        waited, losses = 0.0, []
        for part in range(config.accumulate):
            before = time.perf_counter()
            inputs = batch(step * config.accumulate + part)
            waited += time.perf_counter() - before
            origins += names(inputs) if names else []
            with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
                values = loss(module, inputs, step)
            losses.append(values["loss"].detach())
            add_up_gradients(module, group, part == config.accumulate - 1)
            (values["loss"] / config.accumulate).backward()
            log.add(values)
        norm = full(nn.utils.clip_grad_norm_(module.parameters(), config.clip_norm))
        broken = broken | group.any(~torch.stack([*losses, norm]).isfinite().all())
        log.add({"gradient_norm": norm})
        run.update(config.rate(step), broken)
        taken.append(Step(number=step, loss=losses[-1], norm=norm, broken=broken, batch=origins))
        saves = run.step % config.checkpoint_every == 0 or run.step == config.steps
        if log.due(run.step, saves):
            if broken:
                raise _not_finite(folder, group, next(each for each in taken if each.broken))
            taken.clear()
        log.step(run.step, config.rate(step), waited, bar, saves)
        if saves:
            store.save(run)
            if saved:
                saved(run)
    if started == config.steps and saved:  # it may have been killed between its checkpoint and this
        saved(run)


@dataclass(frozen=True, kw_only=True)
class Step:
    """What is told of a step if it broke the training: loss of its last part and norm of the gradient, scalars on the
    device; broken: whether anything so far was not finite, in any process."""

    number: int
    loss: Tensor
    norm: Tensor
    broken: Tensor
    batch: list[str]


def _not_finite(folder: Path, group: Group, step: Step) -> FloatingPointError:
    losses, batches = group.all(str(step.loss.item())), group.all(step.batch)
    norm = step.norm.item()
    report = {"step": step.number, "loss": losses, "gradient_norm": str(norm), "batch": batches}
    if group.first:
        write_text(folder / "not_finite.json", json.dumps(report, indent=1) + "\n", writer="training")
    return FloatingPointError(
        f"the loss of step {step.number} is {', '.join(losses)}, the norm of its gradient {norm}; its batch is named "
        f"in {folder / 'not_finite.json'}, the steps before in metrics.jsonl"
    )
