"""FID of a run, kept as fid.json in its directory: of a translation's images against the data set's real ones, or of
edits against their true results.

Only listed files are read: the images that the run's samples name, and one real image a record. Condition maps are
never written, so that no folder can mix them up.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from benchmarks.datasets.translation import TranslationDataset
from benchmarks.datasets.translation_protocols import TranslationProtocol
from benchmarks.runs.edit_benchmark import facts_of
from benchmarks.runs.schema import FID, Fid, FidOfDraw, RunError, Sample, read_fid
from benchmarks.runs.store import RunDirectory
from editar.io.atomic import lock, write_bytes
from editar.io.digests import DamagedError, file_digest, json_digest, list_digest, sealed, unsealed
from editar.io.image_files import write_png
from metrics.functional.frechet import FeatureSums, bias_note, fid, paired_jackknife
from metrics.functional.kernel_distance import kernel_distance
from metrics.networks.backbones import FeatureBackbone
from metrics.protocols.fid import FidReference, features_of_files, images_digest, reference_of_files, sums_of_files

DIGESTS = "digests.json"  # of the images beside it
TOO_FEW = "FID needs at least 2 images"


class RealImages:
    """The real images of the whole data set, whatever part of it a run takes; what is not asked for is not done.

    cache: keeps the images as the protocol prepares them, and the statistics of each network.
    """

    def __init__(
        self, dataset: TranslationDataset, protocol: TranslationProtocol, network: FeatureBackbone, cache: Path
    ) -> None:
        self.dataset, self.protocol, self.network, self.cache = dataset, protocol, network, cache

    @cached_property
    def files(self) -> list[Path]:
        """One PNG file a record, as the data set gives it, whose digest is in the manifest. Those that are not there or
        have another digest than when they were made are made again."""
        dataset, protocol = self.dataset, self.protocol
        key = json_digest([dataset.digest, protocol.fit, protocol.resampling, protocol.side])
        folder = self.cache / f"{dataset.task}-{key[:16]}"
        folder.mkdir(parents=True, exist_ok=True)
        files = {record.sample_id: folder / f"{record.sample_id}.png" for record in dataset.records}
        with lock(folder):  # of several processes one writes them
            known = _read_digests(folder / DIGESTS)
            there = {name for name, path in files.items() if path.is_file()}
            whole = {name for name in there if known.get(name) == file_digest(files[name])}
            if changed := there - whole:
                print(f"note: {len(changed)} images in {folder} were changed, and are made again", file=sys.stderr)
            missing = [record for record in dataset.records if record.sample_id not in whole]
            try:
                for record in tqdm(missing, desc="real images", unit="image", leave=False, delay=2, mininterval=1):
                    path = files[record.sample_id]
                    known[record.sample_id] = write_png(protocol.image(dataset.row(record)), path, writer="locked")
            finally:
                if missing:
                    write_bytes(folder / DIGESTS, sealed(json.dumps(known).encode()), writer="locked")
        return list(files.values())

    @cached_property
    def reference(self) -> FidReference:
        return reference_of_files(self.files, self.network, self.cache)

    @cached_property
    def features(self) -> Tensor:
        return features_of_files(self.files, self.network)


def _read_digests(path: Path) -> dict[str, str]:
    """By sample id; none where the file is absent or damaged."""
    try:
        return json.loads(unsealed(path.read_bytes()) or "{}")
    except (FileNotFoundError, DamagedError):
        return {}


def write_fid(
    run: RunDirectory, draws: Mapping[str, str], real: FidReference, network: FeatureBackbone, kid_of: RealImages | None
) -> None:
    """Writes fid.json, unless there is one of these very images.

    draws: by sample id. kid_of: with them KID is taken too. Raises RunError for a file that isn't the image that was
    made.
    """
    done, new = to_measure(run, network, real.digest)
    if is_known(run, new, kid=kid_of is not None):
        return
    by_draw: dict[str, list[Path]] = {}
    for name, sample in done.items():
        image = run.image_path(name)
        if not image.is_file() or file_digest(image) != sample.image_sha256:
            raise RunError(f"{image} isn't the image that was made; the next start makes it again")
        by_draw.setdefault(draws[name], []).append(image)
    scores = {draw: score_draw(files, network, real, kid_of) for draw, files in sorted(by_draw.items())}
    new = replace(
        new,
        reference_images=real.statistics.images,
        draws=scores,
        fid=mean_of_draws([score.fid for score in scores.values()]),
        reference_file=real.file,
        kid=mean_of_draws([score.kid for score in scores.values()]),
    )
    replace_fid(run, new)


def write_fid_of_edits(run: RunDirectory, truths: Mapping[str, Path], network: FeatureBackbone) -> None:
    """Writes fid.json, unless there is one of these very images. truths: the true result of each sample."""
    done, new = to_measure(run, network, images_digest([truths[name] for name in done_samples(run)]))
    if is_known(run, new):
        return
    for name in done:
        run.read_image(name)  # refuses one that isn't the image that was scored
    generated = features_of_files([run.image_path(name) for name in done], network)
    distance, left_out = paired_jackknife(generated, features_of_files([truths[name] for name in done], network))
    replace_fid(run, replace(new, fid=distance, left_out=dict(zip(done, left_out, strict=True))))


def score_draw(files: list[Path], network: FeatureBackbone, real: FidReference, kid_of: RealImages | None) -> FidOfDraw:
    if len(files) < 2 or real.statistics.images in (0, 1):
        return FidOfDraw(images=len(files), fid=None, note=TOO_FEW)
    kid = None
    if kid_of is None:
        sums = sums_of_files(files, network)
    else:
        features, sums = features_of_files(files, network), FeatureSums(network.dimension, network.device)
        sums.update(features)
        kid = kernel_distance(features, kid_of.features)
    generated = sums.statistics()
    note = bias_note(generated, real.statistics)
    return FidOfDraw(images=len(files), fid=fid(generated, real.statistics), note=note, kid=kid)


def mean_of_draws(values: Sequence[float | None]) -> float | None:
    """None where a draw has no value."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def done_samples(run: RunDirectory) -> dict[str, Sample]:
    """By id, sorted by it."""
    return {name: sample for name, sample in sorted(run.samples.items()) if sample.status == "done"}


def to_measure(run: RunDirectory, network: FeatureBackbone, reference: str) -> tuple[dict[str, Sample], Fid]:
    """The samples that are done, and their FID without its value. reference: the digest of the other side."""
    done = done_samples(run)
    digests = sorted(str(sample.image_sha256) for sample in done.values())  # as `images_digest` of their files
    new = Fid(
        network=facts_of(network),
        generated=list_digest(digests),
        reference=reference,
        images=len(done),
        dimension=network.dimension,
        fid=None,
    )
    return done, new


def is_known(run: RunDirectory, new: Fid, *, kid: bool = False) -> bool:
    """Whether the run's fid.json is of these images and this network, and has KID if it is asked for. One that can't be
    read is made again."""
    try:
        known = read_fid(run.folder)
    except RunError:
        return False
    if known is None or (kid and known.kid is None):
        return False
    return (known.network, known.generated, known.reference) == (new.network, new.generated, new.reference)


def replace_fid(run: RunDirectory, content: Fid) -> None:
    write_bytes(run.folder / FID, sealed(json.dumps(content.to_json(), indent=1, allow_nan=False).encode() + b"\n"))
