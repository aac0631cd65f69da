"""Full-size scoring networks with random weights in the official files' names and layouts.

Speed and file handling don't depend on what the weights are; the real ones are 2 GB that not every machine has.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

Fill = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


def seeded_fill(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor from its name: layer norm weights near 1, other vectors near 0, matrices of unit gain."""
    filled = {}
    for name, like in state.items():
        generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big"))
        noise = torch.randn(like.shape, generator=generator)
        if like.ndim > 1:
            filled[name] = noise / like[0].numel() ** 0.5
        else:
            filled[name] = noise * 0.05 + float(name.endswith("weight"))
    return filled


def write_official_layout(folder: Path, fill: Fill = seeded_fill) -> Path:
    """Write dino_vitbase8_pretrain.pth, squeezenet1_1-b8a52dc0.pth and clip-vit-large-patch14/ (2 GB) into `folder`.

    fill: from a state dict of shapes (meta tensors) to one of values. The tokenizer is open_clip's vocabulary, which is
    OpenAI's. Returns `folder`.
    """
    import timm
    from safetensors.torch import save_file
    from torchvision.models import squeezenet1_1
    from transformers import CLIPConfig, CLIPModel

    folder.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        dino = timm.create_model("vit_base_patch8_224", num_classes=0).state_dict()
        squeezenet = squeezenet1_1(weights=None).state_dict()
        text = {"projection_dim": 768, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
        vision = {"projection_dim": 768, "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}
        vision |= {"num_hidden_layers": 24, "patch_size": 14}
        config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=768)
        clip = CLIPModel(config).state_dict()
    torch.save(fill(dino), folder / "dino_vitbase8_pretrain.pth")
    torch.save(fill(squeezenet), folder / "squeezenet1_1-b8a52dc0.pth")
    clip_folder = folder / "clip-vit-large-patch14"
    clip_folder.mkdir(exist_ok=True)
    config.save_pretrained(clip_folder)
    write_clip_tokenizer(clip_folder)
    save_file(fill(clip), clip_folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_clip_tokenizer(folder: Path) -> None:
    """vocab.json, merges.txt and tokenizer_config.json of CLIP, from the vocabulary that open_clip ships."""
    from open_clip.tokenizer import SimpleTokenizer

    start, end = "<|startoftext|>", "<|endoftext|>"
    renamed = {"<start_of_text>": start, "<end_of_text>": end}
    bpe = SimpleTokenizer()
    vocabulary = {renamed.get(token, token): index for token, index in bpe.encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    merges = sorted(bpe.bpe_ranks, key=bpe.bpe_ranks.__getitem__)
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges), ""]))
    names = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": end}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
