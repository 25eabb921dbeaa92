"""Workers: limited, without keys, and typed when they fail."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from studbook.errors import DigestDiffers, OverBudget, StudbookError
from studbook.sandbox import ISOLATION, Limits, run_worker

LIMITS = Limits(seconds=20, memory_bytes=4 << 30, file_bytes=1 << 20)

BODIES = {
    "echo": "return {'job': job}",
    "environment": "return {'names': sorted(os.environ), 'folder': str(folder), 'home': os.environ['HOME']}",
    "descriptors": "return {'open': sorted(int(n) for n in os.listdir('/proc/self/fd'))}",
    "session": "return {'leads': os.getsid(0) == os.getpid(), 'status': open('/proc/self/status').read()}",
    "limits": "return {k: resource.getrlimit(getattr(resource, k)) for k in ('RLIMIT_AS', 'RLIMIT_CPU', 'RLIMIT_FSIZE',"
    " 'RLIMIT_NOFILE', 'RLIMIT_CORE')}",
    "memory": "held = bytearray(1 << 30); return {'held': len(held)}",
    "time": "\n    while True: pass",
    "file": "(folder / 'big').write_bytes(b'x' * (8 << 20)); return {}",
    "refuses": "raise DigestDiffers('is another file', where='parent.slm', advice='Look again.', reason='digest.test')",
    "crashes": "raise RuntimeError('boom')",
    "exits": "os._exit(3)",
    "silent": "sys.exit(0)",
    "segfault": "ctypes.string_at(0)",
    "raises limits": "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "not json": "return {'x': float('nan'), 'y': {1, 2}}",
    "orphan": "os.fork() or time.sleep(600); return {}",
}
SOURCE = """
import ctypes, os, resource, sys, time
from pathlib import Path
sys.path.insert(0, {source!r})
from studbook.errors import DigestDiffers
from studbook.sandbox import worker_main

def work(job, folder):
    {body}

if __name__ == "__main__":
    worker_main(work)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "work"
    path.mkdir()
    return path


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):  # type: ignore[no-untyped-def]
    """Run a body as a worker; its module is found through a launcher, as ``-m`` sees only installed packages."""

    def started(body: str, limits: Limits = LIMITS):  # type: ignore[no-untyped-def]
        module = tmp_path / "hostile_worker.py"
        module.write_text(SOURCE.format(source=str(Path(__file__).parents[2] / "src"), body=BODIES[body]))
        launcher = tmp_path / "python"
        launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -B "{module}"\n')
        launcher.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(launcher))
        try:
            return run_worker("hostile_worker", {"n": 1, "text": "ä"}, folder, limits)
        finally:
            monkeypatch.undo()

    return started


def test_a_worker_gets_its_job_and_answers(run) -> None:  # type: ignore[no-untyped-def]
    assert run("echo") == {"job": {"n": 1, "text": "ä"}}


def test_a_workers_environment_holds_no_keys_and_nothing_of_its_parents(run, folder: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("STUDBOOK_KEYS", "/secret")
    monkeypatch.setenv("STUDBOOK_LAB", "/lab")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    answer = run("environment")
    assert not {"STUDBOOK_KEYS", "STUDBOOK_LAB", "AWS_SECRET_ACCESS_KEY", "PYTHONPATH"} & set(answer["names"])
    assert answer["folder"] == answer["home"] == str(folder)


def test_a_worker_inherits_no_descriptor(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with (tmp_path / "secret").open("w") as secret:
        opened = run("descriptors")["open"]
        assert secret.fileno() > 2
    # The fourth is the listing's own.
    assert len(opened) <= 4


def test_a_worker_leads_a_session_and_gains_no_privileges(run) -> None:  # type: ignore[no-untyped-def]
    answer = run("session")
    assert answer["leads"] is True
    assert "NoNewPrivs:\t1" in answer["status"]


def test_every_limit_is_hard(run) -> None:  # type: ignore[no-untyped-def]
    assert run("limits") == {
        "RLIMIT_AS": [4 << 30, 4 << 30],
        "RLIMIT_CPU": [20, 20],
        "RLIMIT_FSIZE": [1 << 20, 1 << 20],
        "RLIMIT_NOFILE": [64, 64],
        "RLIMIT_CORE": [0, 0],
    }
    assert {"limit-address-space", "limit-cpu-seconds", "no-keys", "no-new-privileges"} <= set(ISOLATION)


def test_a_worker_over_its_memory_is_stopped(run, folder: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(OverBudget, match="memory"):
        run("memory", Limits(seconds=20, memory_bytes=512 << 20, file_bytes=1 << 20))


def test_a_worker_over_its_processor_time_is_stopped(run) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(OverBudget, match="processor"):
        run("time", Limits(seconds=1, memory_bytes=4 << 30, file_bytes=1 << 20))


def test_a_worker_over_its_file_size_is_stopped(run) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(OverBudget):
        run("file")


def test_a_worker_cannot_raise_its_limits(run) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(StudbookError, match="ended with code 1"):
        run("raises limits")


def test_a_workers_own_refusal_arrives_as_it_was(run) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DigestDiffers) as caught:
        run("refuses")
    error = caught.value
    assert (error.message, error.where) == ("is another file", "parent.slm")
    assert (error.advice, error.reason) == ("Look again.", "digest.test")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("crashes", "ended with code 1: RuntimeError: boom"),
        ("exits", "ended with code 3: nothing on standard error"),
        ("silent", "ended with code 0"),
        ("segfault", "ended with code -11"),
        ("not json", "ended with code 1: TypeError"),
    ],
)
def test_a_worker_that_ends_without_an_answer_is_a_typed_error(run, body: str, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(StudbookError, match=words) as caught:
        run(body)
    assert caught.value.where == "hostile_worker"
    assert caught.value.advice


def test_what_a_worker_started_ends_with_it(run) -> None:  # type: ignore[no-untyped-def]
    assert run("orphan") == {}
