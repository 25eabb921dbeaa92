"""A process that is killed while a record that waits for signatures is written."""

from __future__ import annotations

import signal
import subprocess
import sys

from lab_fixtures import PERSON, Place, problems

KILLED = """
import os, signal, sys
import studbook.files as files
from studbook.cli import main

whole = files.place

def place(source, target):
    if "pending" in str(target):
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(source, target)

files.place = place
sys.exit(main())
"""


def test_what_a_kill_left_of_a_waiting_record_is_swept_by_the_next_writer(new_lab: Place) -> None:
    with new_lab.open() as lab:
        lab.keys.new("bob", ["tombstone/1"], PERSON)
        lab.keys.rotate(PERSON, needs={"tombstone/1": 2})
        folder = lab.desk.workspace.pending
    options = ["--lab", str(new_lab.path), "--keys", str(new_lab.keys)]
    verb = ["withdraw", "cap-rot", "--as", PERSON, "--reason", "why"]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *options, *verb], capture_output=True, timeout=120, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    (left,) = folder.iterdir()
    assert left.suffix == ".partial"
    with new_lab.open():
        assert not left.exists()
    assert problems(new_lab) == []
