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
from studbook.sandbox.limits import THREADS, Limits
from studbook.sandbox.server import NOISE, RESULT

__all__ = ["Answer", "end_workers", "run_worker"]

_RESULT_LIMIT = 256 << 20
_ENDED = (-signal.SIGXCPU, -signal.SIGKILL)
# Seconds a server has to end; and to tell of a worker that was killed, which an import may hold up.
_PATIENCE, _LAST_WORD = 1.0, 30.0


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
        self._ended = False
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
            self._send({"id": number, **request})
            self._waiting[number] = replies
        started = replies.get()
        if "pid" not in started:
            return started
        try:
            return replies.get(timeout=seconds)
        except queue.Empty:
            _kill(started["pid"])
        try:
            return {**replies.get(timeout=_LAST_WORD), "timed_out": True}
        except queue.Empty:
            # A server that does not even tell of a dead worker is of no more use.
            self.close()
            return {"code": -signal.SIGKILL, "timed_out": True}

    def alive(self) -> bool:
        """Whether it can take another request of this process."""
        return self.owner == os.getpid() and self.process.poll() is None

    def close(self) -> None:
        """End the server and whatever it still runs; who waits for a worker gets an error."""
        if self.owner != os.getpid() or self.process.stdin is None:
            return
        # Without the lock somebody is stuck writing to it.
        if self._lock.acquire(timeout=_PATIENCE):
            with suppress(OSError):
                self.process.stdin.close()
            self._lock.release()
        try:
            self.process.wait(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            # Busy with an import; the system tells its workers of its death.
            self.process.kill()
            self.process.wait()

    def _send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        try:
            if self._ended:
                raise BrokenPipeError
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except (OSError, ValueError) as error:
            # A closed pipe is a ValueError.
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
            self._ended = True
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
    try:
        ended = _server().run(request, limits.seconds * 10)
    except KeyboardInterrupt:
        end_workers()
        raise
    if ended.get("timed_out"):
        raise OverBudget(f"the worker ran longer than {limits.seconds * 10} s", where=module)
    return _answer(module, ended, folder)


def end_workers() -> None:
    """End every worker of this process at once; calls that wait for one return with an error.

    The next worker that is asked for starts a new server.
    """
    with _starting:
        ended, _current[:] = list(_current), []
    for server in ended:
        atexit.unregister(server.close)
        server.close()


def _server() -> _Server:
    with _starting:
        if not _current or not _current[0].alive():
            _current[:] = [_Server()]
            atexit.register(_current[0].close)
        return _current[0]


def _kill(pid: int) -> None:
    """End a worker with its group; one that leads no group yet by itself."""
    for end in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            end(pid, signal.SIGKILL)


def _environment() -> dict[str, str]:
    threads = dict.fromkeys(THREADS, "1")
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
    found = getattr(errors, fields["type"], None)
    kind = found if isinstance(found, type) and issubclass(found, StudbookError) else StudbookError
    return kind(fields["message"], **{name: fields.get(name, "") for name in ("where", "advice", "reason")})
