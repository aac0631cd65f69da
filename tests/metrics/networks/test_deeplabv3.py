"""DeepLabV3 against values of mmsegmentation's own code, from a checkpoint in its format."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from metrics.networks.deeplab import OfficialDeepLabV3
from metrics.networks.official import DEEPLABV3_R101, Found, find
from tests.photographs import photographs

PARITY = Path(__file__).parents[2] / "parity"


def official_shapes() -> dict[str, Tensor]:
    """The checkpoint's keys on the meta device."""
    state = {}
    for line in (PARITY / "deeplabv3_r101_keys.txt").read_text().splitlines():
        name, sizes = line.split(" ", 1)
        dtype = torch.int64 if name.endswith("num_batches_tracked") else torch.float32
        state[name] = torch.empty([int(size) for size in re.findall(r"\d+", sizes)], dtype=dtype, device="meta")
    return state


@pytest.fixture(scope="module")
def folder(hashfill: Callable[..., dict[str, Tensor]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkpoint as mmsegmentation publishes them: weights, and what it notes about training (350 MB)."""
    shapes = official_shapes()
    integers = {name: torch.zeros((), dtype=like.dtype) for name, like in shapes.items() if not like.ndim}
    state = hashfill(shapes | integers)
    for name in list(state):
        if name.endswith("running_var"):
            state[name] = 5 * state[name].abs() + 1
            state[name.replace("running_var", "weight")] += 1
    folder = tmp_path_factory.mktemp("mmsegmentation")
    meta = {"mmseg_version": "0.15.0", "CLASSES": ("person", "bicycle"), "PALETTE": [[0, 192, 64]], "iter": 320000}
    torch.save({"meta": meta, "state_dict": state}, folder / DEEPLABV3_R101.name)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def network(folder: Path) -> OfficialDeepLabV3:
    return OfficialDeepLabV3(find(DEEPLABV3_R101, folder))


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    return load_file(PARITY / "deeplabv3_expected.safetensors")


@pytest.fixture(scope="module")
def image(expected: dict[str, Tensor]) -> Tensor:
    return expected["image"].permute(2, 0, 1)[None] / 255


@torch.inference_mode()
def test_logits_and_labels_equal_mmsegmentation(
    network: OfficialDeepLabV3, expected: dict[str, Tensor], image: Tensor
) -> None:
    logits = network.logits(image)
    assert logits.shape == (1, 171, 16, 20)
    full = F.interpolate(logits, size=(128, 160), mode="bilinear", align_corners=False)
    torch.testing.assert_close(full[..., ::16, ::16], expected["logits_every_16th"], rtol=1e-4, atol=1e-4)
    labels = network.labels(image)
    assert labels.dtype == torch.int64
    assert torch.equal(labels, expected["labels"].long())


@torch.inference_mode()
def test_a_batch_gives_what_its_images_give_alone_at_any_size(network: OfficialDeepLabV3) -> None:
    images = photographs(2, 41, 50) / 255
    labels = network.labels(images)
    assert labels.shape == (2, 41, 50)
    assert torch.equal(labels, torch.cat([network.labels(image[None]) for image in images]))


def test_the_name_tells_that_the_weights_are_not_the_published_ones(network: OfficialDeepLabV3) -> None:
    assert (network.name, network.official) == (f"deeplabv3-r101-d8@{network.digest[:8]}", False)


def test_a_file_that_would_execute_something_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "meta": Path("anything")}, tmp_path / "bad.pth")
    with pytest.raises(ValueError):
        OfficialDeepLabV3(Found(path=tmp_path / "bad.pth", digest="", official=False))


def test_missing_unknown_and_misshapen_tensors_are_named(tmp_path: Path) -> None:
    state = {"backbone.stem.0.weight": torch.zeros(2, 2), "unknown.weight": torch.zeros(1)}
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(RuntimeError) as error:
        OfficialDeepLabV3(Found(path=tmp_path / "bad.pth", digest="", official=False))
    for name in ("backbone.stem.0.weight", "unknown.weight", "decode_head.conv_seg.bias"):
        assert name in str(error.value)
    assert "auxiliary_head" not in str(error.value)
