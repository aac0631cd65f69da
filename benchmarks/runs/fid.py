"""FID of a run: its images against the data set's real ones, kept as fid.json in the run directory.

Keys:
    schema_version      1
    network             {name, official, digest}
    generated           digest of the run's images (see metrics/protocols/fid.py)
    reference           digest of the real images, reference_images their number
    dimension           of the features
    images              the run's images, of all draws together
    draws               {draw: {images, fid, note}}; fid is null for fewer than two images, note says why
                        the value must not be compared with others', or is null
    fid                 the mean over the draws, null where one has none

Only listed files are read: the images that the run's samples name, and one real image a record. Condition maps are
never written, so that no folder can mix them up.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.datasets.translation import TranslationDataset
from benchmarks.datasets.translation_protocols import TranslationProtocol
from benchmarks.runs.samples import RunError
from benchmarks.runs.store import FID, RunDirectory
from editar.io.atomic import write_text
from editar.io.digests import file_digest, json_digest, list_digest
from editar.io.image_files import write_png
from editar.io.locks import lock
from metrics.functional.frechet import FeatureSums, fid
from metrics.networks.backbones import FeatureBackbone
from metrics.protocols.fid import reference_of_files, sums_of_files

SCHEMA_VERSION = 1
TOO_FEW = "FID needs at least 2 images"


def reference(
    dataset: TranslationDataset, protocol: TranslationProtocol, network: FeatureBackbone, folder: Path
) -> tuple[FeatureSums, str]:
    """Sums over the real images of the whole data set, whatever part of it a run takes; and the images' digest.

    folder: keeps the images, as the protocol prepares them, and the sums of each network.
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


def write_fid(
    run: RunDirectory, draws: Mapping[str, str], network: FeatureBackbone, reference: FeatureSums, digest: str
) -> None:
    """Writes fid.json, unless there is one of these very images.

    draws: by sample id. reference, digest: of the real images. Raises RunError for a file that isn't the image that
    was made.
    """
    done = {name: sample for name, sample in sorted(run.samples.items()) if sample.status == "done"}
    identity = {
        "schema_version": SCHEMA_VERSION,
        "network": {"name": network.name, "official": network.official, "digest": network.digest},
        "generated": listed_digest(str(sample.image_sha256) for sample in done.values()),
        "reference": digest,
    }
    path = run.folder / FID
    if is_of(path, identity):
        return
    groups: dict[str, list[Path]] = {}
    for name, sample in done.items():
        image = run.image_path(name)
        if not image.is_file() or file_digest(image) != sample.image_sha256:
            raise RunError(f"{image} isn't the image that was made; delete it, and the next start makes it again")
        groups.setdefault(draws[name], []).append(image)
    scores = {draw: fid_of(files, network, reference, digest) for draw, files in sorted(groups.items())}
    values = [score["fid"] for score in scores.values()]
    content = {
        **identity,
        "reference_images": reference.images,
        "dimension": network.dimension,
        "images": len(done),
        "draws": scores,
        "fid": sum(values) / len(values) if values and None not in values else None,
    }
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def fid_of(files: list[Path], network: FeatureBackbone, reference: FeatureSums, digest: str) -> dict[str, Any]:
    if min(len(files), reference.images) < 2:
        return {"images": len(files), "fid": None, "note": TOO_FEW}
    score = fid(sums_of_files(files, network), reference, digest)
    return {"images": score.images, "fid": score.fid, "note": score.note}


def listed_digest(digests: Iterable[str]) -> str:
    """What `images_digest` gives for the files of these digests."""
    return list_digest(sorted(digests))


def is_of(path: Path, identity: Mapping[str, Any]) -> bool:
    """Whether `path` is a fid.json of this identity."""
    try:
        known = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return False
    return isinstance(known, dict) and all(known.get(name) == value for name, value in identity.items())
