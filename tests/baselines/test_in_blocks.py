"""Requests in blocks of a fixed size."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from PIL import Image

from baselines.method import EditRequest, NoAnswer, in_blocks


@dataclass
class Counting:
    """Answers with an image as wide as its request's number, and remembers the sizes of its batches."""

    images_at_once: int
    sizes: list[int]

    @in_blocks
    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image | NoAnswer]:
        self.sizes.append(len(requests))
        return [Image.new("RGB", (request.seed, 1)) for request in requests]


@pytest.mark.parametrize(("count", "blocks"), [(1, 1), (4, 1), (5, 2), (8, 2)])
def test_a_network_sees_blocks_of_one_size_and_each_request_gets_its_answer(count: int, blocks: int) -> None:
    method = Counting(4, [])
    asked = [
        EditRequest(
            sample_id="a", image=Image.new("RGB", (1, 1)), instruction="", source_prompt="", target_prompt="",
            blend_words=None, seed=number + 1,
        )
        for number in range(count)
    ]  # fmt: skip
    answers = method.edit(asked)
    assert [answer.size for answer in answers if isinstance(answer, Image.Image)] == [(n + 1, 1) for n in range(count)]
    assert method.sizes == [4] * blocks
