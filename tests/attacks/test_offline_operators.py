"""Outputs of an operator that is offline: deployed here, offered to nobody outside; and routes without evidence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lab_fixtures import BLEND, CLUSTER, PERSON, Place, problems
from release_fixtures import edited, refused, told
from studbook.errors import OutOfOrder, UsageError
from studbook.lab import Lab
from studbook.lab.publish import draw
from studbook.lab.routing import admitted_outputs, kept_inside, operators_of
from studbook.records import AdmissionRecord, replace

UNTIL = "2099-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def deployed_lab(prepared_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A lab whose champion was made by an operator that is offline."""
    place = prepared_lab.copy(tmp_path_factory.mktemp("deployed"))
    with place.open() as lab:
        child = lab.round(CLUSTER, [BLEND]).released
        assert child is not None
        lab.release(child, "champion", PERSON, "won")
    return place


@pytest.fixture
def deployed(deployed_lab: Place, tmp_path: Path) -> Place:
    return deployed_lab.copy(tmp_path / "deployed")


def grants(lab: Lab, operator: str, **changes: Any) -> list[dict[str, Any]]:
    """The operators of the policy in force as people write them, one of them changed."""
    return [g | changes if g["operator"] == operator else g for g in lab.policies.show()["operators"]]


def refused_name() -> pytest.RaisesExc[UsageError]:
    return pytest.raises(UsageError, match="is not the name of a model here")


def admission(lab: Lab) -> str:
    return next(iter(lab.desk.all(AdmissionRecord)))[0]


def test_what_an_offline_operator_made_is_champion_here_and_never_published(deployed: Place, tmp_path: Path) -> None:
    with deployed.open() as lab:
        child = lab.desk.champion()
        assert operators_of(lab.desk, child) == ("blend/1",)
        found = lab.publish(tmp_path / "public")
        assert found.channels == ()
        assert len(found.left_out) == 2
        assert all("blend/1, which is offline" in why and "studbook policy route" in why for why in found.left_out)
        assert not list((tmp_path / "public").rglob(f"*{child}*"))
        # A source was made by no operator of this lab.
        assert kept_inside(lab.desk, lab.desk.find_model("base")) == ""
    assert problems(deployed) == []


def test_a_policy_that_cites_its_admitted_outputs_opens_the_door_and_a_revocation_shuts_it(
    deployed: Place, tmp_path: Path
) -> None:
    with deployed.open() as lab:
        cited = admitted_outputs(lab.desk, "blend/1")
        assert cited == (admission(lab),)
        assert lab.policies.route("champion", PERSON).committed
        grant = next(g for g in lab.desk.policy[1].operators if g.operator == "blend/1")
        assert (grant.status, grant.admitted) == ("routed", cited)
        assert {c.channel for c in lab.publish(tmp_path / "public").channels} == {"shadow", "champion"}
        with refused("policy.admitted"):
            lab.policies.route("blend/1", PERSON)
        lab.keys.revoke(cited[0], PERSON, "its gates were a mistake")
        assert "none counts any longer" in kept_inside(lab.desk, lab.desk.champion())
        assert draw(lab.desk, UNTIL).channels == ()
    assert problems(deployed) == []


def test_an_operator_is_not_routed_on_nothing_or_on_another_ones_output(deployed: Place, tmp_path: Path) -> None:
    with deployed.open() as lab:
        with pytest.raises(OutOfOrder, match="no output of it that counts was admitted"):
            lab.policies.route("prune/1", PERSON)
        with refused_name():
            lab.policies.route("soup/9", PERSON)
        for operator, cited, reason in (
            ("blend/1", [], "policy.field"),
            ("prune/1", [admission(lab)], "policy.admitted"),
            ("blend/1", [lab.desk.policy[0]], "policy.admitted"),
        ):
            changed = {"operators": grants(lab, operator, status="routed", admitted=cited)}
            with refused(reason):
                lab.policies.sign(edited(lab, tmp_path, changed), PERSON)
        with refused("policy.field"):
            changed = {"operators": grants(lab, "blend/1", admitted=[admission(lab)])}
            lab.policies.sign(edited(lab, tmp_path, changed), PERSON)
        lab.keys.revoke(admission(lab), PERSON, "its gates were a mistake")
        with pytest.raises(OutOfOrder, match="no output of it that counts was admitted"):
            lab.policies.route("blend/1", PERSON)


def test_a_policy_that_routes_on_another_ones_output_is_found_by_verify(deployed: Place) -> None:
    with deployed.open() as lab:
        policy = lab.desk.policy[1]
        lie = tuple(
            type(g)(operator=g.operator, status="routed", admitted=(admission(lab),), bounds=g.bounds)
            if g.operator == "prune/1"
            else g
            for g in policy.operators
        )
        error = told(lab, replace(policy, policy_version=policy.policy_version + 1, operators=lie))
        assert error is not None
        assert error.reason == "policy.admitted"


def test_a_snapshot_that_offers_what_is_offline_is_found_by_verify(deployed: Place) -> None:
    with deployed.open() as lab:
        desk = lab.desk
        lab.policies.route("blend/1", PERSON)
        offered = draw(desk, UNTIL).channels
        changed = {"operators": grants(lab, "blend/1", status="offline", admitted=[])}
        assert lab.policies.sign(edited(lab, deployed.path.parent, changed), PERSON).committed
        assert offered
        soon = (datetime.now(UTC) + timedelta(days=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
        error = told(lab, replace(draw(desk, soon), channels=offered))
        assert error is not None
        assert "channels" in str(error)
