"""The resident set: which models are in memory, under limits that are never exceeded, and a way back that is always kept.

A change is a transaction: a plan with its arithmetic, then everything new is staged beside what is there and smoked, then
its record is written, then old and new are swapped, then the old is freed. A failure before the swap frees what was
staged and nothing else. Whoever works with a module leases it: what is leased is never freed, and a lease that cannot be
had is refused at once, so nobody waits for anybody. One change at a time; leases come and go meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

from studbook.errors import OutOfOrder, OverBudget, UsageError
from studbook.records import Header, KnownGood, ResidentLine, ResidentSetRecord, digest
from studbook.runtime.arenas import Arena, Budgets
from studbook.runtime.handles import ENGINE, Artifacts, Module
from studbook.runtime.plans import Plan, plan_activation, plan_eviction, plan_restoring
from studbook.runtime.residents import Installed, View
from studbook.runtime.seats import Seats
from studbook.runtime.staging import stage

__all__ = ["ResidentSet"]


def _unwritten(_: ResidentSetRecord) -> None: ...


class ResidentSet:
    """Packages installed, modules active, modules leased: three counts, and byte budgets in one or two arenas.

    Args:
        budgets: The limits.
        arenas: Where models lie; one for every place that has limits.
        artifacts: The files that something refers to.
        header: What its records say of their origin.
        write: Given every record before what it says happens; if it raises, nothing happens. It must not change the set.
        previous: Digest of the last record before this set.
        known_good: The set that `restore` brings back, if one is known from before.
    """

    def __init__(
        self,
        budgets: Budgets,
        arenas: Mapping[str, Arena],
        artifacts: Artifacts,
        header: Header,
        *,
        write: Callable[[ResidentSetRecord], object] = _unwritten,
        previous: str | None = None,
        known_good: KnownGood | None = None,
    ) -> None:
        self.budgets, self.arenas, self.artifacts = budgets, arenas, artifacts
        self._header, self._write, self._previous, self._good = header, write, previous, known_good
        # Held through a transaction; the lock of the seats is taken inside it, for moments, and never the other way round.
        self._change = threading.Lock()
        self._seats = Seats(budgets.parallel)
        self._installed: dict[str, Installed] = {}
        self._latest: dict[str, str] = {}
        self._pins: frozenset[str] = frozenset()

    def install(self, installed: Installed) -> None:
        """Make a package known; its files are compared with their digests, and nothing is decoded.

        Raises:
            OverBudget: ``resident.installed`` if there are as many as may be.
            UsageError: if this revision is installed already.
            DigestDiffers: if a file is not what was promised.
        """
        with self._change:
            if installed.revision in self._installed:
                raise UsageError("is installed already", where=installed.id, reason="resident.twice")
            if len(self._installed) >= self.budgets.installed:
                message = f"{len(self._installed)} packages are installed; at most {self.budgets.installed}"
                advice = "Uninstall one first."
                raise OverBudget(message, where=installed.id, reason="resident.installed", advice=advice)
            held = []
            try:
                for artifact in (installed.artifact, *installed.stack):
                    held.append(self.artifacts.hold(artifact.path, artifact.sha256))
            except BaseException:
                for artifact in held:
                    self.artifacts.drop(artifact)
                raise
            with self._seats.lock:
                self._installed[installed.revision] = installed
                self._latest[installed.id] = installed.revision

    def uninstall(self, revision: str) -> None:
        """Forget a package.

        Raises:
            UsageError: if it is not installed.
            OutOfOrder: if it is in memory, or belongs to the known-good set.
        """
        with self._change, self._seats.lock:
            installed = self._installed.get(revision)
            if installed is None:
                raise UsageError(f"{revision[:12]}... is not installed", reason="resident.unknown")
            lingers = any(entry.installed is installed for entry in self._seats.lingering)
            if revision in self._seats.active or lingers or (self._good and revision in self._good.revisions):
                message = "is in memory or belongs to the known-good set"
                raise OutOfOrder(message, where=installed.id, reason="resident.in-use", advice="Evict it, and settle.")
            del self._installed[revision]
            for artifact in (installed.artifact, *installed.stack):
                self.artifacts.drop(artifact)
            others = [other.revision for other in self._installed.values() if other.id == installed.id]
            if self._latest[installed.id] == revision:
                del self._latest[installed.id]
                self._latest |= {installed.id: others[-1]} if others else {}

    def activate(
        self, names: Sequence[str], pins: Sequence[str] = (), *, reason: str = "asked for"
    ) -> ResidentSetRecord:
        """Bring packages into memory, with all they require; what is in the way and free to go makes room.

        Args:
            names: Ids, or revisions. An id stands for its latest revision, which takes the place of the one before; a
                revision comes to stand beside others of its id.
            pins: Which of them have to stay until they are unpinned.
            reason: Why, for the record.

        Raises:
            UsageError: if one is not installed.
            OutOfOrder: if something they require is not.
            OverBudget: under the name of the limit that stands in the way, or as the arena refuses.
            DigestDiffers: if a file, or what the engine computes of it, is not what was promised.
        """
        with self._change:
            wanted = [self._named(name, self._latest) for name in names]
            pinned = [self._named(name, self._latest) for name in pins]
            before = [self._seats.current.get(name) for name in names]
            replaced = [old for old, new in zip(before, wanted, strict=True) if old is not None and old != new]
            plan = self._planned(lambda view: plan_activation(view, [*wanted, *pinned], replaced, pinned))
            by_id = {name: new for name, new in zip(names, wanted, strict=True) if name != new}
            return self._carry_out(plan, by_id, reason)

    def evict(self, name: str, *, reason: str = "asked for") -> ResidentSetRecord:
        """Free a model, and all that cannot stay without it.

        Raises:
            OverBudget: ``resident.leased`` or ``resident.pinned`` if one of them is.
            OutOfOrder: if it is not active.
        """
        with self._change:
            revision = self._seats.entry(name).installed.revision
            return self._carry_out(self._planned(lambda view: plan_eviction(view, revision)), {}, reason)

    def unpin(self, name: str) -> None:
        """Let a module go again when its room is needed.

        Raises:
            OutOfOrder: if it is not active.
        """
        with self._change, self._seats.lock:
            self._pins -= {self._seats.entry(name).installed.revision}

    def settle(self, *, reason: str = "asked for") -> ResidentSetRecord:
        """Vouch for what is active: from now on `restore` brings it back, and its packages stay installed."""
        with self._change:
            names, pins = tuple(sorted(self._seats.active)), tuple(sorted(self._pins))
            current = tuple(sorted(self._seats.current.values()))
            before, self._good = self._good, KnownGood(revisions=names, pins=pins, current=current)
            try:
                record = self._record(Plan("settle", names, (), (), (), pins, False, ()), current, {}, reason)
                self._commit(record)
            except BaseException:
                self._good = before
                raise
            return record

    def known_good(self) -> KnownGood | None:
        """The set that `restore` brings back."""
        return self._good

    def restore(self, *, reason: str = "asked for") -> ResidentSetRecord:
        """Make exactly the known-good set active, whatever is active now.

        What is leased beside it gets no new leases and is freed when it is given back; where it leaves too little room it
        gets none either, so that the next call finds it free. Where both sets do not fit beside each other the present one
        goes first; should staging fail then, the known-good set can be restored again.

        Raises:
            OutOfOrder: if no set is known to be good, or one of its packages is not installed.
            OverBudget: ``resident.leased`` if what is leased leaves too little room.
            DigestDiffers: if a file, or what the engine computes of it, is not what was promised.
        """
        with self._change:
            good = self._good
            if good is None:
                raise OutOfOrder("no set is known to be good", reason="resident.known-good", advice="Settle one first.")
            for revision in good.revisions:
                self._named(revision, {})
            try:
                plan = self._planned(lambda view: plan_restoring(view, good.revisions, good.pins))
            except OverBudget:
                with self._seats.lock:
                    self._seats.leave(set(self._seats.active) - {*good.revisions}, leaving=True)
                raise
            by_id = {self._installed[revision].id: revision for revision in good.current}
            return self._carry_out(plan, by_id, reason)

    @contextmanager
    def lease(self, name: str) -> Iterator[Module]:
        """One module for as long as the context lasts, by id or revision; see `lease_all`."""
        with self.lease_all((name,)) as (module,):
            yield module

    def lease_all(self, names: Sequence[str]) -> AbstractContextManager[tuple[Module, ...]]:
        """Several modules for as long as the context lasts: all of them or none, and none is waited for.

        Nobody else gets them meanwhile, and they are not freed. Sessions that are left open are closed at the end.

        Raises:
            OutOfOrder: ``resident.inactive`` if one is not active, or was stopped by a defect.
            OverBudget: ``resident.parallel`` if too many are leased, ``resident.leased`` if all copies of one are,
                ``resident.leaving`` if one is about to go.
        """
        return self._seats.lease(names)

    def view(self) -> View:
        """What there is now."""
        with self._seats.lock:
            active, lingering = self._seats.standing(self._pins), tuple(e.installed for e in self._seats.lingering)
            current = self._latest | self._seats.current
            return View(self.budgets, dict(self._installed), active, lingering, current)

    @property
    def leased(self) -> int:
        """Modules that are leased now."""
        return self._seats.leased

    def bytes_held(self) -> Mapping[str, int]:
        """Place -> bytes of memory that the engines in it hold, as they said when they were staged."""
        with self._seats.lock:
            return self._seats.bytes_held()

    def close(self) -> None:
        """Free everything; what is leased still is freed when it is given back."""
        with self._change, self._seats.lock:
            self._seats.drop(list(self._seats.active))
            self._pins = frozenset()

    def _named(self, name: str, ids: Mapping[str, str]) -> str:
        revision = ids.get(name, name)
        if revision not in self._installed:
            raise UsageError("is not installed", where=name, reason="resident.unknown", advice="Install it first.")
        return revision

    def _planned(self, plan: Callable[[View], Plan]) -> Plan:
        """A plan of the present moment; what it gives up gets no new leases from here on."""
        with self._seats.lock:
            found = plan(self.view())
            self._seats.leave(found.gone, leaving=True)
            return found

    def _carry_out(self, plan: Plan, by_id: Mapping[str, str], reason: str) -> ResidentSetRecord:
        staged: dict[str, list[Module]] = {}
        try:
            if plan.first:
                with self._seats.lock:
                    self._seats.drop(plan.gone)
            for name in plan.brought:
                installed = self._installed[name]
                staged[name] = stage(installed, self.arenas[installed.place], self.artifacts)
            record = self._record(plan, self._current_after(plan, by_id), staged, reason)
            self._commit(record)
        except BaseException:
            for modules in staged.values():
                for module in modules:
                    module.free()
            with self._seats.lock:
                self._seats.leave(plan.gone, leaving=False)
            raise
        with self._seats.lock:
            self._seats.drop(plan.gone)
            self._seats.leave(plan.after, leaving=False)
            for name, modules in staged.items():
                self._seats.put(self._installed[name], modules)
            self._pins = frozenset(plan.pins)
            self._seats.current = {self._installed[name].id: name for name in record.current}
        return record

    def _current_after(self, plan: Plan, by_id: Mapping[str, str]) -> tuple[str, ...]:
        kept = {name: revision for name, revision in self._seats.current.items() if revision in plan.after}
        found = kept | dict(by_id)
        for revision in plan.after:
            found.setdefault(self._installed[revision].id, revision)
        return tuple(sorted(found.values()))

    def _record(
        self, plan: Plan, current: tuple[str, ...], staged: Mapping[str, list[Module]], reason: str
    ) -> ResidentSetRecord:
        with self._seats.lock:
            held = dict(self._seats.bytes_held())
            for name in plan.gone:
                entry = self._seats.active.get(name)
                if entry is not None and not entry.leases:
                    held[entry.installed.place] -= entry.staged_bytes
        for name, modules in staged.items():
            held[self._installed[name].place] += sum(module.staged_bytes for module in modules)
        lines = tuple(ResidentLine(**line._asdict()) for line in plan.lines)
        return ResidentSetRecord(
            header=self._header, previous=self._previous, engine=ENGINE, act=plan.act, reason=reason,
            before=plan.before, brought=plan.brought, dropped=plan.dropped, victims=plan.victims, after=plan.after,
            pins=plan.pins, current=current, lines=lines,
            host_bytes=held["host"], device_bytes=held["device"], known_good=self._good,
        )  # fmt: skip

    def _commit(self, record: ResidentSetRecord) -> None:
        self._write(record)
        self._previous = digest(record)
