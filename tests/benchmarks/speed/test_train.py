"""The speed benchmark of training, on models that take no time."""

from dataclasses import asdict, replace

import torch

from benchmarks.miniature.world.scene import VOCABULARY
from benchmarks.speed.train import CACHED, NAIVE, OURS, TrainSpeed, measure, measure_device, report, report_device
from editar.config import SamplingConfig, TransformerConfig, VQConfig, WordTextConfig
from editar.model.files import Parts
from editar.model.text import WordTextEncoder
from editar.model.transformer import EditARTransformer
from editar.model.vq import VQModel

SETTINGS = TrainSpeed(device="cpu", batch=2, steps=2, rounds=1, pairs=3, compiled=False)
CONFIG = TransformerConfig(layers=1, heads=2, dim=32, vocab_size=32, grid=2, text_length=8, text_dim=16)


def test_three_ways_train_the_same_model_on_the_same_pairs() -> None:
    torch.manual_seed(0)
    parts = Parts(
        vq=VQModel(
            VQConfig(channels=8, res_blocks=1, latent_channels=8, codebook_size=32, codebook_dim=4, norm_groups=4)
        ),
        transformer=EditARTransformer(CONFIG),
        text=WordTextEncoder(WordTextConfig(vocabulary=VOCABULARY, length=8, dim=16, layers=1, heads=2)),
        sampling=SamplingConfig(guidance=2.0, top_k=0),
    )
    before = parts.transformer.output.weight.clone()
    figures = measure(SETTINGS, parts)
    assert list(figures["samples_per_second"]) == [NAIVE, OURS, CACHED]
    assert figures["ratio"][NAIVE] == 1.0 and all(rate > 0 for rate in figures["samples_per_second"].values())
    assert all(len(rates) == 2 for rates in figures["rounds"].values())
    assert (parts.transformer.output.weight == before).all()  # each round starts from the same weights
    lines = report({"settings": asdict(SETTINGS), **figures}).splitlines()
    assert len(lines) == 5 and lines[2].startswith(NAIVE) and lines[2].endswith("1.00")


def test_a_device_is_measured_by_the_trainers_own_log() -> None:
    figures = measure_device(replace(SETTINGS, size="XL"), CONFIG)
    assert figures["tokens_per_second"] / figures["samples_per_second"] - 15 < 1e-3
    assert "mfu" not in figures  # of a CPU, whose peak nobody states
    assert "whose peak is not known" in report_device({"settings": asdict(SETTINGS), **figures})
