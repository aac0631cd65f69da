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

from baselines.external import External, ask
from baselines.method import EditRequest, MethodContext, NoAnswer, Unsupported
from baselines.recipes import MGIE, SEED_X
from baselines.seed_x import FILES, SeedXEdit

FOLDER = SEED_X.parent
SIDE = 512

# What stands in for SEED-X's interpreter: its answers come from the module that the recipe's own script uses.
STAND_IN = """#!{python}
import os, sys
sys.path.insert(0, os.getcwd())  # the recipe's folder, where its script lies
from PIL import Image
from exchange import NoImage, answer_all

script, *given, folder = sys.argv[1:]
assert os.path.isfile(script), sys.argv

def answer(request, image):
    print("asked for", request["sample_id"])
    words = request["instruction"]
    if words == "only talk":
        raise NoImage("SEED-X answered without an image: 'I can not'")
    if words == "fail":
        raise RuntimeError("out of memory")
    if words == "small":
        return image
    if words == "array":
        import numpy
        return numpy.full((2, 3), request["seed"] % 100, "float16")
    return image.transpose(Image.FLIP_LEFT_RIGHT).resize((1024, 1024))

answer_all(folder, answer)
"""


def request(sample_id: str, instruction: str) -> EditRequest:
    pixels = np.random.default_rng(3).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return EditRequest(
        sample_id=sample_id, image=Image.fromarray(pixels), instruction=instruction, source_prompt="", target_prompt="",
        blend_words=None, seed=2**63 - 1,
    )  # fmt: skip


@pytest.fixture
def python(tmp_path: Path) -> Path:
    path = tmp_path / "python"
    path.write_text(STAND_IN.format(python=sys.executable))
    path.chmod(0o755)
    return path


@pytest.fixture
def seed_x(tmp_path: Path, python: Path, monkeypatch: pytest.MonkeyPatch) -> External:
    """The row, with a checkout that has every file that it needs."""
    for file in FILES:
        path = tmp_path / (f"{file.name}one.bin" if file.name.endswith("/") else file.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.name)
    monkeypatch.setenv("SEED_X", str(tmp_path))
    monkeypatch.setenv("SEED_X_PYTHON", str(python))
    return SeedXEdit(MethodContext(suite="paper", weights=None, device="cpu", image_side=SIDE))


def test_seed_x_answers_come_back_at_the_request_s_size(seed_x: External) -> None:
    asked = request("1.a", "flip it")
    (answer,) = seed_x.edit([asked])
    expected = asked.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((1024, 1024))
    assert isinstance(answer, Image.Image)
    assert np.array_equal(np.asarray(answer), np.asarray(expected.resize((SIDE, SIDE), Image.Resampling.BICUBIC)))


def test_no_image_is_an_answer_of_its_own(seed_x: External) -> None:
    words = ["only talk", "flip it", "fail", "small", "array"]
    answers = seed_x.edit([request(f"{place}.x", each) for place, each in enumerate(words)])
    assert [isinstance(each, NoAnswer) for each in answers] == [True, False, True, True, True]
    assert str(answers[0]) == "SEED-X answered without an image: 'I can not'"
    assert str(answers[2]) == "RuntimeError: out of memory"
    assert "answer_side 1024" in str(answers[3])
    assert str(answers[4]).startswith("no answers/4.x.png; its output ends:") and "asked for 4.x" in str(answers[4])


def test_arrays_are_exchanged_too(seed_x: External) -> None:
    asked = [request("a", "array"), request("b", "only talk")]
    array, refused = ask(seed_x.recipe, asked, ".npy", lambda path, _: np.load(path, allow_pickle=False))
    assert isinstance(array, np.ndarray) and array.dtype == np.float16
    assert np.array_equal(array, np.full((2, 3), 7))
    assert isinstance(refused, NoAnswer)


def test_seed_x_settings_are_the_published_ones(seed_x: External, tmp_path: Path) -> None:
    settings = seed_x.settings()
    assert {"steps": 50, "guidance": 7.5, "scheduler": "EulerDiscreteScheduler"}.items() <= settings["settings"].items()
    assert settings["answer_side"] == 1024 and str(tmp_path) not in str(settings)
    assert "${SEED_X}/pretrained/seed_x_edit/llm/one.bin" in settings["files"]


def test_seed_x_says_what_it_lacks(seed_x: External, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(Unsupported):
        SeedXEdit(MethodContext(suite="miniature", weights=None, device="cpu", image_side=64))
    (tmp_path / "pretrained" / "QwenViT" / "qwen_vit_G.pt").unlink()
    assert [file.name for file in seed_x.requirements().absent] == ["pretrained/QwenViT/qwen_vit_G.pt"]
    with pytest.raises(ValueError):
        seed_x.settings()
    monkeypatch.delenv("SEED_X")
    assert seed_x.requirements().unset == ("SEED_X",) and len(seed_x.requirements().absent) == len(
        seed_x.requirements().files
    )
    with pytest.raises(ValueError, match="SEED_X"):
        seed_x.settings()


def test_seed_x_needs_what_its_recipe_reads(seed_x: External) -> None:
    needs = seed_x.requirements()
    assert (needs.passes, needs.unset, needs.absent) == ({"language model": 512, "UNet": 150}, (), ())
    read = [name.removeprefix("${SEED_X}/") for name in seed_x.recipe.files if name.startswith("${SEED_X}/")]
    listed = [file.name for file in needs.files]
    assert all(any(name.startswith(each) for each in read) for name in listed)
    assert all(any(name.startswith(each) for name in listed) for each in read)
    assert all(file.source and file.licence for file in needs.files)


@pytest.mark.parametrize("recipe", [MGIE, SEED_X], ids=["mgie", "seed-x"])
def test_a_recipe_is_complete(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tomllib.loads(recipe.read_text())
    own = [name for name in table["files"] if "$" not in name]
    script = table["command"][1]
    assert {script, "exchange.py", f"{recipe.stem}_requirements.txt"} == set(own)
    assert all((FOLDER / name).is_file() for name in own)
    for name in (script, "exchange.py"):  # runs on the Python of its environment
        ast.parse((FOLDER / name).read_text(), feature_version=(3, 8))
    lines = (FOLDER / f"{recipe.stem}_requirements.txt").read_text().splitlines()
    assert all("==" in line or "@ git+" in line for line in lines if not line.startswith("#"))


# --- the scripts, with stand-ins for the libraries of their environments


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The recipes' scripts as modules, on the CPU."""
    names = ("exchange", "mgie", "seed_x")
    monkeypatch.syspath_prepend(str(FOLDER))
    found = SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    found.mgie.DEVICE = found.seed_x.DEVICE = "cpu"
    yield found
    for name in names:
        del sys.modules[name]


def test_settings_are_what_the_scripts_do(scripts: SimpleNamespace) -> None:
    seed_x, mgie = (tomllib.loads(each.read_text()) for each in (SEED_X, MGIE))
    given = seed_x["settings"]
    assert (given["steps"], given["guidance"]) == (scripts.seed_x.STEPS, scripts.seed_x.GUIDANCE)
    assert given["image_guidance"] == scripts.seed_x.IMAGE_GUIDANCE
    assert given["new_tokens"] == scripts.seed_x.NEW_TOKENS
    assert seed_x["answer_side"] == scripts.seed_x.SIDE
    given = mgie["settings"]
    assert (given["new_tokens"], given["no_repeat_ngram_size"]) == (scripts.mgie.NEW_TOKENS, scripts.mgie.NO_REPEAT)
    assert given["vision"].endswith(scripts.mgie.VISION_REVISION)


class Letters:
    """A tokenizer that has one token for each <tag> and each other character."""

    bos_token_id = 0

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        tags = [piece for piece in text.replace(">", ">\0").replace("<", "\0<").split("\0") if piece]
        tokens = [token for piece in tags for token in ([piece] if piece.startswith("<") else list(piece))]
        return [sum(token.encode()) * 1000 + len(token) for token in tokens]


class Agent:
    def __init__(self, text: str | None) -> None:
        self.text = text
        self.asked: dict[str, Any] = {}

    def generate(self, **asked: Any) -> dict[str, Any]:
        self.asked = asked
        return {"has_img_output": self.text is None, "img_gen_feat": "features", "text": self.text}


class Adapter:
    def generate(self, **asked: Any) -> list[dict[str, Any]]:
        return [asked]


def seed_x_editor(scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, text: str | None) -> Any:
    def views(
        image: Image.Image, transform: Any, grid: list[list[int]], side: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert (image.size, grid, side) == ((SIDE, SIDE), [[448, 448]], 448)
        return torch.zeros(2, 3, 4, 4), torch.full((2, 2), 0.5)

    library = ModuleType("src.inference.any_res")
    library.process_anyres_image = views  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "src", ModuleType("src"))
    monkeypatch.setitem(sys.modules, "src.inference", ModuleType("src.inference"))
    monkeypatch.setitem(sys.modules, "src.inference.any_res", library)
    editor = object.__new__(scripts.seed_x.Editor)
    editor.tokenizer, editor.transform, editor.agent, editor.adapter = Letters(), None, Agent(text), Adapter()
    editor.encoder = lambda pixels: pixels
    return editor


def test_seed_x_is_asked_as_published(scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = seed_x_editor(scripts, monkeypatch, None)
    made = editor({"instruction": "Make it <red>", "seed": 7}, request("a", "").image)
    source = made.pop("latent_image")
    assert source.size == (1024, 1024)
    assert made == {
        "image_embeds": "features", "seed": 7, "num_inference_steps": 50, "guidance_scale": 7.5,
        "image_guidance_scale": 1.5,
    }  # fmt: skip
    asked, encode = editor.agent.asked, Letters().encode
    images = "".join(f"<img_{number:05d}>" for number in range(64))
    prompt = f"[INST] <patch>{images}</patch><img>{images}</img>Make it <red> [/INST]\n"
    assert asked["input_ids"].tolist() == [[0, *encode(prompt, False)]]
    assert asked["ids_cmp_mask"].shape == asked["input_ids"].shape
    features = {token for token in encode(images, False)}
    assert asked["ids_cmp_mask"][0].tolist() == [token in features for token in asked["input_ids"][0].tolist()]
    assert asked["ids_cmp_mask"].sum() == 128 and asked["embeds_cmp_mask"].tolist() == [True, True]
    assert (asked["max_new_tokens"], asked["num_img_gen_tokens"]) == (512, 64)


def test_seed_x_without_an_image(scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = seed_x_editor(scripts, monkeypatch, "I can not")
    with pytest.raises(scripts.exchange.NoImage):
        editor({"instruction": "Make it red", "seed": 7}, request("a", "").image)


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
