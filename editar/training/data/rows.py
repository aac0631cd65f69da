"""What every reader yields, whatever its data set: image cells, a text, and where they were found.

A cell is {"bytes": ...} with an image file or {"path": ...} that names one, as the hub's image columns are. Nothing is
decoded here: a row that this process only skips over costs no more than its reading.
"""

from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
Cell = dict[str, Any]


class RowFault(ValueError):
    """What is wrong with one row, without its place."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One of the data sets: its columns, and what is learned from it.

    source: the column of the condition image, None where it is made from the target. task: "edit" or one of
    prompts.TASKS. repository: the hub's data set with parquet files, None for jsonl files beside a folder of images;
    lines, images: where these two lie in its folder. swap: whether half of the pairs are turned round, from adding a
    thing to removing it.
    """

    source: str | None
    target: str
    text: str
    task: str
    repository: str | None = None
    lines: str = ""
    images: str = ""
    swap: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.source, self.target, self.text)))


# Columns by the data sets' cards on the hub, PIPE's by its authors' reader (dataset/dataset.py of github.com/
# RotsteinNoam/Paint-by-Inpaint), SEED's fields and folders by README.md and configs/data/sft_edit.yaml of github.com/
# AILab-CVC/SEED-X. docs/model-and-training.md says what of it was seen.
KINDS: dict[str, Kind] = {
    "seed": Kind(
        source="source_image",
        target="target_image",
        text="instruction",
        task="edit",
        lines="auto_editing/unsplash/annotations",
        images="auto_editing/unsplash/images",
    ),
    "pipe": Kind(
        source="source_img",
        target="target_img",
        text="Instruction_VLM-LLM",
        task="edit",
        repository="paint-by-inpaint/PIPE",
        swap=True,
    ),
    "depth": Kind(
        source="control_depth", target="image", text="text", task="depth", repository="limingcv/MultiGen-20M_depth"
    ),
    "canny": Kind(source=None, target="image", text="text", task="canny", repository="limingcv/MultiGen-20M_depth"),
    "segmentation": Kind(
        source="control_seg",
        target="image",
        text="prompt",
        task="segmentation",
        repository="limingcv/Captioned_COCOStuff",
    ),
    "pairs": Kind(source="source", target="target", text="instruction", task="edit"),
}


def good_row(kind: str, origin: str, source: Cell | None, target: Cell, text: str) -> Row:
    """origin: the file and the place in it, for logs."""
    return {"kind": kind, "origin": origin, "source": source, "target": target, "text": text, "fault": None}


def faulty_row(kind: str, origin: str, fault: str) -> Row:
    """A row that could not be read goes the way of the others, so that every process counts it at the same place."""
    return {"kind": kind, "origin": origin, "source": None, "target": None, "text": None, "fault": fault}
