"""Fetching a data set through huggingface_hub, from a hub on the loopback that has one."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants

from benchmarks.datasets.hub import COCO_STUFF, MULTIGEN_CANNY, MULTIGEN_DEPTH, HubDataset, fetch
from benchmarks.datasets.translation import read_translation
from tests.benchmarks.tiny_translation import write
from tests.loopback import NOBODY, LoopbackHub, serve

REVISION = MULTIGEN_CANNY.revision


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # whoever sets that variable means other hubs
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = write(tmp_path / "published", "canny")
    (folder / "data" / "train-00000-of-00001.parquet").write_bytes(b"not wanted")
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with serve(MULTIGEN_CANNY.repository, REVISION, files, datasets=True) as hub:
        yield hub


@pytest.mark.parametrize("revision", [REVISION, REVISION[:7]])
def test_a_pinned_revision_is_fetched_once_and_then_found_without_a_network(
    tmp_path: Path, hub: LoopbackHub, revision: str
) -> None:
    source, cache = replace(MULTIGEN_CANNY, revision=revision), tmp_path / "cache"
    folder = fetch(source, cache=cache, endpoint=hub.endpoint)
    assert folder.name == REVISION
    assert len(read_translation(source, folder, "canny").records) == 6
    downloads = [name.rpartition("/")[2] for name in hub.downloads]
    assert sorted(downloads) == ["validation-00000-of-00002.parquet", "validation-00001-of-00002.parquet"]
    assert fetch(source, cache=cache, endpoint=NOBODY) == folder


def test_what_an_interrupted_download_left_is_completed(tmp_path: Path, hub: LoopbackHub) -> None:
    folder = fetch(MULTIGEN_CANNY, cache=tmp_path / "cache", endpoint=hub.endpoint)
    (folder / "data" / "validation-00001-of-00002.parquet").unlink()
    assert fetch(MULTIGEN_CANNY, cache=tmp_path / "cache", endpoint=hub.endpoint) == folder
    assert len(read_translation(MULTIGEN_CANNY, folder, "canny").records) == 6


@pytest.mark.parametrize("source", [COCO_STUFF, MULTIGEN_DEPTH, replace(MULTIGEN_CANNY, revision="abcdef0")])
def test_the_way_out_is_told_when_the_hub_does_not_have_it(
    tmp_path: Path, hub: LoopbackHub, source: HubDataset
) -> None:
    with pytest.raises(FileNotFoundError, match="--data DIR"):
        fetch(source, cache=tmp_path / "cache", endpoint=hub.endpoint)
