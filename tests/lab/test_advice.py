"""What the slow loop says of a lab: packages, routes that were logged, and what is active."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from authority_fixtures import HEADER
from lab_fixtures import Place
from release_fixtures import refused
from studbook.cli.commands import commands
from studbook.lab import Lab
from studbook.lab.package_life import usable
from studbook.lab.residence import open_residents
from studbook.lab.segments import install_router, keep_segments, open_log
from studbook.records import digest
from studbook.runtime.arenas import Budgets, Limits
from studbook.runtime.routing.router import Candidate, RouteRequest
from studbook.runtime.routing.state import learn_state
from studbook.runtime.routing.tell import route_record
from studbook.runtime.routing.thresholds import margin_threshold

EXAMPLES = {name: [f"{name} {word}>" for word in ("abc", "dog", "house", "trees")] for name in ("rot", "odd")}
BUDGETS = Budgets(installed=4, active=1, parallel=1, host=Limits(total=256 << 20, staging=64 << 20))


def ask(lab: Lab, *names: str, keep: bool = True) -> None:
    """Log what a host would decide about requests for these skills."""
    state, data = learn_state(HEADER, EXAMPLES)
    margin = margin_threshold(HEADER, [0.01, 0.2], [True, True], 0.9, encoder=digest(state))
    router, log = install_router(lab.desk, state, data, margin), open_log(lab.desk)
    modules = [
        Candidate(u.package.id, u.revision, u.package.clusters, int(u.package.envelope.decoded_bytes.value))
        for u in usable(lab.desk)[0]
    ]
    for number, name in enumerate(names):
        asked = RouteRequest(f"{name} word{number}>")
        log.append(route_record(HEADER, router, asked, router.route(asked, modules), keep_prompt=keep))
    log.close()
    keep_segments(lab.desk)


@pytest.mark.parametrize("keep", [True, False])
def test_what_is_asked_for_takes_the_place_of_what_is_not(host: Place, keep: bool) -> None:
    with host.open() as lab:
        revisions = [row.revision for row in lab.packages.list()]
        residents = open_residents(lab.desk, revisions, BUDGETS)
        residents.activate(["odd"])
        residents.close()
        ask(lab, *["odd"] * 20, *["rot"] * 20, keep=keep)
        found = lab.routes.advise(10)
        assert (found.windows, found.requests, found.unknown) == (2, 20, 0)
        assert {(c.act, c.package, c.other) for c in found.changes} & {
            ("replace", "odd", "rot"),
            ("deactivate", "odd", ""),
        }
        ask(lab, *["odd"] * 20, keep=keep)
        assert [(c.act, c.reason) for c in lab.routes.advise(10).changes] == [("no-op", "controller.steady")]
        assert lab.verify().ok


def test_without_routes_or_whole_windows_nothing_is_proposed(host: Place) -> None:
    with host.open() as lab:
        with refused("route.none"):
            lab.routes.advise()
        ask(lab, "rot", "odd")
        assert [(c.act, c.reason) for c in lab.routes.advise(10).changes] == [("no-op", "controller.steady")]


def test_the_verb_prints_what_the_lab_says(host: Place) -> None:
    with host.open() as lab:
        ask(lab, *["rot"] * 20)
    words = ["--lab", str(host.path), "--keys", str(host.keys)]
    done = CliRunner().invoke(commands, [*words, "routes", "advise", "--window", "10"])
    assert done.exit_code == 0, done.output
    assert "2 windows with 20 requests" in done.output and "activate rot (controller.demand)" in done.output
    told = json.loads(CliRunner().invoke(commands, [*words, "--json", "routes", "advise", "--window", "10"]).stdout)
    assert told["changes"][0] == {
        "act": "activate",
        "package": "rot",
        "other": "",
        "cluster": "",
        "reason": "controller.demand",
    }
