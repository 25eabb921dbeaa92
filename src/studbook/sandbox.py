"""Worker processes: separate, limited, without keys. What isolation was reached is reported, never assumed.

A worker is a module of the lab with a ``work(job, folder)`` function. It gets a JSON job on standard input, an empty
folder of its own and a cleaned environment; it answers with one JSON value in ``result.json`` in that folder.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec import Struct

from studbook import errors
from studbook.errors import OverBudget, StudbookError
from studbook.files import read_file

__all__ = ["ISOLATION", "Limits", "run_worker", "worker_main"]

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_RESULT = "result.json"
_RESULT_LIMIT = 256 << 20
_OPEN_FILES = 64

# Every measure a worker of this version has in force when its first input is opened.
ISOLATION: tuple[str, ...] = (
    "clean-environment",
    "closed-descriptors",
    "limit-address-space",
    "limit-core-dump",
    "limit-cpu-seconds",
    "limit-file-size",
    "limit-open-files",
    "no-keys",
    "no-new-privileges",
    "own-process",
    "own-session",
)


class Limits(Struct, frozen=True, kw_only=True):
    """What one worker may use.

    Attributes:
        seconds: Processor seconds; wall time is limited to ten times as many.
        memory_bytes: Address space in bytes.
        file_bytes: Largest file it may write, in bytes.
    """

    seconds: int
    memory_bytes: int
    file_bytes: int


def run_worker(module: str, job: dict[str, Any], folder: Path, limits: Limits) -> dict[str, Any]:
    """Run one worker to its end and return its answer.

    Args:
        module: Dotted name of the worker's module.
        job: Plain JSON values.
        folder: Its empty folder; the only place it is told of to write.
        limits: What it may use.

    Raises:
        OverBudget: if it used up its time, memory or file size.
        StudbookError: what the worker raised, or that it ended without an answer.
    """
    command = [sys.executable, "-I", "-B", "-W", "error::SyntaxWarning", "-m", module]
    message = json.dumps({"job": job, "limits": [limits.seconds, limits.memory_bytes, limits.file_bytes]}).encode()
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=_environment(folder),
        start_new_session=True,
        close_fds=True,
    ) as process:
        try:
            _, noise = process.communicate(message, timeout=limits.seconds * 10)
        except subprocess.TimeoutExpired as error:
            raise OverBudget(f"the worker ran longer than {limits.seconds * 10} s", where=module) from error
        finally:
            _end_group(process)
    return _answer(module, process.returncode, folder, noise)


def worker_main(work: Callable[[dict[str, Any], Path], dict[str, Any]]) -> None:
    """The main function of a worker module: limit itself, do the job, leave the answer.

    Args:
        work: Takes the job and the worker's folder, returns plain JSON values.
    """
    message = json.loads(sys.stdin.buffer.read())
    folder = Path.cwd()
    _limit_self(*message["limits"])
    try:
        answer = {"answer": work(message["job"], folder)}
    except StudbookError as error:
        answer = {
            "error": {
                "type": type(error).__name__,
                "message": error.message,
                "where": error.where,
                "advice": error.advice,
                "reason": error.reason,
            }
        }
    except MemoryError:
        answer = {"error": {"type": "OverBudget", "message": "the worker ran out of its memory limit"}}
    (folder / _RESULT).write_text(json.dumps(answer))


def _limit_self(seconds: int, memory_bytes: int, file_bytes: int) -> None:
    """Hard limits that cannot be raised again, before anything foreign is opened."""
    for kind, value in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, max(file_bytes, 1 << 20)),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if sys.platform == "linux":
        # A worker never outlives the lab process that waits for it.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if sys.platform == "linux" and ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError("no_new_privs was refused")


def _environment(folder: Path) -> dict[str, str]:
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    cache = {"NUMBA_CACHE_DIR": os.environ["NUMBA_CACHE_DIR"]} if "NUMBA_CACHE_DIR" in os.environ else {}
    return {
        "PATH": "/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        **threads,
        **cache,
    }


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _answer(module: str, code: int, folder: Path, noise: bytes) -> dict[str, Any]:
    path = folder / _RESULT
    if not path.exists():
        if code in (-signal.SIGXCPU, -signal.SIGKILL):
            raise OverBudget("the worker was stopped at its processor or memory limit", where=module)
        last = noise.decode(errors="replace").strip().splitlines()[-1:] or ["nothing on standard error"]
        raise StudbookError(
            f"the worker ended with code {code}: {last[0]}",
            where=module,
            advice="Raise the worker's limits or report it.",
        )
    result: dict[str, Any] = json.loads(read_file(path, _RESULT_LIMIT))
    if "error" in result:
        raise _as_error(result["error"])
    answer: dict[str, Any] = result["answer"]
    return answer


def _as_error(fields: dict[str, str]) -> StudbookError:
    kind = getattr(errors, fields.pop("type"), StudbookError)
    return kind(fields.pop("message"), **fields)
