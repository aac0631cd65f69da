"""The files that data sets from elsewhere name: below a folder, whatever the names say and whatever is linked there."""

from collections.abc import Iterable
from pathlib import Path, PureWindowsPath

from editar.io.image_names import ImageNames


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
