import math

import pytest
import torch

from editar.config import SamplingConfig
from editar.decoding.decoder import Decoder
from editar.decoding.sampling import draw_uniforms, guide, inverse_cdf, keep_top_k, keep_top_p, sample

INF = float("inf")


@pytest.mark.parametrize(("guidance", "name"), [(1.0, "greedy_cfg1"), (3.0, "greedy_cfg3")])
def test_greedy_tokens_equal_the_authors_code(tiny, tiny_expected, guidance, name):
    settings = SamplingConfig(guidance=guidance, temperature=0.0)
    tokens = Decoder(tiny).generate(tiny_expected["src"], tiny_expected["txt"], [0, 0], settings)
    assert torch.equal(tokens, tiny_expected[name])


def test_top_k_1_is_greedy(tiny, tiny_expected):
    settings = SamplingConfig(guidance=3.0, top_k=1)
    tokens = Decoder(tiny).generate(tiny_expected["src"], tiny_expected["txt"], [5, 6], settings)
    assert torch.equal(tokens, tiny_expected["greedy_cfg3"])


def test_guidance_is_equation_5_and_inactive_up_to_1(tiny, tiny_expected):
    logits = torch.tensor([[1.0, 2.0], [0.0, 4.0]])
    assert torch.equal(guide(logits, 3.0), torch.tensor([[3.0, -2.0]]))
    source = tiny_expected["src"], tiny_expected["txt"]
    half, one = (Decoder(tiny).generate(*source, [1, 2], SamplingConfig(guidance=g)) for g in (0.5, 1))
    assert torch.equal(half, one)


def test_top_k_keeps_ties_and_0_keeps_all():
    logits = torch.tensor([[3.0, 1.0, 2.0, 2.0, 0.0]])
    assert torch.equal(keep_top_k(logits, 2), torch.tensor([[3.0, -INF, 2.0, 2.0, -INF]]))
    assert torch.equal(keep_top_k(logits, 0), logits)
    assert torch.equal(keep_top_k(logits, 9), logits)


def test_top_p_keeps_the_token_that_crosses():
    logits = torch.tensor([[0.1, 0.5, 0.15, 0.25]]).log()
    kept = keep_top_p(logits, 0.6).isfinite()
    assert kept.tolist() == [[False, True, False, True]]
    assert torch.equal(keep_top_p(logits, 1.0), logits)
    assert keep_top_p(logits, 1e-6).isfinite().tolist() == [[False, True, False, False]]


@pytest.mark.parametrize("k", [0, 5, 40])
@pytest.mark.parametrize("p", [0.05, 0.5, 0.9, 0.999])
def test_top_p_equals_a_stable_sort_with_and_without_ties(k, p):
    generator = torch.Generator().manual_seed(k)
    logits = torch.randn(64, 50, generator=generator)
    logits[32:] = (2 * logits[32:]).round() / 2  # many equal ones
    kept = keep_top_k(logits, k)
    ordered, order = kept.double().sort(dim=-1, descending=True, stable=True)
    before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
    expected = torch.zeros_like(kept, dtype=torch.bool).scatter(-1, order, (before <= p) & ordered.isfinite())
    assert torch.equal(keep_top_p(kept, p, finite=k).isfinite(), expected)


def test_inverse_cdf_never_draws_what_has_no_probability():
    probabilities = torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]]).repeat(4, 1)
    uniforms = torch.tensor([0.0, 0.2499, 0.25, 1 - 2**-24])
    assert inverse_cdf(probabilities, uniforms).tolist() == [1, 1, 3, 3]


def test_inverse_cdf_follows_the_distribution():
    uniforms = draw_uniforms([7], 4000)[0]
    tokens = inverse_cdf(torch.tensor([[0.2, 0.3, 0.5]]).repeat(4000, 1), uniforms)
    frequencies = tokens.bincount(minlength=3) / 4000
    torch.testing.assert_close(frequencies, torch.tensor([0.2, 0.3, 0.5]), rtol=0, atol=0.03)


def test_temperature_sharpens():
    logits = torch.tensor([[0.0, 1.0]]).repeat(2000, 1)
    uniforms = draw_uniforms([3], 2000)[0]
    hot, cold = (sample(logits, uniforms, SamplingConfig(temperature=t, top_k=0)).float().mean() for t in (4.0, 0.25))
    assert 0.5 < hot < 0.62
    assert cold > 0.96


def test_uniforms_depend_on_the_seed_alone():
    both = draw_uniforms([3, 2**62], 5)
    assert torch.equal(both[1:], draw_uniforms([2**62], 5))
    assert not torch.equal(both[0], both[1])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("guidance", -1.0), ("guidance", math.inf), ("guidance", math.nan), ("guidance", "3"), ("temperature", -0.1),
        ("temperature", math.inf), ("temperature", True), ("top_k", -1), ("top_k", 2.5), ("top_k", True),
        ("top_p", 0.0), ("top_p", 1.5), ("top_p", math.nan),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value!r}"):
        SamplingConfig(**{field: value})
