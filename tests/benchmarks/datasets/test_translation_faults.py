"""Bad data ends `benchmarks.translation` with a named error before any network is loaded or any folder is made."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from baselines import TRANSLATORS
from benchmarks.datasets.faults import DatasetError
from benchmarks.translation import Arguments, evaluate
from tests.benchmarks.killable_translation import TINY
from tests.benchmarks.tiny_translation import HEIGHT, IMAGE, WIDTH, ids, photo, row, shard, stored, write_shards

Spoil = Callable[[Path], None]


def second_row(task: str, types: dict[str, Any] | None = None, **changes: Any) -> Spoil:
    """Writes a set whose second row has these values."""

    def write(root: Path) -> None:
        good = {"panoptic_seg_map": stored(Image.fromarray(ids(0)))} if types else {}
        write_shards(root, task, [row(task, 0, **good), row(task, 1, **changes)], shards=1, types=types)

    return write


def without_captions(root: Path) -> None:
    write_shards(root, "depth", [row("depth", number) for number in range(2)], shards=1)
    path = shard(root, 0, 1)
    pq.write_table(pq.read_table(path).drop_columns(["text"]), path)


def beyond_the_classes() -> list[list[int]]:
    label = ids(1)
    label[3, 4] = 171
    return label.tolist()


@pytest.mark.parametrize(
    ("task", "spoil", "told"),
    [
        ("depth", without_captions, r"column 'text': it is missing"),
        (
            "segmentation",
            second_row("segmentation", panoptic_seg_map=beyond_the_classes()),
            r"row group 0, record '00001', column 'panoptic_seg_map': it has the train ids 171",
        ),
        (
            "segmentation",
            second_row(
                "segmentation",
                {"panoptic_seg_map": IMAGE},
                panoptic_seg_map=stored(Image.fromarray(ids(1)).convert("P")),
            ),
            r"record '00001', column 'panoptic_seg_map': it is a palette image; colours are no train ids",
        ),
        ("canny", second_row("depth", text=" "), r"record '00001', column 'text': the caption is empty"),
        (
            "depth",
            second_row("depth", control_depth=stored(photo(0, WIDTH, HEIGHT - 1))),
            rf"record '00001': its sizes are mixed: image {WIDTH}x{HEIGHT}, control_depth {WIDTH}x{HEIGHT - 1}",
        ),
        (
            "depth",
            second_row("depth", image={"bytes": b"no image", "path": None}),
            r"record '00001', column 'image': it can't be read as an image",
        ),
    ],
    ids=["missing column", "label range", "palette image", "empty caption", "mixed sizes", "unreadable bytes"],
)
def test_bad_data_is_named_before_any_network_is_loaded(tmp_path: Path, task: Any, spoil: Spoil, told: str) -> None:
    spoil(tmp_path / "data")
    suite = replace(TINY, backbones=lambda *_: pytest.fail("the scoring networks were loaded"))
    args = Arguments(task=task, data=tmp_path / "data", out=tmp_path / "out", methods=("editar",), weights=tmp_path)
    assert "editar" in TRANSLATORS  # whose weights are not in that folder
    with pytest.raises(DatasetError, match=told):
        evaluate(args, suite)
    assert not (tmp_path / "out").exists()
