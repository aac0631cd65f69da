"""Captions for Pix2Pix-Zero, by a small BLIP with random weights in the files of the official one."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from baselines.inversion.captions import BLIP, PROMPT, Captioner
from baselines.inversion.pix2pix_zero import Pix2PixZero, Pix2PixZeroSettings
from baselines.method import MethodContext

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "picture", "of", "cat", "dog", "red", "on", "mat", "[DEC]")


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration

    folder = tmp_path_factory.mktemp("captions") / BLIP.name
    tiny = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = BlipConfig(
        text_config={
            **tiny, "vocab_size": len(WORDS), "encoder_hidden_size": 16, "max_position_embeddings": 32,
            "bos_token_id": WORDS.index("[DEC]"), "pad_token_id": 0, "sep_token_id": WORDS.index("[SEP]"),
            "eos_token_id": WORDS.index("[SEP]"),
        },
        vision_config={**tiny, "image_size": 32, "patch_size": 16},
    )  # fmt: skip
    BlipForConditionalGeneration(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    BertTokenizer.from_pretrained(folder).save_pretrained(folder)
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": "[PAD]", "unk_token": "[UNK]"}))
    preprocessor = {"image_processor_type": "BlipImageProcessor", "size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps({**preprocessor, "processor_class": "BlipProcessor"}))
    return folder


def test_captions_are_of_the_published_length_and_without_their_prompt(blip: Path) -> None:
    captioner = Captioner(blip, "cpu")
    images = [Image.new("RGB", (64, 64), color) for color in ("red", "blue")]
    captions = captioner(images)
    assert captions == captioner(images[:1]) + captioner(images[1:])
    for caption in captions:
        assert not caption.startswith(PROMPT)
        assert 1 <= len(caption.split()) <= 30 - len(PROMPT.split()) and set(caption.split()) <= set(WORDS)


def test_pix2pix_zero_inverts_with_the_caption(blip: Path, weights: Path, make_request, tmp_path: Path) -> None:
    shutil.copytree(weights / "diffusion", tmp_path / "stable-diffusion-v1-4")
    shutil.copytree(blip, tmp_path / BLIP.name)
    paper = MethodContext(suite="paper", weights=tmp_path, device="cpu", image_side=64)
    method = Pix2PixZero(paper, Pix2PixZeroSettings(steps=1))
    caption = method.settings()["caption"]
    assert caption["prompt"] == PROMPT and f"{BLIP.name}/vocab.txt" in caption["weights"]
    method.load()
    request = make_request()
    (text,) = Captioner(blip, "cpu")([request.image])

    miniature = MethodContext(suite="miniature", weights=weights, device="cpu", image_side=64)
    told = Pix2PixZero(miniature, Pix2PixZeroSettings(steps=1))  # without a captioner the source prompt is the caption
    told.load()
    same = {"source_prompt": text, "target_prompt": text}
    assert torch.equal(method.latents([make_request(**same)]), told.latents([make_request(**same)]))
    assert told.settings()["caption"] == "the source prompt"


def test_missing_weights_are_not_left_random(blip: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(blip, tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["vision_model.post_layernorm.bias"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError):
        Captioner(tmp_path, "cpu")
