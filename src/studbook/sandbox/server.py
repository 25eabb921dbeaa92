"""The process workers are forked from: one thread, no keys, a cleaned environment, the worker modules imported.

It reads one JSON request a line on standard input and writes one JSON line when a worker starts and one when it ends.
The first of them names the measures that the worker put in force, as the worker told it before it opened anything foreign:
what it says later cannot change that. When standard input closes, because the lab closed it or died, it ends its workers
and itself.
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
from typing import Any, NamedTuple

from studbook.errors import StudbookError
from studbook.sandbox.libc import prctl
from studbook.sandbox.limits import Limits, confine, surroundings
from studbook.sandbox.lockdown import lock_down, own_network
from studbook.sandbox.places import library_trees
from studbook.sandbox.watch import end_orphans, excess

__all__ = ["NOISE", "RESULT", "main"]

RESULT = "result.json"
NOISE = "noise.txt"
_EXHAUSTED = (errno.EFBIG, errno.ENOSPC, errno.EDQUOT, errno.ENOMEM)
_PR_SET_CHILD_SUBREAPER = 36
# Seconds between two looks at the workers that run; seconds a worker has to lock itself down.
_TICK, _LOCKDOWN = 0.5, 30.0


class _Running(NamedTuple):
    """A worker that runs: its request's number, its folder, what it may use."""

    number: int
    folder: Path
    limits: Limits


def main() -> None:
    """Serve until standard input closes."""
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    if sys.platform == "linux":
        # What a worker starts and leaves becomes a child of this process, which ends it.
        prctl(_PR_SET_CHILD_SUBREAPER, 1)
    running: dict[int, _Running] = {}
    pending = b""
    while True:
        ready, _, _ = select.select([0, wake], [], [], _TICK if running else None)
        if wake in ready:
            os.read(wake, 4096)
            _reap(running)
        if not ready:
            _look(running)
        if 0 in ready:
            data = os.read(0, 1 << 16)
            if not data:
                break
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                _start(json.loads(line), running)
    for pid in running:
        _kill(pid)
    end_orphans(())


def _start(request: dict[str, Any], running: dict[int, _Running]) -> None:
    """Import the worker's module once, let it load or compile what the job needs, then fork."""
    number = request["id"]
    try:
        module = importlib.import_module(request["module"])
        if warm := getattr(module, "warm", None):
            warm()
        if prepare := getattr(module, "prepare", None):
            prepare(request["job"])
    except Exception:
        _reply({"id": number, "code": 1, "noise": traceback.format_exc()})
        return
    gc.freeze()
    server, trees = os.getpid(), library_trees()
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(module, request, server, trees, tell)
    os.close(tell)
    running[pid] = _Running(number, Path(request["folder"]), _limits(request))
    _reply({"id": number, "pid": pid, "isolation": _measures(told, pid)})


def _measures(told: int, pid: int) -> list[str]:
    """What a worker says of itself before it begins; nothing if it ended, or never got there."""
    with os.fdopen(told, "rb") as pipe:
        if not select.select([pipe], [], [], _LOCKDOWN)[0]:
            _kill(pid)
        measures: list[str] = json.loads(pipe.read() or b"[]")
    return measures


def _reap(running: dict[int, _Running]) -> None:
    while True:
        try:
            # Only looked at: until it is waited for, nobody else can have its number.
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None:
            return
        pid = ended.si_pid
        # Whatever the worker started goes with it.
        if pid in running:
            _kill(pid)
        _, status = os.waitpid(pid, 0)
        if found := running.pop(pid, None):
            end_orphans(running)
            _reply({"id": found.number, "code": os.waitstatus_to_exitcode(status)})


def _look(running: dict[int, _Running]) -> None:
    """End every worker that has too much of what no limit of the kernel covers, and every orphan."""
    for pid, worker in list(running.items()):
        if words := excess(pid, worker.folder, worker.limits):
            _reply({"id": worker.number, "over": words})
            _kill(pid)
    end_orphans(running)


def _kill(pid: int) -> None:
    """End a worker with its group; one that leads no group yet by itself."""
    for end in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            end(pid, signal.SIGKILL)


def _limits(request: dict[str, Any]) -> Limits:
    given = request["limits"]
    return Limits(**{**given, "demands": tuple(given["demands"])})


def _child(module: Any, request: dict[str, Any], server: int, trees: tuple[Path, ...], tell: int) -> None:
    """The worker: its own session and folder, nothing open, limited, locked down; never returns."""
    code = 1
    try:
        folder, limits = Path(request["folder"]), _limits(request)
        os.setsid()
        os.chdir(folder)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _close_all_but(tell)
        os.environ["HOME"] = os.environ["TMPDIR"] = str(folder)
        measures = _confine(limits, server, folder, tuple(map(Path, request["reads"])), trees)
        _keep_no_kernels()
        os.write(3, json.dumps(measures).encode())
        os.close(3)
        if os.getppid() != server or not set(limits.demands) <= set(measures):
            # The server died before its death could be told; or the lab has read by now what is missing here.
            os._exit(code)
        _write(folder, _outcome(module, request["job"], folder))
        code = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _close_all_but(tell: int) -> None:
    """Standard input from nowhere, the rest into a file of the worker's own; 3 is where its measures are told."""
    noise = os.open(NOISE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for target, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, noise), (2, noise)):
        os.dup2(source, target)
    if tell != 3:
        os.dup2(tell, 3)
    os.closerange(4, 1 << 16)


def _confine(limits: Limits, server: int, folder: Path, reads: tuple[Path, ...], trees: tuple[Path, ...]) -> list[str]:
    """Every measure this system offers, the ones that allow no way back at the end."""
    around = surroundings(server, told=3)
    network = own_network()
    limited = confine(limits)
    return sorted((*around, *network, *limited, *lock_down(folder, reads, trees)))


def _keep_no_kernels() -> None:
    """What numba compiles from here on stays in memory: its cache is read only here, and trying would be an error."""
    caching: Any = sys.modules.get("numba.core.caching")
    if caching is not None:
        caching.Cache.save_overload = lambda *_: None


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
