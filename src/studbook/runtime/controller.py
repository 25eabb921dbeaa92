"""The structural controller: the slow loop that says which modules should be active, from windows of route statistics.

It only proposes; whoever holds the resident set and the partition acts, in a transaction or not at all. Pure: the same
windows give the same changes. What is decided, in this order, each with a code that says why:

========== ==================== ==========================================================================
act        reason               when
========== ==================== ==========================================================================
retire     `dominated`          another module answers all its clusters, surely better, for no more bytes
replace    `better`             the same, of an active one: the better one takes its place at once
deactivate `idle`               its share of requests was below the lower mark in every recent window
activate   `demand`             its share was above the upper mark in every recent window, and it fits
replace    `outweighed`         the same, it does not fit, and an active one had so much smaller a share
reserve    `no-room`            the same, and there is none such: nothing else is activated before it
split      `uneven`             an active module is surely worse on one of its busy clusters than on another
merge      `alike`              two active modules are between the marks, and so they are together
no-op      `steady` `cooldown`  nothing of that holds; or it does, and was changed too recently, or enough
           `budget`             was changed already
========== ==================== ==========================================================================

Hysteresis: the upper mark lies above the lower one, both must hold for ``patience`` windows, a module that was changed is
left alone for ``cooldown`` windows, and one step makes at most ``changes`` changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from typing import Literal, NamedTuple

from studbook.errors import UsageError
from studbook.records import RouteRecord
from studbook.runtime.routing.router import Candidate, Router
from studbook.statistics import Interval, wilson

__all__ = ["Change", "ClusterUse", "ControllerRule", "ModuleUse", "Window", "control", "window_of"]

_LED = frozenset(("route.led", "route.held", "route.taken-over"))
Act = Literal["activate", "deactivate", "replace", "reserve", "merge", "split", "retire", "no-op"]


class ClusterUse(NamedTuple):
    """What one module did for one cluster in a window.

    Attributes:
        cluster: The skill.
        requests: Requests it answered; of an inactive one, those it would be sent because no active one answers for them.
        probes: Labelled probes it was given.
        right: Probes it got right.
    """

    cluster: str
    requests: int
    probes: int
    right: int


class ModuleUse(NamedTuple):
    """One module in a window.

    Attributes:
        id: Id of its package.
        cost: Decoded bytes.
        active: Whether it was active at the end.
        uses: One a cluster it may answer.
    """

    id: str
    cost: int
    active: bool
    uses: tuple[ClusterUse, ...]

    @property
    def requests(self) -> int:
        """Requests of all its clusters."""
        return sum(use.requests for use in self.uses)


class Window(NamedTuple):
    """A stretch of the route log, summed up.

    Attributes:
        requests: All requests, whoever answered.
        modules: Every installed module that is not retired.
        changed: Ids that were changed at its end.
    """

    requests: int
    modules: tuple[ModuleUse, ...]
    changed: tuple[str, ...] = ()


class ControllerRule(NamedTuple):
    """When the controller acts.

    Attributes:
        budget: Decoded bytes that may be active.
        upper: Share of requests from which a module is worth activating.
        lower: Share below which an active one is not worth its bytes; smaller than ``upper``.
        patience: Windows in a row that have to agree, at least 1.
        cooldown: Windows a changed module is left alone.
        changes: Most changes of one step, at least 1.
        alpha: Error rate of each bound of a comparison.
    """

    budget: int
    upper: float = 0.1
    lower: float = 0.03
    patience: int = 2
    cooldown: int = 2
    changes: int = 2
    alpha: float = 0.01


class Change(NamedTuple):
    """One proposal.

    Attributes:
        act: What to do.
        module: Id it is done to; empty for no-op.
        other: Id that takes its place, or that it is merged with; empty for the rest.
        cluster: The cluster to split off; empty for the rest.
        reason: A code for why, ``controller.`` and the word of the table.
    """

    act: Act
    module: str
    other: str
    cluster: str
    reason: str


def window_of(
    records: Sequence[RouteRecord],
    router: Router,
    modules: Sequence[tuple[Candidate, bool]],
    probes: Mapping[tuple[str, str], tuple[int, int]],
    changed: Sequence[str] = (),
) -> Window:
    """Sum up a stretch of the route log.

    A request counts for the cluster its prompt is likest to, whoever answered it; where the log does not hold the prompt,
    for that of the rule that decided, or the only one of the module that led by the margin. Of the modules that answer for a
    cluster it counts for the one that was selected, else for the cheapest active one, else for the cheapest.

    Args:
        records: The stretch; records nobody can say the cluster of count among all requests, and for nobody.
        router: The state they were decided with.
        modules: Every installed module, and whether it is active.
        probes: Id and cluster -> probes right, probes given.
        changed: Ids that were changed at its end.
    """
    sent: Counter[tuple[str, str]] = Counter()
    for record in records:
        cluster = _asked_for(record, router, modules)
        fit = [(m, active) for m, active in modules if cluster is not None and cluster in m.clusters]
        if fit and cluster is not None:
            best, _ = min(fit, key=lambda f: (f[0].revision != record.selected, not f[1], f[0].cost, f[0].id))
            sent[best.id, cluster] += 1

    def use(name: str, cluster: str) -> ClusterUse:
        right, given = probes.get((name, cluster), (0, 0))
        return ClusterUse(cluster, sent[name, cluster], given, right)

    uses = tuple(ModuleUse(m.id, m.cost, a, tuple(use(m.id, c) for c in m.clusters)) for m, a in modules)
    return Window(len(records), uses, tuple(changed))


def _asked_for(record: RouteRecord, router: Router, modules: Sequence[tuple[Candidate, bool]]) -> str | None:
    if record.prompt is not None:
        return router.cluster(record.prompt)
    if record.rule is not None:
        return router.known.state.rules[record.rule].cluster
    answered = next((m.clusters for m, _ in modules if m.revision == record.selected), ())
    # Without a margin the likest of those that are there is chosen, whatever was asked.
    return answered[0] if len(answered) == 1 and record.reason in _LED else None


def control(windows: Sequence[Window], rule: ControllerRule) -> tuple[Change, ...]:
    """What to change after the last window.

    Args:
        windows: Oldest first; only what the last one names is looked at.
        rule: Marks, patience and budgets.

    Returns:
        At most ``rule.changes`` changes, or one no-op.

    Raises:
        UsageError: if the rule has no hysteresis or no bounds; ``controller.rule``.
    """
    _check(rule)
    if len(windows) < rule.patience:
        return (_no_op("steady"),)
    found = _wanted(windows, rule)
    if not found:
        return (_no_op("steady"),)
    recent = {name for window in windows[-rule.cooldown :] for name in window.changed} if rule.cooldown else set()
    free = [change for change in found if not {change.module, change.other} & recent]
    if not free:
        return (_no_op("cooldown"),)
    kept = _fitting(free, windows, rule)
    return tuple(kept) if kept else (_no_op("budget"),)


def _wanted(windows: Sequence[Window], rule: ControllerRule) -> list[Change]:
    """Everything that would be worth doing, most urgent first; each module once."""
    last = windows[-1]
    pooled = {m.id: _pool(windows, m.id, rule.alpha) for m in last.modules}
    shares = {m.id: _shares(windows[-rule.patience :], m.id) for m in last.modules}
    busiest = sorted(last.modules, key=lambda m: (-shares[m.id][-1], m.cost, m.id))
    found = [*_dominated(last, pooled)]
    found += [_change("deactivate", "idle", m.id) for m in busiest[::-1] if m.active and max(shares[m.id]) < rule.lower]
    found += [_change("activate", "demand", m.id) for m in busiest if not m.active and min(shares[m.id]) >= rule.upper]
    found += [change for m in busiest if m.active for change in _uneven(m, pooled[m.id], last.requests, rule)]
    found += _alike(busiest, shares, rule)
    seen: set[str] = set()
    once = []
    for change in found:
        names = {change.module, change.other} - {""}
        if not names & seen:
            once.append(change)
            seen |= names
    return once


def _fitting(wanted: Sequence[Change], windows: Sequence[Window], rule: ControllerRule) -> list[Change]:
    """The first changes that fit bytes and number; an activation without room takes a lesser one's place, or reserves."""
    cost = {m.id: m.cost for m in windows[-1].modules}
    active = {m.id for m in windows[-1].modules if m.active}
    kept: list[Change] = []
    for change in wanted:
        if len(kept) >= rule.changes:
            break
        done = change
        if change.act == "activate" and _cost(active | {change.module}, cost) > rule.budget:
            done = _instead(change.module, active, cost, windows, rule)
        elif change.act == "replace" and _cost(active - {change.module} | {change.other}, cost) > rule.budget:
            continue
        kept.append(done)
        if done.act == "reserve":
            break
        active = _after(active, done)
    return kept


def _cost(names: Set[str], cost: Mapping[str, int]) -> int:
    return sum(cost[name] for name in names)


def _after(active: Set[str], change: Change) -> set[str]:
    """Who is active after a change; merging and splitting breed first and change nothing yet."""
    match change.act:
        case "activate":
            return {*active, change.module}
        case "deactivate" | "retire":
            return {*active} - {change.module}
        case "replace":
            return {*active} - {change.module} | {change.other}
    return {*active}


def _instead(
    name: str, active: Set[str], cost: Mapping[str, int], windows: Sequence[Window], rule: ControllerRule
) -> Change:
    """The least busy active module makes room, if its share lies below by the distance of the marks; otherwise reserve."""
    recent = windows[-rule.patience :]
    most = {m: max(_shares(recent, m)) for m in active}
    wanted = min(_shares(recent, name))
    for victim in sorted(active, key=lambda m: (most[m], m)):
        fits = _cost(active - {victim} | {name}, cost) <= rule.budget
        if fits and most[victim] + rule.upper - rule.lower <= wanted:
            return _change("replace", "outweighed", victim, name)
    return _change("reserve", "no-room", name)


def _dominated(last: Window, pooled: Mapping[str, Mapping[str, Interval]]) -> list[Change]:
    """Modules somebody else beats on every cluster for no more bytes."""
    found = []
    for m in last.modules:
        better = [
            o
            for o in last.modules
            if o.id != m.id and o.cost <= m.cost and m.uses and _beats(pooled[o.id], pooled[m.id])
        ]
        if better:
            best = min(better, key=lambda o: (not o.active, o.cost, o.id))
            if m.active and not best.active:
                found.append(_change("replace", "better", m.id, best.id))
            else:
                found.append(_change("retire", "dominated", m.id))
    return found


def _beats(mine: Mapping[str, Interval], other: Mapping[str, Interval]) -> bool:
    return bool(other) and all(c in mine and mine[c].lower > other[c].upper for c in other)


def _uneven(module: ModuleUse, pooled: Mapping[str, Interval], requests: int, rule: ControllerRule) -> list[Change]:
    """The worst of the busy clusters of a module, if it is surely worse there than on its best one."""
    busy = [u.cluster for u in module.uses if u.requests >= rule.upper * requests and u.cluster in pooled]
    if len(busy) < 2:
        return []
    worst = min(busy, key=lambda c: (pooled[c].upper, c))
    if all(pooled[worst].upper >= pooled[c].lower for c in busy):
        return []
    return [Change("split", module.id, "", worst, "controller.uneven")]


def _alike(busiest: Sequence[ModuleUse], shares: Mapping[str, Sequence[float]], rule: ControllerRule) -> list[Change]:
    """The two least busy active modules, if both stand between the marks and one would do in demand."""
    quiet = [m for m in busiest if m.active and rule.lower <= max(shares[m.id]) < rule.upper]
    if (
        len(quiet) < 2
        or max(a + b for a, b in zip(shares[quiet[-1].id], shares[quiet[-2].id], strict=True)) >= rule.upper
    ):
        return []
    return [_change("merge", "alike", *sorted((quiet[-1].id, quiet[-2].id)))]


def _pool(windows: Sequence[Window], name: str, alpha: float) -> dict[str, Interval]:
    """Cluster -> bounds of the share of probes right, over all windows; none without probes."""
    counts: dict[str, list[int]] = {}
    for window in windows:
        for module in window.modules:
            for use in module.uses if module.id == name else ():
                count = counts.setdefault(use.cluster, [0, 0])
                count[0] += use.right
                count[1] += use.probes
    return {c: wilson(right, probes, alpha) for c, (right, probes) in counts.items() if probes}


def _shares(windows: Sequence[Window], name: str) -> list[float]:
    """The module's share of the requests of every window; 0 where it did not exist."""
    found = []
    for window in windows:
        requests = next((m.requests for m in window.modules if m.id == name), 0)
        found.append(requests / window.requests if window.requests else 0.0)
    return found


def _check(rule: ControllerRule) -> None:
    bounded = rule.patience >= 1 and rule.changes >= 1 and rule.cooldown >= 0 and rule.budget >= 0
    if not (0.0 <= rule.lower < rule.upper <= 1.0 and 0.0 < rule.alpha < 0.5 and bounded):
        text = (
            f"marks {rule.lower} and {rule.upper}, patience {rule.patience}, {rule.changes} changes: not a bounded rule"
        )
        advice = "Put the lower mark below the upper one, and allow at least one window and one change."
        raise UsageError(text, reason="controller.rule", advice=advice)


def _change(act: Act, word: str, module: str, other: str = "") -> Change:
    return Change(act, module, other, "", f"controller.{word}")


def _no_op(word: str) -> Change:
    return _change("no-op", word, "")
