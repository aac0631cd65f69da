"""Images to sums: clean-fid's preparation and features, reading ahead, what is read at all, and the cache."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.tools.random_weights import write_inception
from editar.io.digests import file_digest
from metrics.functional.frechet import FeatureSums, fid
from metrics.networks.inception import OfficialInception
from metrics.networks.official import INCEPTION, Found, find
from metrics.protocols.fid import (
    images_digest,
    prepared_batches,
    read_statistics,
    reference_of_files,
    reference_of_statistics,
    sums_of_files,
    write_statistics,
)
from tests.flips import COUNTS, flips
from tests.photographs import photograph


class SmallLayers(nn.Module):
    """2048 features of a few weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 9, stride=7)
        self.second = nn.Conv2d(6, 2048, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.first(x)))).mean([2, 3], keepdim=True)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return write_inception(tmp_path_factory.mktemp("weights"), SmallLayers())


@pytest.fixture
def network(weights: Path) -> OfficialInception:
    network = OfficialInception(find(INCEPTION, weights))
    network.batch = 4
    return network


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Ten images of several sizes, modes and formats; the folder also holds what must never be read."""
    folder = tmp_path_factory.mktemp("images")
    files = []
    for i, (width, height) in enumerate([(512, 512), (512, 512), (96, 64), (299, 299), (320, 400)] * 2):
        image = photograph(i, width, height)
        image.putalpha(image.convert("L"))
        image = image.convert(["RGB", "RGB", "L", "RGB", "RGBA"][i % 5])
        files.append(folder / f"{i}.{'jpg' if i == 1 else 'png'}")
        image.save(files[-1])
    (folder / "maps").mkdir()
    Image.new("RGB", (64, 64), "white").save(folder / "maps" / "0_edge.png")
    Image.new("RGB", (64, 64), "white").save(folder / "0_depth.png")
    return files


def clean_fid_features(weights: Path, files: Sequence[Path]) -> np.ndarray:
    from cleanfid.fid import get_files_features
    from cleanfid.inception_torchscript import InceptionV3W

    model = InceptionV3W(str(weights), download=False, resize_inside=False)
    names = [str(path) for path in files]
    return get_files_features(names, model, num_workers=0, device=torch.device("cpu"), batch_size=5, verbose=False)


def test_prepared_images_equal_clean_fids(network: OfficialInception, files: list[Path]) -> None:
    from cleanfid.resize import build_resizer

    for path in files:
        with Image.open(path) as image:
            expected = build_resizer("clean")(np.array(image.convert("RGB"))).transpose(2, 0, 1)
            assert np.array_equal(network.prepare(image), expected)


def test_fid_equals_clean_fids_from_files_to_distance(
    network: OfficialInception, weights: Path, files: list[Path]
) -> None:
    """Ten images are fewer than 2048 features, where clean-fid's root is inexact: compared on the sums."""
    expected = clean_fid_features(weights, files).astype(np.float64)
    assert expected.std() > 0.01
    statistics = sums_of_files(files, network).statistics()
    np.testing.assert_allclose(statistics.mean.numpy(), expected.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(statistics.covariance.numpy(), np.cov(expected, rowvar=False), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_are_in_order_with_any_number_of_workers(
    network: OfficialInception, files: list[Path], workers: int
) -> None:
    batches = list(prepared_batches(files, network, workers))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    for prepared, path in zip(torch.cat(batches), files, strict=True):
        with Image.open(path) as image:
            assert np.array_equal(prepared.numpy(), network.prepare(image))


def test_images_are_read_two_batches_ahead_and_no_further(tmp_path: Path) -> None:
    class Counting:
        name, official, digest, dimension, batch, device = "counting", False, "0" * 64, 3, 4, "cpu"
        prepared = 0

        def prepare(self, image: Image.Image) -> np.ndarray:
            self.prepared += 1
            return np.asarray(image, dtype=np.float32).transpose(2, 0, 1)

        def features(self, prepared: Tensor) -> Tensor:
            return prepared.mean((2, 3))

    files, network = [tmp_path / f"{number}.png" for number in range(40)], Counting()
    for path in files:
        Image.new("RGB", (2, 2)).save(path)
    batches = prepared_batches(files, network, workers=1)
    for taken in range(1, 4):
        next(batches)
        end = time.monotonic() + 30
        while network.prepared < 4 * (taken + 2) and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.05)  # whoever read on would do it now
        assert network.prepared == 4 * (taken + 2)


def test_only_listed_files_are_read(network: OfficialInception, files: list[Path]) -> None:
    sums = sums_of_files(files[:2], network)
    assert sums.images == 2
    with pytest.raises(ValueError, match="folder"):
        sums_of_files([*files, files[0].parent / "maps"], network)
    with pytest.raises(ValueError, match=r"0\.png"):
        sums_of_files([*files, files[0]], network)
    with pytest.raises(ValueError):
        sums_of_files([], network)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("content", [b"no image", None])
def test_an_unreadable_file_is_named(
    network: OfficialInception, files: list[Path], tmp_path: Path, workers: int, content: bytes | None
) -> None:
    (tmp_path / "bad.png").write_bytes(content or files[0].read_bytes()[:2000])  # None: cut off
    with pytest.raises(ValueError):
        sums_of_files([*files[:6], tmp_path / "bad.png"], network, workers)


def test_a_reference_is_computed_once_for_its_content_and_network(
    network: OfficialInception, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = reference_of_files(files, network, tmp_path / "cache")
    assert first.digest == images_digest(files) and first.file is None
    (tmp_path / "renamed.png").write_bytes(files[0].read_bytes())
    renamed = [*files[:0:-1], tmp_path / "renamed.png"]
    calls: list[int] = []
    features = network.features

    def counted(batch: Tensor) -> Tensor:
        calls.append(len(batch))
        return features(batch)

    monkeypatch.setattr(network, "features", counted)
    again = reference_of_files(renamed, network, tmp_path / "cache")
    assert (again.digest, calls) == (first.digest, [])
    assert torch.equal(again.statistics.mean, first.statistics.mean)
    assert torch.equal(again.statistics.covariance, first.statistics.covariance)
    fewer = reference_of_files(files[1:], network, tmp_path / "cache")
    assert (sum(calls), fewer.statistics.images) == (9, 9) and fewer.digest != first.digest
    network.digest = "f" * 64
    reference_of_files(files[1:], network, tmp_path / "cache")
    assert sum(calls) == 18


@pytest.mark.slow
def test_published_statistics_of_clean_fid_are_a_reference(
    network: OfficialInception, weights: Path, files: list[Path], tmp_path: Path
) -> None:
    expected = clean_fid_features(weights, files).astype(np.float64)
    path = tmp_path / "some_clean_custom_na.npz"
    np.savez_compressed(path, mu=expected.mean(0), sigma=np.cov(expected, rowvar=False))  # as its make_custom_stats
    reference = reference_of_statistics(str(path), network)
    by_name = reference_of_statistics("some_clean_custom_na", network, tmp_path)
    assert (by_name.file, by_name.digest) == (reference.file, reference.digest)
    assert (reference.file, reference.digest, reference.statistics.images) == (path.name, file_digest(path), None)
    assert fid(sums_of_files(files, network).statistics(), reference.statistics) == pytest.approx(0, abs=1e-3)


def test_statistics_survive_a_file_exactly_which_clean_fids_reader_takes(tmp_path: Path) -> None:
    sums = FeatureSums(5)
    sums.update(torch.rand(9, 5))
    statistics, path = sums.statistics(), tmp_path / "new" / "mine.npz"
    write_statistics(path, statistics)
    again = read_statistics(path)
    assert torch.equal(again.mean, statistics.mean) and torch.equal(again.covariance, statistics.covariance)
    assert again.images == 9 and {each.name for each in path.parent.iterdir()} == {"mine.npz", "mine.npz.sha256"}
    theirs = np.load(path)
    assert np.array_equal(theirs["mu"], statistics.mean) and np.array_equal(theirs["sigma"], statistics.covariance)


def test_files_that_are_no_statistics_of_the_network_are_refused(network: OfficialInception, tmp_path: Path) -> None:
    path, mean, covariance = tmp_path / "some.npz", np.zeros(3), np.eye(3)
    for content in (
        {"mu": mean},
        {"mu": mean, "sigma": covariance[:2]},
        {"mu": mean, "sigma": covariance * np.nan},
        {"mu": np.array(["a"]), "sigma": covariance},
        {"mu": np.array([{}], dtype=object), "sigma": covariance},  # pickled, which could run code
    ):
        np.savez(path, **content)
        with pytest.raises(ValueError, match=r"some\.npz"):
            read_statistics(path)
    for data in (b"", b"no archive", path.read_bytes()[:100]):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"some\.npz"):
            read_statistics(path)
    np.savez(path, mu=mean, sigma=covariance)
    with pytest.raises(ValueError, match="3 features"):
        reference_of_statistics(str(path), network)
    with pytest.raises(ValueError, match="--fid-reference"):
        reference_of_statistics("some_legacy_tensorflow_train_32", network, tmp_path)


def test_the_order_of_batches_changes_no_bit(network: OfficialInception, files: list[Path]) -> None:
    """Batches of the same composition, so that the network's own rounding is the same too."""
    reordered = sums_of_files([*files[4:8], *files[:4], *files[8:]], network)
    for name, value in sums_of_files(files, network).parts.items():
        assert torch.equal(reordered.parts[name], value)


def test_the_name_tells_that_the_weights_are_not_the_published_ones(network: OfficialInception) -> None:
    assert (network.official, network.dimension) == (False, 2048)
    assert network.name == f"inception-2015-12-05@{network.digest[:8]}"


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.pt").write_bytes(b"nothing")
    torch.jit.script(nn.Conv2d(3, 2, 1)).save(tmp_path / "conv.pt")
    for name in ("no.pt", "conv.pt"):
        with pytest.raises(ValueError, match=rf"{name[:-3]}\.pt"):
            OfficialInception(Found(path=tmp_path / name, digest="", official=False))


@pytest.mark.parametrize("count", COUNTS)
def test_a_reference_that_lost_a_bit_is_made_again(
    count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Means:
        """A network of two features, which takes no time."""

        name, official, digest, batch, device, dimension = "means", False, "0" * 64, 4, "cpu", 2

        def prepare(self, image: Image.Image) -> np.ndarray:
            return np.asarray(image, dtype=np.float32)

        def features(self, prepared: torch.Tensor) -> torch.Tensor:
            return prepared.flatten(1)[:, :2]

    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        Image.new("RGB", (2, 2), (number, 3 * number, 0)).save(path)
    cache = tmp_path / "cache"
    expected = reference_of_files(paths, Means(), cache)
    (path,) = cache.glob("*.npz")
    whole = path.read_bytes()
    for damaged in flips(whole, count):
        path.write_bytes(damaged)
        found = reference_of_files(paths, Means(), cache)
        assert torch.equal(found.statistics.covariance, expected.statistics.covariance)
        assert torch.equal(found.statistics.mean, expected.statistics.mean)
    assert capsys.readouterr().err.count("was damaged, and is made again") == count
