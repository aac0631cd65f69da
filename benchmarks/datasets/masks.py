"""PIE-Bench's run-length masks."""

from collections.abc import Sequence

import numpy as np


def decode_mask(runs: Sequence[int], side: int) -> np.ndarray:
    """The edit mask of `runs` as a bool array (side, side), True where the image is edited.

    runs: [start, length, start, length, ...], row-major over side x side pixels. As in the official evaluator, a run
    that passes the end is clipped, runs may overlap, and all four borders are then set.
    """
    total = side * side
    starts, lengths = np.asarray(runs, dtype=np.int64).reshape(-1, 2).T
    # +1 where a run starts and -1 behind its end: the running sum counts the runs over each pixel.
    changes = np.zeros(total + 1, dtype=np.int64)
    np.add.at(changes, starts, 1)
    np.add.at(changes, np.minimum(starts + lengths, total), -1)
    mask = np.cumsum(changes[:total]).reshape(side, side) > 0
    mask[[0, -1], :] = True
    mask[:, [0, -1]] = True
    return mask


def mask_fault(runs: object, side: int) -> str | None:
    """What is wrong with a record's mask, None where nothing is.

    A run has to start inside the image and be no longer than the image; one that starts inside and passes the end is
    legal, and clipped.
    """
    total = side * side
    if not isinstance(runs, list):
        return f"it is of type {type(runs).__name__}, not a list of integers"
    for position, value in enumerate(runs):
        if type(value) is not int:  # a bool is an int to isinstance
            return f"entry {position} is {_short(value)}, not an integer"
    if len(runs) % 2:
        return f"it has {len(runs)} entries, an odd number; it must be pairs of start and length"
    for position, value in enumerate(runs):
        part, most = ("a length", total) if position % 2 else ("a start", total - 1)
        if not 0 <= value <= most:
            return f"entry {position}, {part}, is {_short(value)}; it must be from 0 to {most}"
    return None


def _short(value: object) -> str:
    text = "an integer of many digits" if type(value) is int and abs(value) > 10**30 else repr(value)
    return text if len(text) <= 60 else text[:60] + "..."
