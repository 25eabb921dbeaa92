"""A running trial: in the order of arrival, whatever the order of answers, and on from where the ledger ends."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lab_fixtures import PERSON, Place, problems, run_cli
from release_fixtures import change_policy, winner
from studbook.errors import StudbookError
from studbook.lab import Lab, runs
from studbook.lab.runs import Run, Ticket
from studbook.records import Answered, CanarySegment, Halt, Resumption
from trial_fixtures import QUICK, Models, Ticking, into_canary, served

RIGHT = Answered(right=True, broken=False, milliseconds=5, tokens=3)
BROKEN = Answered(right=True, broken=True, milliseconds=5, tokens=3)


@pytest.fixture
def lab(tried: Place) -> Lab:
    opened = tried.open()
    into_canary(opened, probes=0.0)
    yield opened
    opened.close()


def answer(run: Run, ticket: Ticket, how: Answered = RIGHT) -> None:
    mine = ticket.kind == "canary"
    run.answered(ticket, candidate=how if mine else None, champion=None if mine else how)


def numbers(lab: Lab) -> list[int]:
    return [seen.number for _, part in lab.desk.all(CanarySegment) for seen in part.observations]


def test_what_is_answered_early_waits_for_what_came_before(lab: Lab) -> None:
    run = lab.canaries.run("canary", Ticking())
    tickets = [run.take() for _ in range(6)]
    assert [t.number for t in tickets if t] == list(range(6))
    for place in (5, 4, 3, 2):
        answer(run, tickets[place])  # type: ignore[arg-type]
    assert run.trial is not None and run.trial.controller.number == -1
    answer(run, tickets[0])  # type: ignore[arg-type]
    assert run.trial.controller.number == 0
    run.drop(tickets[1])  # type: ignore[arg-type]
    assert run.trial.controller.number == 5
    run.flush()
    assert numbers(lab) == [0, 2, 3, 4, 5]


def test_a_dropped_probe_takes_nothing_away_from_its_request(tried: Place) -> None:
    with tried.open() as lab:
        into_canary(lab, probes=1.0)
        run = lab.canaries.run("canary", Ticking())
        ticket = run.take()
        assert ticket is not None and ticket.probe is not None
        answer(run, ticket)
        run.flush()
        assert numbers(lab) == []
        run.drop(ticket)
        run.flush()
        assert numbers(lab) == [0]


def test_a_broken_invariant_waits_for_nobody(lab: Lab) -> None:
    run = lab.canaries.run("canary", Ticking())
    tickets: list[Ticket] = []
    while not tickets or tickets[-1].kind != "canary":
        taken = run.take()
        assert taken is not None
        tickets.append(taken)
    slow, last = tickets[0], tickets[-1]
    answer(run, last, BROKEN)
    halt = next(h for _, h in lab.desk.all(Halt))
    assert (halt.act, halt.code) == ("abort", "canary.invariant")
    assert lab.desk.channels()["canary"].artifact is None
    answer(run, slow)
    assert numbers(lab) == [last.number]
    assert run.take() is None


def test_a_lab_opened_again_goes_on_where_the_ledger_ends(lab: Lab, tried: Place) -> None:
    run = lab.canaries.run("canary", Ticking())
    for _ in range(100):
        answer(run, run.take())  # type: ignore[arg-type]
    assert len(numbers(lab)) == 64
    lab.close()
    with tried.open() as again:
        assert len(numbers(again)) == 100
        on = again.canaries.run("canary", Ticking())
        ticket = on.take()
        assert ticket is not None
        assert ticket.number == 100
        assert on.trial is not None
        assert ticket.moment >= on.trial.controller.moment > 0
        answer(on, ticket)
    assert problems(tried) == []


def test_a_verdict_that_a_crash_cut_short_is_carried_out_by_the_next_writer(
    lab: Lab, tried: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = lab.canaries.run("canary", Ticking())

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "halt", dies)
    with pytest.raises(KeyboardInterrupt):
        while (ticket := run.take()) is not None:
            answer(run, ticket, BROKEN if ticket.kind == "canary" else RIGHT)
    assert not list(lab.desk.all(Halt))
    lab.close()
    with tried.open() as again:
        assert [(h.act, h.code) for _, h in again.desk.all(Halt)] == [("abort", "canary.invariant")]
        assert again.desk.channels()["canary"].artifact is None
    assert problems(tried) == []


def test_a_late_answer_is_not_taken_for_a_newer_request_with_the_same_number(lab: Lab) -> None:
    run = lab.canaries.run("canary", Ticking())
    old = run.take()
    assert old is not None
    lab.pause("a look")
    assert run.take() is None
    lab.resume(PERSON)
    new = run.take()
    assert new is not None
    assert (new.number, new.kind) == (old.number, old.kind)
    answer(run, old, Answered(right=False, broken=False, milliseconds=1, tokens=1))
    run.drop(old)
    run.flush()
    assert numbers(lab) == []
    answer(run, new)
    run.flush()
    (part,) = (part for _, part in lab.desk.all(CanarySegment))
    assert [seen.candidate or seen.champion for seen in part.observations] == [RIGHT]


def test_an_act_elsewhere_in_the_lab_takes_no_open_request_away(lab: Lab) -> None:
    run = lab.canaries.run("canary", Ticking())
    early, late = run.take(), run.take()
    assert early is not None
    assert late is not None
    answer(run, early)
    with lab.canaries.settled():
        pass
    answer(run, late)
    run.flush()
    assert numbers(lab) == [0, 1]


def test_what_was_seen_is_written_after_a_second(lab: Lab) -> None:
    clock = Ticking(1)
    run = lab.canaries.run("canary", clock)
    answer(run, run.take())  # type: ignore[arg-type]
    run.look()
    assert numbers(lab) == []
    clock.now += 1000
    run.look()
    assert numbers(lab) == [0]


def test_a_shadow_with_little_traffic_notices_too_that_the_lab_is_ready_no_longer(tried: Place, tmp_path: Path) -> None:
    with tried.open() as lab:
        lab.plan("shadow", {"patience": 60})
        clock = Ticking(1)
        run = lab.canaries.run("shadow", clock)
        change_policy(lab, tmp_path, notes="another")
        ticket = run.take()
        assert ticket is not None
        run.answered(ticket, RIGHT, RIGHT)
        if ticket.probe:
            run.drop(ticket)
        clock.now += 1000
        run.look()
        assert next(h for _, h in lab.desk.all(Halt)).code == "canary.readiness"
        assert run.take() is None


def test_a_trial_stands_still_while_the_ledger_refuses_it_and_goes_on_after(
    lab: Lab, tried: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Ticking()
    run = lab.canaries.run("canary", clock)

    def full(*_: object, **__: object) -> str:
        raise StudbookError("no space is left")

    with monkeypatch.context() as patch:
        patch.setattr(lab.desk.workspace, "commit", full)
        tickets = [run.take() for _ in range(70)]
        with pytest.raises(StudbookError, match="no space"):
            for ticket in tickets:
                answer(run, ticket)  # type: ignore[arg-type]
        assert (run.going, run.take()) == ("", None)
        with pytest.raises(StudbookError, match="no space"):
            run.look()
    assert numbers(lab) == []
    run.look()
    assert numbers(lab) == list(range(64))
    ticket = run.take()
    assert ticket is not None
    assert ticket.number == 64
    answer(run, ticket)
    clock.now += 1000
    run.look()
    assert numbers(lab) == list(range(65))
    assert problems(tried) == []


def test_a_conviction_that_could_not_be_written_is_carried_out_at_the_next_look(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = lab.canaries.run("canary", Ticking())

    def full(*_: object, **__: object) -> str:
        raise StudbookError("no space is left")

    with monkeypatch.context() as patch:
        patch.setattr(lab.desk.workspace, "commit", full)
        with pytest.raises(StudbookError, match="no space"):
            while (ticket := run.take()) is not None:
                answer(run, ticket, BROKEN if ticket.kind == "canary" else RIGHT)
    assert not list(lab.desk.all(Halt))
    run.look()
    assert [(h.act, h.code) for _, h in lab.desk.all(Halt)] == [("abort", "canary.invariant")]
    assert lab.desk.channels()["canary"].artifact is None


def test_requests_are_numbered_while_the_ledger_is_written(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    run = lab.canaries.run("canary", Ticking())
    answer(run, run.take())  # type: ignore[arg-type]
    plain, taken = lab.desk.workspace.commit, []

    def commit(*how: Any, **more: Any) -> str:
        with ThreadPoolExecutor(1) as other:
            taken.append(other.submit(run.take).result(timeout=60))
        return plain(*how, **more)

    monkeypatch.setattr(lab.desk.workspace, "commit", commit)
    run.flush()
    assert [ticket.number for ticket in taken] == [1]


def test_many_threads_take_and_answer_at_once(lab: Lab) -> None:
    run = lab.canaries.run("canary", Ticking(1))

    def work() -> None:
        for _ in range(50):
            ticket = run.take()
            if ticket is not None:
                answer(run, ticket)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.flush()
    assert numbers(lab) == list(range(400))


def test_the_verbs_from_another_terminal(tried: Place, tmp_path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(QUICK))
    with tried.open() as lab:
        name = lab.desk.name_of(winner(lab))
    for words, code in (
        (["plan", "canary", "--file", str(file)], 0),
        (["release", name, "--to", "canary"], 0),
        (["promote", "--as", PERSON], 8),
        (["pause", "--reason", "a look"], 0),
        (["resume", "--as", PERSON], 0),
    ):
        done = run_cli(tried, *words)
        assert done.returncode == code, (words, done.stderr)
    told = json.loads(run_cli(tried, "--json", "trials").stdout)
    assert [(row["channel"], row["candidate"], row["halted"]) for row in told] == [("canary", name, "")]
    assert "is not ready" in run_cli(tried, "promote", "--as", PERSON).stderr
    assert run_cli(tried, "abort", "--reason", "enough").returncode == 0
    assert run_cli(tried, "abort").returncode == 8
    assert run_cli(tried, "stop", "--as", "ann").returncode == 0
    assert run_cli(tried, "release", name, "--to", "shadow").returncode == 8
    assert run_cli(tried, "resume", "--as", PERSON).returncode == 0
    with tried.open(writer=False) as lab:
        assert [h.act for _, h in lab.desk.all(Halt)] == ["pause", "abort", "stop"]
        assert len(list(lab.desk.all(Resumption))) == 2
        assert lab.desk.channels()["shadow"].artifact is None
    assert problems(tried) == []


def test_no_trial_no_ticket(tried: Place) -> None:
    with tried.open() as lab:
        assert lab.canaries.run("canary").take() is None
        models = Models(lab)
        served(lab, models).complete("hello")
        assert models.asked == [lab.desk.champion()]
