"""How a row becomes what is generated from and scored against: the published protocols, and one without their quirks.

| | editar-released | controlnet++ | aligned |
|---|---|---|---|
| image, condition | short side to 512 (Lanczos), centre | squashed to 512x512 (bicubic) | as editar-released |
| label | squashed to 512x512 (nearest) | squashed to 512x512 (nearest) | short side to 512 (nearest), centre |
| images for canny | those of the depth set | those of the canny set | as editar-released |
| predicted depth | divided by its range | divided by its maximum | as editar-released |
| images a prompt | 1 | 4 | 1 |

On the square images of MultiGen-20M crop and squash are the same; they differ on COCO's.
"""

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from benchmarks.datasets.hub import COCO_STUFF, MULTIGEN_CANNY, MULTIGEN_DEPTH, HubDataset
from benchmarks.datasets.translation import TASKS, TranslationDataset, TranslationRecord, TranslationRow
from metrics.functional.depth import NORMALISATIONS
from metrics.functional.edges import EDGES

Fit = Literal["crop", "squash"]
CANNY_SETS = {"depth": MULTIGEN_DEPTH, "canny": MULTIGEN_CANNY}
RESAMPLING = ("lanczos", "bicubic", "nearest")  # names of Pillow's filters


@dataclass(frozen=True, kw_only=True)
class TranslationProtocol:
    """All in which the published evaluations differ before an image is scored.

    fit, label_fit: "crop" (short side to `side`, then the centre) or "squash" (both sides to `side`). resampling: of
    image and condition; labels are always resized to the nearest pixel. canny_set: the data set whose images canny
    takes, "depth" or "canny". canny: "kornia" (0.1/0.2) or "cv2" (100/200). depth_normalisation: what the metric does
    with the predicted depth, "min-max" or "max" (divided by it). images_per_prompt: a record's samples.
    """

    name: str
    fit: Fit
    resampling: str
    label_fit: Fit
    canny_set: str
    canny: str
    depth_normalisation: str
    images_per_prompt: int
    side: int = 512

    def __post_init__(self) -> None:
        for field, choices in (
            ("fit", ("crop", "squash")),
            ("label_fit", ("crop", "squash")),
            ("resampling", RESAMPLING),
            ("canny_set", tuple(CANNY_SETS)),
            ("canny", tuple(EDGES)),
            ("depth_normalisation", tuple(NORMALISATIONS)),
        ):
            if (value := getattr(self, field)) not in choices:
                raise ValueError(f"{field} is {value!r}; it must be one of {', '.join(choices)}")
        for field in ("images_per_prompt", "side"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} is {getattr(self, field)}; it must be at least 1")

    def variant(self, **changes: Any) -> "TranslationProtocol":
        """This protocol with other options, which its name then says: "translation/aligned/v1+canny=cv2"."""
        changed = {name: value for name, value in changes.items() if getattr(self, name) != value}
        name = "+".join([self.name, *(f"{field}={value}" for field, value in sorted(changed.items()))])
        return dataclasses.replace(self, **changed, name=name)

    def dataset(self, task: str) -> HubDataset:
        """The data set of one of TASKS."""
        if task not in TASKS:
            raise ValueError(f"task is {task!r}; it must be one of {', '.join(TASKS)}")
        if task == "canny":
            return CANNY_SETS[self.canny_set]
        return MULTIGEN_DEPTH if task == "depth" else COCO_STUFF

    def sample_ids(self, record_id: str) -> list[str]:
        """The ids of the images that are made for a record; the record's own where there is one, else "<id>-<i>"."""
        if self.images_per_prompt == 1:
            return [record_id]
        return [f"{record_id}-{number}" for number in range(self.images_per_prompt)]

    def samples(self, dataset: TranslationDataset) -> dict[str, TranslationRecord]:
        """The ids of the images that are made for the data set, in order, and the record of each."""
        return {name: record for record in dataset.records for name in self.sample_ids(record.sample_id)}

    def image(self, row: TranslationRow) -> Image.Image:
        """The real image, RGB, side x side: what FID compares with. ControlNet++ doesn't say how it saves these."""
        return _fit(row.image(), self.side, self.fit, self.resampling)

    def condition(self, row: TranslationRow) -> Image.Image:
        """The condition map that a method gets, RGB, side x side; canny's edges are taken of the prepared image."""
        if row.record.task == "canny":
            return Image.fromarray(canny_map(np.asarray(self.image(row)), self.canny)).convert("RGB")
        return _fit(row.condition(), self.side, self.fit, self.resampling)

    def label(self, row: TranslationRow) -> np.ndarray:
        """What the generated image is measured against, uint8 (side, side).

        depth: 0..255, stretched to that range before it is resized. canny: the edges, 0 or 255. segmentation: train
        ids, 255 where nothing counts.
        """
        if row.record.task == "canny":
            return np.asarray(self.condition(row))[:, :, 0]
        if row.record.task == "depth":
            label = Image.fromarray(_stretched(row.condition()))
        else:
            assert row.ids is not None
            label = Image.fromarray(row.ids)
        return np.array(_fit(label, self.side, self.label_fit, "nearest"))


PROTOCOLS = {
    name: TranslationProtocol(name=name, **options)
    for name, options in tomllib.loads(Path(__file__).with_suffix(".toml").read_text()).items()
}
EDITAR_RELEASED, CONTROLNET_PLUS_PLUS, ALIGNED = PROTOCOLS.values()


def canny_map(image: np.ndarray, implementation: str) -> np.ndarray:
    """Edges of an RGB image uint8 (height, width, 3) by one of EDGES: uint8 (height, width), 0 or 255."""
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
    return (EDGES[implementation](pixels)[0, 0] * 255).byte().numpy()


def _fit(image: Image.Image, side: int, fit: Fit, resampling: str) -> Image.Image:
    """`image` at side x side pixels, in its mode."""
    method = Image.Resampling[resampling.upper()]
    if fit == "squash":
        return image.resize((side, side), method)
    scale = side / min(image.size)
    width, height = round(scale * image.width), round(scale * image.height)
    resized = image.resize((width, height), method)
    left, top = (width - side) // 2, (height - side) // 2
    return resized.crop((left, top, left + side, top + side))


def _stretched(depth: Image.Image) -> np.ndarray:
    """An RGB depth map as grey levels uint8 (height, width), its smallest value at 0 and its largest at 255.

    A map of one value, of which both published evaluations make undefined numbers, becomes 0.
    """
    pixels = np.asarray(depth, np.float64)
    low, high = pixels.min(), pixels.max()
    scaled = (pixels - low) / ((high - low) or 1.0) * 255
    return np.asarray(Image.fromarray(scaled.astype(np.uint8)).convert("L"))
