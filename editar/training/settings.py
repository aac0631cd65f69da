"""A training's settings: one TOML file, whose tables are the dataclasses below, and flags that change single ones."""

import dataclasses
import json
import tomllib
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import torch
import tyro

from editar.io.atomic import write_text
from editar.training.data.mixture import DataConfig
from editar.training.loop import TrainConfig
from editar.training.start import ModelConfig
from editar.training.teachers import DistillationConfig

DIGESTS = "digests"  # in settings.json
T = TypeVar("T")
PAPERS = DistillationConfig()  # the paper's
# What may be another in a run that goes on: none of these moves a number.
FREE = frozenset({"out", "device", "previews", "shards", "token_cache"}) | {
    f"training.{name}" for name in ("steps", "checkpoint_every", "log_every")
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Example: python -m editar train configs/editar_xl.toml --training.steps 100 --out runs/train/short

    Train EditAR with the settings of a file; flags change single ones.
    """

    model: ModelConfig
    data: DataConfig
    training: TrainConfig
    out: Path
    """Folder of the run: checkpoints, metrics.jsonl, previews, and the trained model in model/."""
    distillation: DistillationConfig = PAPERS
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """For instance cpu or cuda."""
    token_cache: Path | None = None
    """Folder of a cache of tokens, which runs may share."""
    shards: int = 0
    """Processes that share one copy of the weights, where torchrun starts several; 0: all, 1: each has a copy."""
    previews: int = 4
    """Samples that are drawn at every checkpoint, beside their sources and targets; 0: none."""


def parse(path: Path, flags: Sequence[str] = ()) -> Config:
    """The settings in a TOML file, changed by flags like --training.steps 10. Raises ValueError naming the setting."""
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:  # no TOML, not UTF-8, or nested too deep
        raise ValueError(f"{path}: {error}") from error
    try:
        config = build(Config, values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if not flags:
        return config
    return tyro.cli(Config, default=config, args=list(flags), prog=f"python -m editar train {path}")


def build(kind: type[T], values: Mapping[str, Any], place: str = "") -> T:
    """A dataclass from a TOML table. place: what comes before the names in errors. Raises ValueError."""
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := [place + name for name in values if name not in fields]:
        raise ValueError(f"{', '.join(unknown)}: no such setting; there are {', '.join(fields)}")
    required = [name for name, field in fields.items() if field.default is dataclasses.MISSING]
    if missing := [place + name for name in required if name not in values]:
        raise ValueError(f"{', '.join(missing)} must be given")
    hints = get_type_hints(kind)
    return kind(**{name: _value(hints[name], value, place + name) for name, value in values.items()})


def _value(hint: Any, value: Any, place: str) -> Any:
    """A TOML value as what a field wants."""
    if get_origin(hint) in (Union, types.UnionType):  # of one type and None, which TOML has no word for
        (hint,) = (part for part in get_args(hint) if part is not types.NoneType)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        return build(hint, value, f"{place}.")
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_value(get_args(hint)[0], part, f"{place}.{i}") for i, part in enumerate(value))
    if get_origin(hint) is Literal:
        if value in get_args(hint):
            return value
        raise ValueError(f"{place} is {value!r}; choose one of {', '.join(map(str, get_args(hint)))}")
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is hint:
        return value
    raise ValueError(f"{place} is {value!r}; it must be a {getattr(hint, '__name__', hint)}")


def keep(settings: Mapping[str, Any], folder: Path, free: frozenset[str] = frozenset(), *, write: bool = True) -> None:
    """Write settings into a run's folder. Raises ValueError if it holds a run with others: they'd mix.

    free: dotted names of those that may differ. write: False in all processes but one. Under DIGESTS are those of the
    files that are read; a run of before they were recorded takes them over.
    """
    path = folder / "settings.json"
    now, then = json.loads(json.dumps(settings, default=str)), None
    if path.is_file():
        try:
            then = json.loads(path.read_text("utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} can't be read ({error}); remove it, or give another --out") from error
        known = {DIGESTS: now.get(DIGESTS, {}), **then} if isinstance(then, dict) else then
        differing = sorted(
            name for name in {*_flat(now), *_flat(known)} - free if _flat(now).get(name) != _flat(known).get(name)
        )
        if differing:
            raise ValueError(
                f"{folder} holds a run with other settings ({', '.join(differing)}): go on with those in "
                "settings.json, or give another --out"
            )
    if not write or now == then:
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(now, indent=1) + "\n", writer="training")


def _flat(values: Any, place: str = "") -> dict[str, Any]:
    """Nested settings by dotted names."""
    if not isinstance(values, (dict, list)):
        return {place: values}
    items = values.items() if isinstance(values, dict) else enumerate(values)
    return {
        name: leaf
        for key, value in items
        for name, leaf in _flat(value, f"{place}.{key}" if place else str(key)).items()
    }
