"""What the server looks at while workers run, because no limit of the kernel covers it: memory, threads, files, orphans."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from studbook.sandbox.limits import Limits
from studbook.sandbox.lockdown import THREADS_MOST
from studbook.sandbox.outputs import contents

__all__ = ["end_orphans", "excess"]

_FIELDS = ("VmRSS", "VmSwap", "Threads")


def excess(process: int, folder: Path, limits: Limits) -> str:
    """What a worker has too much of, in words; empty if nothing.

    Between two looks it can take more than its limits for a moment: memory up to ``RLIMIT_AS``, files and disk as fast as
    the machine writes them.

    Args:
        process: The worker.
        folder: Its folder.
        limits: What it may use.
    """
    memory = threads = 0
    for member in (process, *_descendants(process)):
        figures = _figures(member)
        memory += (figures["VmRSS"] + figures["VmSwap"]) << 10
        threads += figures["Threads"]
    if memory > limits.memory_bytes:
        return f"the worker held {memory} bytes of memory; {limits.memory_bytes} are allowed"
    if threads > THREADS_MOST:
        return f"the worker ran {threads} threads; {THREADS_MOST} are allowed"
    found = contents(folder, limits.files)
    if found.files > limits.files:
        return f"the worker made more than {limits.files} files"
    if found.disk_bytes > limits.total_bytes:
        return f"the worker's files took {found.disk_bytes} bytes; {limits.total_bytes} are allowed"
    return ""


def end_orphans(workers: Iterable[int]) -> None:
    """Kill every child of this process that is no worker: what a worker started and left. It must be a subreaper."""
    known = set(workers)
    for process in _children(os.getpid()):
        if process not in known:
            for member in (process, *_descendants(process)):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(member, signal.SIGKILL)


def _figures(process: int) -> dict[str, int]:
    """Memory in KiB and the number of threads; 0 where the system does not tell."""
    found = dict.fromkeys(_FIELDS, 0)
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{process}/status").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name in found:
                found[name] = int(value.split()[0])
    return found


def _descendants(process: int) -> list[int]:
    found: list[int] = []
    pending = _children(process)
    while pending:
        found.append(pending.pop())
        pending += [child for child in _children(found[-1]) if child not in found]
    return found


def _children(process: int) -> list[int]:
    """Children of all its threads; empty where the system does not tell."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            with suppress(OSError):
                found += [int(word) for word in (task / "children").read_text().split()]
    return found
