"""MGIE's edit head against a transcription in float64, over the file's own names."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from baselines.mgie.edit_head import EditHead, EditHeadSizes, read_edit_head
from baselines.stable_diffusion.ldm import empty
from editar.io.tensors import CheckpointError
from tests.baselines.mgie_layout import TINY, head_shapes, random_mllm, write_mllm


class Transcription:
    """The head from its definition: one attention head and one row at a time."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = {name.removeprefix("edit_head."): value.double() for name, value in state.items()}

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def norm(self, x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / ((centred**2).mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def attend(self, x: Tensor, memory: Tensor, name: str) -> Tensor:
        weights, biases = self.state[f"{name}.in_proj_weight"].chunk(3), self.state[f"{name}.in_proj_bias"].chunk(3)
        query, key, value = (
            each @ weight.T + bias for each, weight, bias in zip((x, memory, memory), weights, biases, strict=True)
        )
        width = x.shape[-1] // 4
        heads = []
        for start in range(0, x.shape[-1], width):
            part = slice(start, start + width)
            rows = []
            for row in query[:, part]:
                scores = (key[:, part] @ row / width**0.5).exp()
                rows.append((scores[:, None] * value[:, part]).sum(0) / scores.sum())
            heads.append(torch.stack(rows))
        return self.linear(torch.cat(heads, dim=-1), f"{name}.out_proj")

    def feed_forward(self, x: Tensor, layer: str) -> Tensor:
        return self.linear(self.linear(x, f"{layer}.linear1").clamp(min=0), f"{layer}.linear2")

    def __call__(self, states: Tensor) -> Tensor:
        """(queries, features) from (tokens, hidden)."""
        x = self.linear(states.double() + self.state["emb"][0], "llm2hid")
        for number in range(TINY.layers):
            layer = f"mapper.encoder.layers.{number}"
            normed = self.norm(x, f"{layer}.norm1")
            x = x + self.attend(normed, normed, f"{layer}.self_attn")
            x = x + self.feed_forward(self.norm(x, f"{layer}.norm2"), layer)
        memory = self.norm(x, "mapper.encoder.norm")
        x = self.state["query"][0]
        for number in range(TINY.layers):
            layer = f"mapper.decoder.layers.{number}"
            normed = self.norm(x, f"{layer}.norm1")
            x = x + self.attend(normed, normed, f"{layer}.self_attn")
            x = x + self.attend(self.norm(x, f"{layer}.norm2"), memory, f"{layer}.multihead_attn")
            x = x + self.feed_forward(self.norm(x, f"{layer}.norm3"), layer)
        return self.linear(self.norm(x, "mapper.decoder.norm"), "hid2feat")


def states(count: int) -> Tensor:
    return torch.randn(count, TINY.tokens, TINY.hidden, generator=torch.Generator().manual_seed(5))


def test_the_head_is_its_definition(tmp_path: Path) -> None:
    head, reference = read_edit_head(write_mllm(tmp_path / "mllm.pt")), Transcription(random_mllm(TINY))
    asked = states(3)
    expected = torch.stack([reference(each) for each in asked])
    assert expected.shape == (3, 77, 16)
    with torch.no_grad():
        assert (head(asked) - expected).abs().max() < 1e-5 * expected.abs().max()
        assert (head.double()(asked.double()) - expected).abs().max() < 1e-12 * expected.abs().max()
    assert (expected[0] - expected[1]).abs().max() > 0.01 * expected.abs().max()


def test_the_null_prompt_is_that_of_zero_states(tmp_path: Path) -> None:
    head, reference = read_edit_head(write_mllm(tmp_path / "mllm.pt")), Transcription(random_mllm(TINY))
    expected = reference(torch.zeros(TINY.tokens, TINY.hidden))
    with torch.no_grad():
        null = head.null()
    assert null.shape == (1, 77, 16)
    assert (null[0] - expected).abs().max() < 1e-5 * expected.abs().max()


def test_the_published_sizes_have_the_published_layout() -> None:
    sizes = EditHeadSizes()
    shapes = {
        f"edit_head.{name}": tuple(each.shape) for name, each in empty(lambda: EditHead(sizes)).state_dict().items()
    }
    assert shapes == head_shapes(sizes)
    assert (sizes.tokens, sizes.hidden, sizes.queries, sizes.features) == (8, 4096, 77, 768)
    assert shapes["edit_head.mapper.decoder.layers.3.multihead_attn.in_proj_weight"] == (1536, 512)


@pytest.mark.parametrize(
    "name",
    ["emb", "edit_head.query", "edit_head.mapper.encoder.norm.bias", "edit_head.mapper.decoder.layers.1.norm3.bias"],
)
def test_a_missing_tensor_is_named(tmp_path: Path, name: str) -> None:
    state = random_mllm(TINY)
    del state[name]
    torch.save(state, tmp_path / "mllm.pt")
    with pytest.raises(CheckpointError, match=name):
        read_edit_head(tmp_path / "mllm.pt")


def test_a_tensor_too_many_is_named(tmp_path: Path) -> None:
    torch.save({**random_mllm(TINY), "edit_head.extra": torch.zeros(1)}, tmp_path / "mllm.pt")
    with pytest.raises(CheckpointError):
        read_edit_head(tmp_path / "mllm.pt")
