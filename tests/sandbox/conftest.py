"""Worker servers that can import a module of the tests, with and without the kernel's measures; one of each a file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from studbook.sandbox import Answer, Limits, client, run_worker

LIMITS = Limits(seconds=20, memory_bytes=4 << 30, file_bytes=1 << 20)
# What a kernel without Landlock and seccomp leaves of the sandbox.
PORTABLE = "from studbook.sandbox import server\nserver.lock_down = server.own_network = lambda *_: ()\n"
MAIN = "import sys; sys.path.insert(0, {code!r})\nfrom studbook.sandbox.server import main\n{before}main()\n"

Run = Callable[..., Answer]


def serve(code: Path, source: str, before: str = "") -> client._Server:
    """A server that has the source as the module ``inmate``."""
    (code / "inmate.py").write_text(source)
    launcher = code / "python"
    # No shell between: it would add names of its own to the environment.
    launcher.write_text(f"#!{sys.executable} -IB\n{MAIN.format(code=str(code), before=before)}")
    launcher.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(launcher))
        return client._Server()


@pytest.fixture(scope="module")
def inmate(request: pytest.FixtureRequest) -> str:
    """The source of the module's workers."""
    source: str = request.module.SOURCE
    return source


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, inmate: str) -> Iterator[client._Server]:
    server = serve(tmp_path_factory.mktemp("locked"), inmate)
    yield server
    server.close()


@pytest.fixture(scope="module")
def open_(tmp_path_factory: pytest.TempPathFactory, inmate: str) -> Iterator[client._Server]:
    server = serve(tmp_path_factory.mktemp("open"), inmate, PORTABLE)
    yield server
    server.close()


def runner(server: client._Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    def run(act: str, limits: Limits = LIMITS, reads: tuple[Path, ...] = (), **more: object) -> Answer:
        monkeypatch.setattr(client, "_current", [server])
        place = folder / act
        place.mkdir(exist_ok=True)
        return run_worker("inmate", {"act": act, **more}, place, limits, reads)

    return run


@pytest.fixture
def run(locked: client._Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run one act in a worker with every measure."""
    return runner(locked, tmp_path, monkeypatch)


@pytest.fixture
def run_portably(open_: client._Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run one act in a worker with what every system offers."""
    return runner(open_, tmp_path, monkeypatch)
