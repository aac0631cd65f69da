"""A hub on the loopback that has one data set, for streaming: its listing and ranges of bytes."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class _Hub(BaseHTTPRequestHandler):
    """Serves `server.folder` as the data set `server.repository` at `server.revision`."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server, path = self.server, self.path.partition("?")[0]
        api = f"/api/datasets/{server.repository}"  # type: ignore[attr-defined]
        revision, folder = server.revision, server.folder  # type: ignore[attr-defined]
        files = f"/datasets/{server.repository}/resolve/{revision}/"  # type: ignore[attr-defined]
        if path == f"{api}/revision/{revision}":
            self._answer(json.dumps({"id": server.repository, "sha": revision}).encode())  # type: ignore[attr-defined]
        elif path.startswith(f"{api}/tree/{revision}"):
            names = [name.relative_to(folder).as_posix() for name in sorted(folder.rglob("*.parquet"))]
            self._answer(json.dumps([self._entry(name) for name in names]).encode())
        elif path.startswith(files) and (folder / path.removeprefix(files)).is_file():
            content = (folder / path.removeprefix(files)).read_bytes()
            first, _, last = self.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")
            part = content[int(first) : int(last) + 1 if last else None]
            self._answer(part, status=206)
        else:
            self._answer(b"{}", status=404)

    def _entry(self, name: str) -> dict:
        size = (self.server.folder / name).stat().st_size  # type: ignore[attr-defined]
        return {"type": "file", "path": name, "size": size, "oid": "0" * 40}

    def _answer(self, content: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def hub(folder: Path, repository: str, revision: str) -> Iterator[ThreadingHTTPServer]:
    """The running server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    server.folder, server.repository, server.revision = folder, repository, revision  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
