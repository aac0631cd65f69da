"""The suites: the same benchmarks with other parts. Scores of one are never shown as the other's."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.datasets.hub import COCO_STUFF, MULTIGEN_CANNY, MULTIGEN_DEPTH, HubDataset, locate_hub_dataset
from benchmarks.datasets.piebench import locate_piebench
from benchmarks.datasets.translation import COCO_CLASSES
from benchmarks.miniature.world.piebench import COUNTS
from benchmarks.miniature.world.render import CLASSES as MINIATURE_CLASSES
from benchmarks.miniature.world.scene import SIDE as MINIATURE_SIDE
from benchmarks.miniature.world.translation import ROWS
from editar.io.assets import AssetFile, locate
from editar.io.locks import lock
from metrics.networks.backbones import Backbones, TranslationBackbones
from metrics.networks.official import PIE_BENCH, TRANSLATION

MINIATURE_DATA = Path("runs") / "miniature-data" / "piebench"
MINIATURE_WEIGHTS = Path(__file__).parent / "miniature" / "weights"


@dataclass(frozen=True, kw_only=True)
class Suite:
    """image_side: pixels. dataset: from the folder the user gave, or None, to the PIE-Bench folder. backbones: from
    (weights folder or None, device, precision, --clip or None) to the networks to score with. files: from the folders
    of data and weights, or None, to the files that these two load. records: of the suite's own data set."""

    name: str
    image_side: int
    dataset: Callable[[Path | None], Path]
    backbones: Callable[[Path | None, str, str, str | None], Backbones]
    files: Callable[[Path | None, Path | None], Sequence[AssetFile]] = lambda data, weights: ()
    records: int | None = None


def default_device() -> str:
    """The GPU of this process (torchrun's LOCAL_RANK), or the CPU."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"


def _miniature_dataset(data: Path | None) -> Path:
    from benchmarks.miniature.world.piebench import ensure_piebench

    if data is not None:
        return data
    MINIATURE_DATA.parent.mkdir(parents=True, exist_ok=True)
    with lock(MINIATURE_DATA.parent):  # of several processes one writes it
        return ensure_piebench(MINIATURE_DATA)


def _miniature_backbones(weights: Path | None, device: str, precision: str, clip: str | None) -> Backbones:
    from benchmarks.miniature.evaluate.backbones import load_backbones
    from metrics.networks.official import clip_backbone

    networks = load_backbones((weights or MINIATURE_WEIGHTS) / "perception.safetensors", device, precision)
    return networks if clip is None else replace(networks, clip=clip_backbone(clip, weights, device, precision))


def embedded(drawn: Path, data: Path | None, weights: Path | None) -> tuple[AssetFile, ...]:
    """The miniature's: a data set that is drawn at `drawn` unless the user has one, and the network that scores."""
    folder, network = data or drawn, (weights or MINIATURE_WEIGHTS) / "perception.safetensors"
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


def _paper_backbones(weights: Path | None, device: str, precision: str, clip: str | None) -> Backbones:
    from metrics.networks.official import OFFICIAL_CLIP, official_backbones

    return official_backbones(weights, device, precision, clip or OFFICIAL_CLIP)


SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            name="miniature",
            image_side=MINIATURE_SIDE,
            dataset=_miniature_dataset,
            backbones=_miniature_backbones,
            files=lambda data, weights: embedded(MINIATURE_DATA, data, weights),
            records=sum(COUNTS.values()),
        ),
        Suite(
            name="paper",
            image_side=512,
            dataset=_paper_dataset,
            backbones=_paper_backbones,
            files=lambda data, weights: locate_piebench(data) + locate(PIE_BENCH, weights),
            records=700,
        ),
    )
}

# Which embedded set is in the schema of which of the hub's.
EMBEDDED = {MULTIGEN_DEPTH: "depth", MULTIGEN_CANNY: "canny", COCO_STUFF: "segmentation"}


@dataclass(frozen=True, kw_only=True)
class TranslationSuite:
    """image_side: pixels. classes: of the segmentation. dataset: from the folder the user gave, or None, to the folder
    of the data set, or None for the hub. backbones: from (task, weights folder or None, device) to the networks to
    score with. files: from the task, its data set and the folders of data and weights, or None, to the files that these
    two load. records: of the suite's own data sets."""

    name: str
    image_side: int
    classes: int
    dataset: Callable[[HubDataset, Path | None], Path | None]
    backbones: Callable[[str, Path | None, str], TranslationBackbones]
    files: Callable[[str, HubDataset, Path | None, Path | None], Sequence[AssetFile]] = lambda *_: ()
    records: int | None = None


def miniature_folder(source: HubDataset) -> Path:
    return MINIATURE_DATA.parent / f"translation-{EMBEDDED[source]}"


def _miniature_translation(source: HubDataset, data: Path | None) -> Path:
    from benchmarks.miniature.world.translation import ensure_translation

    if data is not None:
        return data
    folder = miniature_folder(source)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with lock(folder.parent):  # of several processes one writes it
        return ensure_translation(folder, EMBEDDED[source])


def _miniature_translation_networks(task: str, weights: Path | None, device: str) -> TranslationBackbones:
    from benchmarks.miniature.evaluate.backbones import load_translation_backbones

    return load_translation_backbones((weights or MINIATURE_WEIGHTS) / "perception.safetensors", task, device)


def _paper_translation_networks(task: str, weights: Path | None, device: str) -> TranslationBackbones:
    from metrics.networks.official import official_translation_backbones

    return official_translation_backbones(task, weights, device)


TRANSLATION_SUITES = {
    suite.name: suite
    for suite in (
        TranslationSuite(
            name="miniature",
            image_side=MINIATURE_SIDE,
            classes=len(MINIATURE_CLASSES),
            dataset=_miniature_translation,
            backbones=_miniature_translation_networks,
            files=lambda task, source, data, weights: embedded(miniature_folder(source), data, weights),
            records=ROWS,
        ),
        TranslationSuite(
            name="paper",
            image_side=512,
            classes=COCO_CLASSES,
            dataset=lambda source, data: data,
            backbones=_paper_translation_networks,
            files=lambda task, source, data, weights: (
                locate_hub_dataset(source, data),
                *locate(TRANSLATION[task], weights),
            ),
            records=5000,
        ),
    )
}
