"""PnP Inversion (Ju et al. 2023; Direct Inversion in its code, "directinversion+p2p") with Prompt-to-Prompt.

After every step the source branch is put back on the inversion's trajectory, so that in the end it is the image's own
latents; the target branch only gets the source's attention. The published code adds the difference to the trajectory
that it measured in a pass of its own, which is the same.
"""

import torch
from torch import Tensor

from baselines.inversion.base import card
from baselines.inversion.prompt_to_prompt import PromptToPrompt


class PnPInversion(PromptToPrompt):
    card = card("PnP Inversion", "arXiv 2310.01506")

    def correct(self, step: int, latents: Tensor, trajectory: Tensor) -> Tensor:
        return torch.cat((trajectory[-2 - step], latents.chunk(2)[1]))
