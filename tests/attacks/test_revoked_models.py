"""A revoked model is bred from, released or gone back to by nobody, and neither is what descends from it."""

from __future__ import annotations

from datetime import date

import pytest

from lab_fixtures import CLUSTER, PARENTS, PERSON, Place
from studbook.errors import OutOfOrder
from studbook.lab.approvals import select


def refused(what: str):
    return pytest.raises(OutOfOrder, match=what)


def test_a_revoked_parent_is_left_out_of_a_round_and_its_children_are_not_released(old_lab: Place) -> None:
    with old_lab.open() as lab:
        child = lab.desk.history("champion")[1].artifact
        lab.keys.revoke(PARENTS[0], PERSON, "trained on data we may not use")
        assert "trained on data" in lab.desk.revoked(lab.desk.find_model(PARENTS[0]))
        with refused("trained on data we may not use") as caught:
            lab.release(child, "champion", PERSON)
        assert caught.value.reason == "order.revoked"
        with refused("revoked") as caught:
            lab.round(CLUSTER, parents=[*PARENTS])
        assert lab.desk.revoked(lab.desk.find_model("base")) == ""


def test_a_parent_nobody_named_is_excluded_with_the_reason(old_lab: Place) -> None:
    with old_lab.open() as lab:
        lab.keys.revoke(PARENTS[0], PERSON, "leaked")
        excluded = {e.name: e.reason for e in select(lab.desk, CLUSTER, "", date.today()).excluded}
    assert excluded[PARENTS[0]] == "was revoked: leaked"


def test_no_channel_goes_back_to_a_revoked_model(new_lab: Place) -> None:
    with new_lab.open() as lab:
        first = lab.round(CLUSTER)
        lab.release(first.released, "champion", PERSON, "won")
        lab.keys.revoke("base", PERSON, "its licence was withdrawn")
        before = lab.desk.channels()["champion"]
        with refused("base was revoked: its licence was withdrawn"):
            lab.rollback("champion")
        assert lab.desk.channels()["champion"] == before


def test_a_winner_that_was_revoked_meanwhile_is_not_promoted_from_shadow(new_lab: Place) -> None:
    with new_lab.open() as lab:
        winner = lab.round(CLUSTER).released
        lab.keys.revoke(winner, PERSON, "answers were seen in training")
        with refused("answers were seen in training"):
            lab.release("shadow", "champion", PERSON)
        assert lab.desk.channels()["champion"].artifact == lab.desk.find_model("base")
