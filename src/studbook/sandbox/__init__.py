"""Worker processes: separate, limited, without keys. What isolation was reached is reported by the worker, not assumed.

A worker is a module of the lab with a ``work(job, folder)`` function. It gets a JSON job, an empty folder of its own and
a cleaned environment; it answers with one JSON value. Workers are forked from a small server process that has imported
them already and holds no keys, so that starting one costs milliseconds. `limits` is what a worker does to itself,
`server` the process they are forked from, `client` the lab's side.
"""

from __future__ import annotations

from studbook.sandbox.client import Answer, end_workers, run_worker
from studbook.sandbox.limits import Limits

__all__ = ["Answer", "Limits", "end_workers", "run_worker"]
