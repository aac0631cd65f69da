"""The embedded PIE-Bench is read by the real reader, and its masks, prompts and counts are the world's."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.datasets.piebench import read_piebench
from benchmarks.miniature.world.embedded import COUNTS, ensure_piebench, ensure_written, held_out_edits, mask_runs
from benchmarks.miniature.world.render import render
from benchmarks.miniature.world.scene import SIDE
from tests.flips import COUNTS as COUNTS_OF_FLIPS
from tests.flips import flips


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return ensure_piebench(tmp_path_factory.mktemp("piebench") / "data")


@pytest.fixture(scope="module")
def edits():
    return held_out_edits(COUNTS)


def test_the_real_reader_reads_it_whole(root, edits):
    dataset = read_piebench(root, SIDE)
    assert len(dataset.records) == 70
    counts = {type_id: sum(r.edit_type == type_id for r in dataset.records) for type_id in COUNTS}
    assert counts == COUNTS
    for record, edit in zip(dataset.records, edits, strict=True):
        assert (record.source_prompt, record.target_prompt) == edit.prompts
        assert record.instruction == edit.instruction
        assert record.blend_words == edit.blend_words
        assert np.array_equal(np.asarray(record.image()), render(edit.source))


def test_masks_come_back_with_the_border_of_the_protocol(root, edits):
    for record, edit in zip(read_piebench(root, SIDE).records, edits, strict=True):
        expected = edit.mask().copy()
        expected[[0, -1]] = True
        expected[:, [0, -1]] = True
        assert np.array_equal(record.mask(), expected)


def test_the_true_results_lie_beside_the_images(root, edits):
    records = json.loads((root / "mapping_file.json").read_text())
    for record, edit in zip(records.values(), edits, strict=True):
        truth = np.asarray(Image.open(root / "ground_truth" / record["image_path"]))
        assert np.array_equal(truth, render(edit.target))


def test_all_of_it_is_held_out_and_it_is_the_same_every_time(edits):
    assert all(edit.source.held_out for edit in edits)
    assert edits == held_out_edits(COUNTS)
    assert len({edit.source for edit in edits if edit.type_id == "0"}) == COUNTS["0"]


def test_a_second_call_leaves_it_alone(root):
    before = (root / "mapping_file.json").stat().st_mtime_ns
    ensure_piebench(root)
    assert (root / "mapping_file.json").stat().st_mtime_ns == before


def test_data_of_another_world_are_made_anew(tmp_path):
    root = ensure_piebench(tmp_path / "data")
    mapping = (root / "mapping_file.json").read_bytes()
    (root / "mapping_file.json").write_text("{}")
    (root / "world.sha256").write_text("another")
    assert (ensure_piebench(root) / "mapping_file.json").read_bytes() == mapping


def test_mask_runs():
    mask = np.zeros((4, 4), bool)
    mask[0, 2:], mask[1, 0], mask[3, 3] = True, True, True
    assert mask_runs(mask) == [2, 3, 15, 1]
    assert mask_runs(np.zeros((4, 4), bool)) == []


@pytest.mark.parametrize("count", COUNTS_OF_FLIPS)
def test_a_data_set_that_lost_a_bit_is_drawn_again(
    tmp_path: Path, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = {"a.txt": b"of the world", "below/b.png": bytes(range(99))}

    def write(folder: Path) -> None:
        (folder / "below").mkdir()
        for name, content in drawn.items():
            (folder / name).write_bytes(content)

    root = ensure_written(tmp_path / "data", write)
    for name, content in drawn.items():
        for damaged in flips(content, count):
            (root / name).write_bytes(damaged)
            ensure_written(root, write)
            assert (root / name).read_bytes() == content
    assert capsys.readouterr().err.count("the data set is drawn again") == sum(
        min(count, 8 * len(content)) for content in drawn.values()
    )
