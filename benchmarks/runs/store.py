"""A run directory as the benchmarks make it: opened for one run and no other, images and samples written whole."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from benchmarks.runs.log import (
    InUse,
    all_logs_locked,
    log_paths,
    rank_of,
    read_logs,
    utc_now,
)
from benchmarks.runs.manifest import differences
from benchmarks.runs.schema import (
    FID,
    IMAGES,
    MANIFEST,
    SAMPLES,
    Cost,
    Counts,
    Facts,
    Manifest,
    RunError,
    Sample,
    Session,
    check_scores,
    read_manifest,
    read_sample_table,
    sample_table,
    samples_of,
)
from editar.io.atomic import lock, read_plain, remove_torn, replacing, write_bytes
from editar.io.digests import bytes_digest, sealed
from editar.io.image_files import open_image, write_png
from editar.io.texts import first_of

GIVEN_IMAGES = "method_settings.images"  # the digest of a folder of finished images
LOCKED = "locked"  # the writer of files that are written with the lock of the directory held


class RunDirectory:
    """One method's run. `samples`, without their scores, is what was known when it was opened or last merged."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        columns: Sequence[str],
        fresh: bool = False,
        given: Callable[[str, Image.Image], bool] | None = None,
        allow_mixed: bool = False,
    ) -> None:
        """Opens the directory for the run that `manifest` describes, or makes it. columns: the names of the scores.

        given: whether a sample's image is the one that the user gives, for runs of given images: a folder may gain
        images, but those that were scored have to stay. allow_mixed: whether processes with different code may work on
        the run. Raises RunError when the directory holds another run, whose differing fields are named; `fresh` removes
        that one.
        """
        self.folder = folder
        self.columns = tuple(columns)
        self.method = manifest.method
        self.card = manifest.card
        self.source = manifest.source
        self.allow_mixed = allow_mixed
        self._sources: set[str] = set()  # of the sessions
        (folder / IMAGES).mkdir(parents=True, exist_ok=True)
        with lock(folder):
            if fresh:
                self._clear()
            known = read_manifest(folder)
            if known is None:
                self._refuse_orphans()
                _write_manifest(folder, manifest)
            elif (changes := differences(known, manifest)) and given and set(changes) == {GIVEN_IMAGES}:
                self._take_more(known, manifest, given)
            elif changes:
                listing = "\n  ".join(f"{name}: {change}" for name, change in changes.items())
                raise RunError(
                    f"{folder} holds another run of {self.method!r}; it differs in\n  {listing}\n"
                    "start with --fresh to remove that run, or give another --out"
                )
            self.samples = remembered(self._read()[0].values())

    def _take_more(self, known: Manifest, manifest: Manifest, given: Callable[[str, Image.Image], bool]) -> None:
        """Makes this the run of a folder that has gained images. Raises RunError where one that was scored changed."""
        self.samples = remembered(self._read()[0].values())
        made = [sample_id for sample_id in sorted(self.samples) if not self.to_make(sample_id)]
        if changed := [sample_id for sample_id in made if not given(sample_id, self.read_image(sample_id))]:
            raise RunError(
                f"{self.folder} has scores of {len(made)} images, of which {len(changed)} are gone or others now "
                f"({first_of(changed)}); start with --fresh to score the whole folder again, or give another --out"
            )
        settings, fingerprint = manifest.method_settings, manifest.fingerprint
        _write_manifest(self.folder, replace(known, method_settings=settings, fingerprint=fingerprint, finished=None))

    def reload(self) -> None:
        """Takes up what other processes have recorded since the directory was opened."""
        with lock(self.folder):
            self.samples = remembered(self._read()[0].values())

    def require_source(self, *own: str) -> None:
        """Raises RunError where processes with different code have worked on the run, or would with this one's, unless
        that is allowed."""
        sources = sorted(self._sources.union(own))
        if len(sources) > 1 and not self.allow_mixed:
            listing = ", ".join(source[:12] or "unknown" for source in sources)
            raise RunError(
                f"{self.folder} mixes what different code made and scored (digests {listing}): start with --fresh, or "
                "with --allow-mixed, and the table says so"
            )

    def image_path(self, sample_id: str) -> Path:
        return self.folder / IMAGES / f"{sample_id}.png"

    def write_image(self, sample_id: str, image: Image.Image, rank: int) -> str:
        """Saves an image as PNG, whole or not at all; returns the SHA-256 of the file."""
        return write_png(image, self.image_path(sample_id), writer=str(rank))

    def read_image(self, sample_id: str) -> Image.Image:
        """The saved image, RGB: scores are of what is on the disk, whether the run was interrupted or not.

        Raises RunError when that isn't the image that was made.
        """
        path = self.image_path(sample_id)
        try:
            data = read_plain(path)
        except OSError as error:
            raise RunError(f"{path} can't be read: {error.strerror}; it is made again at the next start") from error
        if bytes_digest(data) != self.samples[sample_id].image_sha256:
            raise RunError(f"{path} isn't the image that was made; it is made again at the next start")
        return open_image(data)

    def remove_torn_images(self, rank: int) -> None:
        """Removes what a killed process of this rank left half written. The rank's log must be held."""
        remove_torn(self.folder / IMAGES, str(rank))

    def to_make(self, sample_id: str) -> bool:
        """Whether the image is still to be made: it was never there, its making failed, or the file is gone or isn't
        what was made."""
        sample = self.samples.get(sample_id)
        if sample is None or sample.image_sha256 is None:
            return True
        try:
            return bytes_digest(read_plain(self.image_path(sample_id))) != sample.image_sha256
        except OSError:
            return True

    def to_score(self, sample_id: str) -> bool:
        sample = self.samples.get(sample_id)
        return sample is not None and sample.image_sha256 is not None and sample.scores is None

    def merge(self, selected: Sequence[str], facts: Facts, allow_missing: bool = False) -> bool:
        """Makes samples.parquet of the logs, if every selected sample is done or has failed and nobody works on.

        selected: the sample ids asked for; those that an earlier start did are counted with them. `allow_missing`
        merges in spite of missing samples, and keeps the logs. Returns whether samples.parquet is up to date.
        """
        with lock(self.folder):
            try:
                with all_logs_locked(self.folder) as logs:
                    return self._merge(logs, selected, facts, allow_missing)
            except InUse:
                self.samples = remembered(self._read()[0].values())
                return False

    def _merge(self, logs: Sequence[Path], selected: Sequence[str], facts: Facts, allow_missing: bool) -> bool:
        """A process may die after each step: the rows are in the file, they are in the manifest, a log is gone."""
        samples, sessions = self._read()
        self.samples = remembered(samples.values())
        expected = sorted({*selected, *samples})
        settled = {name: sample for name, sample in samples.items() if sample.status != "made"}
        missing = len(expected) - len(settled)
        if missing and not allow_missing:
            return False
        manifest = read_manifest(self.folder)
        assert manifest is not None
        if not logs and manifest.finished and manifest.counts.expected == len(expected):
            return True
        self._write_parquet([settled[name] for name in sorted(settled)], facts)
        _write_manifest(self.folder, _finished(manifest, settled, sessions, missing))
        if not missing:
            for path in logs:  # not those that a process has begun since
                self.remove_torn_images(rank_of(path))
                path.unlink()
        return True

    def _read(self) -> tuple[dict[str, Sample], dict[str, Session]]:
        manifest = read_manifest(self.folder)
        assert manifest is not None
        samples = self._read_parquet()
        merged = {session.id for session in manifest.sessions}
        newer, sessions = read_logs(self.folder, settled=samples, merged=merged)
        try:
            check_scores(newer.values(), self.columns)
        except ValueError as error:
            raise RunError(f"{self.folder}: in a log {error}; start with --fresh") from error
        self._sources = {session.source for session in (*manifest.sessions, *sessions.values())}
        self.require_source()
        return samples | newer, sessions

    def _read_parquet(self) -> dict[str, Sample]:
        path = self.folder / SAMPLES
        if not path.is_file():
            return {}
        try:
            table = read_sample_table(path)
            lacking = [column for column in self.columns if column not in table.column_names]
            samples = [] if lacking else samples_of(table, self.columns)
        except Exception as error:  # of a damaged file: rows may hold anything
            raise RunError(
                f"{path} is damaged ({error}); put a copy back if there is one, else start with --fresh to make and "
                "score the images again"
            ) from error
        if lacking:
            raise RunError(
                f"{path} was scored before there was the column {', '.join(lacking)}; start with --fresh to make and "
                "score the images again"
            )
        return {sample.sample_id: sample for sample in samples}

    def _write_parquet(self, samples: Sequence[Sample], facts: Facts) -> None:
        import pyarrow.parquet as pq

        with replacing(self.folder / SAMPLES, durable=True, writer=LOCKED) as file:
            pq.write_table(sample_table(samples, facts, self.columns), file)

    def _clear(self) -> None:
        """Removes the run, and nothing that isn't part of one."""
        with all_logs_locked(self.folder) as logs:
            files = [self.folder / MANIFEST, self.folder / SAMPLES, self.folder / FID, *logs]
            files += [*(self.folder / IMAGES).glob("*.png")]
            for path in files:
                path.unlink(missing_ok=True)
            remove_torn(self.folder / IMAGES)

    def _refuse_orphans(self) -> None:
        if (self.folder / SAMPLES).exists() or log_paths(self.folder):
            raise RunError(f"{self.folder} has samples but no {MANIFEST}; start with --fresh")


def remembered(samples: Iterable[Sample]) -> dict[str, Sample]:
    """By id, what a process has to know of samples all along: all but their numbers, which the files keep.

    The numbers would be most of what a process holds for a sample. A sample that has some keeps its status.
    """
    kept: dict[str, float | None] = {}  # one for all of them
    return {
        sample.sample_id: replace(sample, scores=None if sample.scores is None else kept, undefined=None, counts=None)
        for sample in samples
    }


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replaces the manifest: whenever process or machine die, there is the old one or the new one."""
    text = json.dumps(manifest.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(folder / MANIFEST, sealed(text.encode()), durable=True, writer=LOCKED)


def _finished(
    manifest: Manifest, settled: Mapping[str, Sample], sessions: Mapping[str, Session], missing: int
) -> Manifest:
    """The manifest with what is known once all work is done: sessions that it has already are not counted twice."""
    everyone = sorted(
        ({session.id: session for session in manifest.sessions} | dict(sessions)).values(),
        key=lambda session: (session.started, session.id),
    )
    done = sum(sample.status == "done" for sample in settled.values())
    made = [sample.seconds for sample in settled.values() if sample.image_sha256 is not None]
    return replace(
        manifest,
        counts=Counts(expected=len(settled) + missing, done=done, failed=len(settled) - done, missing=missing),
        wall_seconds=sum(session.seconds for session in everyone),
        images_per_second=len(made) / sum(made) if sum(made) > 0 else None,
        peak_memory_bytes=max((session.peak_memory_bytes for session in everyone), default=0),
        cost=_cost(made, everyone),
        finished=None if missing else utc_now(),
        sessions=tuple(everyone),
    )


def _cost(made: Sequence[float], sessions: Sequence[Session]) -> Cost | None:
    """made: seconds of each image."""
    working = [session for session in sessions if session.making_peak_bytes]
    if not made or not working:
        return None
    largest = max(working, key=lambda session: session.making_peak_bytes)
    return Cost(
        load_seconds=max(session.load_seconds for session in working),
        seconds_per_sample=sum(made) / len(made),
        samples=len(made),
        peak_memory_bytes=largest.making_peak_bytes,
        before_bytes=largest.before_bytes,
        memory=largest.memory,
    )
