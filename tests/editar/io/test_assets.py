"""Finding assets: the user's folder, the caches, a hub and a server on the loopback, and what is refused."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants

from baselines.assets import ASSETS
from editar.io.assets import Asset, digests, locate
from tests.loopback import NOBODY, LoopbackHub, serve

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NETWORK_FILES, PIPELINE_FILES = ASSETS["diffusion/controlnet-depth"].files, ASSETS["diffusion"].files
CONTROL = Asset(
    name="control/deep/controlnet",
    files=NETWORK_FILES,
    repository="someone/control",
    revision=COMMIT,
    subfolder="deep/controlnet",
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
    assert CONTROL.find(tmp_path, endpoint=NOBODY) == folder
    assert CONTROL.digests(folder) == {
        f"control/deep/controlnet/{name}": hashlib.sha256(name.encode()).hexdigest() for name in names[:2]
    }
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    assert [path.name for path in CONTROL.used_files(folder)] == ["config.json", "diffusion_pytorch_model.bin"]


def test_an_incomplete_folder_of_the_user_is_told_whole(tmp_path: Path) -> None:
    base = Asset(name="base", files=PIPELINE_FILES, repository="someone/base", revision=COMMIT)
    folder = write(tmp_path / "base", "model_index.json", "unet/config.json", "vae/config.json", "text_encoder/x")
    with pytest.raises(FileNotFoundError) as error:
        base.find(tmp_path, endpoint=NOBODY)
    assert str(error.value) == (
        f"{folder} lacks scheduler/scheduler_config.json, text_encoder/config.json, text_encoder/model.safetensors, "
        "tokenizer/, unet/diffusion_pytorch_model.safetensors, vae/diffusion_pytorch_model.safetensors; put the whole "
        f"folder of the hub's someone/base (revision {COMMIT}) there"
    )


def test_a_pinned_revision_is_fetched_once_and_then_found_without_a_network(hub: LoopbackHub) -> None:
    folder = CONTROL.find(None, endpoint=hub.endpoint)
    assert folder.parts[-3:] == (COMMIT, "deep", "controlnet")
    assert {path.name: path.read_bytes() for path in CONTROL.used_files(folder)} == {
        name.rpartition("/")[2]: content for name, content in FILES.items()
    }
    assert sorted(hub.downloads) == sorted(FILES)
    assert CONTROL.find(None, endpoint=NOBODY) == folder


def test_what_an_interrupted_download_left_is_completed(hub: LoopbackHub) -> None:
    folder = CONTROL.find(None, endpoint=hub.endpoint)
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    assert CONTROL.find(None, endpoint=hub.endpoint) == folder
    assert len(CONTROL.used_files(folder)) == 2


def test_without_the_hub_the_error_says_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # else every request is tried again for half a minute
    with pytest.raises(FileNotFoundError) as error:
        CONTROL.find(tmp_path)
    assert str(error.value).endswith(
        f"Fetch config.json, diffusion_pytorch_model.safetensors of the hub's someone/control (revision {COMMIT}) in "
        f"deep/controlnet where there is a network, put them at {tmp_path / 'control' / 'deep' / 'controlnet'}."
    )
    with pytest.raises(FileNotFoundError, match="DIR/control/deep/controlnet"):
        CONTROL.find(None)


def test_a_commit_that_is_gone_is_told(hub: LoopbackHub) -> None:
    with pytest.raises(FileNotFoundError):
        replace(CONTROL, revision="9" * 40).find(None, endpoint=hub.endpoint)


def test_what_is_on_no_hub_has_to_be_in_the_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="small"):
        Asset(name="small", files=NETWORK_FILES).find(tmp_path)


FILE = Asset(name="row/net.ckpt", repository="someone/row", revision=COMMIT, licence="MIT", sizes={"net.ckpt": 7})


def test_a_file_of_the_user_may_lie_in_its_folder_or_right_under_weights(tmp_path: Path) -> None:
    (absent,) = FILE.locate(tmp_path)
    assert (absent.name, absent.path, absent.comes) == ("row/net.ckpt", None, "fetched")
    for name in ("row/net.ckpt", "net.ckpt"):
        write(tmp_path, name)
        (file,) = FILE.locate(tmp_path)
        assert (file.name, file.path, file.comes) == (name, tmp_path / name, "given")
        assert (file.size, file.licence, file.source) == (7, "MIT", f"hub: someone/row @ {COMMIT[:7]}")
        assert FILE.find(tmp_path) == tmp_path / name
        assert FILE.digests(tmp_path / name) == {"net.ckpt": hashlib.sha256(name.encode()).hexdigest()}


def test_a_file_of_the_hub_is_fetched_once() -> None:
    with serve(FILE.repository, COMMIT, {"net.ckpt": b"weights", "other": b"not wanted"}) as hub:
        path = FILE.find(endpoint=hub.endpoint)
        assert path.read_bytes() == b"weights" and hub.downloads == ["net.ckpt"]
    assert FILE.find(endpoint=NOBODY) == path and FILE.locate(None)[0].path == path


def test_what_is_given_on_request_says_where(tmp_path: Path) -> None:
    asset = Asset(name="net.ckpt", source="its authors", licence="theirs")
    (file,) = asset.locate(tmp_path)
    assert (file.source, file.path, file.comes) == ("its authors", None, "given")
    with pytest.raises(FileNotFoundError, match=r"DIR/net\.ckpt: .*--weights"):
        asset.find(None)


def test_several_assets_are_listed_and_digested_together(tmp_path: Path) -> None:
    write(tmp_path / "control" / "deep" / "controlnet", *NETWORK_FILES)
    write(tmp_path, "net.ckpt")
    assert len(locate((CONTROL, FILE), tmp_path)) == 3
    names = [f"{CONTROL.name}/{name}" for name in NETWORK_FILES]
    assert list(digests((CONTROL, FILE), tmp_path)) == [*names, "net.ckpt"]


def test_a_tokenizer_of_the_user_may_have_other_files(tmp_path: Path) -> None:
    base = Asset(name="base", files=("tokenizer/vocab.json", "tokenizer/merges.txt"), repository="someone/base")
    folder = write(tmp_path / "base", "tokenizer/vocab.json", "tokenizer/tokenizer.json")
    assert [path.name for path in base.used_files(folder)] == ["tokenizer.json", "vocab.json"]
    assert [file.name for file in base.locate(tmp_path)] == ["base/tokenizer/vocab.json"]


def test_only_weights_are_demanded_of_a_users_folder_where_they_are_named(tmp_path: Path) -> None:
    net = Asset(name="net", files=("config.json", "model.safetensors"), main="model.safetensors", repository="a/net")
    folder = write(tmp_path / "net", "config.json")
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        net.find(tmp_path)
    write(folder, "pytorch_model.bin")
    (folder / "config.json").unlink()
    assert net.main_file(net.find(tmp_path)).name == "pytorch_model.bin"
    assert [file.name for file in net.locate(tmp_path)] == ["net/model.safetensors"]


def test_a_file_that_was_not_fetched_as_it_should_be_is_said_to_be_so(tmp_path: Path) -> None:
    folder = tmp_path / CONTROL.name
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(b"{}")
    path = folder / "diffusion_pytorch_model.safetensors"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\nsize 123\n")
    with pytest.raises(ValueError, match="it is a pointer of Git LFS"):
        CONTROL.find(tmp_path)
