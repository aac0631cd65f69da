"""ControlNet v1.1, ControlNet++ and T2I-Adapter.

The first two read the condition with a copy of the encoder. ControlNet++ is v1.1 trained further with rewards: the same
architecture, base and settings. Both get the condition as the suite has it, in three channels: nearness, white edges on
black, and for segmentation the colours of control_seg, COCO-Stuff's. v1.1 was trained with ADE20K's colours and COCO's;
ControlNet++ was tuned to control_seg.

T2I-Adapter is a small network that reads the condition once, before sampling, and adds to the encoder's features. It is
published for depth (three channels) and canny (one), and sampled with the base's own scheduler, PNDM.
"""

from dataclasses import replace

from baselines.assets import ASSETS
from baselines.diffusion import Control, ControlledDiffusion
from baselines.method import MethodCard, MethodContext

CONTROLNET = Control(
    card=MethodCard(
        kind="control", published_as="ControlNet", citation="arXiv 2302.05543", licence="CreativeML OpenRAIL-M"
    ),
    networks={
        "paper": {
            "depth": ASSETS["control_v11f1p_sd15_depth"],
            "canny": ASSETS["control_v11p_sd15_canny"],
            "segmentation": ASSETS["control_v11p_sd15_seg"],
        },
        "miniature": {
            "depth": ASSETS["diffusion/controlnet-depth"],
            "canny": ASSETS["diffusion/controlnet-canny"],
            "segmentation": ASSETS["diffusion/controlnet-segmentation"],
        },
    },
    network="ControlNetModel",
    pipeline="StableDiffusionControlNetPipeline",
    role="controlnet",
    channels="conditioning_channels",
    scheduler="UniPCMultistepScheduler",
    steps=20,
)
CONTROLNET_PLUS_PLUS = replace(
    CONTROLNET,
    card=MethodCard(kind="control", published_as="ControlNet++", citation="arXiv 2404.07987", licence="MIT"),
    networks={
        "paper": {
            "depth": ASSETS["reward_controlnet/checkpoints/depth/controlnet"],
            "canny": ASSETS["reward_controlnet/checkpoints/canny/controlnet"],
            "segmentation": ASSETS["reward_controlnet/checkpoints/cocostuff/reward_5k"],
        },
    },
)
T2I_ADAPTER = Control(
    card=MethodCard(kind="control", published_as="T2I-Adapter", citation="arXiv 2302.08453", licence="Apache-2.0"),
    networks={
        "paper": {"depth": ASSETS["t2iadapter_depth_sd15v2"], "canny": ASSETS["t2iadapter_canny_sd15v2"]},
        "miniature": {
            "depth": ASSETS["diffusion/t2i-adapter-depth"],
            "canny": ASSETS["diffusion/t2i-adapter-canny"],
        },
    },
    network="T2IAdapter",
    pipeline="StableDiffusionAdapterPipeline",
    role="adapter",
    channels="in_channels",
    scheduler=None,
    steps=50,
)


def controlnet(context: MethodContext, dtype: str | None = None) -> ControlledDiffusion:
    return ControlledDiffusion(context, CONTROLNET, dtype)


def controlnet_plus_plus(context: MethodContext, dtype: str | None = None) -> ControlledDiffusion:
    return ControlledDiffusion(context, CONTROLNET_PLUS_PLUS, dtype)


def t2i_adapter(context: MethodContext, dtype: str | None = None) -> ControlledDiffusion:
    return ControlledDiffusion(context, T2I_ADAPTER, dtype)
