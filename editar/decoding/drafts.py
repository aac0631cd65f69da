"""Several tokens in one pass, exactly: guesses are fed as if they were tokens, and verified by what is drawn then.

A token is a function of the tokens before it and of one uniform that was drawn beforehand. So of what a pass draws at W
places all is final up to and including the first token that differs from its guess, whatever the guesses were; what
was drawn behind it are the next guesses. That is Jacobi decoding (Song et al. 2021, arXiv 2002.03629) with the noise of
every token fixed, as in Speculative Jacobi Decoding (arXiv 2410.01699) but without a rule of acceptance: the same
tokens come out as one at a time.

Shape suffixes: B images, N tokens an image, W places of a pass.
"""

import torch
from torch import Tensor

from editar.config import DraftConfig


def first_guesses(drafts: DraftConfig, condition_BN: Tensor) -> Tensor:
    """What is guessed where nothing was drawn yet."""
    return condition_BN if drafts.guess == "source" else torch.zeros_like(condition_BN)


def places(done_B: Tensor, window: int, tokens: int) -> Tensor:
    """The next W places to feed, (B, W): from the last final token on, or the last W that are ever fed.

    done_B: how many tokens of each image are final, at least 1. window: W, at most tokens - 1.
    """
    first_B = (done_B - 1).clamp(max=tokens - 1 - window)
    return first_B[:, None] + torch.arange(window, device=done_B.device)


def guess_above(tokens_BN: Tensor, fed_BW: Tensor, drawn_B: Tensor, grid: int) -> None:
    """Guess the token one row up, in place, where nothing was drawn yet: behind the first `drawn_B` tokens."""
    above_BW = tokens_BN.gather(1, (fed_BW - grid).clamp(min=0))
    known_BW = tokens_BN.gather(1, fed_BW)
    tokens_BN.scatter_(1, fed_BW, torch.where(fed_BW < drawn_B[:, None], known_BW, above_BW))


def verify(tokens_BN: Tensor, drawn_BW: Tensor, fed_BW: Tensor, done_B: Tensor) -> Tensor:
    """Keep what was drawn behind each fed place, in place; how many tokens are final now, (B,).

    tokens_BN: `done_B` final ones, then guesses.
    """
    after_BW = fed_BW + 1
    known_BW = tokens_BN.gather(1, after_BW)
    final_BW = after_BW < done_B[:, None]
    tokens_BN.scatter_(1, after_BW, torch.where(final_BW, known_BW, drawn_BW))
    right_BW = final_BW | (drawn_BW == known_BW)
    # The first wrong guess is replaced by its token, which is final too.
    verified_B = (right_BW.long().cumprod(1).sum(1) + 1).clamp(max=fed_BW.shape[1])
    return fed_BW[:, 0] + 1 + verified_B
