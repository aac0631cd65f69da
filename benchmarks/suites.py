"""The suites: the same benchmarks with other parts. Scores of one are never shown as the other's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from baselines.method import MethodContext
from benchmarks.datasets.hub import COCO_STUFF, MULTIGEN_CANNY, MULTIGEN_DEPTH, HubDataset, locate_hub_dataset
from benchmarks.datasets.piebench import locate_piebench
from benchmarks.datasets.translation import COCO_CLASSES
from benchmarks.miniature.evaluate.backbones import load_backbones, load_translation_backbones
from benchmarks.miniature.evaluate.pixel_judge import PixelJudge, TrueResult
from benchmarks.miniature.world.embedded import COUNTS, ROWS, ensure_piebench, ensure_translation
from benchmarks.miniature.world.render import CLASSES as MINIATURE_CLASSES
from benchmarks.miniature.world.scene import SIDE as MINIATURE_SIDE
from benchmarks.runs.edit_benchmark import Judge
from benchmarks.runs.generate import AnyMethod
from editar.io.assets import AssetFile, locate
from editar.io.atomic import lock
from metrics.networks.backbones import Backbones
from metrics.networks.official import OFFICIAL_CLIP, PIE_BENCH, TRANSLATION
from metrics.networks.official_backbones import clip_backbone, official_backbones, official_translation_backbones

MINIATURE_DATA = Path("runs") / "miniature-data" / "piebench"
MINIATURE_WEIGHTS = Path(__file__).parent / "miniature" / "weights"


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The parts of PIE-Bench or of the translations. Folders of data and weights are those that the user gave, or None.

    dataset: from the folder of data to the folder of the data set; a translation's from (its set of the hub, folder),
    None for the hub. backbones: from (weights, device, precision, --clip or None), a translation's from (task, weights,
    device), to the networks to score with. files: from the folders of data and weights, a translation's from (task, set
    of the hub, data, weights), to the files that these two load. image_side: pixels. records: of the suite's own data
    set. classes: of the segmentation. judge: of the suite's own data set, where its true results are known.
    references: rows of that data set besides those of every suite, by name.
    """

    name: str
    image_side: int
    dataset: Callable[..., Any]
    backbones: Callable[..., Any]
    files: Callable[..., Sequence[AssetFile]] = lambda *_: ()
    records: int | None = None
    classes: int = COCO_CLASSES
    judge: Judge | None = None
    references: Mapping[str, Callable[[MethodContext], AnyMethod]] = field(default_factory=dict)


def drawn(data: Path | None, draw: Callable[[Path], Path], folder: Path) -> Path:
    """The folder `data`, or the one that the miniature's data set is drawn into."""
    if data is not None:
        return data
    folder.parent.mkdir(parents=True, exist_ok=True)
    with lock(folder.parent):  # of several processes one writes it
        return draw(folder)


def perception(weights: Path | None) -> Path:
    return (weights or MINIATURE_WEIGHTS) / "perception.safetensors"


def _miniature_backbones(weights: Path | None, device: str, precision: str, clip: str | None) -> Backbones:
    networks = load_backbones(perception(weights), device, precision)
    return networks if clip is None else replace(networks, clip=clip_backbone(clip, weights, device, precision))


def embedded(drawn_at: Path, data: Path | None, weights: Path | None) -> tuple[AssetFile, ...]:
    """The miniature's: a data set that is drawn unless the user has one, and the network that scores."""
    folder, network = data or drawn_at, perception(weights)
    return (
        AssetFile(
            name=f"{folder.name}/",
            source="benchmarks.miniature",
            path=folder if folder.is_dir() else None,
            comes="made" if data is None else "given",
        ),
        AssetFile(name=network.name, source="benchmarks.miniature.build", path=network if network.is_file() else None),
    )


def _paper_dataset(data: Path | None) -> Path:
    if data is None:
        raise ValueError(
            "the paper suite needs PIE-Bench_v1, which its authors give out on request "
            "(https://github.com/cure-lab/PnPInversion); pass the folder with mapping_file.json as --data DIR"
        )
    return data


SUITES = {
    "miniature": Suite(
        name="miniature",
        image_side=MINIATURE_SIDE,
        dataset=lambda data: drawn(data, ensure_piebench, MINIATURE_DATA),
        backbones=_miniature_backbones,
        files=lambda data, weights: embedded(MINIATURE_DATA, data, weights),
        records=sum(COUNTS.values()),
        judge=PixelJudge(),
        references={"true-result": TrueResult},
    ),
    "paper": Suite(
        name="paper",
        image_side=512,
        dataset=_paper_dataset,
        backbones=lambda weights, device, precision, clip: official_backbones(
            weights, device, precision, clip or OFFICIAL_CLIP
        ),
        files=lambda data, weights: locate_piebench(data) + locate(PIE_BENCH, weights),
        records=700,
    ),
}

# Which embedded set is in the schema of which of the hub's.
EMBEDDED = {MULTIGEN_DEPTH: "depth", MULTIGEN_CANNY: "canny", COCO_STUFF: "segmentation"}


def miniature_folder(source: HubDataset) -> Path:
    return MINIATURE_DATA.parent / f"translation-{EMBEDDED[source]}"


TRANSLATION_SUITES = {
    "miniature": Suite(
        name="miniature",
        image_side=MINIATURE_SIDE,
        classes=len(MINIATURE_CLASSES),
        dataset=lambda source, data: drawn(
            data, lambda folder: ensure_translation(folder, EMBEDDED[source]), miniature_folder(source)
        ),
        backbones=lambda task, weights, device: load_translation_backbones(perception(weights), task, device),
        files=lambda task, source, data, weights: embedded(miniature_folder(source), data, weights),
        records=ROWS,
    ),
    "paper": Suite(
        name="paper",
        image_side=512,
        dataset=lambda source, data: data,
        backbones=official_translation_backbones,
        files=lambda task, source, data, weights: (
            locate_hub_dataset(source, data),
            *locate(TRANSLATION[task], weights),
        ),
        records=5000,
    ),
}
