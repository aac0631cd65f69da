"""The matrices laid out for a CPU's memory give what the plain layers give, alone and in a model."""

import copy

import pytest
import torch
import torch.nn.functional as F

from editar.config import SamplingConfig
from editar.decoding import Decoder
from editar.packed import PackedLinear, can_pack, pack

pytestmark = pytest.mark.skipif(not can_pack(torch.zeros(1)), reason="PyTorch was built without oneDNN")
DTYPES = [
    torch.float32,
    pytest.param(
        torch.bfloat16,
        marks=pytest.mark.skipif(not can_pack(torch.zeros(1).bfloat16()), reason="oneDNN has no bfloat16 here"),
    ),
]


@pytest.fixture(scope="module")
def weight():
    return torch.randn(48, 96, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (3, 1), (5, 1), (2, 70)])
def test_a_packed_layer_multiplies(weight, dtype, shape):
    x = torch.randn(*shape, 96, generator=torch.Generator().manual_seed(1)).to(dtype)
    result = PackedLinear(weight.to(dtype))(x)
    expected = F.linear(x.double(), weight.to(dtype).double())
    assert result.dtype == dtype and result.shape == (*shape, 48)
    assert (result - expected).abs().max() <= (8 if dtype == torch.float32 else 1) * torch.finfo(
        dtype
    ).eps * expected.abs().max()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_does_not_depend_on_the_values_beside_it(weight, dtype):
    linear = PackedLinear(weight.to(dtype))
    x, other = torch.randn(2, 8, 96, generator=torch.Generator().manual_seed(1)).to(dtype)
    company = torch.cat([other[:5], x[5:6], other[6:]])
    assert torch.equal(linear(x)[5], linear(company)[5])


@torch.no_grad()
def test_a_packed_model_gives_the_reference_logits_and_greedy_tokens(tiny, tiny_expected):
    e, model = tiny_expected, copy.deepcopy(tiny)
    pack(model)
    torch.testing.assert_close(model(e["src"], e["txt"], e["tgt"]), e["logits"], rtol=1e-4, atol=1e-4)
    inputs = e["src"], e["txt"], [0, 0], SamplingConfig(temperature=0.0)
    expected = Decoder(tiny).generate(*inputs, width=1)
    for width in (1, 2, 8):
        assert torch.equal(Decoder(model).generate(*inputs, width=width), expected)


def test_what_onednn_cannot_take_stays_plain():
    assert not can_pack(torch.zeros(1, dtype=torch.float64))
    assert not can_pack(torch.zeros(1, device="meta"))
