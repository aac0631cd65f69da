"""Depth from a small DPT in the published folder's format, and RMSE against slow versions of both normalisations."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import DPTConfig, DPTForDepthEstimation

from metrics.functional.depth import FLAT_DEPTH, FLAT_LABEL, NORMALISATIONS, score_depth
from metrics.networks.dpt import OfficialDepth
from metrics.networks.official import DPT_LARGE, Found, find
from tests.metrics.reading import reasons, values
from tests.photographs import photographs

# As Intel published it, but for the size: written before transformers 4.26, it names the old class and a single number.
PREPARATION = {
    "do_normalize": True,
    "do_resize": True,
    "ensure_multiple_of": 1,
    "feature_extractor_type": "DPTFeatureExtractor",
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "keep_aspect_ratio": False,
    "resample": 2,
    "size": 32,
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dpt-large/ with pytorch_model.bin; like the published one it lacks what the first fusion layer never uses."""
    folder = tmp_path_factory.mktemp("weights") / DPT_LARGE.name
    config = DPTConfig(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
    )
    torch.manual_seed(0)
    model = DPTForDepthEstimation(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    config.save_pretrained(folder)
    state = {
        k: v for k, v in model.state_dict().items() if not k.startswith("neck.fusion_stage.layers.0.residual_layer1.")
    }
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPARATION))
    return folder.parent


@torch.inference_mode()
def test_depth_equals_transformers_on_images_resized_by_pil(weights: Path) -> None:
    images = photographs(2, 50, 40)
    network = OfficialDepth(find(DPT_LARGE, weights))
    depth = network.depth(images / 255)
    assert depth.shape == (2, 64, 64) and depth.std() > 0  # twice the side, as patches are half as large as DPT's
    model = DPTForDepthEstimation.from_pretrained(weights / DPT_LARGE.name).eval()
    for image, own in zip(images, depth, strict=True):
        small = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((32, 32), Image.Resampling.BILINEAR)
        normalised = (torch.from_numpy(np.array(small)).permute(2, 0, 1) / 255 - 0.5) / 0.5
        expected = model(normalised[None]).predicted_depth[0]
        torch.testing.assert_close(own, expected, rtol=0, atol=1e-4 * expected.max().item())


def test_the_name_tells_that_the_weights_are_not_the_published_ones(weights: Path) -> None:
    network = OfficialDepth(find(DPT_LARGE, weights))
    assert (network.name, network.official) == (f"dpt-large@{network.digest[:8]}", False)


def test_a_folder_that_lacks_other_tensors_is_refused(weights: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(weights / DPT_LARGE.name, tmp_path / "dpt")
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    del state["head.head.0.weight"], state["head.head.0.bias"]
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="and 1 more"):
        OfficialDepth(Found(path=folder / "pytorch_model.bin", digest="", official=False))


def slow_released(depth: Tensor, label: Tensor) -> float:
    maps = [(x.double() - x.min()) / (x.max() - x.min()) * 255 for x in (depth, label)]
    return ((maps[0] - maps[1]) ** 2).mean().sqrt().item()


def slow_controlnet_plus_plus(depth: Tensor, label: Tensor) -> float:
    """Both maps of one size, where PIL's resizing changes nothing."""
    own = np.floor((depth / depth.max()).numpy() * np.float32(255))
    other = np.floor(((label - label.min()) / (label.max() - label.min())).numpy() * np.float32(255))
    return float(np.sqrt(np.mean((own - other) ** 2)))


def test_rmse_equals_the_slow_versions_and_the_two_differ() -> None:
    generator = torch.Generator().manual_seed(1)
    depth, labels = (
        3 + 20 * torch.rand(3, 24, 20, generator=generator),
        200 * torch.rand(3, 24, 20, generator=generator),
    )
    released = values(score_depth(depth, labels, "min-max"), "depth_rmse")
    other = values(score_depth(depth, labels, "max"), "depth_rmse")
    for i in range(3):
        assert released[i] == pytest.approx(slow_released(depth[i], labels[i]), rel=1e-5)
        assert other[i] == pytest.approx(slow_controlnet_plus_plus(depth[i], labels[i]), rel=1e-5)
        assert abs(released[i] - other[i]) > 1  # type: ignore[operator]


def test_an_8_bit_label_gives_the_same_as_its_floats() -> None:
    generator = torch.Generator().manual_seed(1)
    depth, labels = torch.rand(1, 16, 16, generator=generator), torch.randint(9, 250, (1, 16, 16), generator=generator)
    for name in NORMALISATIONS:
        assert score_depth(depth, labels.byte(), name) == score_depth(depth, labels.float(), name)


def test_depth_is_resized_to_the_label() -> None:
    """A ramp stays one, bicubically in float and bilinearly in 8 bits."""
    depth = torch.linspace(0, 1, 24).expand(1, 24, 24)
    label = torch.linspace(0, 1, 32).expand(1, 32, 32) * 255
    for name, tolerance in (("min-max", 4.0), ("max", 4.0)):
        value = values(score_depth(depth, label, name), "depth_rmse")[0]
        assert value is not None and 0 < value < tolerance


def test_flat_maps_have_no_value() -> None:
    ramp, flat = torch.linspace(0, 1, 8).expand(1, 8, 8), torch.ones(1, 8, 8)
    for name in NORMALISATIONS:
        scores = score_depth(ramp, flat, name)
        assert (values(scores, "depth_rmse"), reasons(scores)) == ([None], [{"depth_rmse": FLAT_LABEL}])
        scores = score_depth(0 * flat, ramp, name)
        assert (values(scores, "depth_rmse"), reasons(scores)) == ([None], [{"depth_rmse": FLAT_DEPTH}])
    assert values(score_depth(flat, ramp, "min-max"), "depth_rmse") == [None]
    assert values(score_depth(flat, ramp, "max"), "depth_rmse") != [None]  # 255 everywhere


def test_unfit_input_is_refused() -> None:
    maps = torch.rand(2, 8, 8)
    with pytest.raises(ValueError):
        score_depth(maps, maps, "mean")
    with pytest.raises(ValueError):
        score_depth(maps[:1], maps, "max")
    broken = maps.clone()
    broken[1, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="image 1"):
        score_depth(broken, maps, "max")
