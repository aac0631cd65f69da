"""Image files by the names that people give them: suffixes in any spelling, what operating systems leave beside; and
the files that data sets from elsewhere name, below a folder whatever the names say and whatever is linked there."""

from collections.abc import Iterable, Sequence
from pathlib import Path, PureWindowsPath

from editar.io.texts import first_of

# Of image_files.FORMATS.
SUFFIXES = frozenset({
    ".apng", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm",
    ".ppm", ".tif", ".tiff", ".webp",
})  # fmt: skip
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
    shown = first_of([path.name for path in leftovers])
    return f"skipped what macOS or Windows left beside the files: {shown} ({len(leftovers)} in all)"


class ImageNames:
    """Finds images by their names without the suffix. Each folder is listed once.

    leftovers: what operating systems left in the folders that were listed.
    """

    def __init__(self) -> None:
        self.leftovers: list[Path] = []
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
                if is_leftover(path):
                    self.leftovers.append(path)
                elif is_image_name(path) and path.is_file():
                    names.setdefault(path.stem, []).append(path)
        return names


class PathError(ValueError):
    """A name that leads elsewhere or nowhere. link: where a link in it leads, None where that isn't the problem."""

    def __init__(self, problem: str, link: Path | None = None) -> None:
        super().__init__(problem)
        self.link = link


class ImagePaths:
    """From names of images to their paths, below `folder`.

    Names may be written as on Windows, and may spell the suffix otherwise than the file (see `ImageNames.find`). Links
    are followed to anything below one of `roots`, which the user has named; and in a snapshot of the Hugging Face hub's
    cache, whose files are links, to the blobs beside it.
    """

    def __init__(self, folder: Path, roots: Iterable[Path]) -> None:
        self.folder = folder
        self._allowed = [*(root.resolve() for root in roots), *_blobs(folder)]
        self._names = ImageNames()

    def find(self, name: str) -> Path:
        """The absolute path, its links resolved; whether the file is there is not looked at. Raises PathError."""
        parts = PureWindowsPath(name)  # takes / and \\ for separators, and knows drives
        if parts.anchor:
            raise PathError("it is an absolute path")
        if ".." in parts.parts:
            raise PathError(f"it leaves {self.folder}, by '..'")
        try:
            path = self._resolved(self.folder / name.replace("\\", "/"))
            return self._resolved(self._names.find(path))
        except PathError:
            raise
        except (OSError, ValueError, RuntimeError) as error:  # a NUL byte, a half surrogate, a long name, looping links
            raise PathError(f"it is no usable path ({error})") from error

    def _resolved(self, path: Path) -> Path:
        target = path.resolve()
        if any(target.is_relative_to(root) for root in self._allowed):
            return target
        link = self.folder.resolve()  # the folder itself may be the link
        if any(link.is_relative_to(root) for root in self._allowed):
            link = target.parent
        raise PathError(f"it leaves {self.folder}, by a link to {target}", link)


def _blobs(folder: Path) -> list[Path]:
    """Where the links of a snapshot lead in the hub's cache: <repository>/snapshots/<commit> and <repository>/blobs."""
    roots = [parent.parent / "blobs" for parent in folder.resolve().parents if parent.name == "snapshots"]
    return [root for root in roots if root.is_dir()]
