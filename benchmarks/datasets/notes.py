"""What the user should know of a data set that is no fault."""

from collections.abc import Sequence

from editar.io.texts import first_of


def turned_note(ids: Sequence[str]) -> str:
    """On the records, by their ids, whose images EXIF's orientation turns."""
    return (
        f"EXIF data turn the images of {listed(ids)}: masks and maps are taken as drawn on the file's own pixels and "
        "turned with these. If they were drawn on the upright image, save it upright and without EXIF data"
    )


def listed(names: Sequence[str]) -> str:
    """How many records there are, and the first of them.

    >>> listed(["a", "b", "c", "d"])
    '4 records (a, b, c ...)'
    """
    return f"{len(names)} record{'s' if len(names) != 1 else ''} ({first_of(names)})"
