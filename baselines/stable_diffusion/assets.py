"""Stable Diffusion 1.x in the folder layout of diffusers: the models that several rows share."""

from pathlib import Path

from baselines.method import MethodContext, Unsupported
from editar.io.assets import Asset

NETWORK_FILES = ("config.json", "diffusion_pytorch_model.safetensors")
PIPELINE_FILES = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
)
# In bytes: the files that all repositories of Stable Diffusion 1.x share. These sizes and the others of such folders
# are those of the large-file records in copies of the repositories.
STABLE_DIFFUSION_SIZES = {
    "tokenizer/merges.txt": 524_619,
    "tokenizer/special_tokens_map.json": 472,
    "tokenizer/tokenizer_config.json": 806,
    "tokenizer/vocab.json": 1_059_962,
    "vae/diffusion_pytorch_model.safetensors": 334_643_276,
}
STABLE_DIFFUSION_14 = Asset(
    name="stable-diffusion-v1-4",
    files=PIPELINE_FILES,
    repository="CompVis/stable-diffusion-v1-4",
    revision="133a221b8aa7292a167afc5127cb63fb5005638b",
    licence="CreativeML OpenRAIL-M",
    sizes={
        **STABLE_DIFFUSION_SIZES,
        "text_encoder/model.safetensors": 492_265_879,
        "unet/diffusion_pytorch_model.safetensors": 3_438_167_534,
    },
)
# runwayml/stable-diffusion-v1-5, which the published rows name, is gone; this is its mirror.
STABLE_DIFFUSION_15 = Asset(
    name="stable-diffusion-v1-5",
    files=PIPELINE_FILES,
    repository="stable-diffusion-v1-5/stable-diffusion-v1-5",
    revision="451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
    licence="CreativeML OpenRAIL-M",
    sizes={
        **STABLE_DIFFUSION_SIZES,
        "text_encoder/model.safetensors": 492_265_874,
        "unet/diffusion_pytorch_model.safetensors": 3_438_167_540,
    },
)
MINIATURE_PIPELINE = Asset(name="diffusion", files=PIPELINE_FILES)
# Of OpenAI's CLIP, for checkpoints in LDM's layout, which lack it.
CLIP_TOKENIZER = Asset(
    name="clip-vit-large-patch14",
    files=("merges.txt", "vocab.json"),
    repository="openai/clip-vit-large-patch14",
    revision="32bd64288804d66eefd0ccbe215aa642df71cc41",
    licence="MIT",
)


def weights_folder(context: MethodContext) -> Path | None:
    """The folder to look in first: the user's, or the miniature's own, which holds `diffusion/`.

    Raises Unsupported where the miniature's own has not been made.
    """
    if context.weights is not None or context.suite != "miniature":
        return context.weights
    from editar.pipeline import miniature_weights

    own = miniature_weights().parent
    if not (own / "diffusion").is_dir():
        raise Unsupported(
            "the miniature's diffusion networks are not there; python -m benchmarks.miniature.build_diffusion trains "
            "them"
        )
    return own
