import argparse
import importlib.util
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from editar.config import SamplingConfig, TransformerConfig, VQConfig, WordTextConfig
from editar.model.checkpoint import save_folder
from editar.model.files import Parts
from editar.model.text import WordTextEncoder
from editar.model.transformer import EditARTransformer
from editar.model.vq import VQModel


@pytest.fixture(scope="session")
def parity() -> Path:
    return Path(__file__).parents[1] / "parity"


@pytest.fixture(scope="session")
def hashfill(parity):
    spec = importlib.util.spec_from_file_location("hashfill", parity / "hashfill.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.hashfill


@pytest.fixture(scope="session")
def vq16_state(hashfill):
    """The hash-filled state dict of VQ-16."""
    with torch.device("meta"):
        shapes = VQModel(VQConfig()).state_dict()
    state = hashfill({name: torch.empty_like(tensor, device="cpu") for name, tensor in shapes.items()})
    state["quantize.codebook_used"].zero_()
    return state


@pytest.fixture(scope="session")
def tiny_expected(parity):
    return load_file(parity / "editar_tiny_expected.safetensors")


@pytest.fixture(scope="session")
def tiny_config():
    return TransformerConfig(layers=3, heads=4, dim=64, vocab_size=128, grid=8, text_length=120, text_dim=32)


@pytest.fixture(scope="session")
def tiny(parity, tiny_config):
    """The reference checkpoint in the released layout, read with torch alone."""
    model = EditARTransformer(tiny_config)
    with torch.serialization.safe_globals([argparse.Namespace]):
        released = torch.load(parity / "editar_tiny.pt", weights_only=True)
    model.load_state_dict(released["model"])
    return model.eval()


@pytest.fixture(scope="session")
def small_parts() -> Parts:
    """A whole model of the miniature's kind, random and small: 2x2 tokens of 16x16 pixels."""
    torch.manual_seed(0)
    vocabulary = ("make", "the", "square", "red", "blue")
    vq_config = VQConfig(channels=8, res_blocks=1, latent_channels=8, codebook_size=32, codebook_dim=4, norm_groups=4)
    config = TransformerConfig(layers=2, heads=2, dim=32, vocab_size=32, grid=2, text_length=8, text_dim=16)
    transformer = EditARTransformer(config)
    torch.nn.init.normal_(transformer.output.weight)  # it starts at zero, and would predict nothing
    return Parts(
        vq=VQModel(vq_config).eval(),
        transformer=transformer.eval(),
        text=WordTextEncoder(WordTextConfig(vocabulary=vocabulary, length=8, dim=16, layers=1, heads=2)).eval(),
        sampling=SamplingConfig(guidance=2.0, top_k=0),
    )


@pytest.fixture(scope="session")
def small_folder(small_parts, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    save_folder(folder, small_parts)
    return folder


@pytest.fixture(scope="session")
def t5_folder(tmp_path_factory) -> Path:
    """A tiny T5 with random weights, in the folder format of google/flan-t5-xl."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    folder = tmp_path_factory.mktemp("flan-t5-tiny")
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=60, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(["make it snow in the garden", "Turn the red Square blue"], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    T5Tokenizer(
        tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>", pad_token="<pad>", extra_ids=0
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=64, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu"
    )
    T5EncoderModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def official_folder(parity, vq16_state, t5_folder, tmp_path_factory) -> Path:
    """The authors' three parts in one folder: the tiny transformer, a VQ-16 with as few codes, a tiny T5."""
    folder = tmp_path_factory.mktemp("official")
    shutil.copy(parity / "editar_tiny.pt", folder / "editar_release.pt")
    few_codes = vq16_state["quantize.embedding.weight"][:128].clone()
    torch.save({"model": {**vq16_state, "quantize.embedding.weight": few_codes}}, folder / "vq_ds16_t2i.pt")
    shutil.copytree(t5_folder, folder / "flan-t5-xl")
    return folder
