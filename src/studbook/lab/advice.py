"""What the slow loop would change: windows of the route log, summed up and given to the structural controller."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from msgspec import Struct

from studbook.errors import OutOfOrder
from studbook.lab.desk import Desk
from studbook.lab.package_life import usable
from studbook.lab.segments import all_segments, open_router
from studbook.records import ResidentSetRecord, RouteRecord, Scorecard, SkillPackage
from studbook.runtime.controller import ControllerRule, Window, control, window_of
from studbook.runtime.routing.router import Candidate

__all__ = ["Advice", "Proposal", "advise"]


class Proposal(Struct, frozen=True):
    """One change that the controller would make.

    Attributes:
        act: What to do: ``activate``, ``deactivate``, ``replace``, ``reserve``, ``merge``, ``split``, ``retire``, ``no-op``.
        package: Id of the package it is done to; empty for no-op.
        other: Id that takes its place, or that it is merged with; empty for the rest.
        cluster: The cluster to split off; empty for the rest.
        reason: A code for why.
    """

    act: str
    package: str
    other: str
    cluster: str
    reason: str


class Advice(Struct, frozen=True):
    """What the controller says of the present.

    Attributes:
        windows: Windows it looked at.
        requests: Requests in them.
        unknown: How many of these nobody can say the cluster of.
        budget: Decoded bytes that may be active.
        changes: What it would do, most urgent first; one no-op where nothing.
    """

    windows: int
    requests: int
    unknown: int
    budget: int
    changes: tuple[Proposal, ...]


def advise(desk: Desk, size: int = 500, budget: int | None = None) -> Advice:
    """What to change about the packages that are active, after the newest requests; nothing is changed.

    Only requests that the newest router state decided are looked at. How good a package is at a cluster is what its own
    scorecards say; one with adapters on top has none.

    Args:
        desk: The lab.
        size: Requests of a window.
        budget: Decoded bytes that may be active; what is active now by default, or all there is where nothing is.

    Raises:
        OutOfOrder: if no request was routed yet; ``route.none``.
        StudbookError: any of its kinds, if the log does not hold.
    """
    records = list(chain.from_iterable(segment.records for segment, _ in all_segments(desk)))
    if not records:
        advice = "Deploy a router with a channel, and serve it: docs/runtime.md"
        raise OutOfOrder("no request was routed yet", where="route log", advice=advice, reason="route.none")
    newest = (records[-1].state, records[-1].threshold)
    records = [record for record in records if (record.state, record.threshold) == newest]
    modules = _modules(desk)
    active = [module.cost for module, is_active in modules if is_active]
    most = sum(active or [module.cost for module, _ in modules]) if budget is None else budget
    rule = ControllerRule(budget=most)
    windows = _windows(desk, records, modules, size, rule.patience)
    found = control(windows, rule)
    seen = sum(window.requests for window in windows)
    counted = sum(module.requests for window in windows for module in window.modules)
    changes = tuple(Proposal(c.act, c.module, c.other, c.cluster, c.reason) for c in found)
    return Advice(len(windows), seen, seen - counted, most, changes)


def _windows(
    desk: Desk, records: Sequence[RouteRecord], modules: Sequence[tuple[Candidate, bool]], size: int, most: int
) -> list[Window]:
    """The newest whole windows, oldest first."""
    router = open_router(desk, records[-1].state, records[-1].threshold)
    probes = _probes(desk, [candidate for candidate, _ in modules])
    whole = min(most, len(records) // size)
    first = len(records) - whole * size
    parts = [records[first + n * size : first + (n + 1) * size] for n in range(whole)]
    return [window_of(part, router, modules, probes) for part in parts]


def _modules(desk: Desk) -> list[tuple[Candidate, bool]]:
    """Every package that may be taken up, and whether the last change of the resident set left it active."""
    changes = [record for _, record in desk.all(ResidentSetRecord)]
    active = set(changes[-1].after) if changes else set()
    found = []
    for one in usable(desk)[0]:
        cost = int(one.package.envelope.decoded_bytes.value)
        found.append((Candidate(one.package.id, one.revision, one.package.clusters, cost), one.revision in active))
    return found


def _probes(desk: Desk, modules: Sequence[Candidate]) -> dict[tuple[str, str], tuple[int, int]]:
    """Id and cluster -> items right and items given, by the scorecards that a package cites."""
    found = {}
    for module in modules:
        package = desk.workspace.get(module.revision, SkillPackage)
        if package.stack:
            continue
        for digest in package.evidence.scorecards:
            for cluster, result in desk.workspace.get(digest, Scorecard).tasks().items():
                found[module.id, cluster] = (result.correct.count("1"), len(result.correct))
    return found
