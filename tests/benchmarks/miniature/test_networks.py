"""The committed networks do what docs/miniature.md says of them, as far as a few records can tell."""

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.miniature import WEIGHTS
from benchmarks.miniature.evaluate.backbones import (
    load_backbones,
    load_perception,
    load_translation_backbones,
    save_perception,
)
from benchmarks.miniature.evaluate.edit_scores import judge
from benchmarks.miniature.evaluate.perception import Perception, PerceptionConfig
from benchmarks.miniature.world.embedded import held_out_edits
from benchmarks.miniature.world.render import CLASSES, render, to_tensor
from editar.pipeline import EditAR
from metrics.networks.backbones import PRECISIONS
from metrics.protocols.fid import sums_of_files
from metrics.protocols.pie_bench import PieBenchScorer

SMALL = {"3": 8, "6": 8, "8": 8}


@pytest.fixture(scope="module")
def edits():
    return held_out_edits(SMALL, seed=5)


@pytest.fixture(scope="module")
def network():
    return load_perception(WEIGHTS / "perception.safetensors")[0]


def test_the_digests_are_those_of_the_files_and_the_files_are_small():
    digests = json.loads((WEIGHTS / "digests.json").read_text())
    files = sorted(WEIGHTS.rglob("*.safetensors"))
    assert {file.relative_to(WEIGHTS).as_posix() for file in files} == set(digests)
    for name, digest in digests.items():
        assert hashlib.sha256((WEIGHTS / name).read_bytes()).hexdigest() == digest
    sizes = {"editing": 0, "translation": 0, "instructed": 0}
    for file in files:
        part = "translation" if file.is_relative_to(WEIGHTS / "diffusion") else "editing"
        if file.is_relative_to(WEIGHTS / "diffusion" / "instruct-pix2pix"):
            part = "instructed"
        sizes[part] += file.stat().st_size
    assert sizes["editing"] < 20e6 and sizes["translation"] < 25e6 and 0 < sizes["instructed"] < 15e6


def test_the_heads_find_what_was_asked_for_in_true_results_and_not_in_sources(network, edits):
    truths = judge(network, to_tensor([render(edit.target) for edit in edits]), edits)
    sources = judge(network, to_tensor([render(edit.source) for edit in edits]), edits)
    assert np.mean([verdict.followed for verdict in truths]) > 0.9
    assert np.mean([verdict.asked for verdict in sources]) < 0.1


def test_the_stand_in_columns_order_true_results_before_other_pictures(edits):
    sources, truths = (
        (to_tensor([render(getattr(edit, name)) for edit in edits]) + 1) / 2 for name in ("source", "target")
    )
    masks = torch.from_numpy(np.stack([edit.mask() for edit in edits]))[:, None]
    scorer = PieBenchScorer(load_backbones(WEIGHTS / "perception.safetensors"))
    prompts = [edit.prompts[1] for edit in edits]
    scores = scorer.score(sources, masks, prompts, {"truth": truths, "other": truths.roll(1, 0)})

    def mean(method: str, column: str) -> float:
        return float(np.mean([value for each in scores[method] if not isinstance(value := each[column], str)]))

    assert mean("truth", "clip_whole") > mean("other", "clip_whole") + 0.1
    assert mean("truth", "structure_distance") < mean("other", "structure_distance")
    assert mean("truth", "lpips") < mean("other", "lpips")


def test_bfloat16_leaves_the_stand_in_of_lpips_alone(edits):
    """As the official networks: tests/metrics/protocols/test_parity.py."""
    images = (to_tensor([render(edit.source) for edit in edits[:2]]) + 1) / 2
    full, half = (load_backbones(WEIGHTS / "perception.safetensors", precision=name) for name in PRECISIONS)
    of_full, of_half = (each.perceptual.features(images) for each in (full, half))
    assert all(torch.equal(a, b) for a, b in zip(of_full, of_half, strict=True))
    assert not torch.equal(full.structure.keys(images), half.structure.keys(images))


@pytest.mark.slow
def test_editar_deletes_things_and_changes_backgrounds(network, edits):
    edits = [edit for edit in edits if edit.type_id in ("3", "8")]
    model = EditAR.from_pretrained(WEIGHTS / "editar")
    sources = [render(edit.source) for edit in edits]
    edited = model.edit([Image.fromarray(image) for image in sources], [edit.instruction for edit in edits])
    results = [np.asarray(image) for image in edited]
    verdicts = judge(network, to_tensor(results), edits)
    assert np.mean([verdict.asked for verdict in verdicts]) > 0.8
    closer = [
        np.abs(result.astype(float) - render(edit.target))[edit.mask()].mean()
        < np.abs(source.astype(float) - render(edit.target))[edit.mask()].mean()
        for result, source, edit in zip(results, sources, edits, strict=True)
    ]
    assert np.mean(closer) > 0.8


def test_perception_files_come_back_as_they_were(tmp_path):
    torch.manual_seed(0)
    network = Perception(PerceptionConfig(widths=(8, 8, 8, 8))).half().float().eval()
    save_perception(network, tmp_path / "p.safetensors")
    again, _ = load_perception(tmp_path / "p.safetensors")
    for name, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_perception(tmp_path / "nothing.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError):
        load_perception(tmp_path / "broken.safetensors")


def test_the_stand_ins_of_translation_give_maps_and_features(tmp_path):
    torch.manual_seed(0)
    save_perception(Perception(PerceptionConfig()), tmp_path / "perception.safetensors")
    images = (to_tensor([render(edit.source) for edit in held_out_edits({"3": 4}, seed=5)]) + 1) / 2
    parts = {
        task: load_translation_backbones(tmp_path / "perception.safetensors", task)
        for task in ("depth", "canny", "segmentation")
    }
    assert parts["canny"].depth is None and parts["canny"].segmentation is None
    depth, segmentation = parts["depth"].depth, parts["segmentation"].segmentation
    assert depth is not None and depth.depth(images).shape == (4, 32, 32)
    assert segmentation is not None
    labels = segmentation.labels(images)
    assert labels.shape == (4, 64, 64) and labels.dtype == torch.int64 and labels.max() < len(CLASSES)
    network = parts["canny"].features
    files = [tmp_path / f"{number}.png" for number in range(4)]
    for file, image in zip(files, images, strict=True):
        Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()).save(file)
    sums = sums_of_files(files, network)
    mean = network.features(torch.from_numpy(np.stack([network.prepare(Image.open(file)) for file in files]))).mean(0)
    assert sums.images == 4 and torch.allclose(sums.statistics().mean.float(), mean, atol=1e-6)
    assert {part.features.name for part in parts.values()} == {"miniature-perception-features"}
