"""Lies about the first champion, which no round chose: it rests on one approval and one smoke, and both have to hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab_fixtures import PERSON, Place, founder, problems
from release_fixtures import OTHER, Clock, refused, told
from studbook.lab import Lab, judging
from studbook.lab.clock import today as this_day
from studbook.lab.pending import Signed, sign
from studbook.records import (
    ChampionPromotion,
    DataSource,
    ParentApproval,
    RollbackSet,
    SourceManifest,
    Tombstone,
    digest,
    replace,
)
from studbook.release import ALONE

OWNERS = {"champion-promotion/1": PERSON, "parent-approval/1": PERSON}


@pytest.fixture(scope="module")
def unreleased(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A lab with one registered model, approved until today, and no champion; only copy it."""
    folder = tmp_path_factory.mktemp("unreleased")
    place = Place(folder / "lab", folder / "keys")
    Lab.init(place.path, PERSON, place.keys)
    with place.open() as lab:
        lab.register(founder("base"))
        lab.approve("base", PERSON, until=this_day().isoformat())
    return place


@pytest.fixture
def place(unreleased: Place, tmp_path: Path) -> Place:
    return unreleased.copy(tmp_path / "copy")


@pytest.fixture
def lab(place: Place) -> Iterator[Lab]:
    with place.open() as opened:
        yield opened


def first(lab: Lab, **changes: Any) -> ChampionPromotion:
    """The first promotion of the model by ann on its newest approval, with changes."""
    evidence, approval = list(lab.desk.all(ParentApproval))[-1]
    fields: dict[str, Any] = {
        "header": lab.desk.header,
        "basis": "first",
        "artifact": approval.artifact,
        "evidence": evidence,
        "promoted_by": PERSON,
        "reason": "",
        "deployment": ALONE,
        "rollback": RollbackSet(artifact=None, record=None, deployment=ALONE),
    }
    return ChampionPromotion(**{**fields, **changes})


def smoked(lab: Lab) -> None:
    base = lab.desk.find_model("base")
    assert judging.smoke_all(lab.desk, [base])[base].passed


def reason_of(lab: Lab, record: ChampionPromotion) -> str:
    found = told(lab, record, owners=OWNERS)
    assert found is not None and found.where and found.advice
    return found.reason


def test_a_first_champion_on_an_approval_in_force_and_a_passed_smoke_stands(lab: Lab, place: Place) -> None:
    smoked(lab)
    assert told(lab, first(lab), owners=OWNERS) is None


def test_a_first_champion_that_never_passed_a_smoke(lab: Lab) -> None:
    assert reason_of(lab, first(lab)) == "order.smoke"


def test_a_first_champion_whose_approval_has_ended(lab: Lab, clock: Clock) -> None:
    smoked(lab)
    clock(24)
    assert reason_of(lab, first(lab)) == "order.approval"
    with refused("order.approval"):
        lab.release("base", "champion", PERSON)


def test_a_first_champion_on_an_approval_that_a_newer_one_took_the_place_of(lab: Lab) -> None:
    smoked(lab)
    old = first(lab)
    lab.approve("base", PERSON, reason="longer")
    assert reason_of(lab, old) == "order.approval"


def test_a_first_champion_that_was_registered_again_since_it_was_approved(lab: Lab) -> None:
    smoked(lab)
    held = lab.desk.sources()[lab.desk.find_model("base")][1]
    lab.desk.workspace.commit(replace(held, files=held.files[:-1]))
    assert reason_of(lab, first(lab)) == "order.approval"


def test_a_first_champion_that_is_no_model(lab: Lab) -> None:
    given = list(lab.desk.all(ParentApproval))[-1][1]
    source, data = next((d, m) for d, m in lab.desk.all(SourceManifest) if isinstance(m.source, DataSource))
    approval = replace(given, artifact=data.artifact.sha256, source=source)
    lab.desk.workspace.commit(approval, owner=PERSON)
    assert reason_of(lab, first(lab)) == "order.unjudged"


# -- while it waits ----------------------------------------------------------------------------------------------


def two_needed(lab: Lab, kind: str = "champion-promotion/1") -> None:
    lab.keys.new(OTHER, [kind], PERSON)
    lab.keys.rotate(PERSON, needs={kind: 2})


def test_a_first_champion_whose_approval_ended_while_it_waited(lab: Lab, place: Place, clock: Clock) -> None:
    two_needed(lab)
    signed = lab.release("base", "champion", PERSON)
    assert isinstance(signed, Signed) and not signed.committed
    clock(24)
    with refused("order.approval"):
        lab.approve(signed.digest, OTHER)
    assert lab.desk.channels()["champion"].artifact is None
    assert problems(place) == []


def test_a_first_champion_without_a_smoke_that_somebody_put_among_what_waits(lab: Lab, place: Place) -> None:
    two_needed(lab)
    signed = sign(lab.desk, first(lab), PERSON)
    with refused("order.smoke"):
        lab.approve(signed.digest, OTHER)
    assert problems(place) == []


def tombstone(lab: Lab) -> Tombstone:
    held, manifest = lab.desk.sources()[lab.desk.find_model("base")]
    return Tombstone(
        header=lab.desk.header,
        artifact=manifest.artifact.sha256,
        withdrawn=held,
        blobs=(),
        withdrawn_by="carol",
        reason="",
    )


NAMED: dict[str, Callable[[Lab], Any]] = {
    "promoted_by": lambda lab: first(lab, promoted_by="carol"),
    "approved_by": lambda lab: replace(list(lab.desk.all(ParentApproval))[-1][1], approved_by="carol"),
    "withdrawn_by": tombstone,
}


@pytest.mark.parametrize("field", NAMED)
def test_a_record_that_waits_in_the_name_of_somebody_who_does_not_sign_it(lab: Lab, place: Place, field: str) -> None:
    smoked(lab)
    record = NAMED[field](lab)
    two_needed(lab, record.kind())
    signed = sign(lab.desk, record, PERSON)
    assert not signed.committed and signed.digest == digest(record)
    with refused("authority.person") as caught:
        lab.approve(signed.digest, OTHER)
    assert caught.value.where == f"{record.kind()}: {field}" and "carol" in caught.value.message
    assert digest(record) not in lab.desk.workspace
    assert problems(place) == []
