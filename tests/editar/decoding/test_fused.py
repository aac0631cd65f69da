"""Steps in C++ against those of PyTorch's operations, and what happens where the C++ can't be compiled."""

import copy
import platform

import pytest
import torch
from torch import Tensor

from editar.config import SamplingConfig
from editar.decoding.cpu.kernels import compiled
from editar.decoding.cpu.linear import Int8Linear, PackedLinear, can_pack, pack
from editar.decoding.cpu.step import FusedTransformer, can_fuse
from editar.decoding.decoder import Decoder
from editar.decoding.forward import CachedTransformer
from tests.editar.decoding.feeding import run_cached
from tests.editar.marks import COMPILER


@pytest.fixture
def packed(tiny):
    model = copy.deepcopy(tiny)
    pack(model)
    return model


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """Sets the compiler, with nothing compiled before."""

    def choose(command: str) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv("CXX", command)
        compiled.cache_clear()

    yield choose
    compiled.cache_clear()


@torch.no_grad()
def fed(model: CachedTransformer, e: dict[str, Tensor], images: slice = slice(None)) -> Tensor:
    """The logits of all target tokens, with given ones fed; guided branches get different ones."""
    condition, text, target = e["src"][images], e["txt"][images], e["tgt"][images]
    each = model.rows_each
    null = torch.arange(each * len(text)) % 2 == 1 if each == 2 else None
    targets = torch.stack([target, target.flip(1)], 1).flatten(0, 1) if each == 2 else target
    return run_cached(model, targets, model.prefill(condition, text.repeat_interleave(each, 0), null))


@COMPILER
@pytest.mark.parametrize("rows_each", [1, 2])
def test_logits_equal_those_of_plain_steps(tiny, packed, tiny_expected, rows_each):
    expected = fed(CachedTransformer(tiny, 2, rows_each), tiny_expected)
    fused = FusedTransformer(packed, 2, rows_each)
    for _ in range(2):  # a second batch in the same cache
        torch.testing.assert_close(fed(fused, tiny_expected), expected, rtol=1e-4, atol=1e-5)


@COMPILER
def test_bfloat16_is_as_near_to_float32_as_with_plain_steps(tiny, tiny_expected):
    expected = fed(CachedTransformer(tiny, 2, 2), tiny_expected)
    model = copy.deepcopy(tiny).bfloat16()
    plain = (fed(CachedTransformer(model, 2, 2), tiny_expected) - expected).std()
    pack(model)
    assert (fed(FusedTransformer(model, 2, 2), tiny_expected) - expected).std() < 1.1 * plain


@COMPILER
@pytest.mark.parametrize("numbers", ["float32", "bfloat16", "int8"])
def test_an_image_has_the_same_bits_alone_and_beside_another(tiny, tiny_expected, numbers):
    model = copy.deepcopy(tiny)
    if numbers == "bfloat16":
        model.bfloat16()
    pack(model, Int8Linear if numbers == "int8" else PackedLinear)
    together = fed(FusedTransformer(model, 2, 2), tiny_expected)
    for image in (0, 1):
        alone = fed(FusedTransformer(model, 1, 2), tiny_expected, slice(image, image + 1))
        assert torch.equal(alone, together[2 * image : 2 * image + 2])


@COMPILER
@torch.no_grad()
def test_a_step_has_the_same_bits_with_any_number_of_threads(packed, tiny_expected):
    model, before = FusedTransformer(packed, 2, 2), torch.get_num_threads()
    model.prefill(tiny_expected["src"], tiny_expected["txt"].repeat_interleave(2, 0))
    tokens, steps = tiny_expected["tgt"][:, :2].flatten(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            model.restart()
            steps.append(model.decode_one(tokens))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(steps[0], steps[1]) and torch.equal(steps[0], steps[2])


@COMPILER
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="these are instructions of x86")
@pytest.mark.parametrize("without", [pytest.param("avx512bf16", marks=pytest.mark.slow), "avx512f"])
def test_processors_without_the_newest_instructions_get_the_same(compiler, tiny, tiny_expected, without):
    compiler(f"c++ -mno-{without}")
    expected = fed(CachedTransformer(tiny, 2, 2), tiny_expected)
    for dtype, error in ((torch.float32, 1e-5), (torch.bfloat16, 0.02)):
        model = copy.deepcopy(tiny).to(dtype)
        pack(model)
        assert (fed(FusedTransformer(model, 2, 2), tiny_expected) - expected).std() < error * expected.std()


@pytest.mark.parametrize(
    ("command", "reason"),
    [("no-such-compiler", "there is no no-such-compiler"), ("c++ --no-such-option", "no-such-option")],
)
def test_without_a_compiler_decoding_goes_on_with_a_message(compiler, tiny, tiny_expected, command, reason):
    compiler(command)
    e, model = tiny_expected, copy.deepcopy(tiny)
    with pytest.warns(UserWarning, match=rf"{reason}.* g\+\+"):
        assert not can_pack(model)
    with pytest.raises(ValueError):
        PackedLinear(torch.zeros(32, 32))
    assert not can_fuse(model)
    with pytest.raises(ValueError):
        FusedTransformer(model, 1, 2)
    tokens = Decoder(model).generate(e["src"], e["txt"], [0, 0], SamplingConfig(temperature=0.0), width=2)
    assert torch.equal(tokens, e["greedy_cfg3"])


@COMPILER
def test_what_was_compiled_is_kept(compiler, tmp_path):
    compiler("c++")
    assert compiled("layer.cpp", torch.float32) is not None
    (library,) = (tmp_path / "editar").iterdir()
    times = library.stat()
    compiled.cache_clear()
    assert compiled("layer.cpp", torch.float32) is not None
    assert library.stat().st_mtime_ns == times.st_mtime_ns
