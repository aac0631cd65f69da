import copy

import pytest
import torch
from torch import nn

from editar.config import SamplingConfig
from editar.decoding.cpu.linear import Int8Linear, pack
from editar.decoding.decoder import Decoder
from tests.editar.marks import COMPILER

pytestmark = COMPILER


@pytest.fixture(scope="module")
def weight():
    return torch.randn(64, 96, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 64)[:, None]


def rounded(weight):
    scale = weight.double().abs().amax(1, keepdim=True) / 127
    return (weight / scale).round() * scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_the_weights_are_rounded(weight, dtype):
    x = torch.randn(2, 5, 96, generator=torch.Generator().manual_seed(1)).to(dtype)
    x[0, 0] *= 1e6
    x[1, 4] = 0
    expected = x.double() @ rounded(weight).T
    result = Int8Linear(weight)(x)
    assert result.dtype == dtype and result.shape == (2, 5, 64)
    scale = x.double().norm(dim=-1, keepdim=True) * rounded(weight).norm(dim=-1)
    assert ((result.double() - expected).abs() <= (5e-5 if dtype == torch.float32 else 4e-3) * scale).all()
    assert not result[1, 4].any()


def test_whole_numbers_are_exact():
    weight = torch.randint(-127, 128, (32, 64), generator=torch.Generator().manual_seed(0)).float()
    weight[:, 0] = 127
    x = torch.randint(-63, 64, (3, 64), generator=torch.Generator().manual_seed(1)).float()
    x[:, 1] = 63  # all of the largest magnitude, as saturation would show
    assert torch.equal(Int8Linear(weight)(x), x @ weight.T)
    full = torch.full((1, 64), 63.0)
    assert torch.equal(Int8Linear(torch.full((32, 64), 127.0))(full), torch.full((1, 32), 64 * 63 * 127.0))


def test_a_row_does_not_depend_on_its_company(weight):
    linear = Int8Linear(weight)
    x = torch.randn(17, 96, generator=torch.Generator().manual_seed(1)) * torch.logspace(-4, 4, 17)[:, None]
    together = linear(x)
    assert all(torch.equal(linear(x[i : i + 1])[0], together[i]) for i in range(17))


@torch.no_grad()
def test_a_quantised_model_stays_close_and_decodes(tiny, tiny_expected):
    e, model = tiny_expected, copy.deepcopy(tiny)
    pack(model, Int8Linear)
    assert not any(isinstance(m, nn.Linear) for m in [*model.layers.modules(), model.output])
    logits = model(e["src"], e["txt"], e["tgt"])
    assert (logits - e["logits"]).std() < 0.05 * e["logits"].std()
    rounded_model = copy.deepcopy(tiny)
    for module in [*rounded_model.layers.modules(), rounded_model.output]:
        if isinstance(module, nn.Linear):
            module.weight.copy_(rounded(module.weight))
    expected = rounded_model(e["src"], e["txt"], e["tgt"])
    assert (logits - expected).std() < 2e-3 * expected.std()
    inputs = e["src"], e["txt"], [0, 0], SamplingConfig(temperature=0.0)
    tokens = Decoder(model).generate(*inputs, width=1)
    assert torch.equal(tokens, Decoder(model).generate(*inputs, width=8))


def test_other_devices_are_refused():
    with pytest.raises(ValueError):
        Int8Linear(torch.empty(2, 2, device="meta"))
