"""Walking everything: verify reads only, and names every file that lies."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from msgspec import Struct

from studbook.errors import NotAuthorised, StudbookError, printable
from studbook.files import read_file
from studbook.lab.absence import absent
from studbook.lab.channels import alias_content
from studbook.lab.desk import Desk
from studbook.lab.founding import PIN
from studbook.lab.package_host import host_files
from studbook.lab.pending import read_waiting, waiting
from studbook.lab.replay import check_record
from studbook.lab.routes import Routes
from studbook.lab.segments import loose_files, routes_folder
from studbook.lab.voided import in_force, was_in_order
from studbook.records import LedgerEntry
from studbook.seal import Sealed
from studbook.workspace import MARKER, Ahead, check_references, marker_bytes

__all__ = ["Absent", "Problem", "Verification", "Void", "verify"]

_LIMIT = 1 << 16
# How readers say that a file is not there.
_MISSING = ("file.missing", "digest.missing")


class Problem(Struct, frozen=True):
    """One thing that is wrong.

    Attributes:
        where: The file.
        what: What is wrong with it.
    """

    where: str
    what: str


class Absent(Struct, frozen=True):
    """One thing that cannot be looked at because bytes were deleted with leave.

    Attributes:
        where: The file that is gone, or the record that was not checked whole.
        what: By which record, and whether it can be made again.
    """

    where: str
    what: str


class Void(Struct, frozen=True):
    """One record that counts no longer, and that nothing in force rests on.

    Attributes:
        where: Its file.
        what: Which revoked key signed it; or what of it does not hold, now that a record it rests on is void.
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
        pinned: Whether the first root of keys was compared with a pin kept outside the lab; without one, a lab that was
            signed anew under other keys looks just as well.
        witnessed: How many entries a witness outside the lab saw; None without one, and then a lab that was restored
            from an old copy looks just as well.
        absent: Files that are gone by a record's leave, and records whose check needs them; neither is a problem.
        void: Records that a revoked key signed, and those that were in order until these were voided; no problem
            either, as long as no channel rests on them.
    """

    problems: tuple[Problem, ...]
    entries: int
    files: int
    size: int
    pinned: bool
    witnessed: int | None
    absent: tuple[Absent, ...]
    void: tuple[Void, ...]

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not self.problems


def verify(desk: Desk) -> Verification:
    """Check every file of an opened lab against the ledger, and every record against the records it cites."""
    counted = [0, 0]
    opened: dict[str, Sealed] = {}
    gone: list[Absent] = []
    void: list[Void] = []
    ledger = desk.workspace.ledger
    problems = [
        *_check_pin(desk),
        *_check_tail(desk),
        *_check_witness(desk),
        *_check_files(desk, counted, opened, gone, void),
        *_check_order(desk, opened),
    ]
    if not problems:
        problems += [*_check_aliases(desk), *_check_meaning(desk, opened, gone, void), *_check_routes(desk)]
    pinned = (desk.workspace.keys.folder / PIN).is_file()
    entries = len(ledger.entries)
    files, size = counted
    return Verification(tuple(problems), entries, files, size, pinned, ledger.witnessed, tuple(gone), tuple(void))


def _check_pin(desk: Desk) -> Iterator[Problem]:
    pin = desk.workspace.keys.folder / PIN
    if pin.is_file() and read_file(pin, 1024).decode(errors="replace").strip() != desk.entries()[0].record:
        yield _problem(pin, "the lab's root of keys is not the one that was pinned when the lab was made")


def _check_tail(desk: Desk) -> Iterator[Problem]:
    ledger = desk.workspace.ledger
    if ledger.torn:
        yield _problem(ledger.path, f"{ledger.torn} bytes behind the last entry are not a whole entry")


def _check_witness(desk: Desk) -> Iterator[Problem]:
    if problem := desk.workspace.ledger.witness_problem:
        yield Problem(printable(problem.where), printable(problem.message))


def _check_files(
    desk: Desk, counted: list[int], opened: dict[str, Sealed], gone: list[Absent], void: list[Void]
) -> Iterator[Problem]:
    workspace = desk.workspace
    expected = {**workspace.expected_files(), **host_files(desk)}
    ledger = workspace.ledger
    known = {*expected, ledger.path, ledger.checkpoint_path}
    known |= {workspace.alias_path(name) for name, state in desk.channels().items() if state.record}
    pending = waiting(desk).values()
    known |= {*pending, *loose_files(workspace.path)}
    envelopes = {workspace.record_path(e): e for e in ledger.entries}
    left = {workspace.blob_path(digest): why for digest, why in absent(desk).items()}
    gone += [Absent(printable(path), why) for path, why in sorted(left.items())]
    paths = sorted(expected.keys() - left.keys(), key=str)
    plain = [path for path in paths if path not in envelopes]
    found: dict[Path, str] = {}
    ahead = workspace.ahead or Ahead(workspace.path)
    try:
        for path in desk.progress.track("verifying files", [*envelopes, *plain]):
            entry = envelopes.get(path)
            check = (
                partial(_check_envelope, desk, entry, counted, opened, void)
                if entry
                else partial(_check_plain, desk, path, expected[path], counted, ahead)
            )
            for problem in _attempt(path, check):
                found[path] = problem.what
    finally:
        if ahead is not workspace.ahead:
            ahead.close()
    yield from (_problem(path, found[path]) for path in paths if path in found)
    for path in pending:
        yield from _attempt(path, partial(read_waiting, path))
    named = set(map(str, known))
    for found_path in _walk(workspace.path):
        if found_path not in named:
            yield _problem(Path(found_path), "is not in the ledger; a lab holds nothing else")


def _check_envelope(
    desk: Desk, entry: LedgerEntry, counted: list[int], opened: dict[str, Sealed], void: list[Void]
) -> None:
    try:
        opened[entry.record] = desk.workspace.sealed(entry)
    except NotAuthorised as error:
        if error.reason != "authority.revoked":
            raise
        void.append(Void(printable(desk.workspace.record_path(entry)), printable(error.message)))
    counted[0] += 1
    counted[1] += entry.envelope.size


def _check_plain(desk: Desk, path: Path, sha256: str, counted: list[int], ahead: Ahead) -> None:
    if path.name == MARKER and read_file(path, _LIMIT) != marker_bytes(desk.workspace.root.lab, desk.workspace.format):
        raise StudbookError("is not this lab's marker")
    found, size = ahead.take(path)
    if found != sha256:
        raise StudbookError("is not the file that was recorded: its digest differs")
    counted[0] += 1
    counted[1] += size


def _walk(lab: Path) -> Iterator[str]:
    """Everything below the lab that is not a folder, except its ``cache``; links and devices are never followed."""
    pending = [str(lab)]
    while pending:
        with os.scandir(pending.pop()) as inside:
            for entry in sorted(inside, key=lambda e: e.name):
                if not entry.is_dir(follow_symlinks=False):
                    yield entry.path
                elif entry.path != str(lab / "cache"):
                    pending.append(entry.path)


def _check_order(desk: Desk, opened: Mapping[str, Sealed]) -> Iterator[Problem]:
    """Every record cites only what entered before it."""
    seen: set[str] = set()
    for entry in desk.workspace.ledger.entries:
        path = desk.workspace.record_path(entry)
        if entry.record in opened:
            yield from _attempt(path, partial(check_references, opened[entry.record].record, seen.__contains__, path))
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


def _check_meaning(desk: Desk, opened: Mapping[str, Sealed], gone: list[Absent], void: list[Void]) -> Iterator[Problem]:
    """Every record against the records it cites: claims, gates, moves, decisions decided again."""
    places = {str(desk.workspace.blob_path(digest)) for digest in absent(desk)}
    held = in_force(desk)
    for entry in desk.entries():
        sealed = opened.get(entry.record)
        if sealed is None:
            continue
        path = desk.workspace.record_path(entry)
        try:
            check_record(desk.at(entry.sequence), entry, sealed)
        except StudbookError as error:
            if error.reason in _MISSING and error.where in places:
                text = f"not held against {Path(error.where).name[:16]}..., which is gone"
                gone.append(Absent(printable(path), text))
            elif not was_in_order(desk, entry, sealed):
                yield _problem(path, error.message)
            elif channel := held.get(entry.record):
                text = f"{error.message}; {channel} rests on this, and it rests on what a revoked key signed"
                yield _problem(path, f"{text}: roll {channel} back, or release another model")
            else:
                text = f"rests on what a revoked key signed: {error.message}"
                void.append(Void(printable(path), printable(text)))


def _check_routes(desk: Desk) -> Iterator[Problem]:
    """The route log: every line, every seal, and every choice derived again."""
    yield from _attempt(routes_folder(desk.workspace.path), Routes(desk).verify)


def _problem(path: Path, what: str) -> Problem:
    return Problem(printable(path), printable(what))


def _attempt(path: Path, check: Callable[[], object]) -> Iterator[Problem]:
    try:
        check()
    except StudbookError as error:
        yield _problem(path, error.message)
