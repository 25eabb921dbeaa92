"""Clients that are slow, huge, broken or gone: each is told or dropped, and the server answers the next one."""

from __future__ import annotations

import json
import re
import socket
import time
from pathlib import Path

import pytest

from serve_fixtures import PROMPT, House, Running, long_model, post, running
from studbook.runtime.serve import Limits

ASKED = {"model": "champion", "prompt": PROMPT}
IMPATIENT = Limits(
    workers=1, header_seconds=0.5, body_seconds=0.5, write_seconds=0.5, idle_seconds=1.0, header_bytes=4096
)


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Running:
    """A server that waits for nobody longer than half a second."""
    with running(tmp_path_factory.mktemp("impatient"), House(), IMPATIENT) as found:
        yield found


def alive(server: Running) -> bool:
    status, found, _ = server.call("/v1/completions", ASKED)
    return status == 200 and found["choices"][0]["finish_reason"] == "stop"


def told(raw: bytes) -> tuple[int, dict]:
    head, _, body = raw.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"] if body.startswith(b"{") else {}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b'{"model": "champion", "prompt": "\xe9"}',
        b'{"model": "champion", "prompt": "\\ud800"}',
        b'{"model": "champion", "model": "champion", "prompt": "x"}',
        b'{"model": "champion", "prompt": NaN}',
        b'{"model": "champion", "prompt": "x", "temperature": 1e999}',
        b'{"model": "champion", "prompt": "x", "max_tokens": ' + b"9" * 5000 + b"}",
        b'{"model": "champion", "prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'\xef\xbb\xbf{"model": "champion", "prompt": "x"}',
        b'{"model": "champion", "prompt": [-1]}',
        b'{"model": "champion", "prompt": [true]}',
        b'{"model": {"a": 1}, "prompt": "x"}',
    ],
)
def test_a_body_that_is_no_request_is_told_in_the_interfaces_form(shared_server: Running, body: bytes) -> None:
    status, found, _ = shared_server.call("/v1/completions", body)
    assert status == 400
    assert set(found["error"]) == {"message", "type", "param", "code"}
    assert "Traceback" not in found["error"]["message"]
    assert alive(shared_server)


def test_paths_methods_and_types_that_are_not_served(shared_server: Running) -> None:
    assert shared_server.call("/v1/engines")[0] == 404
    assert shared_server.call("/v1/models", {})[0] == 405
    assert shared_server.call("/v1/completions")[0] == 405
    assert shared_server.call("/v1/completions", ASKED, Content_Type="text/plain")[0] == 415
    assert shared_server.call("/v1/completions/", ASKED)[0] == 404


def test_a_page_that_was_lured_here_by_another_name_is_refused(shared_server: Running) -> None:
    for host in ("evil.example", "localhost.evil.example", "8.8.8.8", "[::2]", ""):
        assert shared_server.call("/v1/completions", ASKED, Host=host)[0] == 403
        assert shared_server.call("/v1/models", Host=host)[0] == 403
    for host in ("localhost:9", "127.0.0.1", "[::1]:80", "LOCALHOST"):
        assert shared_server.call("/v1/completions", ASKED, Host=host)[0] == 200


def test_a_body_that_is_too_large_is_refused_declared_or_not(shared_server: Running) -> None:
    big = b'{"model": "champion", "prompt": "' + b"x" * (100 << 20) + b'"}'
    with shared_server.connect() as there:
        there.sendall(post(b"").replace(b"Content-Length: 0", b"Content-Length: %d" % len(big)))
        assert told(shared_server.rest(there))[0] == 413
    with shared_server.connect() as there:
        there.sendall(post(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"))
        try:
            for _ in range(40):
                there.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        except OSError:
            pass
        assert shared_server.rest(there)[:12] in (b"HTTP/1.1 413", b"")
    asked = post(big[:20], "/v1/completions", "Expect: 100-continue").replace(
        b"Content-Length: 20", b"Content-Length: 2000000"
    )
    assert told(shared_server.raw(asked.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"))[0] == 413
    assert alive(shared_server)


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\r\n\tfolded: b\rbare\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
        b"GET /hea\rlth HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_what_is_not_http_ends_with_its_connection(impatient: Running, data: bytes) -> None:
    found = impatient.raw(data)
    assert not found or 400 <= told(found)[0] < 500
    assert alive(impatient)


def test_a_head_that_comes_whole_is_no_longer_than_one_that_comes_in_pieces(impatient: Running) -> None:
    def head(size: int) -> bytes:
        return b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * size + b"\r\nConnection: close\r\n\r\n"

    assert impatient.raw(head(3000)).startswith(b"HTTP/1.1 200 ")
    assert impatient.raw(head(6000)).startswith(b"HTTP/1.1 400 ")


def test_a_head_or_a_body_that_never_comes_is_not_waited_for(impatient: Running) -> None:
    assert impatient.raw(b"") == b""
    assert impatient.raw(b"POST /v1/completions HTTP/1.1\r\nHost: local") == b""
    with impatient.connect() as there:
        for _ in range(40):
            # A byte now and then does not buy more time.
            try:
                there.sendall(b"G")
            except OSError:
                break
            time.sleep(0.05)
        assert impatient.rest(there) == b""
    status, error = told(impatient.raw(post(ASKED)[:-5]))
    assert (status, error["code"]) == (408, "serve_slow")
    assert alive(impatient)


def test_requests_one_after_the_other_on_a_connection_are_all_answered_in_order(impatient: Running) -> None:
    prompts = ["rev abc>", "srt cab>", "cap abc>"]
    bodies = [{"model": "champion", "prompt": prompt} for prompt in prompts]
    raw = impatient.raw(b"".join(map(post, bodies)))
    texts = [json.loads(found)["choices"][0]["text"] for found in re.findall(rb'\{"id".*?\}\}', raw)]
    assert texts == [impatient.call("/v1/completions", body)[1]["choices"][0]["text"] for body in bodies]


def test_a_client_that_leaves_ends_its_answer_within_a_token(tmp_path: Path) -> None:
    with running(tmp_path, House(long_model()), Limits(workers=1, response_tokens=8000)) as server:
        for stream in (True, False):
            with server.connect() as there:
                there.sendall(post({**ASKED, "stream": stream, "max_tokens": 8000}))
                while not server.status()["running"]:
                    pass
                if stream:
                    assert b" 200 OK" in there.recv(4096)
            server.idle()
        page = server.call("/metrics")[1]
        assert 'studbook_requests_total{code="499"} 2' in page
        assert 'kind="written"' not in page, "nothing was written to its end"


def test_a_client_that_does_not_read_is_dropped_and_nobody_waits_for_it(tmp_path: Path) -> None:
    limits = Limits(workers=1, response_tokens=8000, write_seconds=0.5)
    with running(tmp_path, House(long_model()), limits) as server, socket.socket() as there:
        there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        there.connect((server.host, server.port))
        there.sendall(post({**ASKED, "stream": True, "max_tokens": 2000}))
        while not server.status()["running"]:
            pass
        assert server.call("/v1/completions", {**ASKED, "max_tokens": 3})[0] == 200
        while 'studbook_requests_total{code="499"} 1' not in server.call("/metrics")[1]:
            time.sleep(0.05)


def test_an_answer_that_takes_too_long_ends_with_an_error_and_a_stream_says_so_too(tmp_path: Path) -> None:
    limits = Limits(workers=1, response_tokens=8000, answer_seconds=0.3)
    with running(tmp_path, House(long_model()), limits) as server:
        status, found, _ = server.call("/v1/completions", {**ASKED, "max_tokens": 8000})
        assert (status, found["error"]["code"]) == (504, "serve_timeout")
        status, text, _ = server.call("/v1/completions", {**ASKED, "max_tokens": 8000, "stream": True})
        *_, last = [line for line in text.splitlines() if line]
        assert status == 200
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "serve_timeout"


def test_more_connections_than_allowed_are_closed_and_those_that_are_open_go_on(tmp_path: Path) -> None:
    with running(tmp_path, House(), Limits(workers=1, connections=3)) as server:
        held = [server.connect() for _ in range(3)]
        for there in held:
            there.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200 OK" in server.rest_of_answer(there)
        assert server.raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n") == b""
        held[0].sendall(post(ASKED))
        assert b"200 OK" in server.rest_of_answer(held[0])
        for there in held:
            there.close()
