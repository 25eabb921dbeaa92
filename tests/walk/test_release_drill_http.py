"""The release drill on a server that runs: clients ask all the while, and another terminal moves the channels."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from lab_fixtures import CLUSTER, PERSON, Place, problems, shipped_items
from release_fixtures import refused, winner
from serve_fixtures import Running
from studbook.cli import main
from studbook.lab.remote import Remote
from studbook.records import (
    CanarySegment,
    ChampionPromotion,
    Halt,
    Observation,
    ResidentSetRecord,
    Resumption,
    RollbackRecord,
)
from trial_fixtures import QUICK, into_canary
from walk.test_kills import check_after_death, check_after_recovery
from walk.test_release_drill import holder

PROMPTS = [item["prompt"] for item in shipped_items("development", CLUSTER)][:8]
# A loaded machine is no fault of a model.
CALM = QUICK | {"slow": 600_000, "disagreement": 0.9}
# Ready after some thirty requests: every one is probed, and the margin is wide.
SHORT = CALM | {
    "steps": [{"share": 0.25, "requests": 5, "probes": 2}, {"share": 0.5, "requests": 10, "probes": 4}],
    "probes": 1.0,
    "margin": 0.4,
}
DRIVER = Path(__file__).with_name("serve_driver.py")


class Served(Running):
    """A server in a process of its own, and the terminal beside it.

    Attributes:
        place: The lab, with the keys of people too; the server was given none of them.
        said: What its process said after its address, once it has ended.
    """

    def __init__(self, url: str, place: Place, driver: Driver) -> None:
        super().__init__(url, place.path / "cache", threading.current_thread())
        self.place, self.said = place, list[str]()
        self._driver, self._process = driver, int(self.status()["process"])

    def terminal(self) -> Remote:
        """What another terminal has the server do."""
        return Remote(lambda: self.place.open(writer=False).desk)

    def ask(self, prompt: str) -> tuple[int, Any]:
        """Status and body of a completion."""
        return self.call("/v1/completions", {"model": "champion", "prompt": prompt})[:2]

    def kill(self, number: signal.Signals) -> int:
        """End the process; its exit code."""
        with suppress(ProcessLookupError):
            os.kill(self._process, number)
        return self.ended()

    def ended(self) -> int:
        """Wait for the end of the process; its exit code."""
        self.said = self._driver.until("ended")
        return int(self.said[-1].split()[1])


class Driver:
    """The process that starts the processes that serve."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(DRIVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            text=True,
        )

    def until(self, *words: str) -> list[str]:
        """Everything that is said up to a line that begins with one of these words."""
        assert self._process.stdout is not None
        lines: list[str] = []
        while not lines or lines[-1].split()[0] not in words:
            lines.append(self._process.stdout.readline().rstrip("\n"))
            assert lines[-1], "the driver ended"
        return lines

    @contextmanager
    def serve(self, place: Place, how: str = "whole", when: int = -1) -> Iterator[Served]:
        """A server of a lab that holds no key of a person; stopped at the end if it runs still."""
        keys = place.keys.with_name("processes")
        if not keys.exists():
            shutil.copytree(place.keys, keys, ignore=shutil.ignore_patterns("people"))
        assert self._process.stdin is not None
        self._process.stdin.write(f"{place.path}\t{keys}\t{how}\t{when}\n")
        self._process.stdin.flush()
        word, url = self.until("address", "ended")[-1].split(" ", 1)
        assert word == "address", url
        served = Served(url, place, self)
        try:
            yield served
        finally:
            if not served.said:
                served.kill(signal.SIGTERM)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


class Clients:
    """Ask all the time, each in a thread of its own; what was answered is kept."""

    def __init__(self, server: Served, count: int = 3) -> None:
        self.answers: list[tuple[int, Any]] = []
        self._server, self._over = server, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def more(self, count: int) -> None:
        """Wait for so many more answers."""
        wanted = len(self.answers) + count
        while len(self.answers) < wanted and any(thread.is_alive() for thread in self._threads):
            self._over.wait(0.01)
        assert len(self.answers) >= wanted, self.statuses

    @property
    def statuses(self) -> set[int]:
        return {status for status, _ in self.answers}

    @property
    def models(self) -> set[str]:
        """Beginnings of the digests of the models that answered."""
        return {body["system_fingerprint"].removeprefix("fp_") for status, body in self.answers if status == 200}

    def _ask(self) -> None:
        number = 0
        while not self._over.is_set():
            try:
                self.answers.append(self._server.ask(PROMPTS[number % len(PROMPTS)]))
            except (OSError, http.client.HTTPException):
                # The server is gone; what it did not answer it did not acknowledge.
                return
            number += 1


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    found = Driver()
    yield found
    found.close()


@pytest.fixture(scope="module")
def ready_lab(trial_lab: Place, driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The lab with a candidate that requests over HTTP showed to be ready; only copy it."""
    place = trial_lab.copy(tmp_path_factory.mktemp("ready"))
    with place.open() as lab:
        into_canary(lab, **SHORT)
    with driver.serve(place) as server, server.terminal() as terminal, Clients(server) as clients:
        while not terminal.trials()[0].ready:
            clients.more(10)
    return place


def seen(place: Place) -> list[Observation]:
    """Everything that trials wrote down, in the order of the ledger."""
    with place.open(writer=False) as lab:
        return [seen for _, part in lab.desk.all(CanarySegment) for seen in part.observations]


def halts(place: Place) -> list[tuple[str, str, str]]:
    with place.open(writer=False) as lab:
        return [(halt.act, halt.code, halt.raised_by) for _, halt in lab.desk.all(Halt)]


def names(place: Place) -> tuple[str, str]:
    """Beginnings of the digests of the candidate and the champion, as answers tell them."""
    with place.open(writer=False) as lab:
        return winner(lab)[:16], lab.desk.champion()[:16]


def test_what_the_model_in_shadow_says_reaches_nobody(tried: Place, driver: Driver) -> None:
    child, champion = names(tried)
    with driver.serve(tried) as server, server.terminal() as terminal:
        alone = [server.ask(prompt)[1]["choices"] for prompt in PROMPTS]
        terminal.plan(
            "shadow",
            {name: CALM[name] for name in ("patience", "limits", "slow")} | {"probes": 1.0, "disagreement": 0.9},
        )
        again = [server.ask(prompt) for prompt in PROMPTS]
        assert [body["choices"] for _, body in again] == alone
        assert {body["system_fingerprint"] for _, body in again} == {f"fp_{champion}"}
        assert len(server.call("/v1/models")[1]["data"]) == 1
        assert server.call("/v1/completions", {"model": child, "prompt": "a"})[0] == 404
    mirrored = [found for found in seen(tried) if found.kind == "mirror"]
    assert len(mirrored) == len(PROMPTS)
    # The two do not say the same, so what was returned was the champion's.
    assert any(found.differs for found in mirrored)
    assert problems(tried) == []


def test_a_canary_that_is_too_slow_is_rolled_back_while_clients_get_answers(tried: Place, driver: Driver) -> None:
    child, champion = names(tried)
    with driver.serve(tried) as server, server.terminal() as terminal, Clients(server) as clients:
        clients.more(3)
        terminal.plan("canary", QUICK | {"slow": 1})
        terminal.release("shadow", "canary")
        while terminal.trials():
            clients.more(5)
        clients.more(10)
    assert clients.statuses == {200}
    assert clients.models == {child, champion}
    assert halts(tried) == [("abort", "canary.evidence", "controller")]
    assert problems(tried) == []


def test_a_canary_whose_answers_are_no_numbers_is_rolled_back_and_the_champion_answers(
    tried: Place, driver: Driver
) -> None:
    _, champion = names(tried)
    with tried.open() as lab:
        into_canary(lab, **CALM | {"probes": 0.0})
    with driver.serve(tried, "broken") as server, server.terminal() as terminal, Clients(server) as clients:
        while terminal.trials():
            clients.more(5)
        clients.more(5)
    assert clients.statuses == {200}
    assert clients.models == {champion}
    assert halts(tried) == [("abort", "canary.invariant", "controller")]
    assert [found.candidate.broken for found in seen(tried) if found.candidate] == [True]
    assert problems(tried) == []


def test_a_candidate_that_does_not_load_is_paused_and_the_champion_answers(tried: Place, driver: Driver) -> None:
    with driver.serve(tried, "torn") as server, server.terminal() as terminal:
        terminal.plan("canary", SHORT)
        terminal.release("shadow", "canary")
        assert {server.ask(prompt)[0] for prompt in PROMPTS} == {200}
        (state,) = terminal.trials()
        assert state.halted == "canary.analysis"
        terminal.resume(PERSON, "once more")
        assert server.ask(PROMPTS[0])[0] == 200
        assert terminal.trials()[0].halted == "canary.analysis"
    assert [act for act, *_ in halts(tried)] == ["pause", "pause"]
    assert problems(tried) == []


def once_more(place: Place) -> None:
    """From the start: the winner into shadow again, the lab looked at, and a trial in canary."""
    with place.open() as lab:
        child = winner(lab)
        lab.rollback("shadow", "once more from the start", "nothing")
        lab.release(child, "shadow")
        assert lab.ready().ready
        into_canary(lab, **SHORT)


def test_a_champion_is_promoted_and_taken_back_twice_and_no_request_is_lost(
    ready_lab: Place, driver: Driver, tmp_path: Path
) -> None:
    place = ready_lab.copy(tmp_path)
    child, champion = names(place)
    with place.open(writer=False) as lab:
        before = lab.desk.channels()["champion"]
    for number in range(2):
        if number:
            once_more(place)
        with driver.serve(place) as server, server.terminal() as terminal, Clients(server) as clients:
            while not terminal.trials()[0].ready:
                clients.more(10)
            terminal.promote(PERSON, f"promotion {number}")
            assert server.ask(PROMPTS[0])[1]["system_fingerprint"] == f"fp_{child}"
            clients.more(5)
            terminal.rollback("champion", "the way back is tested")
            after = terminal.desk.channels()["champion"]
            assert (after.artifact, after.deployment) == (before.artifact, before.deployment)
            terminal.rollback("canary", "and the trial ends", "nothing")
            assert server.ask(PROMPTS[0])[1]["system_fingerprint"] == f"fp_{champion}"
            clients.more(5)
        assert clients.statuses == {200}
        assert clients.models == {child, champion}
    with place.open(writer=False) as lab:
        assert {holder(lab, d) for d, _ in lab.desk.all(ChampionPromotion)} == {"person"}
        assert {holder(lab, d) for d, _ in lab.desk.all(RollbackRecord)} == {"process"}
    assert problems(place) == []


def test_a_stop_refuses_every_request_until_a_person_resumes(ready_lab: Place, driver: Driver, tmp_path: Path) -> None:
    place = ready_lab.copy(tmp_path)
    with driver.serve(place) as server, server.terminal() as terminal:
        assert server.ask(PROMPTS[0])[0] == 200
        terminal.stop("smoke in the room", "ben")
        status, body, head = server.call("/v1/completions", {"model": "champion", "prompt": PROMPTS[0]})
        assert (status, body["error"]["code"]) == (503, "serve_stopped")
        assert "retry-after" in head
        assert server.call("/health")[:2] == (503, {"status": "stopped"})
        assert server.status()["closed"]
        with refused("order.stopped"):
            terminal.promote(PERSON)
        with refused("authority.key-missing"):
            terminal.resume("ben")
        terminal.resume(PERSON, "it was the toaster")
        assert server.ask(PROMPTS[0])[0] == 200
        assert server.call("/health")[0] == 200
        assert terminal.trials() == ()
    with place.open(writer=False) as lab:
        assert {holder(lab, d) for d, _ in lab.desk.all(Halt)} == {"process"}
        assert {holder(lab, d) for d, _ in lab.desk.all(Resumption)} == {"person"}
    assert problems(place) == []


def test_every_answer_before_a_graceful_end_is_counted_once(tried: Place, driver: Driver) -> None:
    with tried.open() as lab:
        into_canary(lab, **CALM)
    with driver.serve(tried) as server, Clients(server, 4) as clients:
        clients.more(60)
        assert server.kill(signal.SIGTERM) == 0
    assert halts(tried) == []
    answered = [body for status, body in clients.answers if status == 200]
    assert {status for status, _ in clients.answers} <= {200, 503}
    own = [found for found in seen(tried) if found.kind != "probe"]
    assert [found.number for found in own] == list(range(len(answered)))
    child, _ = names(tried)
    by_child = sum(body["system_fingerprint"] == f"fp_{child}" for body in answered)
    assert sum(found.kind == "canary" for found in own) == by_child > 0
    assert problems(tried) == []


def test_death_in_the_middle_of_a_promotion_leaves_alias_and_ledger_of_one_mind(
    ready_lab: Place, driver: Driver, tmp_path: Path
) -> None:
    whole = ready_lab.copy(tmp_path / "whole")
    with driver.serve(whole) as server, server.terminal() as terminal:
        terminal.promote(PERSON, "the trial found it ready")
        server.kill(signal.SIGTERM)
        steps = [line for line in server.said if line.startswith("passes")]
    alias = next(number for number, step in enumerate(steps) if step.endswith("rename champion.json"))
    for boundary in sorted({0, len(steps) // 3, alias}):
        place = ready_lab.copy(tmp_path / str(boundary))
        counted = len(seen(place))
        with driver.serve(place, when=boundary) as server, server.terminal() as terminal:
            with Clients(server) as clients:
                clients.more(10)
                with refused("control.cut"):
                    terminal.promote(PERSON, "the trial found it ready")
            assert server.ended() == -signal.SIGKILL
        safe = [line.split()[1] for line in server.said if line.startswith("acknowledged")]
        check_after_death(place, safe)
        assert clients.statuses == {200}
        check_after_recovery(place)
        child, champion = names(place)
        with driver.serve(place) as again:
            # The trial goes on where the promotion is not in the ledger, so a request may be the candidate's.
            assert again.status()["revision"][:16] == champion
            if champion != child:
                with again.terminal() as terminal:
                    terminal.promote(PERSON, "the trial found it ready")
                assert again.ask(PROMPTS[0])[1]["system_fingerprint"] == f"fp_{child}"
        assert names(place)[1] == child
        assert len(seen(place)) > counted
        assert problems(place) == []


def entered(place: Place) -> set[str]:
    """Records in the ledger but those of the resident set."""
    with place.open(writer=False) as lab:
        return {e.record for e in lab.desk.entries() if e.record_kind != ResidentSetRecord.kind()}


def test_a_terminal_tells_the_same_with_a_server_and_without(
    ready_lab: Place, driver: Driver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(place: Place) -> list[Any]:
        found = []
        for words in (
            ["trials"],
            ["pause", "--reason", "a look"],
            ["resume", "--as", PERSON],
            ["resume", "--as", PERSON],
            ["promote", "--as", PERSON],
            ["rollback"],
            ["abort"],
            ["plan", "canary"],
            ["stop"],
            ["release", "shadow", "--to", "canary"],
        ):
            with pytest.raises(SystemExit) as ended:
                main(["--lab", str(place.path), "--keys", str(place.keys), "--json", *words])
            out, err = capsys.readouterr()
            found.append((words, ended.value.code, json.loads(out) if out else err))
        return found

    alone, beside = ready_lab.copy(tmp_path / "alone"), ready_lab.copy(tmp_path / "beside")
    with driver.serve(beside):
        through = told(beside)
    assert through == told(alone)
    assert [code for _, code, _ in through].count(0) >= 6
    # All that a server enters by itself is what is in memory.
    assert entered(beside) == entered(alone)
    assert problems(beside) == []
