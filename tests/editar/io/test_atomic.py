"""Files and folders are replaced whole or not at all."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from editar.io.atomic import (
    WriteError,
    append_text,
    lock,
    lock_or_refuse,
    remove_torn,
    replacing,
    replacing_folder,
    write_bytes,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_when_the_block_ends(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(path, durable=durable) as file:
        file.write(b"new")
        assert path.read_text() == "old" and Path(file.name).parent == tmp_path
    assert path.read_text() == "new" and names(tmp_path) == ["file"]


def test_an_error_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "file", b"old")
    with pytest.raises(KeyError), replacing(path) as file:
        file.write(b"half")
        raise KeyError
    assert path.read_bytes() == b"old" and names(tmp_path) == ["file"]
    with pytest.raises(WriteError):
        write_text(tmp_path / "missing" / "file", "text")


def test_text_is_utf8_with_its_own_line_ends(tmp_path: Path) -> None:
    assert write_text(tmp_path / "file", "ä\r\nb\n").read_bytes() == b"\xc3\xa4\r\nb\n"


def test_permissions_are_those_of_a_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    written = write_bytes(tmp_path / "file", b"")
    assert written.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    (tmp_path / ".file.rank.part").symlink_to(victim)
    write_text(tmp_path / "file", "new", writer="rank")
    assert victim.read_text() == "kept" and (tmp_path / "file").read_text() == "new"
    assert names(tmp_path) == ["file", "victim"]


@pytest.mark.parametrize("name", ["link", "pipe"])
def test_locks_and_logs_are_plain_files(tmp_path: Path, name: str) -> None:
    """A pipe would wait for somebody, a link leads elsewhere."""
    victim = tmp_path / "victim"
    victim.write_text("kept")
    for file in ("lock", "log"):
        if name == "pipe":
            os.mkfifo(tmp_path / file)
        else:
            (tmp_path / file).symlink_to(victim)
    for lock_of in (lock, lock_or_refuse):
        with pytest.raises(OSError, match="lock"), lock_of(tmp_path):
            pass
    with pytest.raises(WriteError, match="log"):
        append_text(tmp_path / "log", "line")
    assert victim.read_text() == "kept"


def test_a_folder_in_use_is_refused_with_its_holder(tmp_path: Path) -> None:
    with lock_or_refuse(tmp_path):
        waiting = multiprocessing.get_context("fork").Process(target=_refused, args=(tmp_path, os.getpid()))
        waiting.start()
        waiting.join()
        assert waiting.exitcode == 0
    with lock_or_refuse(tmp_path):
        pass


def _refused(folder: Path, holder: int) -> None:
    with pytest.raises(ValueError, match=f"in use by process {holder} on"), lock_or_refuse(folder):
        pass


def _killed(path: Path, writer: str | None) -> None:
    with replacing(path, writer=writer) as file:
        file.write(b"half")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def kill_while_writing(path: Path, writer: str | None) -> None:
    process = multiprocessing.get_context("fork").Process(target=_killed, args=(path, writer))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_what_a_killed_process_left_is_replaced_by_the_next_writer_of_its_name(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "file", b"old")
    kill_while_writing(path, "rank")
    assert path.read_bytes() == b"old" and len(names(tmp_path)) == 2
    write_bytes(path, b"new", writer="rank")
    assert path.read_bytes() == b"new" and names(tmp_path) == ["file"]


def test_torn_files_are_removed_by_the_name_of_their_writer(tmp_path: Path) -> None:
    for writer in ("0", "10", None):
        kill_while_writing(tmp_path / "a.0", writer)
    remove_torn(tmp_path, "0")
    assert len(names(tmp_path)) == 2 and ".a.0.10.part" in names(tmp_path)
    remove_torn(tmp_path)
    assert names(tmp_path) == []


def test_processes_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    with replacing(tmp_path / "file") as mine:
        mine.write(b"mine")
        kill_while_writing(tmp_path / "file", None)
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_folder_is_replaced_with_all_that_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder"
    for name in ("old", "new"):
        with replacing_folder(path) as folder:
            (folder / name).touch()
    assert names(path) == ["new"] and names(path.parent) == ["folder"]
    with pytest.raises(KeyError), replacing_folder(path) as folder:
        raise KeyError
    assert names(path) == ["new"] and names(path.parent) == ["folder"]
