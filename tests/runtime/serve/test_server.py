"""The server as a whole: its queue, its keys, its control socket, what runs beside answers, and how it stops."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from lab_fixtures import PERSON, Place
from serve_fixtures import PROMPT, House, Running, founder_model, kept, long_model, post, running
from studbook.errors import NotAuthorised, OutOfOrder, SlmRefused, UsageError
from studbook.lab.serving import Serving, tell
from studbook.models.slm import read_slm
from studbook.models.slm_writer import write_slm
from studbook.runtime.serve import Access, Aside, Asked, Limits, Model, Outcome, Plan, Wanted, ask, new_key
from studbook.runtime.serve.work import Work

ASKED = {"model": "champion", "prompt": PROMPT}
LONG = {**ASKED, "max_tokens": 3000}
SLOW = Limits(workers=1, parallel=1, waiting=1, response_tokens=3000)


class Mirror:
    """Answers with one model, and has others run beside; keeps what it is told."""

    def __init__(self, answering: Model, *asides: Aside) -> None:
        self.plan = Plan(answering.revision, asides)
        self.seen: list[tuple[Asked, Outcome, tuple[Outcome, ...]]] = []
        self.answers: list[Outcome] = []
        self.told = threading.Event()

    def dispatch(self, asked: Asked) -> Plan:
        return self.plan

    def answered(self, asked: Asked, answer: Outcome) -> None:
        self.answers.append(answer)

    def observe(self, asked: Asked, answer: Outcome, asides: tuple[Outcome, ...]) -> None:
        self.seen.append((asked, answer, asides))
        self.told.set()


def narrow_model() -> Model:
    """The base with a context of a few tokens."""
    model = read_slm(founder_model().artifact.path)
    values = {spec.name: model.dense(spec.name) for spec in model.shape.tensors()}
    data = write_slm(dataclasses.replace(model.shape, max_context=8), model.tokenizer, values)
    return Model("cd" * 32, "narrow", kept(data))


def test_what_one_model_alone_calls_the_clients_fault_is_its_own(tmp_path: Path) -> None:
    champion, narrow = founder_model(), narrow_model()
    mirror = Mirror(narrow)
    mirror.plan = mirror.plan._replace(instead=champion.revision)
    with running(tmp_path, House(champion, narrow, dispatcher=mirror)) as server:
        status, found, _ = server.call("/v1/completions", ASKED)
        assert (status, found["system_fingerprint"]) == (200, f"fp_{champion.revision[:16]}")
        assert server.call("/v1/completions", ASKED | {"prompt": "a" * 5000})[0] == 400
        mirror.told.wait()
    assert [answer.failure for answer in mirror.answers] == ["serve.narrow", "serve.context"]


def test_who_opens_the_control_socket_and_says_nothing_holds_nobody_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path, House()) as server, socket.socket(socket.AF_UNIX) as there:
        there.connect(str(tmp_path / "control.sock"))
        assert server.status()["running"] == 0
    assert not caplog.records


def busy(server: Running, *bodies: dict[str, Any]) -> list[socket.socket]:
    """Connections with a request each; the first is being written, the others wait."""
    held = []
    for number, body in enumerate(bodies):
        held.append(server.connect())
        held[-1].sendall(post(body))
        while sum(server.status()[name] for name in ("running", "waiting")) <= number:
            pass
    return held


def test_one_more_than_the_queue_holds_is_told_to_ask_again_and_only_that_one(tmp_path: Path) -> None:
    with running(tmp_path, House(long_model()), SLOW) as server:
        held = busy(server, LONG, ASKED | {"max_tokens": 2})
        status, found, head = server.call("/v1/completions", ASKED)
        assert (status, found["error"]["code"]) == (429, "rate_limit_exceeded")
        assert int(head["retry-after"]) >= 1
        held[0].close()
        assert b"200 OK" in held[1].recv(4096)
        held[1].close()
        assert server.call("/v1/completions", ASKED | {"max_tokens": 2})[0] == 200
        page = server.call("/metrics")[1]
    assert 'studbook_requests_total{code="429"} 1' in page
    assert 'studbook_requests_total{code="200"} 2' in page


def test_a_stop_finishes_what_was_taken_and_takes_no_more(tmp_path: Path) -> None:
    limits = Limits(workers=1, parallel=1, response_tokens=3000)
    with running(tmp_path, House(long_model()), limits) as server:
        held = busy(server, ASKED | {"max_tokens": 300, "stream": True}, ASKED | {"max_tokens": 30})
        assert ask(server.folder, "stop")["stopping"]
        stream, whole = (server.rest(there) for there in held)
        assert stream.rstrip().endswith(b"0") and b"[DONE]" in stream
        assert b'"finish_reason": "length"' in whole
        server.thread.join()
        with pytest.raises(OSError):
            server.connect()
        with pytest.raises(OutOfOrder, match="no server"):
            server.status()
        for there in held:
            there.close()


def test_what_is_not_done_when_the_grace_ends_is_told_so(tmp_path: Path) -> None:
    limits = Limits(workers=1, parallel=1, response_tokens=8000, grace_seconds=0.3)
    with running(tmp_path, House(long_model()), limits) as server:
        held = busy(server, LONG | {"max_tokens": 8000, "stream": True}, ASKED)
        ask(server.folder, "stop")
        stream, whole = (server.rest(there) for there in held)
        assert b'"code": "serve_stopping"' in stream
        assert whole.startswith(b"HTTP/1.1 503")
        for there in held:
            there.close()


def test_the_models_change_without_losing_a_request(tmp_path: Path) -> None:
    first, second = long_model(), founder_model()
    house = House(first)
    with running(tmp_path, house, Limits(workers=2, parallel=1, response_tokens=3000)) as server:
        (there,) = busy(server, ASKED | {"max_tokens": 400})
        house.models = (second,)
        assert ask(server.folder, "reload")["revision"] == second.revision
        found = server.call("/v1/completions", ASKED)[1]
        assert found["system_fingerprint"] == f"fp_{second.revision[:16]}"
        assert f"fp_{first.revision[:16]}".encode() in server.rest_of_answer(there)
        assert server.call("/v1/models")[1]["data"][0]["name"] == "base"
        house.models = (Model("cd" * 32, "broken", kept(second.artifact.path.read_bytes()[:-64])),)
        with pytest.raises(SlmRefused):
            ask(server.folder, "reload")
        with pytest.raises(OutOfOrder, match="was done, but"):
            ask(server.folder, "note", {"a": 1})
        assert house.told == [{"a": 1}]
        assert server.call("/v1/completions", ASKED)[1]["choices"] == found["choices"]
        there.close()


def test_what_runs_beside_reaches_the_dispatcher_and_never_the_client(tmp_path: Path) -> None:
    champion, shadow = founder_model(), founder_model("cap-rot")
    probe = Aside(shadow.revision, Wanted("cap abc>"), "ABC")
    lost = Aside("ff" * 32)
    mirror = Mirror(champion, Aside(shadow.revision), probe, lost)
    with running(tmp_path / ".", House(champion, shadow, dispatcher=mirror)) as server:
        alone = server.call("/v1/completions", ASKED)[1]
        mirror.told.wait()
        assert [row["name"] for row in server.call("/v1/models")[1]["data"]] == ["base"]
        page = server.call("/metrics")[1]
    ((asked, answer, (mirrored, probed, gone)),) = mirror.seen
    assert mirror.answers == [answer]
    assert (asked.number, asked.wanted.prompt) == (0, PROMPT)
    assert (answer.revision, answer.failure, answer.tokens) == (
        champion.revision,
        "",
        alone["usage"]["completion_tokens"],
    )
    assert (mirrored.revision, mirrored.failure, mirrored.right) == (shadow.revision, "", None)
    assert len(mirrored.digest) == 64
    assert probed.right is not None
    assert gone.failure == "serve.gone"
    assert shadow.revision[:16] not in json.dumps(alone)
    assert 'studbook_asides_total{outcome="done"} 2' in page
    assert not {"text", "ids"} & set(Outcome._fields)


def test_too_much_beside_the_answers_is_left_out_and_told(tmp_path: Path) -> None:
    model = founder_model()
    mirror = Mirror(model, Aside(model.revision), Aside(model.revision))
    with running(tmp_path, House(model, dispatcher=mirror), Limits(workers=1, asides=0)) as server:
        assert server.call("/v1/completions", ASKED)[0] == 200
        mirror.told.wait()
    assert [each.failure for each in mirror.seen[0][2]] == ["serve.dropped"] * 2


def test_what_never_got_room_beside_the_answers_is_left_out_and_is_nobodys_fault() -> None:
    late = Limits(answer_seconds=-1.0)
    reasons = []
    for aside in (False, True):
        error = Work("ab" * 32, Wanted(PROMPT), late, print, aside=aside).due()
        assert error is not None
        reasons.append(error.reason)
    assert reasons == ["serve.timeout", "serve.dropped"]


def test_clients_need_a_key_that_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    keys = [new_key(path, name) for name in ("ann", "ben")]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not any(key in path.read_text() for key in keys)
    with pytest.raises(UsageError, match="has a key"):
        new_key(path, "ann")
    with running(tmp_path, access=Access("0.0.0.0", path)) as server:
        for key in keys:
            assert server.call("/v1/completions", ASKED, Authorization=f"Bearer {key}", Host="any.example")[0] == 200
        for head in (
            {},
            {"Authorization": "Bearer "},
            {"Authorization": f"Basic {keys[0]}"},
            {"Authorization": keys[0]},
        ):
            for path_, body in (("/v1/completions", ASKED), ("/v1/models", None), ("/metrics", None)):
                status, found, told = server.call(path_, body, **head)
                assert (status, found["error"]["code"], told["www-authenticate"]) == (401, "invalid_api_key", "Bearer")
        assert server.call("/v1/models", Authorization=f"Bearer {keys[0]}x")[0] == 401
        assert server.call("/health")[0] == 200


def test_off_loopback_nobody_is_served_without_keys(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"):
        with pytest.raises(NotAuthorised, match="needs keys"):
            Access(host, None)
    (tmp_path / "empty").write_text("")
    with pytest.raises(NotAuthorised):
        Access("127.0.0.1", tmp_path / "empty")
    for text in ("ann\n", f"ann {'0' * 64}\nann {'1' * 64}\n", f"ann {'x' * 64}\n"):
        (tmp_path / "bad").write_text(text)
        with pytest.raises(UsageError):
            Access("127.0.0.1", tmp_path / "bad")
    (tmp_path / "open").write_text(f"ann {'0' * 64}\n")
    (tmp_path / "open").chmod(0o666)
    with pytest.raises(NotAuthorised, match="write"):
        Access("127.0.0.1", tmp_path / "open")


def test_an_address_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.socket() as there:
        there.bind(("127.0.0.1", 0))
        there.listen()
        with pytest.raises(UsageError, match="nobody can listen"), running(tmp_path, port=there.getsockname()[1]):
            pass


# -- the control socket ------------------------------------------------------------------------------------------------


def say(server: Running, line: bytes) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as there:
        there.connect(os.path.relpath(server.folder / "control.sock"))
        there.sendall(line)
        there.shutdown(socket.SHUT_WR)
        found: dict[str, Any] = json.loads(there.makefile("rb").read())
        return found


def test_the_control_socket_is_its_owners_and_knows_its_commands(shared_server: Running) -> None:
    assert stat.S_IMODE((shared_server.folder / "control.sock").stat().st_mode) == 0o600
    assert ask(shared_server.folder, "note", {"b": [1, None]}) >= 1
    assert shared_server.status()["model"] == "base"
    with pytest.raises(UsageError, match="no command") as refused:
        ask(shared_server.folder, "promote")
    assert refused.value.reason == "control.command"
    assert "note, reload, status, stop" in refused.value.advice


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"{}\n",
        b"[1]\n",
        b'{"command": 1}\n',
        b'{"command": "status", "arguments": []}\n',
        b"\xff\n",
        b"{" * 9,
        b'{"command": "status", "x": 1}\n',
        b"x" * (2 << 20) + b"\n",
    ],
)
def test_a_line_that_is_no_command_is_told(shared_server: Running, line: bytes) -> None:
    try:
        found = say(shared_server, line)
    except (BrokenPipeError, ConnectionResetError):
        found = {"ok": False}
    assert not found["ok"]
    assert shared_server.status()["running"] == 0


def test_a_socket_that_a_crash_left_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(os.path.relpath(tmp_path / "control.sock"))
    with pytest.raises(OutOfOrder, match="no server"):
        ask(tmp_path, "status")
    with running(tmp_path) as server:
        assert server.status()["model"] == "base"
    assert not (tmp_path / "control.sock").exists()


# -- the lab behind it -------------------------------------------------------------------------------------------------


def start(place: Place, *options: str) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "studbook", "--lab", str(place.path), "--keys", str(place.keys), "--json"]
    process = subprocess.Popen([*command, "serve", "--port", "0", *options], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = []
    while "}" not in "".join(lines):
        line = process.stdout.readline()
        assert line, "the server ended"
        lines.append(line)
    return process, json.loads("".join(lines))["address"]


def test_the_champion_of_a_lab_is_served_without_any_persons_key_until_a_signal(new_lab: Place) -> None:
    for key in (new_lab.keys / "people").rglob("*"):
        if key.is_file():
            key.chmod(0o600)
            key.unlink()
    process, url = start(new_lab, "--workers", "1", "--memory", "8")
    try:
        server = Running(url, new_lab.path / "cache", threading.current_thread())
        with new_lab.open(writer=False) as lab:
            status = lab.servers.status()
            assert status["revision"] == lab.desk.champion() == status["memory"]["residents"][0]["revision"]
            assert 0 < status["memory"]["bytes"] <= status["memory"]["budget"] == 8 << 20
            command = [sys.executable, "-m", "studbook", "--lab", str(new_lab.path), "server", "status"]
            shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            assert re.search(r"of 8 MiB held\n +[\w-]+ \([0-9a-f]{16}\): [0-9.]+ MiB, 1 x \d+ sessions", shown)
            assert lab.verify().ok
            with pytest.raises(UsageError):
                tell(lab.desk, "no-such-command")
        status, found, _ = server.call("/v1/completions", ASKED)
        assert (status, found["model"]) == (200, "champion")
        there = server.connect()
        there.sendall(post(ASKED | {"max_tokens": 20, "stream": True}))
        # Its first bytes are the acknowledgement; the model may be through by now, a founder's context is short.
        begun = there.recv(16)
        process.send_signal(signal.SIGTERM)
        assert b"[DONE]" in begun + server.rest(there)
        there.close()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_lab_without_a_champion_or_with_a_revoked_one_serves_nothing(new_lab: Place) -> None:

    with new_lab.open() as lab:
        lab.keys.revoke(lab.desk.champion(), PERSON, "stolen data")
        with pytest.raises(OutOfOrder, match="revoked"):
            lab.serve(Serving(), print)
