"""UniControl's control branch (Qin et al. 2023, arXiv:2305.11147): a ControlNet whose hint is read by one expert for
each task, and whose zero convolutions are modulated by an embedding of the task.

Modules are called as in the checkpoint, but for the trunk, which is diffusers'.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from baselines.stable_diffusion.ldm import Sizes, build_trunk, empty, fill, unet_name

PREFIX = "control_model."
EXPERTS = 13
# A second pair of convolutions that the released forward passes over.
UNUSED = tuple(f"input_hint_block_zeroconv_{place}.1.{kind}" for place in (0, 1) for kind in ("weight", "bias"))


class UniControlBranch(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        first, wide = sizes.unet[0], sizes.time_width
        self.trunk = build_trunk(sizes)
        self.zero_convs = nn.ModuleList(nn.Sequential(nn.Conv2d(each, each, 1)) for each in sizes.features)
        self.middle_block_out = nn.Sequential(nn.Conv2d(sizes.unet[-1], sizes.unet[-1], 1))
        self.input_hint_block_list_moe = nn.ModuleList(
            nn.Sequential(
                *(nn.Conv2d(3, 16, 3, padding=1), nn.SiLU()),
                *(nn.Conv2d(16, 16, 3, padding=1), nn.SiLU()),
                *(nn.Conv2d(16, 32, 3, padding=1, stride=2), nn.SiLU()),
            )
            for _ in range(EXPERTS)
        )
        self.input_hint_block_zeroconv_0 = nn.ModuleList([nn.Conv2d(32, 32, 3, padding=1)])
        self.input_hint_block_share = nn.Sequential(
            *(nn.Conv2d(32, 32, 3, padding=1), nn.SiLU()),
            *(nn.Conv2d(32, 96, 3, padding=1, stride=2), nn.SiLU()),
            *(nn.Conv2d(96, 96, 3, padding=1), nn.SiLU()),
            *(nn.Conv2d(96, 256, 3, padding=1, stride=2), nn.SiLU()),
        )
        self.input_hint_block_zeroconv_1 = nn.ModuleList([nn.Conv2d(256, first, 3, padding=1)])
        self.task_id_hypernet = nn.Sequential(
            nn.Linear(sizes.text_width, wide), nn.SiLU(), nn.Linear(wide, wide), nn.SiLU()
        )
        self.task_id_layernet = nn.ModuleList(nn.Linear(wide, each) for each in sizes.features)
        self.task_id_layernet_zeroconv_0 = nn.Linear(wide, 32)
        self.task_id_layernet_zeroconv_1 = nn.Linear(wide, 256)

    def embed_task(self, feature: Tensor) -> Tensor:
        """The text encoder's state (1, C) at the first token of a task's instruction -> (1, 4 * first level)."""
        return self.task_id_hypernet(feature)

    def embed_hint(self, hint: Tensor, expert: int, task: Tensor) -> Tensor:
        """A condition map (B, 3, S, S) in [0, 1] -> (B, first level, S/8, S/8), the same at all time steps."""
        hidden = self.input_hint_block_list_moe[expert](hint)
        hidden = _modulated(self.input_hint_block_zeroconv_0[0], hidden, self.task_id_layernet_zeroconv_0(task))
        hidden = self.input_hint_block_share(hidden)
        return _modulated(self.input_hint_block_zeroconv_1[0], hidden, self.task_id_layernet_zeroconv_1(task))

    def forward(
        self, latents: Tensor, time: Tensor, text: Tensor, hint: Tensor, task: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """What is added to the skip connections and to the middle of the UNet. hint, task: as embedded above."""
        features, middle = self.trunk(
            latents, time, encoder_hidden_states=text, controlnet_cond=hint, return_dict=False
        )
        down = [
            _modulated(zero_conv, each, style(task))
            for each, zero_conv, style in zip(features, self.zero_convs, self.task_id_layernet, strict=True)
        ]
        return down, self.middle_block_out(middle)


def read_branch(state: Mapping[str, Tensor], sizes: Sizes, path: Path, device: str) -> UniControlBranch:
    """path: of the checkpoint, for messages."""
    return fill(empty(lambda: UniControlBranch(sizes)), state, path, PREFIX, _name, UNUSED).to(device)


def _modulated(convolution: nn.Module, hidden: Tensor, style: Tensor) -> Tensor:
    """A convolution (B, C, h, w) whose weights are scaled by `style` (1, C): the same as scaling what goes in."""
    return convolution(hidden * style[:, :, None, None])


def _name(name: str) -> str:
    return unet_name(name.removeprefix("trunk.")) if name.startswith("trunk.") else name
