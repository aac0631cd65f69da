"""Any command in any environment as a method, so that models that pin old libraries can take part.

The recipe is a TOML file:

    name = "my-method"                                # the row's name: letters, digits, "-", "_", "."
    command = ["/envs/old/bin/python", "edit.py", "{folder}"]
    timeout_seconds = 600                             # for each image of a batch; 600 when left out
    files = ["edit.py", "${MODELS}/weights"]          # files, or folders: their digests become part of the settings
    answer_side = 1024                                # answers are squares of so many pixels, see below
    [card]                                            # for tables: kind, citation, licence (baselines/method.py)
    kind = "feed-forward"
    [settings]                                        # recorded with the run: whatever can move a number
    steps = 50

All but name and command may be left out. "${NAME}" in command and files stands for an environment variable, so that a
recipe can be shared; the settings keep it as it is written. The command is started without a shell, in the recipe's
folder and with this process's environment (torchrun's LOCAL_RANK says which GPU is its own), once for each batch;
"{folder}" stands for a temporary folder that holds

    requests.jsonl      one JSON object a line: sample_id, image ("images/<sample_id>.png"), seed (an integer below
                        2**63) and, to edit: instruction, source_prompt, target_prompt, blend_words ([source, target]
                        or null); to translate: task ("depth", "canny" or "segmentation"), caption
    images/*.png        the images to edit, or the condition maps, RGB

and takes the answers, RGB PNG of the same size; or, with answer_side, squares of that side, which are resized here
(bicubic with antialiasing, as Pillow does it):

    answers/<sample_id>.png
    answers/<sample_id>.txt                           # instead: why there is no image

A missing or unusable answer fails its sample; so does a .txt, whose text becomes the error. An exit status other than
0 fails the batch, which is tried again one image at a time, so that one bad sample costs no other. What the command
leaves running is killed when it ends, and all of it when the benchmark does in any way. The end of what the command
printed goes into the error. `recipes/exchange.py` is the command's side of this, for old versions of Python.
"""

import json
import os
import re
import subprocess
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from baselines.method import EditRequest, MethodCard, NoAnswer, Request, Requirements, TranslateRequest, input_image
from baselines.processes import run, temporary_folder
from editar.io.assets import AssetFile
from editar.io.atomic import plain_file
from editar.io.digests import file_digest
from editar.io.image_files import ImageError, open_image

FOLDER = "{folder}"
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LARGEST = 8192  # pixels along the side of an answer, which is decoded whole
_TAIL = 2000  # characters of the command's output that go into an error

Requests = Sequence[EditRequest] | Sequence[TranslateRequest]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to start an external method; `folder` is where the recipe lies, and the command's working folder."""

    name: str
    command: tuple[str, ...]
    folder: Path
    timeout_seconds: float = 600.0
    files: tuple[str, ...] = ()
    answer_side: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    card: MethodCard = field(default_factory=MethodCard)

    def __post_init__(self) -> None:
        """Raises ValueError. What the recipe needs of this machine is looked at by `check`."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name is {self.name!r}; use letters, digits, '-', '_' and '.', at most 64")
        if not any(FOLDER in part for part in self.command):
            raise ValueError(f'no part of the command {list(self.command)} has "{FOLDER}", where the requests lie')
        if not self.timeout_seconds > 0:
            raise ValueError(f"timeout_seconds is {self.timeout_seconds}; it must be above 0")
        if self.answer_side is not None and not 1 <= self.answer_side <= LARGEST:
            raise ValueError(f"answer_side is {self.answer_side}; it must be at least 1 pixel and at most {LARGEST}")
        if any("\0" in part for part in (*self.command, *self.files)):
            raise ValueError("command and files must not have a NUL character, which no program can be given")

    @property
    def unset(self) -> tuple[str, ...]:
        """The variables in command and files that have no value, each once."""
        names = _VARIABLE.findall(" ".join((*self.command, *self.files)))
        return tuple(dict.fromkeys(name for name in names if name not in os.environ))

    def check(self) -> None:
        """Raises ValueError where an environment variable is not set or one of `files` is not there."""
        if self.unset:
            raise ValueError(f"{self.name}: set the environment variables {', '.join(self.unset)}")
        for name in self.files:
            if self.found(name) is None:
                raise ValueError(f"{self.name}: files names {name!r}: there is no {self.folder / self.expanded(name)}")

    def found(self, name: str) -> Path | None:
        """Where `name` lies, which may have variables in it; None where it is not there or one of them is not set."""
        if not set(_VARIABLE.findall(name)) <= set(os.environ):
            return None
        path = self.folder / self.expanded(name)
        return path if path.exists() else None

    def expanded(self, text: str) -> str:
        """`text` with the variables' values, which have to be set."""
        return _VARIABLE.sub(lambda found: os.environ[found[1]], text)

    def digests(self) -> dict[str, str]:
        """The SHA-256 of `files`, of a folder that of each file in it, by name."""
        paths = {}
        for name in self.files:
            path = self.folder / self.expanded(name)
            if path.is_file():
                paths[name] = path
            for file in sorted(each for each in path.rglob("*") if each.is_file()):
                paths[f"{name}/{file.relative_to(path).as_posix()}"] = file
        return {name: file_digest(path) for name, path in paths.items()}


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file. Raises ValueError with the file, the field and what it has to be."""
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise ValueError(f"{path}: no readable recipe: {error}") from error
    kinds: dict[str, tuple[type, ...]] = {
        "name": (str,), "command": (list,), "timeout_seconds": (int, float), "files": (list,), "answer_side": (int,),
        "settings": (dict,), "card": (dict,),
    }  # fmt: skip
    if unknown := sorted(set(table) - set(kinds)):
        raise ValueError(f"{path}: unknown fields {unknown}; a recipe has {sorted(kinds)}")
    for name in ("name", "command"):
        if name not in table:
            raise ValueError(f"{path}: the field {name!r} is missing")
    for name, value in table.items():
        if not isinstance(value, kinds[name]) or isinstance(value, bool):
            raise ValueError(f"{path}: {name} is {value!r}; it must be a {kinds[name][-1].__name__}")
    for name in ("command", "files"):
        if not all(isinstance(part, str) for part in table.get(name, [])):
            raise ValueError(f"{path}: {name} is {table[name]!r}; it must be a list of strings")
        table[name] = tuple(table.get(name, ()))
    try:
        json.dumps(table.get("settings", {}), allow_nan=False)
        table["card"] = MethodCard(**table.get("card", {}))
        return Recipe(folder=path.parent.resolve(), **table)
    except (TypeError, ValueError) as error:  # a TOML date in the settings is no JSON
        raise ValueError(f"{path}: {error}") from error


class External:
    """The method of a recipe. `requirements` tells what the recipe lacks on this machine; `settings` then raises
    ValueError."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.card = recipe.card

    def settings(self) -> dict[str, Any]:
        recipe = self.recipe
        recipe.check()
        resized = {} if recipe.answer_side is None else {"answer_side": recipe.answer_side, "resizing": "bicubic"}
        return {"command": list(recipe.command), "files": recipe.digests(), **resized, "settings": recipe.settings}

    def requirements(self) -> Requirements:
        recipe = self.recipe
        files = tuple(AssetFile(name=name, source="the recipe", path=recipe.found(name)) for name in recipe.files)
        return Requirements(files=files, unset=recipe.unset, note="what its command loads besides is not known here")

    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image | NoAnswer]:
        return self._ask(requests)

    def translate(self, requests: Sequence[TranslateRequest]) -> list[Image.Image | NoAnswer]:
        return self._ask(requests)

    def _ask(self, requests: Requests) -> list[Image.Image | NoAnswer]:
        """Runs the command on the requests. Raises RuntimeError when it fails or takes too long."""
        with temporary_folder() as folder:
            _write_requests(folder, requests)
            output = _run(self.recipe, folder, seconds=self.recipe.timeout_seconds * len(requests))
            return [_answer(folder / "answers", request, self._read, output) for request in requests]

    def _read(self, path: Path, request: Request) -> Image.Image:
        side, wanted = self.recipe.answer_side, input_image(request).size
        try:
            answer = open_image(path, formats=("PNG",), size=wanted if side is None else (side, side))
        except ImageError as error:
            raise ImageError(f"{error} (the recipe's answer_side {side})" if side else str(error)) from error
        return answer if answer.size == wanted else answer.resize(wanted, Image.Resampling.BICUBIC)


def _run(recipe: Recipe, folder: Path, seconds: float) -> str:
    """Runs the command; returns the end of its output. Raises RuntimeError when it fails or takes too long."""
    command = [recipe.expanded(part).replace(FOLDER, str(folder)) for part in recipe.command]
    log = folder / "output.log"
    try:
        status = run(command, recipe.folder, log, seconds)
    except OSError as error:
        raise RuntimeError(f"{recipe.name}: {command[0]} can't be started: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(
            f"{recipe.name}: no answer within {seconds:g} s; raise timeout_seconds{_tail(log)}"
        ) from error
    if status != 0:
        raise RuntimeError(f"{recipe.name}: the command ended with status {status}{_tail(log)}")
    return _tail(log)


def _write_requests(folder: Path, requests: Requests) -> None:
    (folder / "images").mkdir()
    (folder / "answers").mkdir()
    with (folder / "requests.jsonl").open("w", encoding="utf-8") as file:
        for request in requests:
            name = f"images/{request.sample_id}.png"
            input_image(request).save(folder / name)
            line: dict[str, Any] = {"sample_id": request.sample_id, "image": name, "seed": request.seed}
            if isinstance(request, EditRequest):
                line |= {
                    "instruction": request.instruction, "source_prompt": request.source_prompt,
                    "target_prompt": request.target_prompt, "blend_words": request.blend_words,
                }  # fmt: skip
            else:
                line |= {"task": request.task, "caption": request.caption}
            file.write(json.dumps(line) + "\n")


def _answer(
    folder: Path, request: Request, read: Callable[[Path, Request], Image.Image], output: str
) -> Image.Image | NoAnswer:
    path = folder / f"{request.sample_id}.png"
    reason = path.with_name(f"{request.sample_id}.txt")  # an id may have dots
    if reason.is_file():
        return NoAnswer(_end(reason) or f"answers/{reason.name} is empty")
    if not path.is_file():
        return NoAnswer(f"no answers/{path.name}{output}")
    try:
        return read(path, request)
    except Exception as error:  # Pillow raises many kinds on a damaged file
        return NoAnswer(f"answers/{path.name} is not readable: {error}{output}")


def _end(path: Path) -> str:
    """Of a text that may have any length."""
    with open(path, "rb", opener=plain_file) as file:
        file.seek(max(0, path.stat().st_size - 4 * _TAIL))
        return file.read(4 * _TAIL).decode("utf-8", "replace").strip()[-_TAIL:]


def _tail(log: Path) -> str:
    text = _end(log)
    return f"; its output ends:\n{text}" if text else ""
