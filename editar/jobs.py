"""From image files to result files: one image or a folder, several samples each, with contact sheets and sidecars."""

import json
import platform
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from tqdm import tqdm

from editar import __version__
from editar.config import SamplingConfig
from editar.images import ImageError, contact_sheet, open_image, square
from editar.io.atomic import replacing, write_text
from editar.io.digests import file_digest
from editar.io.image_files import FORMATS

if TYPE_CHECKING:
    from editar.pipeline import EditAR

SHOWN_FAULTS = 5
SIDECAR_FORMAT = "editar-result/1"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image file and what is made of it: a result for each seed, and with several of them a contact sheet."""

    source: Path
    results: Mapping[int, Path]
    sheet: Path | None

    @property
    def files(self) -> list[Path]:
        """All images that are written."""
        return [*self.results.values(), *([self.sheet] if self.sheet else [])]


def plan(image: Path, out: Path, seeds: Sequence[int]) -> list[Picture]:
    """What an image, or a folder of images, is turned into. Raises ImageError for images that cannot be read.

    out: a file for one image, a folder for a folder. With several seeds it, or <name>.png in the folder, is the
    contact sheet, and the results are beside it, with their seed behind the name.
    """
    if not image.is_dir():
        _check_suffix(out)
        pictures = [_picture(image, out, seeds)]
    else:
        sources = sorted(path for path in image.iterdir() if _format(path) in FORMATS)
        if not sources:
            raise ImageError(f"{image}: no images in this folder")
        names = [path.stem for path in sources]
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        if twice:
            raise ImageError(f"{image}: several images are called {twice[0]}, and would be written to one file")
        pictures = [_picture(path, out / f"{path.stem}.png", seeds) for path in sources]
    sources = [picture.source for picture in pictures]
    if over := {path.resolve() for path in sources} & {path.resolve() for each in pictures for path in each.files}:
        raise ImageError(f"{over.pop()} would be overwritten by its own result; choose another --out")
    _check_readable(sources)
    return pictures


def make(
    pictures: Sequence[Picture],
    model: "EditAR",
    prompt: str,
    sampling: SamplingConfig,
    *,
    request: Mapping[str, Any],
    about_model: Callable[[], Mapping[str, Any]],
    command: Callable[[Path], list[str]],
) -> None:
    """Make all results, printing each path when its files are written. What they were made of goes to their sidecars.

    request: what was asked (kind, text, the prompt that the encoder got, what was cut off of it). about_model: where
    the weights are, the digests of their files, dtype, device, images at a time; takes its time, so it runs beside the
    decoding. command: of a source, repeats one image, its own `--out` and `--seed` left out.
    """
    jobs = [(picture, seed) for picture in pictures for seed in picture.results]
    batches = [jobs[start : start + model.width] for start in range(0, len(jobs), model.width)]
    tokens = len(batches) * model.transformer.config.image_tokens
    with ThreadPoolExecutor(1) as beside, tqdm(total=tokens, unit="token", disable=None) as bar:
        about = beside.submit(about_model)
        for batch in batches:
            images = [open_image(picture.source) for picture, _ in batch]
            seeds = [seed for _, seed in batch]
            made = model.edit(images, [prompt] * len(batch), seeds=seeds, sampling=sampling, progress=bar.update)
            for (picture, seed), image in zip(batch, made, strict=True):
                result = picture.results[seed]
                _save(image, result)
                content = {
                    "format": SIDECAR_FORMAT,
                    "command": _repeat(command(picture.source), result, seed, sampling),
                    "request": {
                        **request, "image": str(picture.source), "image_sha256": file_digest(picture.source)
                    },
                    "seed": seed,
                    "sampling": asdict(sampling),
                    "model": about.result(),
                    "result": {"file": result.name, "sha256": file_digest(result)},
                    "software": _software(),
                }  # fmt: skip
                write_text(result.with_suffix(".json"), json.dumps(content, indent=2, ensure_ascii=False) + "\n")
                bar.write(str(result), file=sys.stdout)
    for sheet in _sheets(pictures, model.side):
        print(sheet)


def _repeat(command: list[str], result: Path, seed: int, sampling: SamplingConfig) -> str:
    drawn = {f"--{name.replace('_', '-')}": value for name, value in asdict(sampling).items()}
    flags = {"--out": result, "--seed": seed, **drawn}
    return shlex.join([*command, *(str(word) for pair in flags.items() for word in pair)])


def _software() -> dict[str, str | int]:
    return {
        "editar": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        # Sums round in an order that these may change; the command does not set them.
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def _sheets(pictures: Sequence[Picture], side: int) -> Iterator[Path]:
    for picture in pictures:
        if picture.sheet is not None:
            made = [open_image(result) for result in picture.results.values()]
            _save(contact_sheet([square(open_image(picture.source), side), *made]), picture.sheet)
            yield picture.sheet


def _picture(source: Path, out: Path, seeds: Sequence[int]) -> Picture:
    if len(seeds) == 1:
        return Picture(source=source, results={seeds[0]: out}, sheet=None)
    return Picture(source=source, results={seed: out.with_stem(f"{out.stem}-{seed}") for seed in seeds}, sheet=out)


def _format(path: Path) -> str | None:
    return Image.registered_extensions().get(path.suffix.lower())  # fills Image.OPEN and Image.SAVE, too


def _check_suffix(out: Path) -> None:
    if _format(out) not in Image.SAVE:
        raise ImageError(f"{out}: unknown file extension {out.suffix!r}; use .png (or another that Pillow writes)")


def _check_readable(sources: Sequence[Path]) -> None:
    """All of them before the first is edited, which may take minutes."""
    faults = []
    for source in sources:
        try:
            open_image(source)
        except ImageError as error:
            faults.append(str(error))
    if faults:
        more = f"; and {len(faults) - SHOWN_FAULTS} more" if len(faults) > SHOWN_FAULTS else ""
        raise ImageError("; ".join(faults[:SHOWN_FAULTS]) + more)


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        image.save(file, _format(path))
