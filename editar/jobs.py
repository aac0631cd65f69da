"""From image files to result files: one image or a folder, several samples each, with contact sheets and sidecars."""

import json
import platform
import shlex
import sys
from collections import Counter
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
from editar.images import Fit, ImageError, contact_sheet, fitted, open_image, paste_back
from editar.io.atomic import replacing, write_text
from editar.io.digests import file_digest
from editar.io.image_files import image_size
from editar.io.image_paths import is_image_name, is_leftover, leftovers_note
from editar.io.texts import first_of

if TYPE_CHECKING:
    from editar.pipeline import EditAR

SHOWN_FAULTS = 5
SIDECAR_FORMAT = "editar-result/1"
SIDECAR = ".edit.json"  # in the place of a result's suffix


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


def plan(
    image: Path, out: Path, seeds: Sequence[int], *, recursive: bool = False, overwrite: bool = False
) -> list[Picture]:
    """What an image, or a folder of images, is turned into. Raises ImageError for images that cannot be read, and
    unless `overwrite` for files in the way that are no results of an earlier start.

    out: a file for one image, a folder for a folder. With several seeds it, or <name>.png in the folder, is the
    contact sheet, and the results are beside it, with their seed behind the name. recursive: the images in subfolders
    too, with their results in subfolders of the same names. What is left out is told on standard error.
    """
    if not image.is_dir():
        _check_suffix(out)
        pictures = [_picture(image, out, seeds)]
    else:
        sources = find_images(image, out, recursive)
        if not sources:
            raise ImageError(f"{image}: no images in this folder")
        results = [out / path.relative_to(image).with_suffix(".png") for path in sources]
        twice = [path.stem for path, count in Counter(results).items() if count > 1]
        if twice:
            raise ImageError(f"{image}: several images are called {twice[0]}, and would be written to one file")
        pictures = [_picture(path, result, seeds) for path, result in zip(sources, results, strict=True)]
    sources = [picture.source for picture in pictures]
    if over := {path.resolve() for path in sources} & {path.resolve() for each in pictures for path in each.files}:
        raise ImageError(f"{over.pop()} would be overwritten by its own result; choose another --out")
    if not overwrite:
        _refuse_others([path for picture in pictures for path in picture.files])
    _check_readable(sources)
    return pictures


def find_images(folder: Path, out: Path, recursive: bool) -> list[Path]:
    """The images in a folder, sorted; in its subfolders too if `recursive`, `out` left out. Says what is skipped."""
    root, made = folder.resolve(), out.resolve()
    within = {path: path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()}
    if made != root:
        within = {path: name for path, name in within.items() if not (root / name).is_relative_to(made)}
    leftovers = [path for path, name in within.items() if any(map(is_leftover, (name, *name.parents)))]
    files = sorted(within.keys() - set(leftovers))
    images = [path for path in files if is_image_name(path)]
    nested = [] if recursive else [path for path in images if len(within[path].parts) > 1]
    others = [path for path in files if not is_image_name(path) and (recursive or len(within[path].parts) == 1)]
    if nested:
        _note(f"images in subfolders of {folder} are skipped ({len(nested)}); --recursive takes them too")
    if leftovers:
        _note(leftovers_note(leftovers))
    if others:
        names = first_of([path.name for path in others], SHOWN_FAULTS)
        _note(f"files without the suffix of an image that is read are skipped ({len(others)}): {names}")
    return sorted(set(images) - set(nested))


def tell_of_sizes(pictures: Sequence[Picture], side: int, fit: Fit, pasted: bool) -> None:
    """Say once what making images square leaves out, and that results are of another size."""
    sizes = {picture.source: image_size(picture.source) for picture in pictures}
    cut = [path for path, (width, height) in sizes.items() if width != height] if fit == "crop" else []
    resized = [path for path, size in sizes.items() if size != (side, side)]
    if cut:
        width, height = sizes[cut[0]]
        centre = f"{min(width, height)}x{min(width, height)} of {width}x{height} pixels"
        subject = f"of {cut[0]}" if len(cut) == 1 else f"of {len(cut)} images that are not square, such as {cut[0]},"
        _note(f"{subject} only the centre is taken ({centre}); --fit pad or --fit stretch takes all of it")
    if resized and not pasted:
        _note(f"results are {side}x{side} pixels; --paste-back puts them into copies of the images, at their size")


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


def make(
    pictures: Sequence[Picture],
    model: "EditAR",
    prompt: str,
    sampling: SamplingConfig,
    *,
    fit: Fit = "crop",
    pasted: bool = False,
    request: Mapping[str, Any],
    about_model: Callable[[], Mapping[str, Any]],
    command: Callable[[Path], list[str]],
) -> None:
    """Make all results, printing each path when its files are written. What they were made of goes to their sidecars.

    fit: how images are made square. pasted: results are put into copies of their images (see `paste_back`). request:
    what was asked (kind, text, the prompt that the encoder got, what was cut off of it). about_model: where the weights
    are, the digests of their files, dtype, device, images at a time; takes its time, so it runs beside the decoding.
    command: of a source, repeats one image, its own `--out` and `--seed` left out.
    """
    jobs = [(picture, seed) for picture in pictures for seed in picture.results]
    batches = [jobs[start : start + model.width] for start in range(0, len(jobs), model.width)]
    tokens = len(batches) * model.transformer.config.image_tokens
    with ThreadPoolExecutor(1) as beside, tqdm(total=tokens, unit="token", disable=None) as bar:
        about = beside.submit(about_model)
        for batch in batches:
            images = [open_image(picture.source) for picture, _ in batch]
            seeds = [seed for _, seed in batch]
            made = model.edit(
                images, [prompt] * len(batch), seeds=seeds, sampling=sampling, fit=fit, progress=bar.update
            )
            for (picture, seed), source, image in zip(batch, images, made, strict=True):
                result = picture.results[seed]
                _save(paste_back(image, source, fit) if pasted else image, result)
                content = {
                    "command": _repeat(command(picture.source), result, seed, sampling),
                    "request": {
                        **request, "image": str(picture.source), "image_sha256": file_digest(picture.source)
                    },
                    "seed": seed,
                    "sampling": asdict(sampling),
                    "model": about.result(),
                    "software": _software(),
                }  # fmt: skip
                _write_sidecar(result, content)
                bar.write(str(result), file=sys.stdout)
    for sheet in _sheets(pictures, None if pasted else model.side, fit):
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


def _sheets(pictures: Sequence[Picture], side: int | None, fit: Fit) -> Iterator[Path]:
    """side: of the results; None where they have their image's size."""
    for picture in pictures:
        if picture.sheet is not None:
            made = [open_image(result) for result in picture.results.values()]
            source = open_image(picture.source)
            _save(contact_sheet([fitted(source, side, fit) if side else source, *made]), picture.sheet)
            _write_sidecar(picture.sheet, {"sheet_of": [result.name for result in picture.results.values()]})
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


def _refuse_others(results: Sequence[Path]) -> None:
    """Raises ImageError where a result or its sidecar would overwrite what no earlier start wrote."""
    for result in results:
        for path in (result, result.with_suffix(SIDECAR)):
            if path.exists() and not _is_ours(result):
                raise ImageError(
                    f"{path} would be overwritten, and is not as `editar` wrote it; choose another --out, or give "
                    "--overwrite"
                )


def _is_ours(result: Path) -> bool:
    """Whether the sidecar is there and tells of the result, if that is still there."""
    try:
        content = json.loads(result.with_suffix(SIDECAR).read_text("utf-8"))
        made = content["result"] if content["format"] == SIDECAR_FORMAT else {}
        return made["file"] == result.name and (not result.exists() or made == _about(result))
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _write_sidecar(result: Path, content: Mapping[str, Any]) -> None:
    about = {"format": SIDECAR_FORMAT, "result": _about(result), **content}
    write_text(result.with_suffix(SIDECAR), json.dumps(about, indent=2, ensure_ascii=False) + "\n")


def _about(result: Path) -> dict[str, str]:
    return {"file": result.name, "sha256": file_digest(result)}


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        image.save(file, _format(path))
