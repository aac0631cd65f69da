"""The references that go through another row's autoencoder."""

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from baselines.method import EditRequest, MethodContext
from baselines.references import VAEReconstruction
from benchmarks.miniature import WEIGHTS
from benchmarks.miniature.world.embedded import held_out_scenes
from benchmarks.miniature.world.render import render

CONTEXT = MethodContext(suite="miniature", weights=None, device="cpu", image_side=64)


def request(image: Image.Image) -> EditRequest:
    return EditRequest(
        sample_id="a", image=image, instruction="", source_prompt="", target_prompt="", blend_words=None, seed=0
    )


@torch.inference_mode()
def test_the_autoencoders_reconstruction_is_that_of_diffusers_own_pipelines():
    method = VAEReconstruction(CONTEXT)
    method.load()
    images = [Image.fromarray(render(scene)) for scene in held_out_scenes("depth", 3)]
    found = method.edit([request(image) for image in images])
    vae, processor = AutoencoderKL.from_pretrained(WEIGHTS / "diffusion" / "vae").eval(), VaeImageProcessor()
    for image, answer in zip(images, found, strict=True):
        decoded = vae.decode(vae.encode(processor.preprocess(image)).latent_dist.mode()).sample
        (expected,) = processor.postprocess(decoded)
        off = np.asarray(expected, int) - np.asarray(answer, int)
        assert off.min() >= 0 and off.max() <= 1  # they round to the nearest level, the methods down
        assert 20 < -10 * np.log10(np.square((np.asarray(image, float) - np.asarray(answer)) / 255).mean()) < 45
    assert found[0] == method.edit([request(images[0])])[0]


def test_what_it_reads_is_the_autoencoder_alone():
    names = [file.name for file in VAEReconstruction(CONTEXT).requirements().files]
    assert names == ["diffusion/vae/config.json", "diffusion/vae/diffusion_pytorch_model.safetensors"]
