"""A specialist is judged by its own clusters alone, enters no channel, and verify derives all of it again."""

from __future__ import annotations

import pytest

from lab_fixtures import BLEND, PERSON, Place, problems, run_cli
from studbook.errors import OutOfOrder, UsageError
from studbook.lab import Lab
from studbook.lab.admissions import admitted_to_channels
from studbook.lab.descendants import descendants
from studbook.lab.packages import Wanted
from studbook.records import (
    AdmissionRecord,
    FailureCluster,
    PromotionTemplate,
    ReleaseRecord,
    ViabilityDecision,
    digest,
    replace,
)
from studbook.release import ALONE, admit, check_carried, enter
from studbook.viability.contenders import judged_by

PAIR = Wanted(version="1.0.0", clusters=("odd", "rot"))


@pytest.fixture(scope="module")
def specialist_lab(prepared_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A round for a specialist of two clusters was held and won, and its operator routed."""
    place = prepared_lab.copy(tmp_path_factory.mktemp("specialist"))
    with place.open() as lab:
        outcome = lab.round("rot", [BLEND], scope=("rot", "odd"))
        assert outcome.record.action == "package", outcome.record.no_op.reasons
        assert not outcome.held
        assert outcome.released is None
        lab.policies.route("blend/1", PERSON)
        lab.packages.contract(PERSON)
    return place


def decision(lab: Lab) -> ViabilityDecision:
    return list(lab.desk.all(ViabilityDecision))[-1][1]


def test_its_own_clusters_are_protected_and_no_other(specialist_lab: Place):
    with specialist_lab.open(writer=False) as lab:
        record = decision(lab)
        cluster = lab.desk.workspace.get(record.cluster, FailureCluster)
        assert cluster.scope == ("odd", "rot")
        rows = [c for s in record.standings for c in s.comparisons if c.test == "non-inferiority"]
        assert {row.on for row in rows} == {"odd", "rot", "calibration"}
        assert [s.action for s in record.standings] == ["package"]


def test_a_wait_for_the_champion_holds_no_specialist(specialist_lab: Place):
    with specialist_lab.open(writer=False) as lab:
        policy = lab.desk.policy[1]
        cluster = lab.desk.workspace.get(decision(lab).cluster, FailureCluster)
        rules = judged_by(policy, cluster)
        assert rules.protected == cluster.scope
        assert (rules.hysteresis.cooldown_hours, rules.hysteresis.window_decisions) == (0, 0)
        assert rules.gates == policy.gates
        assert judged_by(policy, replace(cluster, scope=())) == policy


def test_its_template_is_for_a_package_and_every_gate_is_passed(specialist_lab: Place):
    with specialist_lab.open(writer=False) as lab:
        admission = list(lab.desk.all(AdmissionRecord))[-1][1]
        template = lab.desk.workspace.get(admission.template, PromotionTemplate)
        assert template.stage == "package"
        assert {"confirmation", "recompute", "claim", "runtime-smoke"} <= {g.name for g in template.gates}
        assert not template.open_gates
        assert admitted_to_channels(lab.desk) == []
        assert admission.artifact not in descendants(lab.desk)
    assert problems(specialist_lab) == []


@pytest.mark.parametrize("channel", ["shadow", "champion"])
def test_it_enters_no_channel(specialist_lab: Place, tmp_path, channel):
    with specialist_lab.copy(tmp_path).open() as lab:
        chosen = decision(lab).chosen
        assert chosen
        for act in (lambda: lab.release(chosen, channel, PERSON), lambda: lab.approve(chosen, PERSON, [channel])):
            with pytest.raises(OutOfOrder) as caught:
                act()
            assert caught.value.reason == "order.specialist"
        assert lab.desk.channels()[channel].artifact != chosen


def test_a_forged_move_of_it_to_shadow_is_refused_by_verify(specialist_lab: Place, tmp_path):
    place = specialist_lab.copy(tmp_path)
    with place.open() as lab:
        name, admission = list(lab.desk.all(AdmissionRecord))[-1]
        move = enter(lab.desk.header, "shadow", admission, name, ALONE, lab.desk.channels()["shadow"])
        lab.desk.workspace.commit(move)
    assert any("release-record" in where for where in problems(place))


def test_a_template_for_shadow_that_cites_its_decision_is_refused(specialist_lab: Place, tmp_path):
    place = specialist_lab.copy(tmp_path)
    with place.open() as lab:
        admission = list(lab.desk.all(AdmissionRecord))[-1][1]
        template = replace(lab.desk.workspace.get(admission.template, PromotionTemplate), stage="shadow")
        with pytest.raises(OutOfOrder) as caught:
            check_carried(template.artifact, "shadow", template, decision(lab))
        assert caught.value.reason == "order.specialist"
        lab.desk.workspace.commit(template)
        lab.desk.workspace.commit(admit(lab.desk.header, template, digest(template), admission.claim))
    assert any("admission-record" in where for where in problems(place))
    with place.open(writer=False) as lab:
        assert not list(lab.desk.all(ReleaseRecord))


def test_it_is_packaged_for_its_scope_and_nothing_beyond(specialist_lab: Place, tmp_path):
    place = specialist_lab.copy(tmp_path)
    with place.open() as lab:
        chosen = decision(lab).chosen
        assert chosen
        for beyond in (("cap",), ("cap", "rot")):
            with pytest.raises(OutOfOrder, match="was admitted for odd, rot, and not for cap") as caught:
                lab.packages.make("pair", chosen, Wanted(version="1.0.0", clusters=beyond))
            assert caught.value.reason == "package.basis"
        _, package = lab.packages.make("pair", chosen, PAIR)
        assert package.evidence.basis == "admission"
        assert lab.packages.install("pair").state == "verified"
    assert problems(place) == []


def test_it_is_stale_once_another_champion_stands(specialist_lab: Place, tmp_path):
    place = specialist_lab.copy(tmp_path)
    with place.open() as lab:
        chosen = decision(lab).chosen
        assert chosen
        lab.packages.make("pair", chosen, PAIR)
        lab.packages.install("pair")
        lab.packages.suspend("pair")
        whole = lab.round("rot", [BLEND])
        assert whole.released == chosen, whole.held or whole.record.no_op.reasons
        lab.release(chosen, "champion", PERSON, "won as a whole")
        # It is the champion now, so nobody is left that it would have to beat.
        assert lab.packages.resume("pair").state == "verified"
        lab.packages.suspend("pair")
        lab.rollback("champion", "back to the base")
        lab.rollback("shadow", "and out of shadow")
        assert lab.packages.resume("pair").state == "verified"


def test_a_scope_without_suites_is_refused_before_anything_is_bred(new_lab: Place):
    with new_lab.open() as lab:
        with pytest.raises(UsageError):
            lab.round("rot", [BLEND], scope=("rot", "nothing"))
        assert not lab.desk.candidates()


def test_the_command_line_asks_for_a_specialist(new_lab: Place):
    done = run_cli(new_lab, "round", "rot", "--also", "odd")
    assert done.returncode == 2
    assert "--specialist" in done.stderr
    done = run_cli(new_lab, "round", "rot", "--specialist", "--also", "odd")
    assert done.returncode == 0, done.stderr
    assert "package" in done.stdout
