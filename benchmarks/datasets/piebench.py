"""PIE-Bench_v1 as typed records, checked whole before any of it is used.

The layout (PnPInversion): `mapping_file.json`, an object {id: record}, beside `annotation_images/<image_path>`.
"""

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.datasets.faults import DatasetError, Fault
from benchmarks.datasets.masks import decode_mask, mask_fault
from benchmarks.datasets.notes import turned_note
from benchmarks.runs.schema import SAMPLE_ID
from editar.io.assets import AssetFile
from editar.io.foreign import what_it_is
from editar.io.image_files import ImageError, read_image, read_turned, turned
from editar.io.image_paths import ImagePaths, PathError

MAPPING = "mapping_file.json"
IMAGES = "annotation_images"
LAYOUTS = ("", "data", "PIE-Bench_v1")  # where under the given folder the benchmark may lie

EDIT_TYPES = {
    "0": "random",
    "1": "change object",
    "2": "add object",
    "3": "delete object",
    "4": "change content",
    "5": "change pose",
    "6": "change colour",
    "7": "change material",
    "8": "change background",
    "9": "change style",
}

TEXT_FIELDS = (
    "image_path",
    "original_prompt",
    "editing_prompt",
    "editing_instruction",
    "editing_type_id",
    "blended_word",
)

_BRACKETS = str.maketrans("", "", "[]")
_FETCH_AGAIN = "fetch the file again"


@dataclass(frozen=True, kw_only=True)
class PieBenchRecord:
    """One edit of the benchmark.

    image_path: absolute, and checked. image_name: the path below annotation_images/ that the file gives, with slashes.
    image_sha256: of the image file. Prompts are without the brackets that mark the edited words. edit_type: "0".."9".
    mask_runs: [start, length, ...], row-major over the side x side pixels of the file, which EXIF's `orientation`
    turns upright; None where the record has no mask.
    """

    sample_id: str
    image_path: Path
    image_name: str
    image_sha256: str
    source_prompt: str
    target_prompt: str
    instruction: str
    edit_type: str
    blend_words: tuple[str, str] | None
    mask_runs: tuple[int, ...] | None
    orientation: int
    side: int

    @property
    def edit_type_name(self) -> str:
        return EDIT_TYPES[self.edit_type]

    def mask(self) -> np.ndarray:
        """Bool (side, side), True where the image is edited; the border always is (see `decode_mask`).

        It is drawn on the pixels of the file, and turned with them. All False where the record has no mask.
        """
        if self.mask_runs is None:
            return np.zeros((self.side, self.side), bool)
        mask = decode_mask(self.mask_runs, self.side)
        return np.asarray(turned(Image.fromarray(mask), self.orientation))

    def image(self) -> Image.Image:
        """The source image, upright RGB, side x side. Raises ImageError when the file has changed since it was read."""
        image, digest = read_image(self.image_path, (self.side, self.side))
        if digest != self.image_sha256:
            raise ImageError(f"{self.image_path} has changed since the data set was read")
        return image


@dataclass(frozen=True, kw_only=True)
class PieBench:
    """records: in the order of their ids. digest: of all that they say and show, the same wherever the data lies.

    notes: what the user should know of the files.
    """

    records: tuple[PieBenchRecord, ...]
    digest: str
    root: Path
    notes: tuple[str, ...] = ()


def read_piebench(root: Path, side: int = 512, *, follow_links: Path | None = None) -> PieBench:
    """Reads and checks the whole benchmark under `root`, which is its folder or holds it as data/ or PIE-Bench_v1/.

    side: the width and height that every image must have. follow_links: a folder that links among the images may lead
    into, besides `root` (see `ImagePaths`). Raises DatasetError with all faults of the file.
    """
    given, root = root, _find_root(root)
    paths = ImagePaths(root / IMAGES, [given, root, *([follow_links] if follow_links else [])])
    mapping = root / MAPPING
    entries = _read_mapping(mapping)
    _refuse_plus_plus(mapping, entries)
    faults: list[Fault] = []
    for name in sorted(entries.duplicates):
        faults.append(Fault(file=mapping, record=name, problem="this id occurs more than once", remedy=_FETCH_AGAIN))
    seen: dict[str, str] = {}
    records = []
    for sample_id, entry in sorted(entries.items()):
        problems = _Problems(mapping, sample_id)
        _check_id(sample_id, seen, problems)
        record = _read_record(sample_id, entry, paths, side, problems)
        faults += problems.faults
        if record is not None and not problems.faults:
            records.append(record)
    if not entries:
        faults.append(Fault(file=mapping, problem="it has no records", remedy=_FETCH_AGAIN))
    if faults:
        raise DatasetError(faults)
    turned_ids = [record.sample_id for record in records if record.orientation != 1]
    notes = (turned_note(turned_ids),) if turned_ids else ()
    return PieBench(records=tuple(records), digest=_digest(records), root=root, notes=notes)


class _Object(dict[str, Any]):
    """A JSON object that remembers which of its keys occurred more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.duplicates: set[str] = set()
        if len(self) < len(pairs):
            self.duplicates = {key for key, count in Counter(key for key, _ in pairs).items() if count > 1}


class _Problems:
    """The faults of one record."""

    def __init__(self, file: Path, record: str) -> None:
        self.file = file
        self.record = record
        self.faults: list[Fault] = []

    def add(self, field: str | None, problem: str, remedy: str) -> None:
        self.faults.append(Fault(file=self.file, record=self.record, field=field, problem=problem, remedy=remedy))


def locate_piebench(data: Path | None) -> tuple[AssetFile, ...]:
    """The data set's parts, and where they lie under the folder `data`."""
    folders = [] if data is None else [data / layout for layout in LAYOUTS]
    folder = next((each for each in folders if (each / MAPPING).is_file()), None)
    return tuple(
        AssetFile(
            name=f"PIE-Bench_v1/{name}",
            source="its authors, on request (github.com/cure-lab/PnPInversion): --data",
            path=folder / name if folder is not None and (folder / name).exists() else None,
        )
        for name in (MAPPING, f"{IMAGES}/")
    )


def _find_root(root: Path) -> Path:
    for layout in LAYOUTS:
        if (root / layout / MAPPING).is_file():
            return (root / layout).resolve()
    if next(root.glob("*/V1-*.parquet"), None) or next(root.glob("V1-*.parquet"), None):
        raise DatasetError([_plus_plus(root)])
    places = ", ".join(str(Path(layout) / MAPPING) for layout in LAYOUTS)
    problem = f"there is none of {places}" if root.is_dir() else "there is no such folder"
    remedy = f"give the folder that holds {MAPPING} and {IMAGES}/ (flag --data)"
    raise DatasetError([Fault(file=root, problem=problem, remedy=remedy)])


def _read_mapping(path: Path) -> _Object:
    def fail(problem: str) -> DatasetError:
        return DatasetError([Fault(file=path, problem=problem, remedy=_FETCH_AGAIN)])

    try:
        entries = json.loads(path.read_text("utf-8-sig"), object_pairs_hook=_Object)
    except OSError as error:
        raise fail(f"it can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise fail(f"byte {error.start} is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise fail(what_it_is(path) or f"it is cut off or no JSON: {error}") from error
    except ValueError as error:  # an integer of more digits than Python converts
        raise fail(f"a number in it is too long: {error}") from error
    except RecursionError as error:
        raise fail("its lists and objects are nested too deep") from error
    if not isinstance(entries, _Object):
        raise fail(f"it is a JSON {type(entries).__name__}, not an object of records by id")
    return entries


def _plus_plus(file: Path) -> Fault:
    return Fault(
        file=file,
        problem="this is PIE-Bench++ (UB-CVML-Group/PIE_Bench_pp), another benchmark: its prompts are rewritten and it "
        "has no instructions, so its scores can't stand beside those of PIE-Bench",
        remedy="give the folder of PIE-Bench_v1",
    )


def _refuse_plus_plus(mapping: Path, entries: _Object) -> None:
    foreign = {"edit_action", "aspect_mapping"}
    if entries and all(isinstance(entry, dict) and foreign & entry.keys() for entry in entries.values()):
        raise DatasetError([_plus_plus(mapping)])


def _check_id(sample_id: str, seen: dict[str, str], problems: _Problems) -> None:
    if not SAMPLE_ID.fullmatch(sample_id):
        problems.add(
            None,
            "the id can't be the name of a file",
            "use at most 128 letters, digits, - _ . and no dot first",
        )
    other = seen.setdefault(sample_id.casefold(), sample_id)
    if other != sample_id:
        problems.add(None, f"the id differs from {other!r} in case only", "rename one: some file systems mix them up")


def _read_record(
    sample_id: str, entry: object, paths: ImagePaths, side: int, problems: _Problems
) -> PieBenchRecord | None:
    """The record, or None after its faults were added to `problems`."""
    if not isinstance(entry, _Object):
        problems.add(None, f"it is of type {type(entry).__name__}, not an object", _FETCH_AGAIN)
        return None
    for name in sorted(entry.duplicates):
        problems.add(name, "it occurs more than once", "keep one")
    for name in TEXT_FIELDS:
        if name in entry:
            _check_text(name, entry[name], problems)
        else:
            problems.add(name, "it is missing", _FETCH_AGAIN)
    kind, words = entry.get("editing_type_id"), entry.get("blended_word")
    if isinstance(kind, str) and kind not in EDIT_TYPES:
        problems.add("editing_type_id", f"it is {kind!r}", 'it must be one of "0" to "9"')
    if isinstance(words, str) and len(words.split()) == 1:
        problems.add("blended_word", f"it is {words!r}", "give a source and a target word, or an empty string")
    mask = entry.get("mask")
    if mask == []:  # as without one: one's own data often have none
        mask = None
    if mask is not None and (problem := mask_fault(mask, side)):
        problems.add("mask", problem, _FETCH_AGAIN)
    image = _check_image(entry.get("image_path"), paths, side, problems)
    if problems.faults or image is None:
        return None
    image_path, digest, orientation = image
    return PieBenchRecord(
        sample_id=sample_id,
        image_path=image_path,
        image_name=entry["image_path"].replace("\\", "/"),
        image_sha256=digest,
        source_prompt=entry["original_prompt"].translate(_BRACKETS),
        target_prompt=entry["editing_prompt"].translate(_BRACKETS),
        instruction=entry["editing_instruction"],
        edit_type=entry["editing_type_id"],
        blend_words=_blend_words(entry["blended_word"]),
        mask_runs=None if mask is None else tuple(mask),
        orientation=orientation,
        side=side,
    )


def _check_text(name: str, value: object, problems: _Problems) -> None:
    if not isinstance(value, str):
        problems.add(name, f"it is of type {type(value).__name__}, not a string", _FETCH_AGAIN)
        return
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # JSON can hold half of a surrogate pair
        problems.add(name, "it is no valid Unicode text", _FETCH_AGAIN)


def _blend_words(text: str) -> tuple[str, str] | None:
    """The two words; where there are more, the first two, as in the official editing scripts."""
    words = text.split()
    return (words[0], words[1]) if words else None


def _check_image(name: object, paths: ImagePaths, side: int, problems: _Problems) -> tuple[Path, str, int] | None:
    """The image's absolute path, digest and orientation, or None after its fault was added."""
    if not isinstance(name, str):
        return None  # reported with the other texts
    try:
        path = paths.find(name)
        _, orientation, digest = read_turned(path, (side, side))
        return path, digest, orientation
    except PathError as error:
        remedy = (
            f"if you trust it, start with --follow-links {error.link}" if error.link else f"give a path below {IMAGES}/"
        )
        problems.add("image_path", f"{name!r}: {error}", remedy)
    except ImageError as error:
        problems.add("image_path", f"{name!r}: {error}", f"fetch it again, {side}x{side} pixels, into {IMAGES}/")
    return None


def _digest(records: list[PieBenchRecord]) -> str:
    digest = hashlib.sha256()
    for record in records:  # in the order of their ids
        content = asdict(record)
        del content["image_path"], content["orientation"]  # where the data lies; the image's own digest is in
        digest.update(json.dumps(content, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()
