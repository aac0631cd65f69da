"""FID of a translation's run: its images against the data set's real ones, kept as fid.json in the run directory.

Only listed files are read: the images that the run's samples name, and one real image a record. Condition maps are
never written, so that no folder can mix them up.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from tqdm import tqdm

from benchmarks.datasets.translation import TranslationDataset
from benchmarks.datasets.translation_protocols import TranslationProtocol
from benchmarks.runs.edit_benchmark import facts_of
from benchmarks.runs.schema import FID, Fid, FidOfDraw, RunError, Sample, read_fid
from benchmarks.runs.store import RunDirectory
from editar.io.atomic import write_text
from editar.io.digests import file_digest, json_digest, list_digest
from editar.io.image_files import write_png
from editar.io.locks import lock
from metrics.functional.frechet import FeatureStatistics, bias_note, fid
from metrics.networks.backbones import FeatureBackbone
from metrics.protocols.fid import FidReference, reference_of_files, sums_of_files

TOO_FEW = "FID needs at least 2 images"


def real_image_reference(
    dataset: TranslationDataset, protocol: TranslationProtocol, network: FeatureBackbone, folder: Path
) -> FidReference:
    """The real images of the whole data set, whatever part of it a run takes.

    folder: keeps the images, as the protocol prepares them, and the statistics of each network.
    """
    prepared = [dataset.digest, protocol.fit, protocol.resampling, protocol.side]
    key = json_digest(prepared)
    files = real_images(dataset, protocol, folder / f"{dataset.task}-{key[:16]}")
    return reference_of_files(files, network, folder)


def real_images(dataset: TranslationDataset, protocol: TranslationProtocol, folder: Path) -> list[Path]:
    """The real images as PNG files, one a record; those that are not there yet are written."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {record.sample_id: folder / f"{record.sample_id}.png" for record in dataset.records}
    with lock(folder):  # of several processes one writes them
        missing = [record for record in dataset.records if not files[record.sample_id].is_file()]
        for record in tqdm(missing, desc="real images", unit="image", leave=False, delay=2, mininterval=1):
            write_png(protocol.image(dataset.row(record)), files[record.sample_id], writer="locked")
    return list(files.values())


def write_fid(run: RunDirectory, draws: Mapping[str, str], network: FeatureBackbone, real: FidReference) -> None:
    """Writes fid.json, unless there is one of these very images.

    draws: by sample id. Raises RunError for a file that isn't the image that was made.
    """
    done = done_samples(run)
    generated = listed_digest(str(sample.image_sha256) for sample in done.values())
    if is_known(run, network, generated, real.digest):
        return
    by_draw: dict[str, list[Path]] = {}
    for name, sample in done.items():
        image = run.image_path(name)
        if not image.is_file() or file_digest(image) != sample.image_sha256:
            raise RunError(f"{image} isn't the image that was made; delete it, and the next start makes it again")
        by_draw.setdefault(draws[name], []).append(image)
    scores = {draw: fid_of(files, network, real.statistics) for draw, files in sorted(by_draw.items())}
    values = [score.fid for score in scores.values() if score.fid is not None]
    replace_fid(
        run,
        Fid(
            network=facts_of(network),
            generated=generated,
            reference=real.digest,
            reference_images=real.statistics.images,
            dimension=network.dimension,
            images=len(done),
            draws=scores,
            fid=sum(values) / len(values) if values and len(values) == len(scores) else None,
        ),
    )


def fid_of(files: list[Path], network: FeatureBackbone, real: FeatureStatistics) -> FidOfDraw:
    if len(files) < 2 or (real.images is not None and real.images < 2):
        return FidOfDraw(images=len(files), fid=None, note=TOO_FEW)
    generated = sums_of_files(files, network).statistics()
    return FidOfDraw(images=len(files), fid=fid(generated, real), note=bias_note(generated, real))


def done_samples(run: RunDirectory) -> dict[str, Sample]:
    """By id, sorted by it."""
    return {name: sample for name, sample in sorted(run.samples.items()) if sample.status == "done"}


def listed_digest(digests: Iterable[str]) -> str:
    """What `images_digest` gives for the files of these digests."""
    return list_digest(sorted(digests))


def is_known(run: RunDirectory, network: FeatureBackbone, generated: str, reference: str) -> bool:
    """Whether the run's fid.json is of these images and this network. One that can't be read is made again."""
    try:
        known = read_fid(run.folder)
    except RunError:
        return False
    return known is not None and (known.network, known.generated, known.reference) == (
        facts_of(network),
        generated,
        reference,
    )


def replace_fid(run: RunDirectory, content: Fid) -> None:
    write_text(run.folder / FID, json.dumps(content.to_json(), indent=1, allow_nan=False) + "\n")
