"""Walking everything: verify reads only and names every file that lies; ready runs the five exit criteria."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from msgspec import Struct

from studbook.errors import StudbookError, printable
from studbook.executor import in_order
from studbook.files import read_file
from studbook.lab import breeding, judging
from studbook.lab.channels import alias_content, evidence_for
from studbook.lab.desk import Desk
from studbook.lab.founding import PIN
from studbook.records import (
    AdmissionRecord,
    ArchiveRecord,
    Check,
    FailureCluster,
    LedgerEntry,
    ReadinessRecord,
    Record,
    Rung,
    Scorecard,
    SourceManifest,
    SuitesLock,
    ViabilityDecision,
    digest,
)
from studbook.records import Policy as PolicyRecord
from studbook.release import check_claim, roll_back
from studbook.viability import Baseline, decide
from studbook.workspace import marker_bytes

__all__ = ["Problem", "Verification", "readiness", "replay", "verify"]

_LIMIT = 1 << 30


class Problem(Struct, frozen=True):
    """One thing that is wrong.

    Attributes:
        where: The file.
        what: What is wrong with it.
    """

    where: str
    what: str


class Verification(Struct, frozen=True):
    """What verify found.

    Attributes:
        problems: Everything that is wrong; empty when all is well.
        entries: Ledger entries checked.
        files: Files hashed.
        size: Bytes hashed.
    """

    problems: tuple[Problem, ...]
    entries: int
    files: int
    size: int

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not self.problems


def verify(desk: Desk) -> Verification:
    """Check every file of an opened lab against the ledger, and every record against the records it cites."""
    counted = [0, 0]
    records: dict[str, Record] = {}
    problems = [
        *_check_pin(desk),
        *_check_tail(desk),
        *_check_files(desk, counted, records),
        *_check_order(desk, records),
    ]
    if not problems:
        problems += [*_check_aliases(desk), *_check_claims(desk), *_check_decisions(desk)]
    return Verification(tuple(problems), len(desk.workspace.ledger.entries), counted[0], counted[1])


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


def replay(desk: Desk, record: ViabilityDecision) -> ViabilityDecision:
    """Decide again from the records a decision cites; equal bytes or something was changed."""
    cards = dict(desk.workspace.all(Scorecard))
    champion = [cards[d] for d in record.champion_cards]
    field = []
    for standing in record.standings:
        contender = judging.contender(desk, standing.manifest, champion[0].evaluator)
        field.append(
            judging.with_cards(
                contender,
                cards[standing.development] if standing.development else None,
                cards[standing.selection] if standing.selection else None,
            )
        )
    parents = [Baseline(p, desk.name_of(p), cards[c]) for p, c in zip(record.parents, record.parent_cards, strict=True)]
    return decide(
        header=record.header,
        policy=desk.workspace.get(record.policy, PolicyRecord),
        cluster=desk.workspace.get(record.cluster, FailureCluster),
        suites=desk.workspace.get(record.suites, SuitesLock),
        contenders=field,
        champion_development=next(c for c in champion if c.role == "development"),
        champion_selection=next(c for c in champion if c.role == "selection"),
        parents=parents,
        excluded=record.excluded,
    )


def _check_pin(desk: Desk) -> Iterator[Problem]:
    pin = desk.workspace.keys.folder / PIN
    if pin.is_file() and read_file(pin, 1024).decode(errors="replace").strip() != digest(desk.workspace.root):
        yield _problem(pin, "the lab's root of keys is not the one that was pinned when the lab was made")


def _check_tail(desk: Desk) -> Iterator[Problem]:
    ledger = desk.workspace.ledger
    if ledger.torn:
        yield _problem(ledger.path, f"{ledger.torn} bytes behind the last entry are not a whole entry")


def _check_files(desk: Desk, counted: list[int], records: dict[str, Record]) -> Iterator[Problem]:
    workspace = desk.workspace
    expected = workspace.expected_files()
    ledger = workspace.ledger
    known = {*expected, ledger.path, ledger.checkpoint_path}
    known |= {workspace.alias_path(name) for name, state in desk.channels().items() if state.record}
    envelopes = {workspace.record_path(e): e for e in ledger.entries}
    check = partial(_check_file, desk, expected, envelopes, counted, records)
    for path in desk.progress.track("verifying files", sorted(expected)):
        yield from _attempt(path, partial(check, path))
    for path in _walk(workspace.path):
        if path not in known:
            yield _problem(path, "is not in the ledger; a lab holds nothing else")


def _check_file(
    desk: Desk,
    expected: Mapping[Path, str],
    envelopes: Mapping[Path, LedgerEntry],
    counted: list[int],
    records: dict[str, Record],
    path: Path,
) -> None:
    data = read_file(path, _LIMIT)
    if path.name == "studbook.json" and data != marker_bytes(desk.workspace.root.lab):
        raise StudbookError("is not this lab's marker")
    if hashlib.sha256(data).hexdigest() != expected[path]:
        raise StudbookError("is not the file that was recorded: its digest differs")
    counted[0] += 1
    counted[1] += len(data)
    if entry := envelopes.get(path):
        records[entry.record] = desk.workspace.sealed(entry).record


def _walk(lab: Path) -> Iterator[Path]:
    """Everything below the lab that is not a folder, except its ``cache``; links and devices are never followed."""
    pending = [lab]
    while pending:
        for path in sorted(pending.pop().iterdir()):
            if not stat.S_ISDIR(path.lstat().st_mode):
                yield path
            elif path != lab / "cache":
                pending.append(path)


def _check_order(desk: Desk, records: Mapping[str, Record]) -> Iterator[Problem]:
    """Every record cites only what entered before it."""
    seen: set[str] = set()
    for entry in desk.workspace.ledger.entries:
        cited = records[entry.record].references() if entry.record in records else ()
        if missing := [d for d in cited if d not in seen]:
            path = desk.workspace.record_path(entry)
            yield _problem(path, f"cites {missing[0][:16]}..., which no entry before it holds")
        seen.add(entry.record)


def _check_aliases(desk: Desk) -> Iterator[Problem]:
    for name, state in desk.channels().items():
        path = desk.workspace.alias_path(name)
        if state.record is None:
            continue
        expected = desk.workspace.alias_bytes(alias_content(name, state))
        if not path.is_file() or read_file(path, 1 << 16) != expected:
            held = state.artifact[:16] if state.artifact else "nothing"
            yield _problem(path, f"does not say what the ledger says: {name} is {held}")


def _check_claims(desk: Desk) -> Iterator[Problem]:
    claims = [(d, c.artifact.sha256, c.claim) for d, c in desk.candidates()]
    claims += [(d, a.artifact, a.claim) for d, a in desk.workspace.all(AdmissionRecord)]
    claims += [
        (d, m.artifact.sha256, m.source.claim)
        for d, m in desk.workspace.all(SourceManifest)
        if hasattr(m.source, "claim")
    ]
    for record, artifact, claim in claims:
        entry = desk.workspace.entry(record)
        assert entry is not None
        path = desk.workspace.record_path(entry)
        yield from _attempt(path, partial(_check_claim, desk, artifact, claim))


def _check_claim(desk: Desk, artifact: str, claim: Rung) -> None:
    check_claim(claim, evidence_for(desk, artifact))


def _check_decisions(desk: Desk) -> Iterator[Problem]:
    for found, record in desk.workspace.all(ViabilityDecision):
        entry = desk.workspace.entry(found)
        assert entry is not None

        def check(found: str = found, record: ViabilityDecision = record) -> None:
            if digest(replay(desk, record)) != found:
                raise StudbookError("deciding again from the records it cites gives another decision")

        yield from _attempt(desk.workspace.record_path(entry), check)


def _problem(path: Path, what: str) -> Problem:
    return Problem(printable(path), printable(what))


def _attempt(path: Path, check: Callable[[], None]) -> Iterator[Problem]:
    try:
        check()
    except StudbookError as error:
        yield _problem(path, error.message)


def _reproduces(desk: Desk) -> Check:
    names = list(dict.fromkeys(m.artifact.sha256 for _, m in desk.candidates()))
    failed = []

    def work(artifact: str) -> str:
        try:
            breeding.reproduce(desk, artifact)
        except StudbookError as error:
            return f"{desk.name_of(artifact)}: {error.message}"
        return ""

    for problem in desk.progress.count("reproducing candidates", in_order(work, names), len(names)):
        failed += [problem] if problem else []
    detail = failed[0] if failed else f"{len(names)} candidates recomputed to the same digest"
    return Check(
        name="reproduce", passed=bool(names) and not failed, detail=detail if names else "nothing was bred yet"
    )


def _rejects(desk: Desk) -> Check:
    archived = {c.manifest: c for _, a in desk.workspace.all(ArchiveRecord) for c in a.candidates}
    losers = [
        s.manifest
        for _, d in desk.workspace.all(ViabilityDecision)
        for s in d.standings
        if s.action != "promote-to-shadow"
    ]
    silent = [m for m in losers if m not in archived or not archived[m].reasons]
    if not losers:
        return Check(name="reject", passed=False, detail="no candidate was ever rejected, so rejecting is untested")
    detail = f"{len(losers)} rejections, {len(silent)} of them without archive or reason"
    return Check(name="reject", passed=not silent, detail=detail)


def _explains(desk: Desk) -> Check:
    decisions = [d for _, d in desk.workspace.all(ViabilityDecision)]
    kept = [d for d in decisions if d.action == "no-op"]
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
    return Check(name="verify", passed=found.ok, detail=first or f"{found.files} files, {found.size} bytes")


def _rolls_back(desk: Desk) -> Check:
    """Undo every move of every channel on paper, back to its first, and open what each would restore."""
    undone = 0
    try:
        for name in ("shadow", "champion"):
            for state in desk.history(name):
                if state.way_back is None or (name == "champion" and state.way_back.artifact is None):
                    continue
                restored = roll_back(desk.header, name, state, "dry run").artifact
                if restored is not None:
                    desk.model(restored)
                undone += 1
    except StudbookError as error:
        return Check(name="rollback", passed=False, detail=error.message)
    detail = f"{undone} moves undone on paper, every restored artifact opened" if undone else "nothing was released yet"
    return Check(name="rollback", passed=undone > 0, detail=detail)


_CRITERIA: tuple[Callable[[Desk], Check], ...] = (_reproduces, _rejects, _explains, _verifies, _rolls_back)
