"""FID of a run of edits against their true results, kept as fid.json in the run directory."""

from collections.abc import Mapping
from pathlib import Path

import torch

from benchmarks.runs.edit_benchmark import facts_of
from benchmarks.runs.fid import done_samples, is_known, listed_digest, replace_fid
from benchmarks.runs.schema import Fid
from benchmarks.runs.store import RunDirectory
from metrics.functional.frechet import paired_jackknife
from metrics.networks.backbones import FeatureBackbone
from metrics.protocols.fid import images_digest, prepared_batches


def write_fid_of_edits(run: RunDirectory, truths: Mapping[str, Path], network: FeatureBackbone) -> None:
    """Writes fid.json, unless there is one of these very images. truths: the true result of each sample."""
    done = done_samples(run)
    generated_digest = listed_digest(str(sample.image_sha256) for sample in done.values())
    reference_digest = images_digest([truths[name] for name in done])
    if is_known(run, network, generated_digest, reference_digest):
        return
    for name in done:
        run.read_image(name)  # refuses one that isn't the image that was scored
    generated, reference = (
        torch.cat([network.features(batch) for batch in prepared_batches(files, network)])
        for files in ([run.image_path(name) for name in done], [truths[name] for name in done])
    )
    fid, left_out = paired_jackknife(generated, reference)
    replace_fid(
        run,
        Fid(
            network=facts_of(network),
            generated=generated_digest,
            reference=reference_digest,
            images=len(done),
            dimension=network.dimension,
            fid=fid,
            left_out=dict(zip(done, left_out, strict=True)),
        ),
    )
