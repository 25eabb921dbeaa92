"""The ledger against what it cannot be faster than: hashing, checking signatures, syncing.

* Chain and tree over lines that exist already: lines a second.
* Verifying a whole ledger (strict parsing, signatures, chain, tree, checkpoint) against a bare loop of the same Ed25519
  checks, in the same thread.
* Commits, one by one and in groups, against a loop that writes and syncs as many new files: syncs are counted, not
  guessed.

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
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

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

    def whole() -> None:
        chain = Chain("ledger", workspace._authority_envelope)
        for line in lines:
            chain.accept(line)
        chain.open_checkpoint(note, "checkpoint")

    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.public))
    envelopes = [open_envelope(line) for line in lines]
    kind = b"application/vnd.in-toto+json"
    signed = [
        (e.signatures[0].sig, b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(e.payload), e.payload))
        for e in envelopes[1:]
    ]

    def bare() -> None:
        for signature, payload in signed:
            public.verify(signature, payload)

    seconds = alternate(rounds, time.process_time, whole=whole, bare=bare)
    return {
        "entries": count,
        "per_s": count / seconds["whole"],
        "bare_checks_per_s": count / seconds["bare"],
        "of_bare": seconds["bare"] / seconds["whole"],
    }, lines


@contextmanager
def counting() -> Iterator[list[int]]:
    """Counts calls of fsync."""
    plain, count = os.fsync, [0]

    def fsync(handle: int) -> None:
        count[0] += 1
        plain(handle)

    os.fsync = fsync
    try:
        yield count
    finally:
        os.fsync = plain


def committing(folder: Path, commits: int, rounds: int) -> dict[str, Any]:
    """Commits one by one and in groups, against as many syncs of new files."""
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

    syncs = {}
    for name, work in (("one", one_by_one), ("group", in_groups)):
        with counting() as count:
            work()
        syncs[name] = count[0] / commits
    scratch = folder / "scratch"
    scratch.mkdir()

    def bare(each: float) -> Callable[[], None]:
        total = round(commits * each)

        def work() -> None:
            for n in range(total):
                with (scratch / f"{n % 64}").open("wb") as file:
                    file.write(b"x" * 2000)
                    file.flush()
                    os.fsync(file.fileno())

        return work

    seconds = alternate(
        rounds,
        time.perf_counter,
        one=one_by_one,
        group=in_groups,
        bare_one=bare(syncs["one"]),
        bare_group=bare(syncs["group"]),
    )
    workspace.close()
    return {
        "commits": commits,
        "group": GROUP,
        "syncs_one": syncs["one"],
        "syncs_group": syncs["group"],
        "one_per_s": commits / seconds["one"],
        "group_per_s": commits / seconds["group"],
        "one_of_bare": seconds["one"] / seconds["bare_one"],
        "group_of_bare": seconds["group"] / seconds["bare_group"],
        "gain": seconds["one"] / seconds["group"],
    }


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
        "| commits | a second | syncs a record | time against as many bare syncs |",
        "|---|---:|---:|---:|",
        f"| one by one | {made['one_per_s']:,.0f} | {made['syncs_one']:.1f} | {made['one_of_bare']:.2f}x |",
        f"| in groups of {made['group']} | {made['group_per_s']:,.0f} | {made['syncs_group']:.1f} | "
        f"{made['group_of_bare']:.2f}x |",
        "",
        f"A group is {made['gain']:.1f} times as fast as its records one by one. A bare sync writes 2,000 bytes to a file "
        "and syncs it; where that costs little,",
        "signing, the strict reader and the look-up of keys weigh more.",
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
