"""A static server on the loopback that keeps a log, and can be told to lie about single files."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from studbook.assembly.page import page
from studbook.models.engine import engine_bytes

TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".json": "application/json"}
Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers from the site's folder or from what the site was told to answer instead."""

    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        path = urlsplit(self.path).path.lstrip("/") or "index.html"
        self.site.log.append(path)
        instead = self.site.instead.get(path)
        if callable(instead):
            instead(self)
            return
        file = self.site.folder / path
        data = instead if instead is not None else file.read_bytes() if file.is_file() else None
        self.answer(
            200 if data is not None else 404, data or b"", TYPES.get(Path(path).suffix, "application/octet-stream")
        )

    def answer(self, status: int, data: bytes, kind: str = "application/octet-stream", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        # The page hangs up at the first byte too many.
        with suppress(ConnectionError):
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing is printed; the site's log is what counts."""


class Site:
    """A folder as seen through a server.

    Attributes:
        folder: What is served.
        instead: Path -> other bytes, or a function that answers.
        log: Every path that was asked for, in order.
        closing: Set when the test is over; an answer that waits for it keeps the page waiting.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.instead: dict[str, bytes | Answer] = {}
        self.log: list[str] = []
        self.closing = threading.Event()
        handler = type("Bound", (Handler,), {"site": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @property
    def address(self) -> str:
        """The page's address."""
        return f"http://127.0.0.1:{self.port}/"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def harness(folder: Path, **instead: str) -> Path:
    """A folder with the page's modules, the engine, and an empty page under the page's own policy.

    Args:
        folder: A new folder.
        instead: Name of a module -> another text for it.
    """
    folder.mkdir()
    for name, data in page().items():
        (folder / name).write_bytes(data)
    for name, text in instead.items():
        (folder / f"{name}.js").write_text(text, encoding="utf-8")
    for own in ("engine_page.js", "held_worker.js"):
        shutil.copy(Path(__file__).with_name(own), folder)
    (folder / "engine.wasm").write_bytes(engine_bytes())
    html = (folder / "index.html").read_text(encoding="utf-8")
    (folder / "index.html").write_text(
        html.replace('<script type="module" src="index.js"></script>', ""), encoding="utf-8"
    )
    return folder
