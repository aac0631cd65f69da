import pytest
import torch
from safetensors.torch import load_file

from editar.config import VQConfig
from editar.model.vq import VQModel


@pytest.fixture(scope="module")
def expected(parity):
    return load_file(parity / "vq16_expected.safetensors")


@pytest.fixture(scope="module")
def vq16(vq16_state):
    with torch.device("meta"):
        model = VQModel(VQConfig())
    model.load_state_dict(vq16_state, assign=True)
    return model.eval()


@pytest.fixture
def small():
    torch.manual_seed(0)
    return VQModel(VQConfig(channels=8, norm_groups=4, latent_channels=16, codebook_size=32, codebook_dim=4))


def test_keys_and_shapes_equal_the_released_file(parity):
    with torch.device("meta"):
        model = VQModel(VQConfig())
    mine = {f"{name} {tuple(t.shape)}" for name, t in model.state_dict().items()}
    listed = (parity / "vq16_keys.txt").read_text().splitlines()
    assert mine == {line for line in listed if "(" in line}


@torch.no_grad()
def test_vq16_equals_the_authors_code(vq16, expected):
    image = expected["image"].permute(2, 0, 1)[None].float() / 127.5 - 1
    torch.testing.assert_close(vq16.latents(image), expected["latent"], rtol=1e-4, atol=1e-5)
    indices = vq16.encode(image)
    assert indices.dtype == torch.int64
    assert torch.equal(indices, expected["indices"].reshape(1, -1))
    torch.testing.assert_close(vq16.decode(indices), expected["reconstruction"], rtol=1e-4, atol=1e-4)


def test_quantize_takes_the_nearest_normalised_code(small):
    latents = torch.randn(2, 4, 3, 3)
    indices = small.quantize(latents)
    codes = torch.nn.functional.normalize(small.quantize.embedding.weight, dim=-1)
    directions = torch.nn.functional.normalize(latents, dim=1).permute(0, 2, 3, 1).reshape(-1, 4)
    assert torch.equal(indices.flatten(), torch.cdist(directions, codes).argmin(1))
    torch.testing.assert_close(small.quantize.lookup(indices).reshape(-1, 4), codes[indices.flatten()])


def test_bfloat16_autocast_and_channels_last_work_and_quantize_in_float32(small):
    images = (torch.rand(1, 3, 32, 48) * 2 - 1).to(memory_format=torch.channels_last)
    small = small.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        assert small.latents(images).dtype == torch.bfloat16
        latents = small.latents(images)
        assert torch.equal(small.encode(images), small.quantize(latents))
        assert small.quantize.lookup(small.quantize(latents)).dtype == torch.float32
    assert torch.equal(small.quantize(latents), small.quantize(latents.float()))


@torch.no_grad()
def test_grids_that_are_not_square(small):
    indices = small.encode(torch.rand(1, 3, 32, 64) * 2 - 1)
    assert small.decode(indices, grid=(2, 4)).shape == (1, 3, 32, 64)
    with pytest.raises(ValueError):
        small.decode(indices)


def test_image_sides_must_fit_the_grid(small):
    with pytest.raises(ValueError):
        small.encode(torch.zeros(1, 3, 40, 32))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 20}, "level of 20 channels can't be split into norm_groups=32"),
        ({"codebook_size": 0}, "codebook_size is 0"),
        ({"multipliers": ()}, "multipliers is \(\)"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        VQConfig(**settings)
