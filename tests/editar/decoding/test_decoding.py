"""Cached decoding against what it must equal: the whole sequence at once, and itself in other company."""

import copy

import pytest
import torch
from torch import Tensor

from editar.config import SamplingConfig
from editar.decoding.cpu.linear import pack
from editar.decoding.cpu.step import can_fuse
from editar.decoding.cuda import capture_steps, compile_blocks
from editar.decoding.decoder import Batch, Decoder
from editar.decoding.forward import CachedTransformer, step_block
from editar.pipeline import EditAR
from tests.editar.decoding.feeding import run_cached
from tests.editar.marks import COMPILER

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(scope="module", params=["plain layers", pytest.param("fused steps", marks=COMPILER)])
def decoded(request, tiny):
    """The model as it decodes where there is no compiler, and as it does on a CPU with one."""
    if request.param == "plain layers":
        return tiny
    model = copy.deepcopy(tiny)
    pack(model)
    assert can_fuse(model)
    return model


@torch.no_grad()
def plain(
    model, condition_BN: Tensor, text_BLE: Tensor, seeds: list[int], settings: SamplingConfig, drawn_BN: Tensor
) -> Tensor:
    """What the reference draws after each beginning of `drawn_BN`: no cache, both branches whole, sorted logits.

    Attention is causal, so if that is `drawn_BN` again, drawing one token after the other gives nothing else either.
    """
    logits = model(condition_BN, text_BLE, drawn_BN)
    if settings.guidance > 1:
        without = model(condition_BN, text_BLE, drawn_BN, None, torch.ones(len(text_BLE), dtype=torch.bool))
        logits = without + settings.guidance * (logits - without)
    tokens = torch.empty_like(drawn_BN)
    for row, seed in enumerate(seeds):
        uniforms = torch.rand(drawn_BN.shape[1], generator=torch.Generator().manual_seed(seed))
        for i, uniform in enumerate(uniforms):
            tokens[row, i] = draw(logits[row, i].double(), float(uniform), settings)
    return tokens


def draw(logits_V: Tensor, uniform: float, settings: SamplingConfig) -> Tensor:
    if settings.temperature == 0:
        return logits_V.argmax()
    ordered, tokens = (logits_V / settings.temperature).sort(descending=True)
    if settings.top_k:
        ordered[settings.top_k :] = float("-inf")
    before = ordered.softmax(0).cumsum(0).roll(1)
    before[0] = 0
    ordered[before > settings.top_p] = float("-inf")
    probabilities = torch.zeros_like(logits_V).index_copy_(0, tokens, ordered.softmax(0))
    return (probabilities.cumsum(0) > uniform).nonzero()[0, 0]


@torch.no_grad()
@pytest.mark.parametrize("stride", [1, 7, 64])
def test_cached_logits_equal_the_whole_forward(tiny, tiny_expected, stride):
    e = tiny_expected
    model = CachedTransformer(tiny, images=2, rows_each=1, stride=stride)
    logits = run_cached(model, e["tgt"], model.prefill(e["src"], e["txt"]))
    torch.testing.assert_close(logits, tiny(e["src"], e["txt"], e["tgt"]), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_rows_that_share_an_image_equal_rows_of_their_own(tiny, tiny_expected):
    e = tiny_expected
    texts, targets = e["txt"].repeat_interleave(2, 0), torch.cat([e["tgt"], e["tgt"].flip(1)])
    null = torch.tensor([False, True, True, False])
    shared = CachedTransformer(tiny, images=2, rows_each=2)
    logits = run_cached(shared, targets, shared.prefill(e["src"], texts, null))
    own = tiny(e["src"].repeat_interleave(2, 0), texts, targets, None, null)
    torch.testing.assert_close(logits, own, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_cache_serves_one_batch_after_another(tiny, three):
    condition, text, _ = three
    target = condition.flip(1)
    used, fresh = (CachedTransformer(tiny, images=1, rows_each=1, stride=16) for _ in range(2))
    run_cached(used, target[:1], used.prefill(condition[:1], text[:1]))
    again = run_cached(used, target[1:2], used.prefill(condition[1:2], text[1:2]))
    assert torch.equal(again, run_cached(fresh, target[1:2], fresh.prefill(condition[1:2], text[1:2])))


@torch.no_grad()
def test_the_cache_has_the_needed_length_and_the_prefix_once(tiny, three):
    condition, text, _ = three
    model = CachedTransformer(tiny, images=3, rows_each=2, stride=60)
    model.prefill(condition, text.repeat_interleave(2, 0))
    layer = model.layers[0]
    assert layer.prefix_k.shape == (3, 4, 64, 16)
    assert layer.own_k.shape == (3, 4, 2, 60, 16) and layer.own_k.is_contiguous()
    assert [model.make_room(fed) for fed in (0, 58, 59, 62)] == [60, 60, 64, 64]
    kept = sum(t.untyped_storage().nbytes() for c in model.layers for t in (c.prefix_k, c.prefix_v, c.own_k, c.own_v))
    assert kept == 3 * 4 * tiny.config.cached_numbers(rows=2)


@torch.no_grad()
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_zero_keys_weigh_like_one_position_with_the_logit_log_l_and_the_mean_value(scale):
    """The identity behind the text's single slot, in double precision, against softmax over all positions."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (scale * torch.randn(n, 8, generator=generator, dtype=torch.float64) for n in (2, 30, 150))
    every = torch.cat([k, torch.zeros(120, 8, dtype=torch.float64)])
    full = (q @ every.T).softmax(-1) @ v
    one = torch.cat([q @ k.T, torch.full((2, 1), 120.0, dtype=torch.float64).log()], 1)
    short = one.softmax(-1) @ torch.cat([v[:30], v[30:].mean(0, keepdim=True)])
    torch.testing.assert_close(short, full, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"temperature": 0.0, "guidance": 1.5},
        {"temperature": 0.0, "guidance": 1.0},  # the branch without text is not run at all
        {},
        {"temperature": 0.5, "top_k": 0},
        {"top_k": 5},
        {"top_k": 0, "top_p": 0.8},
        {"top_k": 20, "top_p": 0.9},
        {"guidance": 1.0, "temperature": 1.5, "top_k": 50, "top_p": 0.7},
    ],
    ids=str,
)
def test_tokens_equal_those_of_the_whole_forward_for_every_option(tiny, decoded, three, options):
    """Images of three instructions, two at a time."""
    condition, text, seeds = three
    settings = SamplingConfig(**options)
    tokens = Decoder(decoded).generate(condition, text, seeds, settings, width=2)
    assert torch.equal(tokens, plain(tiny, condition, text, seeds, settings, tokens))


@COMPILER
def test_tokens_of_int8_weights_equal_those_of_the_whole_forward(official_folder, three):
    """The same rounded matrices on both sides; the cache is all that differs."""
    model = EditAR.from_pretrained(official_folder, int8=True, width=2)
    condition, text, seeds = three
    settings = SamplingConfig(top_k=20)
    tokens = model.decoder.generate(condition, text, seeds, settings, width=2)
    assert torch.equal(tokens, plain(model.transformer, condition, text, seeds, settings, tokens))


@pytest.mark.parametrize("width", [1, 3, 8])
def test_greedy_tokens_are_the_same_at_every_width(decoded, tiny_expected, width):
    e = tiny_expected
    tokens = Decoder(decoded).generate(e["src"], e["txt"], [0, 0], SamplingConfig(temperature=0.0), width=width)
    assert torch.equal(tokens, e["greedy_cfg3"])


def test_tokens_depend_on_neither_batch_size_nor_order(decoded, three):
    condition, text, seeds = three
    settings = SamplingConfig(guidance=3.0, top_k=0)
    decoder = Decoder(decoded)
    together = decoder.generate(condition, text, seeds, settings, width=4)
    two_blocks = decoder.generate(condition.repeat(2, 1), text.repeat(2, 1, 1), seeds * 2, settings, width=4)
    backwards = decoder.generate(condition.flip(0), text.flip(0), seeds[::-1], settings, width=4)
    alone = decoder.generate(condition[2:], text[2:], seeds[2:], settings, width=4)
    assert torch.equal(two_blocks, together.repeat(2, 1))
    assert torch.equal(backwards.flip(0), together)
    assert torch.equal(alone[0], together[2])


@pytest.mark.parametrize("threads", [1, 2, 3])
@torch.no_grad()
def test_logits_of_an_image_are_bitwise_the_same_in_every_company(tiny, three, threads):
    """What the fixed width relies on, at the precision of the last bit."""
    condition, text, _ = three
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        logits = []
        for order in ([0, 1, 2, 2], [2, 0, 0, 0], [1, 1, 1, 0]):
            model = CachedTransformer(tiny, images=4, rows_each=2)
            first = model.prefill(condition[order], text[order].repeat_interleave(2, 0))
            every = run_cached(model, condition[order].repeat_interleave(2, 0)[:, :6], first)
            row = 2 * order.index(0)
            logits.append(every[row : row + 2])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(other, logits[0]) for other in logits[1:])


def test_progress_is_told_of_each_token_of_each_block(tiny, three):
    condition, text, seeds = three
    calls: list[None] = []
    Decoder(tiny).generate(condition, text, seeds, SamplingConfig(), width=2, progress=lambda: calls.append(None))
    assert len(calls) == 2 * 64


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("options", [{}, {"temperature": 0.0}, {"guidance": 1.0}])
def test_logits_that_are_not_finite_are_an_error(tiny_config, tiny, three, value, options):
    model = type(tiny)(tiny_config).eval()
    model.load_state_dict(tiny.state_dict())
    with torch.no_grad():
        model.output.weight[5] = value
    condition, text, seeds = three
    with pytest.raises(FloatingPointError, match="not finite"):
        Decoder(model).generate(condition, text, seeds, SamplingConfig(**options))
    Decoder(tiny).generate(condition, text, seeds, SamplingConfig(**options))


@pytest.mark.parametrize("options", [{"guidance": 1e38}, {"temperature": 1e-40}])
def test_settings_that_make_logits_overflow_are_an_error(tiny, three, options):
    condition, text, seeds = three
    with pytest.raises(FloatingPointError, match="guidance or 1 / temperature"):
        Decoder(tiny).generate(condition, text, seeds, SamplingConfig(**options))


@pytest.mark.parametrize("seed", [-1, 2**63, 10**19])
def test_seeds_out_of_range_are_refused(tiny, three, seed):
    condition, text, _ = three
    with pytest.raises(ValueError, match=f"seed is {seed}"):
        Decoder(tiny).generate(condition[:1], text[:1], [seed], SamplingConfig())


def test_another_seed_gives_other_tokens(tiny, three):
    condition, text, _ = three
    pair = condition[:1].repeat(2, 1), text[:1].repeat(2, 1, 1)
    tokens = Decoder(tiny).generate(*pair, [1, 2], SamplingConfig())
    assert not torch.equal(tokens[0], tokens[1])


def test_a_model_that_has_decoded_can_be_trained(tiny_config, tiny, three):
    model = type(tiny)(tiny_config)
    model.load_state_dict(tiny.state_dict())
    condition, text, seeds = three
    Decoder(model.eval()).generate(condition[:1], text[:1], seeds[:1], SamplingConfig(), width=1)
    model(condition[:1], text[:1], condition[:1]).sum().backward()


def test_counts_must_agree(tiny, three):
    condition, text, seeds = three
    with pytest.raises(ValueError, match="2 seeds"):
        Decoder(tiny).generate(condition, text, seeds[:2], SamplingConfig())
    with pytest.raises(ValueError):
        CachedTransformer(tiny, images=3, rows_each=2).prefill(condition, text)


@torch.no_grad()
def test_one_compiled_layer_serves_all_layers_and_breaks_nowhere(tiny, three):
    """As compiled for CUDA, but for the code generator, which needs a compiler of the machine."""
    condition, text, _ = three
    compilations = []

    def backend(graph, inputs):
        compilations.append(len(inputs))
        return graph

    torch._dynamo.reset()
    model = CachedTransformer(tiny, images=1, rows_each=2, stride=32)
    model.step_block = torch.compile(step_block, dynamic=False, fullgraph=True, backend=backend)
    plain = CachedTransformer(tiny, images=1, rows_each=2, stride=32)
    rows = (condition[:1], text[:1].repeat(2, 1, 1))
    target = condition[1:].contiguous()
    logits = [run_cached(m, target, m.prefill(*rows)) for m in (model, plain)]
    assert torch.equal(logits[0], logits[1])
    assert len(compilations) == 2  # for 32 slots and for 64


@torch.no_grad()
def test_a_compiler_that_fails_is_told_of_and_done_without(tiny, three, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda *a, **k: 1 / 0)
    condition, text, _ = three
    model = CachedTransformer(tiny, images=1, rows_each=1)
    with pytest.warns(UserWarning, match="ZeroDivisionError"):
        compile_blocks(model, torch.zeros(1, dtype=torch.int64))
    logits = run_cached(model, condition[:1], model.prefill(condition[:1], text[:1]))
    torch.testing.assert_close(logits, tiny(condition[:1], text[:1], condition[:1]), rtol=1e-4, atol=1e-5)


def test_graphs_that_fail_are_told_of_and_done_without(tiny, monkeypatch):
    def no_graph(*_):
        raise RuntimeError("CUDA error: operation not permitted\nmore of it")

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", no_graph)
    batch = Batch(tiny, 1, SamplingConfig())
    with pytest.warns(UserWarning, match="CUDA graph"):
        assert capture_steps(batch.model, batch.step) is None


@CUDA
def test_greedy_tokens_of_cuda_graphs_equal_the_authors_code(tiny_config, tiny, tiny_expected):
    model = type(tiny)(tiny_config).cuda().eval()
    model.load_state_dict(tiny.state_dict())
    e = {name: value.cuda() for name, value in tiny_expected.items()}
    decoder, settings = Decoder(model), SamplingConfig(temperature=0.0)
    decoder.warm_up(2, settings)
    for _ in range(2):
        tokens = decoder.generate(e["src"], e["txt"], [0, 0], settings, width=2)
        assert torch.equal(tokens, e["greedy_cfg3"])
