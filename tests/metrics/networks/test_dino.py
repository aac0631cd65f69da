"""DINO's keys against timm's vision transformer, small."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from metrics.networks.dino import OfficialDino
from metrics.networks.official import Found
from metrics.networks.vit import ViTConfig
from tests.photographs import photographs

CONFIG = ViTConfig(width=48, depth=3, heads=3, eps=1e-6, side=32, patch=8)


@pytest.fixture(scope="module")
def network() -> timm.models.VisionTransformer:
    torch.manual_seed(0)
    network = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=48, depth=3, num_heads=3, num_classes=0
    )
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


@pytest.fixture(scope="module")
def weights(network: timm.models.VisionTransformer, tmp_path_factory: pytest.TempPathFactory) -> Found:
    path = tmp_path_factory.mktemp("dino") / "dino_vitbase8_pretrain.pth"
    torch.save(network.state_dict(), path)
    return Found(path=path, digest="1" * 64, official=False)


def pixels(batch: int, side: int = 32) -> Tensor:
    return photographs(batch, side, side).float()


def keys_of(network: timm.models.VisionTransformer, images_255: Tensor) -> Tensor:
    """The keys of the last block, caught by a hook."""
    caught = []
    last: Any = network.blocks[-1]
    hook = last.attn.qkv.register_forward_hook(lambda module, args, output: caught.append(output))
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        network((images_255 - mean) / std)
    hook.remove()
    return caught[0].unflatten(-1, (3, -1))[:, :, 1]


def test_keys_equal_timm_on_values_from_0_to_255(network: timm.models.VisionTransformer, weights: Found) -> None:
    images = pixels(3)
    with torch.inference_mode():
        mine = OfficialDino(weights, config=CONFIG).keys(images / 255)
    torch.testing.assert_close(mine, keys_of(network, images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("antialias", [True, False])
def test_larger_images_are_resized_as_torchvision_does(
    network: timm.models.VisionTransformer, weights: Found, antialias: bool
) -> None:
    from torchvision.transforms.functional import resize

    images = pixels(2, side=80)
    with torch.inference_mode():
        mine = OfficialDino(weights, config=CONFIG, antialias=antialias).keys(images / 255)
    expected = keys_of(network, resize(images, [32], antialias=antialias))
    torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-4)


def test_more_images_than_one_batch_give_what_each_gives_alone(weights: Found) -> None:
    dino = OfficialDino(weights, config=CONFIG)
    dino.batch = 2
    images = pixels(5) / 255
    with torch.inference_mode():
        torch.testing.assert_close(dino.keys(images), torch.cat([dino.keys(image[None]) for image in images]))


def test_bfloat16_is_near_float32(weights: Found) -> None:
    images = pixels(2) / 255
    with torch.inference_mode():
        full = OfficialDino(weights, config=CONFIG).keys(images)
        half = OfficialDino(weights, config=CONFIG, precision="bfloat16").keys(images)
    assert half.dtype == torch.bfloat16
    assert (half - full).norm() / full.norm() < 0.02


def test_the_name_tells_that_the_weights_are_not_the_published_ones(weights: Found) -> None:
    dino = OfficialDino(weights, config=CONFIG)
    assert (dino.name, dino.official, dino.digest) == ("dino-vitb8@11111111", False, "1" * 64)


def test_images_must_be_square(weights: Found) -> None:
    with pytest.raises(ValueError):
        OfficialDino(weights, config=CONFIG).keys(torch.zeros(1, 3, 32, 40))


def test_missing_and_misshapen_tensors_are_named(network: timm.models.VisionTransformer, tmp_path: Path) -> None:
    state = dict(network.state_dict())
    del state["blocks.0.norm1.weight"]
    state["cls_token"] = torch.zeros(1, 1, 40)
    torch.save(state, tmp_path / "broken.pth")
    with pytest.raises(RuntimeError) as error:
        OfficialDino(Found(path=tmp_path / "broken.pth", digest="", official=False), config=CONFIG)
    assert "blocks.0.norm1.weight" in str(error.value) and "cls_token" in str(error.value)
