"""The route log in a lab: written, kept in the ledger, looked into, and found out when somebody changed it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from lab_fixtures import Place
from routing_fixtures import EXAMPLES, MODULES, RULES
from studbook.cli.commands import commands
from studbook.errors import DigestDiffers, UsageError
from studbook.lab import Lab
from studbook.lab.desk import make_header
from studbook.lab.segments import install_router, keep_segments, open_log, routes_folder
from studbook.records import RouteSegment, replace
from studbook.runtime.routing.router import Router, RouteRequest
from studbook.runtime.routing.state import learn_state
from studbook.runtime.routing.tell import route_record
from studbook.runtime.routing.thresholds import margin_threshold

PROMPTS = ("rev abc>", "rve abc>", "brk ([>", "who?")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    Lab.init(tmp_path / "lab", "ann")
    yield Place(tmp_path / "lab", tmp_path / "lab.keys")


def install(lab: Lab) -> Router:
    header = make_header("ann")
    state, data = learn_state(header, EXAMPLES, RULES, "all")
    first = install_router(lab.desk, state, data)
    threshold = margin_threshold(header, [0.01, 0.4], [True, True], 0.9, encoder=first.known.digest)
    return install_router(lab.desk, state, data, threshold)


def serve(lab: Lab, router: Router, *, keep: bool = True, close: bool = True) -> None:
    """Log a few decisions as a host does."""
    log = open_log(lab.desk)
    for prompt in PROMPTS:
        asked = RouteRequest(prompt)
        log.append(route_record(make_header("ann"), router, asked, router.route(asked, MODULES), keep_prompt=keep))
    if close:
        log.close()
        keep_segments(lab.desk)


def run(place: Place, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(commands, ["--lab", str(place.path), "--keys", str(place.keys), *words])
    return done.exit_code, done.output


def test_routes_are_kept_in_the_ledger_and_replay_to_the_same_choice_after_a_restart(place: Place) -> None:
    with place.open() as lab:
        serve(lab, install(lab))
        assert not list(routes_folder(place.path).iterdir())
    with place.open() as lab:
        serve(lab, install(lab), keep=False)
        assert [(row.segment, row.lines, row.where) for row in lab.routes.list()] == [(1, 4, "kept"), (2, 4, "kept")]
        told = lab.routes.verify()
        assert (told.segments, told.routes, told.replayed, told.from_prompts, told.unsealed) == (2, 8, 8, 4, 0)
        assert lab.routes.replay("2:1", PROMPTS[1]).from_prompts == 1
        assert lab.verify().ok


def test_what_a_host_that_was_killed_left_is_sealed_and_kept_by_the_next(place: Place) -> None:
    with place.open() as lab:
        router = install(lab)
        serve(lab, router, close=False)
        assert lab.routes.verify().unsealed == 4
        assert lab.verify().ok
    with place.open() as lab:
        serve(lab, router)
        assert [(row.recovered, row.where) for row in lab.routes.list()] == [(4, "kept"), (0, "kept")]
        assert lab.verify().ok


def test_a_crash_between_the_ledger_and_the_folder_leaves_nothing_twice(place: Place) -> None:
    with place.open() as lab:
        router = install(lab)
        log = open_log(lab.desk)
        log.close()
        loose = {path: path.read_bytes() for path in routes_folder(place.path).iterdir()}
        keep_segments(lab.desk)
        for path, data in loose.items():
            path.write_bytes(data)
        assert len(lab.routes.list()) == 1
        assert lab.verify().ok
        serve(lab, router)
        assert [row.segment for row in lab.routes.list()] == [1, 2]
        assert not list(routes_folder(place.path).iterdir())


def test_a_changed_line_is_found_by_verify_and_named(place: Place) -> None:
    with place.open() as lab:
        serve(lab, install(lab), close=False)
    (lines,) = routes_folder(place.path).glob("*.jsonl")
    lines.write_bytes(lines.read_bytes().replace(b"route.led", b"route.LED"))
    with place.open(writer=False) as lab:
        (problem,) = lab.verify().problems
        assert "route" in problem.what or "follow" in problem.what or "derived" in problem.what
        with pytest.raises(DigestDiffers):
            lab.routes.verify()


@pytest.mark.parametrize("left", [b"", b'{"half a seal'])
def test_a_segment_whose_first_seal_the_disk_refused_is_no_fault_of_a_lab(place: Place, left: bytes) -> None:
    with place.open() as lab:
        open_log(lab.desk)
        (routes_folder(place.path) / "000001.seals").write_bytes(left)
        assert lab.routes.list() == ()
        assert lab.verify().problems == ()
        open_log(lab.desk).close()
        assert [found.where for found in lab.routes.list()] == ["closed"]


def test_a_stranger_among_the_segments_is_no_part_of_a_lab(place: Place) -> None:
    with place.open() as lab:
        serve(lab, install(lab), close=False)
    (routes_folder(place.path) / "notes.txt").write_text("mine")
    with place.open(writer=False) as lab:
        assert [p.what for p in lab.verify().problems] == ["is not in the ledger; a lab holds nothing else"]


def test_a_record_that_says_otherwise_than_its_lines_is_found(place: Place) -> None:
    with place.open() as lab:
        serve(lab, install(lab))
        ((_, kept),) = lab.desk.all(RouteSegment)
        forged = replace(kept, segment=2, begins=kept.head, count=9)
        lab.desk.workspace.commit(forged, {})
        with pytest.raises(DigestDiffers):
            lab.routes.verify()
        assert not lab.verify().ok


def test_the_verbs_show_who_answered_and_why(place: Place) -> None:
    assert run(place, "routes", "list") == (0, "no route was ever logged\n")
    with place.open() as lab:
        serve(lab, install(lab))
    code, text = run(place, "routes", "show", "1:0")
    assert code == 0
    assert "rule: rev (route.rule)" in text
    assert "'rev abc>'" in text
    shown = json.loads(run(place, "--json", "routes", "show", "1:1")[1])
    assert (shown["kind"], shown["how"], shown["sequence"]) == ("route-record/1", "ngrams", 1)
    assert "4 choices come out the same, 4 of them from the prompt" in run(place, "routes", "replay")[1]
    assert "1 choices come out the same" in run(place, "routes", "replay", "1:2")[1]
    assert run(place, "routes", "verify")[0] == 0
    assert "kept" in run(place, "routes", "list")[1]


@pytest.mark.parametrize("words", [("show", "9:0"), ("show", "1"), ("show", "x"), ("replay", "9"), ("replay", "-1:0")])
def test_a_place_that_is_none_is_refused(place: Place, words: tuple[str, str]) -> None:
    with place.open() as lab:
        serve(lab, install(lab))
        with pytest.raises(UsageError) as caught:
            getattr(lab.routes, words[0])(words[1])
        assert caught.value.reason == "route.place"
        with pytest.raises(UsageError, match="one record"):
            lab.routes.replay("1", "rev abc>")
