"""A folder of finished edits, made anywhere, as a method: it is scored without an adapter."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from baselines.method import EditRequest, NoAnswer
from benchmarks.datasets.faults import DatasetError, Fault
from benchmarks.datasets.piebench import IMAGES, PieBenchRecord
from benchmarks.images import ImageError, image_size, read_image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
PANELS = 4  # the official scripts save strips of four images, of which the last is the edit


class FinishedEdits:
    """Edits laid out like annotation_images/, under any of the usual suffixes; `folder` may also hold that folder.

    An image is the edit itself or a strip of four panels with the edit last.
    """

    def __init__(self, folder: Path, records: Iterable[PieBenchRecord]) -> None:
        """Finds and checks the files of `records`; what is wrong with them is in `faults`, by sample id."""
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder; give the folder of finished edits (--images)")
        self.folder = folder / IMAGES if (folder / IMAGES).is_dir() else folder
        self.files: dict[str, Path] = {}
        self.faults: dict[str, Fault] = {}
        for record in records:
            try:
                self.files[record.sample_id] = self._find(record)
            except ImageError as error:
                self.faults[record.sample_id] = Fault(
                    file=self.folder,
                    record=record.sample_id,
                    problem=str(error),
                    remedy="put the edit there, or leave it out with --allow-partial",
                )

    def require(self, sample_ids: Iterable[str]) -> None:
        """Raises DatasetError with all that is wrong with the edits of these samples."""
        if faults := [self.faults[sample_id] for sample_id in sample_ids if sample_id in self.faults]:
            raise DatasetError(faults)

    def settings(self) -> dict[str, Any]:
        """The digest of all edits that were found."""
        digest = hashlib.sha256()
        for sample_id, path in sorted(self.files.items()):
            digest.update(f"{sample_id} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
        return {"images": digest.hexdigest()}

    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image | NoAnswer]:
        return [self._read(request) for request in requests]

    def _find(self, record: PieBenchRecord) -> Path:
        stem = (self.folder / record.image_name).with_suffix("")
        found = [path for suffix in SUFFIXES if (path := stem.with_name(stem.name + suffix)).is_file()]
        if not found:
            raise ImageError(f"there is no {record.image_name}, with any of the suffixes {', '.join(SUFFIXES)}")
        if len(found) > 1:
            raise ImageError(f"{' and '.join(path.name for path in found)} are both there; leave one")
        width, height = image_size(found[0])
        if height != record.side or width not in (record.side, PANELS * record.side):
            raise ImageError(
                f"{found[0]} is {width}x{height} pixels; it must be {record.side}x{record.side}, or {PANELS} of these "
                "side by side with the edit last"
            )
        return found[0]

    def _read(self, request: EditRequest) -> Image.Image | NoAnswer:
        if fault := self.faults.get(request.sample_id):
            return NoAnswer(str(fault))
        path = self.files[request.sample_id]
        try:
            image, _ = read_image(path, image_size(path))
        except ImageError as error:
            return NoAnswer(f"{path}: {error}")
        return image.crop((image.width - request.image.width, 0, image.width, image.height))
