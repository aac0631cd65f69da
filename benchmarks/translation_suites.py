"""The suites of the translation benchmarks, as benchmarks/suites.py has PIE-Bench's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from baselines.needs import NeededFile
from benchmarks.datasets.hub import COCO_STUFF, MULTIGEN_CANNY, MULTIGEN_DEPTH, HubDataset
from benchmarks.datasets.translation import COCO_CLASSES
from benchmarks.miniature.world.render import CLASSES as MINIATURE_CLASSES
from benchmarks.miniature.world.scene import SIDE as MINIATURE_SIDE
from benchmarks.miniature.world.translation import ROWS
from benchmarks.runs.needed_files import embedded, official_translation
from benchmarks.suites import MINIATURE_DATA, MINIATURE_WEIGHTS
from editar.io.locks import lock
from metrics.networks.backbones import TranslationBackbones

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
    files: Callable[[str, HubDataset, Path | None, Path | None], Sequence[NeededFile]] = lambda *_: ()
    records: int | None = None


def miniature_folder(source: HubDataset) -> Path:
    return MINIATURE_DATA.parent / f"translation-{EMBEDDED[source]}"


def _miniature_dataset(source: HubDataset, data: Path | None) -> Path:
    from benchmarks.miniature.world.translation import ensure_translation

    if data is not None:
        return data
    folder = miniature_folder(source)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with lock(folder.parent):  # of several processes one writes it
        return ensure_translation(folder, EMBEDDED[source])


def _miniature_backbones(task: str, weights: Path | None, device: str) -> TranslationBackbones:
    from benchmarks.miniature.evaluate.backbones import load_translation_backbones

    return load_translation_backbones((weights or MINIATURE_WEIGHTS) / "perception.safetensors", task, device)


def _paper_backbones(task: str, weights: Path | None, device: str) -> TranslationBackbones:
    from metrics.networks.backbones import official_translation_backbones

    return official_translation_backbones(task, weights, device)


TRANSLATION_SUITES = {
    suite.name: suite
    for suite in (
        TranslationSuite(
            name="miniature",
            image_side=MINIATURE_SIDE,
            classes=len(MINIATURE_CLASSES),
            dataset=_miniature_dataset,
            backbones=_miniature_backbones,
            files=lambda task, source, data, weights: embedded(
                miniature_folder(source), data, MINIATURE_WEIGHTS, weights
            ),
            records=ROWS,
        ),
        TranslationSuite(
            name="paper",
            image_side=512,
            classes=COCO_CLASSES,
            dataset=lambda source, data: data,
            backbones=_paper_backbones,
            files=official_translation,
            records=5000,
        ),
    )
}
