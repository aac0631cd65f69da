"""Readers of the published formats, and the stream that is made of them."""

import io
import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from editar.images import square
from editar.training.data.jsonl import find_lines, read_lines
from editar.training.data.mixture import Batch, DataConfig, Source, TooManyFaults, data_digests, loader, mixture
from editar.training.data.parquet import find_local, read_tables
from editar.training.data.rows import Prepare, good_row
from tests.editar.training.training_sets import COLUMNS, picture, write_jsonl, write_parquet, write_seed
from tests.loopback import serve

SIDE = 16


def pixels(number: int) -> torch.Tensor:
    return torch.from_numpy(np.array(square(picture(number), SIDE))).permute(2, 0, 1)


def only(kind: Any, folder: Path, **settings) -> DataConfig:
    return DataConfig(sources=(Source(kind=kind, folder=folder),), workers=0, block=8, **settings)


def batches(config: DataConfig, count: int, size: int = 4, **process) -> list[Batch]:
    return list(itertools.islice(loader(config, SIDE, size, **process), count))


def numbers(found: list[Batch]) -> list[int]:
    """Which rows these are: the number is the last word of every text."""
    return [int(text.split()[-1]) for batch in found for text in batch.texts]


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> DataConfig:
    """All five sources of the paper with its shares, of very different sizes."""
    folder = tmp_path_factory.mktemp("published")
    write_seed(folder / "seed", 5)
    write_parquet(folder / "pipe", "pipe", 31)
    write_parquet(folder / "depth" / "data", "depth", 12)
    write_parquet(folder / "segmentation", "segmentation", 7)
    shares: dict[Any, float] = {"seed": 0.30, "pipe": 0.25, "depth": 0.15, "canny": 0.15, "segmentation": 0.15}
    sources = tuple(
        Source(kind=kind, weight=weight, folder=folder / ("depth" if kind == "canny" else kind))
        for kind, weight in shares.items()
    )
    return DataConfig(sources=sources, workers=0, block=8)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("seed", "change {}"),
        ("depth", "Given the depth image, generate an image following the description: scene {}"),
        ("segmentation", "Given the segmentation mask, generate an image following the description: scene {}"),
    ],
)
def test_source_target_and_text_of_a_row(published, kind, text):
    source = next(source for source in published.sources if source.kind == kind)
    (batch,) = batches(replace(published, sources=(source,)), 1)
    for i, number in enumerate(numbers([batch])):
        assert batch.texts[i] == text.format(number)
        assert torch.equal(batch.target[i], pixels(number)) and torch.equal(batch.source[i], pixels(1000 + number))
    assert batch.source.dtype == torch.uint8
    assert set(batch.tasks) == {"edit" if kind == "seed" else kind}
    assert batch.skipped == []


def test_half_of_pipes_pairs_are_turned_round_with_their_instruction(published):
    source = next(source for source in published.sources if source.kind == "pipe")
    found = batches(replace(published, sources=(source,)), 60)
    turned = 0
    for batch in found:
        for i, number in enumerate(numbers([batch])):
            added, removed = pixels(number), pixels(1000 + number)
            if batch.texts[i] == f"Add a disc, number {number}":
                assert torch.equal(batch.target[i], added) and torch.equal(batch.source[i], removed)
            else:
                assert batch.texts[i] == f"Remove a disc, number {number}"
                assert torch.equal(batch.source[i], added) and torch.equal(batch.target[i], removed)
                turned += 1
    assert 0.4 < turned / 240 < 0.6
    texts: dict[int, set[str]] = {number: set() for number in range(31)}
    for text, number in zip((t for b in found for t in b.texts), numbers(found), strict=True):
        texts[number].add(text.split()[0])
    assert sum(len(seen) == 2 for seen in texts.values()) > 25  # drawn anew whenever a row comes round


def test_pairs_named_as_on_windows_beside_what_a_mac_left(tmp_path, capsys):
    write_jsonl(tmp_path, 4)
    plain = [row["target"] for row in read_lines(find_lines("pairs", tmp_path))]
    lines = tmp_path / "pairs.jsonl"
    lines.write_text(lines.read_text().replace("images/", "images\\\\"))
    (tmp_path / "._pairs.jsonl").write_bytes(b"\0\5\x16\7")
    assert [row["target"] for row in read_lines(find_lines("pairs", tmp_path))] == plain
    assert "skipped what macOS or Windows left beside the files: ._pairs.jsonl" in capsys.readouterr().err


def test_links_among_pairs_lead_where_the_user_says(tmp_path):
    folder, disk = tmp_path / "pairs", tmp_path / "disk"
    write_jsonl(folder, 2)
    (folder / "images").rename(disk)
    (folder / "images").symlink_to(disk)
    refused, followed = (list(read_lines(find_lines("pairs", folder, follow_links=root))) for root in (None, disk))
    assert all(f'add follow_links = "{disk}" to this source' in row["fault"] for row in refused)
    assert all(row["fault"] is None for row in followed)


def test_maps_are_turned_with_their_image_and_pairs_are_not():
    exif = Image.Exif()
    exif[0x0112] = 6

    def cell(number, **options):
        file = io.BytesIO()
        picture(number).save(file, "PNG", **options)
        return {"bytes": file.getvalue(), "path": None}

    def upright(number):
        return Image.fromarray(np.ascontiguousarray(np.rot90(np.asarray(picture(number)), -1)))

    prepare = Prepare(side=SIDE)
    target = cell(0, exif=exif)
    for kind, source, expected in (
        ("depth", cell(1), upright(1)),
        ("depth", cell(1, exif=exif), upright(1)),
        ("pairs", cell(1), picture(1)),
    ):
        example = prepare({**good_row(kind, "here", source, target, "a text"), "draw": 0})
        for tensor, image in ((example.target, upright(0)), (example.source, expected)):
            assert np.array_equal(tensor.permute(1, 2, 0).numpy(), np.asarray(square(image, SIDE)))


def test_canny_is_kornias_of_the_target(published):
    from kornia.filters import canny

    source = next(source for source in published.sources if source.kind == "canny")
    (batch,) = batches(replace(published, sources=(source,), template="paper"), 1)
    edges = canny(batch.target.float() / 255, 0.1, 0.2)[1]
    assert edges.sum() > 20
    assert torch.equal(batch.source, (edges * 255).byte().expand(-1, 3, -1, -1))
    prompt = "Given the canny edge, generate the image following the instruction: scene"
    assert all(text.startswith(prompt) for text in batch.texts)


@pytest.mark.slow
def test_the_shares_are_by_sample_whatever_the_sizes(published):
    kinds = Counter(row["kind"] for row in itertools.islice(mixture(published), 4000))
    for source in published.sources:
        assert kinds[source.kind] / 4000 == pytest.approx(source.weight, abs=0.025)


@pytest.mark.parametrize("kind", ["pairs", "depth"])
def test_a_pass_has_every_row_once_and_the_next_has_another_order(tmp_path, kind):
    folder = write_jsonl(tmp_path, 16) if kind == "pairs" else write_parquet(tmp_path, kind, 16)
    first, second = np.split(np.array(numbers(batches(only(kind, folder), 8))), 2)
    assert sorted(first) == sorted(second) == list(range(16))
    assert list(first) != list(second) and list(first) != sorted(first)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_stream_goes_on_as_if_nothing_had_happened(published, workers):
    config = replace(published, workers=workers)
    whole = loader(config, SIDE, 3)
    expected, states = [], []
    for batch in itertools.islice(whole, 30):
        expected.append(batch)
        states.append(whole.state_dict())
    for stop in (1, 7, 22):
        file = io.BytesIO()
        torch.save(states[stop], file)
        file.seek(0)
        resumed = loader(config, SIDE, 3)
        resumed.load_state_dict(torch.load(file, weights_only=True))
        for batch, other in zip(expected[stop + 1 :], resumed, strict=False):
            assert batch.origins == other.origins and batch.texts == other.texts
            assert torch.equal(batch.source, other.source) and torch.equal(batch.target, other.target)


def test_two_processes_share_the_batches_of_one(published):
    alone = batches(published, 10, size=4)
    shared = [batches(published, 10, size=2, rank=rank, processes=2) for rank in range(2)]
    for batch, zero, one in zip(alone, *shared, strict=True):
        assert batch.origins == [origin for pair in zip(zero.origins, one.origins, strict=True) for origin in pair]


def test_processes_can_read_files_of_their_own(tmp_path):
    config = only("depth", write_parquet(tmp_path, "depth", 16, group=4), split="shards")
    found = [numbers(batches(config, 4, size=2, rank=rank, processes=2)) for rank in range(2)]
    assert sorted(found[0] + found[1]) == list(range(16))


def damaged(folder: Path) -> None:
    """Makes three of 16 pairs unusable."""
    (folder / "images" / "3-source.png").write_bytes(b"no picture")
    (folder / "images" / "5-target.png").unlink()
    lines = (folder / "pairs.jsonl").read_text().splitlines()
    lines[8] = "{"
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n")


def test_unusable_rows_are_skipped_and_told_with_their_place(tmp_path):
    damaged(write_jsonl(tmp_path, 16))
    config = only("pairs", tmp_path, fault_rate=0.02)
    found = batches(config, 13, size=1)
    assert sorted(numbers(found)) == sorted(set(range(16)) - {3, 5, 8})
    skipped = sorted(fault for batch in batches(config, 14, size=1) for fault in batch.skipped)
    assert len(skipped) == 3
    for place, problem in [
        ("line 4: ", "can't be read as an image"),
        ("line 6: ", "no such file"),
        ("line 9: ", "no JSON"),
    ]:
        assert any(place in fault and problem in fault and "pairs.jsonl" in fault for fault in skipped)


def test_a_damaged_row_group_costs_its_rows_only(tmp_path):
    write_parquet(tmp_path, "depth", 9, files=1, group=3)
    path = tmp_path / "train-00000-of-00001.parquet"
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    content = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    content[start : start + 40] = bytes(40)
    path.write_bytes(content)
    rows = list(read_tables(find_local("depth", tmp_path)))
    assert [row["fault"] is None for row in rows] == [True] * 3 + [False] * 3 + [True] * 3
    assert rows[4]["origin"] == f"{path} row 4"
    path.write_bytes(content[: len(content) // 2])  # a download that was cut off
    assert [row["origin"] for row in read_tables(find_local("depth", tmp_path))] == [str(path)]


def test_too_many_faults_end_the_run(tmp_path):
    damaged(write_jsonl(tmp_path, 16))
    with pytest.raises(TooManyFaults):
        batches(only("pairs", tmp_path, fault_rate=0.001), 10)


def test_memory_is_that_of_a_row_group_however_large_the_file(tmp_path):
    image = {"bytes": bytes(500_000), "path": None}
    rows = [{"image": image, "control_depth": image, "text": "x"}] * 64
    table = pa.Table.from_pylist(rows, pa.schema(list(COLUMNS["depth"].items())))
    path = tmp_path / "train-00000-of-00001.parquet"
    pq.write_table(table, path, row_group_size=8, compression="none", use_dictionary=False)
    del table, rows
    before = pa.total_allocated_bytes()
    sizes = [pa.total_allocated_bytes() - before for _ in read_tables(find_local("depth", tmp_path))]
    assert path.stat().st_size > 64_000_000 and len(sizes) == 64
    assert max(sizes) < 24_000_000  # two groups of 8 million and what reading them takes


def test_a_set_is_streamed_from_the_hub_at_its_revision(tmp_path):
    write_parquet(tmp_path / "data", "segmentation", 9, files=3)
    files = {f"data/{path.name}": path.read_bytes() for path in (tmp_path / "data").iterdir()}
    revision = "98bb1b8cbce93f9946f79c79e837e4b8502d094d"
    config = DataConfig(sources=(Source(kind="segmentation", revision=revision),), workers=0, block=8)
    with serve("limingcv/Captioned_COCOStuff", revision, files, datasets=True) as hub:
        streamed = batches(config, 3, size=3, endpoint=hub.endpoint)
        gone = replace(config, sources=(Source(kind="segmentation", revision="0" * 40),))
        with pytest.raises((ValueError, OSError)):
            batches(gone, 1, endpoint=hub.endpoint)
    assert not any("validation" in name for name in hub.downloads)
    local = batches(replace(config, sources=(Source(kind="segmentation", folder=tmp_path),)), 3, size=3)
    assert [batch.texts for batch in streamed] == [batch.texts for batch in local]
    assert all(torch.equal(a.target, b.target) for a, b in zip(streamed, local, strict=True))
    assert all(revision in origin for batch in streamed for origin in batch.origins)


def test_a_file_of_another_data_set_is_refused(tmp_path):
    write_parquet(tmp_path, "pipe", 4)
    with pytest.raises(ValueError):
        batches(only("depth", tmp_path), 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "pipe"}, "pipe needs either folder"),
        ({"kind": "seed", "revision": "0" * 40}, "seed can't be streamed"),
        ({"kind": "pairs", "folder": Path("x"), "weight": 0.0}, "weight of pairs is 0.0"),
    ],
)
def test_sources_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        Source(**settings)


def test_where_there_is_no_data_it_is_said_what_is_expected(tmp_path):
    for kind, message in (("pairs", "no .*jsonl files"), ("depth", "a copy of the hub's limingcv/MultiGen-20M_depth")):
        with pytest.raises(ValueError, match=message):
            batches(only(kind, tmp_path), 1)
    with pytest.raises(ValueError):
        batches(DataConfig(sources=(Source(kind="pipe", revision="main"),)), 1)
    with pytest.raises(ValueError):
        batches(replace(only("pairs", write_jsonl(tmp_path, 16)), workers=30), 1)


def test_the_digests_of_data_follow_what_is_listed(tmp_path: Path) -> None:
    write_parquet(tmp_path / "depth", "depth", 6)
    write_seed(tmp_path / "seed", 4)
    sources = (
        Source(kind="depth", folder=tmp_path / "depth"),
        Source(kind="seed", folder=tmp_path / "seed"),
        Source(kind="depth", revision="0" * 40),
    )
    config = DataConfig(sources=sources)
    known = data_digests(config)
    assert len([name for name in known if name.startswith("0/")]) == 2 and any(name.startswith("1/") for name in known)
    write_parquet(tmp_path / "depth", "depth", 6)  # the same again
    assert data_digests(config) == known
    write_parquet(tmp_path / "depth", "depth", 7)
    changed = data_digests(config)
    assert {name for name in known if known[name] != changed[name]} <= {name for name in known if name[0] == "0"}
    assert changed != known
