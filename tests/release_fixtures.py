"""A small lab whose policy asks for two people before every stage and a day in shadow; and clocks to play with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lab_fixtures import CLUSTER, PERSON, Place
from studbook import workspace
from studbook.errors import StudbookError
from studbook.lab import Lab
from studbook.lab import clock as clock_module
from studbook.lab.pending import Signed
from studbook.lab.replay import check_record
from studbook.records import Record, ViabilityDecision

OTHER = "bob"
STRICT: dict[str, Any] = {
    "recompute": "receipt",
    "stages": [
        {"stage": "shadow", "approvals": 2, "hold_hours": 0},
        {"stage": "champion", "approvals": 2, "hold_hours": 24},
    ],
}
Clock = Callable[[float], None]


def refused(reason: str) -> pytest.RaisesExc[StudbookError]:
    """A refusal for one reason that names a place and says what to do."""
    return pytest.raises(StudbookError, check=lambda e: e.reason == reason and bool(e.where) and bool(e.advice))


def edited(lab: Lab, folder: Path, changes: Mapping[str, Any], version: int | None = None) -> Path:
    """A file with the policy in force, the next version number and some changes."""
    fields = lab.policies.show()
    fields |= {"policy_version": fields["policy_version"] + 1 if version is None else version, **changes}
    path = folder / f"policy-{fields['policy_version']}.json"
    path.write_text(json.dumps(fields), encoding="utf-8")
    return path


def change_policy(lab: Lab, folder: Path, **changes: Any) -> Signed:
    """Sign the next policy with some changes."""
    return lab.policies.sign(edited(lab, folder, changes), PERSON)


def winner(lab: Lab) -> str:
    """Digest of what the newest decision chose."""
    return next(reversed([r.chosen for r in decisions(lab) if r.chosen]))


def decisions(lab: Lab) -> list[ViabilityDecision]:
    """Every decision, oldest first."""
    return [record for _, record in lab.desk.all(ViabilityDecision)]


def told(lab: Lab, *records: Record, owners: Mapping[str, str] | None = None) -> StudbookError | None:
    """Commit records that somebody wrote by hand and signed with good keys; what replaying them says first."""
    first = len(lab.desk.entries())
    for record in records:
        lab.desk.workspace.commit(record, owner=(owners or {}).get(record.kind()))
    return replayed(lab, first)


def replayed(lab: Lab, first: int = 0) -> StudbookError | None:
    """What replaying the records from an entry on says first; None if all of them are carried."""
    for entry in lab.desk.entries()[first:]:
        try:
            check_record(lab.desk.at(entry.sequence), entry)
        except StudbookError as error:
            return error
    return None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Sets the clock of everything that writes or promotes: so many hours from now, negative for back."""

    def set_to(hours: float) -> None:
        class Shifted(datetime):
            @classmethod
            def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
                return datetime.now(UTC) + timedelta(hours=hours)

        for module in (workspace, clock_module):
            monkeypatch.setattr(module, "datetime", Shifted)

    return set_to


@pytest.fixture(scope="module")
def held_lab(prepared_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The small lab under the strict policy after a round whose winner waits for two people; only copy it."""
    folder = tmp_path_factory.mktemp("held")
    place = prepared_lab.copy(folder)
    with place.open() as lab:
        lab.keys.new(OTHER, ["champion-promotion/1", "stage-approval/1"], PERSON)
        assert change_policy(lab, folder, **STRICT).committed
        outcome = lab.round(CLUSTER)
        assert outcome.released is None and "approvals" in outcome.held
    return place


@pytest.fixture(scope="module")
def shadow_lab(held_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The same with the winner in shadow; only copy it."""
    place = held_lab.copy(tmp_path_factory.mktemp("shadow"))
    with place.open() as lab:
        for person in (PERSON, OTHER):
            assert lab.approve(winner(lab), person, ["shadow"]).committed  # type: ignore[union-attr]
        lab.release(winner(lab), "shadow")
    return place


@pytest.fixture
def held(held_lab: Place, tmp_path: Path) -> Place:
    return held_lab.copy(tmp_path / "held")


@pytest.fixture
def shadowed(shadow_lab: Place, tmp_path: Path) -> Place:
    return shadow_lab.copy(tmp_path / "shadowed")
