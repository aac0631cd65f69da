"""The decode loop: images in blocks of a fixed width, pass after pass, drawn on the device.

Shape suffixes: B images, N tokens an image, L text positions, E text width, R rows, W places of a pass, V vocabulary.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from editar.config import DraftConfig, SamplingConfig
from editar.decoding.cpu.step import FusedTransformer, can_fuse
from editar.decoding.cuda import capture_steps, compile_blocks
from editar.decoding.drafts import first_guesses, guess_above, places, verify
from editar.decoding.forward import CachedTransformer
from editar.decoding.sampling import draw_uniforms, guide, sample
from editar.model.transformer import EditARTransformer

STRIDE = 64  # slots by which the cache grows; half of that is attended to in vain, on average
STRIDE_CUDA = 256  # there each size is compiled and captured
ONE_BY_ONE = DraftConfig(window=1)


class Decoder:
    """Draws target tokens from a model.

    On a CUDA device the layers are compiled and a step is captured as a CUDA graph for each size of the cache, at the
    first call for a width and settings (`warm_up` does it beforehand); the last width's and settings' are kept.
    Where that does not work there is a warning, and decoding goes on without. On a CPU a packed model (cpu/linear.py)
    takes fused steps.
    """

    def __init__(self, model: EditARTransformer) -> None:
        self.model = model
        self._kept: tuple[tuple[int, SamplingConfig, DraftConfig], Batch] | None = None

    @torch.inference_mode()
    def warm_up(self, width: int, settings: SamplingConfig, drafts: DraftConfig = ONE_BY_ONE) -> None:
        """Compile and capture what `generate` with this width and these settings needs on a CUDA device."""
        self._batch(width, settings, drafts)

    @torch.no_grad()
    def generate(
        self,
        condition_BN: Tensor,
        text_BLE: Tensor,
        seeds: Sequence[int],
        settings: SamplingConfig,
        *,
        width: int = 8,
        drafts: DraftConfig = ONE_BY_ONE,
        progress: Callable[[], object] | None = None,
    ) -> Tensor:
        """Draw the target tokens of B images, (B, N) int64.

        condition_BN: the condition images' tokens; text_BLE: the text encoder's raw output; seeds: one per image.
        width: images decoded together. Every block is filled up to it (the last by repeats, cut off again), because
        matrix products round differently for different batch sizes: so an image's tokens depend on its inputs and
        its seed alone, not on how many came with it or in which order. drafts: how many tokens a pass takes, which
        moves none of them. progress: called once for each token that all images of a block have; on a CUDA device the
        tokens may come later. Raises FloatingPointError where the model's logits are not finite.
        """
        count = condition_BN.shape[0]
        if not count == text_BLE.shape[0] == len(seeds):
            raise ValueError(f"{count} conditions, {text_BLE.shape[0]} texts and {len(seeds)} seeds; expected one each")
        uniforms_BN = draw_uniforms(seeds, self.model.config.image_tokens).to(condition_BN.device)
        blocks = []
        with torch.inference_mode():
            batch = self._batch(width, settings, drafts)
            for start in range(0, count, width):
                chosen = torch.arange(start, start + width).clamp(max=count - 1).to(condition_BN.device)
                batch.start(condition_BN[chosen], text_BLE[chosen], uniforms_BN[chosen])
                batch.finish(progress)
                batch.require_finite()
                blocks.append(batch.tokens_BN[: count - start].clone())
        return torch.cat(blocks)

    def _batch(self, width: int, settings: SamplingConfig, drafts: DraftConfig) -> "Batch":
        if self._kept is not None and self._kept[0] == (width, settings, drafts):
            return self._kept[1]
        self._kept = None  # its memory is free before the next one's is taken
        batch = Batch(self.model, width, settings, drafts)
        if batch.tokens_BN.is_cuda:
            self._kept = (width, settings, drafts), batch
        return batch


class Batch:
    """As many images as fit into one block, while their tokens are drawn.

    tokens_BN: those that are final, of each image the first done_B, then guesses; those before drawn_B were drawn after
    one. passes: of the transformer since the start, the prefill left out.
    """

    def __init__(
        self, model: EditARTransformer, width: int, settings: SamplingConfig, drafts: DraftConfig = ONE_BY_ONE
    ) -> None:
        self.settings, self.drafts = settings, drafts
        self.tokens, self.grid = model.config.image_tokens, model.config.grid
        self.window = min(drafts.window, self.tokens - 1)
        device = model.tok_embeddings.weight.device
        cuda = device.type == "cuda"
        rows_each = 2 if settings.guided else 1
        if can_fuse(model):
            self.model: CachedTransformer = FusedTransformer(model, width, rows_each, self.window)
        else:
            self.model = CachedTransformer(model, width, rows_each, stride=STRIDE_CUDA if cuda else STRIDE)
        self.tokens_BN = torch.zeros(width, self.tokens, dtype=torch.int64, device=device)
        self.uniforms_BN = torch.zeros(self.tokens_BN.shape, device=device)
        self.done_B = torch.ones(width, dtype=torch.int64, device=device)
        self.drawn_B = torch.ones_like(self.done_B)
        self._finite = torch.ones((), dtype=torch.bool, device=device)  # all logits since the start
        self.passes = 0
        self.graphs: dict[int, torch.cuda.CUDAGraph] | None = None
        if cuda:
            compile_blocks(self.model, self.tokens_BN[:, : self.window].repeat_interleave(rows_each, 0))
            self.graphs = capture_steps(self.model, self.step)

    def start(self, condition_BN: Tensor, text_BLE: Tensor, uniforms_BN: Tensor) -> None:
        """Read conditions and texts, and draw the first token of each image."""
        null_text = None
        if self.settings.guided:  # both branches keep the image; the second has the null text
            text_BLE = text_BLE.repeat_interleave(2, 0)
            null_text = torch.arange(len(text_BLE), device=text_BLE.device) % 2 == 1
        self.uniforms_BN.copy_(uniforms_BN)
        self.tokens_BN.copy_(first_guesses(self.drafts, condition_BN))
        self.passes = 0
        self.done_B.fill_(1)
        self.drawn_B.fill_(1)
        self._finite.fill_(True)
        logits_RV = self.model.prefill(condition_BN, text_BLE, null_text)
        self.tokens_BN[:, :1] = self._draw(logits_RV[:, None], self.uniforms_BN[:, :1])

    def finish(self, progress: Callable[[], object] | None = None) -> None:
        """Draw all further tokens."""
        done, most = 1, 1  # tokens that all images have, and that one may have
        tell(progress, 1)
        while done < self.tokens:
            # So many passes are needed in any case; in between nothing waits for the device.
            for _ in range(-(-(self.tokens - done) // self.window)):
                self.advance(fed=most - 1)
                most += self.window
            before, done = done, int(self.done_B.min())
            most = min(most, int(self.done_B.max()))
            tell(progress, done - before)

    def require_finite(self) -> None:
        """Raise FloatingPointError if a logit was NaN or infinite: its token would look like any other."""
        if not self._finite:
            raise FloatingPointError(
                "the transformer's logits are not finite: its weights are damaged or overflow in this dtype, or "
                "guidance or 1 / temperature is too large"
            )

    def advance(self, fed: int) -> None:
        """One pass, of images that have fed `fed` tokens at most."""
        slots = self.model.make_room(min(fed, self.tokens - 1 - self.window), self.window)
        self.passes += 1
        if self.graphs is not None:
            self.graphs[slots].replay()
        else:
            self.step()

    def step(self) -> None:
        """Feed each image's last final token and what is guessed after it, and draw what follows each; there must be
        room for them."""
        fed_BW = places(self.done_B, self.window, self.tokens)
        if self.drafts.guess == "above":
            guess_above(self.tokens_BN, fed_BW, self.drawn_B, self.grid)
        self.model.slot_B.copy_(fed_BW[:, 0] + 1)
        token_RW = self.tokens_BN.gather(1, fed_BW).repeat_interleave(self.model.rows_each, 0)
        drawn_BW = self._draw(self.model.decode_many(token_RW), self.uniforms_BN.gather(1, fed_BW + 1))
        self.done_B.copy_(verify(self.tokens_BN, drawn_BW, fed_BW, self.done_B))
        self.drawn_B.copy_(fed_BW[:, -1] + 2)

    def _draw(self, logits_RWV: Tensor, uniforms_BW: Tensor) -> Tensor:
        """(B, W)."""
        if self.settings.guided:  # rows of a place side by side
            logits = guide(logits_RWV.unflatten(0, (-1, 2)).transpose(1, 2).flatten(0, 2), self.settings.guidance)
        else:
            logits = logits_RWV.flatten(0, 1)
        self._finite.logical_and_((logits.abs().amax() / (self.settings.temperature or 1.0)).isfinite())
        return sample(logits, uniforms_BW.flatten(), self.settings).view_as(uniforms_BW)


def tell(progress: Callable[[], object] | None, tokens: int) -> None:
    """Of each of so many tokens."""
    for _ in range(tokens):
        if progress is not None:
            progress()
