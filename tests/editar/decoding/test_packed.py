"""The matrices laid out for a CPU's memory give what the plain layers give, alone and in a model."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F

from editar.config import SamplingConfig
from editar.decoding.cpu.linear import PackedLinear, can_pack, pack
from editar.decoding.decoder import Decoder
from editar.model.transformer import EditARTransformer
from tests.editar.marks import COMPILER

pytestmark = COMPILER

DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(scope="module")
def weight():
    return torch.randn(64, 96, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (3, 1), (5, 1), (17, 1), (2, 70)])
def test_a_packed_layer_multiplies(weight, dtype, shape):
    x = torch.randn(*shape, 96, generator=torch.Generator().manual_seed(1)).to(dtype)
    result = PackedLinear(weight.to(dtype))(x)
    expected = F.linear(x.double(), weight.to(dtype).double())
    assert result.dtype == dtype and result.shape == (*shape, 64)
    assert (result - expected).abs().max() <= (8 if dtype == torch.float32 else 1) * torch.finfo(
        dtype
    ).eps * expected.abs().max()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_does_not_depend_on_its_company(weight, dtype):
    linear = PackedLinear(weight.to(dtype))
    x = torch.randn(17, 96, generator=torch.Generator().manual_seed(1)).to(dtype)
    together = linear(x)
    assert all(torch.equal(linear(x[:count]), together[:count]) for count in range(1, 17))
    assert torch.equal(linear(x.flip(0)).flip(0), together)


@torch.no_grad()
def test_a_packed_model_gives_the_reference_logits_and_greedy_tokens(tiny, tiny_expected):
    e, model = tiny_expected, copy.deepcopy(tiny)
    pack(model)
    torch.testing.assert_close(model(e["src"], e["txt"], e["tgt"]), e["logits"], rtol=1e-4, atol=1e-4)
    inputs = e["src"], e["txt"], [0, 0], SamplingConfig(temperature=0.0)
    expected = Decoder(tiny).generate(*inputs, width=1)
    for width in (1, 2, 8):
        assert torch.equal(Decoder(model).generate(*inputs, width=width), expected)


def test_what_fills_no_blocks_stays_plain(tiny_config):
    for change in ({"vocab_size": 100}, {"dim": 56, "heads": 7}):
        assert not can_pack(EditARTransformer(dataclasses.replace(tiny_config, **change)))
    with pytest.raises(ValueError):
        PackedLinear(torch.zeros(40, 64))


@pytest.mark.parametrize("kind", [torch.float64, "meta"])
def test_other_numbers_and_devices_stay_plain(tiny, kind):
    assert can_pack(tiny) and not can_pack(copy.deepcopy(tiny).to(kind))
