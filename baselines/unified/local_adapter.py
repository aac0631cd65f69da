"""Uni-ControlNet's adapters (Zhao et al. 2023, arXiv:2305.16322). The local one is a ControlNet that reads all kinds of
condition maps at once, and into which they enter by feature denormalisation (FDN) at all four resolutions; the global
one turns an image embedding into four more words.

Modules are called as in the checkpoint, but for the trunk, which is diffusers'.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from diffusers.models.attention import FeedForward
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from baselines.stable_diffusion.ldm import Sizes, build_trunk, empty, fill, unet_name

PREFIX = "local_adapter."
GLOBAL_PREFIX = "global_adapter."
HINT_CHANNELS = 21  # RGB of canny, MLSD, HED, sketch, pose, depth and segmentation, in this order
INJECTED = (192, 256, 384, 512)  # channels of the hint's features at the four resolutions
WORDS = 4


class FDN(nn.Module):
    """Group norm whose scale and shift come, pixel by pixel, from the hint's features."""

    def __init__(self, channels: int, injected: int) -> None:
        super().__init__()
        self.param_free_norm = nn.GroupNorm(32, channels, affine=False)
        self.conv_gamma = nn.Conv2d(injected, channels, 3, padding=1)
        self.conv_beta = nn.Conv2d(injected, channels, 3, padding=1)

    def forward(self, hidden: Tensor, features: Tensor) -> Tensor:
        return self.param_free_norm(hidden) * (1 + self.conv_gamma(features)) + self.conv_beta(features)


class LocalResnetBlock(ResnetBlock2D):
    """diffusers' residual block with FDN in place of its group norms."""

    def __init__(self, block: ResnetBlock2D, time_width: int, injected: int) -> None:
        """block: the one that this replaces."""
        super().__init__(in_channels=block.in_channels, out_channels=block.out_channels, temb_channels=time_width)
        self.norm1 = FDN(block.in_channels, injected)
        self.norm2 = FDN(block.out_channels, injected)

    def forward(self, input_tensor: Tensor, temb: Tensor, features: Tensor) -> Tensor:
        hidden = self.conv1(self.nonlinearity(self.norm1(input_tensor, features)))
        hidden = hidden + self.time_emb_proj(self.nonlinearity(temb))[:, :, None, None]
        hidden = self.conv2(self.nonlinearity(self.norm2(hidden, features)))
        return hidden + (input_tensor if self.conv_shortcut is None else self.conv_shortcut(input_tensor))


class FeatureExtractor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pre_extractor = nn.Sequential(
            *(nn.Conv2d(HINT_CHANNELS, 32, 3, padding=1), nn.SiLU()),
            *(nn.Conv2d(32, 64, 3, padding=1, stride=2), nn.SiLU()),
            *(nn.Conv2d(64, 64, 3, padding=1), nn.SiLU()),
            *(nn.Conv2d(64, 128, 3, padding=1, stride=2), nn.SiLU()),
            *(nn.Conv2d(128, 128, 3, padding=1), nn.SiLU()),
        )
        self.extractors = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, padding=1, stride=2), nn.SiLU())
            for before, after in zip((128, *INJECTED), INJECTED, strict=False)
        )
        self.zero_convs = nn.ModuleList(nn.Conv2d(each, each, 3, padding=1) for each in INJECTED)

    def forward(self, hint: Tensor) -> list[Tensor]:
        hidden = self.pre_extractor(hint)
        features = []
        for extractor, zero_conv in zip(self.extractors, self.zero_convs, strict=True):
            hidden = extractor(hidden)
            features.append(zero_conv(hidden))
        return features


class LocalAdapter(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.trunk = build_trunk(sizes)
        for block, injected in zip(self.trunk.down_blocks, INJECTED, strict=True):
            block.resnets[0] = LocalResnetBlock(block.resnets[0], sizes.time_width, injected)
        self.feature_extractor = FeatureExtractor()
        self.zero_convs = nn.ModuleList(nn.Sequential(nn.Conv2d(each, each, 1)) for each in sizes.features)
        self.middle_block_out = nn.Sequential(nn.Conv2d(sizes.unet[-1], sizes.unet[-1], 1))

    def embed_hint(self, hint: Tensor) -> list[Tensor]:
        """All maps (B, 21, S, S) in [0, 1], absent ones zero -> features at S/8 .. S/64, the same at all time steps."""
        return self.feature_extractor(hint)

    def forward(
        self, latents: Tensor, time: Tensor, text: Tensor, features: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """What is added to the skip connections and to the middle of the UNet. features: of `embed_hint`."""
        trunk = self.trunk
        embedded = trunk.time_embedding(trunk.time_proj(time.expand(len(latents))))
        hidden = trunk.conv_in(latents)
        outputs = [hidden]
        for block, local in zip(trunk.down_blocks, features, strict=True):
            for number, resnet in enumerate(block.resnets):
                hidden = resnet(hidden, embedded, local) if number == 0 else resnet(hidden, embedded)
                if getattr(block, "has_cross_attention", False):
                    hidden = block.attentions[number](hidden, encoder_hidden_states=text, return_dict=False)[0]
                outputs.append(hidden)
            for downsampler in block.downsamplers or ():
                hidden = downsampler(hidden)
                outputs.append(hidden)
        middle = trunk.mid_block(hidden, embedded, encoder_hidden_states=text)
        down = [zero_conv(each) for each, zero_conv in zip(outputs, self.zero_convs, strict=True)]
        return down, self.middle_block_out(middle)


class GlobalAdapter(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.ff1 = FeedForward(width, dim_out=2 * width, mult=4, activation_fn="geglu")
        self.norm2 = nn.LayerNorm(2 * width)
        self.ff2 = FeedForward(2 * width, dim_out=WORDS * width, mult=4, activation_fn="geglu")

    def forward(self, content: Tensor) -> Tensor:
        """An image embedding (B, C) -> (B, 4, C), which follow the words of the prompt."""
        return self.ff2(self.norm2(self.ff1(self.norm1(content)))).unflatten(1, (WORDS, -1))


def read_adapters(
    state: Mapping[str, Tensor], sizes: Sizes, path: Path, device: str
) -> tuple[LocalAdapter, GlobalAdapter]:
    """path: of the checkpoint, for messages."""
    local = fill(empty(lambda: LocalAdapter(sizes)), state, path, PREFIX, _name)
    content = fill(empty(lambda: GlobalAdapter(sizes.text_width)), state, path, GLOBAL_PREFIX)
    return local.to(device), content.to(device)


def _name(name: str) -> str:
    if not name.startswith("trunk."):
        return name
    name = name.removeprefix("trunk.")
    ldm = unet_name(name)
    if ".conv_gamma." in name or ".conv_beta." in name:  # FDN stands beside the layers, not in the norms' places
        return ldm.replace("in_layers.0", "norm_in").replace("out_layers.0", "norm_out")
    return ldm
