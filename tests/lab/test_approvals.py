"""Nothing is bred from what no person approved: parents, bases and the champion alike."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from lab_fixtures import BLEND, CLUSTER, PARENTS, PERSON, PRUNE, Place, founder, problems, small_policy, small_suites
from studbook.errors import OutOfOrder
from studbook.lab import Lab, rounds
from studbook.records import ParentApproval

YESTERDAY = (date.today() - timedelta(days=1)).isoformat()


@pytest.fixture(scope="module")
def unapproved_base(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The small lab with its parents approved, and its base not; the champion is a parent."""
    folder = tmp_path_factory.mktemp("unapproved")
    place = Place(folder / "lab", folder / "keys")
    Lab.init(place.path, PERSON, place.keys, small_policy(folder))
    with place.open() as lab:
        for name in ("base", *PARENTS):
            lab.register(founder(name))
        for name in PARENTS:
            lab.approve(name, PERSON)
        lab.suites.freeze([small_suites(folder / "suites")], PERSON)
        lab.release(PARENTS[0], "champion", PERSON, "deployed")
    return place


@pytest.fixture
def lab(unapproved_base: Place, tmp_path: Path) -> Iterator[Lab]:
    with unapproved_base.copy(tmp_path / "copy").open() as opened:
        yield opened


def test_a_base_that_nobody_approved_is_not_bred_from(lab: Lab) -> None:
    with pytest.raises(OutOfOrder, match="base is registered but nobody approved it") as caught:
        lab.breed(CLUSTER, BLEND)
    assert "studbook approve base" in caught.value.advice
    assert lab.desk.candidates() == []
    lab.approve("base", PERSON)
    assert lab.breed(CLUSTER, BLEND)


def test_an_approval_of_the_base_for_another_cluster_is_not_enough(lab: Lab) -> None:
    lab.approve("base", PERSON, ["cap"])
    with pytest.raises(OutOfOrder, match="base is approved for cap only"):
        lab.breed(CLUSTER, BLEND)


def test_a_champion_whose_approval_has_ended_is_still_what_is_deployed(prepared_lab: Place, tmp_path: Path) -> None:
    place = prepared_lab.copy(tmp_path / "ended")
    with place.open() as lab:
        base = lab.desk.find_model("base")
        approval = next(a for _, a in lab.desk.all(ParentApproval) if a.artifact == base)
        ended = ParentApproval(
            header=lab.desk.header,
            artifact=base,
            source=approval.source,
            approved_by=PERSON,
            clusters=("*",),
            until=YESTERDAY,
            reason="no longer",
        )
        lab.desk.workspace.commit(ended, owner=PERSON)
        assert lab.breed(CLUSTER, PRUNE)
        assert lab.breed(CLUSTER, BLEND)
    assert problems(place) == []


def test_an_approval_that_was_revoked_lets_nobody_in(opened: Lab) -> None:
    given = {a.artifact: d for d, a in opened.desk.all(ParentApproval)}
    opened.keys.revoke(given[opened.desk.find_model(PARENTS[0])], PERSON, "signed by mistake")
    with pytest.raises(OutOfOrder, match="nobody approved it") as caught:
        opened.breed(CLUSTER, BLEND, PARENTS)
    assert caught.value.reason == "order.approval"


def test_the_day_is_that_of_the_round(lab: Lab) -> None:
    lab.approve("base", PERSON, ["*"], date.today().isoformat())
    with pytest.raises(OutOfOrder, match="base its approval ended"):
        rounds.start(lab.desk, CLUSTER, [BLEND], None, date.today() + timedelta(days=30))
