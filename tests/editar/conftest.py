import argparse
import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from editar.config import TransformerConfig
from editar.transformer import EditARTransformer


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
def tiny_expected(parity):
    return load_file(parity / "editar_tiny_expected.safetensors")


@pytest.fixture(scope="session")
def tiny_config():
    return TransformerConfig(layers=3, heads=4, dim=64, vocab_size=128, grid=8, text_length=120, text_dim=32)


@pytest.fixture(scope="session")
def tiny(parity, tiny_config):
    """The released layout with random weights, by the same reader-independent way for every test."""
    model = EditARTransformer(tiny_config)
    with torch.serialization.safe_globals([argparse.Namespace]):
        released = torch.load(parity / "editar_tiny.pt", weights_only=True)
    model.load_state_dict(released["model"])
    return model.eval()
