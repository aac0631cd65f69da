"""manifest.json: what a run is, in full, and the fingerprint over all of it that can move a number.

Schema 1. Keys:
    schema_version, suite, benchmark, method, protocol
    dataset             {name, digest, records}
    method_settings     as the method gives them
    scoring             {precision, backbones: {part: {name, official, digest}}}, PIE-Bench's parts being structure,
                        perceptual and clip, a translation's features (of FID) and depth or segmentation; a
                        translation also has the protocol's options
    seed
    packages            {name: version or null}
    python, platform
    device              {type, name}
    git                 {revision, dirty}, or null
    fingerprint         SHA-256
    counts              {expected, done, failed, missing}
    wall_seconds        making and scoring images, summed over processes and resumptions
    images_per_second   of one process making images; null when none was made
    peak_memory_bytes   the largest of the processes, making and scoring: GPU memory where there is one, else main
                        memory
    cost                what making the images took, null when none was made: {load_seconds: building and loading the
                        method; seconds_per_sample; samples: those with an image; peak_memory_bytes: while the method
                        was loaded and at work; before_bytes: what the same process held just before; memory: "GPU",
                        "main", or "main, since the process began" where the peak is not the method's own}, times of the
                        slowest and memory of the largest process
    started, finished   ISO time in UTC; finished is null until every sample is done or has failed
    sessions            [{id, rank, started, seconds, peak_memory_bytes, load_seconds, making_peak_bytes, before_bytes,
                        memory}], one for each process that took part; see `Session` in benchmarks/runs/samples.py
"""

import json
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.runs.samples import RunError, Session, utc_now
from editar.io.atomic import write_text
from editar.io.digests import json_digest

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
LOCKED = "locked"  # the writer of files that are written with the lock of the directory held

# Packages whose version can move a number; a method whose results hang on another puts its version into its settings.
PACKAGES = ("numpy", "pillow", "tokenizers", "torch", "torchmetrics", "torchvision", "transformers")

# The part of the manifest that the fingerprint is taken over. Of the device only the type, of the data set the digest.
IDENTITY = (
    "schema_version", "suite", "benchmark", "method", "protocol", "dataset.digest", "method_settings", "scoring",
    "seed", "packages", "device.type",
)  # fmt: skip


def _counts(value: Any) -> bool:
    names = ("expected", "done", "failed", "missing")
    return isinstance(value, dict) and all(type(value.get(name)) is int for name in names)


def _sessions(value: Any) -> bool:
    """Whether they can be added up with others; older ones have fewer fields."""
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        return False
    try:
        for each in value:
            Session(**each)
    except (TypeError, ValueError):
        return False
    return True


# What is read of a manifest besides its identity, and what it has to be.
_STATE = {
    "counts": _counts,
    "sessions": _sessions,
    "finished": lambda value: value is None or isinstance(value, str),
}


def new_manifest(
    *,
    suite: str,
    benchmark: str,
    method: str,
    protocol: str,
    dataset: Mapping[str, Any],
    method_settings: Mapping[str, Any],
    scoring: Mapping[str, Any],
    seed: int,
    device: str,
) -> dict[str, Any]:
    """The manifest of a run that has not begun. device: a torch device string. Raises RunError for settings that are
    no JSON."""
    manifest: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        **{"suite": suite, "benchmark": benchmark, "method": method, "protocol": protocol},
        "dataset": dict(dataset),
        "method_settings": dict(method_settings),
        "scoring": dict(scoring),
        "seed": seed,
        "packages": _versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": _device(device),
        "git": _git(Path(__file__).parent),
    }
    try:
        manifest = json.loads(json.dumps(manifest, allow_nan=False))  # as it will be read: tuples are lists there
    except (TypeError, ValueError) as error:
        raise RunError(f"the settings of {method!r} can't be written as JSON: {error}") from error
    return {
        **manifest,
        "fingerprint": fingerprint(manifest),
        "counts": {"expected": 0, "done": 0, "failed": 0, "missing": 0},
        **{"wall_seconds": 0.0, "images_per_second": None, "peak_memory_bytes": 0, "cost": None},
        **{"started": utc_now(), "finished": None, "sessions": []},
    }


def fingerprint(manifest: Mapping[str, Any]) -> str:
    """SHA-256 over the identity: equal for two runs exactly if their numbers have to be equal."""
    return json_digest(_identity(manifest))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The fields of the identity in which the two differ, as "field: old -> new"."""
    before, after = (dict(_leaves("", _identity(manifest))) for manifest in (old, new))
    return [
        f"{name}: {_show(before, name)} -> {_show(after, name)}"
        for name in sorted(before.keys() | after.keys())
        if _show(before, name) != _show(after, name)
    ]


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a run directory, None where there is none."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} can't be read ({error}); start with --fresh") from error
    if not isinstance(manifest, dict) or manifest.get("schema_version") != SCHEMA_VERSION:
        raise RunError(f"{path} is not of schema version {SCHEMA_VERSION}; start with --fresh or give another --out")
    if broken := [name for name, fits in _STATE.items() if not fits(manifest.get(name))]:
        raise RunError(f"{path}: {', '.join(broken)} can't be as it is there; start with --fresh")
    return manifest


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Replaces the manifest: whenever process or machine die, there is the old one or the new one."""
    text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(folder / MANIFEST, text, durable=True, writer=LOCKED)


def _identity(manifest: Mapping[str, Any]) -> dict[str, Any]:
    def get(path: str) -> Any:
        value: Any = manifest
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    return {path: get(path) for path in IDENTITY}


def _leaves(prefix: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, Mapping) or not value:
        return [(prefix, value)]
    names = {key: f"{prefix}.{key}" if prefix else str(key) for key in value}
    return [leaf for key, name in names.items() for leaf in _leaves(name, value[key])]


def _show(leaves: Mapping[str, Any], name: str) -> str:
    return json.dumps(leaves[name], ensure_ascii=False) if name in leaves else "absent"


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _device(device: str) -> dict[str, str]:
    kind = device.partition(":")[0]
    name = platform.processor() or platform.machine()
    if kind == "cuda":
        import torch

        name = torch.cuda.get_device_name(device)
    return {"type": kind, "name": name}


def _git(folder: Path) -> dict[str, Any] | None:
    """Revision and whether tracked files were changed; None outside a checkout or without git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        revision = git("rev-parse", "HEAD")
        return {"revision": revision, "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None
