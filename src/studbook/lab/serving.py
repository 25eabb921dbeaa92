"""Serving the champion: what the request path may know of the lab, and a second terminal's way to a running server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from studbook.errors import OutOfOrder, UsageError
from studbook.lab.approvals import require_unrevoked
from studbook.lab.desk import Desk
from studbook.runtime.serve import Access, Address, Arrangement, Champion, Limits, Model, ask, new_key
from studbook.runtime.serve import serve as run

__all__ = ["Servers", "Serving", "control_folder", "serve"]


class Serving(NamedTuple):
    """How the champion shall be served.

    Attributes:
        address: Where to listen.
        keys: The file of clients' keys; None for none, which is for this machine alone.
        limits: What the server takes on itself and what it grants.
    """

    address: Address = Address()
    keys: Path | None = None
    limits: Limits = Limits()


def serve(desk: Desk, wanted: Serving, ready: Callable[[str], None]) -> None:
    """Serve the champion until told to stop; follows the channel when a command moves it.

    No person's key is needed, and none is read.

    Args:
        desk: The lab, opened for writing: until the server stops, nobody else writes.
        wanted: How it shall be served.
        ready: Called once with the address, when requests are answered.

    Raises:
        OutOfOrder: if there is no champion, or it was revoked.
        UsageError: if the champion is no SLM1 model, or nobody can listen there.
        NotAuthorised: if clients need keys, and there are none.
    """
    access = Access(wanted.address.host, wanted.keys)
    host = _Host(desk)
    host.arrange()
    run(host, wanted.address, wanted.limits, access, control_folder(desk), ready)


def control_folder(desk: Desk) -> Path:
    """Where a running server's control socket lies: beside the lock, and like it no part of what the lab holds."""
    folder = desk.workspace.path / "cache"
    folder.mkdir(exist_ok=True)
    return folder


class _Host:
    """The lab as the server sees it; the server calls it in one thread of its own."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._held: Model | None = None

    def arrange(self) -> Arrangement:
        """The champion, which answers everything."""
        desk = self._desk
        artifact = desk.champion()
        require_unrevoked(desk, artifact)
        if self._held is None or self._held.revision != artifact:
            self._held = Model(artifact, desk.name_of(artifact), self._bytes(artifact), self._since())
        return Arrangement((self._held,), Champion(artifact))

    def commands(self) -> Mapping[str, Callable[[Mapping[str, Any]], Any]]:
        """Nothing but what every server knows."""
        return {}

    def _bytes(self, artifact: str) -> bytes:
        data = self._desk.workspace.blob(artifact)
        if data[:4] != b"SLM1":
            advice = f"Serve it with what knows its format: studbook export {artifact[:12]} FOLDER"
            message = "is no SLM1 model, and only those are served"
            raise UsageError(message, where=self._desk.name_of(artifact), advice=advice, reason="serve.format")
        return data

    def _since(self) -> int:
        record = self._desk.channels()["champion"].record
        entry = self._desk.workspace.entry(record) if record else None
        return int(datetime.fromisoformat(entry.time).timestamp()) if entry else 0


class Servers:
    """The running server of a lab, from another terminal.

    Args:
        desk: The lab, opened for reading.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def status(self) -> dict[str, Any]:
        """What is served, where, and how much waits.

        Raises:
            OutOfOrder: if no server runs.
        """
        return self._ask("status")

    def reload(self) -> dict[str, Any]:
        """Have the server look at the channel again; the same answer as `status`.

        Raises:
            OutOfOrder: if no server runs.
        """
        return self._ask("reload")

    def stop(self) -> dict[str, Any]:
        """Have the server finish what it took and end; returns at once.

        Raises:
            OutOfOrder: if no server runs.
        """
        return self._ask("stop")

    @staticmethod
    def key(path: Path, name: str) -> str:
        """Make a key for a client and add its digest to a file; needs no lab, and keeps the key nowhere.

        Raises:
            UsageError: if the name is none, or has a key.
        """
        return new_key(path, name)

    def _ask(self, command: str) -> dict[str, Any]:
        folder = self._desk.workspace.path / "cache"
        if not folder.is_dir():
            raise OutOfOrder("no server runs for this lab", reason="control.nobody", advice="Start one: studbook serve")
        found: dict[str, Any] = ask(folder, command)
        return found
