"""FID of a run of edits against their true results, kept as fid.json in the run directory.

Keys:
    schema_version      1
    network             {name, official, digest}
    generated           digest of the run's images (see metrics/protocols/fid.py)
    reference           digest of the true results
    images, dimension   of the features
    fid                 the distance
    left_out            {sample id: the distance without this edit and its true result}
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from benchmarks.runs.fid import is_of, listed_digest
from benchmarks.runs.store import FID, RunDirectory
from editar.io.atomic import write_text
from metrics.functional.frechet import paired_jackknife
from metrics.networks.backbones import FeatureBackbone
from metrics.protocols.fid import images_digest, prepared_batches

SCHEMA_VERSION = 1


def write_fid_of_edits(run: RunDirectory, truths: Mapping[str, Path], network: FeatureBackbone) -> None:
    """Writes fid.json, unless there is one of these very images. truths: the true result of each sample."""
    done = {name: sample for name, sample in sorted(run.samples.items()) if sample.status == "done"}
    identity = {
        "schema_version": SCHEMA_VERSION,
        "network": {"name": network.name, "official": network.official, "digest": network.digest},
        "generated": listed_digest(str(sample.image_sha256) for sample in done.values()),
        "reference": images_digest([truths[name] for name in done]),
    }
    path = run.folder / FID
    if is_of(path, identity):
        return
    for name in done:
        run.read_image(name)  # refuses one that isn't the image that was scored
    generated, reference = (
        torch.cat([network.features(batch) for batch in prepared_batches(files, network)])
        for files in ([run.image_path(name) for name in done], [truths[name] for name in done])
    )
    fid, left_out = paired_jackknife(generated, reference)
    content = {
        **identity,
        "images": len(done),
        "dimension": network.dimension,
        "fid": fid,
        "left_out": dict(zip(done, left_out, strict=True)),
    }
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
