"""The digest of a file, taken once."""

import os

from editar.io.digests import bytes_digest, file_digest, json_digest, list_digest


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
