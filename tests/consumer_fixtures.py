"""A lab that published five times, and what somebody without the lab does with it."""

from __future__ import annotations

import functools
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

from lab_fixtures import PERSON, Place
from studbook.errors import StudbookError
from studbook.lab import Lab, mirror
from studbook.lab.mirror import FolderMirror
from studbook.lab.pull import Pulled, Request

# What was published, in this order.
BASE, PROMOTED, ROTATED, BACK, FRESH = range(5)


class Shop(NamedTuple):
    """A lab and its publications.

    Attributes:
        place: The lab, after all of them.
        folders: The published folder after each.
        pin: The first root, as it was handed over.
        base: Digest of the artifact before the promotion and after the rollback.
        child: Digest of the one in between.
    """

    place: Place
    folders: tuple[Path, ...]
    pin: Path
    base: str
    child: str

    def pull(self, dest: Path, source: Path | str | int, channel: str = "champion", **more: bool) -> Pulled:
        """Pull from one of its folders, or from another place."""
        place = self.folders[source] if isinstance(source, int) else source
        return Lab.pull(Request(channel, dest, self.pin, str(place), **more))


def refused(reason: str) -> pytest.RaisesExc[StudbookError]:
    """A refusal that says where and what to do."""
    return pytest.raises(StudbookError, check=lambda e: e.reason == reason and bool(e.advice) and bool(e.where))


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but a lock's note: relative path -> bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def copied(folder: Path, target: Path) -> Path:
    """A copy of a publication to change."""
    return Path(shutil.copytree(folder, target))


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a folder, served by the standard library on this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            return None

    with answering(functools.partial(Quiet, directory=str(folder))) as address:
        yield address


@contextmanager
def answering(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server on this machine that answers as its handler does."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="session")
def shop(lived_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The small lab after a promotion, a rotation of the root and a rollback, published before and after each."""
    home = tmp_path_factory.mktemp("shop")
    place, live, folders = lived_lab.copy(home), home / "live", []

    def out(lab: Lab) -> str:
        lab.publish(live)
        folders.append(copied(live, home / f"stage-{len(folders)}"))
        return str(lab.desk.champion())

    with place.open() as lab:
        base = out(lab)
        lab.release("shadow", "champion", PERSON, "again")
        # What it was made by is offline until now, so neither channel offered it.
        lab.policies.route("blend/1", PERSON)
        child = out(lab)
        lab.keys.rotate(PERSON)
        out(lab)
        lab.rollback("champion", "it forgets")
        assert out(lab) == base != child
        # The same again in a new folder: it holds nothing but what the snapshot needs.
        live = home / "fresh"
        out(lab)
    pin = home / "root.json"
    shutil.copy(live / "roots" / "1.json", pin)
    return Shop(place, tuple(folders), pin, base, child)


def files_read(shop: Shop, folder: Path, dest: Path) -> set[str]:
    """The files of a publication that a pull of both channels asks for."""
    asked: set[str] = set()

    class Watched(FolderMirror):
        def open(self, name: str, limit: int) -> Iterator[bytes]:
            asked.add(name)
            return super().open(name, limit)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mirror, "FolderMirror", Watched)
        for channel in ("champion", "shadow"):
            shop.pull(dest, folder, channel)
    return asked
