"""DeepLabV3 with a ResNet-101 (Chen et al. 2017) in mmsegmentation's architecture, for COCO-Stuff 164k.

mmsegmentation's configuration `deeplabv3_r101-d8_4xb4-320k_coco-stuff164k-512x512`: a ResNetV1c (three 3 x 3
convolutions instead of one of 7 x 7) of output stride 8, atrous pooling with dilations 1, 12, 24 and 36, and inference
on the whole image. The names of modules are mmsegmentation's, so that its checkpoint loads as it is.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops import Conv2dNormActivation
from torchvision.transforms.functional import normalize

from editar.io.tensors import read_tensors
from metrics.networks.official import Found, OfficialNetwork

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
COCO_STUFF_CLASSES = 171
RESNET101 = (3, 4, 23, 3)  # blocks in each stage
ASPP_DILATIONS = (1, 12, 24, 36)
UNUSED = "auxiliary_head."  # serves training only


class OfficialDeepLabV3(OfficialNetwork):
    """Labels as mmsegmentation predicts them from its own checkpoint, which is read without its code."""

    classes = COCO_STUFF_CLASSES

    def __init__(self, weights: Found, *, device: str = "cpu") -> None:
        super().__init__(weights, "deeplabv3-r101-d8", device)
        with torch.device("meta"):
            network = nn.Sequential(
                OrderedDict[str, nn.Module](
                    backbone=ResNetV1c(RESNET101), decode_head=AsppHead(2048, 512, self.classes)
                )
            )
        state = read_tensors(weights.path)
        used = {name: value for name, value in state.items() if not name.startswith(UNUSED)}
        network.load_state_dict(used, strict=True, assign=True)
        self.network = network.requires_grad_(False).eval().to(device)

    def logits(self, images: Tensor) -> Tensor:
        """8-bit images (B, 3, H, W) in [0, 1] to scores (B, 171, ceil(H / 8), ceil(W / 8)).

        Images are taken at their own size. mmsegmentation's test pipeline first makes the shorter side 512, which
        changes nothing at the benchmark's 512 x 512.
        """
        pixels = (images.to(self.device) * 255).round()
        return self.network(normalize(pixels, PIXEL_MEAN, PIXEL_STD))

    def labels(self, images: Tensor) -> Tensor:
        """8-bit images (B, 3, H, W) in [0, 1] to train ids (B, H, W) int64 in 0..170, on the images' device.

        One image at a time: the scores of one at 512 x 512 take 180 MB.
        """
        labels = []
        for image in images:
            scores = F.interpolate(self.logits(image[None]), size=image.shape[-2:], mode="bilinear")
            labels.append(scores.argmax(1))
        return torch.cat(labels).to(images.device)


class ResNetV1c(ResNet):
    """torchvision's ResNet with dilations in the place of the last two strides, and the deep stem."""

    def __init__(self, blocks: Sequence[int]) -> None:
        super().__init__(Bottleneck, list(blocks), replace_stride_with_dilation=[False, True, True])
        del self.conv1, self.bn1, self.fc
        stem = [Conv2dNormActivation(*widths, 3, stride) for *widths, stride in ((3, 32, 2), (32, 32, 1), (32, 64, 1))]
        self.stem = nn.Sequential(*(layer for part in stem for layer in part))

    def forward(self, images: Tensor) -> Tensor:
        return self.layer4(self.layer3(self.layer2(self.layer1(self.maxpool(self.stem(images))))))


class AsppHead(nn.Module):
    """Atrous spatial pyramid pooling: features (B, width, h, w) to scores (B, classes, h, w)."""

    def __init__(self, width: int, narrow: int, classes: int) -> None:
        super().__init__()
        self.conv_seg = nn.Conv2d(narrow, classes, 1)
        self.image_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvModule(width, narrow, 1))
        self.aspp_modules = nn.ModuleList(
            ConvModule(width, narrow, 1 if dilation == 1 else 3, dilation) for dilation in ASPP_DILATIONS
        )
        self.bottleneck = ConvModule(narrow * (1 + len(ASPP_DILATIONS)), narrow, 3)

    def forward(self, features: Tensor) -> Tensor:
        pooled = self.image_pool(features).expand(-1, -1, *features.shape[-2:])
        parts = [pooled, *(module(features) for module in self.aspp_modules)]
        return self.conv_seg(self.bottleneck(torch.cat(parts, 1)))


class ConvModule(nn.Module):
    def __init__(self, before: int, after: int, kernel: int, dilation: int = 1) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv2d(before, after, kernel, padding=padding, dilation=dilation, bias=False)
        self.bn = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))
