"""SEED-X-Edit over the exchange format. Runs in SEED-X's own environment: python seed_x.py CHECKOUT FOLDER

Written against AILab-CVC/SEED-X at the commit that seed_x.toml names; it does for every request what
src/inference/eval_img2edit_seed_x_edit.py does for one. Images come out at 1024 x 1024; the caller resizes them.
"""

import os
import sys

from exchange import NoImage, answer_all
from PIL import Image

DEVICE = "cuda"
SIDE = 1024  # of the de-tokenizer's images
VIEW = 448  # of the visual encoder's
IMAGE_TOKENS = 64
NEW_TOKENS = 512
STEPS = 50
GUIDANCE = 7.5
IMAGE_GUIDANCE = 1.5
DIFFUSION = "pretrained/stable-diffusion-xl-base-1.0"


class Editor:
    """The four networks. The working folder has to be the checkout: its configurations have relative paths."""

    def __init__(self):
        import torch
        from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel

        half = {"device": DEVICE, "dtype": torch.float16}
        self.tokenizer = build("tokenizer/clm_llama_tokenizer_224loc_anyres")
        self.transform = build("processer/qwen_448_transform")
        self.encoder = build("visual_encoder/qwen_vitg_448").eval().to(**half)
        llm = build("clm_models/llm_seed_x_edit", torch_dtype=torch.float16)
        self.agent = build("clm_models/agent_seed_x_edit", llm=llm).eval().to(**half)
        unet = UNet2DConditionModel.from_pretrained(DIFFUSION, subfolder="unet").to(**half)
        adapter = build(
            "sdxl_adapter/sdxl_qwen_vit_resampler_l4_q64_full_with_latent_image_pretrain_no_normalize", unet=unet
        )
        self.adapter = adapter.to(**half).eval()
        self.adapter.init_pipe(
            vae=AutoencoderKL.from_pretrained(DIFFUSION, subfolder="vae").to(**half),
            scheduler=EulerDiscreteScheduler.from_pretrained(DIFFUSION, subfolder="scheduler"),
            visual_encoder=self.encoder,
            image_transform=self.transform,
            **half,
        )

    def __call__(self, request, image):
        """A 1024 x 1024 image. Raises NoImage where the language model answers with text alone."""
        import torch

        with torch.no_grad():
            output = self.ask(image, request["instruction"])
            if not output["has_img_output"]:
                raise NoImage("SEED-X answered without an image: {!r}".format(output["text"]))
            return self.adapter.generate(
                image_embeds=output["img_gen_feat"],
                latent_image=image.resize((SIDE, SIDE), Image.Resampling.BICUBIC),
                seed=request["seed"],
                num_inference_steps=STEPS,
                guidance_scale=GUIDANCE,
                image_guidance_scale=IMAGE_GUIDANCE,
            )[0]

    def ask(self, image, instruction):
        """What the language model answers: its text, and the features of an image where it gives one."""
        import torch
        from src.inference.any_res import process_anyres_image

        # The image as its only patch, and once more as a whole.
        views, positions = process_anyres_image(image, self.transform, [[VIEW, VIEW]], VIEW)
        prompt = prompt_of(instruction, len(views))
        ids = [self.tokenizer.bos_token_id, *self.tokenizer.encode(prompt, add_special_tokens=False)]
        is_image = self.between(ids, ("<patch>", "</patch>"), ("<img>", "</img>"))
        return self.agent.generate(
            tokenizer=self.tokenizer,
            input_ids=torch.tensor([ids], device=DEVICE),
            image_embeds=self.encoder(views.to(DEVICE, torch.float16)),
            embeds_cmp_mask=torch.ones(len(views), dtype=torch.bool, device=DEVICE),
            patch_positions=positions,
            ids_cmp_mask=torch.tensor([is_image], device=DEVICE),
            max_new_tokens=NEW_TOKENS,
            num_img_gen_tokens=IMAGE_TOKENS,
        )

    def between(self, ids, *pairs):
        """For each token whether it stands between an opening and a closing one: there go the image's features."""
        opening, closing = (
            {self.tokenizer.encode(pair[end], add_special_tokens=False)[0] for pair in pairs} for end in (0, 1)
        )
        inside, flags = False, []
        for token in ids:
            inside = inside and token not in closing
            flags.append(inside)
            inside = inside or token in opening
        return flags


def prompt_of(instruction, views):
    """The instruction after the tokens of `views` views, of which the last is the whole image."""
    tokens = "".join(f"<img_{number:05d}>" for number in range(IMAGE_TOKENS))
    patches = f"<patch>{tokens}</patch>" * (views - 1)
    return f"[INST] {patches}<img>{tokens}</img>{instruction} [/INST]\n"


def build(config, **given):
    """What configs/<config>.yaml describes."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    return instantiate(OmegaConf.load(f"configs/{config}.yaml"), **given)


def main(checkout, folder):
    import torch

    folder = os.path.abspath(folder)
    os.chdir(checkout)
    sys.path.insert(0, os.getcwd())
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    answer_all(folder, Editor())


if __name__ == "__main__":
    main(*sys.argv[1:])
