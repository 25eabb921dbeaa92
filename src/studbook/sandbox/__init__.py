"""Worker processes: separate, limited, shut in, without keys. What was reached is reported by the worker, not assumed.

A worker is a module of the lab with a ``work(job, folder)`` function. It gets a JSON job, a folder of its own, the input
files that the lab names for it and a cleaned environment; it answers with one JSON value. Workers are forked from a small
server process that has imported them already and holds no keys, so that starting one costs milliseconds.

* `client`: the lab's side; `server`: the process they are forked from, and what it watches (`watch`).
* `limits`: what a worker may use and what it does to itself; `lockdown`: what it gives up for good, with Landlock
  (`landlock`), a filter of system calls (`seccomp`, `syscalls`) and, where it may, a network of its own.
* `places`: what every worker may read; `outputs`: what it may leave; `levels`: what a policy can demand.
"""

from __future__ import annotations

from studbook.sandbox.client import Answer, end_workers, run_worker
from studbook.sandbox.levels import KERNEL, LEVELS, MEASURES, PORTABLE, level_of
from studbook.sandbox.limits import Limits

__all__ = ["KERNEL", "LEVELS", "MEASURES", "PORTABLE", "Answer", "Limits", "end_workers", "level_of", "run_worker"]
