"""The readers of run directories under fuzz: what each is given, and what it may give or refuse."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import assume
from hypothesis import strategies as st

from benchmarks.runs.log import read_logs
from benchmarks.runs.manifest import differences
from benchmarks.runs.schema import Manifest, RunError, parse, read_manifest
from benchmarks.runs.store import RunDirectory
from editar.io.digests import sealed
from reports.runs import ReportError, read_runs
from tests.safety.strategies import JSON, NAMES, SCALARS, Case, as_json, changed, damaged, refused_by_name, text_file

COLUMNS = ("psnr", "ssim")

SAMPLE: dict[str, Any] = {
    "sample_id": "a", "seconds": 0.5, "image_sha256": "e" * 64, "error": None, "scores": {"psnr": 1.0, "ssim": None},
    "undefined": {"ssim": "no pixels"}, "counts": {"1": [1, 2, 3]},
}  # fmt: skip
SESSION: dict[str, Any] = {
    "id": "one", "rank": 0, "started": "2026-01-01T00:00:00Z", "seconds": 1.0, "peak_memory_bytes": 5,
}  # fmt: skip
LOG_LINE = changed({"turn": 1, "session": SESSION, "samples": [SAMPLE]}) | st.tuples(
    changed(SESSION), changed(SAMPLE, JSON | NAMES)
).map(lambda both: {"turn": 1, "session": both[0], "samples": [both[1]]})
LOG_LINES = LOG_LINE.map(as_json).map(sealed)
WHOLE_LOG = sealed(as_json({"turn": 1, "session": SESSION, "samples": [SAMPLE]})) + b"\n"
LOG = st.lists(text_file(WHOLE_LOG, LOG_LINES), max_size=3).map(lambda lines: b"\n".join([*lines, b""]))

MANIFEST: dict[str, Any] = {
    "schema_version": 1, "suite": "miniature", "benchmark": "piebench", "method": "editar", "protocol": "pie-bench/v1",
    "dataset": {"name": "piebench", "digest": "a" * 64, "records": 1}, "method_settings": {}, "seed": 0,
    "scoring": {"precision": "float32", "backbones": {}}, "packages": {}, "device": {"type": "cpu"},
    "counts": {"expected": 1, "done": 1, "failed": 0, "missing": 0}, "sessions": [SESSION], "finished": None,
}  # fmt: skip
WHOLE = parse(Manifest, MANIFEST)
SAMPLE_ROW = {
    "sample_id": "a", "source_id": "s", "edit_type": "0", "edit_type_name": "random", "status": "done", "error": None,
    "seconds": 0.5, "image_sha256": "e" * 64, "psnr": 1.0, "ssim": None, "undefined": '{"ssim": "no"}', "counts": None,
}  # fmt: skip


def sample_table(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    try:
        pq.write_table(pa.Table.from_pylist(rows), file)
    except (pa.ArrowException, UnicodeEncodeError, OverflowError):
        assume(False)
    return file.getvalue()


SAMPLES = st.one_of(
    st.lists(changed(SAMPLE_ROW, SCALARS), min_size=1, max_size=2).map(sample_table),
    damaged(sample_table([SAMPLE_ROW])),
    st.binary(max_size=20),
)
MANIFESTS = text_file(as_json(MANIFEST), changed(MANIFEST).map(as_json))
run_cases = st.tuples(st.just(as_json(MANIFEST)) | MANIFESTS, st.none() | SAMPLES, st.none() | LOG).map(
    lambda three: Case(
        files={
            name: content
            for name, content in zip(("manifest.json", "samples.parquet", "samples-0.jsonl"), three, strict=True)
            if content is not None
        }
    )
)


def run_directory(root: Path, more: Any) -> None:
    try:
        read_logs(root)
        run = RunDirectory(root, WHOLE, COLUMNS)
        run.merge(["a"], {"a": {"source_id": "s"}, **{name: {"source_id": "s"} for name in run.samples}})
    except RunError as error:
        return refused_by_name(error, root)
    known = read_manifest(root)
    assert known is not None and not differences(known, WHOLE)
    for name in run.samples:
        assert run.image_path(name).parent == root / "images" and run.samples[name].status


def report(root: Path, more: Any) -> None:
    try:
        (run,) = read_runs([root], COLUMNS, ("source_id",), allow_partial=True)
    except ReportError as error:
        return refused_by_name(error, root)
    assert run.samples[list(COLUMNS)].dtypes.eq("float64").all()
