"""What there is when a plan is made: installed packages, active modules, and what each takes of which limit.

A limit is a name and a most: ``active`` counts modules; ``host.weights``, ``host.kv``, ``host.scratch`` and their sum
``host.specialists`` count bytes between transactions, ``host.router`` those of routers, ``host.total`` those of all while
the new stand beside the old; ``device`` likewise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from studbook.errors import OutOfOrder
from studbook.records import LogitDigest
from studbook.runtime.arenas import Budgets, Place
from studbook.runtime.handles import Artifact
from studbook.runtime.sizes import Sizes, Use

__all__ = ["Installed", "Standing", "View", "demands"]


@dataclass(frozen=True)
class Installed:
    """A package as the resident set needs it; nothing of it is decoded.

    Attributes:
        id: Id of the package.
        revision: Digest of its record.
        artifact: The model's file.
        stack: Adapter packages on it, in order.
        base: Digest of the f32 model that the packages on top name; None where there is no stack.
        use: What may be asked of it.
        smoke: Logits of what is staged, packages on top included.
        sizes: What one copy of it takes.
        requires: Ids of packages it does not answer without.
        place: Where it runs.
        router: Whether its bytes are a router's.
        copies: How often it is staged; as many may be leased at a time.
    """

    id: str
    revision: str
    artifact: Artifact
    use: Use
    smoke: LogitDigest
    sizes: Sizes
    stack: tuple[Artifact, ...] = ()
    base: str | None = None
    requires: tuple[str, ...] = ()
    place: Place = "host"
    router: bool = False
    copies: int = 1

    @property
    def total(self) -> int:
        """Bytes of all copies."""
        return self.copies * self.sizes.total

    @cached_property
    def demand(self) -> Mapping[str, int]:
        """Limit -> what it takes of it between transactions."""
        if self.router:
            return {"active": 1, f"{self.place}.router": self.total}
        parts = {"weights": self.sizes.weights, "kv": self.sizes.kv, "scratch": self.sizes.scratch}
        bytes_of = {f"{self.place}.{name}": self.copies * size for name, size in parts.items()}
        return {"active": 1, f"{self.place}.specialists": self.total, **bytes_of}


class Standing(NamedTuple):
    """An active module as a plan sees it.

    Attributes:
        installed: Its package.
        used: When it was last used; a larger number is later.
        leased: Whether somebody holds it.
        pinned: Whether it has to stay.
        sound: Whether it can be used.
    """

    installed: Installed
    used: int
    leased: bool
    pinned: bool
    sound: bool


class View(NamedTuple):
    """What there is when a plan is made.

    Attributes:
        budgets: The limits.
        installed: Packages by revision.
        active: Modules by revision.
        lingering: What was dropped while it was leased and has not been given back yet.
        current: Id -> the revision that the id stands for.
    """

    budgets: Budgets
    installed: Mapping[str, Installed]
    active: Mapping[str, Standing]
    lingering: tuple[Installed, ...]
    current: Mapping[str, str]

    def required(self, revisions: Iterable[str]) -> tuple[str, ...]:
        """These and all they require, what is required first.

        Raises:
            OutOfOrder: if something they require is not installed.
        """
        found: dict[str, None] = {}
        asked = list(revisions)
        chosen = dict(self.current) | {self.installed[revision].id: revision for revision in asked}
        seen: set[str] = set()

        def visit(revision: str) -> None:
            if revision in seen:
                return
            seen.add(revision)
            for name in self.installed[revision].requires:
                if name not in chosen:
                    message = f"requires {name}, which is not installed"
                    where = self.installed[revision].id
                    raise OutOfOrder(message, where=where, reason="resident.requires", advice="Install it first.")
                visit(chosen[name])
            found[revision] = None

        for revision in asked:
            visit(revision)
        return tuple(found)

    def falls(self, revision: str) -> frozenset[str]:
        """An active module and all active ones that cannot stay without it."""
        found = {revision}
        grows = True
        while grows:
            ids = {
                self.active[name].installed.id for name in found if self.current[self.active[name].installed.id] == name
            }
            more = {name for name, s in self.active.items() if name not in found and ids & set(s.installed.requires)}
            found |= more
            grows = bool(more)
        return frozenset(found)

    def over(self, some: Iterable[Installed]) -> dict[str, int]:
        """Limit -> by how much these together exceed it; empty if by nothing."""
        most, taken = self.most(), demands(some)
        return {limit: amount - most.get(limit, 0) for limit, amount in taken.items() if amount > most.get(limit, 0)}

    def standing(self) -> list[Installed]:
        """All that takes memory now."""
        return [*(s.installed for s in self.active.values()), *self.lingering]

    def most(self) -> Mapping[str, int]:
        """Limit -> most, between transactions."""
        bytes_of = {
            f"{place}.{name}": most
            for place, limits in self.budgets.limits().items()
            for name, most in limits.most().items()
        }
        return {"active": self.budgets.active, **bytes_of}


def demands(some: Iterable[Installed]) -> dict[str, int]:
    """Limit -> what these take of it together."""
    total: dict[str, int] = {}
    for installed in some:
        for limit, amount in installed.demand.items():
            total[limit] = total.get(limit, 0) + amount
    return total
