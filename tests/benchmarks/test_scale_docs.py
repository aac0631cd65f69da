"""The commands of docs/operations.md and of the Slurm example are commands that the benchmarks take."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import tyro

from benchmarks import piebench, translation
from benchmarks.runs.execute import Shard

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "slurm_array.sh"
BENCHMARKS = {"piebench": piebench.Arguments, "translation": translation.Arguments}


def parse(words: list[str]) -> piebench.Arguments | translation.Arguments:
    """The arguments of a command with "-m benchmarks.<name>" in it."""
    place = words.index("-m") + 1
    return tyro.cli(BENCHMARKS[words[place].removeprefix("benchmarks.")], args=words[place + 1 :])


def test_the_commands_of_the_docs_are_taken() -> None:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "operations.md").read_text("utf-8"), re.DOTALL)
    commands = [line for block in blocks for line in block.replace("\\\n", "").splitlines() if "-m benchmarks." in line]
    parsed = [parse(shlex.split(command)) for command in commands if "benchmarks.speed" not in command]
    assert len(parsed) >= 4
    assert {each.shard for each in parsed} == {None, "0/2", "1/2"}


@pytest.mark.parametrize(("variables", "shard"), [({}, "5/8"), ({"SHARDS": "16"}, "5/16")])
def test_the_slurm_array_gives_each_task_its_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], shard: str
) -> None:
    torchrun = tmp_path / "torchrun"  # says how it was started
    torchrun.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    torchrun.chmod(0o755)
    slurm = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": "5", "SLURM_GPUS_ON_NODE": "4"}
    flags = ["piebench", "--suite", "paper", "--data", "two words"]
    done = subprocess.run([SCRIPT, *flags], env=slurm | variables, capture_output=True, text=True, check=True)
    words = done.stdout.splitlines()
    assert words[:4] == ["--standalone", "--nproc-per-node", "4", "-m"]
    args = parse(words)
    assert (args.suite, args.data, args.shard) == ("paper", Path("two words"), shard)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert Shard.parse(args.shard) == Shard(index=23, count=4 * int(shard.split("/")[1]))
