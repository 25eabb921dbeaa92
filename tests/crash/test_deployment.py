"""The power goes while a channel is deployed: a whole release is in force afterwards, and the same command goes on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from crash.layer import Recorder, fingerprint, moments, write_state
from lab.test_deploying import check_whole, label
from lab_fixtures import Place
from studbook.lab import Lab
from studbook.lab.deploying import Wanted


@pytest.fixture
def lab(released_lab: Place, tmp_path: Path) -> Iterator[Lab]:
    """A copy of a lab whose champion was bred by a routed operator."""
    with released_lab.copy(tmp_path / "copy").open() as opened:
        yield opened


def test_a_deployment_survives_every_power_cut(lab: Lab, tmp_path: Path) -> None:
    disk, out = tmp_path / "disk", tmp_path / "disk" / "out"
    disk.mkdir()
    old = lab.deploy("champion", out).artifact
    lab.rollback("champion", "something to deploy")
    recorder = Recorder(disk)
    start = len(recorder.log.events)
    with recorder:
        new = lab.deploy("champion", out, Wanted(keep=1)).artifact
        recorder.done(new)
    (tmp_path / "pool").mkdir()
    random, seen = Random(5), set[str]()
    for until in moments(recorder.log, start):
        done = recorder.log.done(until)
        for why, state in recorder.log.states(until, random, 2):
            if (mark := f"{fingerprint(state)} {len(done)}") in seen:
                continue
            seen.add(mark)
            write_state(state, tmp_path / "left", tmp_path / "pool")
            left = tmp_path / "left" / "out"
            check_whole(left)
            assert label(left)["model"] in ({new} if done else {old, new}), f"after {until} events, {why}"
            assert lab.deploy("champion", left, Wanted(keep=1)).artifact == new
            assert label(left)["model"] == new
            check_whole(left)
            shutil.rmtree(tmp_path / "left")
    assert len(seen) > 40
