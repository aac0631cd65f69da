"""Stable Diffusion 1.5 with a second network that sees the condition map: ControlNet v1.1, ControlNet++, T2I-Adapter.

The first two read the condition with a copy of the encoder. ControlNet++ is v1.1 trained further with rewards: the same
architecture, base and settings. Both get the condition as the suite has it, in three channels: nearness, white edges on
black, and for segmentation the colours of control_seg, COCO-Stuff's. v1.1 was trained with ADE20K's colours and COCO's;
ControlNet++ was tuned to control_seg.

T2I-Adapter is a small network that reads the condition once, before sampling, and adds to the encoder's features. It is
published for depth (three channels) and canny (one), and sampled with the base's own scheduler, PNDM.

The rows differ in data alone, that of controlnet.toml: which networks there are and how they are sampled. The settings
are those of ControlNet++'s evaluation (liming-ai/ControlNet_Plus_Plus, eval/eval.py), which has all these rows. Its
images depend on the number of GPUs and on resuming, since all come from one seed; here each has its own.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from baselines.assets import ASSETS, weights_folder
from baselines.method import (
    MethodCard,
    MethodContext,
    NoAnswer,
    Requirements,
    TranslateRequest,
    Unsupported,
    in_blocks,
)
from baselines.stable_diffusion.networks import answer, check_dtype, noise
from editar.io.assets import Asset, digests, locate
from editar.io.tensors import check_archives

BASES = {"paper": ASSETS["stable-diffusion-v1-5"], "miniature": ASSETS["diffusion"]}
NEGATIVE_PROMPTS = {
    "paper": "worst quality, low quality",  # T2I-Adapter got it too
    "miniature": "",  # its world has no word for quality
}


@dataclass(frozen=True, kw_only=True)
class Control:
    """One row: Stable Diffusion and what controls it.

    networks: by suite, then task. network, pipeline: classes of diffusers. role: what the pipeline calls the network.
    channels: what the network's config calls the number of channels that it reads. scheduler: a class of diffusers,
    set up from the config of the base's own; None for the base's own.
    """

    card: MethodCard
    networks: Mapping[str, Mapping[str, Asset]]
    network: str
    pipeline: str
    role: str
    channels: str
    steps: int
    guidance: float
    scheduler: str | None = None


class ControlledDiffusion:
    """The method of a `Control`.

    dtype: of all networks, one of DTYPES in stable_diffusion/networks.py; without one float32, and float16 where the
    published rows had it: in the paper suite, on anything but a CPU. Raises Unsupported where there is no network for
    the suite and task.
    """

    def __init__(self, context: MethodContext, control: Control, dtype: str | None = None) -> None:
        networks = control.networks.get(context.suite, {})
        task = context.task
        if task is None or task not in networks:
            raise Unsupported(
                f"{control.card.published_as} has no network for the task {task!r} in the suite {context.suite!r}; it "
                f"has {', '.join(networks) or 'none'}: leave it out of --methods"
            )
        self.weights = weights_folder(context)
        if dtype is None:
            dtype = "float16" if context.suite == "paper" and context.device != "cpu" else "float32"
        check_dtype(dtype)
        self.card, self.control, self.task, self.dtype = control.card, control, task, dtype
        self.device, self.side = context.device, context.image_side
        self.images_at_once = context.images_at_once
        self.base, self.network = BASES[context.suite], networks[task]
        self.negative_prompt = NEGATIVE_PROMPTS[context.suite]
        self.pipeline: Any = None  # of diffusers, after load()

    def load(self) -> None:
        import diffusers

        # Without accelerate, which nothing else here needs, diffusers has no other way to load.
        options = {"dtype": getattr(torch, self.dtype), "local_files_only": True, "low_cpu_mem_usage": False}
        base, folder = self.base.find(self.weights), self.network.find(self.weights)
        safetensors = any(path.suffix == ".safetensors" for path in self.network.used_files(folder))
        for place in (base, folder):
            check_archives(place)
        network = getattr(diffusers, self.control.network).from_pretrained(
            folder, use_safetensors=safetensors, **options
        )
        pipeline = getattr(diffusers, self.control.pipeline).from_pretrained(
            base,
            **{self.control.role: network},
            scheduler=self._scheduler(base),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
            **options,
        )
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline = pipeline.to(self.device)

    @in_blocks
    def translate(self, requests: Sequence[TranslateRequest]) -> list[Image.Image | NoAnswer]:
        """Raises ValueError for requests of another task than the context's."""
        assert self.pipeline is not None, "call load() first"
        if others := sorted({request.task for request in requests} - {self.task}):
            raise ValueError(
                f"{self.card.published_as} was set up for {self.task}; the requests are of {', '.join(others)}"
            )
        pipeline = self.pipeline
        side = self.side // pipeline.vae_scale_factor
        latents = noise([request.seed for request in requests], (pipeline.unet.config.in_channels, side, side))
        channels = getattr(pipeline, self.control.role).config[self.control.channels]
        pixels = pipeline(
            prompt=[request.caption for request in requests],
            negative_prompt=[self.negative_prompt] * len(requests),
            image=[request.condition.convert("L" if channels == 1 else "RGB") for request in requests],
            num_inference_steps=self.control.steps,
            guidance_scale=self.control.guidance,
            latents=latents.to(self.device, pipeline.unet.dtype),
            output_type="np",
        ).images
        return [answer(torch.from_numpy(each * 255).round().movedim(-1, 0), self.dtype) for each in pixels]

    def settings(self) -> dict[str, Any]:
        """Finds the weights, and fetches what is missing of them: they are part of the settings."""
        scheduler = self._scheduler(self.base.find(self.weights))
        config = {name: value for name, value in scheduler.config.items() if not name.startswith("_")}
        return {
            "steps": self.control.steps,
            "guidance": self.control.guidance,
            "negative_prompt": self.negative_prompt,
            "scheduler": {"class": type(scheduler).__name__, **config},
            "dtype": self.dtype,
            "images_at_once": self.images_at_once,
            "safety_checker": "off",
            "weights": digests((self.base, self.network), self.weights),
        }

    def requirements(self) -> Requirements:
        files = locate((self.base, self.network), self.weights)
        steps = self.control.steps
        if self.control.scheduler is None:  # PNDM, which is the published base's own, takes its second step twice
            paths = (file.path for file in files if file.name.endswith("/scheduler_config.json"))
            steps += all("PNDM" in path.read_text("utf-8") for path in paths if path)
        passes = {"UNet": 2 * steps}  # with the prompt and with the negative one
        passes |= {"ControlNet": 2 * steps} if self.control.role == "controlnet" else {"T2I-Adapter": 1}
        return Requirements(files=files, passes=passes)

    def _scheduler(self, base: Path) -> Any:
        import diffusers

        scheduler = scheduler_of(base)
        if self.control.scheduler is None:
            return scheduler
        return getattr(diffusers, self.control.scheduler).from_config(scheduler.config)


def scheduler_of(base: Path) -> Any:
    """The scheduler that a pipeline's folder names. Raises ValueError: the file could name anything of diffusers."""
    import diffusers

    path = base / "scheduler" / "scheduler_config.json"
    try:
        name = json.loads(path.read_text("utf-8"))["_class_name"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is no scheduler's configuration ({error!r}); get the file again") from error
    kind: Any = getattr(diffusers, name, None) if isinstance(name, str) else None
    schedules = isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)
    if not schedules:
        raise ValueError(f"{path} names {name!r}, which is none of diffusers' schedulers; get the file again")
    return kind.from_pretrained(path.parent)


def _control(card: Mapping[str, Any], networks: Mapping[str, Mapping[str, str]], **options: Any) -> Control:
    """A row of controlnet.toml, where networks are named as in assets.toml."""
    assets = {suite: {task: ASSETS[name] for task, name in tasks.items()} for suite, tasks in networks.items()}
    return Control(card=MethodCard(kind="control", **card), networks=assets, **options)


ROWS = {
    name: _control(**row) for name, row in tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8")).items()
}
CONTROLNET, CONTROLNET_PLUS_PLUS, T2I_ADAPTER = ROWS.values()
controlnet = partial(ControlledDiffusion, control=CONTROLNET)
controlnet_plus_plus = partial(ControlledDiffusion, control=CONTROLNET_PLUS_PLUS)
t2i_adapter = partial(ControlledDiffusion, control=T2I_ADAPTER)
