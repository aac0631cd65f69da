"""External methods: real scripts, started as real processes."""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from baselines.external import External, Recipe, read_recipe
from baselines.method import EditRequest, NoAnswer, TranslateRequest

INVERT = """
import json, sys
from pathlib import Path
from PIL import Image, ImageOps
folder = Path(sys.argv[1])
for line in (folder / "requests.jsonl").read_text().splitlines():
    request = json.loads(line)
    assert request["blend_words"] == ["a", "b"] and request["seed"] == 2**63 - 1
    if "skip" in request["instruction"]:
        print("skipping", request["sample_id"], file=sys.stderr)
        continue
    if "crash" in request["instruction"]:
        sys.exit("no idea how to edit " + request["sample_id"])
    image = ImageOps.invert(Image.open(folder / request["image"]))
    if "small" in request["instruction"]:
        image = image.resize((8, 8))
    answer = folder / "answers" / (request["sample_id"] + ".png")
    if "refuse" in request["instruction"]:
        answer.with_suffix(".txt").write_text("I would rather not")
    if "torn" in request["instruction"]:
        answer.write_bytes(b"no image")
    else:
        image.save(answer)
"""


def request(sample_id: str, instruction: str = "invert it") -> EditRequest:
    pixels = np.random.default_rng(3).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return EditRequest(
        sample_id=sample_id,
        image=Image.fromarray(pixels),
        instruction=instruction,
        source_prompt="a",
        target_prompt="b",
        blend_words=("a", "b"),
        seed=2**63 - 1,
    )


def write_recipe(folder: Path, script: str = INVERT, extra: str = "") -> Path:
    (folder / "edit.py").write_text(script)
    path = folder / "recipe.toml"
    command = [sys.executable, "edit.py", "{folder}"]
    path.write_text(f'name = "inverter"\ncommand = {command!r}\nfiles = ["edit.py"]\n{extra}\n[settings]\nsteps = 5\n')
    return path


@pytest.fixture
def method(tmp_path: Path) -> External:
    return External(read_recipe(write_recipe(tmp_path)))


def test_answers_come_back_in_order(method: External) -> None:
    requests = [request("b"), request("a")]
    for asked, answer in zip(requests, method.edit(requests), strict=True):
        assert isinstance(answer, Image.Image)
        assert np.array_equal(np.asarray(answer), 255 - np.asarray(asked.image))


TRANSLATE = """
import json, sys
from pathlib import Path
from PIL import Image, ImageOps
folder = Path(sys.argv[1])
for line in (folder / "requests.jsonl").read_text().splitlines():
    request = json.loads(line)
    assert set(request) == {"sample_id", "image", "seed", "task", "caption"}, request
    assert (request["task"], request["caption"]) == ("depth", "a hill"), request
    ImageOps.invert(Image.open(folder / request["image"])).save(folder / "answers" / (request["sample_id"] + ".png"))
"""


def test_conditions_are_translated(tmp_path: Path) -> None:
    condition = request("a").image
    asked = [
        TranslateRequest(sample_id=name, condition=condition, caption="a hill", task="depth", seed=2**63 - 1)
        for name in ("00001-0", "00001-1")
    ]
    answers = External(read_recipe(write_recipe(tmp_path, TRANSLATE))).translate(asked)
    for answer in answers:
        assert isinstance(answer, Image.Image)
        assert np.array_equal(np.asarray(answer), 255 - np.asarray(condition))


def test_a_missing_or_unusable_answer_fails_its_sample_only(method: External) -> None:
    answers = method.edit([request("a", "skip"), request("b"), request("c", "small"), request("d", "torn")])
    assert [isinstance(answer, NoAnswer) for answer in answers] == [True, False, True, True]
    assert "no answers/a.png" in str(answers[0]) and "skipping a" in str(answers[0])
    assert (
        "c.png" in str(answers[2])
        and "8x8 pixels, not 16x16" in str(answers[2])
        and "d.png is not readable" in str(answers[3])
    )


def test_a_reason_takes_the_place_of_an_image(method: External) -> None:
    refused, edited = method.edit([request("a", "refuse"), request("b")])
    assert isinstance(refused, NoAnswer) and str(refused) == "I would rather not"
    assert isinstance(edited, Image.Image)


def test_answers_of_a_fixed_side_are_resized(tmp_path: Path) -> None:
    method = External(read_recipe(write_recipe(tmp_path, extra="answer_side = 8")))
    small, large = method.edit([request("a", "small"), request("b")])
    inverted = ImageOps.invert(request("a").image).resize((8, 8))
    assert isinstance(small, Image.Image)
    assert np.array_equal(np.asarray(small), np.asarray(inverted.resize((16, 16), Image.Resampling.BICUBIC)))
    assert isinstance(large, NoAnswer) and "16x16 pixels, not 8x8 (the recipe's answer_side 8)" in str(large)
    assert method.settings()["answer_side"] == 8


def test_environment_variables_are_filled_in_and_recorded_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_recipe(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "networks").mkdir(parents=True)
    (elsewhere / "networks" / "a.bin").write_bytes(b"1")
    path.write_text(
        'name = "inverter"\ncommand = ["${PYTHON_OF_OLD}", "edit.py", "{folder}"]\n'
        'files = ["edit.py", "${OLD}/networks"]\n'
    )
    method = External(read_recipe(path))
    assert method.requirements().unset == ("PYTHON_OF_OLD", "OLD")
    assert [file.name for file in method.requirements().absent] == ["${OLD}/networks"]
    with pytest.raises(ValueError, match="PYTHON_OF_OLD, OLD"):
        method.settings()
    monkeypatch.setenv("PYTHON_OF_OLD", sys.executable)
    monkeypatch.setenv("OLD", str(elsewhere))
    method = External(read_recipe(path))
    assert not method.requirements().unset and not method.requirements().absent
    assert isinstance(method.edit([request("a")])[0], Image.Image)
    before = method.settings()
    assert before["command"] == ["${PYTHON_OF_OLD}", "edit.py", "{folder}"]
    assert set(before["files"]) == {"edit.py", "${OLD}/networks/a.bin"}
    (elsewhere / "networks" / "a.bin").write_bytes(b"2")
    assert method.settings() != before


def test_a_failing_command_says_how_it_ended(method: External) -> None:
    with pytest.raises(RuntimeError, match="how to edit x"):
        method.edit([request("x", "crash")])


def test_a_command_that_cannot_be_started(tmp_path: Path) -> None:
    recipe = Recipe(name="absent", command=("./no-such-program", "{folder}"), folder=tmp_path)
    with pytest.raises(RuntimeError):
        External(recipe).edit([request("x")])


def test_a_slow_command_is_stopped_with_its_children(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "open('child', 'w').write(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    method = External(read_recipe(write_recipe(tmp_path, script, "timeout_seconds = 3")))
    with pytest.raises(RuntimeError):
        method.edit([request("x")])
    child = int((tmp_path / "child").read_text())
    for _ in range(100):
        if not alive(child):
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the command's child is still running")


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_no_shell_is_involved(tmp_path: Path) -> None:
    script = "import sys\nassert sys.argv[1] == '$(touch bad); touch bad', sys.argv\n"
    (tmp_path / "edit.py").write_text(script)
    recipe = Recipe(
        name="literal", command=(sys.executable, "edit.py", "$(touch bad); touch bad", "{folder}"), folder=tmp_path
    )
    assert isinstance(External(recipe).edit([request("x")])[0], NoAnswer)
    assert not (tmp_path / "bad").exists()


def test_settings_follow_the_files(tmp_path: Path) -> None:
    before = External(read_recipe(write_recipe(tmp_path))).settings()
    assert before["settings"] == {"steps": 5}
    assert before != External(read_recipe(write_recipe(tmp_path, INVERT + "#"))).settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "no readable recipe"),
        ('name = "a"', "'command' is missing"),
        ('name = "a/b"\ncommand = ["x", "{folder}"]', "name is 'a/b'"),
        ('name = "a"\ncommand = "x {folder}"', "it must be a list"),
        ('name = "a"\ncommand = ["x", 1]', "list of strings"),
        ('name = "a"\ncommand = ["x"]', "{folder}"),
        ('name = "a"\ncommand = ["x", "{folder}"]\ntimeout_seconds = 0', "above 0"),
        ('name = "a"\ncommand = ["x", "{folder}"]\nanswer_side = 0', "at least 1 pixel"),
        ('name = "a"\ncommand = ["x", "{folder}"]\nanswer_side = 1.5', "answer_side is 1.5"),
        ('name = "a"\ncommand = ["x", "{folder}"]\ntimeout_seconds = true', "timeout_seconds is True"),
        ('name = "a"\ncommand = ["x", "{folder}"]\nshell = true', "unknown fields"),
        ('name = "a"\ncommand = ["x", "{folder}"]\n[settings]\nday = 2024-01-01', "JSON"),
    ],
)
def test_a_faulty_recipe_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        read_recipe(path)
    assert str(path) in str(caught.value) and message in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('name = "a"\ncommand = ["x", "{folder}"]\nfiles = ["gone.ckpt", "recipe.toml"]')
    method = External(read_recipe(path))
    assert [file.name for file in method.requirements().absent] == ["gone.ckpt"]
    with pytest.raises(ValueError):
        method.settings()


def test_an_absent_recipe(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        read_recipe(tmp_path / "gone.toml")
