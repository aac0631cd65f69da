"""ControlNet v1.1 and ControlNet++: a copy of the encoder that reads the condition.

ControlNet++ is v1.1 trained further with rewards: the same architecture, base and settings. Both get the condition as
the suite has it, in three channels: nearness, white edges on black, and for segmentation the colours of control_seg,
COCO-Stuff's. v1.1 was trained with ADE20K's colours and COCO's; ControlNet++ was tuned to control_seg.
"""

from collections.abc import Mapping

from baselines.diffusion import Control, ControlledDiffusion
from baselines.method import MethodCard, MethodContext
from baselines.stable_diffusion.assets import NETWORK_FILES
from editar.io.assets import Asset
from editar.prompts import TASKS

_SIZES = {"diffusion_pytorch_model.safetensors": 1_450_000_000}  # as the hub shows it, rounded


def _v11(name: str, revision: str) -> Asset:
    return Asset(
        name=name,
        files=NETWORK_FILES,
        repository=f"lllyasviel/{name}",
        revision=revision,
        licence="CreativeML OpenRAIL-M",
        sizes=_SIZES,
    )


def _reward(subfolder: str) -> Asset:
    return Asset(
        name=f"reward_controlnet/{subfolder}",
        files=NETWORK_FILES,
        repository="limingcv/reward_controlnet",
        revision="ce65cb27c438461c121eaab9a296b437efd2f0dc",
        subfolder=subfolder,
        licence="MIT",
        sizes=_SIZES,
    )


def _control(card: MethodCard, networks: Mapping[str, Mapping[str, Asset]]) -> Control:
    return Control(
        card=card,
        networks=networks,
        network="ControlNetModel",
        pipeline="StableDiffusionControlNetPipeline",
        role="controlnet",
        channels="conditioning_channels",
        scheduler="UniPCMultistepScheduler",
        steps=20,
    )


CONTROLNET = _control(
    MethodCard(kind="control", published_as="ControlNet", citation="arXiv 2302.05543", licence="CreativeML OpenRAIL-M"),
    {
        "paper": {
            "depth": _v11("control_v11f1p_sd15_depth", "539f99181d33db39cf1af2e517cd8056785f0a87"),
            "canny": _v11("control_v11p_sd15_canny", "115a470d547982438f70198e353a921996e2e819"),
            "segmentation": _v11("control_v11p_sd15_seg", "210682041b41097834006a910b8773f423343900"),
        },
        "miniature": {task: Asset(name=f"diffusion/controlnet-{task}", files=NETWORK_FILES) for task in TASKS},
    },
)
CONTROLNET_PLUS_PLUS = _control(
    MethodCard(kind="control", published_as="ControlNet++", citation="arXiv 2404.07987", licence="MIT"),
    {
        "paper": {
            "depth": _reward("checkpoints/depth/controlnet"),
            "canny": _reward("checkpoints/canny/controlnet"),
            "segmentation": _reward("checkpoints/cocostuff/reward_5k"),
        },
    },
)


def controlnet(context: MethodContext, dtype: str | None = None) -> ControlledDiffusion:
    return ControlledDiffusion(context, CONTROLNET, dtype)


def controlnet_plus_plus(context: MethodContext, dtype: str | None = None) -> ControlledDiffusion:
    return ControlledDiffusion(context, CONTROLNET_PLUS_PLUS, dtype)
