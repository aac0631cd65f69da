"""State dicts from safetensors files and from pickles, by one reader; written whole or not at all."""

import argparse
from pathlib import Path

import pytest
import torch

from editar.io.tensors import CheckpointError, check_state, map_safetensors, read_tensors, write_safetensors

STATE = {"w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.float16)}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("under", ["", "model", "module", "state_dict", "model_state_dict", "ema"])
def test_pickles_are_read_at_the_top_and_under_the_usual_names(tmp_path: Path, under: str, legacy: bool) -> None:
    content = {under: STATE, "args": argparse.Namespace(size=1)} if under else STATE
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    found = read_tensors(tmp_path / "a.pt")
    assert found.keys() == STATE.keys() and all(torch.equal(found[name], STATE[name]) for name in STATE)
    assert found.taken == under


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_what_wraps_a_network_is_dropped_where_every_name_has_it(tmp_path: Path, prefix: str, suffix: str) -> None:
    path, wrapped = tmp_path / f"a{suffix}", {prefix + name: tensor for name, tensor in STATE.items()}
    if suffix == ".pt":
        torch.save({"model": wrapped, "ema": STATE}, path)
    else:
        write_safetensors(path, wrapped)
    found = read_tensors(path)
    assert found.keys() == STATE.keys() and found.taken.endswith(f"without {prefix}")
    assert found.taken.startswith("model, ") == (suffix == ".pt")
    if suffix == ".safetensors":
        write_safetensors(path, wrapped | {"b": torch.ones(2)})
        assert read_tensors(path).keys() == {*wrapped, "b"}


def test_another_prefix_is_named(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 2)
    torch.save({f"student.{name}": tensor for name, tensor in network.state_dict().items()}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"every name in the file begins with 'student\.'"):
        check_state(network, read_tensors(tmp_path / "a.pt"), tmp_path / "a.pt")


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123\n"


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (LFS, "a pointer of Git LFS.*git lfs pull"),
        (b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title>", "an HTML page"),
        (b'{"error":"Repository not found"}', "a server's message.*Repository not found"),
        (b"", "it is empty"),
    ],
)
def test_what_came_in_the_place_of_weights_is_said(tmp_path: Path, suffix: str, content: bytes, told: str) -> None:
    (tmp_path / f"a{suffix}").write_bytes(content)
    with pytest.raises(CheckpointError, match=told):
        read_tensors(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_download_that_broke_off_is_said(tmp_path: Path, suffix: str, kept: float) -> None:
    path, state = tmp_path / f"a{suffix}", {"w": torch.zeros(1000)}
    if suffix == ".pt":
        torch.save(state, path)
    else:
        write_safetensors(path, state)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(CheckpointError, match="it is cut off"):
        read_tensors(path)


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


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    """Whatever the process: safetensors alone orders its metadata by chance."""
    metadata = {f"name {number}": f"ä\n{number}" for number in range(9)}
    written = set()
    for number in range(8):
        write_safetensors(tmp_path / f"{number}.safetensors", {"b": torch.ones(3), "a": torch.zeros(2)}, metadata)
        written.add((tmp_path / f"{number}.safetensors").read_bytes())
    assert len(written) == 1
    tensors, known = map_safetensors(tmp_path / "0.safetensors")
    assert known == metadata and torch.equal(tensors["b"], torch.ones(3)) and torch.equal(tensors["a"], torch.zeros(2))
