"""Finding networks in diffusers folders: the user's folder, the hub's cache, a hub on the loopback."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants

from baselines.checkpoints import PIPELINE_FILES, Checkpoint, find
from tests.loopback import NOBODY, LoopbackHub, serve

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONTROL = Checkpoint(
    name="control/deep/controlnet", repository="someone/control", revision=COMMIT, subfolder="deep/controlnet"
)
FILES = {"deep/controlnet/config.json": b"{}", "deep/controlnet/diffusion_pytorch_model.safetensors": b"weights"}


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    files = {**FILES, "other/diffusion_pytorch_model.safetensors": b"not wanted"}
    with serve("someone/control", COMMIT, files) as hub:
        yield hub


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def test_a_folder_of_the_user_is_taken_by_name_with_the_digests_of_what_is_loaded(tmp_path: Path) -> None:
    names = ("config.json", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin", "README.md")
    folder = write(tmp_path / "control" / "deep" / "controlnet", *names)
    assert find(CONTROL, tmp_path, endpoint=NOBODY) == folder
    assert CONTROL.digests(folder) == {
        f"control/deep/controlnet/{name}": hashlib.sha256(name.encode()).hexdigest() for name in names[:2]
    }
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    assert [path.name for path in CONTROL.used_files(folder)] == ["config.json", "diffusion_pytorch_model.bin"]


def test_an_incomplete_folder_of_the_user_is_told_whole(tmp_path: Path) -> None:
    base = Checkpoint(name="base", files=PIPELINE_FILES, repository="someone/base", revision=COMMIT)
    folder = write(tmp_path / "base", "model_index.json", "unet/config.json", "vae/config.json", "text_encoder/x")
    with pytest.raises(FileNotFoundError) as error:
        find(base, tmp_path, endpoint=NOBODY)
    assert str(error.value) == (
        f"{folder} lacks scheduler/scheduler_config.json, text_encoder/config.json, text_encoder/model.safetensors, "
        "unet/diffusion_pytorch_model.safetensors, vae/diffusion_pytorch_model.safetensors, tokenizer/; put the whole "
        f"folder of the hub's someone/base (revision {COMMIT}) there"
    )


def test_a_pinned_revision_is_fetched_once_and_then_found_without_a_network(hub: LoopbackHub) -> None:
    folder = find(CONTROL, None, endpoint=hub.endpoint)
    assert folder.parts[-3:] == (COMMIT, "deep", "controlnet")
    assert {path.name: path.read_bytes() for path in CONTROL.used_files(folder)} == {
        name.rpartition("/")[2]: content for name, content in FILES.items()
    }
    assert sorted(hub.downloads) == sorted(FILES)
    assert find(CONTROL, None, endpoint=NOBODY) == folder


def test_what_an_interrupted_download_left_is_completed(hub: LoopbackHub) -> None:
    folder = find(CONTROL, None, endpoint=hub.endpoint)
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    assert find(CONTROL, None, endpoint=hub.endpoint) == folder
    assert len(CONTROL.used_files(folder)) == 2


def test_without_the_hub_the_error_says_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # else every request is tried again for half a minute
    with pytest.raises(FileNotFoundError) as error:
        find(CONTROL, tmp_path)
    assert str(error.value).endswith(
        f"Fetch config.json, diffusion_pytorch_model.safetensors of the hub's someone/control (revision {COMMIT}) in "
        f"deep/controlnet where there is a network, put them at {tmp_path / 'control' / 'deep' / 'controlnet'}."
    )
    with pytest.raises(FileNotFoundError, match=r"put them at DIR/control/deep/controlnet and pass --weights DIR"):
        find(CONTROL, None)


def test_a_commit_that_is_gone_is_told(hub: LoopbackHub) -> None:
    with pytest.raises(FileNotFoundError, match="could not be fetched"):
        find(replace(CONTROL, revision="9" * 40), None, endpoint=hub.endpoint)


def test_what_is_on_no_hub_has_to_be_in_the_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no .*/small, and small is not on the hub"):
        find(Checkpoint(name="small"), tmp_path)
