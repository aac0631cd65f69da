"""The command's side of the exchange format of baselines/external.py."""

import ast
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from baselines.external import External, read_recipe
from baselines.method import EditRequest, NoAnswer

FOLDER = Path(__file__).parents[2] / "baselines" / "recipes"
SIDE = 512

# A command that answers with the module that recipes' own scripts use.
COMMAND = """
import sys
sys.path.insert(0, {recipes!r})
from PIL import Image
from exchange import NoImage, answer_all

def answer(request, image):
    words = request["instruction"]
    if words == "only talk":
        raise NoImage("the model answered without an image: 'I can not'")
    if words == "fail":
        raise RuntimeError("out of memory")
    if words == "small":
        return image
    return image.transpose(Image.FLIP_LEFT_RIGHT).resize((1024, 1024))

answer_all(sys.argv[1], answer)
"""


def request(sample_id: str, instruction: str) -> EditRequest:
    pixels = np.random.default_rng(3).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return EditRequest(
        sample_id=sample_id, image=Image.fromarray(pixels), instruction=instruction, source_prompt="", target_prompt="",
        blend_words=None, seed=2**63 - 1,
    )  # fmt: skip


@pytest.fixture
def method(tmp_path: Path) -> External:
    (tmp_path / "answer.py").write_text(COMMAND.format(recipes=str(FOLDER)))
    command = [sys.executable, "answer.py", "{folder}"]
    (tmp_path / "recipe.toml").write_text(f'name = "large"\ncommand = {command}\nanswer_side = 1024\n')
    return External(read_recipe(tmp_path / "recipe.toml"))


def test_large_answers_come_back_at_the_request_s_size(method: External) -> None:
    asked = request("1.a", "flip it")
    (answer,) = method.edit([asked])
    expected = asked.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((1024, 1024))
    assert isinstance(answer, Image.Image)
    assert np.array_equal(np.asarray(answer), np.asarray(expected.resize((SIDE, SIDE), Image.Resampling.BICUBIC)))


def test_no_image_is_an_answer_of_its_own(method: External) -> None:
    words = ["only talk", "flip it", "fail", "small"]
    answers = method.edit([request(f"{place}.x", each) for place, each in enumerate(words)])
    assert [isinstance(each, NoAnswer) for each in answers] == [True, False, True, True]
    assert str(answers[0]) == "the model answered without an image: 'I can not'"
    assert str(answers[2]) == "RuntimeError: out of memory"
    assert "answer_side 1024" in str(answers[3])


def test_the_module_runs_on_old_versions_of_python() -> None:
    ast.parse((FOLDER / "exchange.py").read_text(), feature_version=(3, 8))
