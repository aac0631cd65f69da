import re

import pytest
import torch
import torch.nn.functional as F

from editar.config import SIZES, TransformerConfig
from editar.model.transformer import EditARTransformer, rotate, rotation_table


@torch.no_grad()
def test_logits_loss_and_distillation_features_equal_the_authors_code(tiny, tiny_expected):
    e = tiny_expected
    hidden = tiny.features(e["src"], e["txt"], e["tgt"])
    logits = tiny.logits(hidden)
    torch.testing.assert_close(logits, e["logits"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tiny(e["src"], e["txt"], e["tgt"]), logits)
    loss = F.cross_entropy(logits.flatten(0, 1), e["tgt"].flatten())
    torch.testing.assert_close(loss, e["loss"][0], rtol=1e-4, atol=0)
    torch.testing.assert_close(tiny.distillation_features(hidden), e["features"], rtol=1e-4, atol=1e-5)


def test_keys_and_shapes_of_gpt_xl_equal_the_list(parity):
    with torch.device("meta"):
        model = EditARTransformer(SIZES["XL"])
    shapes = {name: str(tuple(t.shape)) for name, t in model.state_dict().items()}
    extra = {name: shapes.pop(name) for name in ("img_uncond_embedding", "alignment.weight", "alignment.bias")}
    assert extra["img_uncond_embedding"] == "(1024, 1280)"
    assert extra["alignment.weight"] == "(768, 1280, 2, 2)"
    listed = (parity / "gpt_xl_t2i_keys.txt").read_text().splitlines()
    assert {f"{name} {shape}" for name, shape in shapes.items()} == {line for line in listed if "(" in line}


@pytest.mark.parametrize(("name", "ffn"), [("B", 2048), ("L", 2816), ("XL", 3584), ("XXL", 4096), ("3B", 8704)])
def test_feed_forward_widths(name, ffn):
    assert SIZES[name].ffn_dim == ffn


@torch.no_grad()
def test_prediction_never_sees_what_follows(tiny, tiny_expected):
    e = tiny_expected
    changed = e["tgt"].clone()
    changed[:, 20:] = (changed[:, 20:] + 1) % 128
    before, after = (tiny(e["src"], e["txt"], target) for target in (e["tgt"], changed))
    torch.testing.assert_close(before[:, :21], after[:, :21])
    assert not torch.allclose(before[:, 21:], after[:, 21:])


@torch.no_grad()
def test_null_masks_replace_their_samples_only(tiny, tiny_expected):
    e = tiny_expected
    plain = tiny(e["src"], e["txt"], e["tgt"])
    second = torch.tensor([False, True])
    for masks in ((second, None), (None, second)):
        masked = tiny(e["src"], e["txt"], e["tgt"], *masks)
        torch.testing.assert_close(masked[0], plain[0])
        assert not torch.allclose(masked[1], plain[1], atol=1e-3)
    both = tiny(e["src"], e["txt"], e["tgt"], second, second)
    other = tiny(e["src"].flip(0), e["txt"].flip(0), e["tgt"], second, second)
    torch.testing.assert_close(both[1], other[1])  # nothing of condition or text is left


def test_null_embeddings_are_frozen_unless_asked_for(tiny_config):
    frozen = EditARTransformer(tiny_config)
    trained = EditARTransformer(TransformerConfig(**{**vars(tiny_config), "trainable_null": True}))
    names = {"img_uncond_embedding", "cls_embedding.uncond_embedding"}
    assert not names & dict(frozen.named_parameters()).keys()
    assert names <= dict(trained.named_parameters()).keys()
    assert frozen.state_dict().keys() == trained.state_dict().keys()


def test_token_dropout_touches_the_text_only(tiny_config):
    settings = {**vars(tiny_config), "token_dropout": 0.5, "residual_dropout": 0.0, "ffn_dropout": 0.0}
    torch.manual_seed(0)
    model = EditARTransformer(TransformerConfig(**settings)).train()
    torch.nn.init.normal_(model.output.weight)
    tokens = torch.randint(0, 128, (1, 64))
    null = torch.tensor([True])
    first, second = (model(tokens, torch.zeros(1, 120, 32), tokens) for _ in range(2))
    torch.testing.assert_close(first, second)  # a zero text stays zero, and nothing else is dropped
    first, second = (model(tokens, torch.zeros(1, 120, 32), tokens, None, null) for _ in range(2))
    assert not torch.allclose(first, second)


def test_the_output_layer_starts_at_zero(tiny_config):
    model = EditARTransformer(tiny_config)
    assert not model.output.weight.any()
    assert 0.019 < model.tok_embeddings.weight.std() < 0.021
    assert 0.019 < model.get_parameter("layers.0.attention.wqkv.weight").std() < 0.021


def test_training_in_bfloat16_on_a_cpu_agrees_with_float32(tiny, tiny_expected):
    e = tiny_expected
    with torch.autocast("cpu", torch.bfloat16):
        half = tiny(e["src"], e["txt"], e["tgt"])  # with gradients: the attention written out
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        fused = tiny(e["src"], e["txt"], e["tgt"])
    assert half.requires_grad
    scale = e["logits"].std()
    assert (half - e["logits"]).abs().mean() < 0.02 * scale
    assert (fused - e["logits"]).abs().mean() < 0.02 * scale


def test_rotation_table(tiny_config):
    table = rotation_table(tiny_config)  # heads of 16: four pairs by row, four by column
    assert table.shape == (64 + 120 + 64, 8, 2)
    assert not table[64 : 64 + 120].any()  # text: neither cosine nor sine
    angles = torch.atan2(table[..., 1], table[..., 0])
    third_row_second_column = angles[2 * 8 + 1]
    theta = 10000.0 ** (-torch.arange(4) / 4)
    torch.testing.assert_close(third_row_second_column, torch.cat([2 * theta, theta]))
    first_target = angles[64 + 120]
    wrapped = torch.atan2((8 * theta).sin(), (8 * theta).cos())
    torch.testing.assert_close(first_target, torch.cat([wrapped, wrapped]))


def test_rotate_turns_interleaved_pairs():
    x = torch.tensor([1.0, 0.0, 0.0, 2.0]).view(1, 1, 1, 4)
    quarter_and_half = torch.tensor([[[0.0, 1.0], [-1.0, 0.0]]])
    assert rotate(x, quarter_and_half).flatten().tolist() == [0.0, 1.0, 0.0, -2.0]
    assert rotate(x.bfloat16(), quarter_and_half).dtype == torch.bfloat16


@torch.no_grad()
def test_a_bfloat16_model_keeps_its_positions_in_float32(tiny_config, tiny, tiny_expected):
    model = EditARTransformer(tiny_config)
    model.load_state_dict(tiny.state_dict())
    e = tiny_expected
    logits = model.to(torch.bfloat16).eval()(e["src"], e["txt"], e["tgt"])
    assert logits.dtype == torch.float32
    assert (logits - e["logits"]).abs().mean() < 0.05 * e["logits"].std()
    assert rotation_table(tiny_config).dtype == torch.float32


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((1, 63), (1, 120, 32), (1, 64)), "condition tokens have shape (1, 63); expected (B, 64)"),
        (((1, 64), (1, 120, 32), (1, 65)), "target tokens have shape (1, 65); expected (B, 64)"),
        (((1, 64), (1, 119, 32), (1, 64)), "text has shape (1, 119, 32); expected (B, 120, 32)"),
    ],
)
def test_wrong_shapes_are_named(tiny, shapes, message):
    condition, text, target = shapes
    with pytest.raises(ValueError, match=re.escape(message)):
        tiny(torch.zeros(condition).long(), torch.zeros(text), torch.zeros(target).long())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 66}, "dim=66 with heads=4"),
        ({"layers": 0}, "layers is 0"),
        ({"grid": 7}, "grid is 7"),
        ({"ffn_dropout": 1.0}, "ffn_dropout is 1.0"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TransformerConfig(**{"layers": 1, "heads": 4, "dim": 64, **changes})
