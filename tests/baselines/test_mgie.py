"""MGIE with tiny random weights in the published files, from request to image."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionInstructPix2PixPipeline
from PIL import Image
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from baselines.llama import HEAD
from baselines.method import Answer, EditRequest, MethodContext, NoAnswer, NotedImage, Unsupported
from baselines.mgie.describer import Describer, first_state
from baselines.mgie.edit_head import EditHead, EditHeadSizes, read_edit_head
from baselines.mgie.mgie import MGIE, PARAMETERS, ROW
from baselines.stable_diffusion.ldm import Sizes, build_unet, build_vae, empty
from benchmarks.datasets.piebench import read_piebench
from benchmarks.runs.execute import Shard
from editar.io.tensors import CheckpointError
from tests.baselines.mgie_layout import TINY, random_mllm, write_clip, write_llava, write_mllm
from tests.baselines.test_instruct_pix2pix import FEW, context, edits, pixels, write_folder
from tests.baselines.tiny_diffusion import SIDE, filled, tiny_unet
from tests.benchmarks.killable import PixelBenchmark, open_run, run
from tests.benchmarks.tiny import write_piebench

FIRST_IMAGE = 32003  # [IMG0]


def write_weights(folder: Path, mllm: dict[str, Tensor]) -> Path:
    write_folder(folder / "instruct-pix2pix", "instruct-pix2pix", 20)
    write_mllm(folder / "mgie_7b" / "mllm.pt", mllm)
    unet = {name: each.half() for name, each in filled(tiny_unet(inputs=8), 31).state_dict().items()}
    torch.save(unet, folder / "mgie_7b" / "unet.pt")
    write_llava(folder / "LLaVA-7B-v1", mllm)
    write_clip(folder / "clip-vit-large-patch14")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"), random_mllm(TINY))


@pytest.fixture(scope="module")
def eloquent(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    """Weights with which the answer to the first of `edits` begins with [IMG0]."""
    describer, (asked,) = describer_of(weights), edits(1)
    features = describer.reader.look(describer.processor(asked.image, return_tensors="pt")["pixel_values"])
    prompt = describer.prompter.prompt(asked.instruction, len(features))
    state = describer.reader.answer(prompt, features, new_tokens=1).states[-1]
    mllm = random_mllm(TINY)
    mllm[HEAD][FIRST_IMAGE] = 20 * state.half()
    return write_weights(tmp_path_factory.mktemp("eloquent"), mllm)


def describer_of(weights: Path) -> Describer:
    clip = weights / "clip-vit-large-patch14"
    mllm = weights / "mgie_7b" / "mllm.pt"
    return Describer.load(weights / "LLaVA-7B-v1", mllm, clip, device="cpu", dtype=torch.float32)


def loaded(weights: Path, dtype: str | None = None, at_once: int = 2) -> MGIE:
    method = MGIE(replace(context(weights), images_at_once=at_once), replace(ROW, steps=FEW), dtype)
    method.load()
    return method


@pytest.fixture(scope="module")
def method(weights: Path) -> MGIE:
    return loaded(weights)


def images(answers: list[Answer]) -> list[Image.Image]:
    assert all(isinstance(each, NotedImage) for each in answers), answers
    return [each.image for each in answers if isinstance(each, NotedImage)]


def notes(answers: list[Answer]) -> list[dict[str, str]]:
    return [dict(each.notes) for each in answers if isinstance(each, NotedImage)]


def by_hand(weights: Path, asked: list[EditRequest]) -> np.ndarray:
    """The images of diffusers' pipeline, guided by its defaults, from embeddings as the published demo gives them."""
    pipeline: Any = StableDiffusionInstructPix2PixPipeline.from_pretrained(
        weights / "instruct-pix2pix", safety_checker=None, requires_safety_checker=False, image_encoder=None
    )
    pipeline.unet.load_state_dict(torch.load(weights / "mgie_7b" / "unet.pt"))
    pipeline.scheduler = EulerAncestralDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="linspace"
    )
    head, describer = read_edit_head(weights / "mgie_7b" / "mllm.pt"), describer_of(weights)
    states = torch.stack([describer.describe(each.image, each.instruction).states for each in asked])
    with torch.no_grad():
        embeddings, null = head(states), head.null()
    made = pipeline(
        image=[each.image for each in asked], prompt_embeds=embeddings,
        negative_prompt_embeds=null.repeat(len(asked), 1, 1), num_inference_steps=FEW,
        generator=[torch.Generator().manual_seed(each.seed) for each in asked],
    )  # fmt: skip
    return pixels(made.images)


def test_images_are_those_of_diffusers_pipeline(weights: Path, method: MGIE) -> None:
    asked = edits(3)
    expected, found = by_hand(weights, asked), pixels(images(method.edit(asked)))
    assert expected.std() > 5
    assert abs(found - expected).max() <= 1
    assert (pixels(images(method.edit(asked[1:]))) == found[1:]).all()  # whatever the batch
    other = method.edit([replace(asked[0], instruction="else")])
    assert abs(pixels(images(other)) - expected[:1]).max() > 5


def test_an_image_of_other_states_says_so(weights: Path, method: MGIE) -> None:
    """Random weights write no [IMG0]: the states are the last of 96 tokens, though the last of all was not read."""
    (asked,) = edits(1)
    (said,) = notes(method.edit([asked]))
    assert "no [IMG0]" in said["image tokens"]
    describer = describer_of(weights)
    features = describer.reader.look(describer.processor(asked.image, return_tensors="pt")["pixel_values"])
    prompt = describer.prompter.prompt(asked.instruction, len(features))
    written = describer.reader.answer(prompt, features)
    assert len(written.tokens) == len(prompt) + 96 and len(written.states) == len(prompt) + 95
    found = describer.describe(asked.image, asked.instruction)
    assert torch.equal(found.states, written.states[len(prompt) + 86 : len(prompt) + 94])
    assert said["expressive instruction"] == found.instruction == describer.prompter.text(written.tokens[len(prompt) :])

    early, end = written.tokens[: len(prompt) + 88], written.tokens[len(prompt) + 88 :]
    late = next(token for token in end if token not in early)
    special = replace(describer.prompter.special, images=(late, *range(7)))
    describer.reader.special = describer.prompter.special = special
    again = describer.describe(asked.image, asked.instruction)
    assert torch.equal(again.states, found.states) and "[IMG0] was written too near the end" in again.fallback


def test_image_tokens_are_found(eloquent: Path) -> None:
    (asked,), method = edits(1), loaded(eloquent)
    (answer,) = method.edit([asked])
    assert notes([answer]) == [{"expressive instruction": ""}]  # nothing stands before [IMG0]
    assert abs(pixels(images([answer])) - by_hand(eloquent, [asked])).max() <= 1
    reader, prompter = method.describer.reader, method.describer.prompter
    features = reader.look(method.describer.processor(asked.image, return_tensors="pt")["pixel_values"])
    prompt = prompter.prompt(asked.instruction, len(features))
    written = reader.answer(prompt, features)
    assert written.tokens.index(FIRST_IMAGE) == len(prompt) and len(written.tokens) == len(prompt) + 9
    assert first_state(written.tokens, FIRST_IMAGE, len(written.states)) == len(prompt) - 1


def test_states_that_overflow_are_no_answer(weights: Path) -> None:
    method = loaded(weights)
    norm: Any = method.describer.reader.language_model.model.norm
    norm.weight.data[3] = torch.inf
    (answer,) = method.edit(edits(1))
    assert isinstance(answer, NoAnswer) and "overflow in float32" in str(answer)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(weights: Path, method: MGIE, dtype: str) -> None:
    half = loaded(weights, dtype)
    assert half.settings()["dtype"] == dtype
    networks = (*half.describer.reader.networks, half.head, half.diffusion.model.unet)
    assert {each.dtype for network in networks for each in network.parameters()} == {getattr(torch, dtype)}
    assert len(images(half.edit(edits(1)))) == 1


def test_a_run_keeps_what_the_language_model_wrote(weights: Path, method: MGIE, tmp_path: Path) -> None:
    write_piebench(tmp_path / "data", 3, SIDE)
    dataset = read_piebench(tmp_path / "data", SIDE)
    benchmark, runs = PixelBenchmark(dataset), {"mgie": open_run(tmp_path / "run", dataset, "mgie")}
    ids = [record.sample_id for record in dataset.records]
    run(benchmark, runs, {"mgie": lambda: method}, ids, batch_size=2, shard=Shard())
    assert runs["mgie"].merge(ids, benchmark.facts)
    rows = pd.read_parquet(tmp_path / "run" / "samples.parquet").set_index("sample_id")
    asked = [benchmark.request(name) for name in ids]
    assert [json.loads(text) for text in rows.loc[ids, "notes"]] == notes(method.edit(asked))
    assert (rows["status"] == "done").all()


def test_settings_have_both_sides(weights: Path) -> None:
    settings = MGIE(context(weights)).settings()
    assert {"steps": 100, "text_guidance": 7.5, "image_guidance": 1.5, "dtype": "float32"}.items() <= settings.items()
    assert settings["language_model"] == {
        "decoding": "greedy", "new_tokens": 96, "no_repeat_ngram_size": 3, "end": 1,
    }  # fmt: skip
    assert {
        "mgie_7b/mllm.pt", "mgie_7b/unet.pt", "instruct-pix2pix/vae/config.json", "LLaVA-7B-v1/tokenizer.json",
        "LLaVA-7B-v1/pytorch_model-00002-of-00002.bin", "clip-vit-large-patch14/model.safetensors",
    } <= set(settings["weights"])  # fmt: skip
    assert str(weights) not in str(settings)  # numbers don't depend on where the files lie


def test_half_precision_on_a_gpu_as_published(weights: Path) -> None:
    gpu = MethodContext(suite="paper", weights=weights, device="cuda:0", image_side=64)
    assert MGIE(gpu).settings()["dtype"] == "float16"
    assert MGIE(gpu).requirements().phases == {"describing": 14_091_767_808, "diffusion": 2_196_411_222}


@pytest.mark.slow
def test_the_weights_in_memory_are_the_published_networks() -> None:
    """Of the sizes that the published files have."""
    vision = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=14
    )
    text = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    sizes = Sizes(
        unet=(320, 640, 1280, 1280), unet_inputs=8, vae=(128, 256, 512, 512), text_width=768, text_layers=12,
        text_mlp=3072, text_positions=77, vocabulary=49408,
    )  # fmt: skip
    phases: dict[str, list[Callable[[], nn.Module]]] = {
        "describing": [
            lambda: LlamaForCausalLM(LlamaConfig(vocab_size=32011)),
            lambda: nn.Linear(1024, 4096),
            lambda: CLIPVisionModel(vision),
        ],
        "diffusion": [
            lambda: build_unet(sizes),
            lambda: build_vae(sizes),
            lambda: CLIPTextModel(text),
            lambda: EditHead(EditHeadSizes()),
        ],
    }
    counted = {
        phase: sum(parameter.numel() for build in networks for parameter in empty(build).parameters())
        for phase, networks in phases.items()
    }
    assert counted == PARAMETERS


def test_unsupported_in_the_miniature(weights: Path) -> None:
    with pytest.raises(Unsupported):
        MGIE(context(weights, "miniature"))


def test_needs_both_sides(weights: Path, tmp_path: Path) -> None:
    needs = MGIE(context(weights)).requirements()
    assert (needs.passes, needs.unset, needs.absent) == ({"LLaVA": 96, "UNet": 300}, (), ())
    assert needs.phases == {name: 4 * count for name, count in PARAMETERS.items()}
    folder = weights / "mgie_7b"
    assert {file.name: file.path for file in needs.files}["mgie_7b/unet.pt"] == folder / "unet.pt"
    fetched = {file.name for file in MGIE(context(tmp_path)).requirements().files if file.comes == "fetched"}
    assert {
        "instruct-pix2pix/instruct-pix2pix-00-22000.ckpt", "mgie_7b/mllm.pt", "LLaVA-7B-v1/config.json",
        "clip-vit-large-patch14/model.safetensors",
    } < fetched  # fmt: skip


def test_missing_files_are_named(weights: Path, tmp_path: Path) -> None:
    for name in ("instruct-pix2pix", "mgie_7b"):
        os.symlink(weights / name, tmp_path / name)
    (tmp_path / "LLaVA-7B-v1").mkdir()
    with pytest.raises(FileNotFoundError, match="LLaVA-7B-v1"):
        MGIE(context(tmp_path)).settings()


def test_another_unet_is_refused(weights: Path, tmp_path: Path) -> None:
    for name in ("instruct-pix2pix", "LLaVA-7B-v1", "clip-vit-large-patch14"):
        os.symlink(weights / name, tmp_path / name)
    write_mllm(tmp_path / "mgie_7b" / "mllm.pt")
    torch.save({"conv_in.weight": torch.zeros(1)}, tmp_path / "mgie_7b" / "unet.pt")
    with pytest.raises(CheckpointError, match="UNet2DConditionModel"):
        MGIE(context(tmp_path)).load()
