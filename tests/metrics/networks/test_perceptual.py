"""LPIPS against torchmetrics and against the `lpips` package."""

import pytest
import torch
from torch import Tensor
from torchvision.models import squeezenet1_1

from metrics.networks.lpips import OfficialLpips
from metrics.networks.official import Found
from tests.photographs import photographs


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Found:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("lpips") / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    path.parent.mkdir()
    torch.save(squeezenet1_1(weights=None).state_dict(), path)
    return Found(path=path, digest="3" * 64, official=True)


def pixels(batch: int, height: int, width: int, first: int) -> Tensor:
    return photographs(batch, height, width, first) / 255


@pytest.mark.parametrize(("height", "width"), [(64, 64), (75, 98)])
@torch.inference_mode()
def test_equals_torchmetrics(weights: Found, monkeypatch: pytest.MonkeyPatch, height: int, width: int) -> None:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    monkeypatch.setattr(torch.hub, "_hub_dir", str(weights.path.parents[1]))
    oracle = LearnedPerceptualImagePatchSimilarity(net_type="squeeze")
    a, b = pixels(3, height, width, 0), pixels(3, height, width, 1)
    lpips = OfficialLpips(weights)
    distances = lpips.distance(lpips.features(a), lpips.features(b))
    for i in range(3):
        expected = oracle(a[i : i + 1] * 2 - 1, b[i : i + 1] * 2 - 1)
        assert distances[i].item() == pytest.approx(expected.item(), rel=1e-5)


@torch.inference_mode()
def test_equals_the_lpips_package(weights: Found) -> None:
    import lpips as package

    oracle = package.LPIPS(net="squeeze", pnet_rand=True, verbose=False)
    state = torch.load(weights.path, weights_only=True)
    features = {name.removeprefix("features."): value for name, value in state.items() if name.startswith("features.")}
    for name, parameter in oracle.net.named_parameters():
        parameter.copy_(features[name.partition(".")[2]])
    a, b = pixels(1, 64, 64, 0), pixels(1, 64, 64, 1)
    lpips = OfficialLpips(weights)
    mine = lpips.distance(lpips.features(a), lpips.features(b))
    assert mine.item() == pytest.approx(oracle(a * 2 - 1, b * 2 - 1).item(), rel=1e-5)


@torch.inference_mode()
def test_is_zero_for_identical_images_and_symmetric(weights: Found) -> None:
    lpips = OfficialLpips(weights)
    a, b = lpips.features(pixels(2, 64, 64, 0)), lpips.features(pixels(2, 64, 64, 1))
    assert lpips.distance(a, a).tolist() == [0, 0]
    assert torch.equal(lpips.distance(a, b), lpips.distance(b, a))


@torch.inference_mode()
def test_black_images_have_a_distance(weights: Found) -> None:
    """Where all channels of a layer are 0, the length they are divided by is not."""
    lpips = OfficialLpips(weights)
    black, white = lpips.features(torch.zeros(1, 3, 64, 64)), lpips.features(torch.ones(1, 3, 64, 64))
    assert torch.isfinite(lpips.distance(black, white)).all()
