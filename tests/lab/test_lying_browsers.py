"""Programs that are given for a Chromium and are none: every one is told, none is waited for beyond its time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from studbook.errors import OverBudget, StudbookError, UsageError
from studbook.lab.browser import look

FILES = {"index.html": b"<!doctype html>", "big.js": bytes(1 << 20)}
PATIENT = "import os, json, time\ndef say(text): os.write(4, text + b'\\0')\n"
# Answers what it is asked until it is asked for a value, which is its own.
POLITE = """
import sys
def answer(value):
    buffer = b""
    while data := os.read(3, 65536):
        *whole, buffer = (buffer + data).split(b"\\0")
        for asked in map(json.loads, whole):
            state = "dataset" in asked["params"].get("expression", "")
            result = {"targetId": "t", "sessionId": "s", "product": "HeadlessChrome/1"}
            result["result"] = {"value": "verified" if state else value}
            say(json.dumps({"id": asked["id"], "result": result}).encode())
"""
# Asks for a megabyte over and over, and takes none of it.
DEAF = """
asks = {"method": "Fetch.requestPaused", "sessionId": "s"}
asks["params"] = {"requestId": "1", "request": {"url": "https://bundle.test/big.js"}}
say(json.dumps(asks).encode())
time.sleep(600)
"""


def browser(folder: Path, text: str) -> str:
    program = folder / "browser"
    program.write_text(f"#!{sys.executable}\n{PATIENT}{text}\n")
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize(
    "said",
    [
        b"hello",
        b"[]",
        b"7",
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"id":1}',
        b'{"id":1,"result":[]}',
        b'{"id":1,"error":[]}',
        b'{"id":%s}' % (b"9" * 5000),
        b'{"method":"Fetch.requestPaused"}',
        b'{"method":"Fetch.requestPaused","params":{"request":7}}',
        b'{"method":"Target.attachedToTarget","params":[]}',
    ],
)
def test_what_speaks_no_protocol_is_told(tmp_path: Path, said: bytes) -> None:
    with pytest.raises(StudbookError) as caught:
        look(FILES, browser(tmp_path, f"say({said!r})"))
    assert caught.value.reason == "browser.ended"
    assert caught.value.advice


@pytest.mark.parametrize("value", ["", "nothing", "NaN", "[1e999]", "[" * 100_000, '{"a":1,"a":2}', '"\\ud800"'])
def test_diagnostics_that_are_no_json_are_told(tmp_path: Path, value: str) -> None:
    with pytest.raises(StudbookError):
        look(FILES, browser(tmp_path, f"{POLITE}answer({value!r})"))


def test_one_that_takes_nothing_in_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(OverBudget) as caught:
        look(FILES, browser(tmp_path, DEAF), seconds=1)
    assert caught.value.reason == "browser.time"


@pytest.mark.parametrize("text", ["no program", "#!/no/such/interpreter\n"])
def test_what_cannot_be_started_is_told(tmp_path: Path, text: str) -> None:
    program = tmp_path / "browser"
    program.write_text(text)
    program.chmod(0o755)
    with pytest.raises(UsageError, match="cannot be started"):
        look(FILES, str(program))
