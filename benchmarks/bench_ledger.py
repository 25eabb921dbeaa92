"""The ledger against what it cannot be faster than: hashing, checking signatures, syncing.

* Chain and tree over lines that exist already: lines a second.
* Verifying a whole ledger (strict parsing, signatures, chain, tree, checkpoint) against a bare loop of the same Ed25519
  checks, in the same thread.
* Commits, one by one and in groups, against a loop of nothing but the same syncs, each after the change that it makes
  safe: as many files made, lines appended and files renamed. All of it is counted, not guessed. And against as many
  syncs of files that are written over, the cheapest sync there is.

Rounds are taken in alternation; reported are medians, and ratios of medians.

    python benchmarks/bench_ledger.py [--lines 100000] [--verified 5000] [--commits 200] [--rounds 5] [--folder DIR]
        [--write docs/proof]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import stat
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import cryptography
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec.structs import replace as with_fields

from studbook.lab import Lab
from studbook.ledger.chain import NOTHING, Chain
from studbook.ledger.merkle import Tree
from studbook.ledger.note import audit_keys, write_checkpoint
from studbook.records import LedgerEntry, SuitesLock
from studbook.seal import KeyRing, SigningKey, seal
from studbook.seal.envelope import open_envelope
from studbook.workspace import Accession, Workspace

GROUP = 20
SLICE = 250
# Records, checkpoint and witness lie in folders of their own, and so do the files of the loop beside them.
FOLDERS = 3
# About what a record and a line hold.
SOME = b"x" * 2000


def alternate(rounds: int, clock: Callable[[], float], **ways: Callable[[], object]) -> dict[str, float]:
    """The median seconds of every way, taken in turn: processor seconds of what computes, wall clock of what waits."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, work in ways.items():
            start = clock()
            work()
            seconds = clock() - start
            if turn:  # the first turn warms up
                times[name].append(seconds)
    return {name: median(found) for name, found in times.items()}


def opened(folder: Path, *, writer: bool = True) -> Workspace:
    return Workspace(folder / "lab", KeyRing(folder / "keys"), writer=writer)


def chained(first: bytes, entry: LedgerEntry, key: SigningKey, count: int) -> list[bytes]:
    """A ledger of ``count`` lines: the given first one, and behind it copies of an entry, each for another record."""
    lines = [first]
    while len(lines) < count:
        previous = hashlib.sha256(lines[-1]).hexdigest()
        record = hashlib.sha256(b"%d" % len(lines)).hexdigest()
        changes = {"sequence": len(lines), "previous": previous, "record": record}
        lines.append(seal(with_fields(entry, **changes), key))
    return lines


def hashing(lines: list[bytes], count: int, rounds: int) -> dict[str, Any]:
    """Chain and tree, and the tree alone, over ``count`` lines."""
    many = [lines[i % len(lines)] for i in range(count)]

    def chain_and_tree() -> bytes:
        tree, head = Tree(), NOTHING
        for line in many:
            head = hashlib.sha256(line).hexdigest()
            tree.append(line)
        return tree.root() + head.encode()

    def bare() -> None:
        for line in many:
            hashlib.sha256(line)

    seconds = alternate(rounds, time.process_time, both=chain_and_tree, tree=lambda: Tree(many), bare=bare)
    return {
        "lines": count,
        "bytes": len(lines[-1]),
        "chain_and_tree_per_s": count / seconds["both"],
        "tree_per_s": count / seconds["tree"],
        "one_hash_a_line_per_s": count / seconds["bare"],
    }


def verifying(folder: Path, count: int, rounds: int) -> tuple[dict[str, Any], list[bytes]]:
    """A whole verification from bytes, against the same number of bare signature checks."""
    workspace = opened(folder, writer=False)
    first = (folder / "lab" / "audit" / "ledger.jsonl").read_bytes().split(b"\n")[0]
    key = KeyRing(folder / "keys").held(audit_keys(workspace.root))[0]
    lines = chained(first, workspace.ledger.entries[1], key, count)
    note = write_checkpoint(f"studbook/{workspace.root.lab}", count, Tree(lines).root(), key)

    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.public))
    envelopes = [open_envelope(line) for line in lines]
    kind = b"application/vnd.in-toto+json"
    signed = [
        (e.signatures[0].sig, b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(e.payload), e.payload))
        for e in envelopes[1:]
    ]

    # A machine that others use changes its speed from second to second, so the two take turns in small slices.
    seconds = {"whole": list[float](), "bare": list[float]()}
    for turn in range(rounds + 1):
        chain, whole, bare = Chain("ledger", workspace._authority_envelope), 0.0, 0.0
        for at in range(0, count, SLICE):
            start = time.process_time()
            for line in lines[at : at + SLICE]:
                chain.accept(line)
            if at + SLICE >= count:
                chain.open_checkpoint(note, "checkpoint")
            middle = time.process_time()
            for signature, payload in signed[at : at + SLICE]:
                public.verify(signature, payload)
            whole, bare = whole + middle - start, bare + time.process_time() - middle
        if turn:  # the first turn warms up
            seconds["whole"].append(whole)
            seconds["bare"].append(bare)
    taken = {name: median(found) for name, found in seconds.items()}
    return {
        "entries": count,
        "per_s": count / taken["whole"],
        "bare_checks_per_s": count / taken["bare"],
        "of_bare": taken["bare"] / taken["whole"],
    }, lines


class Steps(NamedTuple):
    """What a record costs the disk, on average.

    Attributes:
        made: New files, each synced and then moved to a name that was free.
        appended: Syncs of a file that grew.
        replaced: Files replaced by another one that was there already: written, synced, and both renamed.
        folders: Syncs of folders.
    """

    made: float
    appended: float
    replaced: float
    folders: float

    @property
    def syncs(self) -> float:
        return self.made + self.appended + self.replaced + self.folders


def steps(work: Callable[[], object], records: int) -> Steps:
    """Count what some work does to the disk, a record."""
    fsync, opened_, pwrite, count = os.fsync, os.open, os.pwrite, Counter[str]()

    def counted_sync(handle: int) -> None:
        count["folders" if stat.S_ISDIR(os.fstat(handle).st_mode) else "files"] += 1
        fsync(handle)

    def counted_open(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        count["made"] += bool(flags & os.O_EXCL)
        return opened_(path, flags, *rest, **named)

    def counted_write(*given: Any) -> int:
        count["replaced"] += 1
        return pwrite(*given)

    os.fsync, os.open, os.pwrite = counted_sync, counted_open, counted_write
    try:
        work()
    finally:
        os.fsync, os.open, os.pwrite = fsync, opened_, pwrite
    appended = count["files"] - count["made"] - count["replaced"]
    return Steps(*(part / records for part in (count["made"], appended, count["replaced"], count["folders"])))


def synced(path: Path, flags: int, data: bytes = b"") -> None:
    handle = os.open(path, flags, 0o644)
    if data:
        os.write(handle, data)
    os.fsync(handle)
    os.close(handle)


def replaced(folder: Path) -> None:
    """Replace one file by another that is there, and the other way round the next time."""
    spare, live, between = folder / "spare", folder / "live", folder / "between"
    live.touch()
    synced(spare, os.O_WRONLY | os.O_CREAT, SOME)
    os.link(live, between)
    spare.rename(live)
    between.rename(spare)


def same_steps(scratch: Path, each: Steps, records: int) -> Callable[[], None]:
    """A loop of the same steps and nothing else, as many of each kind in their folders."""
    made, appended, swapped, folders = (round(part * records) for part in each)
    names = iter(range(1 << 40))

    def work() -> None:
        done = Counter[str]()

        def due(kind: str, total: int, turn: int) -> range:
            """Every kind of step is spread evenly over the records."""
            before, done[kind] = done[kind], (turn + 1) * total // records
            return range(done[kind] - before)

        for turn in range(records):
            for at in due("made", made, turn):
                new = scratch / f"{at % FOLDERS}" / f"{next(names)}"
                synced(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, SOME)
                new.rename(new.with_suffix(".json"))
            for _ in due("appended", appended, turn):
                synced(scratch / "lines", os.O_WRONLY | os.O_CREAT | os.O_APPEND, SOME)
            for at in due("replaced", swapped, turn):
                replaced(scratch / f"{at % FOLDERS}")
            for at in due("folders", folders, turn):
                synced(scratch / f"{at % FOLDERS}", os.O_RDONLY | os.O_DIRECTORY)

    return work


def over_and_over(scratch: Path, each: Steps, records: int) -> Callable[[], None]:
    """As many syncs of 64 files that are written over."""

    def work() -> None:
        for n in range(round(each.syncs * records)):
            synced(scratch / f"over{n % 64}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, SOME)

    return work


def committing(folder: Path, commits: int, rounds: int) -> dict[str, Any]:
    """Commits one by one and in groups, against the same steps on disk and nothing else."""
    workspace = opened(folder)
    number = iter(range(1, 1 << 40))

    def fresh() -> Accession:
        return Accession(SuitesLock(header=workspace.root.header, lock_version=next(number), suites=()))

    def one_by_one() -> None:
        for _ in range(commits):
            workspace.commit(fresh().record)

    def in_groups() -> None:
        for _ in range(commits // GROUP):
            workspace.commit_all([fresh() for _ in range(GROUP)])

    one, group = steps(one_by_one, commits), steps(in_groups, commits)
    scratch = folder / "scratch"
    for part in ("one", "group"):
        for at in range(FOLDERS):
            (scratch / part / f"{at}").mkdir(parents=True)
    seconds = alternate(
        rounds,
        time.perf_counter,
        one=one_by_one,
        same_one=same_steps(scratch / "one", one, commits),
        over_one=over_and_over(scratch, one, commits),
        group=in_groups,
        same_group=same_steps(scratch / "group", group, commits),
        over_group=over_and_over(scratch, group, commits),
    )
    workspace.close()
    found: dict[str, Any] = {"commits": commits, "group_of": GROUP, "gain": seconds["one"] / seconds["group"]}
    for name, each in (("one", one), ("group", group)):
        found[name] = {
            "per_s": commits / seconds[name],
            "steps": each._asdict(),
            "syncs": each.syncs,
            "of_same_steps": seconds[name] / seconds[f"same_{name}"],
            "of_overwriting": seconds[name] / seconds[f"over_{name}"],
        }
    return found


def facts(folder: Path) -> dict[str, Any]:
    names = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    home = [m for m in mounts if folder.resolve().is_relative_to(m[1])]
    return {
        "processor": names[0].split(":")[1].strip() if names else platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "cryptography": cryptography.__version__,
        "file_system": max(home, key=lambda m: len(m[1]))[2] if home else "unknown",
    }


def gather(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    Lab.init(folder / "lab", "bench", folder / "keys")
    verified, lines = verifying(folder, arguments.verified, arguments.rounds)
    print("verified", file=sys.stderr)
    hashed = hashing(lines, arguments.lines, arguments.rounds)
    print("hashed", file=sys.stderr)
    return {
        "machine": facts(folder),
        "rounds": arguments.rounds,
        "hashing": hashed,
        "verifying": verified,
        "committing": committing(folder, arguments.commits, arguments.rounds),
    }


def page(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    machine, hashed, verified, made = (found[k] for k in ("machine", "hashing", "verifying", "committing"))
    one = made["one"]["steps"]
    lines = [
        "# The ledger",
        "",
        f"Written by `benchmarks/bench_ledger.py`: medians of {found['rounds']} rounds in alternation, one thread; "
        "processor seconds, for commits wall clock.",
        f"{machine['processor']}, {machine['cores']} processors, "
        f"Python {machine['python']}, cryptography {machine['cryptography']}, file system {machine['file_system']}.",
        "",
        "| what | a second | against | a second | ratio |",
        "|---|---:|---|---:|---:|",
        f"| chain and tree over {hashed['lines']:,} lines of {hashed['bytes']:,} bytes | "
        f"{hashed['chain_and_tree_per_s']:,.0f} | one SHA-256 a line | {hashed['one_hash_a_line_per_s']:,.0f} | "
        f"{hashed['chain_and_tree_per_s'] / hashed['one_hash_a_line_per_s']:.2f} |",
        f"| the tree alone | {hashed['tree_per_s']:,.0f} | one SHA-256 a line | {hashed['one_hash_a_line_per_s']:,.0f} | "
        f"{hashed['tree_per_s'] / hashed['one_hash_a_line_per_s']:.2f} |",
        f"| verifying {verified['entries']:,} entries whole | {verified['per_s']:,.0f} | the same Ed25519 checks alone | "
        f"{verified['bare_checks_per_s']:,.0f} | {verified['of_bare']:.2f} |",
        "",
        "| commits | a second | syncs a record | time against the same steps alone | against as many syncs, written over |",
        "|---|---:|---:|---:|---:|",
        *(
            f"| {label} | {made[name]['per_s']:,.0f} | {made[name]['syncs']:.1f} | {made[name]['of_same_steps']:.2f}x | "
            f"{made[name]['of_overwriting']:.2f}x |"
            for label, name in (("one by one", "one"), (f"in groups of {made['group_of']}", "group"))
        ),
        "",
        f"A group is {made['gain']:.1f} times as fast as its records one by one. A commit alone makes {one['made']:.0f} "
        f"file, appends {one['appended']:.0f} line, replaces {one['replaced']:.0f} files by two that take turns, and syncs",
        f"{one['folders']:.0f} folders; the loop beside it does that and nothing else. The last column syncs as often, each "
        f"time after {len(SOME):,} bytes were written over",
        "a file that is there already: what a disk does at least. Let a minute pass after many files were deleted: making",
        "one is slow until then on some file systems, and only commits make any.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=100_000, help="lines for chain and tree")
    parser.add_argument("--verified", type=int, default=5_000, help="entries of the ledger that is verified")
    parser.add_argument("--commits", type=int, default=200, help="records committed in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to make the lab, on the disk to measure [temporary folder]")
    parser.add_argument("--write", type=Path, help="folder for ledger.json and ledger.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        found = gather(arguments, Path(folder))
    print(page(found))
    if arguments.write:
        arguments.write.mkdir(parents=True, exist_ok=True)
        (arguments.write / "ledger.json").write_text(json.dumps(found, indent=2) + "\n")
        (arguments.write / "ledger.md").write_text(page(found))


if __name__ == "__main__":
    main()
