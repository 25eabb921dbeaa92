"""A revoked model is bred from, released or gone back to by nobody, and neither is what descends from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab_fixtures import CLUSTER, PARENTS, PERSON, Place, problems
from studbook.errors import OutOfOrder
from studbook.lab import Lab
from studbook.lab.approvals import select
from studbook.lab.clock import today as this_day
from studbook.records import ModelSource, SourceManifest


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
        excluded = {e.name: e.reason for e in select(lab.desk, CLUSTER, "", this_day()).excluded}
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


# -- data --------------------------------------------------------------------------------------------------------


def data_of(lab: Lab, name: str) -> str:
    """Digest of the first data manifest that a registered model brings and the shared base does not."""
    held = lab.desk.sources()
    source, base = (held[lab.desk.find_model(n)][1].source for n in (name, "base"))
    assert isinstance(source, ModelSource) and isinstance(base, ModelSource)
    return next(d for d in source.data if d not in base.data)


def counted_no_longer(lab: Lab) -> set[str]:
    """Everything here that was revoked or withdrawn, or descends from that, as the questions about the past say it."""
    return {d.artifact for d in lab.descendants(revoked=True)} | set(lab.desk.gone())


def test_what_was_trained_on_revoked_data_is_neither_bred_nor_promoted_nor_published(
    new_lab: Place, tmp_path: Path
) -> None:
    with new_lab.open() as lab:
        winner = lab.round(CLUSTER).released
        data = data_of(lab, PARENTS[0])
        lab.keys.revoke(data, PERSON, "taken without leave")
        assert lab.desk.revoked(lab.desk.find_model("base")) == ""
        assert lab.desk.called(data) in lab.desk.revoked(winner)
        for act in (
            lambda: lab.round(CLUSTER, parents=[*PARENTS]),
            lambda: lab.release("shadow", "champion", PERSON),
            lambda: lab.approve(winner, PERSON, ["champion"]),
        ):
            with refused("taken without leave"):
                act()
        excluded = {e.name: e.reason for e in select(lab.desk, CLUSTER, "", this_day()).excluded}
        assert "taken without leave" in excluded[PARENTS[0]]
        (left,) = lab.publish(tmp_path / "public").left_out
        assert left.startswith("shadow:") and "taken without leave" in left
    assert problems(new_lab) == []


@pytest.mark.parametrize("how", ["data", "record", "withdrawn", "artifact"])
def test_what_is_refused_and_what_is_listed_as_revoked_are_the_same(old_lab: Place, how: str) -> None:
    with old_lab.open() as lab:
        desk, parent = lab.desk, lab.desk.find_model(PARENTS[0])
        if how == "withdrawn":
            lab.withdraw(PARENTS[0], PERSON, "a person asked")
        else:
            what = {"data": data_of(lab, PARENTS[0]), "record": desk.sources()[parent][0], "artifact": parent}[how]
            lab.keys.revoke(what, PERSON, "no longer")
        everything = {*desk.registered(), *(m.artifact.sha256 for _, m in desk.candidates())}
        refused_ = {a for a in everything if desk.revoked(a)}
        assert parent in refused_ and len(refused_) > 1 and desk.find_model("base") not in refused_
        assert refused_ == counted_no_longer(lab) & everything


def test_every_manifest_of_a_revoked_artifact_is_revoked_with_it(old_lab: Place) -> None:
    with old_lab.open() as lab:
        held, manifest = lab.desk.sources()[lab.desk.find_model(PARENTS[0])]
        assert isinstance(manifest, SourceManifest)
        lab.keys.revoke(PARENTS[0], PERSON, "leaked")
        assert {held, manifest.artifact.sha256} <= set(lab.desk.gone())
