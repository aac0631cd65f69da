"""open_clip's models behind CLIP's interface: equal to transformers' where the weights are, and what is refused."""

import json
import shutil
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from benchmarks.tools.random_weights import write_clip_tokenizer
from metrics.networks.clip import OfficialClip
from metrics.networks.official import Found
from metrics.networks.open_clip import OpenClip
from tests.photographs import photographs

SIDE = 28
TEXTS = ["a robot in an orange suit", "purple grass", ""]
TOWER = {"hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 2, "num_hidden_layers": 3}
CONFIG = {
    "model_cfg": {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {"image_size": SIDE, "patch_size": 7, "layers": 3, "width": 32, "head_width": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 3},
    },
    "preprocess_cfg": {"mean": list(open_clip.OPENAI_DATASET_MEAN), "std": list(open_clip.OPENAI_DATASET_STD)},
}


@pytest.fixture(scope="module")
def of_transformers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "clip-vit-large-patch14"
    torch.manual_seed(0)
    vision = TOWER | {"image_size": SIDE, "patch_size": 7}
    model = CLIPModel(CLIPConfig(text_config=TOWER, vision_config=vision, projection_dim=24))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    write_clip_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def folder(of_transformers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights in open_clip's format."""
    folder = tmp_path_factory.mktemp("weights") / "tiny-clip"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG))
    save_file(renamed(load_file(of_transformers / "model.safetensors")), folder / "open_clip_model.safetensors")
    return folder


def renamed(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """transformers' names to open_clip's."""
    vision, text = "vision_model.", "text_model."
    state = {
        "logit_scale": theirs["logit_scale"],
        "visual.class_embedding": theirs[vision + "embeddings.class_embedding"],
        "visual.positional_embedding": theirs[vision + "embeddings.position_embedding.weight"],
        "visual.conv1.weight": theirs[vision + "embeddings.patch_embedding.weight"],
        "visual.proj": theirs["visual_projection.weight"].T,
        "positional_embedding": theirs[text + "embeddings.position_embedding.weight"],
        "token_embedding.weight": theirs[text + "embeddings.token_embedding.weight"],
        "text_projection": theirs["text_projection.weight"].T,
    }
    norms = {"visual.ln_pre": vision + "pre_layrnorm", "visual.ln_post": vision + "post_layernorm"}
    norms["ln_final"] = text + "final_layer_norm"
    for part in ("weight", "bias"):
        state |= {f"{ours}.{part}": theirs[f"{name}.{part}"] for ours, name in norms.items()}
        for ours, root in (("visual.transformer", vision), ("transformer", text)):
            for i in range(3):
                block, layer = f"{ours}.resblocks.{i}", f"{root}encoder.layers.{i}"
                state[f"{block}.attn.in_proj_{part}"] = torch.cat(
                    [theirs[f"{layer}.self_attn.{each}_proj.{part}"] for each in "qkv"]
                )
                for mine, name in {
                    "attn.out_proj": "self_attn.out_proj",
                    "ln_1": "layer_norm1",
                    "ln_2": "layer_norm2",
                    "mlp.c_fc": "mlp.fc1",
                    "mlp.c_proj": "mlp.fc2",
                }.items():
                    state[f"{block}.{mine}.{part}"] = theirs[f"{layer}.{name}.{part}"]
    return {name: value.contiguous() for name, value in state.items()}


@torch.inference_mode()
def test_equals_transformers_clip_of_the_same_weights(folder: Path, of_transformers: Path) -> None:
    """Images of the network's own size: open_clip resizes with PIL, transformers' processor with torch."""
    ours = OpenClip(str(folder))
    other = OfficialClip(Found(path=of_transformers / "model.safetensors", digest="2" * 64, official=True))
    images = photographs(3, SIDE, SIDE) / 255
    torch.testing.assert_close(ours.image_embedding(images), other.image_embedding(images), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.text_embedding(TEXTS), other.text_embedding(TEXTS), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_images_of_any_size_are_prepared_as_open_clip_does(folder: Path) -> None:
    clip = OpenClip(str(folder))
    clip.batch = 2
    embeddings = clip.image_embedding(photographs(3, 40, 64) / 255)
    assert embeddings.shape == (3, 24)
    torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(3))
    assert (embeddings[0] @ embeddings[1]).item() < 0.9999


@torch.inference_mode()
def test_bfloat16_is_near_float32(folder: Path) -> None:
    images = photographs(4, SIDE, SIDE) / 255
    full, half = (OpenClip(str(folder), precision=each).image_embedding(images) for each in ("float32", "bfloat16"))
    assert 0.999 < (full * half).sum(-1).min() < 1 - 1e-7


def test_name_and_digest_tell_the_weights(folder: Path, tmp_path: Path) -> None:
    clip = OpenClip(str(folder))
    assert (clip.name, clip.official) == (f"tiny-clip@{clip.digest[:8]}", False)
    other = shutil.copytree(folder, tmp_path / "tiny-clip")
    state = load_file(other / "open_clip_model.safetensors")
    save_file(state | {"logit_scale": state["logit_scale"] + 1}, other / "open_clip_model.safetensors")
    assert OpenClip(str(other)).digest != clip.digest


def test_what_open_clip_does_not_have_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="laion2b_s34b_b79k"):
        OpenClip("laion2b/ViT-B-32")
    with pytest.raises(ValueError):
        OpenClip("nothing")
    bare = shutil.copytree(folder, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(ValueError):
        OpenClip(str(bare))
    (bare / "open_clip_config.json").unlink()
    with pytest.raises(FileNotFoundError, match="open_clip_config"):
        OpenClip(str(bare))


def test_a_model_that_cannot_be_fetched_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="--clip DIR"):
        OpenClip("laion2b_s34b_b79k/ViT-B-32")


def test_which_texts_are_cut_is_known(folder: Path) -> None:
    clip = OpenClip(str(folder))
    assert clip.too_long([*TEXTS, "many words " * 60]) == [False, False, False, True]
    fits = [n for n in range(60, 90) if not clip.too_long(["a " * n])[0]]
    assert fits == list(range(60, 76))  # beside the two tokens at the ends
