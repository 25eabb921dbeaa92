"""What is counted while serving, as Prometheus reads it: text format 0.0.4."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from typing import Final

__all__ = ["BOUNDS", "Metrics"]

BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper bounds of the buckets of seconds."""
_COUNTERS: Final = {
    "requests": ("code", "Requests that were answered, by HTTP status; 499 where the client left before."),
    "tokens": ("kind", "Tokens of prompts and tokens written."),
    "asides": ("outcome", "Runs beside answers: done, or why not."),
}
_GAUGES: Final = {
    "waiting": "Requests that wait for a worker.",
    "running": "Texts that are written now.",
    "up": "1 while requests are taken.",
    "resident_bytes": "Bytes of memory that models hold.",
}
_SECONDS: Final = {
    "answer_seconds": "From a request to the end of its answer.",
    "first_seconds": "From a request to the first part of its answer.",
}


class Metrics:
    """Counts and times; used by the event loop alone."""

    def __init__(self) -> None:
        self._counts = {name: Counter[str]() for name in _COUNTERS}
        self._buckets = {name: [0] * (len(BOUNDS) + 1) for name in _SECONDS}
        self._sums = dict.fromkeys(_SECONDS, 0.0)

    def count(self, name: str, label: str, by: int = 1) -> None:
        """Add to a counter."""
        self._counts[name][label] += by

    def time(self, name: str, seconds: float) -> None:
        """Add to a histogram."""
        self._buckets[name][bisect_left(BOUNDS, seconds)] += 1
        self._sums[name] += seconds

    def page(self, gauges: Mapping[str, float]) -> str:
        """The page.

        Args:
            gauges: ``waiting``, ``running``, ``up`` and ``resident_bytes``, as they are now.
        """
        lines = []
        for name, (label, words) in _COUNTERS.items():
            lines += _head(f"{name}_total", "counter", words)
            lines += [f'studbook_{name}_total{{{label}="{k}"}} {n}' for k, n in sorted(self._counts[name].items())]
        for name, words in _GAUGES.items():
            lines += [*_head(name, "gauge", words), f"studbook_{name} {gauges[name]:.15g}"]
        for name, words in _SECONDS.items():
            lines += [*_head(name, "histogram", words), *self._histogram(name)]
        return "\n".join(lines) + "\n"

    def _histogram(self, name: str) -> list[str]:
        lines, total = [], 0
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self._buckets[name], strict=True):
            total += count
            lines.append(f'studbook_{name}_bucket{{le="{bound}"}} {total}')
        return [*lines, f"studbook_{name}_sum {self._sums[name]:.6f}", f"studbook_{name}_count {total}"]


def _head(name: str, kind: str, words: str) -> list[str]:
    return [f"# HELP studbook_{name} {words}", f"# TYPE studbook_{name} {kind}"]
