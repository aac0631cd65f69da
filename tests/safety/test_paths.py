"""Names from elsewhere stay below their folders, sizes are refused before they are decoded, and no shell is started."""

import io
import json
import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import reports.__main__
from baselines.external import External, read_recipe
from baselines.method import EditRequest
from benchmarks.datasets.faults import DatasetError
from benchmarks.datasets.hub import MULTIGEN_DEPTH, fetch
from benchmarks.datasets.parquet import Rows
from benchmarks.runs.log import read_logs
from benchmarks.runs.schema import RunError, Sample, read_sample_table
from editar.images import ImageError, open_image
from editar.io.digests import sealed
from editar.training.data.jsonl import MAX_LINE, find_lines, read_lines
from editar.training.data.parquet import find_local, read_tables
from metrics.protocols.fid import prepared_batches
from reports.runs import ReportError, read_run
from reports.tables.format import csv_text, latex_text, markdown_text
from tests.loopback import serve
from tests.safety import run_readers
from tests.safety.strategies import PNG, bomb

HOSTILE = [
    "; touch owned", "$(touch owned)", "`touch owned`", "a b", "a\nb", "| tee owned", "'\"", "*", "~", "&& exit 3", "",
]  # fmt: skip
OUTSIDE = ["../secret.png", "{outside}/secret.png", "..\\secret.png", "C:\\secret.png", "link.png"]


def test_external_starts_its_command_without_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments come as they are written, from the recipe and from the environment; texts come in a file."""
    script = tmp_path / "edit; touch owned.py"
    script.write_text(
        "import json, pathlib, shutil, sys\n"
        "*arguments, folder = sys.argv[1:]\n"
        "pathlib.Path(__file__).with_name('seen.json').write_text(json.dumps(arguments))\n"
        "folder = pathlib.Path(folder)\n"
        "request = json.loads((folder / 'requests.jsonl').read_text())\n"
        "pathlib.Path(__file__).with_name('said.txt').write_text(request['instruction'])\n"
        "shutil.copy(folder / request['image'], folder / 'answers')\n"
    )
    monkeypatch.setenv("HOSTILE", "; touch owned $(touch owned)")
    command = [sys.executable, str(script), *HOSTILE, "${HOSTILE}", "{folder}"]
    (tmp_path / "recipe.toml").write_text(f'name = "mine"\ncommand = {json.dumps(command)}\n')
    instruction = "make it red; touch owned $(touch owned) `touch owned`\n'\""
    request = EditRequest(
        sample_id="a", image=Image.new("RGB", (8, 8)), instruction=instruction, source_prompt="", target_prompt="",
        blend_words=None, seed=0,
    )  # fmt: skip
    (answer,) = External(read_recipe(tmp_path / "recipe.toml")).edit([request])
    assert isinstance(answer, Image.Image)
    assert json.loads((tmp_path / "seen.json").read_text()) == [*HOSTILE, "; touch owned $(touch owned)"]
    assert (tmp_path / "said.txt").read_text() == instruction
    assert sorted(each.name for each in tmp_path.iterdir()) == [script.name, "recipe.toml", "said.txt", "seen.json"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_training_rows_name_images_below_their_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(PNG)
    (folder / "a.png").write_bytes(PNG)
    os.symlink(tmp_path / "secret.png", folder / "link.png")
    row = {"source": name.replace("{outside}", str(tmp_path)), "target": "a.png", "instruction": "make it red"}
    (folder / "pairs.jsonl").write_text(json.dumps(row) + "\n" + json.dumps({**row, "source": "./a.png"}))
    refused, fine = read_lines(find_lines("pairs", folder))
    remedy = "add follow_links = " if name == "link.png" else "give a path below"
    assert remedy in refused["fault"] and "line 1" in refused["origin"]
    assert fine["fault"] is None


def test_a_line_of_absurd_length_is_skipped_and_told(tmp_path: Path) -> None:
    fine = json.dumps({"source": "a.png", "target": "a.png", "instruction": "make it red"})
    (tmp_path / "pairs.jsonl").write_text(f"{fine}\n" + "x" * (2 * MAX_LINE + 5) + f"\n{fine}\n")
    faults = [row["fault"] for row in read_lines(find_lines("pairs", tmp_path))]
    assert faults == [None, f"it has more than {MAX_LINE} bytes", None]


def test_a_parquet_row_can_not_name_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(PNG)
    row = {"image": {"bytes": None, "path": str(secret)}, "control_depth": {"bytes": PNG, "path": None}, "text": "a"}
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", cell), ("control_depth", cell), ("text", pa.string())])
    pq.write_table(pa.Table.from_pylist([row], schema), tmp_path / "train-00000-of-00001.parquet")
    (read,) = read_tables(find_local("depth", tmp_path))
    assert read["target"] == {"bytes": None, "path": None}


def test_parquet_footers_that_say_absurd_sizes(tmp_path: Path) -> None:
    path = tmp_path / "validation-00000-of-00001.parquet"
    rows = 100_000  # of one byte each once run lengths are told
    pq.write_table(pa.table({"text": pa.array(["a"] * rows)}), path, compression="zstd", store_schema=False)
    assert path.stat().st_size < rows
    with pytest.raises(DatasetError):
        Rows([path], {"text": "text"})


@pytest.mark.parametrize(("length", "rows", "groups"), [(2**27, 1, 9), (1, 10**7, 2)])
def test_a_table_of_samples_that_unfolds_to_gigabytes_is_refused(
    tmp_path: Path, length: int, rows: int, groups: int
) -> None:
    """As text of which there is much, and as rows that are all alike, which Parquet only counts."""
    path, table = tmp_path / "samples.parquet", pa.table({"sample_id": pa.repeat("a" * length, rows)})
    with pq.ParquetWriter(path, table.schema, compression="zstd") as file:
        for _ in range(groups):
            file.write_table(table)
    assert path.stat().st_size < 2**20
    with pytest.raises(ValueError, match="unfolds to more than"):
        read_sample_table(path)


def test_sample_ids_of_a_run_are_names_of_files(tmp_path: Path) -> None:
    for name in ("../a", "/etc/passwd", "a/b", "a\\b", "nul\0", ".", ""):
        with pytest.raises(ValueError):
            Sample(sample_id=name)
    session = {"id": "s", "rank": 0, "started": "", "seconds": 0.0, "peak_memory_bytes": 0}
    line = {"turn": 1, "session": session, "samples": [{"sample_id": "../../a"}]}
    (tmp_path / "samples-0.jsonl").write_text(sealed(json.dumps(line).encode()).decode() + "\n")
    with pytest.raises(RunError, match="sample_id"):
        read_logs(tmp_path)


@pytest.mark.parametrize("name", ["../../x", "/x", "a/b", "..", ""])
@pytest.mark.parametrize("field", ["suite", "benchmark", "method"])
def test_a_manifest_does_not_choose_where_tables_go(
    field: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, work = tmp_path / "run", tmp_path / "a" / "b" / "work"
    run.mkdir()
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    (run / "manifest.json").write_text(json.dumps(run_readers.MANIFEST | {field: name}))
    (run / "samples.parquet").write_bytes(run_readers.sample_table([run_readers.SAMPLE_ROW]))
    assert reports.__main__.main(["--runs", str(run)]) != 0
    assert f"{field} is {name!r}" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["manifest.json", "samples.parquet"]


def test_a_table_of_samples_does_not_name_pictures_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(run_readers.MANIFEST))
    (tmp_path / "samples.parquet").write_bytes(
        run_readers.sample_table([run_readers.SAMPLE_ROW | {"sample_id": "../../x"}])
    )
    with pytest.raises(ReportError, match=r"'\.\./\.\./x'"):
        read_run(tmp_path)


def test_a_hub_can_not_write_outside_of_its_cache(tmp_path: Path) -> None:
    names = ["data/validation-../../../../../../../owned.parquet", "data/validation-00000-of-00001.parquet"]
    files = {name: b"content" for name in names}
    revision = MULTIGEN_DEPTH.revision + "0" * (40 - len(MULTIGEN_DEPTH.revision))
    cache = tmp_path / "a" / "b" / "cache"
    with (
        serve(MULTIGEN_DEPTH.repository, revision, files, datasets=True) as hub,
        pytest.raises(FileNotFoundError),
    ):
        fetch(MULTIGEN_DEPTH, cache=cache, endpoint=hub.endpoint)
    outside = [path for path in tmp_path.rglob("*owned*") if not path.is_relative_to(cache)]
    assert not outside and not Path("owned.parquet").exists()


class Network:
    """What reading ahead needs of a network."""

    batch = 1

    def prepare(self, image: Image.Image) -> object:
        raise AssertionError("a bomb was handed on")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bombs_and_programs_are_no_images(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(bomb(9_000))
    with pytest.raises(ValueError):
        next(prepared_batches([path], Network(), workers=0))  # type: ignore[arg-type]
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "EPS")  # whose decoder is Ghostscript
    path.write_bytes(buffer.getvalue())
    with pytest.raises(ImageError):
        open_image(path)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1+1", "\r=1+1", " =1+1"])
def test_prompts_are_no_formulas_and_no_markup(text: str) -> None:
    assert csv_text(text).startswith("'")
    prompt = rf"<script>alert(1)</script> \input{{/etc/passwd}} {text} | [x](y)"
    assert "<" not in markdown_text(prompt) and r"\|" in markdown_text(prompt)
    assert r"\input" not in latex_text(prompt)
