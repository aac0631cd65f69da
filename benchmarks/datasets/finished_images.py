"""A folder of finished images, made anywhere, as a method: it is scored without an adapter."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from baselines.method import MethodCard, NoAnswer, Request
from benchmarks.datasets.faults import DatasetError, Fault
from editar.io.digests import file_digest
from editar.io.image_files import ImageError, image_size, read_image
from editar.io.image_paths import ImageNames, leftovers_note


class FinishedImages:
    """Square images under any suffix of images, or strips of several panels with the image last."""

    card = MethodCard()

    def __init__(self, folder: Path, names: Mapping[str, str], side: int, panels: int = 1) -> None:
        """Finds and checks the files; what is wrong with them is in `faults`, by sample id.

        names: where each sample's image lies in the folder, by sample id. side: pixels. panels: of the strips that are
        accepted besides single images.
        """
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder; give the folder of finished images (--images)")
        self.folder, self.side, self.panels = folder, side, panels
        self._names = ImageNames()
        self.files: dict[str, Path] = {}
        self.faults: dict[str, Fault] = {}
        for sample_id, name in names.items():
            try:
                self.files[sample_id] = self._find(name)
            except ImageError as error:
                self.faults[sample_id] = Fault(
                    file=folder,
                    record=sample_id,
                    problem=str(error),
                    remedy="put the image there, or leave it out with --allow-partial",
                )

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the folder that is no fault."""
        leftovers = self._names.leftovers
        return (f"{self.folder}: {leftovers_note(leftovers)}",) if leftovers else ()

    def require(self, sample_ids: Iterable[str]) -> None:
        """Raises DatasetError with all that is wrong with the images of these samples."""
        if faults := [self.faults[sample_id] for sample_id in sample_ids if sample_id in self.faults]:
            raise DatasetError(faults)

    def settings(self) -> dict[str, Any]:
        """The digest of all images that were found."""
        digest = hashlib.sha256()
        for sample_id, path in sorted(self.files.items()):
            digest.update(f"{sample_id} {file_digest(path)}\n".encode())
        return {"images": digest.hexdigest()}

    def edit(self, requests: Sequence[Request]) -> list[Image.Image | NoAnswer]:
        return [self._read(request.sample_id) for request in requests]

    translate = edit

    def _find(self, name: str) -> Path:
        found = self._names.of(self.folder / name)
        if not found:
            raise ImageError(
                f"there is no {name}, under this or another suffix of images (.png, .jpg, .webp, .tif ...)"
            )
        if len(found) > 1:
            raise ImageError(f"{' and '.join(path.name for path in found)} are both there; leave one")
        width, height = image_size(found[0])
        if height != self.side or width not in (self.side, self.panels * self.side):
            strips = f", or {self.panels} of these side by side with the image last" if self.panels > 1 else ""
            raise ImageError(f"{found[0]} is {width}x{height} pixels; it must be {self.side}x{self.side}{strips}")
        return found[0]

    def has(self, sample_id: str, image: Image.Image) -> bool:
        """Whether the folder's image of a sample is this very image, pixel by pixel."""
        found = self._read(sample_id)
        return isinstance(found, Image.Image) and found.size == image.size and found.tobytes() == image.tobytes()

    def _read(self, sample_id: str) -> Image.Image | NoAnswer:
        if fault := self.faults.get(sample_id):
            return NoAnswer(str(fault))
        path = self.files[sample_id]
        try:
            image, _ = read_image(path, image_size(path))
        except ImageError as error:
            return NoAnswer(f"{path}: {error}")
        return image.crop((image.width - self.side, 0, image.width, image.height))
