"""Names of image files as people have them: suffixes in any spelling, and what operating systems leave beside them."""

from collections.abc import Sequence
from pathlib import Path

# Of image_files.FORMATS.
SUFFIXES = frozenset({
    ".apng", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm",
    ".ppm", ".tif", ".tiff", ".webp",
})  # fmt: skip
SHOWN = 3
# Files and folders that macOS, Windows and network drives make by themselves; their names in lower case.
_LEFTOVERS = frozenset({".ds_store", "__macosx", "desktop.ini", "ehthumbs.db", "thumbs.db", "@eadir"})


def is_leftover(path: Path) -> bool:
    """Whether an operating system made the file or folder, not the user: Thumbs.db, ._photo.jpg ..."""
    return path.name.startswith("._") or path.name.lower() in _LEFTOVERS


def is_image_name(path: Path) -> bool:
    """Whether the name is that of an image, in upper or lower case, and nobody's leftover."""
    return path.suffix.lower() in SUFFIXES and not is_leftover(path)


def leftovers_note(leftovers: Sequence[Path]) -> str:
    """What to tell of the leftovers that were found."""
    shown = ", ".join(path.name for path in leftovers[:SHOWN]) + (" ..." if len(leftovers) > SHOWN else "")
    return f"skipped what macOS or Windows left beside the files: {shown} ({len(leftovers)} in all)"


class ImageNames:
    """Finds images by their names without the suffix. Each folder is listed once."""

    def __init__(self) -> None:
        self._listed: dict[Path, dict[str, list[Path]]] = {}

    def of(self, path: Path) -> list[Path]:
        """The image files called like `path`, under any image suffix, sorted."""
        folder = path.parent
        if folder not in self._listed:
            self._listed[folder] = self._list(folder)
        return self._listed[folder].get(path.stem, [])

    def find(self, path: Path) -> Path:
        """`path`; or, where there is none, the one image that differs from it in its suffix alone (a.JPG for a.jpg)."""
        if not path.is_file() and len(others := self.of(path)) == 1:
            return others[0]
        return path

    def _list(self, folder: Path) -> dict[str, list[Path]]:
        names: dict[str, list[Path]] = {}
        if folder.is_dir():
            for path in sorted(folder.iterdir()):
                if is_image_name(path) and path.is_file():
                    names.setdefault(path.stem, []).append(path)
        return names
