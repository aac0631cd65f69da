"""A hub on the loopback: what huggingface_hub asks about one repository, and files or ranges of them, from memory."""

import functools
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NOBODY = "http://127.0.0.1:9"  # a port that nobody answers on


@dataclass
class LoopbackHub:
    """files: the repository's, by name; a plain server has them at /name too. downloads: the names that were fetched.

    repository, revision: what it answers about, nothing else; datasets: whether that is a data set.
    """

    endpoint: str
    repository: str
    revision: str
    datasets: bool
    files: dict[str, bytes]
    downloads: list[str] = field(default_factory=list)

    def answer(self, address: str) -> tuple[str | None, bytes] | None:
        """The file's name, if it is one, and the content; None for what isn't there."""
        kind, prefix = ("datasets", "/datasets") if self.datasets else ("models", "")
        api, resolve = f"/api/{kind}/{self.repository}", f"{prefix}/{self.repository}/resolve/{self.revision}/"
        if address == f"{api}/commits/main":
            others = {"title": "", "message": "", "authors": [], "date": "2023-11-10T00:00:00.000Z"}
            return None, json.dumps([{"id": commit, **others} for commit in ("9" * 40, self.revision)]).encode()
        if address == f"{api}/revision/{self.revision}":
            return None, json.dumps({"id": self.repository, "sha": self.revision}).encode()
        if address.startswith(f"{api}/tree/{self.revision}"):
            folder = address.removeprefix(f"{api}/tree/{self.revision}").removeprefix("/")
            entries = ((name, len(self.files[name])) for name in sorted(self.files) if name.startswith(folder))
            tree = [{"type": "file", "path": name, "size": size, "oid": "0" * 40} for name, size in entries]
            return None, json.dumps(tree).encode()
        name = address.removeprefix(resolve) if address.startswith(resolve) else address.removeprefix("/")
        return (name, self.files[name]) if name in self.files else None


class _Server(ThreadingHTTPServer):
    hub: LoopbackHub


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        found = self.server.hub.answer(self.path.partition("?")[0])
        if found is None:
            self.send_error(404)
            return
        name, content = found
        first, _, last = self.headers.get("range", "").removeprefix("bytes=").partition("-")
        if first:
            content = content[int(first) : int(last) + 1]
        self.send_response(206 if first else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.server.hub.revision)
        self.end_headers()
        if body:
            if name is not None:
                self.server.hub.downloads.append(name)
            self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serve(
    repository: str, revision: str, files: Mapping[str, bytes] | None = None, *, datasets: bool = False
) -> Iterator[LoopbackHub]:
    """The hub, as long as the context lasts."""
    server = _Server(("127.0.0.1", 0), _Handler)
    endpoint = f"http://127.0.0.1:{server.server_port}"
    server.hub = LoopbackHub(endpoint, repository, revision, datasets, dict(files or {}))
    thread = threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    try:
        yield server.hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
