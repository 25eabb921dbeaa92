"""The process workers are forked from: one thread, no keys, a cleaned environment, the worker modules imported.

It reads one JSON request a line on standard input and writes one JSON line when a worker starts and one when it ends.
When standard input closes, because the lab closed it or died, it ends its workers and itself.
"""

from __future__ import annotations

import errno
import gc
import importlib
import json
import os
import select
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from studbook.errors import StudbookError
from studbook.sandbox.limits import Limits, confine, surroundings

__all__ = ["RESULT", "main"]

RESULT = "result.json"
NOISE = "noise.txt"
_EXHAUSTED = (errno.EFBIG, errno.ENOSPC, errno.EDQUOT, errno.ENOMEM)


def main() -> None:
    """Serve until standard input closes."""
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, int] = {}
    pending = b""
    while True:
        ready, _, _ = select.select([0, wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
            _reap(running)
        if 0 in ready:
            data = os.read(0, 1 << 16)
            if not data:
                break
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                _start(json.loads(line), running)
    for pid in running:
        _kill(pid)


def _start(request: dict[str, Any], running: dict[int, int]) -> None:
    """Import the worker's module once, then fork."""
    try:
        module = importlib.import_module(request["module"])
        if warm := getattr(module, "warm", None):
            warm()
    except Exception:
        _reply({"id": request["id"], "code": 1, "noise": traceback.format_exc()})
        return
    gc.freeze()
    server = os.getpid()
    pid = os.fork()
    if pid == 0:
        _child(module, request, server)
    running[pid] = request["id"]
    _reply({"id": request["id"], "pid": pid})


def _reap(running: dict[int, int]) -> None:
    while running:
        # Only looked at: until it is waited for, nobody else can have its number.
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return
        pid = ended.si_pid
        # Whatever the worker started goes with it.
        _kill(pid)
        _, status = os.waitpid(pid, 0)
        _reply({"id": running.pop(pid), "code": os.waitstatus_to_exitcode(status)})


def _kill(pid: int) -> None:
    """End a worker with its group; one that leads no group yet by itself."""
    for end in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            end(pid, signal.SIGKILL)


def _child(module: Any, request: dict[str, Any], server: int) -> None:
    """The worker: its own session and folder, nothing open, limited; never returns."""
    code = 1
    try:
        folder = Path(request["folder"])
        os.setsid()
        os.chdir(folder)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        noise = os.open(NOISE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        for target, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, noise), (2, noise)):
            os.dup2(source, target)
        os.closerange(3, 1 << 16)
        os.environ["HOME"] = os.environ["TMPDIR"] = str(folder)
        measures = sorted((*confine(Limits(**request["limits"])), *surroundings(server)))
        if os.getppid() != server:
            # The server died before its death could be told.
            os._exit(code)
        _write(folder, {**_outcome(module, request["job"], folder), "isolation": measures})
        code = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _outcome(module: Any, job: dict[str, Any], folder: Path) -> dict[str, Any]:
    try:
        return {"answer": module.work(job, folder)}
    except StudbookError as error:
        fields = {name: str(getattr(error, name)) for name in ("message", "where", "advice", "reason")}
        return {"error": {"type": type(error).__name__, **fields}}
    except MemoryError:
        return {"error": {"type": "OverBudget", "message": "the worker ran out of its memory limit"}}
    except OSError as error:
        # Only what a limit causes is a matter of budget; any other failure is told as it is.
        kind = "OverBudget" if error.errno in _EXHAUSTED else "StudbookError"
        place = "" if error.filename is None else str(error.filename)
        return {"error": {"type": kind, "message": f"could not go on: {error.strerror or error}", "where": place}}


def _write(folder: Path, result: dict[str, Any]) -> None:
    (folder / RESULT).write_text(json.dumps(result))


def _reply(message: dict[str, Any]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
