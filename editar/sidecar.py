"""The JSON file beside each result: all that is needed to make the same image again."""

import json
import platform
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from editar import __version__
from editar.config import SamplingConfig
from editar.io.atomic import write_text
from editar.io.digests import file_digest

FORMAT = "editar-result/1"


def write_sidecar(
    result: Path,
    *,
    source: Path,
    seed: int,
    request: Mapping[str, Any],
    sampling: SamplingConfig,
    model: Mapping[str, Any],
    command: list[str],
) -> None:
    """Write `result` with the suffix .json.

    request: what was asked (kind, text, the prompt that the encoder got, what was cut off of it). model: where the
    weights are, the digests of their files, dtype, device, images at a time. command: repeats this one image, its
    own `--out` and `--seed` left out.
    """
    drawn = {f"--{name.replace('_', '-')}": value for name, value in asdict(sampling).items()}
    flags = {"--out": result, "--seed": seed, **drawn}
    content = {
        "format": FORMAT,
        "command": shlex.join([*command, *(str(word) for pair in flags.items() for word in pair)]),
        "request": {**request, "image": str(source), "image_sha256": file_digest(source)},
        "seed": seed,
        "sampling": asdict(sampling),
        "model": model,
        "result": {"file": result.name, "sha256": file_digest(result)},
        "software": {
            "editar": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
            # Sums round in an order that these may change; the command does not set them.
            "vector_instructions": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
        },
    }
    write_text(result.with_suffix(".json"), json.dumps(content, indent=2, ensure_ascii=False) + "\n")
