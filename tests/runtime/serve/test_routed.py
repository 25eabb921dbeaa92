"""A real server over a lab with two specialists: prompts go where they belong, and every route outlives the server."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from lab_fixtures import CLUSTER, PARENTS, PERSON, Place, founder, problems, run_cli, shipped_items, small_policy
from package_fixtures import install_specialists
from serve_fixtures import Running
from studbook.lab import Lab
from studbook.lab.segments import routes_folder
from studbook.lab.serving import _Host
from studbook.lab.ways import Ways
from studbook.records import RouteRecord, RouteRule
from studbook.runtime.serve import Asked, Plan, Wanted

ASKED = {
    cluster: [i["prompt"] for i in shipped_items("development", cluster)[-6:]] for cluster in ("rot", "odd", "cap")
}
PROMPTS = [prompt for prompts in ASKED.values() for prompt in prompts]
EVERYTHING = (RouteRule(text=" ", place="anywhere", cluster="rot"),)


@pytest.fixture(scope="module")
def routed(prepared_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The small lab with two specialists and a champion that was released with a router; only copy it."""
    folder = tmp_path_factory.mktemp("routed")
    place = Place(folder / "lab", folder / "keys")
    Lab.init(place.path, PERSON, place.keys, small_policy(folder))
    with place.open() as lab:
        for name in ("base", *PARENTS):
            lab.register(founder(name))
            lab.approve(name, PERSON, reason="shipped founder")
        lab.suites.freeze([prepared_lab.path.parent / "suites"], PERSON)
        install_specialists(lab)
        found = lab.routes.learn()
        lab.release("base", "champion", PERSON, "routed", router=found.router, thresholds=found.thresholds)
    return place


@pytest.fixture
def place(routed: Place, tmp_path) -> Place:
    return routed.copy(tmp_path / "routed")


@contextmanager
def serving(place: Place, *options: str) -> Iterator[tuple[Running, subprocess.Popen[str]]]:
    """A server in a process of its own; stopped at the end unless it has ended."""
    command = [sys.executable, "-m", "studbook", "--lab", str(place.path), "--keys", str(place.keys), "--json"]
    words = [*command, "serve", "--port", "0", "--workers", "1", *options]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            told = ""
            while "}" not in told:
                line = process.stdout.readline()
                assert line, "the server ended"
                told += line
            yield Running(json.loads(told)["address"], place.path / "cache", threading.current_thread()), process
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                assert process.wait(60) == 0
        finally:
            process.kill()


def complete(server: Running, prompt: str, **more: Any) -> tuple[str, str]:
    """The beginning of the revision that answered, and its text."""
    status, found, _ = server.call("/v1/completions", {"model": "champion", "prompt": prompt, **more})
    assert status == 200, found
    return found["system_fingerprint"].removeprefix("fp_"), found["choices"][0]["text"]


def streamed(server: Running, prompt: str) -> str:
    _, text, _ = server.call("/v1/completions", {"model": "champion", "prompt": prompt, "stream": True})
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
    return "".join(json.loads(line)["choices"][0]["text"] for line in lines)


def revisions(lab: Lab) -> Mapping[str, str]:
    names = {
        "rot": lab.packages.show("rot").package.artifact.sha256,
        "odd": lab.packages.show("odd").package.artifact.sha256,
    }
    return names | {"cap": lab.desk.find_model("base")}


def lines(lab: Lab) -> list[RouteRecord]:
    return [lab.routes.show(f"{row.segment}:{n}") for row in lab.routes.list() for n in range(row.lines)]


def test_prompts_go_to_the_right_specialist_and_every_answer_is_in_the_log_after_a_restart(place: Place) -> None:
    with serving(place) as (server, _):
        answers = [complete(server, prompt) for prompt in PROMPTS]
        again = streamed(server, PROMPTS[0])
        chat = server.call(
            "/v1/chat/completions", {"model": "champion", "messages": [{"role": "user", "content": PROMPTS[0]}]}
        )
        assert (chat[0], chat[1]["system_fingerprint"]) == (200, f"fp_{answers[0][0]}")
        assert again == answers[0][1]
    with place.open() as lab:
        known = revisions(lab)
        went = dict(zip(PROMPTS, (who for who, _ in answers), strict=True))
        right = [went[prompt] == known[cluster][:16] for cluster, prompts in ASKED.items() for prompt in prompts]
        assert sum(right) >= len(right) - 2
        found = lines(lab)
        assert len(found) == len(PROMPTS) + 2
        told = [*(text for _, text in answers), again, chat[1]["choices"][0]["message"]["content"]]
        assert [r.answer for r in found] == [hashlib.sha256(text.encode()).hexdigest() for text in told]
        assert [r.request for r in found[:-2]] == [hashlib.sha256(p.encode()).hexdigest() for p in PROMPTS]
        assert {r.prompt for r in found} == {None}
        assert all(r.observed and r.observed.prompt_tokens and r.observed.tokens for r in found)
        verified = lab.routes.verify()
        assert (verified.routes, verified.replayed, verified.from_prompts) == (len(found), len(found), 0)
        for number, prompt in enumerate(PROMPTS):
            assert lab.routes.replay(f"1:{number}", prompt).from_prompts == 1
        assert [row.where for row in lab.routes.list()] == ["kept"]
    assert problems(place) == []


def test_a_package_that_is_not_in_memory_stays_out_and_the_others_are_chosen(place: Place) -> None:
    with place.open() as lab:
        ways = Ways(lab.desk)
        host, known = _Host(lab, ways), revisions(lab)
        found = host.arrange()
        assert {m.revision for m in found.models} == {*known.values()}
        assert [m.revision for m in found.models if not m.spare] == [known["cap"]]
        found.hold({known["cap"], known["odd"]})
        chosen = {c: found.dispatcher.dispatch(Asked(n, Wanted(p[0]))) for n, (c, p) in enumerate(ASKED.items())}
        assert chosen["odd"] == Plan(known["odd"], instead=known["cap"])
        assert chosen["rot"].answering != known["rot"]
        ways.close()


def test_a_package_there_is_no_room_for_is_told_and_left_out_of_every_choice(place: Place) -> None:
    with serving(place, "--memory", "4", "--workers", "1") as (server, _):
        memory = server.status()["memory"]
        answered = {complete(server, prompt)[0] for prompt in PROMPTS}
    with place.open(writer=False) as lab:
        known = revisions(lab)
        absent = set(memory["absent"])
        assert absent and absent < {known["rot"], known["odd"]} | {"none"}
        assert answered == {sha[:16] for sha in known.values() if sha not in absent}
        excluded = {c.excluded for line in lines(lab) for c in line.candidates if known.get(c.id) in absent}
        assert excluded == {"package.absent"}
    assert problems(place) == []


def test_no_answer_of_a_killed_server_is_lost_from_the_log_and_the_next_one_seals_it(place: Place) -> None:
    with serving(place, "--keep-prompts") as (server, process):
        for prompt in PROMPTS[:6]:
            complete(server, prompt)
        # No client is told that its answer is whole before its line is on disk.
        streamed(server, PROMPTS[6])
        process.send_signal(signal.SIGKILL)
        process.wait()
    with serving(place) as (server, _):
        complete(server, PROMPTS[0])
    with place.open(writer=False) as lab:
        assert [(row.lines, row.where) for row in lab.routes.list()] == [(7, "kept"), (1, "kept")]
        told = lab.routes.verify()
        assert (told.replayed, told.from_prompts, told.unsealed) == (8, 7, 0)
    assert problems(place) == []


def test_a_line_that_was_changed_while_the_server_ran_is_found_and_the_next_server_does_not_start(place: Place) -> None:
    with serving(place, "--keep-prompts") as (server, process):
        for prompt in PROMPTS[:3]:
            complete(server, prompt)
        process.send_signal(signal.SIGKILL)
        process.wait()
    (log,) = routes_folder(place.path).glob("*.jsonl")
    first, second, third, _ = log.read_bytes().split(b"\n")
    changed = first.replace(PROMPTS[0].encode(), PROMPTS[1].encode())
    assert changed != first
    log.write_bytes(b"\n".join((changed, second, third, b"")))
    done = run_cli(place, "routes", "verify")
    assert done.returncode != 0
    assert "route" in done.stderr
    assert any("routes" in where for where in problems(place))
    assert run_cli(place, "serve", "--port", "0").returncode != 0


def test_a_rollback_brings_the_router_back_and_what_was_recorded_goes_the_same_ways(place: Place) -> None:
    with place.open() as lab:
        before = lab.desk.channels()["champion"].deployment
        child = lab.round(CLUSTER).released
        assert child
        lab.rollback("shadow", "to be released with a router", "nothing")
        other = lab.routes.learn(EVERYTHING)
        lab.release(child, "shadow", router=other.router, thresholds=other.thresholds)
    with serving(place, "--keep-prompts") as (server, _):
        first = [complete(server, prompt) for prompt in PROMPTS]
        act(place, "release", child, "--to", "champion", "--as", PERSON)
        moved = [complete(server, prompt) for prompt in PROMPTS]
        act(place, "rollback", "champion", "--reason", "the way back is tested")
        assert [complete(server, prompt) for prompt in PROMPTS] == first
    with place.open(writer=False) as lab:
        rot = revisions(lab)["rot"]
        assert {who for who, _ in moved} == {rot[:16]} != {who for who, _ in first}
        assert lab.desk.channels()["champion"].deployment == before
        found, n = lines(lab), len(PROMPTS)
        assert [r.state for r in found] == [before.router] * n + [other.router] * n + [before.router] * n
        assert [r.selected for r in found[:n]] == [r.selected for r in found[2 * n :]]
        told = lab.routes.verify()
        assert (told.routes, told.replayed, told.from_prompts) == (3 * n, 3 * n, 3 * n)
    assert problems(place) == []


def act(place: Place, *words: str) -> None:
    done = run_cli(place, *words)
    assert done.returncode == 0, done.stderr
