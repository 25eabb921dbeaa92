"""How the list of a worker's system calls was made, and how to make it again: ``python tools/syscalls.py``.

Runs the demo with its worker server under strace and names every call that workers made after their limits were in force,
beside the list it stands on. A call on no list is what the filter refuses: exit code 1 if there is one. With ``--tests``
the server of a pytest run is recorded instead, for checkpoints and searches:

    python tools/syscalls.py --tests tests/walk/test_checkpoints.py tests/population/test_search.py

``--numbers FOLDER`` compares the numbers with the kernel's headers (``asm-generic/unistd.h`` and, on x86-64,
``x86_64-linux-gnu/asm/unistd_64.h`` below that folder) and runs nothing. strace is needed for nothing else.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from studbook.sandbox.syscalls import ABSENT, ALLOWED, CHECKED, KILLED, OWN

__all__ = ["calls_of", "main", "wrong_numbers"]

# `lockdown` itself tries a socket, to see it refused.
_LISTS = {"allowed": ALLOWED, "checked": CHECKED, "absent": ABSENT, "killed": KILLED, "tried by lockdown": OWN}
_HEADERS = ("x86_64-linux-gnu/asm/unistd_64.h", "asm-generic/unistd.h")
# The last thing a worker asks before its filter is in force.
_LOCKED = "PR_SET_SECCOMP"
_PLUGIN = """
from types import SimpleNamespace
import studbook.sandbox.client as client
client.sys = SimpleNamespace(executable={program!r})
"""
_DEMO = "import sys, recorded\nfrom studbook.cli import main\nsys.argv = ['studbook', 'demo', {folder!r}]\nmain()\n"
_LINE = re.compile(r"(\d+) +(?:<\.\.\. )?(\w+)")
_CLONE = re.compile(r"\d+ +(?:clone3?\(|<\.\.\. clone3? resumed).*= (\d+)$")


def main() -> int:
    """Record, or compare numbers; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tests", nargs="+", default=[], help="record the workers of these tests, not of the demo")
    parser.add_argument("--numbers", type=Path, help="folder of the kernel's headers, such as /usr/include")
    options = parser.parse_args()
    if options.numbers:
        wrong = wrong_numbers(options.numbers)
        print("\n".join(wrong) or "every number is the kernel's")
        return 1 if wrong else 0
    if shutil.which("strace") is None:
        print("strace is not installed", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        found = calls_of(_record(Path(folder), options.tests))
    places = {name: next((title for title, table in _LISTS.items() if name in table), "on no list") for name in found}
    for name, count in found.most_common():
        print(f"{count:>8}  {name:<20} {places[name]}")
    return 1 if not found or "on no list" in places.values() else 0


def calls_of(lines: Iterable[str]) -> Counter[str]:
    """How often workers and their threads made each call once they were locked down.

    Args:
        lines: What ``strace -f`` wrote.
    """
    locked: set[str] = set()
    found: Counter[str] = Counter()
    for line in lines:
        head = _LINE.match(line)
        if head is None:
            continue
        process, name = head.groups()
        if process in locked and "resumed>" not in line:
            found[name] += 1
        if _LOCKED in line:
            locked.add(process)
        if process in locked and (made := _CLONE.match(line)):
            locked.add(made.group(1))
    return found


def wrong_numbers(headers: Path) -> list[str]:
    """Every number that the kernel's headers give otherwise, in words."""
    wrong = []
    for column, name in enumerate(_HEADERS):
        text = (headers / name).read_text(encoding="utf-8") if (headers / name).is_file() else ""
        known = {n: int(v) for n, v in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\b", text)}
        # What the generic list calls fstatat is newfstatat on every machine of 64 bits.
        known.setdefault("newfstatat", known.get("fstatat", -1))
        for table in _LISTS.values():
            for call, pair in table.items():
                if known and pair[column] != known.get(call):
                    wrong.append(f"{name}: {call} is {known.get(call)}, not {pair[column]}")
    return wrong


def _record(folder: Path, tests: list[str]) -> list[str]:
    program, log = folder / "python", folder / "calls"
    program.write_text(f'#!/bin/sh\nexec strace -f -qq -o "{log}.$$" "{sys.executable}" "$@"\n')
    program.chmod(0o755)
    (folder / "recorded.py").write_text(_PLUGIN.format(program=str(program)))
    if tests:
        command = ["-m", "pytest", "-q", "-p", "recorded", "-p", "no:cacheprovider", *tests]
    else:
        command = ["-c", _DEMO.format(folder=str(folder / "demo"))]
    subprocess.run(
        [sys.executable, *command], env={**os.environ, "PYTHONPATH": str(folder)}, check=True, stdout=subprocess.DEVNULL
    )
    return [line for path in sorted(folder.glob("calls.*")) for line in path.read_text(errors="replace").splitlines()]


if __name__ == "__main__":
    sys.exit(main())
