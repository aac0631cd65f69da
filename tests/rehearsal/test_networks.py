"""The networks of metrics and baselines, and FID's sums, on a GPU that isn't there."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import squeezenet1_1

from baselines.mgie.edit_head import EditHead, EditHeadSizes
from baselines.seed_x.prompt_resampler import PromptResampler
from baselines.seed_x.resampler import Resampler
from metrics.functional.frechet import FeatureSums
from metrics.networks.backbones import PRECISIONS
from metrics.networks.deeplab import AsppHead, ResNetV1c
from metrics.networks.lpips import OfficialLpips
from metrics.networks.official import Found
from metrics.networks.vit import ClassTokenHead, KeyHead, VisionTransformer, ViTConfig, load
from tests.rehearsal.fake_gpu import fake_gpu

DINO = ViTConfig(width=64, depth=3, heads=4, eps=1e-6, side=32, patch=8)
CLIP = ViTConfig(width=64, depth=3, heads=4, eps=1e-5, side=28, patch=14, clip=True)


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, device="cuda", dtype=dtype)


@pytest.mark.parametrize("precision", PRECISIONS)
@torch.no_grad()
def test_vision_transformers(precision: str) -> None:
    """DINO's keys and CLIP's images."""
    networks = [VisionTransformer(DINO, KeyHead(DINO)), VisionTransformer(CLIP, ClassTokenHead(CLIP))]
    with fake_gpu() as walk:
        for network in networks:
            load(network, network.to("cuda").state_dict(), "cuda", precision)
            side = network.config.side
            assert network(zeros(2, 3, side, side)).is_cuda
        assert walk.operators > 50


@torch.no_grad()
def test_lpips(tmp_path: Path) -> None:
    path = tmp_path / "squeezenet1_1-b8a52dc0.pth"
    torch.save(squeezenet1_1(weights=None).state_dict(), path)
    lpips = OfficialLpips(Found(path=path, digest="3" * 64, official=True))
    with fake_gpu():
        for part in lpips.slices:
            part.to("cuda")
        lpips.heads = [zeros(*head.shape) for head in lpips.heads]
        lpips.shift, lpips.scale = zeros(3, 1, 1), zeros(3, 1, 1)
        images = zeros(2, 3, 64, 64)
        assert lpips.distance(lpips.features(images), lpips.features(images)).is_cuda


@torch.no_grad()
def test_deeplab() -> None:
    network = nn.Sequential(
        OrderedDict[str, nn.Module](backbone=ResNetV1c((1, 1, 1, 1)), decode_head=AsppHead(2048, 64, 171))
    )
    with fake_gpu():
        assert network.eval().to("cuda")(zeros(1, 3, 64, 64)).shape == (1, 171, 8, 8)


def test_fid_sums_are_float64_and_wait_where_they_check_the_features() -> None:
    """Exact sums need float64 (metrics/functional/frechet.py). Features that are not finite are refused at once, for
    which the host waits; what follows is not walked."""
    with fake_gpu(["__init__", "update"]):
        sums = FeatureSums(8, "cuda")
        assert {part.dtype for part in sums.parts.values()} == {torch.float64}
        with pytest.raises(AssertionError, match="waits for the device"):
            sums.update(zeros(4, 8))


def unet() -> tuple[nn.Module, tuple[tuple[int, ...], ...]]:
    from diffusers import UNet2DConditionModel

    network = UNet2DConditionModel(
        sample_size=8, in_channels=8, out_channels=4, norm_num_groups=8, cross_attention_dim=32,
        attention_head_dim=4, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    return network, ((2, 8, 8, 8), (2,), (2, 7, 32))


def dpt() -> tuple[nn.Module, tuple[tuple[int, ...], ...]]:
    from transformers import DPTConfig, DPTForDepthEstimation

    sizes = DPTConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4, image_size=64,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=16,
    )  # fmt: skip
    return DPTForDepthEstimation(sizes), ((1, 3, 64, 64),)


def edit_head() -> tuple[nn.Module, tuple[tuple[int, ...], ...]]:
    sizes = EditHeadSizes(hidden=24, width=32, queries=5, features=24, tokens=8, layers=1, feed_forward=48)
    return EditHead(sizes), ((2, 8, 24),)


def resampler() -> tuple[nn.Module, tuple[tuple[int, ...], ...]]:
    return Resampler(queries=4, width=32, inputs=24, heads=4, eps=1e-6), ((2, 16, 24),)


def prompt_resampler() -> tuple[nn.Module, tuple[tuple[int, ...], ...]]:
    network = PromptResampler(queries=4, width=32, inputs=24, inner=32, layers=1, heads=4, outputs=(24, 40))
    return network, ((2, 16, 24),)


@pytest.mark.parametrize("build", [unet, dpt, edit_head, resampler, prompt_resampler])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@torch.no_grad()
def test_networks(build: Callable[[], tuple[nn.Module, tuple[tuple[int, ...], ...]]], dtype: torch.dtype) -> None:
    """The U-Net of the diffusion methods, DPT, and the parts of MGIE and SEED-X that are ours."""
    network, shapes = build()
    with fake_gpu() as walk:
        network.eval().to("cuda", dtype)(*(zeros(*shape, dtype=dtype) for shape in shapes))
        assert walk.operators > 10
