"""T2I-Adapter: a small network that reads the condition once, before sampling, and adds to the encoder's features.

Published for depth (three channels) and canny (one). Sampled with the base's own scheduler, PNDM.
"""

from baselines.diffusion import Control, ControlledDiffusion
from baselines.method import MethodCard, MethodContext
from baselines.stable_diffusion.assets import NETWORK_FILES
from editar.io.assets import Asset

# The hub has these in PyTorch's format only.
_FILES = ("config.json", "diffusion_pytorch_model.bin")


def _tencent(name: str, revision: str, megabytes: int) -> Asset:
    """megabytes: of the weights, as the hub shows them, rounded."""
    return Asset(
        name=name,
        files=_FILES,
        repository=f"TencentARC/{name}",
        revision=revision,
        licence="Apache-2.0",
        sizes={_FILES[0]: 208, _FILES[1]: megabytes * 10**6},
    )


T2I_ADAPTER = Control(
    card=MethodCard(kind="control", published_as="T2I-Adapter", citation="arXiv 2302.08453", licence="Apache-2.0"),
    networks={
        "paper": {
            "depth": _tencent("t2iadapter_depth_sd15v2", "9f96518933daa6c9386692914f72af81a0f6978f", 309),
            "canny": _tencent("t2iadapter_canny_sd15v2", "a18baf4f0ff002f34dc2f19c4b93fe00d4cce9ee", 308),
        },
        "miniature": {
            task: Asset(name=f"diffusion/t2i-adapter-{task}", files=NETWORK_FILES) for task in ("depth", "canny")
        },
    },
    network="T2IAdapter",
    pipeline="StableDiffusionAdapterPipeline",
    role="adapter",
    channels="in_channels",
    scheduler=None,
    steps=50,
)


def t2i_adapter(context: MethodContext, dtype: str | None = None) -> ControlledDiffusion:
    return ControlledDiffusion(context, T2I_ADAPTER, dtype)
