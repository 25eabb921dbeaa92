"""The five exit criteria of an offline lab, run over everything it holds."""

from __future__ import annotations

from collections.abc import Callable

from studbook.errors import StudbookError
from studbook.executor import in_order
from studbook.lab import breeding
from studbook.lab.absence import withdrawn
from studbook.lab.audit import verify
from studbook.lab.checkpoints import recipe_of
from studbook.lab.desk import Desk
from studbook.lab.judge_owners import owned
from studbook.records import (
    ArchiveRecord,
    CandidateManifest,
    Check,
    LineageTemplate,
    ReadinessRecord,
    ViabilityDecision,
)
from studbook.release import roll_back

__all__ = ["readiness"]


def readiness(desk: Desk) -> ReadinessRecord:
    """Run the five exit criteria over the whole lab and put the result into the ledger."""
    ledger = desk.workspace.ledger
    entries, head = len(ledger.entries), ledger.head
    criteria = tuple(check(desk) for check in _CRITERIA)
    record = ReadinessRecord(
        header=desk.header, entries=entries, head=head, criteria=criteria, ready=all(c.passed for c in criteria)
    )
    desk.workspace.commit(record)
    return record


def _reproduces(desk: Desk) -> Check:
    bred = [m for _, m in desk.candidates()]
    gone = withdrawn(desk)
    names = [m for m in bred if not _inputs(desk, m) & gone.keys()]
    left, failed = len(bred) - len(names), []

    def work(manifest: CandidateManifest) -> str:
        try:
            breeding.reproduce_manifest(desk, manifest)
        except StudbookError as error:
            return f"{manifest.name}: {error.message}"
        return ""

    for problem in desk.progress.count("reproducing candidates", in_order(work, names), len(names)):
        failed += [problem] if problem else []
    without = f"; {left} were not, since what they were bred from was withdrawn" if left else ""
    detail = failed[0] if failed else f"{len(names)} receipts recomputed to the same digests{without}"
    if not names:
        detail = "nothing was bred yet" if not left else f"all {left} candidates were bred from what was withdrawn"
    return Check(name="reproduce", passed=bool(names) and not failed, detail=detail)


def _inputs(desk: Desk, manifest: CandidateManifest) -> set[str]:
    """Digests of what a candidate was bred from."""
    template = desk.workspace.get(manifest.template, LineageTemplate)
    recipe = recipe_of(template)
    return {template.base, *template.parents, *(recipe.sources() if recipe else ())}


def _rejects(desk: Desk) -> Check:
    archived = {c.manifest: c for _, a in desk.all(ArchiveRecord) for c in a.candidates}
    losers = [s.manifest for _, d in desk.all(ViabilityDecision) for s in d.standings if not s.won]
    silent = [m for m in losers if m not in archived or not archived[m].reasons]
    if not losers:
        return Check(name="reject", passed=False, detail="no candidate was ever rejected, so rejecting is untested")
    detail = f"{len(losers)} rejections, {len(silent)} of them without archive or reason"
    return Check(name="reject", passed=not silent, detail=detail)


def _explains(desk: Desk) -> Check:
    decisions = [d for _, d in desk.all(ViabilityDecision)]
    kept = [d for d in decisions if d.no_op.chosen]
    mute = [d for d in decisions if not any(c.isdigit() for reason in d.no_op.reasons for c in reason)]
    if not kept:
        return Check(
            name="explain", passed=False, detail="no round ended in a no-op yet, so explaining one is untested"
        )
    detail = f"{len(kept)} no-ops among {len(decisions)} decisions, {len(mute)} without numbers"
    return Check(name="explain", passed=not mute, detail=detail)


def _verifies(desk: Desk) -> Check:
    found = verify(desk)
    first = next((f"{p.where}: {p.what}" for p in found.problems), "")
    if not found.problems and not found.pinned:
        first = "all is well inside, but the root of keys is not pinned: the key folder with its pin is not here"
    detail = first or f"{found.files} files, {found.size} bytes, root of keys as pinned; {owned(desk).told}"
    return Check(name="verify", passed=found.ok and found.pinned, detail=detail[:4000])


def _rolls_back(desk: Desk) -> Check:
    """Undo every move of every channel on paper, back to its first, and open what each would restore."""
    undone = lost = 0
    gone = withdrawn(desk)
    try:
        for name in ("shadow", "canary", "champion"):
            for state in desk.history(name):
                if state.way_back is None or (name == "champion" and state.way_back.artifact is None):
                    continue
                restored = roll_back(desk.header, name, state, "dry run").artifact
                if restored in gone:
                    lost += 1
                    continue
                if restored is not None:
                    desk.model(restored)
                undone += 1
    except StudbookError as error:
        return Check(name="rollback", passed=False, detail=error.message)
    without = f"; {lost} lead back to what was withdrawn" if lost else ""
    detail = f"{undone} moves undone on paper, every restored artifact opened{without}"
    return Check(name="rollback", passed=undone > 0, detail=detail if undone or lost else "nothing was released yet")


_CRITERIA: tuple[Callable[[Desk], Check], ...] = (_reproduces, _rejects, _explains, _verifies, _rolls_back)
