"""The miniature's EditAR transformer and word encoder, and how they are trained together."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.miniature.train.stages import settings, trained_weights
from benchmarks.miniature.train.tokenizer import CONFIG as TOKENIZER
from benchmarks.miniature.train.tokens import Sequences, Shards
from benchmarks.miniature.world.scene import VOCABULARY
from editar.config import TransformerConfig, WordTextConfig
from editar.model.text import WordTextEncoder
from editar.model.transformer import EditARTransformer
from editar.training.loop import TrainConfig, train
from editar.training.loss import conditional_dropout, editar_loss

TEXT = WordTextConfig(vocabulary=VOCABULARY, length=40, dim=128, layers=2, heads=4)
CONFIG = TransformerConfig(
    layers=5, heads=4, dim=256, vocab_size=TOKENIZER.codebook_size, grid=8, text_length=TEXT.length, text_dim=TEXT.dim,
    token_dropout=0.0, residual_dropout=0.0, ffn_dropout=0.0, distillation_dim=96, rope_base=100.0, initial_std=0.06,
)  # fmt: skip
SHARDS, BINDING_SHARDS, FINISHING_SHARDS, STEPS_PER_SHARD = 24, 14, 24, 50
# Not in the paper, and off in its recipe:
CHANGED_TOKEN_WEIGHT = 3.0  # a token whose pixels change counts three times in the cross-entropy
SEQUENCES_ALIKE = True  # from the second stage on, else sequences that change everywhere drown the others
CORRUPTED_FROM = 800  # step of the second stage from which on earlier tokens are corrupted, see `corrupted`
COPY_UNCHANGED_TOKENS = True  # the target's token is the source's wherever the source's pixels stay as they were
EMBEDDINGS_FROM_CODEBOOK = True  # see `start_from_codebook`; the paper starts from LlamaGen's trained weights
EMBEDDING_NORM, BRANCH_SCALE = 8.0, 0.3


class MiniatureEditAR(nn.Module):
    """Transformer and text encoder as one module: unlike the paper's frozen T5, the word encoder learns too."""

    def __init__(self, config: TransformerConfig = CONFIG) -> None:
        super().__init__()
        self.text = WordTextEncoder(TEXT)
        self.transformer = EditARTransformer(config)


def corrupted(target: Tensor) -> Tensor:
    """Tokens (B, N) of which random ones are replaced by any code: none in a quarter of the rows, all in another.

    Which thing an instruction means is decided at the thing's first cell; whoever sees the true tokens before reads it
    off them at all later cells, and hardly learns to decide. Without them every cell has to.
    """
    share = (2 * torch.rand(len(target), 1) - 0.5).clamp(0, 1)
    codes = torch.randint(CONFIG.vocab_size, target.shape)
    return torch.where(torch.rand(target.shape) < share, codes, target)


def miniature_loss(
    module: MiniatureEditAR, batch: Sequences, alike: bool, corrupt: bool, teacher: Tensor | None = None
) -> dict[str, Tensor]:
    """The paper's loss with the options above; `alike`: see SEQUENCES_ALIKE. teacher: the targets' features (B, P, D)
    to distil from, None as in the miniature's own training."""
    device = module.text.positions.device
    changed = batch.changed.bool()
    target = torch.where(changed, batch.target, batch.condition) if COPY_UNCHANGED_TOKENS else batch.target
    weight = 1.0 + (CHANGED_TOKEN_WEIGHT - 1.0) * changed.float()
    if alike:
        weight = weight / weight.mean(1, keepdim=True)
    null_image, null_text = (null.to(device) for null in conditional_dropout(len(target)))
    text = module.text.encode(batch.words.to(device))
    return editar_loss(
        module.transformer, batch.condition.to(device), text, target.to(device), null_image, null_text,
        teacher=teacher, token_weight=weight.to(device), fed=corrupted(target).to(device) if corrupt else None,
    )  # fmt: skip


def start_from_codebook(transformer: EditARTransformer, centroids: Tensor) -> None:
    """Give tokens that look alike embeddings that are alike, the same ones in the output layer as in the input.

    centroids (V, P): the codebook's patches. Half of each unit embedding shows the patch (its dampened principal
    components, turned at random), half is the token's own. Then what is learned of one token, to copy it first of all,
    holds for all, also for those that are seldom seen. The residual branches start small, so that the embeddings show.
    """
    codes, width = transformer.tok_embeddings.weight.shape
    centred = centroids - centroids.mean(0)
    left, scale, _ = torch.linalg.svd(centred, full_matrices=False)
    components = left * scale.sqrt()
    turned = components @ torch.linalg.qr(torch.randn(width, components.shape[1]))[0].T
    own = torch.randn(codes, width)
    embeddings = F.normalize(F.normalize(turned, dim=1) + F.normalize(own, dim=1), dim=1)
    transformer.tok_embeddings.weight.data.copy_(EMBEDDING_NORM * embeddings)
    transformer.output.weight.data.copy_(embeddings)
    for name, parameter in transformer.named_parameters():
        if name.endswith(("wo.weight", "w2.weight")):  # the ends of the residual branches
            parameter.data.mul_(BRANCH_SCALE)


def train_transformer(tokens: Path, centroids: Tensor, folder: Path, device: str = "cpu") -> None:
    """Train from scratch, or from where `folder` stopped, on the shards in `tokens`; centroids: the codebook's."""
    config = settings("transformer")
    torch.manual_seed(config.seed)
    module = MiniatureEditAR()
    if EMBEDDINGS_FROM_CODEBOOK:
        start_from_codebook(module.transformer, centroids)
    shards = Shards(tokens, SHARDS, STEPS_PER_SHARD)
    _train(module, shards, config, folder, device, lambda step: (False, False))


def continue_transformer(stage: str, trained: Path, tokens: Path, folder: Path, device: str = "cpu") -> None:
    """Go on from the end of the stage before, in `trained`.

    binding: crowded scenes, where instructions tell things apart. finishing: more of the edits that are learned last.
    """
    count, corrupted_from = {"binding": (BINDING_SHARDS, CORRUPTED_FROM), "finishing": (FINISHING_SHARDS, 0)}[stage]
    module = MiniatureEditAR()
    module.load_state_dict(trained_weights(trained))
    shards = Shards(tokens, count, STEPS_PER_SHARD)
    _train(module, shards, settings(stage), folder, device, lambda step: (SEQUENCES_ALIKE, step >= corrupted_from))


def _train(
    module: MiniatureEditAR,
    shards: Shards,
    config: TrainConfig,
    folder: Path,
    device: str,
    options: Callable[[int], tuple[bool, bool]],
) -> None:
    module = module.to(device)

    def loss(module: MiniatureEditAR, batch: Sequences, step: int) -> dict[str, Tensor]:
        return miniature_loss(module, batch, *options(step))

    train(module, loss, lambda step: shards.batch(config.seed, step, config.batch_size), config, folder)
