"""A router is learnt from development suites for the packages that may answer, and deployed only with its own margin."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab_fixtures import PERSON, Place, problems, run_cli
from studbook.errors import RecordRefused, StudbookError, UsageError
from studbook.lab import Lab, route_learning
from studbook.lab.deployments import check_deployment
from studbook.lab.frozen import of_role
from studbook.lab.packages import Wanted
from studbook.lab.route_learning import read_rules
from studbook.lab.segments import open_router
from studbook.lab.specialists import OWN, specialists
from studbook.records import Deployment, RouterState, RouteRule, RouteThreshold, SuiteManifest, replace
from studbook.runtime.routing.thresholds import confidence_threshold

RULES = (RouteRule(text="rot ", place="start", cluster="rot"),)


def deployed(router: str | None, thresholds: str | None) -> Deployment:
    return Deployment(package=None, router=router, thresholds=thresholds, stack=(), cache=None)


def why(lab: Lab, fallback: str | None = None) -> dict[str, str]:
    return {c.id: c.why for c in specialists(lab.desk, fallback).candidates}


def refused(reason: str, lab: Lab, deployment: Deployment) -> None:
    with pytest.raises(StudbookError) as caught:
        check_deployment(lab.desk, lab.desk.champion(), deployment)
    assert caught.value.reason == reason


def test_a_router_knows_the_clusters_of_the_packages_and_asks_for_a_lead_that_was_measured(host: Place) -> None:
    with host.open() as lab:
        found = lab.routes.learn()
        assert (found.clusters, found.fallback, found.rules) == (("odd", "rot"), OWN, 0)
        assert found.thresholds
        # 12 of every 24 items were held back, of cap too, which nobody here answers for.
        assert found.items == 36
        assert 0.9 * found.led <= found.right <= found.led < found.items
        router = open_router(lab.desk, found.router, found.thresholds)
        assert router.known.state.fallback == OWN
        assert router.threshold and router.threshold.value == found.margin
        # Learnt again it is the same, to the byte.
        assert lab.routes.learn() == found
    assert problems(host) == []


def test_nothing_that_judges_is_learnt_from(host: Place) -> None:
    with host.open() as lab:
        before = lab.routes.learn()
        get = lab.desk.workspace.get
        _, lock = lab.desk.suites_lock
        kept = tuple(d for d in lock.suites if get(d, SuiteManifest).role == "development")
        lab.desk.workspace.commit(replace(lock, lock_version=lock.lock_version + 1, suites=kept))
        assert lab.routes.learn() == before


def test_what_was_learnt_from_one_suite_measures_no_margin_in_another(
    host: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with host.open() as lab:
        first, *others = [s for s in of_role(lab.desk, "development") if s.manifest.dimension == "task"]
        items = SimpleNamespace(manifest=first.manifest, items=first.items[1:])
        monkeypatch.setattr(route_learning, "of_role", lambda *_: (first, items, *others))
        learnt, held = route_learning._prompts(lab.desk)
        assert {p for prompts in learnt.values() for p in prompts}.isdisjoint(p for ps in held.values() for p in ps)


def test_rules_alone_serve_a_single_specialist_and_need_no_margin(host: Place) -> None:
    with host.open() as lab:
        lab.packages.suspend("odd")
        with pytest.raises(UsageError) as caught:
            lab.routes.learn()
        assert caught.value.reason == "route.examples"
        found = lab.routes.learn(RULES)
        assert (found.thresholds, found.clusters, found.rules) == (None, (), 1)
        check_deployment(lab.desk, lab.desk.champion(), deployed(found.router, None))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rules": [RouteRule(text="x", place="word", cluster="nobody")]}, "usage.cluster"),
        ({"fallback": "nobody"}, "usage.name"),
        ({"share": 0.0}, "usage.share"),
        ({"share": float("nan")}, "usage.share"),
    ],
)
def test_what_cannot_be_learnt_is_refused_and_nothing_is_entered(host: Place, changes: dict, reason: str) -> None:
    with host.open() as lab:
        with pytest.raises(UsageError) as caught:
            lab.routes.learn(**changes)
        assert caught.value.reason == reason
        assert not list(lab.desk.all(RouterState))


def test_a_package_that_stands_ready_competes_with_nobody(host: Place) -> None:
    with host.open() as lab:
        lab.packages.make("all", "base", Wanted(version="1.0.0", clusters=("cap", "odd", "rot")))
        lab.packages.install("all")
        found = lab.routes.learn(fallback="all")
        assert (found.fallback, found.clusters) == ("all", ("odd", "rot"))


def test_who_may_not_answer_stands_there_with_a_reason(host: Place) -> None:
    with host.open() as lab:
        lab.packages.make("mute", "cap-rot", Wanted(version="1.0.0", clusters=("cap",), permissions=("answer",)))
        lab.packages.install("mute")
        lab.packages.suspend("odd")
        assert why(lab) == {"mute": "package.permission", "odd": "package.suspended", "rot": ""}
        lab.packages.resume("odd")
        lab.packages.quarantine("rot")
        assert why(lab) == {"mute": "package.permission", "odd": "", "rot": "package.quarantined"}


def test_of_an_id_the_newest_revision_that_may_answer_is_asked(host: Place) -> None:
    with host.open() as lab:
        lab.packages.make("rot", "cap-rot", Wanted(version="1.1.0", clusters=("rot",)))
        lab.packages.install("rot")
        newest = {c.id: c.revision for c in specialists(lab.desk).candidates}["rot"]
        assert newest == lab.packages.show("rot").revision
        lab.packages.suspend("rot")
        older = {c.id: c for c in specialists(lab.desk).candidates}["rot"]
        assert older.eligible
        assert older.revision != newest


def test_a_partition_says_who_answers_for_what(host: Place) -> None:
    with host.open() as lab:
        lab.packages.make("both", "dup-odd", Wanted(version="1.0.0", clusters=("odd", "rot")))
        lab.packages.install("both")
        partition, _ = lab.partitions.declare({"both": ["odd"], "rot": ["rot"]})
        found = specialists(lab.desk)
        assert found.partition == partition
        assert {c.id: (c.clusters, c.why) for c in found.candidates} == {
            "both": (("odd",), ""),
            "odd": (("odd",), "route.partition"),
            "rot": (("rot",), ""),
        }
        # Who stands ready stands beside it.
        assert why(lab, "odd")["odd"] == ""


def test_a_deployment_names_a_router_and_the_margin_that_was_measured_with_it(host: Place) -> None:
    with host.open() as lab:
        found, other = lab.routes.learn(), lab.routes.learn(RULES)
        check_deployment(lab.desk, lab.desk.champion(), deployed(found.router, found.thresholds))
        refused("release.deployment", lab, deployed(found.router, other.thresholds))
        refused("release.deployment", lab, deployed(None, found.thresholds))
        refused("order.deployment", lab, deployed(found.thresholds, None))
        refused("order.deployment", lab, deployed(lab.packages.show("rot").revision, None))
        refused("order.deployment", lab, deployed(found.router, found.router))
        sure = confidence_threshold(lab.desk.header, [-1.0], [True], 0.9, engine="1" * 64, model=lab.desk.champion())
        refused("release.deployment", lab, deployed(found.router, lab.desk.workspace.commit(sure)))
        lab.keys.revoke(found.router, PERSON, "learnt from the wrong suites")
        refused("order.deployment", lab, deployed(found.router, found.thresholds))


@pytest.mark.parametrize("text", ["{}", '[{"text": "x"}]', '[{"text": "", "place": "word", "cluster": "rot"}]', "[1"])
def test_a_file_that_holds_no_rules_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "rules.json").write_text(text)
    with pytest.raises(RecordRefused):
        read_rules(tmp_path / "rules.json")


def test_the_command_line_learns_and_says_how_to_release_it(host: Place, tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text('[{"text": "rot ", "place": "start", "cluster": "rot"}]')
    told = run_cli(host, "--json", "routes", "learn", "--rules", str(rules))
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert found["rules"] == 1
    again = run_cli(host, "routes", "learn", "--rules", str(rules))
    assert f"--router {found['router']} --thresholds {found['thresholds']}" in again.stdout
    with host.open(writer=False) as lab:
        assert [d for d, _ in lab.desk.all(RouteThreshold)] == [found["thresholds"]]
