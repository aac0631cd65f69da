"""State dicts from safetensors files and from pickles, by one reader; written whole or not at all."""

import argparse
from pathlib import Path

import pytest
import torch

from editar.io.tensors import CheckpointError, map_safetensors, read_tensors, write_safetensors

STATE = {"w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.float16)}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("under", ["", "model", "module", "state_dict"])
def test_pickles_are_read_at_the_top_and_under_the_usual_names(tmp_path: Path, under: str, legacy: bool) -> None:
    content = {under: STATE, "args": argparse.Namespace(size=1)} if under else STATE
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    found = read_tensors(tmp_path / "a.pt")
    assert found.keys() == STATE.keys() and all(torch.equal(found[name], STATE[name]) for name in STATE)


def test_safetensors_are_written_and_read(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", STATE, {"kind": "mine"})
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    found, metadata = map_safetensors(tmp_path / "a.safetensors")
    assert metadata == {"kind": "mine"} and all(torch.equal(found[name], STATE[name]) for name in STATE)
    assert read_tensors(tmp_path / "a.safetensors").keys() == STATE.keys()


@pytest.mark.parametrize("content", [{}, {"w": 1}, {"state_dict": {"w": "text"}}, [1], {"w": Path("a")}])
def test_what_is_no_state_dict_is_refused_by_name(tmp_path: Path, content) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"a\.pt"):
        read_tensors(tmp_path / "a.pt")


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=name):
        read_tensors(tmp_path / name)
