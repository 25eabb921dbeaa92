"""A program of the people who run a model: it is shown a release before that is put in force, and may say no."""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, Popen
from typing import NamedTuple

from studbook.errors import OutOfOrder, OverBudget, UsageError, printable

__all__ = ["Hook", "check_hook", "run_hook"]

_KEPT, _LINES, _WIDTH = 16 << 10, 12, 150
# All that a pipe holds.
_PIPE = 1 << 20
# Seconds between two looks at a program that says nothing.
_GLANCE = 0.1


class Hook(NamedTuple):
    """A program, and how long it may take.

    Attributes:
        program: An executable file.
        seconds: After which it is killed with all that it started.
    """

    program: Path
    seconds: float = 300.0


def check_hook(hook: Hook) -> None:
    """Refuse, before any work, what cannot be run.

    Raises:
        UsageError: if it is no executable file, or its time is none.
    """
    if not (hook.program.is_file() and os.access(hook.program, os.X_OK)):
        advice = "Name a file that may be executed: chmod +x FILE"
        raise UsageError("is no executable file", where=f"--hook {hook.program}", advice=advice, reason="usage.hook")
    if not 0 < hook.seconds <= 86400:
        advice = "Give seconds, at most 86400."
        raise UsageError(f"{hook.seconds:g} is no time", where="--hook-seconds", advice=advice, reason="usage.hook")


def run_hook(hook: Hook, release: Path) -> tuple[str, ...]:
    """Run a program on a release, without a shell and in a process group of its own.

    It is given the release as its only argument and nothing to read. What it started and left is killed with it where
    it fails, and is let live where it ends well: it may have started what serves.

    Args:
        hook: The program.
        release: The folder of the release.

    Returns:
        The last lines of what it said, on either stream.

    Raises:
        OutOfOrder: if it ends with another code than 0; ``deploy.hook``.
        OverBudget: if it does not end in time; ``deploy.hook``.
        UsageError: if the system does not run it.
    """
    command = [str(hook.program.absolute()), str(release)]
    # Where the lab and its keys lie is not for it.
    known = {name: value for name, value in os.environ.items() if not name.startswith("STUDBOOK")}
    try:
        process = Popen(command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, env=known, start_new_session=True)
    except OSError as error:
        advice = "Start it by hand once; a script needs a first line such as #!/bin/sh."
        text = f"cannot be run: {error.strerror}"
        raise UsageError(text, where=f"--hook {hook.program}", advice=advice, reason="usage.hook") from error
    with process:
        try:
            lines, good = _listen(process, time.monotonic() + hook.seconds)
        except BaseException:
            _kill(process)
            raise
        if not good:
            _kill(process)
    if good:
        return lines
    advice = f"What was in force still is. See for yourself: {' '.join(command)}"
    told = f": {' | '.join(lines)}" if lines else ", and said nothing"
    where, code = f"--hook {hook.program}", process.returncode
    if good is None:
        text = f"did not end within {hook.seconds:g} s{told}"
        raise OverBudget(text, where=where, advice=advice, reason="deploy.hook")
    how = f"ended with code {code}" if code > 0 else f"was ended by signal {-code}"
    raise OutOfOrder(f"{how}{told}", where=where, advice=advice, reason="deploy.hook")


def _listen(process: Popen[bytes], deadline: float) -> tuple[tuple[str, ...], bool | None]:
    """The last lines it says until it ends, and whether it ended well; None if its time was over first."""
    assert process.stdout is not None
    handle, tail, told = process.stdout.fileno(), b"", True
    good: bool | None = None
    while good is None and time.monotonic() < deadline:
        # Asked before what it said is read, for that is the end of it then; and not taken notice of, so that its number
        # stays its own until what it left is killed.
        ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is not None:
            good = (ended.si_code, ended.si_status) == (os.CLD_EXITED, 0)
        if not told:
            time.sleep(0 if ended else _GLANCE)
        elif select.select([handle], [], [], 0 if ended else _GLANCE)[0]:
            data = os.read(handle, _PIPE)
            told, tail = bool(data), (tail + data)[-_KEPT:]
    lines = [printable(line.strip())[:_WIDTH] for line in tail.decode(errors="replace").splitlines() if line.strip()]
    return tuple(lines[-_LINES:]), good


def _kill(process: Popen[bytes]) -> None:
    """End it and all that it started, as far as that did not leave its group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
