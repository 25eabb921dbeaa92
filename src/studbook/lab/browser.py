"""A bundle opened in a real browser that is given its files and nothing else: no server, no network, every request seen.

Chromium is spoken to in its DevTools protocol through two pipes. Each request of the page is paused before it would leave
the browser and answered from memory, or refused; names resolve to nothing besides.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from studbook.errors import OutOfOrder, OverBudget, StudbookError, UsageError
from studbook.records import read_plain_json

__all__ = ["CHROMIUM", "Seen", "look"]

CHROMIUM = "chromium"
_SECONDS = 300
_PATIENCE = 5
_ORIGIN = "https://bundle.test/"
_FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-component-update",
    "--disable-background-networking",
    "--disable-breakpad",
    "--no-first-run",
    "--no-default-browser-check",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-pipe",
)
_TYPES = {
    "css": "text/css",
    "html": "text/html",
    "js": "text/javascript",
    "json": "application/json",
    "wasm": "application/wasm",
}
_STEP = 1 << 16
# Chromium's own messages are far shorter; what never ends must not fill the memory.
_LONGEST = 16 << 20
_STATE = "document.documentElement.dataset.state ?? ''"
_TEXT = "document.getElementById('{}').textContent"


class Seen(NamedTuple):
    """What a browser did with a bundle that it verified.

    Attributes:
        browser: Its name and version.
        diagnostics: What the page says is in force, as plain values.
        requests: Requests it made; every one was for a file of the bundle.
    """

    browser: str
    diagnostics: Any
    requests: int


def look(files: Mapping[str, bytes], program: str = CHROMIUM, seconds: float = _SECONDS) -> Seen:
    """Let a browser open a bundle and verify it.

    Args:
        files: Path -> bytes of every file.
        program: Name or path of a Chromium.
        seconds: How long it may take.

    Raises:
        UsageError: if there is no such program.
        OutOfOrder: if the page refused the bundle, or asked for what is none of its files; ``browser.refused`` or
            ``browser.unplanned``.
        OverBudget: if it did not come to an end; ``browser.time``.
        StudbookError: if the browser broke off; ``browser.ended``.
    """
    found = shutil.which(program)
    if found is None:
        advice = "Install Chromium, or name it: --browser-smoke /path/to/chromium"
        raise UsageError("no such program", where=program, advice=advice, reason="usage.browser")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, _running(found, Path(profile)) as pipes:
        return _Visit(files, *pipes, time.monotonic() + seconds).go()


class _Request(Struct, frozen=True):
    url: str


class _Params(Struct, frozen=True, rename="camel"):
    session_id: str = ""
    request_id: str = ""
    request: _Request | None = None


class _Message(Struct, frozen=True, rename="camel"):
    """What a browser says: an answer with the number of what was asked, or that something happened."""

    id: int | None = None
    method: str = ""
    session_id: str = ""
    params: _Params = _Params()
    result: dict[str, Any] = {}
    error: Any = None


class _Visit:
    """One page in one browser, driven by messages through two pipes."""

    def __init__(self, files: Mapping[str, bytes], reader: int, writer: int, deadline: float) -> None:
        self._files, self._reader, self._writer, self._deadline = files, reader, writer, deadline
        os.set_blocking(writer, False)
        self._buffer = b""
        self._number = self._requests = 0
        self._answers: dict[int, _Message] = {}
        self._strange: list[str] = []

    def go(self) -> Seen:
        """Open the page and wait for its verdict."""
        product = str(self._ask("Browser.getVersion").get("product"))
        target = self._ask("Target.createTarget", url="about:blank").get("targetId")
        page = str(self._ask("Target.attachToTarget", targetId=target, flatten=True).get("sessionId"))
        self._intercept(page)
        self._ask("Page.navigate", page, url=f"{_ORIGIN}index.html")
        state = ""
        while state not in ("verified", "refused") and not self._strange:
            self._listen(0.05)
            state = self._value(page, _STATE)
        if self._strange:
            text = f"the page asked for {self._strange[0][:200]}, which is no file of the bundle"
            raise OutOfOrder(text, where="browser", reason="browser.unplanned")
        if state == "refused":
            told = " ".join(self._value(page, _TEXT.format(name)) for name in ("verdict", "explained"))
            advice = "The bundle is not written. Look at it: studbook bundle verify"
            raise OutOfOrder(f"the page says: {told}", where=product, advice=advice, reason="browser.refused")
        told = self._value(page, _TEXT.format("diagnostics"))
        diagnostics = read_plain_json(told.encode(errors="replace"), product)
        return Seen(re.sub("^Headless", "", product).replace("/", " "), diagnostics, self._requests)

    def _intercept(self, session: str) -> None:
        """Have every request of a page or worker paused, and those of the workers it starts."""
        self._send("Fetch.enable", session)
        self._send("Target.setAutoAttach", session, autoAttach=True, waitForDebuggerOnStart=True, flatten=True)
        self._send("Runtime.runIfWaitingForDebugger", session)

    def _value(self, session: str, expression: str) -> str:
        found = self._ask("Runtime.evaluate", session, expression=expression, returnByValue=True)
        result = found.get("result")
        return str(result.get("value", "")) if isinstance(result, dict) else ""

    def _ask(self, method: str, session: str = "", **fields: Any) -> dict[str, Any]:
        number = self._send(method, session, **fields)
        while number not in self._answers:
            self._listen(1.0)
        answer = self._answers.pop(number)
        if answer.error is not None:
            raise StudbookError(f"{method}: {str(answer.error)[:200]}", where="browser", reason="browser.ended")
        return answer.result

    def _send(self, method: str, session: str = "", **fields: Any) -> int:
        self._number += 1
        message = {"id": self._number, "method": method, "params": fields} | ({"sessionId": session} if session else {})
        data = memoryview(json.dumps(message).encode() + b"\0")
        try:
            while data:
                self._demand_time()
                # One that does not listen must not be waited for beyond its time.
                if select.select([], [self._writer], [], 1.0)[1]:
                    data = data[os.write(self._writer, data) :]
        except BrokenPipeError as error:
            raise _ended() from error
        return self._number

    def _listen(self, seconds: float) -> None:
        """Take in what comes within some seconds, and answer the page's requests."""
        self._demand_time()
        if not select.select([self._reader], [], [], seconds)[0]:
            return
        data = os.read(self._reader, _STEP)
        if not data:
            raise _ended()
        *whole, self._buffer = (self._buffer + data).split(b"\0")
        if len(self._buffer) > _LONGEST:
            raise _nonsense(f"a message of more than {_LONGEST} bytes")
        for text in whole:
            message = _message(text)
            if message.id is not None:
                self._answers[message.id] = message
            elif message.method == "Target.attachedToTarget":
                self._intercept(message.params.session_id)
            elif message.method == "Fetch.requestPaused" and message.params.request is not None:
                self._answer(message.session_id, message.params.request_id, message.params.request.url)

    def _demand_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise OverBudget("the page came to no verdict in time", where="browser", reason="browser.time")

    def _answer(self, session: str, request: str, url: str) -> None:
        path = url.removeprefix(_ORIGIN)
        if path == url or path not in self._files:
            self._strange.append(url)
            self._send("Fetch.failRequest", session, requestId=request, errorReason="BlockedByClient")
            return
        self._requests += 1
        kind = _TYPES.get(path.rpartition(".")[2], "application/octet-stream")
        self._send(
            "Fetch.fulfillRequest",
            session,
            requestId=request,
            responseCode=200,
            responseHeaders=[{"name": "Content-Type", "value": kind}],
            body=b64encode(self._files[path]).decode(),
        )


def _message(text: bytes) -> _Message:
    try:
        return msgspec.json.decode(text, type=_Message)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _nonsense(str(error)) from error


def _nonsense(what: str) -> StudbookError:
    advice = "Name a Chromium: --browser-smoke /path/to/chromium"
    text = f"does not speak as a Chromium does: {what[:200]}"
    return StudbookError(text, where="browser", advice=advice, reason="browser.ended")


def _ended() -> StudbookError:
    advice = "Start it by hand once, to see what it lacks: chromium --headless --dump-dom about:blank"
    text = "ended before the page came to a verdict"
    return StudbookError(text, where="browser", advice=advice, reason="browser.ended")


@contextmanager
def _running(program: str, profile: Path) -> Iterator[tuple[int, int]]:
    """A browser in a profile of its own; where to read what it says, and to write what it shall do."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    # Chromium takes its own sandbox for granted, which root has none of.
    flags = [*_FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else []), f"--user-data-dir={profile}", "about:blank"]
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        wired = [(os.POSIX_SPAWN_DUP2, theirs_in, 3), (os.POSIX_SPAWN_DUP2, theirs_out, 4)]
        quiet = [(os.POSIX_SPAWN_DUP2, nothing, stream) for stream in (0, 1, 2)]
        child = os.posix_spawn(program, [program, *flags], dict(os.environ), file_actions=[*quiet, *wired], setsid=True)
    except OSError as error:
        os.close(ours_out)
        os.close(ours_in)
        advice = "Name a Chromium: --browser-smoke /path/to/chromium"
        text = f"cannot be started: {error.strerror}"
        raise UsageError(text, where=program, advice=advice, reason="usage.browser") from error
    finally:
        for handle in (theirs_in, theirs_out, nothing):
            os.close(handle)
    try:
        yield ours_in, ours_out
    finally:
        # It ends by itself once nobody holds the pipes; whatever does not is killed, with all it started.
        os.close(ours_out)
        os.close(ours_in)
        until = time.monotonic() + _PATIENCE
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() > until:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                break
            time.sleep(0.02)
