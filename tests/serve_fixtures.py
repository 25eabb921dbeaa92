"""A server in a thread of the test, with shipped founders behind it; and raw sockets to be rude with."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import socket
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from studbook.lab.demo import examples_folder
from studbook.models.slm import read_slm
from studbook.models.slm_writer import write_slm
from studbook.records import Header, ResidentSetRecord
from studbook.runtime.arenas import Arena, Budgets
from studbook.runtime.handles import Artifact, Artifacts
from studbook.runtime.resident import ResidentSet
from studbook.runtime.serve import Access, Address, Arrangement, Champion, Dispatcher, Limits, Model, ask, serve

PROMPT = "rev abc>"
HEADER = Header(source="studbook", version="0", environment="test", owner="tests")
_FOLDER = tempfile.TemporaryDirectory()


def kept(data: bytes) -> Artifact:
    """Bytes as a file that lies until the tests end."""
    sha256 = hashlib.sha256(data).hexdigest()
    path = Path(_FOLDER.name) / sha256
    path.write_bytes(data)
    return Artifact(sha256, len(data), path)


def founder_model(name: str = "base") -> Model:
    """A shipped founder as a model to serve."""
    data = (examples_folder() / "founders" / name / f"{name}.slm").read_bytes()
    return Model(f"{name:0<64}".encode().hex()[:64], name, kept(data), 1_700_000_000)


def long_model() -> Model:
    """The base with a context of thousands and no end token, so that it writes as long as it is let."""
    model = read_slm(founder_model().artifact.path)
    shape = model.shape
    values = {spec.name: model.dense(spec.name) for spec in shape.tensors()}
    values["tok_embeddings.weight"] = values["tok_embeddings.weight"].copy()
    values["tok_embeddings.weight"][257] = 0
    data = write_slm(dataclasses.replace(shape, max_context=8192), model.tokenizer, values)
    return Model("ab" * 32, "long", kept(data))


class House:
    """Serves what `models` and `dispatcher` say; `told` are the arguments that its one command was given.

    Attributes:
        records: What the resident set wrote.
    """

    def __init__(self, *models: Model, dispatcher: Dispatcher | None = None) -> None:
        self.models = models or (founder_model(),)
        self.dispatcher = dispatcher
        self.told: list[Mapping[str, Any]] = []
        self.records: list[ResidentSetRecord] = []
        self.set: ResidentSet | None = None

    def residents(self, budgets: Budgets) -> ResidentSet:
        arena = Arena("host", budgets.host.total)
        self.set = ResidentSet(budgets, {"host": arena}, Artifacts(), HEADER, write=self.records.append)
        return self.set

    def arrange(self) -> Arrangement:
        return Arrangement(self.models, self.dispatcher or Champion(self.models[0].revision))

    def look(self) -> bool:
        return False

    def lost(self, revision: str, error: Exception) -> None:
        self.models = tuple(model for model in self.models if model.revision != revision)

    def commands(self) -> Mapping[str, Callable[[Mapping[str, Any]], Any]]:
        return {"note": lambda arguments: self.told.append(arguments) or len(self.told)}


class Running:
    """A server that runs.

    Attributes:
        url: Its address.
        folder: Where its control socket lies.
        thread: The thread it runs in.
    """

    def __init__(self, url: str, folder: Path, thread: threading.Thread) -> None:
        self.url, self.folder, self.thread = url, folder, thread
        self.host, port = url.removeprefix("http://").rsplit(":", 1)
        self.port = int(port)

    def connect(self) -> socket.socket:
        """A raw connection."""
        return socket.create_connection((self.host, self.port), timeout=30)

    def raw(self, *data: bytes) -> bytes:
        """Everything the server says to these bytes until it closes the connection."""
        with self.connect() as there:
            try:
                for piece in data:
                    there.sendall(piece)
            except OSError:
                pass
            return self.rest(there)

    def rest(self, there: socket.socket) -> bytes:
        """What comes until the end of a connection."""
        found = b""
        try:
            while more := there.recv(65536):
                found += more
        except ConnectionError:
            pass
        return found

    def rest_of_answer(self, there: socket.socket) -> bytes:
        """An answer in one piece, on a connection that stays open."""
        found = b""
        while not found.rstrip().endswith(b"}"):
            found += there.recv(65536)
        return found

    def call(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any, Mapping[str, str]]:
        """Status, JSON (or text) and head of an answer; a body makes it a POST."""
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"} | named)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, text, head = answer.status, answer.read().decode(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                status, text, head = error.code, error.read().decode(), dict(error.headers)
        return status, json.loads(text) if head.get("content-type") == "application/json" else text, head

    def status(self) -> dict[str, Any]:
        """What the control socket says."""
        return ask(self.folder, "status")

    def idle(self) -> None:
        """Wait until nothing is written and nothing waits."""
        while (found := self.status())["running"] + found["waiting"]:
            threading.Event().wait(0.01)


def post(body: Any, path: str = "/v1/completions", *more: str) -> bytes:
    """A raw request."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *more]
    return "\r\n".join([*head, f"Content-Length: {len(data)}", "", ""]).encode() + data


@contextmanager
def running(
    folder: Path,
    house: House | None = None,
    limits: Limits | None = None,
    access: Access | None = None,
    port: int = 0,
) -> Iterator[Running]:
    """A server on a free port of loopback; stopped at the end, and whatever it died of is raised."""
    addresses: list[str] = []
    ready, died = threading.Event(), []

    def main() -> None:
        try:
            serve(
                house or House(),
                Address(port=port),
                limits or Limits(),
                access or Access("127.0.0.1", None),
                folder,
                lambda url: (addresses.append(url), ready.set())[-1],
            )
        except BaseException as error:
            died.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=main)
    thread.start()
    ready.wait()
    try:
        if addresses:
            yield Running(addresses[0], folder, thread)
    finally:
        if addresses and thread.is_alive():
            ask(folder, "stop")
        thread.join()
    if died:
        raise died[0]


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with the base founder that many tests may ask."""
    with running(tmp_path_factory.mktemp("server")) as found:
        yield found
