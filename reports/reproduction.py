"""Whether a run reproduces the scores of a committed summary, sample by sample, within what another machine may change.

The same pictures go through the same networks, but a processor's kernels sum in their own order: float32 results differ
in the last digits, and a saved pixel by one shade where the result lies between two. From kernels for AVX-512 to those
for SSE 4.1 that moved a sample's scores by at most 7e-7 (structure), 4e-4 (PSNR), 3e-5 (LPIPS), 9e-9 (MSE), 5e-6 (SSIM)
and 2e-5 (CLIP); TOLERANCES, in raw units, are twenty times that and more. A method that draws tokens one by one may
take another one where two are nearly as likely, though none did there; from that cell on it draws another picture. So
MOVED of the samples of such a method may be beyond the tolerances.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from reports.runs import ReportError, read_run

TOLERANCES = {
    "structure_distance": 2e-5,
    "psnr": 0.01,
    "lpips": 1e-3,
    "mse": 5e-7,
    "ssim": 2e-4,
    "clip_whole": 5e-4,
    "clip_edited": 5e-4,
    "f1": 0.02,  # of edges, which are there or not; the same for their SSIM
}
EDGES_SSIM = 0.02
DRAWN = ("editar",)
MOVED = 0.25
# What has to be equal before scores can be: a summary of other weights is an old one.
SETTINGS = ("suite", "benchmark", "protocol", "dataset.digest", "scoring", "seed", "method_settings")


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """largest: by column, the largest deviation of a sample. outside: the samples beyond the tolerances, with what is.
    allowed: how many there may be. images: how many are the same to the byte, of `samples`."""

    method: str
    benchmark: str
    samples: int
    images: int
    largest: dict[str, float]
    outside: dict[str, str]
    allowed: int

    @property
    def holds(self) -> bool:
        return len(self.outside) <= self.allowed

    def __str__(self) -> str:
        """A line for people, and one for each sample outside the tolerances."""
        deviations = ", ".join(f"{column} {value:.2g}" for column, value in self.largest.items())
        verdict = "agrees" if self.holds else "DOES NOT AGREE"
        head = (
            f"{self.benchmark}/{self.method} {verdict}: {self.images} of {self.samples} images equal to the byte, "
            f"{len(self.outside)} samples outside the tolerances ({self.allowed} may be); largest deviations: "
            f"{deviations}"
        )
        return "\n  ".join([head, *(f"{name}: {why}" for name, why in sorted(self.outside.items()))])


def reproduction(run_dir: Path, summary: Path) -> Reproduction:
    """Of a run of some of the summary's records. Raises ReportError where they are not the same method and settings."""
    run, committed = read_run(run_dir), read_run(summary)
    for field in ("method", *SETTINGS):
        here, there = (each.manifest.value(field) for each in (run, committed))
        if here != there:
            raise ReportError(
                f"{field} is {here!r} in {run_dir} and {there!r} in {summary}: nothing to compare; if that "
                "change is meant, run the whole benchmark and take it: nox -s tables -- --take runs/<suite>"
            )
    if strange := sorted(set(run.attempted.index) - set(committed.samples.index)):
        raise ReportError(f"{summary} has no sample {strange[0]}, which {run_dir} has")
    tolerances = {column: limit for column, limit in TOLERANCES.items() if column in committed.attempted.columns}
    if run.manifest.benchmark == "translation-canny":
        tolerances["ssim"] = EDGES_SSIM
    here = run.samples[[*tolerances]].astype("float64")
    there = committed.samples[[*tolerances]].astype("float64").loc[here.index]
    deviations = (here - there).abs().fillna(0.0).mask(here.isna() != there.isna(), math.inf)
    outside = {
        str(name): "; ".join(f"{column} by {value:.3g}" for column, value in row.items() if value > tolerances[column])
        for name, row in deviations[(deviations > pd.Series(tolerances)).any(axis=1)].to_dict("index").items()
    }
    outside |= {str(name): "it failed" for name in set(run.attempted.index) - set(run.samples.index)}
    same = run.samples["image_sha256"] == committed.samples["image_sha256"].reindex(run.samples.index)
    return Reproduction(
        method=run.method,
        benchmark=run.manifest.benchmark,
        samples=len(run.attempted),
        images=int(same.sum()),
        largest=deviations.max().fillna(0.0).to_dict(),
        outside=outside,
        allowed=math.floor(MOVED * len(run.attempted)) if run.method in DRAWN else 0,
    )
