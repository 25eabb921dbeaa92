"""A candidate that the ledger holds is given back and named; breeding again to compare leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab_fixtures import BLEND, CLUSTER, Place
from studbook.errors import StudbookError
from studbook.lab import Lab, breeding
from studbook.lab.progress import Silent
from studbook.records import OperatorReceipt


class Told(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def lab(new_lab: Place, told: Told) -> Iterator[Lab]:
    with Lab(new_lab.path, new_lab.keys, progress=told) as found:
        yield found


def leftovers(lab: Lab) -> list[Path]:
    return list(lab.desk.workspace.path.glob("cache/work/reproduce-*"))


def test_an_old_child_is_given_back_with_its_day_and_name(lab: Lab, told: Told) -> None:
    child = lab.breed(CLUSTER, BLEND)
    assert not [line for line in told.lines if "already bred" in line]
    assert lab.breed(CLUSTER, BLEND) == child
    (manifest, found), *others = lab.desk.candidates()
    assert not others
    entry = lab.desk.workspace.entry(manifest)
    assert entry is not None
    assert told.lines[-1] == f"already bred on {entry.time[:10]}: {found.name}"


def test_a_comparison_leaves_nothing_in_the_lab_whatever_came_out(lab: Lab, tmp_path: Path) -> None:
    child = lab.breed(CLUSTER, BLEND)
    assert lab.reproduce(child) == child
    assert not leftovers(lab)
    lab.ready()
    assert not leftovers(lab)
    manifest = lab.desk.candidates()[0][1]
    parent = lab.desk.workspace.blob_path(lab.desk.find_model("cap-rot"))
    parent.chmod(0o644)
    data = bytearray(parent.read_bytes())
    data[-1] ^= 1
    parent.write_bytes(data)
    with pytest.raises(StudbookError):
        breeding.reproduce_manifest(lab.desk, manifest)
    assert not leftovers(lab)
    assert lab.desk.workspace.get(manifest.receipt, OperatorReceipt).output.sha256 == child


def test_a_folder_that_the_caller_names_stays_with_the_child_in_it(lab: Lab, tmp_path: Path) -> None:
    child = lab.breed(CLUSTER, BLEND)
    assert lab.reproduce(child, folder=tmp_path / "mine") == child
    assert (tmp_path / "mine" / "candidate.slm").read_bytes() == lab.desk.workspace.blob(child)
