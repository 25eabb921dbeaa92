"""Every way out of the sandbox, tried as root and as an ordinary user: first without it, then within.

An act that does no harm even without the sandbox on this machine proves nothing: it is reported as untestable by a skip
with that word, which has to stand in the list of skips that may be, and never as passed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

import studbook
from sandbox_fixtures import NOBODY, USERS, copied_python
from studbook.sandbox import landlock
from studbook.sandbox.libc import MACHINE

HERE = Path(__file__).parent
ACTS = re.findall(r"^@act\ndef (\w+)", (HERE / "sandbox_probe.py").read_text(), re.MULTILINE)
REFUSED = "Permission denied|Operation not permitted|what no worker may do"
# Where a limit says no, in its own words.
SAID = {
    "allocate_1_gib": "memory limit",
    "write_a_file_of_2_gib": "File too large",
    "leave_a_core_dump": "no effect",
}

pytestmark = pytest.mark.skipif(
    MACHINE is None or landlock.version() < 6, reason="needs Linux with Landlock version 6 on x86-64 or 64-bit Arm"
)


class Tried(NamedTuple):
    """What an act met; empty where it did its harm."""

    without: str
    within: str


@pytest.fixture(scope="module")
def python() -> Iterator[Path]:
    """An interpreter with the sandbox and the probe that every user of this machine can run."""
    base = Path(tempfile.mkdtemp(prefix="studbook-probe-"))
    packages = (Path(msgspec.__file__).parent, Path(str(studbook.__file__)).parent)
    yield copied_python(base, (*packages, HERE / "sandbox_probe.py", HERE / "sandbox_driver.py"))
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="module")
def outcomes(python: Path) -> dict[str, dict[str, Tried]]:
    """User -> act -> what it met."""
    return {user: drive(python, user) for user in USERS}


def drive(python: Path, user: str) -> dict[str, Tried]:
    base = python.parent.parent / user
    base.mkdir()
    drop = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if user == "nobody" else {}
    if user == "nobody":
        os.chown(base, NOBODY, NOBODY)
    command = [str(python), "-I", "-B", "-W", "ignore", "-m", "sandbox_driver", str(base)]
    environment = {"PATH": "/usr/bin:/bin", "PROBE_SECRET": "1"}
    ran = subprocess.run(  # type: ignore[call-overload]
        command, capture_output=True, text=True, timeout=300, cwd=base, env=environment, **drop
    )
    assert ran.returncode == 0, ran.stderr
    rows = [json.loads(line) for line in ran.stdout.splitlines()]
    return {row["act"]: Tried(row["without"], row["within"]) for row in rows}


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("act", [act for act in ACTS if act.startswith("may_")])
def test_what_a_worker_needs_gets_through(outcomes: dict[str, dict[str, Tried]], act: str, user: str) -> None:
    assert outcomes[user][act] == ("", "")


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("act", [act for act in ACTS if not act.startswith("may_")])
def test_what_works_without_the_sandbox_is_blocked_within(
    outcomes: dict[str, dict[str, Tried]], act: str, user: str
) -> None:
    tried = outcomes[user][act]
    if tried.without:
        pytest.skip(f"untestable here as {user}: {act}: {tried.without}")
    assert tried.within, f"{act} got through as {user}"
    assert re.search(SAID.get(act, REFUSED), tried.within), f"{act} was stopped by something else: {tried.within}"
