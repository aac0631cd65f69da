"""SEED-X-Edit: a language model of 17 billion parameters that answers with the features of an image, which a
de-tokenizer (SDXL that sees the image to edit) turns into 1024 x 1024 pixels. It may also answer with text alone.

All of it pins old libraries and runs in its own environment, by `recipes/seed_x.toml`; resizing is ours.
"""

from dataclasses import replace

from baselines.external import External, read_recipe
from baselines.method import MethodCard, MethodContext, Requirements, refuse_miniature
from baselines.recipes import SEED_X as RECIPE
from editar.io.assets import AssetFile

CHECKOUT = "${SEED_X}/"


def _seed_x(name: str) -> AssetFile:
    return AssetFile(name=f"pretrained/{name}", source="hub: AILab-CVC/SEED-X-17B", licence="SEED-X-17B's")


def _sdxl(name: str, size: int | None = None) -> AssetFile:
    base = "stable-diffusion-xl-base-1.0"
    return AssetFile(
        name=f"pretrained/{base}/{name}",
        source=f"hub: stabilityai/{base}",
        size=size,
        licence="CreativeML OpenRAIL++-M",
    )


# Below the checkout. The rounded size is the one that the hub shows.
FILES = (
    AssetFile(name="configs/", source="github: AILab-CVC/SEED-X @ 420d347", licence="Apache-2.0"),
    _seed_x("seed_x_edit/agent/pytorch_model.bin"),
    _seed_x("seed_x_edit/llm/"),
    _seed_x("seed_detokenizer/second_stage/pytorch_model.bin"),
    _seed_x("cvlm_llama2_tokenizer_100img_and_224loc_addpatch/"),
    AssetFile(
        name="pretrained/QwenViT/qwen_vit_G.pt",
        source="src/tools/reload_qwen_vit.py, which extracts it from the hub's Qwen/Qwen-VL-Chat",
        licence="Tongyi Qianwen",
    ),
    _sdxl("scheduler/scheduler_config.json"),
    _sdxl("unet/config.json"),
    _sdxl("unet/diffusion_pytorch_model.safetensors", 10_270_077_736),
    _sdxl("vae/config.json"),
    _sdxl("vae/diffusion_pytorch_model.safetensors", 335_000_000),
)


class SeedXEdit(External):
    """Raises Unsupported in the miniature. Where an environment variable that the recipe names is not set, `settings`
    raises ValueError."""

    def __init__(self, context: MethodContext) -> None:
        refuse_miniature("SEED-X-Edit", context)
        super().__init__(read_recipe(RECIPE))
        self.card = MethodCard(
            kind="feed-forward", published_as="SEED-X-Edit", citation="arXiv 2404.14396", licence="SEED-X-17B's"
        )

    def requirements(self) -> Requirements:
        """The de-tokenizer's guidance takes three predictions in each step, as InstructPix2Pix' does."""
        recipe = self.recipe
        return Requirements(
            files=tuple(replace(file, path=recipe.found(CHECKOUT + file.name)) for file in FILES),
            passes={"language model": recipe.settings["new_tokens"], "UNet": 3 * recipe.settings["steps"]},
            unset=recipe.unset,
            note="every batch loads it all anew; the language model's passes are the most tokens that it writes",
        )
