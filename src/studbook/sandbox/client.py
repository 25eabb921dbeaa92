"""The lab's side of the worker server: one server a process, started when it is first needed."""

from __future__ import annotations

import atexit
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from studbook import errors
from studbook.errors import OverBudget, StudbookError
from studbook.files import read_file
from studbook.sandbox.limits import Limits
from studbook.sandbox.server import NOISE, RESULT

__all__ = ["Answer", "run_worker"]

_RESULT_LIMIT = 256 << 20
_ENDED = (-signal.SIGXCPU, -signal.SIGKILL)


class Answer(NamedTuple):
    """What a worker said.

    Attributes:
        value: Its JSON answer.
        isolation: The measures it had in force, sorted.
    """

    value: dict[str, Any]
    isolation: tuple[str, ...]


class _Server:
    """A running server, and the workers somebody waits for."""

    def __init__(self) -> None:
        command = [sys.executable, "-I", "-B", "-m", "studbook.sandbox.server"]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=_environment(),
            start_new_session=True,
            close_fds=True,
        )
        self.owner = os.getpid()
        self._lock = threading.Lock()
        self._waiting: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self._number = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def run(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Start one worker and wait for its end.

        Returns:
            The server's last message about it, with ``timed_out`` set where the wall clock ended it.
        """
        replies: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        with self._lock:
            self._number += 1
            number = self._number
            self._waiting[number] = replies
            self._send({"id": number, **request})
        started = replies.get()
        if "pid" not in started:
            return started
        try:
            return replies.get(timeout=seconds)
        except queue.Empty:
            with suppress(ProcessLookupError):
                os.killpg(started["pid"], signal.SIGKILL)
            return {**replies.get(), "timed_out": True}

    def alive(self) -> bool:
        """Whether it can take another request of this process."""
        return self.owner == os.getpid() and self.process.poll() is None

    def close(self) -> None:
        """End the server and whatever it still runs."""
        if self.owner == os.getpid() and self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=10)

    def _send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except OSError as error:
            raise StudbookError("the worker server has ended", where="sandbox", advice="Run it again.") from error

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            message = json.loads(line)
            with self._lock:
                last = "code" in message
                replies = self._waiting.pop(message["id"]) if last else self._waiting[message["id"]]
            replies.put(message)
        with self._lock:
            for replies in self._waiting.values():
                replies.put({"code": -1, "noise": "the worker server has ended"})
            self._waiting.clear()


_current: list[_Server] = []
_starting = threading.Lock()


def run_worker(module: str, job: dict[str, Any], folder: Path, limits: Limits) -> Answer:
    """Run one worker to its end.

    Args:
        module: Dotted name of the worker's module, which has ``work(job, folder)``.
        job: Plain JSON values.
        folder: Its empty folder; the only place it is told of to write.
        limits: What it may use.

    Raises:
        OverBudget: if it used up its time, memory or file size.
        StudbookError: what the worker raised, or that it ended without an answer.
    """
    numbers = {"seconds": limits.seconds, "memory_bytes": limits.memory_bytes, "file_bytes": limits.file_bytes}
    request = {"module": module, "job": job, "folder": str(folder.absolute()), "limits": numbers}
    ended = _server().run(request, limits.seconds * 10)
    if ended.get("timed_out"):
        raise OverBudget(f"the worker ran longer than {limits.seconds * 10} s", where=module)
    return _answer(module, ended, folder)


def _server() -> _Server:
    with _starting:
        if not _current or not _current[0].alive():
            _current[:] = [_Server()]
            atexit.register(_current[0].close)
        return _current[0]


def _environment() -> dict[str, str]:
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    cache = {"NUMBA_CACHE_DIR": os.environ["NUMBA_CACHE_DIR"]} if "NUMBA_CACHE_DIR" in os.environ else {}
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", **threads, **cache}


def _answer(module: str, ended: dict[str, Any], folder: Path) -> Answer:
    if ended["code"] != 0 or not (folder / RESULT).is_file():
        if ended["code"] in _ENDED:
            raise OverBudget("the worker was stopped at its processor or memory limit", where=module)
        raise StudbookError(
            f"the worker ended with code {ended['code']}: {_last_words(ended, folder)}",
            where=module,
            advice="Raise the worker's limits, or report it.",
        )
    result: dict[str, Any] = json.loads(read_file(folder / RESULT, _RESULT_LIMIT))
    if "error" in result:
        raise _as_error(result["error"])
    return Answer(result["answer"], tuple(result["isolation"]))


def _last_words(ended: dict[str, Any], folder: Path) -> str:
    noise = ended.get("noise")
    if noise is None and (folder / NOISE).is_file():
        noise = read_file(folder / NOISE, _RESULT_LIMIT).decode(errors="replace")
    return ((noise or "").strip().splitlines() or ["nothing was said"])[-1]


def _as_error(fields: dict[str, str]) -> StudbookError:
    kind = getattr(errors, fields.pop("type"), StudbookError)
    error: StudbookError = kind(fields.pop("message"), **fields)
    return error
