"""The ready recipes: their files, and that what they start speaks the exchange format of baselines/external.py."""

import ast
import importlib
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from baselines.external import External, ask, read_recipe
from baselines.method import EditRequest, NoAnswer
from baselines.recipes import MGIE

FOLDER = MGIE.parent
SIDE = 512

# A command that answers with the module that recipes' own scripts use.
COMMAND = """
import sys
sys.path.insert(0, {recipes!r})
from PIL import Image
from exchange import NoImage, answer_all

def answer(request, image):
    print("asked for", request["sample_id"])
    words = request["instruction"]
    if words == "only talk":
        raise NoImage("the model answered without an image: 'I can not'")
    if words == "fail":
        raise RuntimeError("out of memory")
    if words == "small":
        return image
    if words == "array":
        import numpy
        return numpy.full((2, 3), request["seed"] % 100, "float16")
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
    words = ["only talk", "flip it", "fail", "small", "array"]
    answers = method.edit([request(f"{place}.x", each) for place, each in enumerate(words)])
    assert [isinstance(each, NoAnswer) for each in answers] == [True, False, True, True, True]
    assert str(answers[0]) == "the model answered without an image: 'I can not'"
    assert str(answers[2]) == "RuntimeError: out of memory"
    assert "answer_side 1024" in str(answers[3])
    assert str(answers[4]).startswith("no answers/4.x.png; its output ends:") and "asked for 4.x" in str(answers[4])


def test_arrays_are_exchanged_too(method: External) -> None:
    asked = [request("a", "array"), request("b", "only talk")]
    array, refused = ask(method.recipe, asked, ".npy", lambda path, _: np.load(path, allow_pickle=False))
    assert isinstance(array, np.ndarray) and array.dtype == np.float16
    assert np.array_equal(array, np.full((2, 3), 7))
    assert isinstance(refused, NoAnswer)


def test_a_recipe_is_complete() -> None:
    table = tomllib.loads(MGIE.read_text())
    own = [name for name in table["files"] if "$" not in name]
    script = table["command"][1]
    assert {script, "exchange.py", f"{MGIE.stem}_requirements.txt"} == set(own)
    assert all((FOLDER / name).is_file() for name in own)
    for name in (script, "exchange.py"):  # runs on the Python of its environment
        ast.parse((FOLDER / name).read_text(), feature_version=(3, 8))
    lines = (FOLDER / f"{MGIE.stem}_requirements.txt").read_text().splitlines()
    assert all("==" in line or "@ git+" in line for line in lines if not line.startswith("#"))


# --- the scripts, with stand-ins for the libraries of their environments


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The recipes' scripts as modules, on the CPU."""
    names = ("exchange", "mgie")
    monkeypatch.syspath_prepend(str(FOLDER))
    found = SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    found.mgie.DEVICE = "cpu"
    yield found
    for name in names:
        del sys.modules[name]


def test_settings_are_what_the_scripts_do(scripts: SimpleNamespace) -> None:
    mgie = tomllib.loads(MGIE.read_text())
    given = mgie["settings"]
    assert (given["new_tokens"], given["no_repeat_ngram_size"]) == (scripts.mgie.NEW_TOKENS, scripts.mgie.NO_REPEAT)
    assert given["vision"].endswith(scripts.mgie.VISION_REVISION)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ([5, 6, 100, 101, 102, 103, 104, 105, 106, 107, 2], 5),  # the state of the 6 predicts [IMG0]
        ([100, 101, 102, 103, 104, 105, 106, 107, 2], 3),  # the prompt's last state does
        ([5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15], 5),  # no [IMG0]: the last eight states but one
        ([5, 6, 7, 8, 9, 10, 11, 12, 13, 100, 101], 5),  # too late for eight states
    ],
)
def test_mgie_s_states_are_those_that_predict_the_image_tokens(
    scripts: SimpleNamespace, written: list[int], expected: int
) -> None:
    prompt = [1, 3, 3, 3]
    states = len(prompt) + len(written) - 1  # the last token is predicted and not read
    assert scripts.mgie.first_state([*prompt, *written], 100, states) == expected
    if 100 in written and written.index(100) < 3:
        assert [*prompt, *written][expected + 1 : expected + 9] == list(range(100, 108))


def test_mgie_asks_llava_as_published(scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    written = [5, 6, 100, 101, 102, 103, 104, 105, 106, 107, 2]
    asked: dict[str, Any] = {}

    def generate(ids: torch.Tensor, **others: Any) -> SimpleNamespace:
        asked.update(others)
        steps = [torch.arange(4.0), *torch.arange(4.0, 4 + len(written) - 1).split(1)]
        hidden = [[None, numbers[None, :, None].expand(1, -1, 6).half()] for numbers in steps]
        return SimpleNamespace(sequences=torch.tensor([[*ids[0].tolist(), *written]]), hidden_states=hidden)

    class Tokenizer:
        def __call__(self, text: str, return_tensors: str) -> SimpleNamespace:
            asked["text"] = text
            return SimpleNamespace(input_ids=torch.tensor([[1, 3, 3, 3]]), attention_mask=torch.ones(1, 4))

        def convert_tokens_to_ids(self, token: str) -> int:
            return {"[IMG0]": 100}[token]

    class Conversation:
        roles = ("USER", "ASSISTANT")

        def copy(self) -> "Conversation":
            self.messages: list[tuple[str, str | None]] = []
            return self

        def append_message(self, role: str, message: str | None) -> None:
            self.messages.append((role, message))

        def get_prompt(self) -> str:
            return repr(self.messages)

    library = ModuleType("llava.conversation")
    library.conv_templates = {"vicuna_v1_1": Conversation()}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "llava", ModuleType("llava"))
    monkeypatch.setitem(sys.modules, "llava.conversation", library)
    describer = object.__new__(scripts.mgie.Describer)
    describer.tokenizer, describer.patches, describer.model = Tokenizer(), 3, SimpleNamespace(generate=generate)
    describer.processor = SimpleNamespace(preprocess=lambda image, **_: {"pixel_values": torch.zeros(1, 3, 4, 4)})
    states = describer({"instruction": "add a hat"}, request("a", "").image)
    assert states.dtype == np.float16 and states.shape == (8, 6)
    assert states[:, 0].tolist() == [5, 6, 7, 8, 9, 10, 11, 12]
    question = "what will this image be like if 'add a hat'\n<im_start><im_patch><im_patch><im_patch><im_end>"
    assert asked["text"] == repr([("USER", question), ("ASSISTANT", None)])
    assert (asked["do_sample"], asked["num_beams"], asked["max_new_tokens"]) == (False, 1, 96)
    assert asked["no_repeat_ngram_size"] == 3
