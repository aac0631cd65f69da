"""UniControl (salesforce/UniControl): Stable Diffusion 1.5 and one control branch for all kinds of condition maps.

Sampled as by the authors' `inference_demo.py`. The task embedding is the text encoder's state at the first token of
the instruction. The encoder is causal, so that this is the start token's, whatever the instruction says: at run time
tasks differ by their experts alone.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from PIL import Image

from baselines.method import MethodCard, MethodContext, Requirements, TranslateRequest, refuse_miniature
from baselines.stable_diffusion.assets import CLIP_TOKENIZER
from baselines.unified.settings import SamplerSettings
from editar.io.assets import Asset, digests, locate

if TYPE_CHECKING:
    from baselines.stable_diffusion.networks import StableDiffusion
    from baselines.unified.unicontrol_branch import UniControlBranch

CHECKPOINT = Asset(
    name="unicontrol.ckpt",
    source="https://storage.googleapis.com/sfr-unicontrol-data-research/unicontrol.ckpt",
    sizes={"unicontrol.ckpt": 5_780_000_000},  # as its authors state it, in GB
    licence="Apache-2.0",
)
ASSETS = (CHECKPOINT, CLIP_TOKENIZER)
SETTINGS = SamplerSettings(steps=50, guidance=9.0, added_prompt="best quality, extremely detailed", negative_prompt="")
# Number of the expert, and instruction.
TASKS = {
    "canny": (1, "canny edge to image"),
    "segmentation": (2, "segmentation map to image"),
    "depth": (3, "depth map to image"),
}


class UniControl:
    card = MethodCard(kind="control", published_as="UniControl", citation="arXiv 2305.11147", licence="Apache-2.0")

    def __init__(self, context: MethodContext) -> None:
        refuse_miniature("UniControl", context)
        self.weights, self.device = context.weights, context.device
        self._parts: tuple[StableDiffusion, UniControlBranch] | None = None

    def load(self) -> None:
        from baselines.stable_diffusion.ldm import Sizes, read_stable_diffusion
        from baselines.unified.unicontrol_branch import read_branch
        from editar.io.tensors import map_pickle

        path, tokenizer = CHECKPOINT.find(self.weights), CLIP_TOKENIZER.find(self.weights)
        state, _ = map_pickle(path)
        sizes = Sizes.of(state, path)
        branch = read_branch(state, sizes, path, self.device)
        self._parts = read_stable_diffusion(state, sizes, path, tokenizer, self.device), branch

    def translate(self, requests: Sequence[TranslateRequest]) -> list[Image.Image]:
        """Raises ValueError where tasks are mixed."""
        import torch

        from baselines.unified.sampling import generate, guided_text, hints

        assert self._parts is not None, "call load() first"
        model, branch = self._parts
        tasks = {request.task for request in requests}
        if len(tasks) != 1:
            raise ValueError(f"the requests are of the tasks {sorted(tasks)}; give those of one task at a time")
        expert, instruction = TASKS[tasks.pop()]
        with torch.inference_mode():
            task = branch.embed_task(model.embed([instruction])[:, 0])
            hint = branch.embed_hint(hints(requests).to(self.device), expert, task).repeat(2, 1, 1, 1)
            text = guided_text(model, requests, SETTINGS)
            return generate(
                model,
                lambda latents, time, words: branch(latents, time, words, hint, task),
                text,
                requests,
                SETTINGS,
            )

    def settings(self) -> dict[str, Any]:
        tasks = {task: {"expert": expert, "instruction": words} for task, (expert, words) in TASKS.items()}
        return {
            "sampler": "DDIM, eta 0",
            **asdict(SETTINGS),
            "dtype": "float32",
            "tasks": tasks,
            "weights": digests(ASSETS, self.weights),
        }

    def requirements(self) -> Requirements:
        """UNet and control are run for both halves of the guidance in each step."""
        passes = dict.fromkeys(("UNet", "control"), 2 * SETTINGS.steps)
        return Requirements(files=locate(ASSETS, self.weights), passes=passes)
