"""What is active, and who holds it: modules are leased, all of one call or none, and nobody waits.

Everything here is done under one lock that is held for moments. What is leased is never freed: if it has to go it is
dropped, gets no new leases, and lingers until it is given back.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from studbook.errors import OutOfOrder, OverBudget
from studbook.runtime.handles import Module
from studbook.runtime.residents import Installed, Standing

__all__ = ["Entry", "Seats"]


@dataclass(eq=False)
class Entry:
    """An active package.

    Attributes:
        installed: The package.
        modules: Its copies.
        used: When it was last used; a larger number is later.
        idle: Copies that nobody holds.
        leases: Copies that somebody holds.
        leaving: Whether it is about to go, so that it gets no new leases.
    """

    installed: Installed
    modules: list[Module]
    used: int
    idle: list[Module] = field(init=False)
    leases: int = 0
    leaving: bool = False

    def __post_init__(self) -> None:
        self.idle = list(self.modules)

    @property
    def sound(self) -> bool:
        """Whether all copies can be used."""
        return all(module.sound for module in self.modules)

    @property
    def staged_bytes(self) -> int:
        """Bytes of memory that all copies hold."""
        return sum(module.staged_bytes for module in self.modules)

    def free(self) -> None:
        """Give the memory of all copies back."""
        for module in self.modules:
            module.free()


class Seats:
    """Active modules and their leases; from any thread.

    Args:
        parallel: Most modules that are leased at a time.
    """

    def __init__(self, parallel: int) -> None:
        self.parallel = parallel
        self.lock = threading.RLock()
        self.active: dict[str, Entry] = {}
        self.current: dict[str, str] = {}
        self.lingering: list[Entry] = []
        self.leased = 0
        self._clock = 0

    def entry(self, name: str) -> Entry:
        """An active package by id or revision.

        Raises:
            OutOfOrder: ``resident.inactive`` if it is not active.
        """
        entry = self.active.get(self.current.get(name, name))
        if entry is None:
            raise OutOfOrder("is not active", where=name, reason="resident.inactive", advice="Activate it first.")
        return entry

    def standing(self, pins: Iterable[str]) -> dict[str, Standing]:
        """Every active module as a plan sees it."""
        held = set(pins)
        return {
            revision: Standing(entry.installed, entry.used, entry.leases > 0, revision in held, entry.sound)
            for revision, entry in self.active.items()
        }

    def leave(self, names: Iterable[str], *, leaving: bool) -> None:
        """Say that these get no new leases, or do again."""
        for name in names:
            if name in self.active:
                self.active[name].leaving = leaving

    def put(self, installed: Installed, modules: list[Module]) -> None:
        """Make a staged package active."""
        self.active[installed.revision] = Entry(installed, modules, self._tick())

    def drop(self, names: Iterable[str]) -> None:
        """Free these; what is leased lingers until it is given back."""
        for name in names:
            entry = self.active.pop(name, None)
            if entry is None:
                continue
            if self.current.get(entry.installed.id) == name:
                del self.current[entry.installed.id]
            if entry.leases:
                entry.leaving = True
                self.lingering.append(entry)
            else:
                entry.free()

    def bytes_held(self) -> Mapping[str, int]:
        """Place -> bytes of memory that the engines in it hold."""
        held = {"host": 0, "device": 0}
        for entry in (*self.active.values(), *self.lingering):
            held[entry.installed.place] += entry.staged_bytes
        return held

    @contextmanager
    def lease(self, names: Sequence[str]) -> Iterator[tuple[Module, ...]]:
        """Modules for as long as the context lasts; see `ResidentSet.lease_all`."""
        with self.lock:
            entries = [self.entry(name) for name in names]
            self._check(entries)
            taken = [(entry, self._take(entry)) for entry in entries]
        try:
            yield tuple(module for _, module in taken)
        finally:
            try:
                for _, module in taken:
                    module.rest()
            finally:
                with self.lock:
                    for entry, module in taken:
                        self._give_back(entry, module)

    def _check(self, entries: Sequence[Entry]) -> None:
        if self.leased + len(entries) > self.parallel:
            message = f"{self.leased} modules are leased and {len(entries)} are asked for; at most {self.parallel}"
            raise OverBudget(message, reason="resident.parallel", advice="Try again when one is given back.")
        for entry in entries:
            where, wanted = entry.installed.id, sum(other is entry for other in entries)
            if entry.leaving:
                raise OverBudget("is about to go", where=where, reason="resident.leaving", advice="Activate it again.")
            if not entry.sound:
                message = "was stopped by a defect of the engine"
                raise OutOfOrder(message, where=where, reason="resident.inactive", advice="Activate it again.")
            if len(entry.idle) < wanted:
                message = f"{entry.leases} of {len(entry.modules)} copies are leased and {wanted} are asked for"
                advice = "Try again when one is given back, or install it with more copies."
                raise OverBudget(message, where=where, reason="resident.leased", advice=advice)

    def _take(self, entry: Entry) -> Module:
        entry.leases += 1
        entry.used = self._tick()
        self.leased += 1
        return entry.idle.pop()

    def _give_back(self, entry: Entry, module: Module) -> None:
        entry.leases -= 1
        entry.used = self._tick()
        entry.idle.append(module)
        self.leased -= 1
        if entry in self.lingering and not entry.leases:
            self.lingering.remove(entry)
            entry.free()

    def _tick(self) -> int:
        self._clock += 1
        return self._clock
