"""What a process spends, measured by itself."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def spent() -> tuple[float, float]:
    """CPU seconds of the whole process, threads included, and wall seconds of an unnamed clock."""
    return time.process_time(), time.perf_counter()


def fastest(work: Callable[[], Any], repeats: int) -> tuple[Any, list[float]]:
    """What some work gives; CPU and wall seconds of the fastest repetition each, after one that is not counted."""
    found, seconds = work(), []
    for _ in range(repeats):
        cpu, wall = spent()
        found = work()
        after, end = spent()
        seconds.append((after - cpu, end - wall))
    return found, [min(cpu for cpu, _ in seconds), min(wall for _, wall in seconds)]


def peak_mib() -> float:
    """Most memory this process ever had resident, MiB; the kernel's other figure also counts who started it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0
