"""Fetching a data set through huggingface_hub, from a hub on the loopback that has one."""

import functools
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks.datasets.hub import COCO_STUFF, MULTIGEN_CANNY, MULTIGEN_DEPTH, HubDataset, fetch
from benchmarks.datasets.translation import read_translation
from tests.benchmarks.tiny_translation import write

REVISION = MULTIGEN_CANNY.revision
REPOSITORY = MULTIGEN_CANNY.repository


class Hub(BaseHTTPRequestHandler):
    """Answers what the hub does about one data set, from the files of `server.folder`, and counts the downloads."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        folder: Path = self.server.folder  # type: ignore[attr-defined]
        address = self.path.partition("?")[0]
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        api, files = f"/api/datasets/{REPOSITORY}", f"/datasets/{REPOSITORY}/resolve/{REVISION}/"
        if address == f"{api}/commits/main":
            others = {"title": "", "message": "", "authors": [], "date": "2023-11-10T00:00:00.000Z"}
            content = json.dumps([{"id": "9" * 40, **others}, {"id": REVISION, **others}]).encode()
        elif address == f"{api}/tree/{REVISION}":
            content = json.dumps(
                [{"type": "file", "path": name, "size": 1, "oid": "0" * 40} for name in names]
            ).encode()
        elif address.startswith(files) and address.removeprefix(files) in names:
            content = (folder / address.removeprefix(files)).read_bytes()
            self.server.downloads.append(address) if body else None  # type: ignore[attr-defined]
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.folder = write(tmp_path / "published", "canny")  # type: ignore[attr-defined]
    server.downloads = []  # type: ignore[attr-defined]
    (tmp_path / "published" / "data" / "train-00000-of-00001.parquet").write_bytes(b"not wanted")
    thread = threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def endpoint(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


@pytest.mark.parametrize("revision", [REVISION, REVISION[:7]])
def test_a_pinned_revision_is_fetched_once_and_then_found_without_a_network(
    tmp_path: Path, hub: ThreadingHTTPServer, revision: str
) -> None:
    source, cache = replace(MULTIGEN_CANNY, revision=revision), tmp_path / "cache"
    folder = fetch(source, cache=cache, endpoint=endpoint(hub))
    assert folder.name == REVISION
    assert len(read_translation(source, folder, "canny").records) == 6
    downloads = [address.rpartition("/")[2] for address in hub.downloads]  # type: ignore[attr-defined]
    assert sorted(downloads) == ["validation-00000-of-00002.parquet", "validation-00001-of-00002.parquet"]
    assert fetch(source, cache=cache, endpoint="http://127.0.0.1:9") == folder  # a port that nobody answers on


def test_what_an_interrupted_download_left_is_completed(tmp_path: Path, hub: ThreadingHTTPServer) -> None:
    folder = fetch(MULTIGEN_CANNY, cache=tmp_path / "cache", endpoint=endpoint(hub))
    (folder / "data" / "validation-00001-of-00002.parquet").unlink()
    assert fetch(MULTIGEN_CANNY, cache=tmp_path / "cache", endpoint=endpoint(hub)) == folder
    assert len(read_translation(MULTIGEN_CANNY, folder, "canny").records) == 6


@pytest.mark.parametrize("source", [COCO_STUFF, MULTIGEN_DEPTH, replace(MULTIGEN_CANNY, revision="abcdef0")])
def test_the_way_out_is_told_when_the_hub_does_not_have_it(
    tmp_path: Path, hub: ThreadingHTTPServer, source: HubDataset
) -> None:
    with pytest.raises(FileNotFoundError, match=r"could not be fetched(.|\n)*validation-\*\.parquet(.|\n)*--data DIR"):
        fetch(source, cache=tmp_path / "cache", endpoint=endpoint(hub))
