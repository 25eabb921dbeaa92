"""Serving a lab: its champion and the models on trial as the request path knows them, and a running server's control."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from studbook.errors import OutOfOrder, StudbookError, UsageError
from studbook.lab.approvals import require_unrevoked
from studbook.lab.commands import Commands
from studbook.lab.desk import Desk
from studbook.lab.dispatching import TrialDispatcher
from studbook.lab.moves import Moves
from studbook.lab.trials import open_stop
from studbook.runtime.serve import Access, Address, Arrangement, Limits, Model, ask, new_key
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


def serve(moves: Moves, wanted: Serving, ready: Callable[[str], None]) -> None:
    """Serve the champion and what is on trial until told to stop; follows the channels when a command moves them.

    No person's key is needed, and none is read. What running trials saw is written before this returns.

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
    host = _Host(moves)
    host.arrange()
    try:
        run(host, wanted.address, wanted.limits, access, control_folder(moves.desk), ready)
    finally:
        moves.canaries.flush()


def control_folder(desk: Desk) -> Path:
    """Where a running server's control socket lies: beside the lock, and like it no part of what the lab holds."""
    folder = desk.workspace.path / "cache"
    folder.mkdir(exist_ok=True)
    return folder


class _Host:
    """The lab as the server sees it; the server calls it in one thread, so nobody else writes the ledger meanwhile."""

    def __init__(self, moves: Moves) -> None:
        self._desk, self._moves = moves.desk, moves
        self._held: dict[str, Model] = {}
        self._closed = ""

    def arrange(self) -> Arrangement:
        """The champion, and beside it every model on trial; what cannot be served is on trial no longer."""
        self._dispatcher = dispatcher = TrialDispatcher(self._desk, self._moves.canaries)
        self._close()
        champion, *candidates = dispatcher.models()
        models = [self._model(champion, self._since())]
        for candidate in candidates:
            try:
                models.append(self._model(candidate, 0))
            except StudbookError as error:
                dispatcher.lost(candidate, error)
        self._held = {model.revision: model for model in models}
        return Arrangement(tuple(models), dispatcher, lambda: self._closed)

    def look(self) -> bool:
        """Look at the clocks of the trials; whether one of them began or ended since."""
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

    def _model(self, artifact: str, since: int) -> Model:
        desk = self._desk
        require_unrevoked(desk, artifact)
        held = self._held.get(artifact)
        data = held.data if held else desk.workspace.blob(artifact)
        if data[:4] != b"SLM1":
            advice = f"Serve it with what knows its format: studbook export {artifact[:12]} FOLDER"
            message = "is no SLM1 model, and only those are served"
            raise UsageError(message, where=desk.name_of(artifact), advice=advice, reason="serve.format")
        return Model(artifact, desk.name_of(artifact), data, since)

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
        found: dict[str, Any] = self.ask("status")
        return found

    def reload(self) -> dict[str, Any]:
        """Have the server look at the channel again; the same answer as `status`.

        Raises:
            OutOfOrder: if no server runs.
        """
        found: dict[str, Any] = self.ask("reload")
        return found

    def stop(self) -> dict[str, Any]:
        """Have the server finish what it took and end; returns at once.

        Raises:
            OutOfOrder: if no server runs.
        """
        found: dict[str, Any] = self.ask("stop")
        return found

    @staticmethod
    def key(path: Path, name: str) -> str:
        """Make a key for a client and add its digest to a file; needs no lab, and keeps the key nowhere.

        Raises:
            UsageError: if the name is none, or has a key.
        """
        return new_key(path, name)

    def ask(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Have the server do something; what it can do beside its own is in `studbook.lab.commands`.

        Raises:
            OutOfOrder: if no server runs; ``control.nobody``.
            StudbookError: whatever the server refused with.
        """
        folder = self._desk.workspace.path / "cache"
        if not folder.is_dir():
            raise OutOfOrder("no server runs for this lab", reason="control.nobody", advice="Start one: studbook serve")
        return ask(folder, command, arguments)
