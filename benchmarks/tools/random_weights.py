"""Full-size networks with random weights in the official files' names and layouts: the scoring ones, and EditAR.

Speed, memory and file handling don't depend on what the weights are; the real ones are gigabytes that not every machine
has. `python -m benchmarks.random_weights DIR` writes those of the paper suite of `benchmarks.piebench`, 8 GB.
"""

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import tyro
from torch import Tensor, nn
from tyro.conf import Positional

Fill = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


def repeated_fill(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor from its name: layer norm weights near 1, other vectors near 0, matrices of unit gain.

    All are cut from repetitions of one block of noise: gigabytes in seconds.
    """
    block = torch.randn(4_194_319, generator=torch.Generator().manual_seed(0))  # odd, so that no two rows are alike
    filled = {}
    for name, like in state.items():
        start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % len(block)
        copies = -(-(start + like.numel()) // len(block))
        noise = block.repeat(copies)[start : start + like.numel()].view(like.shape)
        if like.ndim > 1:
            filled[name] = noise / like[0].numel() ** 0.5
        else:
            filled[name] = noise * 0.05 + float(name.endswith("weight"))
    return filled


def write_official_layout(folder: Path, fill: Fill = repeated_fill) -> Path:
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


def write_editar(folder: Path) -> Path:
    """Write editar_release.pt (GPT-XL), vq_ds16_t2i.pt and flan-t5-xl/ (6 GB) into `folder`, which is returned.

    As released, but without the optimizer's state and the T5's decoder, and with the T5 in bfloat16.
    """
    from editar.config import SIZES, VQConfig
    from editar.model.transformer import EditARTransformer
    from editar.model.vq import VQModel

    folder.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        transformer = EditARTransformer(SIZES["XL"]).state_dict()
        vq = VQModel(VQConfig()).state_dict()
    arguments = argparse.Namespace(gpt_model="GPT-XL", image_size=512, cls_token_num=120)
    released = {"model": repeated_fill(transformer), "optimizer": {}, "steps": 40000, "args": arguments}
    torch.save(released, folder / "editar_release.pt")
    del released
    torch.save({"model": repeated_fill(vq)}, folder / "vq_ds16_t2i.pt")
    _write_t5(folder / "flan-t5-xl")
    return folder


def _write_t5(folder: Path) -> None:
    from safetensors.torch import save_file
    from transformers import T5Config, T5EncoderModel

    folder.mkdir(exist_ok=True)
    config = T5Config(d_model=2048, d_ff=5120, num_layers=24, num_heads=32, feed_forward_proj="gated-gelu")
    config.save_pretrained(folder)
    write_t5_tokenizer(folder)
    with torch.device("meta"):
        state = T5EncoderModel(config).state_dict()
    del state["encoder.embed_tokens.weight"]  # is shared.weight
    names = list(state)
    for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), 1):
        filled = repeated_fill({name: state[name] for name in part})
        shard = {name: tensor.bfloat16() for name, tensor in filled.items()}
        save_file(shard, folder / f"model-{number:05}-of-00002.safetensors", {"format": "pt"})


def write_t5_tokenizer(folder: Path) -> None:
    """A T5 tokenizer with a small vocabulary of its own: letters, and what was worth joining."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import T5Tokenizer

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    letters = "abcdefghijklmnopqrstuvwxyz"
    texts = ["make it snow in the garden", "turn the red square blue", "change the woman to a robot"]
    tokenizer.train_from_iterator([*texts, letters, letters.upper(), " ".join("0123456789,.;:!?'-")], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    T5Tokenizer(
        tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>", pad_token="<pad>", extra_ids=0
    ).save_pretrained(folder)


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


def main(folder: Positional[Path], /) -> None:
    """Example: python -m benchmarks.random_weights random

    Write random weights, 8 GB, in the layout that the paper suite of benchmarks.piebench reads.

    Args:
        folder: Where to write them: what is then passed as --weights.
    """
    print(write_editar(write_official_layout(folder)))


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks.random_weights")
