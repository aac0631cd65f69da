"""What messages say of many things."""

from collections.abc import Sequence


def first_of(names: Sequence[str], most: int = 3) -> str:
    """The first names, and dots for the others.

    >>> first_of(["a", "b", "c", "d"])
    'a, b, c ...'
    """
    return ", ".join(names[:most]) + (" ..." if len(names) > most else "")
