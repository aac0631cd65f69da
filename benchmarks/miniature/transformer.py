"""The miniature's EditAR transformer and word encoder, and how they are trained together."""

from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.miniature.captions import VOCABULARY
from benchmarks.miniature.tokenizer import CONFIG as TOKENIZER
from benchmarks.miniature.tokens import Sequences, Shards
from editar.config import TransformerConfig, WordTextConfig
from editar.text import WordTextEncoder
from editar.training.loop import TrainConfig, train
from editar.training.loss import conditional_dropout, editar_loss
from editar.transformer import EditARTransformer

TEXT = WordTextConfig(vocabulary=VOCABULARY, length=40, dim=128, layers=2, heads=4)
CONFIG = TransformerConfig(
    layers=5, heads=4, dim=256, vocab_size=TOKENIZER.codebook_size, grid=8, text_length=TEXT.length, text_dim=TEXT.dim,
    token_dropout=0.0, residual_dropout=0.0, ffn_dropout=0.0, distillation_dim=96,
)  # fmt: skip
TRAINING = TrainConfig(
    steps=1600, batch_size=32, learning_rate=1e-3, warmup_steps=150, decay_steps=300,
    checkpoint_every=100, log_every=25,
)  # fmt: skip
SHARDS, STEPS_PER_SHARD = 16, 50
# Not in the paper, and off in its recipe:
CHANGED_TOKEN_WEIGHT = 3.0  # a token whose pixels change counts three times in the cross-entropy
COPY_UNCHANGED_TOKENS = True  # the target's token is the source's wherever the source's pixels stay as they were


class MiniatureEditAR(nn.Module):
    """Transformer and text encoder as one module: unlike the paper's frozen T5, the word encoder learns too."""

    def __init__(self) -> None:
        super().__init__()
        self.text = WordTextEncoder(TEXT)
        self.transformer = EditARTransformer(CONFIG)


def miniature_loss(module: MiniatureEditAR, batch: Sequences, step: int) -> dict[str, Tensor]:
    """The paper's loss without distillation, with the two options above; also the accuracy on changed tokens."""
    device = module.text.positions.device
    changed = batch.changed.bool()
    target = torch.where(changed, batch.target, batch.condition) if COPY_UNCHANGED_TOKENS else batch.target
    weight = 1.0 + (CHANGED_TOKEN_WEIGHT - 1.0) * changed.float()
    null_image, null_text = (null.to(device) for null in conditional_dropout(len(target)))
    text = module.text.encode(batch.words.to(device))
    return editar_loss(
        module.transformer, batch.condition.to(device), text, target.to(device), null_image, null_text,
        token_weight=weight.to(device),
    )  # fmt: skip


def train_transformer(tokens: Path, folder: Path, device: str = "cpu") -> MiniatureEditAR:
    """Train from scratch, or from where `folder` stopped, on the shards in `tokens`."""
    torch.manual_seed(TRAINING.seed)
    module = MiniatureEditAR().to(device)
    shards = Shards(tokens, SHARDS, STEPS_PER_SHARD)
    train(module, miniature_loss, lambda step: shards.batch(TRAINING.seed, step, TRAINING.batch_size), TRAINING, folder)
    return module
