"""Scores by the world's own truth: those of the miniature's evaluation, sample by sample."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.ablations import write_held_out
from benchmarks.miniature.evaluate.backbones import load_backbones, load_perception
from benchmarks.miniature.evaluate.edit_scores import HeldOut, judge, pil
from benchmarks.miniature.evaluate.truth_benchmark import TruthBenchmark
from benchmarks.miniature.train.distillation import PERCEPTION
from benchmarks.miniature.world.embedded import sample_ids
from benchmarks.miniature.world.render import to_tensor
from benchmarks.runs.schema import Sample


def test_means_are_those_of_the_miniatures_evaluation(tmp_path: Path) -> None:
    network, _ = load_perception(PERCEPTION)
    held_out = HeldOut.draw({"2": 1, "3": 2, "8": 1}, 5, lambda images: images)
    dataset, truths = write_held_out(held_out.edits, tmp_path / "data")
    names = sample_ids(held_out.edits)
    assert [record.sample_id for record in dataset.records] == names
    for name, truth in zip(names, held_out.truths, strict=True):
        assert np.array_equal(np.asarray(Image.open(truths[name])), truth)
    edits = dict(zip(names, held_out.edits, strict=True))
    benchmark = TruthBenchmark(dataset, edits, network, load_backbones(PERCEPTION), 0)
    samples = [Sample(sample_id=name) for name in names]
    images = {"truth": pil(held_out.truths), "copy": pil(held_out.sources)}
    results = benchmark.score(dict.fromkeys(images, samples), images)
    for method, pixels in (("truth", held_out.truths), ("copy", held_out.sources)):
        expected = held_out.scores(pixels)["all"]
        scores = [each.scores or {} for each in results[method]]
        means = {key: np.mean([float(each[key] or 0) for each in scores]) for key in benchmark.columns[-3:]}
        assert means["error_in_mask"] * 255 == pytest.approx(expected["error"])
        verdicts = judge(network, to_tensor(pixels), held_out.edits)
        assert means["asked"] == np.mean([verdict.asked for verdict in verdicts])
        assert means["followed"] == np.mean([verdict.followed for verdict in verdicts])
    assert set(results["copy"][0].scores or {}) == set(benchmark.columns)
