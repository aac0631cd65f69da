"""The translation data sets as records, checked whole before any of it is used, and their rows, read when asked for.

A record is what stays in memory: an id, a caption, sizes and digests. Images, conditions and labels come with its row.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from benchmarks.datasets.encoded import CellError, caption, decode_rgb, image_bytes, train_ids
from benchmarks.datasets.faults import DatasetError, Fault
from benchmarks.datasets.hub import HubDataset, find_shards
from benchmarks.datasets.notes import turned_note
from benchmarks.datasets.parquet import Rows
from editar.io.digests import bytes_digest
from editar.io.image_files import turned_along
from editar.io.parquet import Content

TASKS = ("depth", "canny", "segmentation")
COCO_CLASSES = 171
MAX_FAULTS = 100
CHUNK = 16  # rows that are checked side by side
_FETCH_AGAIN = "fetch the file again"


@dataclass(frozen=True, kw_only=True)
class TranslationRecord:
    """One image to generate. sample_id: the row's number through all shards, five digits, as EditAR's code names it.

    size: (width, height) of image, condition and label, upright and alike. image_sha256: of the image file; some
    images of MultiGen-20M occur twice, which is no fault, but they are no independent observations either.
    orientation: EXIF's, of the image file.
    sha256: of all that the row says and shows.
    """

    sample_id: str
    task: str
    caption: str
    size: tuple[int, int]
    image_sha256: str
    sha256: str
    orientation: int = 1


@dataclass(frozen=True, kw_only=True)
class TranslationRow:
    """What a data set says of one record, its images still encoded; each method decodes anew.

    condition_file: None for canny, whose condition is made from the image. ids: uint8 (height, width) train ids.
    Condition and ids are taken as drawn on the image file's own pixels, and turned upright with them.
    """

    record: TranslationRecord
    image_file: bytes
    condition_file: bytes | None
    ids: np.ndarray | None

    def image(self) -> Image.Image:
        """The real image, upright RGB. Never shown to a method."""
        return decode_rgb(self.image_file)[0]

    def condition(self) -> Image.Image:
        """The condition map, RGB, of the image's size."""
        assert self.condition_file is not None, f"{self.record.task} has no stored condition"
        condition, own_orientation = decode_rgb(self.condition_file)
        if own_orientation != 1:
            return condition
        return turned_along(condition, self.record.size, self.record.orientation)


def row_of(row: TranslationRow, record: TranslationRecord) -> TranslationRow:
    """The row as it was read, of a record whose orientation is known."""
    if row.ids is not None and record.orientation != 1:
        row = replace(row, ids=np.asarray(turned_along(Image.fromarray(row.ids), record.size, record.orientation)))
    return replace(row, record=record)


class TranslationDataset:
    """records: in the order of the data set. digest: of all rows in their order, however they are spread over files."""

    def __init__(self, source: HubDataset, task: str, classes: int, rows: Rows) -> None:
        """Checks every row; see `read_translation`."""
        self.source, self.task, self.classes = source, task, classes
        self._rows = rows
        self._numbers: dict[str, int] = {}
        self.records = self._check()
        digest = hashlib.sha256(task.encode())
        for number, record in enumerate(self.records):
            self._numbers[record.sample_id] = number
            digest.update(record.sha256.encode())
        self.digest = digest.hexdigest()
        turned_ids = [record.sample_id for record in self.records if record.orientation != 1]
        self.notes = (turned_note(turned_ids),) if turned_ids else ()

    def row(self, record: TranslationRecord) -> TranslationRow:
        """The record's row. Raises DatasetError when it has changed since it was checked."""
        number = self._numbers[record.sample_id]
        row = self._read(number)
        if row.record.sha256 != record.sha256:
            problem = "it has changed since the data set was read"
            raise DatasetError([self._fault(number, None, problem, "start again")])
        return row_of(row, record)

    def _check(self) -> tuple[TranslationRecord, ...]:
        records: list[TranslationRecord] = []
        faults: list[Fault] = []
        total = len(self._rows)
        bar = tqdm(total=total, desc=f"check {self.source.name}", unit="row", leave=False, delay=2, mininterval=1)
        with bar, ThreadPoolExecutor(min(CHUNK, os.cpu_count() or 1)) as pool:  # Pillow decodes outside of the GIL
            for start in range(0, total, CHUNK):
                numbers = range(start, min(start + CHUNK, total))
                for found in pool.map(self._decoded, numbers):
                    if isinstance(found, TranslationRecord):
                        records.append(found)
                    else:
                        faults += [fault for fault in found if fault not in faults]  # a torn row group has many rows
                bar.update(len(numbers))
                if len(faults) > MAX_FAULTS:
                    problem = "the check ended here: the rows behind were not looked at"
                    faults.append(self._fault(numbers[-1], None, problem, "mend these first"))
                    break
        if faults:
            raise DatasetError(faults)
        return tuple(records)

    def _decoded(self, number: int) -> TranslationRecord | Sequence[Fault]:
        """The record of a row whose images can be decoded and are of one size, or what is wrong with it."""
        try:
            row = self._read(number)
        except DatasetError as error:
            return error.faults
        faults: list[Fault] = []
        sizes: dict[str | None, tuple[int, int]] = {}
        try:
            image, orientation = decode_rgb(row.image_file)
            sizes[self.source.image] = image.size
            row = row_of(row, replace(row.record, size=image.size, orientation=orientation))
        except CellError as error:
            faults.append(self._fault(number, self.source.image, str(error), _FETCH_AGAIN))
        try:
            if row.condition_file is not None:
                sizes[self.source.condition] = row.condition().size
        except CellError as error:
            faults.append(self._fault(number, self.source.condition, str(error), _FETCH_AGAIN))
        if row.ids is not None:
            sizes[self.source.label] = (row.ids.shape[1], row.ids.shape[0])
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{column} {width}x{height}" for column, (width, height) in sizes.items())
            remedy = "image, condition and label of a row must be of one size, or they do not lie over each other"
            faults.append(self._fault(number, None, f"its sizes are mixed: {listed}", remedy))
        return faults or row.record

    def _read(self, number: int) -> TranslationRow:
        """The row, its images not decoded yet (the record's size is a placeholder). Raises DatasetError."""
        source = self.source
        faults: list[Fault] = []
        parts: dict[str, Any] = {}
        for column, value in self._rows[number].items():
            try:
                if column == source.caption:
                    parts[column] = caption(value)
                elif column == source.label:
                    parts[column] = train_ids(value, self.classes)
                else:
                    parts[column] = image_bytes(value)
            except CellError as error:
                remedy = "give each record a caption" if column == source.caption else _FETCH_AGAIN
                faults.append(self._fault(number, column, str(error), remedy))
        if faults:
            raise DatasetError(faults)
        record = TranslationRecord(
            sample_id=_sample_id(number),
            task=self.task,
            caption=parts[source.caption],
            size=(0, 0),
            image_sha256=bytes_digest(parts[source.image]),
            sha256=_digest(parts[column] for column in source.columns),
        )
        return TranslationRow(
            record=record,
            image_file=parts[source.image],
            condition_file=parts[source.condition] if source.condition else None,
            ids=parts[source.label] if source.label else None,
        )

    def _fault(self, number: int, column: str | None, problem: str, remedy: str) -> Fault:
        group = self._rows.group_of(number)
        return Fault(
            file=group.file, row_group=group.number, record=_sample_id(number), column=column, problem=problem,
            remedy=remedy,
        )  # fmt: skip


def read_translation(
    source: HubDataset, root: Path | None, task: str, classes: int = COCO_CLASSES
) -> TranslationDataset:
    """Reads and checks the validation set `source` under the folder `root`, or from the hub where that is None.

    task: one of TASKS; canny needs the image and the caption only, so that it can be read from any of the sets.
    classes: train ids go from 0 to classes - 1, and 255. First the columns of all shards are checked, from their
    footers; then every row, and its images are decoded once, in about a minute for the hub's 5 000. Raises
    DatasetError with all faults; the check ends after MAX_FAULTS.
    """
    if task not in TASKS:
        raise ValueError(f"task is {task!r}; it must be one of {', '.join(TASKS)}")
    if task == "canny":
        source = replace(source, condition=None, label=None)
    elif source.condition is None or (source.label is None) == (task == "segmentation"):
        raise ValueError(f"{source.name} is no data set for {task}")
    contents: dict[str, Content] = {source.image: "image", source.caption: "text"}
    if source.condition:
        contents[source.condition] = "image"
    if source.label:
        contents[source.label] = "label"
    return TranslationDataset(source, task, classes, Rows(find_shards(source, root), contents))


def _sample_id(number: int) -> str:
    return f"{number:05d}"


def _digest(parts: Iterable[str | bytes | np.ndarray]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            part = repr(part.shape).encode() + part.tobytes()
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8) + data)
    return digest.hexdigest()
