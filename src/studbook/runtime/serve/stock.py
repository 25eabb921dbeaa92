"""What is served, in memory: models come into the resident set under one budget, and go when nothing asks for them.

A model is staged once a worker, each copy with a session for every text that a worker writes side by side. Where that is
more than its share it gets fewer; one copy with one session is enough to be served. All that is served is pinned: nothing
that answers makes room for something else.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from studbook.errors import OutOfOrder, OverBudget, StudbookError
from studbook.models.bpe import BpeTokenizer
from studbook.models.slm import Slm, parse_slm
from studbook.models.tokenizers import Tokenizer
from studbook.runtime import arenas
from studbook.runtime.arenas import Budgets
from studbook.runtime.installing import Wish, prepare
from studbook.runtime.resident import ResidentSet
from studbook.runtime.residents import Installed
from studbook.runtime.serve.requests import Limits, Model
from studbook.runtime.sizes import Use, measure, model_of

__all__ = ["Held", "Stock", "budgets_of", "wish_for"]

# What a memory of the engine has addresses for.
_MOST_BYTES: Final = 1 << 32


class Held(NamedTuple):
    """A model in memory.

    Attributes:
        model: The model.
        installed: How it is run.
        tokenizer: Its tokenizer.
    """

    model: Model
    installed: Installed
    tokenizer: Tokenizer

    @property
    def name(self) -> str:
        """Under which the resident set has it."""
        return self.installed.revision


class Stock:
    """The models of a server in a resident set; used by one thread.

    Args:
        residents: The resident set, with nothing in it.
        limits: The server's limits.
    """

    def __init__(self, residents: ResidentSet, limits: Limits) -> None:
        self.residents, self._limits = residents, limits
        self._held: dict[str, Held] = {}
        self._known: dict[str, str] = {}

    def held(self) -> Mapping[str, Held]:
        """What is in memory now, by revision."""
        return dict(self._held)

    def bring(self, models: Sequence[Model]) -> Mapping[str, StudbookError]:
        """Bring models into memory beside what is there.

        Each may take as much of the room there is as leaves an equal share free for what comes next. Spares come last, and
        leave room for one copy of another model like the first one.

        Args:
            models: The models; the first one is needed.

        Returns:
            Revision of a model that stays out -> why.

        Raises:
            OverBudget: under the name of the limit that stands in the way of the first one.
            StudbookError: if that is not what was promised, or the engine refuses it.
        """
        first, *others = models
        self._bring(first, self._room() // 2, 0)
        kept, absent = _least(self._held[first.revision].installed), {}
        for spare in (False, True):
            some = [model for model in others if model.spare is spare]
            share, beside = self._room() // (1 + len(some)), kept if spare else 0
            for model in some:
                try:
                    self._bring(model, share, beside)
                except StudbookError as error:
                    absent[model.revision] = error
        return absent

    def tidy(self, keep: Collection[str], *, settled: bool) -> None:
        """Give up everything else; nobody may have it leased.

        Args:
            keep: Revisions that stay in memory or known.
            settled: Whether to vouch for what is left.

        Raises:
            StudbookError: if that cannot be written.
        """
        for revision in [r for r in self._held if r not in keep]:
            name = self._held[revision].name
            self.residents.unpin(name)
            self.residents.evict(name, reason="is served no longer")
            del self._held[revision]
        good, active = self.residents.known_good(), tuple(sorted(self.residents.view().active))
        if settled and (good is None or good.revisions != active):
            self.residents.settle(reason="is what is served")
        for revision in [r for r in self._known if r not in keep]:
            self._forget(revision)

    def close(self) -> None:
        """Free everything."""
        self.residents.close()

    def _bring(self, model: Model, share: int, kept: int) -> None:
        """Bring a model into memory, with as much of everything as fits its share."""
        view, held = self.residents.view(), self._held.get(model.revision)
        if held and view.active[held.name].sound:
            return
        if held is None:
            held = self._install(model, share)
            _require_room(held, self._room() - kept, kept)
        self.residents.activate([held.name], [held.name], reason="is to be served")
        self._held[model.revision] = held

    def _room(self) -> int:
        return self._limits.memory_bytes - sum(installed.total for installed in self.residents.view().standing())

    def _install(self, model: Model, share: int) -> Held:
        name = model.record or model.revision
        slm = parse_slm(self.residents.artifacts.read(model.artifact), where=model.name)
        self._forget(model.revision)
        installed = self.residents.view().installed.get(name)
        if installed is None:
            wish = wish_for(slm, self._limits, share)
            installed = prepare(model.name, name, model.artifact, smoke=model.smoke, wish=wish)
            self.residents.install(installed)
            self._known[model.revision] = name
        return Held(model, installed, slm.tokenizer)

    def _forget(self, revision: str) -> None:
        # What is known to be good stays until something else is.
        with suppress(OutOfOrder):
            if name := self._known.get(revision):
                self.residents.uninstall(name)
                del self._known[revision]


def budgets_of(limits: Limits) -> Budgets:
    """The budgets of a server's resident set: nothing is kept free for staging, for what is served never takes all."""
    room = arenas.Limits(total=limits.memory_bytes, staging=0)
    return Budgets(limits.installed, limits.models, limits.workers * limits.models, room)


def wish_for(slm: Slm, limits: Limits, share: int) -> Wish:
    """How a model shall be run within a share of the budget.

    As many texts side by side as fit it, and among such in as many copies as there can be; one at least, whether it fits
    or not. Sessions hold the model's context, and whatever text fits that or a request can be encoded.

    Args:
        slm: The model.
        limits: The server's limits.
        share: Bytes.
    """
    model, positions = model_of(slm), slm.shape.max_context
    longest = max(map(len, slm.tokenizer.words), default=1) if isinstance(slm.tokenizer, BpeTokenizer) else 1
    text_bytes = min(positions * longest, limits.request_bytes)

    def bytes_for(sessions: int) -> int:
        return measure(model, Use(positions, sessions, text_bytes, slm.shape.smoke_positions)).total

    best = (1, 1, 1)
    for copies in range(1, limits.workers + 1):
        most = min(share // copies, _MOST_BYTES)
        if sessions := bisect_right(range(1, limits.parallel + 1), most, key=bytes_for):
            best = max(best, (copies * sessions, copies, sessions))
    _, copies, sessions = best
    return Wish(sessions=sessions, copies=copies, text_bytes=text_bytes)


def _least(installed: Installed) -> int:
    """Bytes of one copy with one session."""
    size = installed.sizes
    return size.total - size.kv + size.kv // installed.use.sessions


def _require_room(held: Held, room: int, kept: int) -> None:
    if kept and (size := held.installed.total) > room:
        message = (
            f"{size} bytes would be needed, {max(room, 0)} are free beside {kept} for what replaces the first model"
        )
        advice = "Give the server more memory, or take packages out of service."
        raise OverBudget(message, where=held.model.name, reason="resident.host", advice=advice)
