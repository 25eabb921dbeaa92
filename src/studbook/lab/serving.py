"""Serving a lab: its champion and the models on trial as the request path knows them, and a running server's control."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from studbook.errors import OutOfOrder
from studbook.lab.commands import Commands
from studbook.lab.desk import Desk
from studbook.lab.dispatching import TrialDispatcher
from studbook.lab.moves import Moves
from studbook.lab.residence import open_residents
from studbook.lab.trials import open_stop
from studbook.lab.ways import Ways
from studbook.runtime.arenas import Budgets
from studbook.runtime.resident import ResidentSet
from studbook.runtime.serve import Access, Address, Arrangement, Limits, ask, new_key
from studbook.runtime.serve import serve as run

__all__ = ["Servers", "Serving", "control_folder", "serve", "tell"]


class Serving(NamedTuple):
    """How the champion shall be served.

    Attributes:
        address: Where to listen.
        keys: The file of clients' keys; None for none, which is for this machine alone.
        limits: What the server takes on itself and what it grants.
        keep_prompts: Whether the route log keeps what was asked.
    """

    address: Address = Address()
    keys: Path | None = None
    limits: Limits = Limits()
    keep_prompts: bool = False


def serve(moves: Moves, wanted: Serving, ready: Callable[[str], None]) -> None:
    """Serve the champion and what is on trial until told to stop; follows the channels when a command moves them.

    No person's key is needed, and none is read. What running trials saw is written before this returns, and the route log
    is sealed and kept.

    Args:
        moves: The verbs of a lab that was opened for writing: until the server stops, nobody else writes.
        wanted: How it shall be served.
        ready: Called once with the address, when requests are answered.

    Raises:
        OutOfOrder: if there is no champion, or it was revoked.
        UsageError: if the champion is no SLM1 model, or nobody can listen there.
        NotAuthorised: if clients need keys, and there are none.
    """
    access = Access(wanted.address.host, wanted.keys)
    ways = Ways(moves.desk, keep_prompts=wanted.keep_prompts)
    host = _Host(moves, ways)
    try:
        host.arrange()
        run(host, wanted.address, wanted.limits, access, control_folder(moves.desk), ready)
    finally:
        try:
            moves.canaries.flush()
        finally:
            ways.close()


def control_folder(desk: Desk) -> Path:
    """Where a running server's control socket lies: beside the lock, and like it no part of what the lab holds."""
    folder = desk.workspace.path / "cache"
    folder.mkdir(exist_ok=True)
    return folder


class _Host:
    """The lab as the server sees it; the server calls it in one thread, so nobody else writes the ledger meanwhile."""

    def __init__(self, moves: Moves, ways: Ways) -> None:
        self._desk, self._moves, self._ways = moves.desk, moves, ways
        self._closed = ""

    def residents(self, budgets: Budgets) -> ResidentSet:
        """Where models lie; every change is a record in the ledger."""
        return open_residents(self._desk, (), budgets)

    def arrange(self) -> Arrangement:
        """The champion, what is on trial, and the packages that their routers choose among, as far as there is room."""
        self._dispatcher = dispatcher = TrialDispatcher(self._desk, self._moves.canaries, self._ways)
        self._close()
        return Arrangement(dispatcher.models(), dispatcher, lambda: self._closed, dispatcher.hold)

    def look(self) -> bool:
        """Look at the clocks of the trials; whether one of them began or ended since."""
        try:
            self._ways.look()
        finally:
            self._moves.canaries.look()
        return self._dispatcher.stale()

    def lost(self, revision: str, error: Exception) -> None:
        """Pause the trial of a model that does not load."""
        self._dispatcher.lost(revision, error)

    def commands(self) -> Mapping[str, Callable[[Mapping[str, Any]], Any]]:
        """What another terminal may have done; a stop counts from the moment it is in the ledger."""
        return {name: partial(self._do, act) for name, act in Commands(self._moves).handlers().items()}

    def _do(self, act: Callable[[Mapping[str, Any]], Any], arguments: Mapping[str, Any]) -> Any:
        try:
            return act(arguments)
        finally:
            self._close()

    def _close(self) -> None:
        found = open_stop(self._desk)
        self._closed = "everything was stopped by a person" if found else ""


def tell(desk: Desk, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
    """Have the server of a lab do something; what it can do beside its own is in `studbook.lab.commands`.

    Raises:
        OutOfOrder: if no server runs; ``control.nobody``.
        StudbookError: whatever the server refused with.
    """
    folder = desk.workspace.path / "cache"
    if not folder.is_dir():
        raise OutOfOrder("no server runs for this lab", reason="control.nobody", advice="Start one: studbook serve")
    return ask(folder, command, arguments)


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
        found: dict[str, Any] = tell(self._desk, "status")
        return found

    def reload(self) -> dict[str, Any]:
        """Have the server look at the channel again; the same answer as `status`.

        Raises:
            OutOfOrder: if no server runs.
        """
        found: dict[str, Any] = tell(self._desk, "reload")
        return found

    def stop(self) -> dict[str, Any]:
        """Have the server finish what it took and end; returns at once.

        Raises:
            OutOfOrder: if no server runs.
        """
        found: dict[str, Any] = tell(self._desk, "stop")
        return found

    @staticmethod
    def key(path: Path, name: str) -> str:
        """Make a key for a client and add its digest to a file; needs no lab, and keeps the key nowhere.

        Raises:
            UsageError: if the name is none, or has a key.
        """
        return new_key(path, name)
