"""Full-size scoring networks with random weights in the official files' names and layouts.

Speed and file handling don't depend on what the weights are; the real ones are 2 GB that not every machine has.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

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


class _TorchScriptInception(nn.Module):
    """The official file's outside: a part `layers`, and an entry that takes a flag."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, images: Tensor, return_features: bool = True) -> Tensor:
        return self.layers(images)


def write_inception(folder: Path, layers: nn.Module | None = None, seed: int = 0) -> Path:
    """Write inception-2015-12-05.pt (90 MB), random weights in TorchScript, into `folder`, which is returned.

    layers: normalised images (B, 3, 299, 299) to features (B, D, ...); torchvision's Inception v3 without its
    classifier unless given. It differs from FID's in a few poolings, which cost the same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if layers is None:
        from torchvision.models import inception_v3

        with torch.random.fork_rng():
            torch.manual_seed(seed)
            layers = inception_v3(weights=None, aux_logits=False, transform_input=False, init_weights=False)
        layers.fc = nn.Identity()
    traced = torch.jit.trace(layers.eval(), torch.zeros(2, 3, 299, 299))
    torch.jit.script(_TorchScriptInception(traced)).save(folder / "inception-2015-12-05.pt")
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
