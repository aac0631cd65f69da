"""The official road at the paper's size, with random weights: what it takes of memory and time."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.tools.random_weights import write_editar

# A program of its own, so that its peak memory is the model's. A whole image takes minutes on a CPU; eight tokens take
# as much memory, for the cache is made before the first.
PROGRAM = """
import json, re, sys, time
from pathlib import Path

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

def peak():  # of this program; getrusage would begin with that of the process that started it
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

if sys.argv[1] == "convert":
    from editar.__main__ import main
    status = main(sys.argv[1:])
    print(json.dumps({"peak bytes": peak()}))
    sys.exit(status)

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
    "peak bytes": peak(),
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


def run(*arguments: str | Path) -> dict:
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    print({name: value for name, value in told.items() if name not in ("sums", "text")})
    return told


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read as Linux tells it")
def test_official_files_of_the_papers_size_fit_6_gb_and_convert(folder: Path) -> None:
    """GPT-XL, VQ-16 and the encoder of flan-t5-xl, in bfloat16 on a CPU."""
    official, converted = folder / "official", folder / "converted"
    write_editar(official)
    first = run(official)
    assert (first["tokens"], first["size"]) == (8, [512, 512])
    assert first["peak bytes"] < 6e9
    assert run("convert", official, converted, "--dtype", "bfloat16")["peak bytes"] < 6e9
    shutil.rmtree(official)
    second = run(converted)
    assert second["peak bytes"] < 6e9
    assert second["seconds to load"] < 30
    assert (second["sums"], second["text"]) == (first["sums"], first["text"])
