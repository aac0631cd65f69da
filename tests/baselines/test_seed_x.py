"""SEED-X-Edit with tiny random weights in the layout of the official files."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLInstructPix2PixPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from baselines import METHODS
from baselines.method import EditRequest, MethodContext, NoAnswer, NotedImage, Unsupported
from baselines.seed_x.agent import Agent
from baselines.seed_x.prompt import Tokens
from baselines.seed_x.prompt_resampler import PromptResampler
from baselines.seed_x.resampler import Resampler
from baselines.seed_x.seed_x import EDIT, LANGUAGE_MODEL, UNET, VAE, SeedXEdit
from baselines.seed_x.vision import VisionTransformer
from baselines.stable_diffusion.ldm import empty
from baselines.stable_diffusion.networks import noise
from tests.baselines.seed_x_layout import (
    AGENT,
    PUBLISHED_TOKENS,
    SECOND_STAGE,
    SIDE,
    TINY,
    TOKENIZER,
    llama_pieces,
    published_state,
    save,
    tiny_de_tokenizer,
    tiny_language_model,
    write_tokenizer,
    write_weights,
)

LLAMA_13B: dict[str, Any] = {
    "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40,
}  # fmt: skip
SDXL_UNET: dict[str, Any] = {
    "in_channels": 8, "block_out_channels": (320, 640, 1280), "attention_head_dim": (5, 10, 20),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "cross_attention_dim": 2048,
    "transformer_layers_per_block": (1, 2, 10), "use_linear_projection": True, "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
SDXL_VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4,
}  # fmt: skip
MAKE, IMAGE = 8561, 32000  # "▁Make", "<img>"


@pytest.fixture(scope="module")
def parts() -> dict[str, dict[str, Tensor]]:
    """With LLaMA's vocabulary, and states whose first number is large whatever is read, so that a row of the output
    layer can always win."""
    parts = published_state(torch.zeros(64))
    generator = torch.Generator().manual_seed(0)
    for name in ("llm.model.embed_tokens.weight", "llm.lm_head.weight"):
        parts["agent"][name] = torch.randn(PUBLISHED_TOKENS[1], 64, generator=generator) / 8
    parts["agent"]["llm.model.embed_tokens.weight"][:, 0] = 8
    return parts


def says(parts: dict[str, dict[str, Tensor]], token: int) -> dict[str, dict[str, Tensor]]:
    """The language model writes `token` wherever it may choose."""
    head = parts["agent"]["llm.lm_head.weight"].clone()
    head[token, 0] = 10
    return {**parts, "agent": {**parts["agent"], "llm.lm_head.weight": head}}


@pytest.fixture(scope="module")
def weights(parts: dict[str, dict[str, Tensor]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_weights(tmp_path_factory.mktemp("weights"), says(parts, IMAGE))
    write_tokenizer(folder / TOKENIZER, llama_pieces(), PUBLISHED_TOKENS)
    return folder


@pytest.fixture
def copy(weights: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(weights, tmp_path / "copy"))


def context(weights: Path | None, device: str = "cpu", suite: str = "paper") -> MethodContext:
    return MethodContext(suite=suite, weights=weights, device=device, image_side=2 * SIDE)


@pytest.fixture(scope="module")
def method(weights: Path) -> SeedXEdit:
    return loaded(weights)


def loaded(weights: Path, dtype: str | None = None, new_tokens: int = TINY.new_tokens) -> SeedXEdit:
    method = SeedXEdit(context(weights), replace(TINY, new_tokens=new_tokens), dtype)
    method.load()
    return method


def edits(count: int) -> list[EditRequest]:
    """Of twice the side of the networks' images."""
    random = np.random.default_rng(3)
    return [
        EditRequest(
            sample_id=f"{number}", image=Image.fromarray(image), instruction="Make it under the sunset" + "!" * number,
            source_prompt="", target_prompt="", blend_words=None, seed=2**62 + number,
        )
        for number, image in enumerate(random.integers(0, 256, (count, 2 * SIDE, 2 * SIDE, 3), dtype=np.uint8))
    ]  # fmt: skip


def pixels(answer: object) -> np.ndarray:
    assert isinstance(answer, NotedImage), answer
    assert answer.image.mode == "RGB" and answer.image.size == (2 * SIDE, 2 * SIDE)
    return np.asarray(answer.image).astype(int)


# --- tokens


def test_tokens_are_those_of_the_published_prompts(weights: Path) -> None:
    """Ids of LLaMA's vocabulary; later versions of transformers give a lone "▁" before <patch>, and "Make" without its
    own."""
    prompt = Tokens(weights / TOKENIZER).prompt("Make it under the sunset")
    images = tuple(range(32006, 32070))
    start, end = (1, 518, 25580, 29962), (8561, 372, 1090, 278, 6575, 842, 518, 29914, 25580, 29962, 13)
    assert prompt.ids == (*start, 32002, *images, 32003, 32000, *images, 32001, *end)
    assert [prompt.ids[place : place + 64] for place in prompt.views] == [images, images]


def test_blanks_at_the_beginning_are_dropped_and_others_kept(weights: Path) -> None:
    tokens = Tokens(weights / TOKENIZER)
    assert tokens.prompt("\n  Make it").ids == tokens.prompt("Make it").ids
    assert tokens.prompt("Make  it").ids[-8:] == (MAKE, 29871, 372, 518, 29914, 25580, 29962, 13)
    assert tokens.prompt(" ").ids[-6:] == (32001, 518, 29914, 25580, 29962, 13)


def test_text_leaves_out_image_tokens(weights: Path) -> None:
    assert Tokens(weights / TOKENIZER).text([MAKE, 372, 32000, 32006, 32001, 2]) == "Make it"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tokens: tokens.pop("<img_00063>"), "<img_00063>"),
        (lambda tokens: tokens.update({"<patch>": 32000}), "same number"),
        (lambda tokens: tokens.update({"<pad>": 31999}), "31999"),
        (lambda tokens: tokens.update({"<img>": "32000"}), "number"),
    ],
)
def test_other_tokens_are_refused(
    weights: Path, tmp_path: Path, change: Callable[[dict], object], message: str
) -> None:
    shutil.copy(weights / TOKENIZER / "tokenizer.model", tmp_path)
    tokens = json.loads((weights / TOKENIZER / "added_tokens.json").read_text())
    change(tokens)
    (tmp_path / "added_tokens.json").write_text(json.dumps(tokens))
    with pytest.raises(ValueError, match=message) as refused:
        Tokens(tmp_path)
    assert "added_tokens.json" in str(refused.value)


def test_a_damaged_tokenizer_is_named(copy: Path) -> None:
    (copy / TOKENIZER / "tokenizer.model").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ValueError, match=r"tokenizer\.model"):
        Tokens(copy / TOKENIZER)


# --- edits


def test_images_are_those_of_diffusers_pipeline(weights: Path, method: SeedXEdit) -> None:
    asked = edits(2)
    answers = method.edit(asked)
    language_model, parts = tiny_language_model(weights), tiny_de_tokenizer(weights)
    pipeline = StableDiffusionXLInstructPix2PixPipeline(
        vae=parts.vae, text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None, unet=parts.unet,
        scheduler=EulerDiscreteScheduler.from_config(parts.scheduler_config), add_watermarker=False,
    )  # fmt: skip
    for request, answer in zip(asked, answers, strict=True):
        features = language_model.reply(request.image, request.instruction).features
        assert features is not None
        with torch.no_grad():
            (prompt, pooled), (null_prompt, null_pooled) = (
                parts.resampler(each) for each in (features, language_model.null_features())
            )
        made = pipeline(
            prompt_embeds=prompt, pooled_prompt_embeds=pooled, negative_prompt_embeds=null_prompt,
            negative_pooled_prompt_embeds=null_pooled, height=SIDE, width=SIDE, num_inference_steps=TINY.steps,
            image=request.image.resize((SIDE, SIDE), Image.Resampling.BICUBIC), guidance_scale=7.5,
            latents=noise([request.seed], (4, 8, 8)), image_guidance_scale=1.5,
        ).images[0]  # fmt: skip
        expected = made.resize(request.image.size, Image.Resampling.BICUBIC)
        assert np.asarray(expected).std() > 5
        assert abs(pixels(answer) - np.asarray(expected)).max() <= 1
    assert abs(pixels(answers[0]) - pixels(answers[1])).max() > 5
    assert (pixels(method.edit(asked[1:])[0]) == pixels(answers[1])).all()  # whatever the batch


def test_what_is_asked_for_matters(method: SeedXEdit) -> None:
    first = edits(1)[0]
    changed = [replace(first, instruction="set"), replace(first, seed=1)]
    images = [pixels(each) for each in method.edit([first, *changed])]
    assert all(abs(images[0] - each).max() > 1 for each in images[1:])


def test_a_text_alone_is_no_image(weights: Path, parts: dict[str, dict[str, Tensor]], tmp_path: Path) -> None:
    write_weights(tmp_path, says(parts, MAKE))
    os.symlink(weights / TOKENIZER, tmp_path / TOKENIZER)
    answers = loaded(tmp_path, new_tokens=3).edit(edits(2))
    assert [str(each) for each in answers] == ["SEED-X answered without an image: 'Make Make Make'"] * 2
    assert all(isinstance(each, NoAnswer) for each in answers)


def test_an_image_that_is_cut_is_no_image(weights: Path) -> None:
    (whole,) = loaded(weights, new_tokens=66).edit(edits(1))
    assert isinstance(whole, NotedImage) and whole.notes == {"the model's answer": ""}
    (cut,) = loaded(weights, new_tokens=65).edit(edits(1))
    assert isinstance(cut, NoAnswer)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_close(method: SeedXEdit, weights: Path, dtype: str) -> None:
    asked = edits(1)
    difference = pixels(loaded(weights, dtype).edit(asked)[0]) - pixels(method.edit(asked)[0])
    assert 0 < abs(difference).mean() < 20


# --- settings and files


def test_settings_are_the_published_ones(weights: Path) -> None:
    settings = METHODS["seed-x-edit"](context(weights)).settings()
    assert {
        "steps": 50, "text_guidance": 7.5, "image_guidance": 1.5, "new_tokens": 512, "dtype": "float32",
        "resizing": "bicubic",
    }.items() <= settings.items()  # fmt: skip
    assert settings["scheduler"]["class"] == "EulerDiscreteScheduler"
    assert {AGENT, SECOND_STAGE, f"{TOKENIZER}/tokenizer.model"} <= set(settings["weights"])
    assert "Qwen-VL-Chat/pytorch_model-00008-of-00010.bin" in settings["weights"]
    assert str(weights) not in str(settings)
    assert SeedXEdit(context(weights, "cuda:0")).settings()["dtype"] == "float16"


def test_what_it_needs(weights: Path, tmp_path: Path) -> None:
    needs = SeedXEdit(context(weights)).requirements()
    assert (needs.passes, needs.absent) == ({"language model": 512, "UNet": 150}, ())
    assert needs.phases == {"answering": 4 * LANGUAGE_MODEL, "drawing": 4 * (UNET + VAE)}
    half = SeedXEdit(context(weights), dtype="float16").requirements()
    assert half.phases == {"answering": 2 * LANGUAGE_MODEL, "drawing": 2 * UNET + 4 * VAE}  # the VAE stays float32
    absent = {file.name for file in SeedXEdit(context(tmp_path)).requirements().absent}
    assert absent == {SECOND_STAGE, *(f"seed-x-17b-edit/{name}" for name in EDIT.files)}
    with pytest.raises(Unsupported):
        SeedXEdit(context(None, suite="miniature"))
    with pytest.raises(ValueError, match="int8"):
        SeedXEdit(context(weights), dtype="int8")


def test_missing_files_are_named(copy: Path) -> None:
    (copy / "seed-x-17b-edit" / "llm" / "pytorch_model-00003-of-00006.bin").unlink()
    with pytest.raises(FileNotFoundError, match="00003-of-00006"):
        SeedXEdit(context(copy)).settings()


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (SECOND_STAGE, lambda state: state.pop("unet.conv_in.bias"), r"incomplete.* 1 of .*unet\.conv_in\.bias"),
        (SECOND_STAGE, lambda state: state.update({"unet.conv_in.weight": torch.zeros(32, 4, 3, 3)}), "4, 3, 3"),
        (SECOND_STAGE, lambda state: state.update({"vit_down.weight": torch.zeros(1)}), r"vit_down\.weight"),
        (SECOND_STAGE, lambda state: state.update({"unet.more": torch.zeros(1)}), "unexpected more"),
        (SECOND_STAGE, lambda state: state.pop("resampler.latents"), r"resampler\.latents"),
        (SECOND_STAGE, lambda state: state.pop("resampler.norm_out.bias"), r"norm_out\.bias"),
        (AGENT, lambda state: state.pop("patch_pos_embed"), "patch_pos_embed"),
        (AGENT, lambda state: state.pop("output_resampler.ln_q.bias"), r"output_resampler\.ln_q\.bias"),
        (AGENT, lambda state: state.update({"other": torch.zeros(1)}), "unexpected other"),
        (
            "Qwen-VL-Chat/pytorch_model-00009-of-00010.bin",
            lambda state: state.pop("transformer.visual.transformer.resblocks.0.mlp.c_fc.bias"),
            "missing transformer.resblocks.0.mlp.c_fc.bias",
        ),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused(
    copy: Path, file: str, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    state = torch.load(copy / file)
    change(state)
    save(copy / file, state)
    with pytest.raises(ValueError, match=message) as refused:
        loaded(copy)
    assert file.split("/")[0] in str(refused.value)


def test_what_is_left_of_the_language_model_in_the_agent_s_file_is_not_read(copy: Path, method: SeedXEdit) -> None:
    save(copy / AGENT, torch.load(copy / AGENT) | {"llm.model.norm.weight": torch.zeros(64)})
    assert (pixels(loaded(copy).edit(edits(1))[0]) == pixels(method.edit(edits(1))[0])).all()


def test_a_language_model_of_fewer_tokens_is_refused(weights: Path, tmp_path: Path) -> None:
    write_weights(tmp_path, published_state(torch.zeros(64)))
    os.symlink(weights / TOKENIZER, tmp_path / TOKENIZER)
    with pytest.raises(ValueError, match=r"170 tokens .* 32330"):
        loaded(tmp_path)


def test_parameters_of_the_published_networks() -> None:
    """By which memory is reckoned. The language model's file takes 52 GB and the agent's 861 MB, both in float32."""

    def count(build: Callable[[], nn.Module]) -> int:
        return sum(parameter.numel() for parameter in empty(build).parameters())

    def resampler(queries: int, width: int, inputs: int) -> Resampler:
        return Resampler(queries=queries, width=width, inputs=inputs, heads=32, eps=1e-5)

    llm = count(lambda: LlamaForCausalLM(LlamaConfig(vocab_size=32330, **LLAMA_13B)))
    agent = count(lambda: Agent(5120, resampler(64, 5120, 4096), resampler(64, 4096, 5120)))
    vision = count(
        lambda: VisionTransformer(
            width=1664, patch=14, positions=256, layers=48, hidden=8192, heads=16, attn_pool=resampler(256, 4096, 1664)
        )
    )
    assert 4 * llm == pytest.approx(52e9, rel=0.01) and 4 * agent == pytest.approx(861e6, rel=0.001)
    assert llm + agent + vision == LANGUAGE_MODEL
    prompts = count(
        lambda: PromptResampler(
            queries=64, width=1024, inputs=4096, inner=1024, layers=4, heads=16, outputs=(768, 1280)
        )
    )
    assert count(lambda: UNet2DConditionModel(**SDXL_UNET)) + prompts == UNET
    assert count(lambda: AutoencoderKL(**SDXL_VAE)) == VAE
