"""How both unified methods sample; read without PyTorch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SamplerSettings:
    """DDIM without noise (eta 0) in float32, the control at full strength in both halves of the guidance.

    steps: a divisor of the 1000 training steps. guidance: eps = eps_negative + guidance * (eps_prompt - eps_negative).
    added_prompt: what the authors append to every caption, after a comma. negative_prompt: in place of the caption.
    """

    steps: int = 50
    guidance: float
    added_prompt: str = "best quality, extremely detailed"
    negative_prompt: str

    def __post_init__(self) -> None:
        if self.steps < 1 or 1000 % self.steps:
            raise ValueError(f"steps is {self.steps}; it must divide the 1000 steps of training")

    def prompt(self, caption: str) -> str:
        return f"{caption}, {self.added_prompt}"
