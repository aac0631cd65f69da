"""What must come out whatever the weights are, on a small Stable Diffusion, and what must not move a result."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor

from baselines.inversion.base import InversionMethod
from baselines.inversion.ddim import sample
from baselines.inversion.masactrl import MasaCtrl, MasaCtrlSettings
from baselines.inversion.null_text import NullTextInversion, NullTextSettings
from baselines.inversion.pix2pix_zero import Pix2PixZero, Pix2PixZeroSettings, autocorrelation, divergence
from baselines.inversion.prompt_to_prompt import PnPInversion, PromptToPrompt, PromptToPromptSettings
from baselines.method import EditRequest, MethodContext
from benchmarks.runs.generate import GuardedMethod

STEPS = 4
MakeRequest = Callable[..., EditRequest]


@pytest.fixture(scope="module")
def p2p(context: MethodContext) -> Callable[..., PromptToPrompt]:
    def build(**changes) -> PromptToPrompt:
        return loaded(PromptToPrompt(context, PromptToPromptSettings(**{"steps": STEPS, **changes})))

    return build


@pytest.fixture(scope="module")
def methods(context: MethodContext) -> dict[str, InversionMethod]:
    every: dict[str, InversionMethod] = {
        "prompt-to-prompt": PromptToPrompt(context, PromptToPromptSettings(steps=STEPS)),
        "pnp-inversion": PnPInversion(context, PromptToPromptSettings(steps=STEPS)),
        "null-text-inversion": NullTextInversion(context, NullTextSettings(steps=STEPS, at_once=2)),
        "masactrl": MasaCtrl(context, MasaCtrlSettings(steps=STEPS, first_step=1)),
        "pix2pix-zero": Pix2PixZero(context, Pix2PixZeroSettings(steps=STEPS)),
    }
    return {name: loaded(method) for name, method in every.items()}


def loaded(method):
    method.load()
    return method


def same(one: Tensor, other: Tensor, tolerance: float = 1e-5) -> bool:
    return bool((one - other).norm() <= tolerance * other.norm())


def plain(
    method: InversionMethod, noisy: Tensor, prompts: Sequence[str], unconditional: Sequence[Tensor] = ()
) -> list[Tensor]:
    """The latents of guided sampling after each step, with diffusers' own attention. unconditional: of each step, by
    default the empty prompt's."""
    seen: list[Tensor] = []

    def after_step(step: int, latents: Tensor) -> Tensor:
        seen.append(latents)
        return latents

    sample(
        method.model, method.schedule, noisy, unconditional or [method.model.embed([""] * len(prompts))] * STEPS,
        method.model.embed(prompts), method.config.guidance, after_step,
    )  # fmt: skip
    return seen


@pytest.mark.parametrize("mapping", ["refine", "replace"])
def test_equal_prompts_give_the_plain_reconstruction(p2p, make_request: MakeRequest, mapping: str) -> None:
    method = p2p(mapping=mapping)
    request = make_request(target_prompt=make_request().source_prompt)
    source, target = method.latents([request])
    reconstruction = plain(method, method.trajectories([request])[-1], [request.source_prompt])[-1]
    assert same(source, reconstruction) and same(target, reconstruction)


def test_prompt_to_prompt_that_replaces_nothing_is_plain_sampling(p2p, make_request: MakeRequest) -> None:
    method = p2p(cross_replace=0.0, self_replace=0.0)
    request = make_request()
    noisy = method.trajectories([request])[-1]
    for branch, prompt in zip(method.latents([request]), (request.source_prompt, request.target_prompt), strict=True):
        assert same(branch, plain(method, noisy, [prompt])[-1])


@pytest.mark.parametrize("share", ["cross_replace", "self_replace"])
def test_each_kind_of_attention_moves_the_target_alone(p2p, make_request: MakeRequest, share: str) -> None:
    nothing = p2p(cross_replace=0.0, self_replace=0.0).latents([make_request()])
    something = p2p(**{"cross_replace": 0.0, "self_replace": 0.0, share: 1.0}).latents([make_request()])
    assert same(something[0], nothing[0]) and not same(something[1], nothing[1], 1e-3)


def test_a_word_weight_of_one_changes_nothing(p2p, make_request: MakeRequest) -> None:
    words = make_request(blend_words=("cat", "dog"))
    without = p2p(blend_start=1.0).latents([make_request()])
    assert same(p2p(blend_start=1.0, word_weight=1.0).latents([words]), without, 1e-7)
    assert not same(p2p(blend_start=1.0, word_weight=2.0).latents([words])[1], without[1], 1e-4)


def test_blending_keeps_the_source_outside_of_the_words(p2p, make_request: MakeRequest) -> None:
    words = make_request(blend_words=("cat", "dog"))
    source, target = p2p(blend_start=0.0, blend_threshold=1.0).latents([words])  # nowhere is above the greatest
    assert torch.equal(source, target)
    large = replace(words, image=words.image.resize((128, 128)))  # the coarsest attention is 4 x 4
    source, target = p2p(blend_threshold=0.99).latents([large])
    outside = (source == target).all(1)
    assert 0 < outside.sum() < outside.numel()
    everywhere = p2p(blend_threshold=0.0, word_weight=1.0).latents([words])
    assert same(everywhere, p2p().latents([make_request()]), 1e-7)


def test_words_to_replace_must_be_as_many(p2p, make_request: MakeRequest) -> None:
    with pytest.raises(ValueError):
        p2p(mapping="replace").latents([make_request()])


def test_a_missing_blend_word_fails_its_request_and_no_other(methods, make_request: MakeRequest) -> None:
    asked = [make_request(0, blend_words=("cat", "dog")), make_request(1, blend_words=("cow", "dog"))]
    good, bad = GuardedMethod(methods["pnp-inversion"]).generate(asked)
    assert not isinstance(good, str)
    assert isinstance(bad, str) and "the word 'cow' is not in the prompt 'a photo of a cat on the mat'" in bad


def test_pnp_inversion_returns_the_source_exactly(methods, make_request: MakeRequest) -> None:
    method = methods["pnp-inversion"]
    requests = [make_request(0), make_request(1, blend_words=("cat", "dog"))]
    source, target = method.latents(requests)
    encoded = method.encode(requests)
    for branch, latent in zip(source, encoded, strict=True):
        assert (method.model.decode(branch) - method.model.decode(latent)).abs().max() < 1e-5
    assert not same(target, encoded, 1e-3)


def test_null_text_brings_every_step_nearer_to_the_trajectory(methods, make_request: MakeRequest) -> None:
    method = methods["null-text-inversion"]
    request = make_request()
    trajectory = method.trajectories([request])
    prompts = [request.source_prompt]
    before, after = (
        torch.stack([(at - wanted).pow(2).mean() for at, wanted in zip(latents, trajectory.flip(0)[1:], strict=True)])
        for latents in (
            plain(method, trajectory[-1], prompts),
            plain(method, trajectory[-1], prompts, method.optimise(trajectory, prompts).unbind(0)),
        )
    )
    assert (after < before).all() and (before > 1e-5).all()
    source, _ = method.latents([request])
    assert same((source - trajectory[0]).pow(2).mean(), after[-1], 1e-2)  # what is sampled is what was fitted


@pytest.mark.parametrize("never", [{"first_step": STEPS}, {"first_step": 0, "first_layer": 1.0}])
def test_masactrl_that_controls_nothing_is_plain_sampling(
    context: MethodContext, make_request: MakeRequest, never: dict[str, float]
) -> None:
    method = loaded(MasaCtrl(context, MasaCtrlSettings(steps=STEPS, **never)))  # type: ignore[arg-type]
    request = make_request()
    noisy = method.trajectories([make_request(source_prompt="")])[-1]
    for branch, prompt in zip(method.latents([request]), ("", request.target_prompt), strict=True):
        assert same(branch, plain(method, noisy, [prompt])[-1])


def test_masactrl_moves_the_target_alone(context: MethodContext, methods, make_request: MakeRequest) -> None:
    free = loaded(MasaCtrl(context, MasaCtrlSettings(steps=STEPS, first_step=STEPS))).latents([make_request()])
    held = methods["masactrl"].latents([make_request()])
    assert same(held[0], free[0]) and not same(held[1], free[1], 1e-3)


def test_pix2pix_zero_with_equal_prompts_is_the_reconstruction(methods, make_request: MakeRequest) -> None:
    source, target = methods["pix2pix-zero"].latents([make_request(target_prompt=make_request().source_prompt)])
    assert same(target, source)
    source, target = methods["pix2pix-zero"].latents([make_request()])
    assert not same(target, source, 1e-3)


def test_pix2pix_zeros_regularisers_know_white_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    white = torch.randn(4, 64, 64, generator=generator)
    smooth = white.roll(1, -1) + white + white.roll(1, -2)
    assert divergence(white).abs() < 1e-3 and divergence(2 * white + 1) > 1
    # A roll by 0, one in 32 for the largest scale, correlates perfectly; the mean over seeds is what counts.
    white_sum, smooth_sum = (
        sum(float(autocorrelation(noise, torch.Generator().manual_seed(seed))) for seed in range(20))
        for noise in (white, smooth / smooth.std())
    )
    assert white_sum < smooth_sum
    assert autocorrelation(torch.ones(4, 64, 64), generator) == 4 * 4 * 2  # channels, scales 64 to 8, directions


@pytest.mark.parametrize(
    "name",
    [
        "prompt-to-prompt",
        "pnp-inversion",
        pytest.param("null-text-inversion", marks=pytest.mark.slow),
        "masactrl",
        pytest.param("pix2pix-zero", marks=pytest.mark.slow),
    ],
)
def test_a_result_does_not_depend_on_its_batch(methods, make_request: MakeRequest, name: str) -> None:
    requests = [
        make_request(0, blend_words=("cat", "dog")),
        make_request(1),
        make_request(2, source_prompt="a cow", target_prompt="a cow on the cat's mat"),
    ]
    method = methods[name]
    together = method.latents(requests)
    for number, request in reversed(list(enumerate(requests))):
        assert same(together[:, [number]], method.latents([request]), 1e-4)
    first, *_ = method.edit(requests[:2])
    assert first.size == requests[0].image.size and first.mode == "RGB"


def test_pix2pix_zeros_randomness_is_the_requests_seed(methods, make_request: MakeRequest) -> None:
    method = methods["pix2pix-zero"]
    one, again, other = (method.latents([make_request(0, seed=seed)]) for seed in (1, 1, 2))
    assert torch.equal(one, again) and not same(other, one, 1e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 0.03), ("bfloat16", 0.25)])
def test_networks_in_half_precision(
    context: MethodContext, methods, make_request: MakeRequest, dtype: Literal["float16", "bfloat16"], tolerance: float
) -> None:
    requests = [make_request(0, blend_words=("cat", "dog"))]
    for name, method in (
        ("pnp-inversion", PnPInversion(context, PromptToPromptSettings(steps=STEPS, dtype=dtype))),
        ("masactrl", MasaCtrl(context, MasaCtrlSettings(steps=STEPS, first_step=1, dtype=dtype))),
        ("pix2pix-zero", Pix2PixZero(context, Pix2PixZeroSettings(steps=STEPS, dtype=dtype))),
    ):
        result = loaded(method).latents(requests)
        assert result.dtype == torch.float32 and same(result, methods[name].latents(requests), tolerance)


def test_null_text_needs_full_precision() -> None:
    with pytest.raises(ValueError):
        NullTextSettings(dtype="float16")
