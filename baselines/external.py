"""Any command in any environment as a method, so that models that pin old libraries can take part.

The recipe is a TOML file:

    name = "my-method"                                # the row's name: letters, digits, "-", "_", "."
    command = ["/envs/old/bin/python", "edit.py", "{folder}"]
    timeout_seconds = 600                             # for each image of a batch; 600 when left out
    files = ["edit.py", "weights.ckpt"]               # their digests become part of the settings; may be left out
    [settings]                                        # recorded with the run: whatever can move a number
    steps = 50

The command is started without a shell, in the recipe's folder, once for each batch; "{folder}" stands for a temporary
folder that holds

    requests.jsonl      one JSON object a line: sample_id, image ("images/<sample_id>.png"), seed (an integer below
                        2**63) and, to edit: instruction, source_prompt, target_prompt, blend_words ([source, target]
                        or null); to translate: task ("depth", "canny" or "segmentation"), caption
    images/*.png        the images to edit, or the condition maps, RGB

and takes the answers, RGB PNG of the same size:

    answers/<sample_id>.png

A missing or unusable answer fails its sample. An exit status other than 0 fails the batch, which is tried again one
image at a time, so that one bad sample costs no other. The end of what the command printed goes into the error.
"""

import json
import os
import re
import signal
import subprocess
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from baselines.method import EditRequest, NoAnswer, TranslateRequest, shown
from baselines.needs import NeededFile, Needs
from editar.digests import file_digest

FOLDER = "{folder}"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
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
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name is {self.name!r}; use letters, digits, '-', '_' and '.', at most 64")
        if not any(FOLDER in part for part in self.command):
            raise ValueError(f'no part of the command {list(self.command)} has "{FOLDER}", where the requests lie')
        if not self.timeout_seconds > 0:
            raise ValueError(f"timeout_seconds is {self.timeout_seconds}; it must be above 0")
        for name in self.files:
            if not (self.folder / name).is_file():
                raise ValueError(f"files names {name!r}, which is not a file in {self.folder}")


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file. Raises ValueError with the file, the field and what it has to be."""
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise ValueError(f"{path}: no readable recipe: {error}") from error
    kinds: dict[str, tuple[type, ...]] = {
        "name": (str,), "command": (list,), "timeout_seconds": (int, float), "files": (list,), "settings": (dict,),
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
        return Recipe(folder=path.parent.resolve(), **table)
    except (TypeError, ValueError) as error:  # a TOML date in the settings is no JSON
        raise ValueError(f"{path}: {error}") from error


class External:
    """The method of a recipe."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def settings(self) -> dict[str, Any]:
        recipe = self.recipe
        digests = {name: file_digest(recipe.folder / name) for name in recipe.files}
        return {"command": list(recipe.command), "files": digests, "settings": recipe.settings}

    def needs(self) -> Needs:
        files = tuple(
            NeededFile(name=name, source="the recipe", path=self.recipe.folder / name) for name in self.recipe.files
        )
        return Needs(files=files, note="what its command loads besides is not known here")

    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image | NoAnswer]:
        return self._ask(requests)

    def translate(self, requests: Sequence[TranslateRequest]) -> list[Image.Image | NoAnswer]:
        return self._ask(requests)

    def _ask(self, requests: Requests) -> list[Image.Image | NoAnswer]:
        with tempfile.TemporaryDirectory(prefix="editar-external-") as name:
            folder = Path(name)
            _write_requests(folder, requests)
            output = self._run(folder, seconds=self.recipe.timeout_seconds * len(requests))
            return [_read_answer(folder, request, output) for request in requests]

    def _run(self, folder: Path, seconds: float) -> str:
        """Runs the command; returns the end of its output. Raises RuntimeError when it fails or takes too long."""
        command = [part.replace(FOLDER, str(folder)) for part in self.recipe.command]
        log = folder / "output.log"
        with log.open("wb") as stream:
            try:
                process = subprocess.Popen(
                    command, cwd=self.recipe.folder, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
                    start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise RuntimeError(f"{self.recipe.name}: {command[0]} can't be started: {error}") from error
            try:
                status = process.wait(seconds)
            except subprocess.TimeoutExpired as error:
                raise RuntimeError(
                    f"{self.recipe.name}: no answer within {seconds:g} s; raise timeout_seconds{_tail(log)}"
                ) from error
            finally:
                if process.poll() is None:  # too late, or this process is being stopped: leave nothing behind
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        if status != 0:
            raise RuntimeError(f"{self.recipe.name}: the command ended with status {status}{_tail(log)}")
        return _tail(log)


def _write_requests(folder: Path, requests: Requests) -> None:
    (folder / "images").mkdir()
    (folder / "answers").mkdir()
    with (folder / "requests.jsonl").open("w", encoding="utf-8") as file:
        for request in requests:
            name = f"images/{request.sample_id}.png"
            shown(request).save(folder / name)
            line: dict[str, Any] = {"sample_id": request.sample_id, "image": name, "seed": request.seed}
            if isinstance(request, EditRequest):
                line |= {
                    "instruction": request.instruction, "source_prompt": request.source_prompt,
                    "target_prompt": request.target_prompt, "blend_words": request.blend_words,
                }  # fmt: skip
            else:
                line |= {"task": request.task, "caption": request.caption}
            file.write(json.dumps(line) + "\n")


def _read_answer(folder: Path, request: EditRequest | TranslateRequest, output: str) -> Image.Image | NoAnswer:
    path = folder / "answers" / f"{request.sample_id}.png"
    if not path.is_file():
        return NoAnswer(f"no answers/{path.name}{output}")
    try:
        with Image.open(path, formats=("PNG",)) as image:
            wanted = shown(request).size
            if image.size != wanted:  # from the header: nothing of another size is decoded
                return NoAnswer(f"answers/{path.name} is {image.size}, the image of the request {wanted}")
            return image.convert("RGB")
    except Exception as error:  # Pillow raises many kinds on a damaged file
        return NoAnswer(f"answers/{path.name} is no readable PNG: {error}{output}")


def _tail(log: Path) -> str:
    text = log.read_bytes()[-4 * _TAIL :].decode("utf-8", "replace").strip()[-_TAIL:]
    return f"; its output ends:\n{text}" if text else ""
