"""Workers: forked apart, limited, without keys, and typed when they fail."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from studbook.errors import DigestDiffers, OverBudget, StudbookError
from studbook.sandbox import Answer, Limits, client, run_worker
from studbook.sandbox.limits import surroundings

LIMITS = Limits(seconds=20, memory_bytes=4 << 30, file_bytes=1 << 20)
MODULE = "hostile_worker"
SOURCE = """
import ctypes, os, resource, sys, time
from studbook.errors import DigestDiffers

def work(job, folder):
    return globals()[job["act"]](job, folder)

def echo(job, folder):
    return job

def environment(job, folder):
    return {"names": sorted(os.environ), "cwd": os.getcwd(), "home": os.environ["HOME"], "temp": os.environ["TMPDIR"]}

def descriptors(job, folder):
    # The listing's own descriptor is closed again before anyone can look at it.
    numbers = [n for n in os.listdir("/proc/self/fd") if int(n) > 2 and os.path.exists(f"/proc/self/fd/{n}")]
    return {"open": {n: os.readlink(f"/proc/self/fd/{n}") for n in numbers}}

def denied(job, folder):
    raise PermissionError(13, "Permission denied", "some/file")

def full(job, folder):
    raise OSError(job["errno"], os.strerror(job["errno"]), "some/file")

def vanished(job, folder):
    open(folder / "not there")

def process(job, folder):
    with open("/proc/self/status") as status:
        return {"leads": os.getsid(0) == os.getpid(), "parent": os.getppid(), "status": status.read()}

def limits(job, folder):
    kinds = ("AS", "CPU", "FSIZE", "NOFILE", "CORE")
    return {kind: resource.getrlimit(getattr(resource, "RLIMIT_" + kind)) for kind in kinds}

def memory(job, folder):
    return {"held": len(bytearray(1 << 30))}

def forever(job, folder):
    while True:
        pass

def sleeps(job, folder):
    time.sleep(600)

def flood(job, folder):
    (folder / "big").write_bytes(b"x" * (8 << 20))

def files(job, folder):
    return {"open": [open(os.devnull) for _ in range(2000)]}

def raises_limits(job, folder):
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

def refuses(job, folder):
    raise DigestDiffers("is another file", where="parent.slm", advice="Look again.", reason="digest.test")

def crashes(job, folder):
    raise RuntimeError("boom")

def exits(job, folder):
    os._exit(3)

def early(job, folder):
    os._exit(0)

def leaves(job, folder):
    sys.exit("had enough")

def segfault(job, folder):
    ctypes.string_at(0)

def no_json(job, folder):
    return {1, 2}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A worker server that can import the hostile module; an installed package is all the lab's own can see."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / f"{MODULE}.py").write_text(SOURCE)
    start = f"import sys; sys.path.insert(0, {str(folder)!r}); from studbook.sandbox.server import main; main()"
    launcher = folder / "python"
    # No shell between: it would add names of its own to the environment.
    launcher.write_text(f"#!{sys.executable} -IB\n{start}\n")
    launcher.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDBOOK_KEYS", "/secret")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "x")
        patch.setenv("PYTHONPATH", "/elsewhere")
        patch.setattr(client, "_current", [])
        with patch.context() as early:
            early.setattr(sys, "executable", str(launcher))
            client._server()
        yield
        client._current[0].close()


@pytest.fixture
def run(server: None, tmp_path: Path) -> Callable[..., Answer]:
    """Run one act of the hostile module."""

    def started(act: str, limits: Limits = LIMITS, **more: object) -> Answer:
        folder = tmp_path / act
        folder.mkdir()
        return run_worker(MODULE, {"act": act, "text": "\N{SNOWMAN}", **more}, folder, limits)

    return started


Run = Callable[..., Answer]


def test_a_worker_gets_its_job_and_answers(run: Run) -> None:
    assert run("echo").value == {"act": "echo", "text": "\N{SNOWMAN}"}


def test_a_workers_environment_holds_no_keys_and_nothing_of_the_labs(run: Run, tmp_path: Path) -> None:
    answer = run("environment")
    assert not {"STUDBOOK_KEYS", "AWS_SECRET_ACCESS_KEY", "PYTHONPATH", "USER"} & set(answer.value["names"])
    assert answer.value["cwd"] == answer.value["home"] == answer.value["temp"] == str(tmp_path / "environment")
    assert {"no-keys-in-environment", "clean-environment"} <= set(answer.isolation)


def test_a_worker_inherits_no_descriptor(run: Run, tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w"):
        opened = run("descriptors").value["open"]
    assert opened == {}


def test_a_worker_claims_every_measure_it_looked_up(run: Run) -> None:
    claimed = {"clean-environment", "closed-descriptors", "dies-with-lab", "no-keys-in-environment", "own-session"}
    assert claimed <= set(run("echo").isolation)


def test_a_worker_leads_a_session_of_its_own_and_gains_no_privileges(run: Run) -> None:
    answer = run("process")
    assert answer.value["leads"] is True
    assert answer.value["parent"] != os.getpid()
    assert "NoNewPrivs:\t1" in answer.value["status"]
    assert {"no-new-privileges", "own-process", "own-session"} <= set(answer.isolation)


def test_every_limit_is_hard(run: Run) -> None:
    answer = run("limits")
    assert answer.value == {
        "AS": [4 << 30, 4 << 30],
        "CPU": [20, 20],
        "FSIZE": [1 << 20, 1 << 20],
        "NOFILE": [1024, 1024],
        "CORE": [0, 0],
    }
    limits = {"limit-address-space", "limit-core-dump", "limit-cpu-seconds", "limit-file-size", "limit-open-files"}
    assert limits <= set(answer.isolation)


@pytest.mark.parametrize(
    ("act", "limits", "words"),
    [
        ("memory", Limits(seconds=20, memory_bytes=768 << 20, file_bytes=0), "memory limit"),
        ("forever", Limits(seconds=1, memory_bytes=4 << 30, file_bytes=0), "processor or memory limit"),
        ("flood", LIMITS, "File too large"),
    ],
)
def test_a_worker_over_a_limit_is_stopped(run: Run, act: str, limits: Limits, words: str) -> None:
    with pytest.raises(OverBudget, match=words):
        run(act, limits)


@pytest.mark.proof
def test_a_worker_that_does_nothing_for_too_long_is_stopped(run: Run) -> None:
    started = time.monotonic()
    with pytest.raises(OverBudget, match="longer than 10 s"):
        run("sleeps", Limits(seconds=1, memory_bytes=4 << 30, file_bytes=0))
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.ENOMEM])
def test_a_worker_for_which_nothing_is_left_is_over_budget(run: Run, number: int) -> None:
    with pytest.raises(OverBudget, match=os.strerror(number)) as caught:
        run("full", errno=number)
    assert caught.value.where == "some/file"


@pytest.mark.parametrize("kind", ["OSError", "printable", "annotations", "__name__", "NoSuchError"])
def test_an_error_of_no_kind_of_the_labs_own_arrives_as_a_plain_one(kind: str) -> None:
    error = client._as_error({"type": kind, "message": "m", "where": "w", "stray": "s"})
    assert type(error) is StudbookError
    assert (error.message, error.where) == ("m", "w")


def test_a_measure_that_does_not_hold_is_not_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "x")
    with (tmp_path / "open").open("w"):
        held = set(surroundings(parent=os.getppid()))
    assert "own-process" in held
    assert not held & {"clean-environment", "closed-descriptors", "no-keys-in-environment"}
    assert "own-process" not in surroundings(parent=os.getpid())
    assert ("own-session" in held) == (os.getsid(0) == os.getpid())


def test_a_workers_own_refusal_arrives_as_it_was(run: Run) -> None:
    with pytest.raises(DigestDiffers) as caught:
        run("refuses")
    assert (caught.value.message, caught.value.where) == ("is another file", "parent.slm")
    assert (caught.value.advice, caught.value.reason) == ("Look again.", "digest.test")


@pytest.mark.parametrize(
    ("act", "words"),
    [
        ("crashes", "ended with code 1: RuntimeError: boom"),
        ("exits", "ended with code 3: nothing was said"),
        ("early", "ended with code 0: nothing was said"),
        ("leaves", "ended with code 1: SystemExit: had enough"),
        ("segfault", "ended with code -11"),
        ("no_json", "ended with code 1: TypeError"),
        ("raises_limits", "ended with code 1: ValueError"),
        ("vanished", "vanished/not there: could not go on: No such file"),
        ("files", "dev/null: could not go on: Too many open files"),
        ("denied", "some/file: could not go on: Permission denied"),
        ("missing", "ended with code 1: KeyError"),
    ],
)
def test_a_worker_that_ends_without_an_answer_is_a_typed_error(run: Run, act: str, words: str) -> None:
    with pytest.raises(StudbookError, match=words) as caught:
        run(act)
    assert type(caught.value) is StudbookError
    assert caught.value.advice


def test_a_worker_of_a_module_that_is_not_there_is_a_typed_error(server: None, tmp_path: Path) -> None:
    with pytest.raises(StudbookError, match="no_such_worker"):
        run_worker("no_such_worker", {}, tmp_path, LIMITS)


def test_the_server_outlives_every_worker_that_failed(run: Run) -> None:
    for act in ("crashes", "segfault", "exits"):
        with pytest.raises(StudbookError):
            run(act)
    assert run("echo").value["act"] == "echo"
