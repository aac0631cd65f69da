"""Runs in one process: failures, refusals, damaged files."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from baselines.method import EditRequest, Method, NoAnswer, NotedImage
from benchmarks.datasets.piebench import PieBench, read_piebench
from benchmarks.runs.execute import Images, Shard, sample_seed
from benchmarks.runs.log import SampleLog, log_path, read_logs
from benchmarks.runs.manifest import fingerprint
from benchmarks.runs.schema import Counts, Device, RunError, Sample, Scoring, read_manifest
from benchmarks.runs.store import RunDirectory
from tests.benchmarks.killable import BATCH, Noise, PixelBenchmark, open_run, run
from tests.benchmarks.tiny import SIDE, write_piebench

COUNT = 6
BAD = "000000000002"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PieBench:
    root = tmp_path_factory.mktemp("data")
    write_piebench(root, COUNT)
    return read_piebench(root, SIDE)


def ids(dataset: PieBench) -> list[str]:
    return [record.sample_id for record in dataset.records]


def go(
    data: PieBench,
    folder: Path,
    method: Method,
    benchmark: PixelBenchmark | None = None,
    limit: int | None = None,
    **options: Any,
) -> pd.DataFrame:
    """One start of one method, to the end; returns the rows."""
    benchmark = benchmark or PixelBenchmark(data)
    runs = {"noise": open_run(folder, data, **options)}
    chosen = ids(data)[:limit]
    run(benchmark, runs, {"noise": lambda: method}, chosen, batch_size=BATCH, shard=Shard())
    assert runs["noise"].merge(chosen, benchmark.facts)
    return pd.read_parquet(folder / "samples.parquet").set_index("sample_id")


def torn_picture() -> Image.Image:
    file = io.BytesIO()
    Image.effect_noise((SIDE, SIDE), 50).convert("RGB").save(file, format="PNG")
    return Image.open(io.BytesIO(file.getvalue()[:-300]))


class Broken(Noise):
    """Noise, but for the sample BAD it answers with `answer`, or raises it."""

    def __init__(self, answer: Any, calls: Path | None = None) -> None:
        super().__init__(calls)
        self.answer = answer

    def edit(self, requests: Sequence[EditRequest]) -> list[Any]:
        images: Any = list(super().edit(requests))
        case = self.answer if isinstance(self.answer, str) else None
        for position, request in enumerate(requests):
            if request.sample_id == BAD:
                if isinstance(self.answer, RuntimeError | KeyboardInterrupt | SystemExit):
                    raise self.answer
                if case == "no list":
                    return None  # type: ignore[return-value]
                if case == "none at all":
                    del images[position]
                elif case == "a closed file":
                    images[position] = torn_picture()
                else:
                    images[position] = self.answer
        return images


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (RuntimeError("out of luck"), r"RuntimeError: out of luck \(test_run.py, line \d+\)"),
        (SystemExit(3), "SystemExit: 3"),
        (None, "NoneType instead of an image"),
        (np.full((SIDE, SIDE, 3), np.nan), "ndarray instead of an image"),
        (Image.fromarray(np.full((SIDE, SIDE), np.nan, dtype=np.float32)), "F of 32x32 pixels, instead of RGB"),
        ("no list", "TypeError: the method returned NoneType instead of a list of images"),
        (NoAnswer("nothing to change"), "nothing to change"),
        (Image.new("RGB", (SIDE, SIDE + 1)), "RGB of 32x33 pixels, instead of RGB of 32x32"),
        (Image.new("L", (SIDE, SIDE)), "L of 32x32 pixels, instead of RGB"),
        ("none at all", "returned 0 images for 1 requests"),
        ("a closed file", "image that can't be read"),
        (NotedImage(image=Image.new("L", (SIDE, SIDE)), notes={}), "L of 32x32 pixels, instead of RGB"),
    ],
)
def test_a_failing_sample_fails_alone_and_is_tried_again(
    dataset: PieBench, tmp_path: Path, answer: object, message: str
) -> None:
    rows = go(dataset, tmp_path / "run", Broken(answer))
    assert list(rows.index[rows["status"] == "failed"]) == [BAD]
    assert rows["error"].str.contains(message)[BAD]
    assert rows.drop(BAD)["difference"].notna().all() and rows.loc[BAD, ["difference", "image_sha256"]].isna().all()
    manifest = read_manifest(tmp_path / "run")
    assert manifest is not None
    assert manifest.counts == Counts(expected=COUNT, done=COUNT - 1, failed=1)

    calls = tmp_path / "calls"
    again = go(dataset, tmp_path / "run", Noise(calls))
    assert calls.read_text().splitlines() == [f"edit {BAD}"]
    good = go(dataset, tmp_path / "good", Noise())
    pd.testing.assert_frame_equal(again.drop(columns="seconds"), good.drop(columns="seconds"))


def test_a_stop_by_the_user_is_no_failure(dataset: PieBench, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        go(dataset, tmp_path, Broken(KeyboardInterrupt()))
    assert (go(dataset, tmp_path, Noise())["status"] == "done").all()


class Unscorable(PixelBenchmark):
    """Can't score the sample BAD of the method "noise"."""

    def score(self, samples: Mapping[str, Sequence[Sample]], images: Images) -> dict[str, list[Sample]]:
        if any(sample.sample_id == BAD for sample in samples.get("noise", ())):
            raise ArithmeticError("no score")
        return super().score(samples, images)


def test_a_score_that_fails_fails_one_sample_of_one_method(dataset: PieBench, tmp_path: Path) -> None:
    benchmark = Unscorable(dataset)
    runs = {name: open_run(tmp_path / name, dataset, name) for name in ("noise", "other")}
    run(benchmark, runs, dict.fromkeys(runs, Noise), ids(dataset), batch_size=BATCH, shard=Shard())
    for name, failed in (("noise", [BAD]), ("other", [])):
        assert runs[name].merge(ids(dataset), benchmark.facts)
        rows = pd.read_parquet(tmp_path / name / "samples.parquet").set_index("sample_id")
        assert list(rows.index[rows["status"] == "failed"]) == failed
        assert rows["image_sha256"].notna().all()
        assert all("ArithmeticError: no score" in rows.loc[sample_id, "error"] for sample_id in failed)

    calls = tmp_path / "calls"
    rows = go(dataset, tmp_path / "noise", Noise(calls), PixelBenchmark(dataset, calls))
    assert calls.read_text().splitlines() == [f"score {BAD}"]
    assert (rows["status"] == "done").all() and rows["error"].isna().all()


def test_a_score_that_is_no_number_fails_its_sample(dataset: PieBench, tmp_path: Path) -> None:
    class Dividing(PixelBenchmark):
        def score(self, samples: Mapping[str, Sequence[Sample]], images: Images) -> dict[str, list[Sample]]:
            return {
                name: [
                    each.scored({"difference": float("nan"), "brightest": "-"}) if each.sample_id == BAD else each
                    for each in scored
                ]
                for name, scored in super().score(samples, images).items()
            }

    rows = go(dataset, tmp_path, Noise(), Dividing(dataset))
    assert list(rows.index[rows["status"] == "failed"]) == [BAD]
    assert rows["error"][BAD] == "scoring gave no finite number for difference"


def test_a_new_method_leaves_finished_ones_alone(dataset: PieBench, tmp_path: Path) -> None:
    go(dataset, tmp_path / "noise", Noise())
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "noise").rglob("*")}
    benchmark = PixelBenchmark(dataset)
    runs = {name: open_run(tmp_path / name, dataset, name) for name in ("noise", "other")}
    run(benchmark, runs, dict.fromkeys(runs, Noise), ids(dataset), batch_size=BATCH, shard=Shard())
    assert all(each.merge(ids(dataset), benchmark.facts) for each in runs.values())
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "noise").rglob("*")} == stamps


def test_undefined_scores_are_null_with_a_reason(dataset: PieBench, tmp_path: Path) -> None:
    class White(Noise):
        def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image]:
            return [Image.new("RGB", request.image.size, "white") for request in requests]

    rows = go(dataset, tmp_path, White())
    assert rows["brightest"].isna().all() and rows["difference"].notna().all()
    assert {text for text in rows["undefined"]} == {'{"brightest": "the image has white"}'}
    assert (rows["status"] == "done").all()


class Talking(Noise):
    """Says something of every image but that of BAD."""

    def edit(self, requests: Sequence[EditRequest]) -> list[Any]:
        return [
            image if request.sample_id == BAD else NotedImage(image=image, notes={"said": f"ünï {request.sample_id}"})
            for request, image in zip(requests, super().edit(requests), strict=True)
        ]


def test_what_a_method_says_of_an_image_is_kept_with_the_sample(dataset: PieBench, tmp_path: Path) -> None:
    rows = go(dataset, tmp_path / "run", Talking(), limit=2)
    rows = go(dataset, tmp_path / "run", Talking())
    assert rows.pop("notes").map(json.loads, na_action="ignore").dropna().to_dict() == {
        name: {"said": f"ünï {name}"} for name in ids(dataset) if name != BAD
    }
    silent = go(dataset, tmp_path / "silent", Noise())  # a table without the column, as runs of before have
    pd.testing.assert_frame_equal(rows.drop(columns="seconds"), silent.drop(columns="seconds"))
    go(dataset, tmp_path / "silent", Talking())


def test_the_saved_image_is_what_is_scored(dataset: PieBench, tmp_path: Path) -> None:
    class Tampered(PixelBenchmark):
        """Replaces a saved image before the second batch is scored."""

        def score(self, samples: Mapping[str, Sequence[Sample]], images: Images) -> dict[str, list[Sample]]:
            Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "images" / f"{ids(dataset)[-1]}.png")
            return super().score(samples, images)

    rows = go(dataset, tmp_path, Noise(), Tampered(dataset))
    assert list(rows.index[rows["status"] == "failed"]) == ids(dataset)[-1:]
    assert "isn't the image that was made" in rows["error"].iloc[-1]
    assert (go(dataset, tmp_path, Noise())["status"] == "done").all()


def test_a_deleted_image_is_made_again(dataset: PieBench, tmp_path: Path) -> None:
    before = go(dataset, tmp_path, Noise())
    (tmp_path / "images" / f"{BAD}.png").unlink()
    after = go(dataset, tmp_path, Noise())
    pd.testing.assert_frame_equal(before.drop(columns="seconds"), after.drop(columns="seconds"))
    assert (tmp_path / "images" / f"{BAD}.png").is_file()


def test_the_limit_is_no_part_of_the_run(dataset: PieBench, tmp_path: Path) -> None:
    assert list(go(dataset, tmp_path / "run", Noise(), limit=3).index) == ids(dataset)[:3]
    calls = tmp_path / "calls"
    assert len(go(dataset, tmp_path / "run", Noise(calls))) == COUNT
    assert len(calls.read_text().splitlines()) == COUNT - 3
    assert len(go(dataset, tmp_path / "run", Noise(), limit=2)) == COUNT


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"seed": 7}, "seed: 0 -> 7"),
        ({"method_settings": {"strength": 0.25}}, "method_settings.strength: 0.5 -> 0.25"),
        ({"method_settings": {"strength": 0.5, "steps": 3}}, "method_settings.steps: absent -> 3"),
        ({"method_settings": {}}, "method_settings.strength: 0.5 -> absent"),
        ({"scoring": Scoring(precision="bfloat16", backbones={})}, 'scoring.precision: "float32" -> "bfloat16"'),
        ({"protocol": "pixels/v2"}, 'protocol: "pixels/v1" -> "pixels/v2"'),
        ({"threads": 1}, "device.threads: 2 -> 1"),
        ({"dataset": {"name": "tiny", "digest": "0", "records": 1}}, "dataset.digest"),
    ],
)
def test_another_run_is_refused_with_its_differences(
    dataset: PieBench, tmp_path: Path, changes: dict[str, Any], line: str
) -> None:
    go(dataset, tmp_path, Noise())
    before = (tmp_path / "samples.parquet").read_bytes()
    with pytest.raises(RunError) as caught:
        open_run(tmp_path, dataset, **changes)
    assert line in str(caught.value) and "--fresh" in str(caught.value) and "--out" in str(caught.value)
    assert (tmp_path / "samples.parquet").read_bytes() == before
    assert len(go(dataset, tmp_path, Noise(), fresh=True, **changes)) == COUNT


def test_what_moves_no_number_is_not_in_the_fingerprint(dataset: PieBench, tmp_path: Path) -> None:
    open_run(tmp_path, dataset)
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    elsewhere = replace(manifest, git=None, platform="other", wall_seconds=5.0, python="3.12")
    elsewhere = replace(elsewhere, device=Device(type="cpu", name="another processor", threads=2))
    assert fingerprint(elsewhere) == manifest.fingerprint
    assert fingerprint(replace(elsewhere, device=Device(type="cpu", threads=1))) != manifest.fingerprint
    assert fingerprint(replace(manifest, packages={**manifest.packages, "torch": "0.1"})) != manifest.fingerprint


def test_settings_that_are_no_json_are_refused(dataset: PieBench, tmp_path: Path) -> None:
    with pytest.raises(RunError):
        open_run(tmp_path, dataset, method_settings={"folder": tmp_path})


def test_fresh_removes_the_run_and_nothing_else(dataset: PieBench, tmp_path: Path) -> None:
    go(dataset, tmp_path, Noise())
    (tmp_path / "notes.txt").write_text("mine")
    calls = tmp_path / "calls"
    go(dataset, tmp_path, Noise(calls), fresh=True)
    assert len(calls.read_text().splitlines()) == COUNT
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_run_from_before_a_column_is_refused_until_it_is_scored_anew(dataset: PieBench, tmp_path: Path) -> None:
    go(dataset, tmp_path, Noise())
    old = open_run(tmp_path, dataset)
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    with pytest.raises(RunError, match=r"sharpness.*--fresh"):
        RunDirectory(tmp_path, manifest, [*old.columns, "sharpness"])


def test_a_merge_that_was_cut_short_is_finished_by_the_next_start(dataset: PieBench, tmp_path: Path) -> None:
    benchmark = PixelBenchmark(dataset)
    directory = open_run(tmp_path, dataset)
    run(benchmark, {"noise": directory}, {"noise": Noise}, ids(dataset), batch_size=BATCH, shard=Shard())
    log = log_path(tmp_path, 0).read_bytes()
    assert directory.merge(ids(dataset), benchmark.facts)
    before, rows = read_manifest(tmp_path), (tmp_path / "samples.parquet").read_bytes()
    log_path(tmp_path, 0).write_bytes(log)  # as if the process had died just before it removed the log

    calls = tmp_path / "calls"
    go(dataset, tmp_path, Noise(calls))
    assert not calls.exists() and not log_path(tmp_path, 0).exists()
    assert (tmp_path / "samples.parquet").read_bytes() == rows
    after = read_manifest(tmp_path)
    assert before is not None and after is not None
    assert after.wall_seconds == before.wall_seconds and after.sessions == before.sessions


def test_a_log_belongs_to_one_process(dataset: PieBench, tmp_path: Path) -> None:
    directory = open_run(tmp_path, dataset)
    log = SampleLog(tmp_path, rank=0)
    with pytest.raises(RunError, match="--shard"):
        SampleLog(tmp_path, rank=0)
    with pytest.raises(RunError):
        open_run(tmp_path, dataset, fresh=True)
    assert not directory.merge([], {})  # somebody is at work
    other = SampleLog(tmp_path, rank=1)
    other.close()
    log.close()
    SampleLog(tmp_path, rank=0).close()


def test_a_torn_line_does_not_count_and_is_repaired(tmp_path: Path) -> None:
    log = SampleLog(tmp_path, rank=0)
    log.append([Sample(sample_id="a", image_sha256="1")], seconds=1.0)
    log.append([Sample(sample_id="b", image_sha256="2"), Sample(sample_id="c", image_sha256="3")], seconds=1.0)
    log.close()
    path = log_path(tmp_path, 0)
    whole = path.read_bytes()
    first = whole.index(b"\n", whole.index(b"\n") + 1) + 1  # after the process's line and one batch
    for length in (first, first + 1, (first + len(whole)) // 2, len(whole) - 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert set(read_logs(tmp_path)[0]) == {"a"}
    log = SampleLog(tmp_path, rank=0)
    log.append([Sample(sample_id="d", image_sha256="4")], seconds=1.0)
    log.close()
    assert set(read_logs(tmp_path)[0]) == {"a", "d"}


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    log_path(tmp_path, 3).write_text('{"time": 1, \n')
    with pytest.raises(RunError):
        read_logs(tmp_path)


def test_the_last_word_on_a_sample_counts_whoever_has_it(tmp_path: Path) -> None:
    failed = Sample(sample_id="a", error="no")
    for rank, sample in ((5, failed), (0, replace(failed, error=None, image_sha256="1"))):
        log = SampleLog(tmp_path, rank)
        log.append([sample], seconds=2.0)
        log.close()
    samples, sessions = read_logs(tmp_path)
    assert samples["a"].image_sha256 == "1" and samples["a"].status == "made"
    assert sorted(session.rank for session in sessions.values()) == [0, 5]


def test_samples_without_a_manifest_are_refused(dataset: PieBench, tmp_path: Path) -> None:
    go(dataset, tmp_path, Noise())
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(RunError):
        open_run(tmp_path, dataset)


@pytest.mark.parametrize("content", ["{", "[]", '{"schema_version": 2}'])
def test_a_foreign_manifest_is_refused(dataset: PieBench, tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(RunError):
        open_run(tmp_path, dataset)


def test_missing_samples_hold_the_merge_back_unless_allowed(dataset: PieBench, tmp_path: Path) -> None:
    benchmark = PixelBenchmark(dataset)
    directory = open_run(tmp_path, dataset)
    run(benchmark, {"noise": directory}, {"noise": Noise}, ids(dataset), batch_size=1, shard=Shard(index=0, count=2))
    assert not directory.merge(ids(dataset), benchmark.facts)
    assert directory.merge(ids(dataset), benchmark.facts, allow_missing=True)
    assert len(pd.read_parquet(tmp_path / "samples.parquet")) == COUNT // 2
    manifest = read_manifest(tmp_path)
    assert manifest is not None and manifest.counts.missing == COUNT // 2 and manifest.finished is None
    assert len(go(dataset, tmp_path, Noise())) == COUNT
    manifest = read_manifest(tmp_path)
    assert manifest is not None and manifest.counts.missing == 0 and manifest.finished
    assert len(manifest.sessions) == 2
    assert manifest.wall_seconds == pytest.approx(sum(session.seconds for session in manifest.sessions))


def test_the_manifest_is_json_with_the_documented_keys(dataset: PieBench, tmp_path: Path) -> None:
    go(dataset, tmp_path, Noise())
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest.keys() - {"sha256"} == {
        "schema_version", "suite", "benchmark", "method", "card", "position", "protocol", "dataset", "method_settings",
        "scoring", "seed", "packages", "python", "platform", "device", "git", "source", "fingerprint", "counts",
        "wall_seconds", "images_per_second", "peak_memory_bytes", "cost", "started", "finished", "sessions",
    }  # fmt: skip
    assert manifest["peak_memory_bytes"] > 2**20 and manifest["images_per_second"] > 0
    columns = pd.read_parquet(tmp_path / "samples.parquet").columns
    assert list(columns) == [
        "sample_id", "edit_type", "status", "error", "seconds", "image_sha256", "difference", "brightest", "undefined",
            "counts",
    ]  # fmt: skip


def test_seeds_are_63_bits_and_each_its_own() -> None:
    seeds = {sample_seed(seed, protocol, name) for seed in (0, 1) for protocol in "pq" for name in ("a", "b")}
    assert len(seeds) == 8 and all(0 <= seed < 2**63 for seed in seeds)
    assert sample_seed(0, "pie-bench/v1", "000000000000") == 7789738764753469341


@pytest.mark.parametrize(("text", "shard"), [("0/1", Shard()), ("3/4", Shard(index=3, count=4))])
def test_shards_are_parsed(text: str, shard: Shard) -> None:
    assert Shard.parse(text) == shard


@pytest.mark.parametrize("text", ["4/4", "1", "a/b", "-1/4", "0/0", "/", "", "1/2/3"])
def test_faulty_shards_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--shard"):
        Shard.parse(text)


def test_torchrun_shares_the_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert Shard.parse(None) == Shard(index=2, count=8)
    assert Shard.parse("3/5") == Shard(index=26, count=40)


def test_shards_are_whole_batches_and_all_of_them() -> None:
    names = [str(number) for number in range(19)]
    whole = [names[start : start + 4] for start in range(0, 19, 4)]
    for count in (1, 2, 3, 7):
        shares = [Shard(index=index, count=count).share(names, 4) for index in range(count)]
        assert sorted(int(name) for share in shares for name in share) == list(range(19))
        for share in shares:
            assert all(share[start : start + 4] in whole for start in range(0, len(share), 4))


def test_the_opened_directory_is_a_run_directory(dataset: PieBench, tmp_path: Path) -> None:
    directory = open_run(tmp_path, dataset)
    assert isinstance(directory, RunDirectory) and directory.to_make(BAD) and not directory.to_score(BAD)
