"""What a transaction would do, with its arithmetic, before anything is taken: pure, so that it can be printed and replayed.

A plan that would exceed a limit is refused under that limit's name; see `residents` for the limits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, NoReturn

from studbook.errors import OverBudget
from studbook.runtime.residents import View, demands
from studbook.runtime.victims import Candidate, choose

__all__ = ["Act", "Line", "Plan", "plan_activation", "plan_eviction", "plan_restoring"]

Act = Literal["activate", "evict", "restore", "settle"]


class Line(NamedTuple):
    """The arithmetic of one limit: before + brought - freed <= most.

    Attributes:
        limit: Its name.
        before: What is taken of it.
        brought: What is added.
        freed: What is given back.
        most: The limit.
    """

    limit: str
    before: int
    brought: int
    freed: int
    most: int

    @property
    def after(self) -> int:
        """What is taken in the end."""
        return self.before + self.brought - self.freed

    def __str__(self) -> str:
        return f"{self.limit}: {self.before} + {self.brought} - {self.freed} = {self.after}, at most {self.most}"


@dataclass(frozen=True)
class Plan:
    """What a transaction would do; printed, it is the arithmetic.

    Attributes:
        act: What was asked for.
        before: Revisions that are active.
        brought: Revisions that will be staged, what is required first.
        dropped: Revisions that are given up because something takes their place or somebody asked for it.
        victims: Revisions that are given up because something was short.
        pins: Revisions that have to stay from then on.
        first: Whether what is dropped goes before the new is staged: in restoring alone, where both do not fit.
        lines: The arithmetic, a line a limit.
    """

    act: Act
    before: tuple[str, ...]
    brought: tuple[str, ...]
    dropped: tuple[str, ...]
    victims: tuple[str, ...]
    pins: tuple[str, ...]
    first: bool
    lines: tuple[Line, ...]

    @property
    def gone(self) -> tuple[str, ...]:
        """All that are given up."""
        return (*self.dropped, *self.victims)

    @property
    def after(self) -> tuple[str, ...]:
        """Revisions that will be active, sorted."""
        return tuple(sorted({*self.before} - {*self.gone} | {*self.brought}))

    def __str__(self) -> str:
        names = {"brought": self.brought, "dropped": self.dropped, "victims": self.victims}
        heads = [f"{name}: {', '.join(r[:12] for r in some) or 'none'}" for name, some in names.items()]
        return "\n".join([self.act, *heads, *map(str, self.lines)])


def plan_activation(view: View, wanted: Iterable[str], replaced: Iterable[str], pins: Iterable[str]) -> Plan:
    """Make modules active, with all they require.

    Args:
        view: What there is.
        wanted: Their revisions.
        replaced: Active revisions whose place they take.
        pins: Which of them have to stay from then on.

    Raises:
        OutOfOrder: if something they require is not installed.
        OverBudget: under the name of the limit that stands in the way; ``resident.leased`` or ``resident.pinned`` where
            it would suffice if those could go.
    """
    wanted = view.required(wanted)
    brought = [name for name in wanted if name not in view.active or not view.active[name].sound]
    dropped = [name for name in replaced if name not in wanted] + [name for name in brought if name in view.active]
    _refuse_held(view, dropped, "take the place of")
    pinned = {name for name, s in view.active.items() if s.pinned and name not in dropped}
    pinned |= {*pins} | {
        name for name in wanted if any(view.active[d].pinned and _same(view, d, name) for d in dropped)
    }
    victims = _victims(view, wanted, frozenset(dropped), frozenset(view.required(sorted(pinned))))
    plan = _plan(view, "activate", brought, dropped, sorted(victims), sorted(pinned))
    _check_room(view, plan)
    return plan


def plan_eviction(view: View, revision: str) -> Plan:
    """Give a module up, with all that cannot stay without it.

    Raises:
        OverBudget: if one of them is leased or pinned.
    """
    dropped = sorted(view.falls(revision))
    _refuse_held(view, dropped, "evict")
    for name in dropped:
        if view.active[name].pinned:
            _refuse("pinned", f"{view.active[name].installed.id} is pinned", "Take the pin off first.")
    pins = sorted(name for name, s in view.active.items() if s.pinned)
    return _plan(view, "evict", [], dropped, [], pins)


def plan_restoring(view: View, target: Iterable[str], pins: Iterable[str]) -> Plan:
    """Make exactly these modules active.

    What is leased and does not belong to them lingers until it is given back. Where old and new do not fit beside each
    other the old go first: what is left is what was not known to be good.

    Raises:
        OverBudget: ``resident.leased`` if what lingers leaves too little room.
    """
    target = view.required(target)
    brought = [name for name in target if name not in view.active or not view.active[name].sound]
    dropped = [name for name in view.active if name not in target or name in brought]
    plan = _plan(view, "restore", brought, dropped, [], sorted(pins))
    lingering = [*view.lingering, *(view.active[name].installed for name in dropped if view.active[name].leased)]
    if over := view.over([*(view.installed[name] for name in plan.after), *lingering]):
        _refuse_limit(view, over, "leased")
    first = any(line.before + line.brought > line.most for line in plan.lines if line.limit.endswith(".total"))
    return plan if not first else _plan(view, "restore", brought, dropped, [], sorted(pins), first=True)


def _same(view: View, one: str, other: str) -> bool:
    return view.active[one].installed.id == view.installed[other].id


def _victims(view: View, wanted: tuple[str, ...], dropped: frozenset[str], pinned: frozenset[str]) -> frozenset[str]:
    lingering = list(view.lingering)
    stays = {name for name in view.active if name not in dropped}
    held = set(view.required(sorted(name for name in stays if view.active[name].leased)))
    for keep, reason in (({*wanted}, ""), ({*wanted} | pinned, "pinned"), ({*wanted} | pinned | held, "leased")):
        there = [view.installed[name] for name in sorted(keep)] + (lingering if reason == "leased" else [])
        if over := view.over(there):
            _refuse_limit(view, over, reason)
    short = view.over([*(view.installed[name] for name in sorted(stays | {*wanted})), *lingering])
    kept = {*wanted} | pinned | held
    free = {name: view.falls(name) - dropped for name in sorted(stays - kept)}
    candidates = [
        Candidate(name, view.installed[name].demand, view.installed[name].total, view.active[name].used, falls)
        for name, falls in free.items()
        if not falls & kept
    ]
    found = choose(candidates, short)
    if found is None:
        _refuse_limit(view, short, "leased" if held else "pinned" if pinned else "")
    return found


def _plan(
    view: View,
    act: Act,
    brought: list[str],
    dropped: list[str],
    victims: list[str],
    pins: list[str],
    *,
    first: bool = False,
) -> Plan:
    new = [view.installed[name] for name in brought]
    gone = [view.active[name].installed for name in (*dropped, *victims) if not view.active[name].leased]
    there = view.standing()
    before, more, less, most = demands(there), demands(new), demands(gone), view.most()
    lines = [Line(k, before.get(k, 0), more.get(k, 0), less.get(k, 0), most[k]) for k in most]
    for place, limits in view.budgets.limits().items():
        # While both stand: nothing is given back before the new has been smoked, unless the old goes first.
        sizes = [sum(i.total for i in some if i.place == place) for some in (there, new, gone if first else [])]
        lines.append(Line(f"{place}.total", sizes[0], sizes[1], sizes[2], limits.total))
    before_names = tuple(sorted(view.active))
    return Plan(act, before_names, tuple(brought), tuple(dropped), tuple(victims), tuple(pins), first, tuple(lines))


def _check_room(view: View, plan: Plan) -> None:
    for line in plan.lines:
        if line.limit.endswith(".total") and line.after > line.most:
            place = line.limit.split(".")[0]
            message = f"no room to stage beside what is resident: {line}"
            _refuse(place, message, "Activate fewer at a time, or keep more of the budget for staging.")


def _refuse_held(view: View, names: Iterable[str], what: str) -> None:
    for name in names:
        if view.active[name].leased:
            message = f"cannot {what} {view.active[name].installed.id}: it is leased"
            _refuse("leased", message, "Wait until the lease is given back.")


def _refuse_limit(view: View, over: Mapping[str, int], reason: str) -> NoReturn:
    limit, amount = next(iter(over.items()))
    most = view.most().get(limit, 0)
    name = reason or ("router" if limit.endswith(".router") else limit.split(".")[0])
    message = f"{limit}: {most + amount} would be needed, at most {most}"
    if reason:
        message = f"{message}; what is {reason} cannot go"
    _refuse(name, message, "Ask for less, evict something, or have the budget raised.")


def _refuse(name: str, message: str, advice: str) -> NoReturn:
    raise OverBudget(message, reason=f"resident.{name}", advice=advice)
