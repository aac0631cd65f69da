"""The decoding benchmark in small: its opponent decodes right, its bytes are the tensors', its report adds up."""

from dataclasses import asdict

import pytest
import torch

from benchmarks.runs import memory
from benchmarks.speed import decode_cost
from benchmarks.speed.decode import DecodeSpeed, Work, laid_out, measure, positions, random_model, report
from benchmarks.speed.decode_cost import decoding_peak, deviation, jump, token_bytes, weight_bytes
from benchmarks.speed.drafts import miniature
from benchmarks.speed.measure import machine
from benchmarks.speed.plain_decoder import PlainDecoder
from editar.config import SIZES, SamplingConfig, TransformerConfig
from editar.decoding.decoder import Batch, Decoder
from tests.editar.marks import COMPILER

CPU = torch.device("cpu")
SMALL = TransformerConfig(
    layers=2, heads=2, dim=64, vocab_size=96, grid=8, text_length=12, text_dim=16, initial_std=0.3
)
GREEDY = SamplingConfig(temperature=0.0)


@pytest.fixture(scope="module")
def model():
    return random_model(SMALL, CPU, seed=0)


@torch.no_grad()
@pytest.mark.parametrize("seed", [0, 1])
def test_the_plain_decoder_and_ours_draw_the_same_greedy_tokens(model, seed):
    work = Work.random(SMALL, 1, CPU, seed)
    decoder = PlainDecoder(model, 1, GREEDY)
    tokens = [decoder.prefill(work.condition_BN, work.text_BLE)]
    for fed in range(SMALL.image_tokens - 1):
        tokens.append(decoder.step(tokens[-1], fed))
    plain = torch.cat(tokens, dim=1)
    assert torch.equal(plain, Decoder(model).generate(work.condition_BN, work.text_BLE, [0], GREEDY, width=1))
    assert len(plain.unique()) > 5


def test_the_plain_decoder_is_for_the_published_settings(model):
    with pytest.raises(ValueError):
        PlainDecoder(model, 1, SamplingConfig(guidance=1.0))


@torch.no_grad()
def test_a_step_reads_weights_prefix_and_filled_slots(model):
    batch = Batch(model, 2, SamplingConfig())
    jump(batch, 20)
    layers = batch.model.layers
    prefix = sum(t.nbytes for layer in layers for t in (layer.prefix_k, layer.prefix_v))
    filled = sum(t[..., :22, :].numel() * 4 for layer in layers for t in (layer.own_k, layer.own_v))
    matrices = 4 * (2 * (4 * 64 * 64 + 3 * 64 * SMALL.ffn_dim) + 96 * 64)
    assert weight_bytes(model) == matrices
    assert token_bytes(model, images=2, rows_each=2, fed=20) == matrices + prefix + filled
    assert int(batch.model.slot_B[0]) == 21


def test_deviations_are_relative_to_the_spread():
    reference = torch.tensor([[0.0, 2.0], [0.0, 2.0]])  # standard deviation: the root of 2
    result = deviation(reference, reference + torch.tensor([[0.0, 0.0], [3.0, 0.0]]))
    assert result["largest"] == pytest.approx(3 / 2**0.5)
    assert result["typical"] == pytest.approx(3 / 2**0.5 / 2)
    assert result["same_maximum"] == 0.5


def test_positions_are_spread_and_leave_room_for_the_timed_tokens():
    assert positions(SIZES["XL"], 4, 8) == [128, 384, 640, 896]
    assert positions(SMALL, 1, 60) == [1]


@torch.no_grad()
def test_the_same_weights_serve_another_grid(model):
    other = laid_out(model, 4)
    assert other.config.image_tokens == 16 and weight_bytes(other) == weight_bytes(model)
    assert other.norm.weight.data_ptr() == model.norm.weight.data_ptr()
    work = Work.random(other.config, 1, CPU, 0)
    tokens = Decoder(other).generate(work.condition_BN, work.text_BLE, [0], SamplingConfig(), width=1)
    assert tokens.shape == (1, 16)


@pytest.mark.skipif(memory.kind() != memory.MAIN, reason="needs Linux' account of main memory")
def test_the_peak_of_decoding_is_the_cache_and_what_is_worked_with():
    config = TransformerConfig(layers=12, heads=8, dim=256, vocab_size=96, grid=32, text_length=12, text_dim=16)
    model = random_model(config, CPU, seed=0)
    decoding_peak(laid_out(model, 16), 8, SamplingConfig())  # what it frees must not pass for the next one's
    peak = decoding_peak(model, 1, SamplingConfig())
    cache = 4 * config.cached_numbers(rows=2)  # 75 MB
    assert peak is not None and cache < peak < 2 * cache


@COMPILER
def test_the_whole_benchmark_in_small(monkeypatch):
    monkeypatch.setattr(decode_cost, "MATRICES", 1)
    settings = DecodeSpeed(
        tokens=2, positions=2, rounds=2, compared=4, widths=(1, 2), grids=(4, 8), threads=1, windows=(1, 16), drawn=0
    )
    figures = measure(settings, SMALL)
    ways = figures["ways"]
    assert list(ways) == [
        "plain decoder, float32", "ours, float32", "plain decoder, bfloat16", "ours, bfloat16",
        "ours, bfloat16, int8 weights",
    ]  # fmt: skip
    assert all(way["seconds"] > 0 and len(way["seconds_at"]) == 2 for way in ways.values())
    assert ways["ours, float32"]["bytes"] == 2 * ways["ours, bfloat16"]["bytes"]
    assert ways["ours, bfloat16, int8 weights"]["bytes"] < ways["ours, bfloat16"]["bytes"]
    assert figures["deviations"]["bfloat16"]["typical"] < 0.1
    assert figures["deviations"]["bfloat16, int8 weights"]["typical"] < 0.2
    assert [(c["pixels"], c["width"]) for c in figures["growth"]] == [(64, 1), (64, 2), (128, 1), (128, 2)]
    assert ways["ours, bfloat16"]["passes"].keys() == {1, 16}
    lines = report({"machine": machine("cpu"), "settings": asdict(settings), **figures}).splitlines()
    plain, ours = (next(line for line in lines if line.startswith(name)).split() for name in list(ways)[2:4])
    assert plain[-2] == "1.00"
    for column, way in ((-2, "plain decoder, bfloat16"), (-1, "plain decoder, float32")):
        ratio = ways[way]["seconds"] / ways["ours, bfloat16"]["seconds"]
        assert float(ours[column]) == pytest.approx(ratio, abs=0.01)


@COMPILER
@pytest.mark.slow
def test_the_miniature_gives_several_tokens_a_pass():
    rows = miniature(1, windows=(1, 16))
    assert len(rows) == 4 * 2 * 4  # tasks, samplings, ways
    assert all(row["tokens"] == 1 if row["window"] == 1 else row["tokens"] > 2 for row in rows)


def test_an_unknown_size_is_refused():
    with pytest.raises(ValueError):
        DecodeSpeed(size="XS")
