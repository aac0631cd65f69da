"""The training loop resumes bit for bit; the losses equal the references and slow versions."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from editar.config import VQConfig
from editar.model.official import official_transformer
from editar.model.vq import VQModel
from editar.training.loop import TrainConfig, optimizer, train
from editar.training.loss import conditional_dropout, editar_loss
from editar.training.vq_training import decoder_loss, encoder_loss, initialise, patch_codebook, patches

PARITY = Path(__file__).parents[2] / "parity"
CONFIG = TrainConfig(steps=6, batch_size=4, checkpoint_every=2, log_every=2, bfloat16=False, learning_rate=1e-2)


class Interrupted(Exception):
    pass


def _batch(step: int) -> torch.Tensor:
    return torch.randn(4, 8, generator=torch.Generator().manual_seed(step))


def _loss(module: nn.Module, batch: torch.Tensor, step: int) -> dict[str, torch.Tensor]:
    return {"loss": (module(F.dropout(batch, 0.3)) - batch.sum(1, keepdim=True)).square().mean()}


def _network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))


def _lines(folder: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in map(json.loads, (folder / "metrics.jsonl").open())]


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path):
    """Also in its log, whose lines come every third step, and checkpoints every second."""
    config = replace(CONFIG, log_every=3)
    whole, resumed = _network(), _network()
    train(whole, _loss, _batch, config, tmp_path / "whole")

    def stop_at_5(module, batch, step):
        if step == 5:
            raise Interrupted
        return _loss(module, batch, step)

    with pytest.raises(Interrupted):
        train(resumed, stop_at_5, _batch, config, tmp_path / "parts")
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as log:
        log.write('{"step": 6.0, "lo')  # as a kill leaves it
    resumed = _network()
    train(resumed, _loss, _batch, config, tmp_path / "parts")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert [step for step, _ in _lines(tmp_path / "whole")] == [2, 3, 4, 6]
    assert _lines(tmp_path / "parts") == _lines(tmp_path / "whole")


def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path):
    def loss(module, batch, step):
        return {"loss": (module(batch) - batch.sum(1, keepdim=True)).square().mean()}

    def half(index: int) -> torch.Tensor:
        return _batch(index // 2)[2 * (index % 2) :][:2]

    whole, parts = _network(), _network()
    train(whole, loss, _batch, CONFIG, tmp_path / "whole")
    train(parts, loss, half, replace(CONFIG, accumulate=2), tmp_path / "parts")
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-3, atol=1e-5)
    with pytest.raises(ValueError):
        replace(CONFIG, accumulate=3)


def test_autocast_computes_in_bfloat16_over_float32_weights(tmp_path):
    seen = set()

    def loss(module, batch, step):
        made = module(batch)
        seen.add(made.dtype)
        return {"loss": (made.float() - batch.sum(1, keepdim=True)).square().mean()}

    network, exact = _network(), _network()
    train(network, loss, _batch, replace(CONFIG, bfloat16=True), tmp_path / "rounded")
    train(exact, loss, _batch, CONFIG, tmp_path / "exact")
    assert seen == {torch.bfloat16, torch.float32}
    assert {value.dtype for value in network.state_dict().values()} == {torch.float32}
    rounded, full = (dict(_lines(tmp_path / name))[2] for name in ("rounded", "exact"))
    assert rounded != full and rounded == pytest.approx(full, rel=0.02)


def test_a_finished_run_does_nothing(tmp_path):
    network = _network()
    train(network, _loss, _batch, CONFIG, tmp_path)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    train(network, lambda *_: pytest.fail("trained on"), _batch, CONFIG, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path):
    network = _network()
    before = {}

    def loss(module, batch, step):
        values = _loss(module, batch, step)
        if step == 3:
            before.update({name: value.clone() for name, value in module.state_dict().items()})
        return {"loss": values["loss"] / 0 if step == 3 else values["loss"]}

    with pytest.raises(FloatingPointError, match="step 3"):
        train(network, loss, _batch, replace(CONFIG, log_every=6, checkpoint_every=6), tmp_path)
    assert json.loads((tmp_path / "not_finite.json").read_text())["step"] == 3
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_weight_decay_is_for_matrices_only():
    decayed, plain = optimizer(_network(), TrainConfig(steps=1)).param_groups
    assert decayed["weight_decay"] == 0.05 and all(p.dim() >= 2 for p in decayed["params"])
    assert plain["weight_decay"] == 0.0 and all(p.dim() < 2 for p in plain["params"])


def test_the_papers_rate_is_constant_and_the_schedule_is_an_option():
    assert {TrainConfig(steps=100).rate(step) for step in range(100)} == {1e-4}
    scheduled = TrainConfig(steps=100, warmup_steps=10, decay_steps=50)
    assert scheduled.rate(4) == pytest.approx(5e-5)
    assert scheduled.rate(30) == 1e-4
    assert scheduled.rate(99) < 4e-6
    with pytest.raises(ValueError):
        TrainConfig(steps=10, decay_steps=11)


def test_conditional_dropout_comes_from_one_draw():
    image, text = conditional_dropout(200_000, torch.Generator().manual_seed(0))
    assert image.float().mean() == pytest.approx(0.10, abs=0.003)
    assert text.float().mean() == pytest.approx(0.10, abs=0.003)
    assert (image & text).float().mean() == pytest.approx(0.05, abs=0.003)


@pytest.fixture(scope="module")
def reference():
    expected = load_file(PARITY / "editar_tiny_expected.safetensors")
    model = official_transformer(PARITY / "editar_tiny.pt").load()
    return model, expected


def test_the_loss_equals_the_released_codes(reference):
    model, expected = reference
    values = editar_loss(model, expected["src"], expected["txt"], expected["tgt"])
    assert values["loss"].item() == pytest.approx(expected["loss"].item(), rel=1e-4)


def test_distillation_adds_half_the_mean_square_error(reference):
    model, expected = reference
    teacher = torch.randn(expected["features"].shape, generator=torch.Generator().manual_seed(0))
    values = editar_loss(model, expected["src"], expected["txt"], expected["tgt"], teacher=teacher)
    slow = (
        sum(
            (a - b) ** 2
            for a, b in zip(expected["features"].flatten().tolist(), teacher.flatten().tolist(), strict=True)
        )
        / teacher.numel()
    )
    assert values["distillation"].item() == pytest.approx(slow, rel=1e-4)
    assert values["loss"].item() == pytest.approx(expected["loss"].item() + 0.5 * slow, rel=1e-4)
    values["distillation"].backward()
    assert model.layers[0].attention.wqkv.weight.grad.abs().sum() > 0  # gradients reach the transformer


def test_token_weights_are_a_weighted_mean(reference):
    model, expected = reference
    heavy = torch.zeros_like(expected["tgt"], dtype=torch.float32)
    heavy[:, :3] = 5.0
    logits = model(expected["src"], expected["txt"], expected["tgt"])
    only_first = F.cross_entropy(logits[:, :3].flatten(0, 1), expected["tgt"][:, :3].flatten())
    values = editar_loss(model, expected["src"], expected["txt"], expected["tgt"], token_weight=heavy)
    assert values["loss"].item() == pytest.approx(only_first.item(), rel=1e-5)


def test_patches_and_codebook():
    images = torch.rand(6, 3, 16, 16) * 2 - 1
    flat = patches(images, 8)
    assert torch.equal(flat[2, 1].view(3, 8, 8), images[2, :, :8, 8:])  # row by row
    torch.manual_seed(0)
    centroids, codes = patch_codebook(images, 8, codes=24, code_dim=4)
    assert codes.norm(dim=1).allclose(torch.ones(24))
    distance = torch.cdist(flat.flatten(0, 1), centroids)
    assert distance.argmin(1).unique().numel() == 24  # as many patches as codes: each is its own centroid
    assert distance.min(1).values.max() < 0.1  # to within the rounding to 8 bits


def test_the_tokenizers_sides_learn_from_a_codebook():
    torch.manual_seed(0)
    images = torch.rand(4, 3, 16, 16).round() * 2 - 1
    centroids, codes = patch_codebook(images, 8, codes=8, code_dim=4)
    config = VQConfig(
        channels=8, multipliers=(1, 1, 2, 2), res_blocks=1, latent_channels=8, codebook_size=8, codebook_dim=4,
        norm_groups=2,
    )  # fmt: skip
    model = VQModel(config)
    initialise(model, codes)
    targets = torch.cdist(patches(images, 8), centroids).argmin(-1)
    learning = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 3e-3)
    losses = []
    for _ in range(60):
        values = [encoder_loss(model, images, centroids, distortion_weight=1.0), decoder_loss(model, images)]
        losses.append([value["loss"].item() for value in values])
        torch.stack([value["loss"] for value in values]).sum().backward()
        learning.step()
        learning.zero_grad()
    assert losses[-1][0] < 0.3 * losses[0][0] and losses[-1][1] < losses[0][1]
    assert (model.encode(images) == targets).float().mean() > 0.9  # what it learned is what `encode` uses
