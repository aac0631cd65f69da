"""The front doors list what can be done, and every command's help begins with an example that the command takes."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tyro

import editar.__main__ as editar_command
import reports.__main__ as reports_command
from benchmarks import __main__ as front_door
from benchmarks import ablations, piebench, translation
from benchmarks.miniature import build, build_diffusion
from benchmarks.miniature.evaluate import __main__ as evaluate_editar
from benchmarks.miniature.evaluate import diffusion as evaluate_diffusion
from benchmarks.miniature.evaluate import fid_noise
from benchmarks.miniature.evaluate import instruct as evaluate_instruct
from benchmarks.speed.__main__ import COMMANDS
from benchmarks.speed.__main__ import main as speed_main
from benchmarks.tools import compare, figure, gallery, gpu_check, random_weights, small_run
from editar.training.settings import parse
from reports import coverage, drift

ROOT = Path(__file__).parents[1]

# What parses each command's words.
ARGUMENTS: dict[str, Callable[..., Any]] = {
    "benchmarks.piebench": piebench.Arguments,
    "benchmarks.translation": translation.Arguments,
    "benchmarks.ablations": ablations.Arguments,
    "benchmarks.gallery": gallery.Arguments,
    "benchmarks.figure": figure.Arguments,
    "benchmarks.compare": compare.Arguments,
    "benchmarks.small_run": small_run.Settings,
    "benchmarks.gpu_check": gpu_check.Settings,
    "benchmarks.random_weights": random_weights.main,
    "benchmarks.miniature.build": build.Arguments,
    "benchmarks.miniature.build_diffusion": build_diffusion.Arguments,
    "benchmarks.miniature.evaluate": evaluate_editar.Arguments,
    "benchmarks.miniature.evaluate.diffusion": evaluate_diffusion.Arguments,
    "benchmarks.miniature.evaluate.fid_noise": fid_noise.Arguments,
    "benchmarks.miniature.evaluate.instruct": evaluate_instruct.Arguments,
    "reports": reports_command.Settings,
    "reports.coverage": coverage.Settings,
    "reports.drift": drift.Settings,
    **{f"benchmarks.speed {name}": kind for name, kind in COMMANDS.items()},
    **{f"editar {name}": getattr(editar_command, name) for name in ("edit", "translate", "train", "convert")},
}


def help_of(parser: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        tyro.cli(parser, args=["--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


def taken(command: str) -> None:
    """Fails if the command's arguments are not its own; runs nothing."""
    words = shlex.split(command)
    assert words[:2] == ["python", "-m"]
    name = words[2] if words[2] in ARGUMENTS else " ".join(words[2:4])
    arguments = words[3:] if words[2] in ARGUMENTS else words[4:]
    if name == "editar train":
        parse(ROOT / arguments[0], arguments[1:])
    elif isinstance(ARGUMENTS[name], type):
        tyro.cli(ARGUMENTS[name], args=arguments)
    else:
        tyro.extras.get_parser(ARGUMENTS[name]).parse_args(arguments)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_help_begins_with_an_example_that_the_command_takes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(ARGUMENTS[name], capsys)
    paragraphs = text.split("\n\n")
    assert paragraphs[0].startswith("usage:")
    example = " ".join(paragraphs[1].split())
    assert re.match(rf"Example: python -m {re.escape(name)}(?= |$)", example)
    taken(example.removeprefix("Example: "))


@pytest.mark.parametrize("main", [editar_command.main, speed_main])
def test_help_of_several_commands_begins_with_an_example(
    main: Callable[[list[str]], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    usage, example, *_ = capsys.readouterr().out.split("\n\n")
    assert usage.startswith("usage:") and example.startswith("Example: ")
    taken(example.removeprefix("Example: "))


def test_all_commands_are_tested() -> None:
    doors = {"benchmarks", "benchmarks.speed", "editar"}  # of several commands
    files = [file for package in ("benchmarks", "reports", "editar") for file in (ROOT / package).rglob("*.py")]
    started = [file for file in files if file.name == "__main__.py" or '__name__ == "__main__"' in file.read_text()]
    names = {".".join(file.relative_to(ROOT).with_suffix("").parts) for file in started}
    names = {name.removesuffix(".__main__").replace("benchmarks.tools.", "benchmarks.") for name in names}
    assert names - doors == {name for name in ARGUMENTS if " " not in name}


@pytest.mark.parametrize("overview", [front_door.OVERVIEW, editar_command.OVERVIEW])
def test_what_a_front_door_shows_is_taken(overview: str) -> None:
    examples = re.findall(r"  (python -m .*)", overview)
    assert len(examples) >= 5
    for example in examples:
        taken(example)


@pytest.mark.parametrize("package", ["benchmarks", "editar"])
def test_a_front_door_opens_at_once(package: str) -> None:
    code = f"import runpy, sys; sys.argv = ['x']; runpy.run_module({package!r}, run_name='__main__')"
    code = f"try:\n    {code}\nexcept SystemExit as end:\n    assert not end.code and 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("python -m ") >= 5


def test_a_front_door_says_what_it_does_not_take(capsys: pytest.CaptureFixture[str]) -> None:
    assert front_door.main(["piebench"]) == 2
    assert "'piebench'" in capsys.readouterr().err
