import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.datasets.masks import decode_mask, mask_fault


def loop(runs: list[int], side: int) -> np.ndarray:
    """The official evaluator's way, one pixel at a time."""
    flat = np.zeros(side * side, dtype=bool)
    for i in range(0, len(runs), 2):
        for pixel in range(runs[i], min(runs[i] + runs[i + 1], side * side)):
            flat[pixel] = True
    mask = flat.reshape(side, side)
    for i in range(side):
        mask[0, i] = mask[-1, i] = mask[i, 0] = mask[i, -1] = True
    return mask


@given(st.data())
def test_decoding_equals_the_slow_loop(data: st.DataObject) -> None:
    side = data.draw(st.integers(1, 9))
    pair = st.tuples(st.integers(0, side * side - 1), st.integers(0, side * side))
    runs = [number for run in data.draw(st.lists(pair, max_size=6)) for number in run]
    assert mask_fault(runs, side) is None
    mask = decode_mask(runs, side)
    assert mask.dtype == bool
    assert np.array_equal(mask, loop(runs, side))


def test_an_empty_mask_has_its_border_set() -> None:
    assert decode_mask([], 4).sum() == 12


def test_a_run_past_the_end_is_clipped() -> None:
    mask = decode_mask([9, 16], 4)
    assert mask[2, 1] and mask[2, 2] and not mask[1, 1]


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([1], "odd"),
        ([-1, 2], "entry 0, a start, is -1"),
        ([16, 1], "entry 0, a start, is 16; it must be from 0 to 15"),
        ([0, -2], "entry 1, a length, is -2"),
        ([0, 1, 3, 17], "entry 3, a length, is 17; it must be from 0 to 16"),
        ([0, 10**40], "an integer of many digits"),
        ([0, 2.0], "entry 1 is 2.0, not an integer"),
        ([True, 2], "entry 0 is True, not an integer"),
        ([float("nan"), 2], "entry 0 is nan, not an integer"),
        (["0", 2], "entry 0 is '0', not an integer"),
        ([[0], 2], "not an integer"),
        ("0 2", "of type str"),
        (None, "of type NoneType"),
        ({"0": 2}, "of type dict"),
    ],
)
def test_faulty_runs(runs: object, message: str) -> None:
    assert (problem := mask_fault(runs, 4)) is not None
    assert message in problem
