"""A process that runs acts on labs in children of its own and lets them die where it is told to.

It reads one job a line, ``LAB KEYS ACT WHEN``, separated by tabs. ACT is ``found`` (make the lab), ``live`` (a round,
the promotion of its winner, a rollback), ``canary`` (what stands in shadow enters canary), ``promote`` and ``abort``
(what stands in canary), ``write`` (three records with a file each, then two as a group) or ``install`` (the one package
that was made); a step
the ledger has already is not done again, so the same job also finishes what a death cut short. WHEN is the boundary
of the file layer to die at, counted from 0; ``-1`` for never; or ``~0.5`` for half a second after the start.
Acknowledged records are printed at once; a line ``ended STATUS`` closes every job.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from lab_fixtures import CLUSTER, PERSON, Place, small_policy
from studbook import files
from studbook.lab import Lab
from studbook.records import ChampionPromotion, Policy, Record, RollbackRecord, replace
from studbook.seal import KeyRing
from studbook.workspace import Accession, Workspace


def say(*words: object) -> None:
    """One line, out of the process before the next step."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Reaper:
    """Counts boundaries and kills its process at the chosen one."""

    def __init__(self, at: int) -> None:
        self.at, self.seen = at, 0

    def __call__(self, step: str) -> None:
        say("passes", step)
        if self.seen == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen += 1


def acknowledge_aloud() -> None:
    """Print the digest of every record once ``commit`` has returned it."""
    plain = Workspace.commit

    def commit(self: Workspace, record: Record, *how: Any, **more: Any) -> str:
        digest = plain(self, record, *how, **more)
        say("acknowledged", digest)
        return digest

    Workspace.commit = commit  # type: ignore[method-assign]


def found(place: Place) -> None:
    """Make the lab, unless it is there."""
    if not place.path.exists():
        folder = place.path.parent
        folder.mkdir(parents=True, exist_ok=True)
        Lab.init(place.path, PERSON, place.keys, small_policy(folder))


def live(place: Place) -> None:
    """A round, promotion, rollback: each unless the ledger has it."""
    with place.open() as lab:
        held = lab.desk.workspace
        if not any(p.basis == "promotion" for _, p in held.all(ChampionPromotion)):
            outcome = lab.round(CLUSTER)
            assert outcome.released is not None, outcome.held
            lab.release(outcome.released, "champion", PERSON, "won")
        if not list(held.all(RollbackRecord)):
            lab.rollback("champion", "and back")


def canary(place: Place) -> None:
    """What stands in shadow enters canary, unless it is there."""
    with place.open() as lab:
        if lab.desk.channels()["canary"].artifact is None:
            lab.release("shadow", "canary")


def promote(place: Place) -> None:
    """What stands in canary becomes champion, unless it is."""
    with place.open() as lab:
        if lab.desk.champion() != lab.desk.channels()["canary"].artifact:
            lab.promote(PERSON, "the trial found it ready")


def abort(place: Place) -> None:
    """What stands in canary leaves it, unless it has left."""
    with place.open() as lab:
        if lab.desk.channels()["canary"].artifact is not None:
            lab.abort("it does not please")


def write(place: Place) -> None:
    """Three records with a file each, then two as a group: each unless the ledger has it."""
    workspace = Workspace(place.path, KeyRing(place.keys), writer=True)
    _, policy = next(workspace.all(Policy))
    notes = [replace(policy, notes=f"written {number}") for number in range(5)]
    news = [Accession(p, {hashlib.sha256(p.notes.encode()).hexdigest(): p.notes.encode()}) for p in notes]
    for one in news[:3]:
        workspace.commit(one.record, one.blobs)
    for digest in workspace.commit_all(news[3:]):
        say("acknowledged", digest)
    workspace.close()


def install(place: Place) -> None:
    """Install the package, unless it is there."""
    with place.open() as lab:
        if lab.packages.list()[0].state in ("made", "installed"):
            lab.packages.install("rot")


def run(place: Place, act: str, at: int) -> None:
    """Do one act under the reaper."""
    reaper = Reaper(at)
    files.boundary = reaper
    acknowledge_aloud()
    acts = {"found": found, "live": live, "canary": canary, "promote": promote, "abort": abort, "write": write}
    {**acts, "install": install}[act](place)
    say("lived", reaper.seen)


def child(job: str) -> int:
    """The process that may die."""
    lab, keys, act, when = job.split("\t")
    process = os.fork()
    if process:
        if when.startswith("~"):
            time.sleep(float(when[1:]))
            os.kill(process, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    try:
        run(Place(Path(lab), Path(keys)), act, -1 if when.startswith("~") else int(when))
    except BaseException as error:
        say("failed", type(error).__name__, error)
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    for line in sys.stdin:
        say("ended", child(line.rstrip("\n")))
