"""PSNR, MSE and SSIM against torchmetrics, scikit-image and slow float64 versions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import mean_squared_error, structural_similarity
from skimage.metrics import peak_signal_noise_ratio as skimage_psnr
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from metrics.functional import background
from tests.photographs import photographs


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator).float() / 255


def slow_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Direct double loop over windows in float64: a, b (C, H, W)."""
    offsets = np.arange(-5, 6)
    taps = np.exp(-((offsets / 1.5) ** 2) / 2)
    window = np.outer(taps, taps) / taps.sum() ** 2
    a, b = (np.pad(x.astype(np.float64), ((0, 0), (5, 5), (5, 5)), mode="reflect") for x in (a, b))
    values = []
    for c in range(a.shape[0]):
        for y in range(a.shape[1] - 10):
            for x in range(a.shape[2] - 10):
                p, q = a[c, y : y + 11, x : x + 11], b[c, y : y + 11, x : x + 11]
                mean_p, mean_q = (window * p).sum(), (window * q).sum()
                var_p, var_q = (window * p**2).sum() - mean_p**2, (window * q**2).sum() - mean_q**2
                cov = (window * p * q).sum() - mean_p * mean_q
                luminance = (2 * mean_p * mean_q + 1e-4) / (mean_p**2 + mean_q**2 + 1e-4)
                values.append(luminance * (2 * cov + 9e-4) / (var_p + var_q + 9e-4))
    return float(np.mean(values))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (17, 40), (64, 48)])
def test_ssim_equals_torchmetrics(height: int, width: int) -> None:
    a, b = images(3, 3, height, width), images(3, 3, height, width, seed=1)
    for other in (b, (a * 0.9 + b * 0.1), a.roll(1, -1)):
        expected = structural_similarity_index_measure(other, a, data_range=1.0, reduction="none")
        torch.testing.assert_close(background.ssim(other, a), expected, rtol=1e-5, atol=1e-5)


def test_ssim_equals_the_slow_float64_version() -> None:
    a = images(1, 2, 14, 13)
    b = (a + 0.1 * images(1, 2, 14, 13, seed=1)).clamp(max=1)
    assert background.ssim(a, b).item() == pytest.approx(slow_ssim(a[0].numpy(), b[0].numpy()), rel=1e-5)


def edited_photographs() -> tuple[torch.Tensor, torch.Tensor]:
    """Four photographs (4, 3, 96, 128) in [0, 1], and what blur, noise, a shift and other colours make of them."""
    sources = photographs(4, 96, 128) / 255
    blurred, noisy, shifted, coloured = sources
    changed = [
        torch.nn.functional.avg_pool2d(blurred, 5, 1, 2),
        (noisy + 0.1 * (images(3, 96, 128) - 0.5)).clamp(0, 1),
        shifted.roll((1, 2), (-2, -1)),
        coloured.flip(0),
    ]
    return sources, torch.stack(changed)


def test_ssim_equals_scikit_image() -> None:
    """Its Gaussian window has the same 11 taps and its (co)variances are divided by n as well. At borders it repeats
    the last pixel where torchmetrics mirrors, but leaves them out of the mean: given images that are mirrored by five
    pixels, its mean is that of the full canvas. It computes in float64; ours is float32 arithmetic on second moments.
    """
    for source, edit in zip(*edited_photographs(), strict=True):
        mirrored = [np.pad(x.double().numpy(), ((0, 0), (5, 5), (5, 5)), mode="reflect") for x in (edit, source)]
        expected = structural_similarity(
            *mirrored, data_range=1, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert background.ssim(edit[None], source[None]).item() == pytest.approx(expected, abs=1e-5)
        assert expected < 0.98


def test_psnr_and_mse_equal_scikit_image() -> None:
    sources, edits = edited_photographs()
    errors = background.mse(edits, sources)
    for source, edit, error, psnr in zip(sources, edits, errors, background.psnr(errors), strict=True):
        pair = source.double().numpy(), edit.double().numpy()
        assert error.item() == pytest.approx(mean_squared_error(*pair), rel=1e-6)
        assert psnr.item() == pytest.approx(skimage_psnr(*pair, data_range=1), rel=1e-6)


def test_ssim_takes_the_moments_of_a_source_from_the_caller() -> None:
    a, b = images(2, 3, 24, 24), images(2, 3, 24, 24, seed=1)
    assert torch.equal(background.ssim(a, b, background.local_moments(b)), background.ssim(a, b))


def test_psnr_and_mse_equal_torchmetrics_image_by_image() -> None:
    a, b = images(4, 3, 20, 28), images(4, 3, 20, 28, seed=1)
    errors = background.mse(a, b)
    for i in range(4):
        expected = peak_signal_noise_ratio(a[i], b[i], data_range=1.0)
        assert background.psnr(errors)[i].item() == pytest.approx(expected.item(), rel=1e-5)
        assert errors[i].item() == pytest.approx(float(np.mean((a[i].double() - b[i].double()).numpy() ** 2)), rel=1e-6)


def test_identical_images() -> None:
    a = images(2, 3, 16, 16)
    assert background.mse(a, a).tolist() == [0, 0]
    assert background.psnr(background.mse(a, a)).tolist() == [math.inf, math.inf]
    torch.testing.assert_close(background.ssim(a, a), torch.ones(2))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 255), st.integers(0, 255), st.floats(0, 1))
def test_flat_images_have_closed_forms(first: int, second: int, masked: float) -> None:
    """A flat difference d under a mask that hides the share 1 - k of the pixels has MSE k d^2."""
    a, b = torch.full((1, 3, 16, 16), first / 255), torch.full((1, 3, 16, 16), second / 255)
    mask = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    mask.view(-1)[: int(256 * masked)] = True
    errors = background.mse(background.outside(a, mask), background.outside(b, mask))
    shown = 1 - int(256 * masked) / 256
    assert errors.item() == pytest.approx(shown * ((first - second) / 255) ** 2, rel=1e-5, abs=1e-12)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_ssim_is_symmetric_and_at_most_one(seed: int) -> None:
    a, b = images(1, 3, 16, 16, seed=seed), images(1, 3, 16, 16, seed=seed + 1)
    forth, back = background.ssim(a, b), background.ssim(b, a)
    torch.testing.assert_close(forth, back)
    assert -1 <= forth.item() <= 1


def test_what_the_mask_hides_does_not_count() -> None:
    a, b = images(1, 3, 16, 16), images(1, 3, 16, 16, seed=1)
    mask = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    mask[..., :8] = True
    changed = torch.where(mask, b, a)
    assert torch.equal(background.outside(changed, mask), background.outside(a, mask))
    assert background.outside(a, mask)[..., :8].sum() == 0
