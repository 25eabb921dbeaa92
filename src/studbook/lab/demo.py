"""Two whole rounds on the shipped founders under one policy: one promotes, one is an honest no-op."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from studbook.errors import UsageError
from studbook.lab.doctor import isolation
from studbook.lab.founding import read_policy
from studbook.lab.progress import Progress, Silent
from studbook.lab.rounds import Outcome
from studbook.records import Policy, replace
from studbook.sandbox import PORTABLE, level_of

if TYPE_CHECKING:
    from studbook.lab import Lab

__all__ = ["CLUSTER", "OWNER", "PARENTS", "DemoReport", "examples_folder", "prepare", "run"]

OWNER = "demo"
PARENTS = ("rev-srt", "cap-rot", "dup-odd", "brk")
CLUSTER = "rot"


class DemoReport(Struct, frozen=True):
    """What the demo did.

    Attributes:
        rounds: Outcome and title of each round.
        lines: The closing lines: promoted digest, verify, ready, rollback.
        ok: Everything verified and the lab is ready.
        names: Artifact digest -> what to call it.
    """

    rounds: tuple[tuple[Outcome, str], ...]
    lines: tuple[str, ...]
    ok: bool
    names: dict[str, str]

    def name(self, artifact: str) -> str:
        """What to call an artifact."""
        return self.names.get(artifact, artifact[:12])


def examples_folder() -> Path:
    """Where the shipped founders and suites lie: beside the installed package, or in the source tree.

    Raises:
        UsageError: if they are in neither place.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "_examples", package.parents[1] / "examples"):
        if (folder / "founders" / "base" / "base.slm").is_file():
            return folder
    raise UsageError(
        "the example founders are not installed", where=package, advice="Run the demo in a source checkout."
    )


def prepare(door: type[Lab], folder: Path, progress: Progress) -> Lab:
    """A lab in ``folder/lab`` with the founders registered, suites frozen, parents approved and the base as champion."""
    examples = examples_folder()
    path, keys = folder / "lab", folder / "keys"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError("is not a new or empty folder", where=folder, advice="Name a new folder: studbook demo FOLDER")
    door.init(path, OWNER, keys, _policy(examples, progress))
    lab = door(path, keys, progress=progress)
    for name in ("base", *PARENTS, "ceiling"):
        lab.register(examples / "founders" / name)
    lab.suites.freeze([examples / "suites"], OWNER)
    for name in ("base", *PARENTS):
        lab.approve(name, OWNER, reason="shipped founder")
    lab.release("base", "champion", OWNER, "the deployed generalist")
    return lab


def _policy(examples: Path, progress: Progress) -> Policy:
    """The demo's policy; where the kernel cannot shut workers in it demands what there is, and says so."""
    policy = read_policy(examples / "founders" / "policy.json", OWNER)
    if level_of(isolation()[0]) == "portable":
        progress.say(
            "this machine's kernel does not shut workers in; the demo goes on with limits only: docs/sandbox.md"
        )
        policy = replace(policy, minimum_isolation=PORTABLE)
    return policy


def run(door: type[Lab], folder: Path, progress: Progress | None = None) -> DemoReport:
    """Run the demo.

    Args:
        door: The Lab class.
        folder: A new folder for lab and keys.
        progress: Where steps are shown.

    Raises:
        StudbookError: any of its kinds.
    """
    progress = progress or Silent()
    lab = prepare(door, folder, progress)
    with lab:
        progress.say(f"round 1: the champion is the base; four specialists are parents; target {CLUSTER}")
        first = lab.round(CLUSTER, ceiling="ceiling")
        lines = []
        if first.released:
            lab.release(first.released, "champion", OWNER, "won round 1")
            lines.append(f"promoted child: {first.released}")
        else:
            lines.append("round 1 promoted nothing")
        progress.say("round 2: the same parents, the same policy, the new champion")
        second = lab.round(CLUSTER, ceiling="ceiling")
        ok = _close(lab, lines.append)
        names = {a: lab.desk.name_of(a) for a in _artifacts(first, second)}
    titles = ("the base is champion", "the child is champion" if first.released else "the base is still champion")
    return DemoReport(tuple(zip((first, second), titles, strict=True)), tuple(lines), ok, names)


def _close(lab: Lab, say: Callable[[str], None]) -> bool:
    """Verify, be ready, go back, verify again."""
    verified = lab.verify()
    say(_verdict("verify", verified.ok, f"{verified.entries} entries, {verified.files} files, {verified.size} bytes"))
    readiness = lab.ready()
    for check in readiness.criteria:
        say(f"  {'ok  ' if check.passed else 'FAIL'} {check.name}: {check.detail}")
    say(_verdict("ready", readiness.ready, "reproduce, reject, explain, verify, rollback"))
    if lab.desk.channels()["champion"].way_back and len(lab.desk.history("champion")) > 1:
        back = lab.rollback("champion", "the demo's way back")
        assert back.artifact is not None
        say(f"rollback: champion -> {lab.desk.name_of(back.artifact)} {back.artifact}")
    again = lab.verify()
    say(_verdict("verify", again.ok, "after the rollback"))
    return verified.ok and readiness.ready and again.ok


def _verdict(what: str, ok: bool, detail: str) -> str:
    return f"{what}: {'ok' if ok else 'FAILED'} ({detail})"


def _artifacts(*outcomes: Outcome) -> set[str]:
    found: set[str] = set()
    for outcome in outcomes:
        record = outcome.record
        found |= {record.champion, *record.parents, *(s.artifact for s in record.standings)}
    return found
