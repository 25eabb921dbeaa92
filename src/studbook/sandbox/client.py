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
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import to_builtins

from studbook import errors
from studbook.errors import BytesLie, OutsideAllowlist, OverBudget, StudbookError, printable
from studbook.files import read_file
from studbook.sandbox.limits import THREADS, Limits
from studbook.sandbox.outputs import check_output
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
            All that the server told of it, with ``timed_out`` set where the wall clock ended it.
        """
        replies: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        with self._lock:
            self._number += 1
            number = self._number
            self._send({"id": number, **request})
            self._waiting[number] = replies
        started = replies.get()
        told = dict(started)
        deadline = time.monotonic() + seconds
        while "code" not in told:
            try:
                told |= replies.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                if told.get("timed_out"):
                    # A server that does not even tell of a dead worker is of no more use.
                    self.close()
                    return {**told, "code": -signal.SIGKILL}
                told["timed_out"] = True
                deadline = time.monotonic() + _LAST_WORD
                _kill(told["pid"])
        return told

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
        with self.process.stdout as told:
            for line in told:
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


def run_worker(
    module: str, job: dict[str, Any], folder: Path, limits: Limits, reads: Iterable[Path | str] = ()
) -> Answer:
    """Run one worker to its end, and look at what it left before anybody takes it over.

    Args:
        module: Dotted name of the worker's module, which has ``work(job, folder)``. It may have ``warm()`` and
            ``prepare(job)``, which run before the worker is locked down and open nothing foreign.
        job: Plain JSON values.
        folder: Its folder; the only place in which it may write.
        limits: What it may use, and which measures must be in force.
        reads: The input files of the job. Beside libraries it can read nothing else, whatever the job names.

    Raises:
        OutsideAllowlist: if a measure that is demanded cannot be had here; the worker has not begun then.
        OverBudget: if it used up its time, memory, file size or number of files.
        BytesLie: if it left links, devices or names that are not plain, or an input was cut while it was read.
        StudbookError: what the worker raised, or that it ended without an answer.
    """
    request = {
        "module": module,
        "job": job,
        "folder": str(folder.absolute()),
        "limits": to_builtins(limits),
        "reads": [str(Path(path).absolute()) for path in reads],
    }
    try:
        ended = _server().run(request, limits.seconds * 10)
    except KeyboardInterrupt:
        end_workers()
        raise
    _check_ended(module, ended, limits)
    return _answer(module, ended, folder, limits)


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


def _check_ended(module: str, ended: dict[str, Any], limits: Limits) -> None:
    """Refuse a worker that did not begin, or that was ended from outside."""
    reached = ended.get("isolation", [])
    if reached and (missing := sorted(set(limits.demands) - set(reached))):
        raise OutsideAllowlist(
            f"this machine does not offer {', '.join(missing)}, which the policy demands of every worker; nothing has run",
            where="policy: minimum_isolation",
            advice="Run the lab where `studbook doctor` names these measures, or have the policy's owner demand no more "
            "than the portable ones.",
            reason="policy.isolation",
        )
    if words := ended.get("over"):
        raise OverBudget(words, where=module, reason="budget.worker")
    if ended.get("timed_out"):
        raise OverBudget(f"the worker ran longer than {limits.seconds * 10} s", where=module)
    if ended["code"] in _ENDED:
        raise OverBudget("the worker was stopped at its processor or memory limit", where=module)
    if ended["code"] == -signal.SIGBUS:
        raise BytesLie(
            "an input became shorter, or the disk failed, while it was read",
            where=module,
            advice="Check the disk, and that nothing else writes to the lab's files; then run the same command again.",
            reason="file.changed",
        )
    if ended["code"] == -signal.SIGSYS:
        raise StudbookError(
            "the worker asked the system for what no worker may do, and was ended",
            where=module,
            advice="Do not use the model it was given before you know why; it may be hostile.",
            reason="sandbox.syscall",
        )


def _answer(module: str, ended: dict[str, Any], folder: Path, limits: Limits) -> Answer:
    if ended["code"] != 0 or not os.path.lexists(folder / RESULT):
        raise StudbookError(
            f"the worker ended with code {ended['code']}: {_last_words(ended, folder)}",
            where=module,
            advice="Raise the worker's limits, or report it.",
        )
    check_output(folder, limits)
    result = _result(folder / RESULT)
    if isinstance(error := result.get("error"), dict):
        raise _as_error({name: printable(value) for name, value in error.items()})
    if not isinstance(answer := result.get("answer"), dict):
        raise _no_answer(folder / RESULT)
    return Answer(answer, tuple(ended["isolation"]))


def _result(path: Path) -> dict[str, Any]:
    """What lies where the answer should be; whatever the worker met may have written it."""
    try:
        result = json.loads(read_file(path, _RESULT_LIMIT))
    except (ValueError, RecursionError) as error:
        raise _no_answer(path) from error
    if not isinstance(result, dict):
        raise _no_answer(path)
    return result


def _no_answer(path: Path) -> BytesLie:
    advice = "Do not use the model it was given before you know why; it may be hostile."
    return BytesLie("is not an answer of a worker", where=path, advice=advice, reason="sandbox.answer")


def _last_words(ended: dict[str, Any], folder: Path) -> str:
    noise = ended.get("noise")
    if noise is None:
        with suppress(StudbookError):
            noise = read_file(folder / NOISE, _RESULT_LIMIT).decode(errors="replace")
    return printable(((noise or "").strip().splitlines() or ["nothing was said"])[-1])


def _as_error(fields: dict[str, str]) -> StudbookError:
    found = getattr(errors, fields.get("type", ""), None)
    kind = found if isinstance(found, type) and issubclass(found, StudbookError) else StudbookError
    return kind(
        fields.get("message", "no reason was given"),
        **{name: fields.get(name, "") for name in ("where", "advice", "reason")},
    )
