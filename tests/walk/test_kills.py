"""A process killed at any moment loses nothing it acknowledged and shows nothing half-made; the next one goes on."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from lab_fixtures import Place, problems
from studbook.records import CandidateManifest

DRIVER = Path(__file__).with_name("kill_driver.py")
PROOF = Path(__file__).parents[2] / "docs" / "proof"


class Death(NamedTuple):
    """What a driven process left behind.

    Attributes:
        status: Its exit code; -9 when it was killed.
        lines: What it said.
    """

    status: int
    lines: tuple[str, ...]

    def said(self, word: str) -> list[str]:
        """The rest of every line that starts with a word."""
        return [line.removeprefix(word + " ") for line in self.lines if line.startswith(word + " ")]

    @property
    def lived(self) -> bool:
        """Whether it came to its end."""
        return self.status == 0 and bool(self.said("lived"))


class Driver:
    """The process that starts the processes that die."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(DRIVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            text=True,
        )

    def __call__(self, place: Place, act: str, when: int | str) -> Death:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{place.path}\t{place.keys}\t{act}\t{when}\n")
        stdin.flush()
        lines: list[str] = []
        for line in stdout:
            if line.startswith("ended "):
                break
            lines.append(line.rstrip("\n"))
        return Death(int(line.split()[1]), tuple(lines))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process.wait()


class Undisturbed(NamedTuple):
    """The same life without a death: the boundaries it passes and the records it leaves."""

    steps: list[str]
    records: frozenset[str]


@pytest.fixture(scope="module")
def drive() -> Iterator[Driver]:
    driver = Driver()
    yield driver
    driver.close()


@pytest.fixture(scope="module")
def undisturbed(drive: Driver, prepared_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    place = prepared_lab.copy(tmp_path_factory.mktemp("undisturbed"))
    ended = drive(place, "live", -1)
    assert ended.lived, ended.lines[-1:]
    return Undisturbed(ended.said("passes"), records_of(place))


def records_of(place: Place) -> frozenset[str]:
    with place.open(writer=False) as lab:
        return frozenset(e.record for e in lab.desk.workspace.ledger.entries)


def check_after_death(place: Place, safe: Sequence[str]) -> None:
    """As a reader finds the lab: everything acknowledged is there and verifies."""
    with place.open(writer=False) as lab:
        workspace = lab.desk.workspace
        for digest in safe:
            entry = workspace.entry(digest)
            assert entry is not None, f"{digest} was acknowledged and is gone"
            assert workspace.sealed(entry).digest == digest
            assert all(workspace.blob(blob.sha256) for blob in entry.blobs)


def check_after_recovery(place: Place) -> None:
    """As the next writer finds it: whole, with no half candidate."""
    with place.open() as lab:
        workspace = lab.desk.workspace
        for _, candidate in workspace.all(CandidateManifest):
            assert len(workspace.blob(candidate.artifact.sha256)) == candidate.artifact.size
    assert problems(place) == []
    assert not list((place.path / "cache").glob("staging/*"))


def die_and_go_on(drive: Driver, prepared: Place, folder: Path, when: int | str, whole: Undisturbed) -> Death:
    """Die once, look, go on to the end; what is there in the end is what there would have been without the death."""
    place = prepared.copy(folder)
    death = drive(place, "live", when)
    assert death.status in (0, -9), death
    check_after_death(place, death.said("acknowledged"))
    check_after_recovery(place)
    rest = drive(place, "live", -1)
    assert rest.lived, (when, death.lines[-1:], rest.lines[-1:])
    assert problems(place) == []
    assert records_of(place) == whole.records
    shutil.rmtree(folder)
    return death


def spread(count: int, sample: int) -> list[int]:
    """The first, the last, and one seeded pick from each equal part between them."""
    random_ = random.Random(5)
    step = count / (sample - 1)
    return [0, *(int(step * i + random_.random() * step) for i in range(sample - 2)), count - 1]


def test_death_at_boundaries_spread_over_a_life_loses_nothing(
    drive: Driver, prepared_lab: Place, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    for boundary in spread(len(undisturbed.steps), 8):
        death = die_and_go_on(drive, prepared_lab, tmp_path / str(boundary), boundary, undisturbed)
        assert death.status == -9, boundary


DELICATE = {
    "before the line is on disk": "fsync append",
    "between the line and the renames": "rename .*json",
    "between the renames and the checkpoint": "create checkpoint.partial",
    "before champion's alias is swapped": "rename champion.json",
}


@pytest.mark.parametrize("moment", DELICATE)
def test_death_at_a_delicate_step_loses_nothing(
    drive: Driver, prepared_lab: Place, undisturbed: Undisturbed, tmp_path: Path, moment: str
) -> None:
    fits = [i for i, step in enumerate(undisturbed.steps) if re.match(DELICATE[moment], step)]
    boundary = fits[len(fits) // 2]
    death = die_and_go_on(drive, prepared_lab, tmp_path / "dies", boundary, undisturbed)
    assert (death.status, death.said("passes")[-1]) == (-9, undisturbed.steps[boundary])


def test_death_during_recovery_after_death_loses_nothing(
    drive: Driver, prepared_lab: Place, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    lines = [i for i, step in enumerate(undisturbed.steps) if step == "fsync append"]
    place = prepared_lab.copy(tmp_path / "twice")
    first = drive(place, "live", lines[len(lines) // 2] + 1)
    safe = first.said("acknowledged")
    for boundary in range(6):
        again = drive(place, "live", boundary)
        assert (first.status, again.status) == (-9, -9)
        safe += again.said("acknowledged")
        check_after_death(place, safe)
    assert drive(place, "live", -1).lived
    assert problems(place) == []
    assert records_of(place) == undisturbed.records


def founding_steps(drive: Driver, folder: Path) -> list[str]:
    ended = drive(Place(folder / "lab", folder / "keys"), "found", -1)
    assert ended.lived, ended.lines[-1:]
    return ended.said("passes")


def die_while_founding(drive: Driver, folder: Path, boundary: int) -> None:
    """A lab whose making was cut short is either not there, or whole; the same command makes it."""
    place = Place(folder / "lab", folder / "keys")
    assert drive(place, "found", boundary).status == -9
    if place.path.exists():
        assert problems(place) == []
    ended = drive(place, "found", -1)
    assert ended.lived, (boundary, ended.lines[-1:])
    assert problems(place) == []
    with place.open() as lab:
        assert lab.desk.policy[1].name == "small-lab"
    shutil.rmtree(folder)


def test_death_at_every_boundary_of_the_ledger_loses_nothing(drive: Driver, tmp_path: Path) -> None:
    new = Place(tmp_path / "lab", tmp_path / "keys")
    assert drive(new, "found", -1).lived
    whole = new.copy(tmp_path / "whole")
    undisturbed = drive(whole, "write", -1)
    assert undisturbed.lived, undisturbed.lines[-1:]
    records, steps = records_of(whole), undisturbed.said("passes")
    for boundary in range(len(steps)):
        place = new.copy(tmp_path / str(boundary))
        death = drive(place, "write", boundary)
        assert (death.status, death.said("passes")) == (-9, steps[: boundary + 1])
        check_after_death(place, death.said("acknowledged"))
        rest = drive(place, "write", -1)
        assert rest.lived, (boundary, rest.lines[-1:])
        assert records_of(place) == records
        assert not list(place.path.glob("**/*.partial"))
        shutil.rmtree(tmp_path / str(boundary))
    assert {"fsync append", "link checkpoint", "rename checkpoint", "set aside checkpoint"} < set(steps)


def test_death_while_a_lab_is_made_does_not_block_the_next_attempt(drive: Driver, tmp_path: Path) -> None:
    steps = founding_steps(drive, tmp_path / "whole")
    lab_placed = max(i for i, step in enumerate(steps) if step == "rename lab")
    for boundary in sorted({*spread(len(steps), 8), lab_placed, lab_placed + 1}):
        die_while_founding(drive, tmp_path / str(boundary), boundary)


@pytest.mark.proof
def test_death_at_every_boundary_and_at_fifty_random_moments(
    drive: Driver, prepared_lab: Place, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    safe = 0
    for boundary in range(len(undisturbed.steps)):
        death = die_and_go_on(drive, prepared_lab, tmp_path / str(boundary), boundary, undisturbed)
        assert death.status == -9, boundary
        safe += len(death.said("acknowledged"))
    founding = founding_steps(drive, tmp_path / "whole")
    for boundary in range(len(founding)):
        die_while_founding(drive, tmp_path / f"found-{boundary}", boundary)
    seconds = time_of_a_life(drive, prepared_lab, tmp_path / "timed")
    random_ = random.Random(50)
    moments = [f"~{random_.uniform(0.0, seconds):.4f}" for _ in range(50)]
    deaths = [die_and_go_on(drive, prepared_lab, tmp_path / m, m, undisturbed) for m in moments]
    assert sum(death.status == -9 for death in deaths) > 25
    write_figures(undisturbed, founding, len(deaths), safe)


def time_of_a_life(drive: Driver, prepared: Place, folder: Path) -> float:
    started = time.monotonic()
    assert drive(prepared.copy(folder), "live", -1).lived
    return time.monotonic() - started


def write_figures(whole: Undisturbed, founding: list[str], moments: int, safe: int) -> None:
    """The figures of this run; no times, so that a run on another machine gives the same file."""
    kinds = Counter(step.split()[0] for step in whole.steps)
    figures = {
        "boundaries_of_a_life": len(whole.steps),
        "boundaries_by_kind": dict(sorted(kinds.items())),
        "boundaries_of_founding": len(founding),
        "random_moments": moments,
        "records": len(whole.records),
        "acknowledged_records_looked_up": safe,
    }
    PROOF.mkdir(parents=True, exist_ok=True)
    (PROOF / "kills.json").write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
    rows = "".join(f"| {name} | {count} |\n" for name, count in sorted(kinds.items()))
    (PROOF / "kills.md").write_text(
        "# Kills\n\n"
        "A small lab lives through a round, the promotion of its winner and a rollback. SIGKILL ends the process at\n"
        "every boundary of the file layer in turn, and at random moments. After each death a reader finds every\n"
        "acknowledged record and its files; the next writer finds no half candidate and `verify` is ok; the same\n"
        "commands then run to the end and leave exactly the records of the undisturbed life.\n\n"
        f"| boundary | times |\n|---|---:|\n{rows}\n"
        f"Boundaries of a life: {len(whole.steps)}, of making a lab: {len(founding)}. Random moments: {moments}.\n"
        f"Records of a life: {len(whole.records)}; acknowledged records looked up after deaths at boundaries: {safe}.\n"
        "Nothing was missing: the test that writes this page stops at the first thing that is.\n"
    )
