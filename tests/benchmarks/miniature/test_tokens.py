"""Training shards: the same for the same seed, and batches that do not depend on how fast shards were made."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.miniature import WEIGHTS
from benchmarks.miniature.train import tokens
from benchmarks.miniature.train.shards import open_shards, shard_path, write_missing
from benchmarks.miniature.train.stages import settings
from benchmarks.miniature.train.tokenizer import CONFIG
from benchmarks.miniature.train.transformer import TEXT
from editar.model.text import WordTextEncoder
from editar.model.vq import VQModel
from tests.flips import COUNTS, campaign


def test_shards_and_batches(tmp_path):
    torch.manual_seed(0)
    tokenizer, text = VQModel(CONFIG).eval(), WordTextEncoder(TEXT)
    tokens.make_shards(tokenizer, text, tokens.GENERAL, 3, tmp_path, scenes=3)
    first = tokens.tokenised(tokenizer, text, *tokens.draw_pairs(tokens.GENERAL, 0, scenes=3))
    reader = tokens.Shards(tmp_path, count=3, steps_per_shard=2)
    early = reader.batch(0, 0, 16)
    reader.batch(0, 5, 16)  # opens the third shard
    again = reader.batch(0, 0, 16)
    for field in dataclasses.fields(tokens.Sequences):
        stored = getattr(reader.loaded[0], field.name)
        assert torch.equal(stored, getattr(first, field.name).long())
        assert torch.equal(getattr(early, field.name), getattr(again, field.name))
    assert len(reader.loaded) == 3
    assert early.condition.shape == (16, 64) and early.words.shape == (16, TEXT.length)
    edits = first.task == 0
    unchanged = ~first.changed[edits].bool()
    assert unchanged.any() and first.changed[~edits].bool().all()


@pytest.mark.parametrize("name", ["transformer", "binding", "finishing"])
def test_the_stages_settings_are_those_of_the_committed_curves(name):
    lines = [json.loads(line) for line in (WEIGHTS / "curves" / f"{name}.jsonl").read_text().splitlines()]
    config = settings(name)
    assert lines[-1]["step"] == config.steps
    for line in lines:
        assert line["rate"] == pytest.approx(config.rate(line["step"] - 1), rel=1e-4)


@pytest.mark.parametrize("count", COUNTS)
def test_a_shard_that_lost_a_bit_is_refused_and_made_again(tmp_path: Path, count: int) -> None:
    def fill() -> None:
        write_missing(tmp_path, 1, lambda index: {"rows": np.arange(40)})

    fill()
    path = shard_path(tmp_path, 0)
    whole = path.read_bytes()
    outcomes = campaign(path, lambda: open_shards(tmp_path, 1)[0]["rows"].tolist(), count, ValueError)
    assert outcomes == {"silent": 0, "refused": count}
    path.write_bytes(whole[:-1])
    fill()
    assert open_shards(tmp_path, 1)[0]["rows"].tolist() == list(range(40))
