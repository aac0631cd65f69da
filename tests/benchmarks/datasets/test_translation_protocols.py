"""The named protocols: what each does to a row, and every option in which they differ."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from kornia.filters import canny
from PIL import Image

from benchmarks.datasets.hub import COCO_STUFF, MULTIGEN_CANNY, MULTIGEN_DEPTH
from benchmarks.datasets.translation import TranslationRow, read_translation
from benchmarks.datasets.translation_protocols import (
    ALIGNED,
    CONTROLNET_PLUS_PLUS,
    EDITAR_RELEASED,
    PROTOCOLS,
    TranslationProtocol,
)
from tests.benchmarks.tiny_translation import row, stored, write_shards

SIDE = 32
WIDTH, HEIGHT = 60, 40  # resized by their short side: 48 x 32, of which the columns 8 to 40 are the centre
Make = Callable[..., TranslationRow]


def small(protocol: TranslationProtocol) -> TranslationProtocol:
    return protocol.variant(side=SIDE)


def picture(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def train_ids() -> np.ndarray:
    """Another id in every tenth column, so that a column tells where it comes from; the last row is ignored."""
    ids = np.repeat(np.arange(WIDTH // 10)[None], HEIGHT, 0).repeat(10, 1)
    ids[-8:] = 255
    return ids.astype(np.uint8)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    sources = {"depth": MULTIGEN_DEPTH, "canny": MULTIGEN_CANNY, "segmentation": COCO_STUFF}

    def build(task: str, **changes: Any) -> TranslationRow:
        values: dict[str, Any] = {"image": stored(picture(0))}
        if task == "segmentation":
            values |= {"control_seg": stored(picture(1)), "panoptic_seg_map": train_ids().tolist()}
        elif task == "depth":
            values["control_depth"] = stored(picture(2).convert("L").convert("RGB"))
        write_shards(tmp_path, task, [row(task, 0, **(values | changes))], shards=1)
        dataset = read_translation(sources[task], tmp_path, task)
        return dataset.row(dataset.records[0])

    return build


def cropped(image: Image.Image, resampling: Image.Resampling) -> np.ndarray:
    return np.asarray(image.resize((48, SIDE), resampling).crop((8, 0, 8 + SIDE, SIDE)))


def squashed(image: Image.Image, resampling: Image.Resampling) -> np.ndarray:
    return np.asarray(image.resize((SIDE, SIDE), resampling))


def test_the_protocols_are_the_three() -> None:
    assert list(PROTOCOLS) == [
        "translation/editar-released/v1",
        "translation/controlnet++/v1",
        "translation/aligned/v1",
    ]
    assert all(PROTOCOLS[name].name == name and PROTOCOLS[name].side == 512 for name in PROTOCOLS)


@pytest.mark.parametrize("task", ["depth", "segmentation"])
@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda protocol: protocol.name)
def test_images_and_conditions_are_cropped_by_editar_and_squashed_by_controlnet(
    make: Make, protocol: TranslationProtocol, task: str
) -> None:
    each = make(task)
    condition = picture(1) if task == "segmentation" else picture(2).convert("L").convert("RGB")
    for found, source in (
        (small(protocol).image(each), picture(0)),
        (small(protocol).condition(each), condition),
    ):
        if protocol is CONTROLNET_PLUS_PLUS:
            expected = squashed(source, Image.Resampling.BICUBIC)
        else:
            expected = cropped(source, Image.Resampling.LANCZOS)
        assert found.mode == "RGB" and np.array_equal(np.asarray(found), expected)


def test_only_the_aligned_protocol_lays_a_cropped_label_over_its_condition(make: Make) -> None:
    each = make("segmentation")
    ids = Image.fromarray(train_ids())
    assert np.array_equal(small(ALIGNED).label(each), cropped(ids, Image.Resampling.NEAREST))
    for protocol in (EDITAR_RELEASED, CONTROLNET_PLUS_PLUS):
        assert np.array_equal(small(protocol).label(each), squashed(ids, Image.Resampling.NEAREST))
    assert not np.array_equal(small(EDITAR_RELEASED).label(each), small(ALIGNED).label(each))


def test_labels_lie_over_conditions_of_the_same_colours_except_in_the_released_protocol(make: Make) -> None:
    grey = Image.fromarray(train_ids()).convert("RGB")  # the ids themselves as colours: right where both agree
    each = make("segmentation", control_seg=stored(grey))
    agreement = {}
    for name, protocol in PROTOCOLS.items():
        nearest = protocol.variant(side=SIDE, resampling="nearest")
        agreement[name] = (np.asarray(nearest.condition(each))[..., 0] == nearest.label(each)).mean()
    assert agreement[ALIGNED.name] == agreement[CONTROLNET_PLUS_PLUS.name] == 1
    assert agreement[EDITAR_RELEASED.name] < 0.8


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda protocol: protocol.name)
def test_labels_invent_no_ids(make: Make, protocol: TranslationProtocol) -> None:
    label = small(protocol).label(make("segmentation"))
    assert label.dtype == np.uint8 and label.shape == (SIDE, SIDE)
    assert set(label.flat) <= set(train_ids().flat) and 255 in label


@pytest.mark.parametrize("task", ["depth", "canny"])
def test_on_square_images_crop_and_squash_are_the_same(make: Make, task: str) -> None:
    square = picture(3).resize((SIDE, SIDE))
    changes = {"image": stored(square), **({"control_depth": stored(square.convert("L"))} if task == "depth" else {})}
    each = make(task, **changes)
    labels = [small(protocol).label(each) for protocol in PROTOCOLS.values()]
    assert all(np.array_equal(label, labels[0]) for label in labels)
    assert all(small(protocol).image(each).tobytes() == square.tobytes() for protocol in PROTOCOLS.values())


def test_a_depth_label_is_stretched_before_it_is_resized(make: Make) -> None:
    depth = np.tile(np.linspace(50, 150, WIDTH), (HEIGHT, 1)).astype(np.uint8)
    each = make("depth", control_depth=stored(Image.fromarray(depth)))
    stretched = Image.fromarray(((depth - 50.0) / 100 * 255).astype(np.uint8))
    assert np.array_equal(small(CONTROLNET_PLUS_PLUS).label(each), squashed(stretched, Image.Resampling.NEAREST))
    aligned = small(ALIGNED).label(each)
    assert np.array_equal(aligned, cropped(stretched, Image.Resampling.NEAREST))
    assert aligned.min() > 0 and aligned.max() < 255  # the range is the whole map's, not that of its crop


def test_a_depth_label_without_any_depth_is_zero(make: Make) -> None:
    each = make("depth", control_depth=stored(Image.new("L", (WIDTH, HEIGHT), 7)))
    assert not small(ALIGNED).label(each).any()


def edges_of(image: Image.Image) -> np.ndarray:
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    return canny(tensor, 0.1, 0.2)[1][0, 0].numpy() * 255


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda protocol: protocol.name)
def test_canny_takes_the_edges_of_the_prepared_image(make: Make, protocol: TranslationProtocol) -> None:
    each = make("canny")
    protocol = small(protocol)
    condition = np.asarray(protocol.condition(each))
    assert condition.shape == (SIDE, SIDE, 3) and set(condition.flat) == {0, 255}
    assert np.array_equal(condition[..., 0], edges_of(protocol.image(each)))
    assert np.array_equal(protocol.label(each), condition[..., 0])


def test_the_edges_of_the_papers_are_an_option(make: Make) -> None:
    each = make("canny")
    papers = small(ALIGNED).variant(canny="cv2")
    bgr = np.asarray(papers.image(each))[:, :, ::-1].copy()
    assert np.array_equal(papers.label(each), cv2.Canny(bgr, 100, 200))
    assert not np.array_equal(papers.label(each), small(ALIGNED).label(each))


def test_the_data_set_of_each_task() -> None:
    for protocol in PROTOCOLS.values():
        assert protocol.dataset("depth") == MULTIGEN_DEPTH and protocol.dataset("segmentation") == COCO_STUFF
    assert EDITAR_RELEASED.dataset("canny") == ALIGNED.dataset("canny") == MULTIGEN_DEPTH
    assert CONTROLNET_PLUS_PLUS.dataset("canny") == MULTIGEN_CANNY
    assert ALIGNED.variant(canny_set="canny").dataset("canny") == MULTIGEN_CANNY
    with pytest.raises(ValueError):
        ALIGNED.dataset("hed")


def test_images_a_prompt() -> None:
    assert CONTROLNET_PLUS_PLUS.sample_ids("00007") == ["00007-0", "00007-1", "00007-2", "00007-3"]
    assert EDITAR_RELEASED.sample_ids("00007") == ALIGNED.sample_ids("00007") == ["00007"]
    assert len(CONTROLNET_PLUS_PLUS.variant(images_per_prompt=2).sample_ids("00007")) == 2


def test_normalisations_of_the_predicted_depth() -> None:
    assert [protocol.depth_normalisation for protocol in PROTOCOLS.values()] == ["min-max", "max", "min-max"]


def test_a_variant_says_what_is_different() -> None:
    assert ALIGNED.variant(canny="cv2", side=64).name == "translation/aligned/v1+canny=cv2+side=64"
    assert ALIGNED.variant(canny="kornia") == ALIGNED


@pytest.mark.parametrize(
    ("option", "value"),
    [("fit", "stretch"), ("label_fit", "none"), ("resampling", "area"), ("canny", "sobel"), ("canny_set", "coco"),
     ("depth_normalisation", "mean"), ("images_per_prompt", 0), ("side", 0)],
)  # fmt: skip
def test_an_unknown_option_is_named(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{option} is {value!r}"):
        ALIGNED.variant(**{option: value})
