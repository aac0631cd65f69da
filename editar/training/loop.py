"""One training loop for every network of the project: deterministic by step, resumable, with atomic checkpoints."""

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

ModuleT = TypeVar("ModuleT", bound=nn.Module)
BatchT = TypeVar("BatchT")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a network is trained. The defaults are EditAR's (paper, section 4 and appendix D).

    The paper's learning rate is constant: `warmup_steps` and `decay_steps` (linear up, cosine down to 2%) are 0 there.
    """

    steps: int
    batch_size: int = 64
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    warmup_steps: int = 0
    decay_steps: int = 0
    bfloat16: bool = True
    seed: int = 0
    checkpoint_every: int = 500
    log_every: int = 50

    def __post_init__(self):
        for name in ("steps", "batch_size", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 1")
        if self.warmup_steps + self.decay_steps > self.steps:
            raise ValueError(f"warmup_steps + decay_steps is more than steps ({self.steps})")

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
    loss: Callable[[ModuleT, BatchT, int], dict[str, Tensor]],
    batch: Callable[[int], BatchT],
    config: TrainConfig,
    folder: Path,
) -> None:
    """Train `module` in place to `config.steps`, resuming from `folder/last.pt` where there is one.

    `batch(step)` makes the batch of a step from nothing but the step, and the random state is set from (seed, step), so
    a resumed run goes on bit for bit as the uninterrupted one would. `loss(module, batch, step)` returns a dict of
    scalars, of which "loss" is minimised; all are logged to `folder/metrics.jsonl`.

    Raises FloatingPointError, with the step, if the loss is no longer finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device = next(module.parameters()).device
    adam = optimizer(module, config)
    first = _resume(module, adam, folder)
    module.train()
    sums: dict[str, float] = {}
    clock = time.perf_counter()
    bar = tqdm(range(first, config.steps), initial=first, total=config.steps, desc=folder.name, mininterval=5)
    for step in bar:
        torch.manual_seed((config.seed << 32) + step)
        for group in adam.param_groups:
            group["lr"] = config.rate(step)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
            values = loss(module, batch(step), step)
        if not torch.isfinite(values["loss"]):
            raise FloatingPointError(
                f"the loss of step {step} is {values['loss'].item()}; see {folder / 'metrics.jsonl'}"
            )
        values["loss"].backward()
        norm = nn.utils.clip_grad_norm_(module.parameters(), config.clip_norm)
        adam.step()
        adam.zero_grad(set_to_none=True)
        for name, value in {**values, "gradient_norm": norm}.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
        if (step + 1) % config.log_every == 0:
            seconds, clock = time.perf_counter() - clock, time.perf_counter()
            line = {name: total / config.log_every for name, total in sums.items()}
            sums = {}
            _log(folder, {"step": step + 1, **line, "rate": config.rate(step), "seconds": seconds})
            bar.set_postfix({name: f"{value:.3f}" for name, value in line.items()}, refresh=False)
        if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
            _save(module, adam, step + 1, folder)
    module.eval()


def _log(folder: Path, line: dict[str, float]) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({name: float(f"{value:.6g}") for name, value in line.items()}) + "\n")


def _save(module: nn.Module, adam: torch.optim.Optimizer, step: int, folder: Path) -> None:
    """Write beside the last checkpoint and rename, so that a kill while saving leaves the last good one."""
    temporary = folder / "last.pt.tmp"
    torch.save({"model": module.state_dict(), "optimizer": adam.state_dict(), "step": step}, temporary)
    os.replace(temporary, folder / "last.pt")


def _resume(module: nn.Module, adam: torch.optim.Optimizer, folder: Path) -> int:
    path = folder / "last.pt"
    if not path.exists():
        return 0
    state = torch.load(path, map_location=next(module.parameters()).device, weights_only=True)
    module.load_state_dict(state["model"])
    adam.load_state_dict(state["optimizer"])
    _forget_after(folder / "metrics.jsonl", state["step"])
    return state["step"]


def _forget_after(log: Path, step: int) -> None:
    """Drop logged lines past the checkpoint: those steps are taken again."""
    lines = log.read_text().splitlines() if log.exists() else []
    log.write_text("".join(f"{line}\n" for line in lines if line.endswith("}") and json.loads(line)["step"] <= step))
