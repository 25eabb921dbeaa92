"""An installation that is cut short leaves nothing half, and the same command finishes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crash.test_power_cuts import try_all, watch
from lab_fixtures import PERSON, Place, problems
from studbook.lab import Lab
from studbook.lab.package_host import folder_of
from studbook.lab.packages import Wanted

DRIVER = Path(__file__).parents[1] / "walk" / "kill_driver.py"


@pytest.fixture(scope="module")
def made_lab(prepared_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The small lab with a contract and one package that was made and not installed."""
    place = prepared_lab.copy(tmp_path_factory.mktemp("made"))
    with place.open() as lab:
        lab.packages.contract(PERSON)
        lab.packages.make("rot", "cap-rot", Wanted(version="1.0.0", clusters=("rot",)))
    return place


def drive(jobs: list[tuple[Place, str]]) -> list[list[str]]:
    """What a process said that installs in children of its own and lets them die: one list of lines a job."""
    text = "".join(f"{place.path}\t{place.keys}\tinstall\t{when}\n" for place, when in jobs)
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(DRIVER)], input=text, capture_output=True, text=True, env=environment, check=True
    )
    said: list[list[str]] = [[]]
    for line in done.stdout.splitlines():
        said[-1].append(line)
        if line.startswith("ended "):
            said.append([])
    return said[:-1]


def test_a_process_killed_at_any_step_leaves_nothing_half(made_lab: Place, tmp_path: Path) -> None:
    (whole,) = drive([(made_lab.copy(tmp_path / "whole"), "-1")])
    steps = [line for line in whole if line.startswith("passes ")]
    assert any("rename" in step for step in steps)
    places = [made_lab.copy(tmp_path / str(at)) for at in range(len(steps))]
    deaths = drive([(place, str(at)) for at, place in enumerate(places)])
    assert {lines[-1] for lines in deaths} == {"ended -9"}
    for at, place in enumerate(places):
        with place.open() as lab:
            (found,) = lab.packages.list()
            held = folder_of(lab.desk, found.revision)
            assert held.exists() == (found.state != "made"), (at, found.state)
            if found.state in ("made", "installed"):
                assert lab.packages.install("rot").state == "verified"
        assert problems(place) == [], (at, steps[at])


@pytest.mark.proof
def test_an_installation_survives_every_power_cut(
    made_lab: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def install(lab: Lab) -> None:
        lab.packages.install("rot")

    work = watch(made_lab.copy(tmp_path / "first"), install, monkeypatch)
    (tmp_path / "left").mkdir()
    assert try_all(work, tmp_path / "left", seed=3, samples=1) > 40


def test_what_an_installation_leaves_is_what_the_ledger_says(made_lab: Place, tmp_path: Path) -> None:
    place = made_lab.copy(tmp_path)
    with place.open() as lab:
        found = lab.packages.install("rot")
        folder = folder_of(lab.desk, found.revision)
        signed = json.loads((folder / "package.json").read_text())
        assert signed["payloadType"] == "application/vnd.in-toto+json"
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o444}
