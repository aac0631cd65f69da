"""The embedded translation sets are read by the real readers, and what they hold is the world's."""

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.datasets.translation import TASKS, TranslationDataset, read_translation
from benchmarks.datasets.translation_protocols import PROTOCOLS
from benchmarks.miniature.world.embedded import (
    ROWS,
    ensure_translation,
    ensure_written,
    held_out_scenes,
    write_translation,
)
from benchmarks.miniature.world.render import CLASSES, condition, depth, render, segmentation
from benchmarks.miniature.world.scene import SIDE, Scene, caption

ALIGNED = PROTOCOLS["translation/aligned/v1"].variant(side=SIDE)
COUNT = 70  # the first of the sets' scenes


@pytest.fixture(scope="module")
def scenes() -> dict[str, list[Scene]]:
    depth, segmentation = (held_out_scenes(task, COUNT) for task in ("depth", "segmentation"))
    return {"depth": depth, "canny": depth, "segmentation": segmentation}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, scenes: dict[str, list[Scene]]) -> Path:
    folder = tmp_path_factory.mktemp("translation")
    for task in TASKS:
        ensure_written(folder / task, partial(write_translation, task=task, scenes=scenes[task]))
    return folder


def read(root: Path, task: str) -> TranslationDataset:
    source = PROTOCOLS["translation/controlnet++/v1"].dataset(task)
    return read_translation(source, root / task, task, len(CLASSES))


@pytest.mark.parametrize("task", TASKS)
def test_the_real_reader_reads_it_whole(root: Path, scenes: dict[str, list[Scene]], task: str) -> None:
    dataset = read(root, task)
    assert len(dataset.records) == COUNT == len(set(scenes[task]))
    for record, scene in zip(dataset.records, scenes[task], strict=True):
        row = dataset.row(record)
        assert record.caption == caption(scene) and record.size == (SIDE, SIDE)
        assert np.array_equal(np.asarray(row.image()), render(scene))
        assert np.array_equal(np.asarray(ALIGNED.condition(row)), condition(scene, task))
        if task == "segmentation":
            assert np.array_equal(ALIGNED.label(row), segmentation(scene))
        if task == "depth":
            nearness = depth(scene).astype(float)
            stretched = (nearness - nearness.min()) / (nearness.max() - nearness.min()) * 255
            assert np.array_equal(ALIGNED.label(row), stretched.astype(np.uint8))


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda protocol: protocol.name)
def test_every_protocol_finds_its_images_for_canny(root: Path, protocol) -> None:
    source = protocol.dataset("canny")
    folder = root / ("depth" if source.condition else "canny")
    rows = read_translation(source, folder, "canny").records
    assert [record.caption for record in rows] == [record.caption for record in read(root, "canny").records]


def test_no_scene_is_trained_on_and_they_are_the_same_every_time(scenes: dict[str, list[Scene]]) -> None:
    assert all(scene.held_out for task in TASKS for scene in scenes[task])
    for task in TASKS:
        assert held_out_scenes(task, 10) == scenes[task][:10]  # depth and canny show the same
    assert scenes["depth"] != scenes["segmentation"]


def test_every_class_occurs(scenes: dict[str, list[Scene]]) -> None:
    ids = np.stack([segmentation(scene) for scene in scenes["segmentation"]])
    assert set(np.unique(ids)) == set(range(len(CLASSES)))


def test_the_schema_is_the_hubs(root: Path) -> None:
    schema = pq.read_schema(root / "segmentation" / "data" / "validation-00001-of-00002.parquet")
    names = ["image", "control_seg", "prompt", "semantic_seg_map", "panoptic_seg_map", "image_path"]
    assert schema.names == names
    assert schema.metadata is not None and all(name in schema.metadata[b"huggingface"].decode() for name in names)
    types = [str(schema.field(name).type) for name in names]
    assert types[0] == types[1] == "struct<bytes: binary, path: string>"
    assert types[2] == types[5] == "string"
    assert types[3] == types[4] == "list<element: list<element: uint8>>"


def test_a_second_call_leaves_it_alone(root: Path) -> None:
    file = root / "depth" / "data" / "validation-00000-of-00002.parquet"
    before = file.stat().st_mtime_ns
    assert ensure_translation(root / "depth", "depth") == root / "depth"
    assert file.stat().st_mtime_ns == before


@pytest.mark.slow
def test_the_embedded_set_is_whole(tmp_path: Path, scenes: dict[str, list[Scene]]) -> None:
    ensure_translation(tmp_path / "depth", "depth")
    captions = [record.caption for record in read(tmp_path, "depth").records]
    assert len(captions) == ROWS and captions[:COUNT] == [caption(scene) for scene in scenes["depth"]]
