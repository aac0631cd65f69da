"""The decode loop: images in blocks of a fixed width, token after token, drawn on the device.

Shape suffixes: B images, N tokens an image, L text positions, E text width, R rows, V vocabulary.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from editar.config import SamplingConfig
from editar.decoding.cpu.step import FusedTransformer, can_fuse
from editar.decoding.cuda import capture_steps, compile_blocks
from editar.decoding.forward import CachedTransformer
from editar.decoding.sampling import draw_uniforms, guide, sample
from editar.model.transformer import EditARTransformer

STRIDE = 64  # slots by which the cache grows; half of that is attended to in vain, on average
STRIDE_CUDA = 256  # there each size is compiled and captured


class Decoder:
    """Draws target tokens from a model.

    On a CUDA device the layers are compiled and a step is captured as a CUDA graph for each size of the cache, at the
    first call for a width and settings (`warm_up` does it beforehand); the last width's and settings' are kept.
    Where that does not work there is a warning, and decoding goes on without. On a CPU a packed model (cpu/linear.py)
    takes fused steps.
    """

    def __init__(self, model: EditARTransformer) -> None:
        self.model = model
        self._kept: tuple[tuple[int, SamplingConfig], Batch] | None = None

    @torch.inference_mode()
    def warm_up(self, width: int, settings: SamplingConfig) -> None:
        """Compile and capture what `generate` with this width and these settings needs on a CUDA device."""
        self._batch(width, settings)

    @torch.no_grad()
    def generate(
        self,
        condition_BN: Tensor,
        text_BLE: Tensor,
        seeds: Sequence[int],
        settings: SamplingConfig,
        *,
        width: int = 8,
        progress: Callable[[], object] | None = None,
    ) -> Tensor:
        """Draw the target tokens of B images, (B, N) int64.

        condition_BN: the condition images' tokens; text_BLE: the text encoder's raw output; seeds: one per image.
        width: images decoded together. Every block is filled up to it (the last by repeats, cut off again), because
        matrix products round differently for different batch sizes: so an image's tokens depend on its inputs and
        its seed alone, not on how many came with it or in which order. progress: called after each token of a block;
        on a CUDA device the tokens may come later. Raises FloatingPointError where the model's logits are not finite.
        """
        count = condition_BN.shape[0]
        if not count == text_BLE.shape[0] == len(seeds):
            raise ValueError(f"{count} conditions, {text_BLE.shape[0]} texts and {len(seeds)} seeds; expected one each")
        uniforms_BN = draw_uniforms(seeds, self.model.config.image_tokens).to(condition_BN.device)
        blocks = []
        with torch.inference_mode():
            batch = self._batch(width, settings)
            for start in range(0, count, width):
                chosen = torch.arange(start, start + width).clamp(max=count - 1).to(condition_BN.device)
                batch.start(condition_BN[chosen], text_BLE[chosen], uniforms_BN[chosen])
                batch.finish(progress)
                batch.require_finite()
                blocks.append(batch.tokens_BN[: count - start].clone())
        return torch.cat(blocks)

    def _batch(self, width: int, settings: SamplingConfig) -> "Batch":
        if self._kept is not None and self._kept[0] == (width, settings):
            return self._kept[1]
        self._kept = None  # its memory is free before the next one's is taken
        batch = Batch(self.model, width, settings)
        if batch.tokens_BN.is_cuda:
            self._kept = (width, settings), batch
        return batch


class Batch:
    """As many images as fit into one block, while their tokens are drawn."""

    def __init__(self, model: EditARTransformer, width: int, settings: SamplingConfig) -> None:
        self.settings = settings
        device = model.tok_embeddings.weight.device
        cuda = device.type == "cuda"
        rows_each = 2 if settings.guided else 1
        if can_fuse(model):
            self.model: CachedTransformer = FusedTransformer(model, width, rows_each)
        else:
            self.model = CachedTransformer(model, width, rows_each, stride=STRIDE_CUDA if cuda else STRIDE)
        self.tokens_BN = torch.zeros(width, model.config.image_tokens, dtype=torch.int64, device=device)
        self.uniforms_BN = torch.zeros(self.tokens_BN.shape, device=device)
        self._fed_R = torch.zeros(width * rows_each, dtype=torch.int64, device=device)
        self._drawn = torch.zeros(1, dtype=torch.int64, device=device)
        self._finite = torch.ones((), dtype=torch.bool, device=device)  # all logits since the start
        self.graphs: dict[int, torch.cuda.CUDAGraph] | None = None
        if cuda:
            compile_blocks(self.model, self._fed_R)
            self.graphs = capture_steps(self.model, self.step)

    def start(self, condition_BN: Tensor, text_BLE: Tensor, uniforms_BN: Tensor) -> None:
        """Read conditions and texts, and draw the first token of each image."""
        null_text = None
        if self.settings.guided:  # both branches keep the image; the second has the null text
            text_BLE = text_BLE.repeat_interleave(2, 0)
            null_text = torch.arange(len(text_BLE), device=text_BLE.device) % 2 == 1
        self.uniforms_BN.copy_(uniforms_BN)
        self._drawn.zero_()
        self._finite.fill_(True)
        self._draw(self.model.prefill(condition_BN, text_BLE, null_text))

    def finish(self, progress: Callable[[], object] | None = None) -> None:
        """Draw all further tokens."""
        for token in range(self.tokens_BN.shape[1]):
            if token > 0:
                self.advance(fed=token - 1)
            if progress is not None:
                progress()

    def require_finite(self) -> None:
        """Raise FloatingPointError if a logit was NaN or infinite: its token would look like any other."""
        if not self._finite:
            raise FloatingPointError(
                "the transformer's logits are not finite: its weights are damaged or overflow in this dtype, or "
                "guidance or 1 / temperature is too large"
            )

    def advance(self, fed: int) -> None:
        """Draw the token that follows `fed` fed ones and the last drawn one."""
        slots = self.model.make_room(fed)
        if self.graphs is not None:
            self.graphs[slots].replay()
        else:
            self.step()

    def step(self) -> None:
        """Feed the last tokens and draw the next; there must be room for it."""
        self._draw(self.model.decode_one(self._fed_R))

    def _draw(self, logits_RV: Tensor) -> None:
        guided = guide(logits_RV, self.settings.guidance) if self.settings.guided else logits_RV
        self._finite.logical_and_((guided.abs().amax() / (self.settings.temperature or 1.0)).isfinite())
        tokens_B = sample(guided, self.uniforms_BN.index_select(1, self._drawn)[:, 0], self.settings)
        self.tokens_BN.index_copy_(1, self._drawn, tokens_B[:, None])
        self._fed_R.copy_(tokens_B.repeat_interleave(self.model.rows_each))
        self._drawn += 1
