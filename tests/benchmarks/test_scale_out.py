"""Both benchmarks by one process and by several: the same bytes, and one table."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.benchmarks import tiny_translation
from tests.benchmarks.sharded import BATCH, main
from tests.benchmarks.tiny import write_piebench

ROOT = Path(__file__).parents[2]
COUNT = 14
MADE = 2 * COUNT  # by the recipe's method, for both benchmarks

# An image depends on its company, as those of networks do, whose rounding hangs on the size of the batch. Whoever finds
# the id in the file "kill" among its requests ends the run.
ANSWER = """
import json, os, signal, sys
from pathlib import Path
from PIL import Image
folder = Path(sys.argv[1])
requests = [json.loads(line) for line in (folder / "requests.jsonl").read_text().splitlines()]
company = sum(request["seed"] for request in requests)
with open("calls", "a") as calls:
    calls.write("".join(request["sample_id"] + "\\n" for request in requests))
kill = Path("kill")
if kill.exists() and kill.read_text() in [request["sample_id"] for request in requests]:
    kill.unlink()
    os.kill(os.getppid(), signal.SIGKILL)
for request in requests:
    image = Image.open(folder / request["image"])
    other = Image.new("RGB", image.size, (company % 251, company % 241, company % 239))
    Image.blend(image, other, 0.5).save(folder / "answers" / (request["sample_id"] + ".png"))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_piebench(root / "piebench", COUNT)
    tiny_translation.write(root / "segmentation", "segmentation", COUNT)
    return root


def write_recipe(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "answer.py").write_text(ANSWER)
    path = folder / "recipe.toml"
    path.write_text(f'name = "social"\ncommand = {[sys.executable, "answer.py", "{folder}"]!r}\n')
    return path


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


def result(out: Path) -> dict[str, object]:
    """All that is left but times: the images, the rows, FID and what was rendered of them."""
    found: dict[str, object] = {}
    for path in sorted(each for each in out.rglob("*") if each.is_file()):
        name = str(path.relative_to(out))
        if path.name == "samples.parquet":
            found[name] = pd.read_parquet(path).drop(columns="seconds").to_csv()
        elif path.name not in ("manifest.json", "lock") and "-cost." not in path.name:
            found[name] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("alone")
    main(str(data), str(folder / "out"), str(write_recipe(folder)))
    assert len(calls(folder)) == MADE
    return result(folder / "out")


def program(*arguments: object) -> list[str]:
    return ["-m", "tests.benchmarks.sharded", *map(str, arguments)]


@pytest.mark.slow
def test_four_processes_of_torchrun_leave_what_one_does(data: Path, tmp_path: Path, alone: dict[str, object]) -> None:
    recipe = write_recipe(tmp_path)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4"]
    done = subprocess.run(
        [*torchrun, *program(data, tmp_path / "out", recipe)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert len(calls(tmp_path)) == MADE == len(set(calls(tmp_path)))
    assert result(tmp_path / "out") == alone
    titles = [line for line in done.stdout.splitlines() if line.startswith("written: ") and line.endswith(".md")]
    assert len(titles) == len(set(titles)), "a table was rendered twice"


@pytest.mark.slow
def test_the_shards_left_by_a_killed_one_are_taken_up_by_one_process(
    data: Path, tmp_path: Path, alone: dict[str, object]
) -> None:
    recipe, out = write_recipe(tmp_path), tmp_path / "out"
    (tmp_path / "kill").write_text("000000000010")  # in PIE-Bench's fourth batch, the second of shard 1/2
    processes = [
        subprocess.Popen([sys.executable, *program(data, out, recipe, f"{i}/2")], cwd=ROOT, stderr=subprocess.PIPE)
        for i in range(2)
    ]
    errors = [process.communicate(timeout=300)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, -9], errors
    assert not list(out.glob("tiny/*/*/samples.parquet"))
    main(str(data), str(out), str(recipe))
    assert result(out) == alone
    assert len(calls(tmp_path)) == MADE + BATCH  # the batch under way was lost, and nothing else


@pytest.mark.slow
def test_shards_may_run_one_after_the_other(data: Path, tmp_path: Path, alone: dict[str, object]) -> None:
    recipe = write_recipe(tmp_path)
    for index in (1, 0, 2):
        assert not list((tmp_path / "out").glob("reports/*/*.md"))
        main(str(data), str(tmp_path / "out"), str(recipe), f"{index}/3")
    assert result(tmp_path / "out") == alone
    assert len(calls(tmp_path)) == MADE
