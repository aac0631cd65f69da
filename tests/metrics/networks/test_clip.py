"""Both towers of CLIP against transformers' CLIPModel, small."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from benchmarks.tools.random_weights import write_clip_tokenizer
from metrics.networks.clip import OfficialClip, has_published_vocabulary
from metrics.networks.official import Found
from tests.photographs import photographs

TOWER = {"hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 2, "num_hidden_layers": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "clip-vit-large-patch14"
    torch.manual_seed(0)
    image = {"image_size": 28, "patch_size": 7}
    config = CLIPConfig(text_config=TOWER, vision_config=TOWER | image, projection_dim=24)
    model = CLIPModel(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    write_clip_tokenizer(folder)
    return folder


def found(folder: Path, name: str = "model.safetensors") -> Found:
    return Found(path=folder / name, digest="2" * 64, official=True)


def unit(output: Any) -> Tensor:
    return F.normalize(getattr(output, "pooler_output", output), dim=-1)


@pytest.mark.parametrize("shape", [(28, 28), (64, 64), (50, 33), (40, 90)])
@torch.inference_mode()
def test_image_embeddings_equal_transformers(folder: Path, shape: tuple[int, ...]) -> None:
    """From the uint8 tensors that torchmetrics hands to the image processor."""
    images = photographs(3, *shape)
    processor = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    prepared = processor(images=list(images), return_tensors="pt")["pixel_values"]
    expected = unit(CLIPModel.from_pretrained(folder).eval().get_image_features(pixel_values=prepared))
    torch.testing.assert_close(
        OfficialClip(found(folder)).image_embedding(images / 255), expected, rtol=1e-4, atol=1e-5
    )


TEXTS = ["a robot in an orange suit", "purple grass", "", "many words " * 60]


@pytest.mark.parametrize("end_token", [2, 49407])
@torch.inference_mode()
def test_text_embeddings_equal_transformers(folder: Path, tmp_path: Path, end_token: int) -> None:
    """One text at a time there, padded to the longest here; too long ones are cut off without their end token."""
    copy = shutil.copytree(folder, tmp_path / "clip")
    config = json.loads((copy / "config.json").read_text())
    config["text_config"]["eos_token_id"] = end_token
    (copy / "config.json").write_text(json.dumps(config))
    model, tokenizer = CLIPModel.from_pretrained(copy).eval(), CLIPTokenizer.from_pretrained(copy)
    tokens = [tokenizer(text, return_tensors="pt")["input_ids"][:, :77] for text in TEXTS]
    expected = torch.cat([unit(model.get_text_features(input_ids=ids)) for ids in tokens])
    torch.testing.assert_close(OfficialClip(found(copy)).text_embedding(TEXTS), expected, rtol=1e-4, atol=1e-5)


def test_which_texts_are_cut_is_known(folder: Path) -> None:
    clip = OfficialClip(found(folder))
    fits = next(text for n in range(77, 0, -1) if len(clip.tokenizer(text := "a " * n)["input_ids"]) <= 77)
    assert clip.too_long([*TEXTS, fits, fits + "a"]) == [False, False, False, True, False, True]


def test_another_clip_in_the_folder_is_named_by_its_configuration(folder: Path) -> None:
    clip = OfficialClip(found(folder))
    assert (clip.name, clip.official) == ("clip-patch7-width32-layers3-28px@22222222", False)


@torch.inference_mode()
def test_more_images_than_one_batch_give_what_each_gives_alone(folder: Path) -> None:
    clip = OfficialClip(found(folder))
    clip.batch = 2
    images = photographs(5, 28, 28) / 255
    torch.testing.assert_close(clip.image_embedding(images), torch.cat([clip.image_embedding(x[None]) for x in images]))


@torch.inference_mode()
def test_bfloat16_images_are_near_float32_and_texts_equal(folder: Path) -> None:
    full, half = OfficialClip(found(folder)), OfficialClip(found(folder), precision="bfloat16")
    images = photographs(4, 28, 28) / 255
    cosines = (full.image_embedding(images) * half.image_embedding(images)).sum(-1)
    assert 0.999 < cosines.min() < 1 - 1e-7
    assert torch.equal(full.text_embedding(TEXTS), half.text_embedding(TEXTS))


@torch.inference_mode()
def test_the_old_pickled_format_loads_too(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    copy = shutil.copytree(folder, tmp_path / "clip", ignore=shutil.ignore_patterns("model.safetensors"))
    torch.save(load_file(folder / "model.safetensors"), copy / "pytorch_model.bin")
    images = photographs(1, 28, 28) / 255
    old = OfficialClip(found(copy, "pytorch_model.bin")).image_embedding(images)
    torch.testing.assert_close(old, OfficialClip(found(folder)).image_embedding(images))


def test_another_activation_and_missing_tensors_are_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(folder, tmp_path / "clip")
    state = load_file(copy / "model.safetensors")
    del state["text_model.final_layer_norm.bias"]
    save_file(state, copy / "model.safetensors")
    with pytest.raises(ValueError, match="final_layer_norm"):
        OfficialClip(found(copy))
    config = json.loads((copy / "config.json").read_text())
    config["vision_config"]["hidden_act"] = "gelu"
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError):
        OfficialClip(found(copy))


def test_a_vocabulary_with_two_tokens_exchanged_is_not_the_published_one(folder: Path, tmp_path: Path) -> None:
    assert has_published_vocabulary(CLIPTokenizer.from_pretrained(folder))
    for change in ("vocab.json", "merges.txt"):
        copy = shutil.copytree(folder, tmp_path / change)
        if change == "vocab.json":
            vocabulary = json.loads((copy / change).read_text())
            vocabulary["red</w>"], vocabulary["blue</w>"] = vocabulary["blue</w>"], vocabulary["red</w>"]
            (copy / change).write_text(json.dumps(vocabulary))
        else:
            first, *merges = (copy / change).read_text().splitlines()
            (copy / change).write_text("\n".join([first, *merges[::-1], ""]))
        assert not has_published_vocabulary(CLIPTokenizer.from_pretrained(copy))
