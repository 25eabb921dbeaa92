"""Waits and accounts of the policy in a whole lab, and decisions that a stolen key wrote to get around them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from lab_fixtures import BLEND, CLUSTER, PERSON, PRUNE, Place, problems
from release_fixtures import Clock, change_policy, decisions, refused, told
from studbook.errors import DigestDiffers
from studbook.lab import Lab
from studbook.lab.judging import contenders
from studbook.lab.situations import diverse, situation
from studbook.records import Retired, Scorecard, replace

CALM: dict[str, Any] = {
    "removal_threshold": 0.0,
    "window_days": 0,
    "window_decisions": 0,
    "cooldown_hours": 48,
    "smaller_by": 0.0,
}


@pytest.fixture(scope="module")
def calm_lab(prepared_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The small lab under two days of cooldown with a winner in shadow, and every account reserved."""
    folder = tmp_path_factory.mktemp("calm")
    place = prepared_lab.copy(folder)
    with place.open() as lab:
        accounts = [
            {"account": "memory", "capacity": 10**9, "minimum": 1},
            {"account": "model-calls", "capacity": 10**6, "minimum": 1},
            {"account": "sealed-openings", "capacity": 20, "minimum": 0},
            {"account": "attention", "capacity": 10, "minimum": 1},
        ]
        reserve = lab.policies.show()["reserve"] | {"accounts": accounts}
        assert change_policy(lab, folder, hysteresis=CALM, reserve=reserve).committed
        assert lab.round(CLUSTER, [BLEND]).released
    return place


@pytest.fixture
def calm(calm_lab: Place, tmp_path: Path) -> Place:
    return calm_lab.copy(tmp_path / "calm")


def test_a_decision_shows_every_account_that_the_policy_names(calm: Place, tmp_path: Path) -> None:
    with calm.open(writer=False) as lab:
        (found,) = decisions(lab)
        rows = {c.on: c for c in found.standings[0].comparisons if c.on.endswith("-reserve")}
        named = ("storage", "memory", "model-calls", "sealed-openings", "attention")
        assert list(rows) == [f"{name}-reserve" for name in named]
        assert rows["sealed-openings-reserve"].difference == 19.0
        assert all(row.passed for row in rows.values())
        pack = lab.review_pack("shadow", tmp_path / "pack").review.verdict
        assert pack is not None
        shown = {row.on: row.unit for row in pack.rows if row.on in rows}
        assert list(shown.values()) == ["bytes", "decoded-bytes", "model-calls", "sealed-openings", "acts-of-people"]
        assert found.as_of is not None and found.as_of <= lab.desk.entries()[-1].time
    assert problems(calm) == []


def test_after_a_promotion_and_after_a_rollback_the_champion_stands_for_a_while(calm: Place, clock: Clock) -> None:
    with calm.open() as lab:
        child = lab.desk.channels()["shadow"].artifact
        lab.release("shadow", "champion", PERSON, "won")
        again = lab.round(CLUSTER, [PRUNE]).record
        assert (again.action, again.chosen) == ("no-op", None)
        assert again.no_op.reasons[0].startswith("cooldown: 0.0 of 48 hours since the champion last moved")
        # The decision of before the promotion speaks for the child again once the old champion is back.
        clock(1)
        lab.rollback("champion", "back to the old one")
        with refused("order.cooldown"):
            lab.release("shadow", "champion", PERSON, "at once")
        clock(49.5)
        assert lab.desk.channels()["shadow"].artifact == child
        lab.release("shadow", "champion", PERSON, "two days later")
        assert lab.desk.champion() == child
    assert problems(calm) == []


def forged(lab: Lab, **changes: Any) -> Any:
    """What replaying says of the first decision with other fields; the champion it speaks of is in force again."""
    return told(lab, replace(decisions(lab)[0], **changes))


def test_a_decision_that_was_made_tomorrow_or_yesterday_is_found_by_verify(calm: Place) -> None:
    with calm.open() as lab:
        honest = decisions(lab)[0].as_of
        assert honest is not None
        for moment in ("2099-01-01T00:00:00.000000Z", "2001-01-01T00:00:00.000000Z", None):
            found = forged(lab, as_of=moment)
            assert isinstance(found, DigestDiffers) and found.reason == "decision.moment" and found.advice
    assert len(problems(calm)) == 3


def test_a_moment_where_the_policy_measures_no_time_is_found_by_verify(old_lab: Place) -> None:
    with old_lab.open() as lab:
        found = forged(lab, as_of=lab.desk.entries()[-1].time)
        assert found is not None and found.reason == "decision.moment"


def test_a_model_that_a_decision_retires_without_a_rule_is_found_by_verify(old_lab: Place) -> None:
    with old_lab.open() as lab:
        last = decisions(lab)[0]
        rival = Retired(artifact=last.parents[0], name="rival", scorecard=last.parent_cards[0], reasons=("in the way",))
        assert isinstance(forged(lab, retired=(rival,)), DigestDiffers)


def test_an_action_that_no_rule_gives_is_found_by_verify(old_lab: Place) -> None:
    with old_lab.open() as lab:
        for action in ("keep", "merge-compress", "no-op"):
            assert isinstance(forged(lab, action=action), DigestDiffers)


def test_candidates_are_kept_for_diversity_only_where_the_policy_breeds_from_them(lived_lab: Place) -> None:
    with lived_lab.open(writer=False) as lab:
        desk, found = lab.desk, decisions(lab)[0]
        development = next(c for c in map(desk.scorecard, found.champion_cards) if c.role == "development")
        field = contenders(desk, [s.manifest for s in found.standings])
        policy = desk.policy[1]
        assert diverse(policy, development, field) == frozenset()

        def kept(most: int) -> frozenset[str]:
            rule = structs.replace(policy.population, descendants="diverse", diverse=most)
            return diverse(replace(policy, population=rule), development, field)

        everybody = {c.artifact for c in field}
        assert kept(64) and kept(64) <= everybody
        assert len(kept(1)) == 1 and kept(1) <= kept(64)
        assert kept(0) == frozenset()


def test_a_former_champion_is_whom_no_channel_and_no_way_back_holds(old_lab: Place) -> None:
    with old_lab.open() as lab:
        child = decisions(lab)[0].chosen
        assert child is not None and formers(lab) == {}
        lab.rollback("shadow", "out of every channel")
        ((artifact, card),) = formers(lab).items()
        assert artifact == child and card is not None
        assert (card.artifact, card.role) == (child, "selection")


def formers(lab: Lab) -> dict[str, Scorecard | None]:
    cards = {c.role: c for c in map(lab.desk.scorecard, decisions(lab)[0].champion_cards)}
    selection, development = cards["selection"], cards["development"]
    return {f.artifact: f.card for f in situation(lab.desk, selection, development, [], None).former}
