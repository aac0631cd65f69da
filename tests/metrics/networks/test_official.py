"""Finding official weights: the user's folder, the caches, a server on the loopback, and what is refused."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from editar.io.assets import Asset
from metrics.networks import official
from metrics.networks.official import OfficialNetwork, find
from tests.loopback import NOBODY, LoopbackHub, serve

CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB = Asset(
    name="some-clip",
    repository="someone/some-clip",
    revision=COMMIT,
    files=("config.json", "model.safetensors"),
    main="model.safetensors",
    sha256=DIGEST,
    licence="none",
)


@pytest.fixture
def server() -> Iterator[LoopbackHub]:
    with serve(HUB.repository, COMMIT) as server:
        yield server


@pytest.fixture(autouse=True)
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch-hub"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def cached(tmp_path: Path, name: str = "net.pth") -> Path:
    path = tmp_path / "torch-hub" / "checkpoints" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def item(url: str = f"{NOBODY}/net.pth", sha256: str = DIGEST) -> Asset:
    return Asset(name="net.pth", url=url, sha256=sha256, licence="none")


def test_a_file_of_the_user_is_taken_by_name_and_its_digest_recorded(tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(CONTENT)
    found = find(item(), tmp_path)
    assert (found.path, found.digest, found.official) == (tmp_path / "net.pth", DIGEST, True)
    assert OfficialNetwork(found, "net", "cpu").name == "net"
    other = find(item(sha256="0" * 64), tmp_path)
    assert (other.digest, other.official) == (DIGEST, False)
    assert OfficialNetwork(other, "net", "cpu").name == f"net@{DIGEST[:8]}"
    assert find(item(sha256=""), tmp_path).official


def test_the_beginning_of_a_digest_is_checked_as_far_as_it_goes(tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(CONTENT)
    assert find(item(sha256=DIGEST[:8]), tmp_path).official
    assert not find(item(sha256="0" * 8), tmp_path).official
    cached(tmp_path).write_bytes(CONTENT)
    with pytest.raises(ValueError):
        find(item(sha256="0" * 8))


def test_the_cache_of_torch_hub_comes_next(tmp_path: Path) -> None:
    cached(tmp_path).write_bytes(CONTENT)
    for folder in (None, tmp_path / "elsewhere"):
        assert find(item(), folder).path == cached(tmp_path)


def test_a_damaged_cached_file_is_deleted_and_named(tmp_path: Path) -> None:
    cached(tmp_path).write_bytes(CONTENT[:-1])
    with pytest.raises(ValueError, match=r"net\.pth"):
        find(item(), None)
    assert not cached(tmp_path).exists()


def test_a_missing_file_is_downloaded_once_with_a_progress_bar(
    tmp_path: Path, server: LoopbackHub, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files["net.pth"] = CONTENT
    found = find(item(f"{server.endpoint}/net.pth"), None)
    assert found.path == cached(tmp_path) and found.path.read_bytes() == CONTENT
    assert "net.pth: 100%" in capsys.readouterr().err
    server.files.clear()
    assert find(item(f"{server.endpoint}/net.pth"), None) == found


def test_a_local_address_works_too(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.pth").write_bytes(CONTENT)
    assert find(item((tmp_path / "elsewhere.pth").as_uri()), None).digest == DIGEST


def test_a_corrupted_download_is_refused_and_leaves_nothing(tmp_path: Path, server: LoopbackHub) -> None:
    server.files["net.pth"] = CONTENT[:-1] + b"!"
    with pytest.raises(ValueError, match=DIGEST):
        find(item(f"{server.endpoint}/net.pth"), None)
    assert list(cached(tmp_path).parent.iterdir()) == []


def test_without_a_network_the_error_says_where_to_put_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        find(item(), tmp_path / "mine")
    assert f"put it at {tmp_path / 'mine' / 'net.pth'}" in str(error.value)
    assert "from http://127.0.0.1:9/net.pth" in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"DIR/net\.pth"):
        find(item(), None)


@pytest.fixture
def hub(tmp_path: Path, server: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> Asset:
    """The hub on the loopback, with an empty cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # whoever sets that variable means other hubs
    server.files.update({"config.json": b"{}", "model.safetensors": CONTENT})
    return HUB


def test_a_folder_of_the_user_is_taken_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "some-clip"
    folder.mkdir()
    with pytest.raises(FileNotFoundError):
        find(HUB, tmp_path)
    (folder / "pytorch_model.bin").write_bytes(b"old format")
    assert find(HUB, tmp_path).path.name == "pytorch_model.bin"
    (folder / "model.safetensors").write_bytes(CONTENT)
    found = find(HUB, tmp_path)
    assert (found.folder, found.digest, found.official) == (folder, DIGEST, True)


def test_a_hub_folder_is_fetched_once(hub: Asset, server: LoopbackHub) -> None:
    found = find(hub, None, endpoint=server.endpoint)
    assert found.digest == DIGEST and (found.folder / "config.json").read_bytes() == b"{}"
    server.files.clear()
    assert find(hub, None, endpoint=server.endpoint) == found


def test_a_corrupted_hub_file_is_refused_and_deleted(hub: Asset, server: LoopbackHub) -> None:
    server.files["model.safetensors"] = b"corrupted"
    with pytest.raises(ValueError):
        find(hub, None, endpoint=server.endpoint)
    server.files["model.safetensors"] = CONTENT
    assert find(hub, None, endpoint=server.endpoint).digest == DIGEST


def test_without_a_network_the_error_says_where_to_put_the_folder(
    hub: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # as the variable of that name does
    with pytest.raises(FileNotFoundError, match="someone/some-clip"):
        find(hub, tmp_path / "mine")


def test_an_answer_without_the_file_says_the_same(hub: Asset, server: LoopbackHub) -> None:
    server.files.clear()
    with pytest.raises(FileNotFoundError, match="DIR/some-clip"):
        find(hub, None, endpoint=server.endpoint)


def test_every_official_item_states_its_origin() -> None:
    for asset in (official.DINO_VITB8, official.SQUEEZENET, official.INCEPTION, official.DEEPLABV3_R101):
        assert asset.url.endswith(asset.name) and asset.url.startswith("https://") and asset.licence
    assert official.SQUEEZENET.sha256[:8] in official.SQUEEZENET.name
    for asset in (official.CLIP_VIT_L14, official.DPT_LARGE):
        assert asset.repository.endswith(asset.name) and len(asset.revision) == 40
        assert asset.main in asset.files and len(asset.sha256) == 64


def test_what_lies_beside_the_weights_is_in_the_digest(tmp_path: Path) -> None:
    folder = tmp_path / "some-clip"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(CONTENT)
    digests = {OfficialNetwork(find(HUB, tmp_path), "clip", "cpu").digest}
    assert digests == {DIGEST}
    for config in (b"{}", b'{"layer_norm_eps": 0.1}'):
        (folder / "config.json").write_bytes(config)
        network = OfficialNetwork(find(HUB, tmp_path), "clip", "cpu")
        assert (network.name, network.official) == ("clip", True)
        digests.add(network.digest)
    assert len(digests) == 3
