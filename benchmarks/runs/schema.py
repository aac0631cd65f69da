"""What a run directory holds, as types that whoever writes or reads one shares.

    runs/<suite>/<benchmark>/<method>/
        manifest.json     Manifest
        samples.parquet   a Sample a row, sorted by sample_id, see `sample_table`
        images/<sample id>.png
        fid.json          Fid, where the benchmark takes one

Nothing is written here: benchmarks/runs/store.py does that. Files are checked against the types when they are read; an
unknown or missing field, a number where a text belongs or a number that is not finite are errors that name the field.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from baselines.method import MethodCard
from editar.io.atomic import read_plain
from editar.io.digests import unsealed

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1
MANIFEST, SAMPLES, FID, IMAGES = "manifest.json", "samples.parquet", "fid.json", "images"
CUT_PROMPTS = "cut_prompts"
FOLLOWED = "followed"
MAX_TABLE, MAX_ROWS = 1 << 30, 10**7  # bytes and rows of a samples.parquet
LAST = 10**6  # position of a method that no registry has
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # of a method, a suite ...: the name of a folder
SAMPLE_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")  # becomes the name of a file, on any file system

Facts = Mapping[str, Mapping[str, str]]  # by sample id: what samples.parquet says of a sample besides its results
T = TypeVar("T")


class RunError(ValueError):
    """A run directory that can't be used as asked; the message says why and what to do."""


class Finite:
    """Numbers that are read from files are finite."""

    __pydantic_config__: ClassVar[Any] = {"allow_inf_nan": False}


@dataclass(frozen=True, kw_only=True)
class Dataset(Finite):
    """digest: of all that the records are made of."""

    name: str
    digest: str
    records: int


@dataclass(frozen=True, kw_only=True)
class Network(Finite):
    """A network that scores. official: False where its weights are known not to be the published ones. digest:
    SHA-256 of the file with the weights, or of all files that it is read from."""

    name: str
    official: bool
    digest: str


@dataclass(frozen=True, kw_only=True)
class Scoring(Finite):
    """How images are scored. backbones: by part; PIE-Bench's are structure, perceptual and clip, a translation's
    features (for FID) and depth or segmentation. options: those of a translation protocol; of PIE-Bench, under
    CUT_PROMPTS, the records whose target prompts are longer than CLIP reads, where there are some, and under FOLLOWED
    who judged whether instructions were followed, where somebody did; the score has that name too."""

    precision: str
    backbones: Mapping[str, Network]
    options: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Device(Finite):
    """type: cpu or cuda. threads: of each process on a CPU."""

    type: str | None = None
    name: str = ""
    threads: int | None = None


@dataclass(frozen=True, kw_only=True)
class Revision(Finite):
    """Of the code, by git. dirty: tracked files were changed."""

    revision: str
    dirty: bool


@dataclass(frozen=True, kw_only=True)
class Counts(Finite):
    """Of samples: those asked for, and what became of them."""

    expected: int = 0
    done: int = 0
    failed: int = 0
    missing: int = 0


@dataclass(frozen=True, kw_only=True)
class Session(Finite):
    """What one process spent on a run. started: ISO time in UTC. seconds: making and scoring images.

    peak_memory_bytes: of both. making_peak_bytes: from building the method to its last image; before_bytes: what the
    process held just before that, the scoring networks for one. load_seconds: building the method and loading it. The
    last three are 0 in a process that made no image. memory: which memory was measured, see `memory.kind`. source: of
    its code, see Manifest; "" where that was not recorded.
    """

    id: str
    rank: int
    started: str
    seconds: float
    peak_memory_bytes: int
    load_seconds: float = 0.0
    making_peak_bytes: int = 0
    before_bytes: int = 0
    memory: str = ""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Cost(Finite):
    """What making the images took: times of the slowest process, memory of the largest; see Session.

    samples: those with an image, over which seconds_per_sample goes.
    """

    load_seconds: float
    seconds_per_sample: float
    samples: int
    peak_memory_bytes: int
    before_bytes: int
    memory: str


@dataclass(frozen=True, kw_only=True)
class Manifest(Finite):
    """What a run is, in full, and what became of it.

    card: what the method says of itself. position: its place in the registry, and so in tables. method_settings: as the
    method gives them. packages: versions by name, None where one is not installed.
    source: SHA-256 of the code that began the run; that of each process is in its session.
    fingerprint: SHA-256 of everything here that can move a number (benchmarks/runs/manifest.py). wall_seconds: making
    and scoring, summed over processes and restarts. images_per_second: of one process that makes images, None where
    none was made. started, finished: ISO times in UTC; finished is None until every sample is done or has failed.
    """

    schema_version: int = SCHEMA_VERSION
    suite: str
    benchmark: str
    method: str
    card: MethodCard = field(default_factory=MethodCard)
    position: int = LAST
    protocol: str
    dataset: Dataset
    method_settings: Mapping[str, Any]
    scoring: Scoring
    seed: int
    packages: Mapping[str, str | None] = field(default_factory=dict)
    python: str = ""
    platform: str = ""
    device: Device = Device()
    git: Revision | None = None
    source: str = ""
    fingerprint: str = ""
    counts: Counts = Counts()
    wall_seconds: float = 0.0
    images_per_second: float | None = None
    peak_memory_bytes: int = 0
    cost: Cost | None = None
    started: str = ""
    finished: str | None = None
    sessions: tuple[Session, ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError for the manifest of another version, and for names that would lead out of a folder."""
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(f"schema_version {self.schema_version!r}, this code reads {SCHEMA_VERSION}")
        for name in ("suite", "benchmark", "method"):
            if not LABEL.fullmatch(value := getattr(self, name)):
                raise ValueError(f"{name} is {value!r:.200}, which cannot be the name of a file")

    def to_json(self) -> dict[str, Any]:
        """As the file has it."""
        content = asdict(self)
        if self.scoring.options is None:
            del content["scoring"]["options"]
        return content

    @property
    def sources(self) -> list[str]:
        """Of the sessions, each once."""
        return sorted({session.source for session in self.sessions})

    def leaves(self) -> dict[str, Any]:
        """All single values by their dotted names."""
        return dict(_leaves("", self.to_json()))

    def value(self, name: str) -> Any:
        """What stands under a dotted name, None where nothing does."""
        value: Any = self.to_json()
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value


def _leaves(prefix: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, Mapping) or not value:
        return [(prefix, value)]
    names = {key: f"{prefix}.{key}" if prefix else str(key) for key in value}
    return [leaf for key, name in names.items() for leaf in _leaves(name, value[key])]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One sample of one method: first its image is made (or not), then it is scored (or not).

    seconds: what making the image took, its share of the batch. image_sha256: of the PNG file, None without an image.
    error: why the last attempt to make or score the image failed; a sample with an error is tried again at the next
    start. scores: by column, None where a score is undefined; undefined: the reasons, by column. counts: integers by
    name, for scores that are no means over samples; for segmentation, of each class that occurs, the pixels in both
    maps, in the prediction and in the label. notes: what the method says of its image, by label; None where it says
    nothing, and of runs of before there were any.
    """

    sample_id: str
    seconds: float = 0.0
    image_sha256: str | None = None
    error: str | None = None
    scores: Mapping[str, float | None] | None = None
    undefined: Mapping[str, str] | None = None
    counts: Mapping[str, Sequence[int]] | None = None
    notes: Mapping[str, str] | None = None

    __pydantic_config__: ClassVar[Any] = Finite.__pydantic_config__

    def __post_init__(self) -> None:
        """Raises ValueError: ids name files."""
        if not isinstance(self.sample_id, str) or not SAMPLE_ID.fullmatch(self.sample_id):
            raise ValueError(f"sample_id is {self.sample_id!r:.200}, which can't be the name of a file")
        if not self.seconds >= 0:
            raise ValueError(f"seconds of {self.sample_id} is {self.seconds!r:.200}; it must be 0 or more")

    @property
    def status(self) -> str:
        """ "done", "failed", or "made" for an image that is still to be scored."""
        if self.error is not None:
            return "failed"
        return "made" if self.scores is None else "done"

    def scored(self, scores: Mapping[str, float | str], counts: Mapping[str, Sequence[int]] | None = None) -> "Sample":
        """With its scores: by column the number, or the reason why it is undefined."""
        return replace(
            self,
            error=None,
            scores={name: None if isinstance(score, str) else score for name, score in scores.items()},
            undefined={name: score for name, score in scores.items() if isinstance(score, str)},
            counts=counts,
        )

    def check(self, columns: Sequence[str]) -> None:
        """Raises ValueError unless the scores, where there are any, are of exactly these columns: each a finite number,
        or None with a reason."""
        if self.scores is None:
            return
        if wrong := sorted({*self.scores} ^ {*columns}):
            raise ValueError(f"other columns than the benchmark's: {', '.join(wrong)}")
        for name, value in self.scores.items():
            if value is None and name not in (self.undefined or ()):
                raise ValueError(f"neither a number nor a reason for {name}")
            if value is not None and not is_number(value):
                raise ValueError(f"no finite number for {name}")


def check_scores(samples: Iterable[Sample], columns: Sequence[str]) -> None:
    """As `Sample.check`, naming the sample."""
    for sample in samples:
        try:
            sample.check(columns)
        except ValueError as error:
            raise ValueError(f"sample {sample.sample_id} has {error}") from None


def is_number(value: object) -> bool:
    """Whether a score is one: finite, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True, kw_only=True)
class FidOfDraw(Finite):
    """Of one image a prompt. fid, kid: None for fewer than two images. note: why the FID must not be compared with
    others."""

    images: int
    fid: float | None
    note: str | None
    kid: float | None = None


@dataclass(frozen=True, kw_only=True)
class Fid(Finite):
    """FID of a run's images. generated, reference: digests of both sides' images (metrics/protocols/fid.py).

    images: the run's, of all draws together. dimension: of the features. fid: the mean over the draws, None where one
    has none; kid: likewise, where it was asked for. A translation has draws and the number of real images, or
    reference_file, the name of the published statistics that the FID is against; edits against their true results have
    left_out: by sample id, the distance without this pair.
    """

    schema_version: int = SCHEMA_VERSION
    network: Network
    generated: str
    reference: str
    images: int
    dimension: int
    fid: float | None
    reference_images: int | None = None
    reference_file: str | None = None
    kid: float | None = None
    draws: Mapping[str, FidOfDraw] | None = None
    left_out: Mapping[str, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """As the file has it: without what this FID has not."""
        content = asdict(self)
        for part in (content, *(content["draws"] or {}).values()):
            for name in ("reference_images", "reference_file", "kid", "draws", "left_out"):
                if part.get(name, "") is None:
                    del part[name]
        return content


# --- reading


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def parse(kind: type[T], content: Any) -> T:
    """JSON, as text, bytes or already parsed, as an instance of one of the classes above. Raises ValueError that names
    each field that does not fit."""
    from pydantic import ValidationError

    text = content if isinstance(content, str | bytes) else json.dumps(content)
    try:
        return _adapter(kind).validate_json(text, strict=True, extra="forbid")  # type: ignore[arg-type]
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, each['loc'])) or kind.__name__}: {each['msg']}" for each in error.errors()]
        raise ValueError("; ".join(faults[:5])) from error
    except RecursionError as error:
        raise ValueError(f"it is nested too deeply: {error}") from error


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a run directory, None where there is none. Raises RunError."""
    path = folder / MANIFEST
    try:
        return parse(Manifest, _whole(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} can't be read: {error}; start with --fresh, or give another --out") from error


def read_fid(folder: Path) -> Fid | None:
    """What a run has of FID, None where there is no such file. Raises RunError."""
    path = folder / FID
    try:
        return parse(Fid, _whole(path)) if path.is_file() else None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} can't be read: {error}; start the benchmark again") from error


def _whole(path: Path) -> bytes:
    """The JSON of a file, which is checked where it carries its digest: files of before there was one are taken as they
    are."""
    content = read_plain(path)
    text = unsealed(content)
    return content if text is None else text


CONTENT = b"content_sha256"  # key in the file's metadata: Parquet itself finds damage in some places only


def sample_table(samples: Sequence[Sample], facts: Facts, columns: Sequence[str]) -> "pa.Table":
    """samples.parquet: sample_id; the benchmark's facts of the sample, as text; status ("done" or "failed"); error;
    seconds; image_sha256; one double column for each score; undefined and counts as JSON, null where there are none;
    notes likewise, a column that is there only where some sample has some."""
    import pyarrow as pa

    rows = [
        {
            "sample_id": sample.sample_id,
            **facts[sample.sample_id],
            "status": sample.status,
            **{name: getattr(sample, name) for name in ("error", "seconds", "image_sha256")},
            **{name: (sample.scores or {}).get(name) for name in columns},
            "undefined": json.dumps(dict(sample.undefined), sort_keys=True) if sample.undefined else None,
            "counts": json.dumps(dict(sample.counts)) if sample.counts else None,
            "notes": json.dumps(dict(sample.notes), ensure_ascii=False) if sample.notes else None,
        }
        for sample in samples
    ]
    fact_names = next(iter(facts.values())).keys()
    fields = [(name, pa.string()) for name in ("sample_id", *fact_names, "status", "error")]
    fields += [("seconds", pa.float64()), ("image_sha256", pa.string())]
    fields += [(name, pa.float64()) for name in columns] + [("undefined", pa.string()), ("counts", pa.string())]
    fields += [("notes", pa.string())] if any(sample.notes for sample in samples) else []
    table = pa.Table.from_pylist(rows, pa.schema(fields))
    return table.replace_schema_metadata({CONTENT: _digest(table)})


def read_sample_table(path: Path) -> "pa.Table":
    """The table of a samples.parquet, exactly as it was written. Raises ValueError where the file is damaged.

    Files without a digest, of before there was one or made by others, are taken as they are.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
            if sum(group.total_byte_size for group in groups) > MAX_TABLE or file.metadata.num_rows > MAX_ROWS:
                raise ValueError(f"it says that it unfolds to more than {MAX_TABLE} bytes or {MAX_ROWS} rows")
        table = pq.read_table(path, partitioning=None)
        wanted = (table.schema.metadata or {}).get(CONTENT)
        whole = wanted is None or wanted == _digest(table)
        for name in (each.name for each in table.schema if pa.types.is_floating(each.type)):
            if not pc.all(pc.is_finite(table[name]), min_count=0).as_py():
                raise ValueError(f"{name} has a number that is not finite")
    except Exception as error:  # Arrow raises many kinds (OSError, NotImplementedError, UnicodeDecodeError ...)
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if not whole:
        raise ValueError("its content is not what was written: the SHA-256 differs")
    return table


def samples_of(table: "pa.Table", columns: Sequence[str]) -> list[Sample]:
    """The rows of a table as `sample_table` makes it. Raises ValueError, KeyError or TypeError for others."""
    samples = [
        Sample(
            **{name: row[name] for name in ("sample_id", "seconds", "image_sha256", "error")},
            scores={name: row[name] for name in columns} if row["status"] == "done" else None,
            undefined=json.loads(row["undefined"]) if row["undefined"] else None,
            counts=json.loads(counts) if (counts := row.get("counts")) else None,
            notes=json.loads(notes) if (notes := row.get("notes")) else None,
        )
        for row in table.to_pylist()
    ]
    check_scores(samples, columns)
    return samples


def _digest(table: "pa.Table") -> bytes:
    import hashlib

    return hashlib.sha256(json.dumps([table.column_names, table.to_pylist()]).encode()).hexdigest().encode()
