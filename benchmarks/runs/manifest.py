"""The manifest of a run that begins, and the fingerprint over everything in it that can move a number."""

import json
import platform
import subprocess
from dataclasses import replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.runs.log import utc_now
from benchmarks.runs.schema import Device, Manifest, Revision, RunError, parse
from editar.io.digests import file_digest, json_digest

# Packages whose version can move a number; a method that depends on another one puts its version into its settings.
PACKAGES = (
    "clean-fid", "kornia", "numpy", "open-clip-torch", "opencv-python-headless", "pillow", "tokenizers", "torch",
    "torchmetrics", "torchvision", "transformers",
)  # fmt: skip

SOURCES = ("baselines", "benchmarks", "metrics")  # and editar, wherever it is installed
CODE = (".py", ".toml", ".cpp", ".h")

# The part of the manifest that the fingerprint is taken over. Of the device not the name, of the data set the digest.
IDENTITY = (
    "schema_version", "suite", "benchmark", "method", "protocol", "dataset.digest", "method_settings", "scoring",
    "seed", "packages", "device.type", "device.threads",
)  # fmt: skip


def new_manifest(device: str, threads: int, **asked: Any) -> Manifest:
    """The manifest of a run that begins now. device: a torch device string. threads: that count on a CPU. asked: the
    fields up to the seed.

    Raises RunError for settings that are no JSON.
    """
    manifest = Manifest(
        **asked,
        packages=_versions(),
        python=platform.python_version(),
        platform=platform.platform(),
        device=_device(device, threads),
        git=_git(Path(__file__).parent),
        source=source_digest(),
        started=utc_now(),
    )
    try:
        manifest = parse(Manifest, manifest.to_json())  # as it will be read: tuples are lists there
    except (TypeError, ValueError) as error:
        raise RunError(f"the settings of {manifest.method!r} can't be written as JSON: {error}") from error
    return replace(manifest, fingerprint=fingerprint(manifest))


@cache
def source_digest() -> str:
    """SHA-256 over all code that makes and scores images, as it lay there when this was first asked."""
    import editar

    folders = [Path(__file__).parents[2] / name for name in SOURCES] + [Path(editar.__file__).parent]
    files = {f"{each.name}/{path.relative_to(each)}": path for each in folders for path in each.rglob("*")}
    return json_digest({name: file_digest(path) for name, path in files.items() if path.suffix in CODE})


def fingerprint(manifest: Manifest) -> str:
    """SHA-256 over the identity: equal for two runs exactly if their numbers have to be equal."""
    return json_digest({name: manifest.value(name) for name in IDENTITY})


def differences(old: Manifest, new: Manifest) -> dict[str, str]:
    """The fields of the identity in which the two differ, with "old -> new"."""

    def identity(manifest: Manifest) -> dict[str, str]:
        leaves = manifest.leaves().items()
        return {
            name: json.dumps(value, ensure_ascii=False) for name, value in leaves if f"{name}.".startswith(_PREFIXES)
        }

    before, after = identity(old), identity(new)
    return {
        name: f"{before.get(name, 'absent')} -> {after.get(name, 'absent')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    }


_PREFIXES = tuple(f"{name}." for name in IDENTITY)


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _device(device: str, threads: int) -> Device:
    kind = device.partition(":")[0]
    name = platform.processor() or platform.machine()
    if kind == "cuda":
        import torch

        name = torch.cuda.get_device_name(device)
    return Device(type=kind, name=name, threads=threads if kind == "cpu" else None)


def _git(folder: Path) -> Revision | None:
    """None outside a checkout or without git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        dirty = bool(git("status", "--porcelain", "--untracked-files=no"))
        return Revision(revision=git("rev-parse", "HEAD"), dirty=dirty)
    except (OSError, subprocess.SubprocessError):
        return None
