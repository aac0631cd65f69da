"""The digest of a file, taken once; files that lost a bit."""

import json
import os

import pytest

from editar.io.digests import (
    DamagedError,
    bytes_digest,
    check_sums,
    file_digest,
    is_intact,
    json_digest,
    list_digest,
    replacing_checked,
    sealed,
    unsealed,
    write_sums,
)
from tests.flips import COUNTS, campaign


def test_the_digest_of_a_file_follows_its_changes(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert file_digest(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    path.write_bytes(b"")
    assert file_digest(path) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_file_that_stays_as_it_is_is_read_once(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    first, status = file_digest(path), path.stat()
    path.write_bytes(b"xyz")  # what nobody does: other bytes, the same size and time
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file_digest(path) == first


def test_digests_of_json_and_of_lists():
    assert json_digest({"a": 1, "b": [2]}) == json_digest({"b": [2], "a": 1})
    assert list_digest(["a", "b"]) == bytes_digest(b"a\nb") != list_digest(["b", "a"])


@pytest.mark.parametrize("count", COUNTS)
def test_a_file_that_lost_a_bit_is_not_intact(tmp_path, count):
    path = tmp_path / "file"
    with replacing_checked(path) as file:
        file.write(bytes(range(256)))
    for each in (path, tmp_path / "file.sha256"):
        outcomes = campaign(each, lambda: is_intact(path), count, (), lambda intact: not intact)
        assert outcomes["silent"] == 0 and (each != path or outcomes["unseen"] == 0)


def test_a_process_that_dies_before_the_renaming_leaves_the_old_file_intact(tmp_path):
    path = tmp_path / "file"
    with replacing_checked(path) as file:
        file.write(b"old")
    with replacing_checked(path) as file:
        file.write(b"new")
        beside = (tmp_path / "file.sha256").read_text()
    assert path.read_bytes() == b"new" and is_intact(path)
    path.write_bytes(b"old")
    assert is_intact(path) and bytes_digest(b"old") in beside
    path.write_bytes(b"odd")
    assert not is_intact(path)


@pytest.mark.parametrize("count", COUNTS)
def test_sealed_json_that_lost_a_bit_is_refused_or_no_longer_sealed(tmp_path, count):
    path = tmp_path / "file.json"
    path.write_bytes(sealed(json.dumps({"a": 1, "b": ["c"] * 9}).encode()))

    def read():
        try:
            return unsealed(path.read_bytes())
        except DamagedError as error:
            raise DamagedError(f"{path}: {error}") from error

    outcomes = campaign(path, read, count, DamagedError, lambda found: found is None)
    assert outcomes["silent"] == outcomes["unseen"] == 0 and outcomes["refused"] > outcomes["remade"]


def test_sums_are_those_of_all_files(tmp_path):
    check_sums(tmp_path)  # of before there were any
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    write_sums(tmp_path)
    check_sums(tmp_path)
    (tmp_path / "c").write_text("c")
    with pytest.raises(DamagedError, match="c isn't"):
        check_sums(tmp_path)
    (tmp_path / "c").unlink()
    (tmp_path / "b").unlink()
    with pytest.raises(DamagedError, match="b isn't"):
        check_sums(tmp_path)
