"""The official road at the paper's size, with random weights: what it takes of memory and time."""

import json
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.random_weights import write_editar
from editar.__main__ import main

# A program of its own, so that its peak memory is the model's. A whole image takes minutes on a CPU; eight tokens take
# as much memory, for the cache is made before the first.
PROGRAM = """
import json, resource, sys, time

import torch
from PIL import Image

from editar import EditAR

class Enough(Exception):
    pass

tokens = []

def count():
    tokens.append(1)
    if len(tokens) == 8:
        raise Enough

start = time.perf_counter()
model = EditAR.from_pretrained(sys.argv[1], device="cpu", dtype="bfloat16", width=1)
seconds = time.perf_counter() - start
photo = Image.radial_gradient("L").resize((512, 512))
try:
    model.edit([photo], ["make it snow"], progress=count)
except Enough:
    pass
[restored] = model.reconstruct([photo])
state = model.transformer.state_dict()
print(json.dumps({
    "seconds to load": seconds,
    "peak bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    "tokens": len(tokens),
    "size": restored.size,
    "sums": {name: tensor.view(torch.int16).sum(dtype=torch.int64).item() for name, tensor in state.items()},
    "text": model.text(["make it snow"]).float().sum().item(),
}))
"""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:  # removed at once: pytest would keep gigabytes of the last runs
        yield Path(folder)


def run(weights: Path) -> dict:
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(weights)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    print({name: value for name, value in told.items() if name not in ("sums", "text")})
    return told


@pytest.mark.slow
def test_official_files_of_the_papers_size_fit_6_gb_and_convert(folder: Path) -> None:
    """GPT-XL, VQ-16 and the encoder of flan-t5-xl, in bfloat16 on a CPU."""
    official, converted = folder / "official", folder / "converted"
    write_editar(official)
    first = run(official)
    assert (first["tokens"], first["size"]) == (8, [512, 512])
    assert first["peak bytes"] < 6e9
    assert main(["convert", str(official), str(converted), "--dtype", "bfloat16"]) == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < 9e9  # this process also wrote the weights
    shutil.rmtree(official)
    second = run(converted)
    assert second["peak bytes"] < 6e9
    assert second["seconds to load"] < 30
    assert (second["sums"], second["text"]) == (first["sums"], first["text"])
