"""Tries every act of `sandbox_probe` without the sandbox and within, as whoever runs it, and prints what happened.

    python sandbox_driver.py FOLDER

Each line is JSON: the act, what it met without (empty: it did its harm) and within (empty: it got through).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import sandbox_probe

from studbook.errors import StudbookError
from studbook.sandbox import Limits, end_workers, run_worker

LIMITS = Limits(seconds=10, memory_bytes=768 << 20, file_bytes=1 << 20)
HARMED = ("became",)


def main(base: Path) -> None:
    """Set up what can be harmed, and let every act try."""
    os.environ["PROBE_SECRET"] = "1"
    job = targets(base)
    for name in sandbox_probe.ACTS:
        lines = {"act": name, "without": tried(base, job, name, without), "within": tried(base, job, name, within)}
        print(json.dumps(lines), flush=True)
    end_workers()
    os.kill(job["victim"], signal.SIGKILL)


def targets(base: Path) -> dict[str, Any]:
    """Everything that lies outside a worker's folder."""
    lab = base / "lab"
    lab.mkdir()
    (lab / "secret").write_text("secret")
    (base / "input").write_text("input")
    tcp = socket.create_server(("127.0.0.1", 0))
    door, abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    hidden = f"studbook-probe-{os.getpid()}"
    door.bind(str(base / "door"))
    abstract.bind("\0" + hidden)
    for made in (door, abstract):
        made.listen(64)
    for made in (tcp, door, abstract):
        threading.Thread(target=accept, args=(made,), daemon=True).start()
    return {
        "lab": str(lab),
        "secret": str(lab / "secret"),
        "prey": str(lab / "prey"),
        "input": str(base / "input"),
        "lab_process": os.getpid(),
        "victim": victim(),
        "tcp": tcp.getsockname()[1],
        "udp": udp.getsockname()[1],
        "door": str(base / "door"),
        "abstract": hidden,
    }


def accept(made: socket.socket) -> None:
    while True:
        made.accept()[0].close()


def victim() -> int:
    """A process of the same user that sleeps."""
    child = os.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-I", "-c", "import time; time.sleep(300)"])
    return child


def tried(base: Path, job: dict[str, Any], name: str, way: Any) -> str:
    """Empty when the act did what it wanted."""
    folder = base / f"{name}-{way.__name__}"
    folder.mkdir()
    if "link" in name:
        (folder / "way out").symlink_to(job["secret"])
        (folder / "up").symlink_to(job["lab"])
    Path(job["prey"]).write_text("prey")
    for left in ("planted", "linked", "moved"):
        (Path(job["lab"]) / left).unlink(missing_ok=True)
    met: str = way({**job, "act": name}, folder)
    return "" if any((folder / mark).exists() for mark in HARMED) else met


def without(job: dict[str, Any], folder: Path) -> str:
    """Forked, with no limit at all."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            os.chdir(folder)
            sandbox_probe.work(job, folder)
            os.write(write, b"done")
        except BaseException as error:
            os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        os.waitpid(child, 0)
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        os.set_blocking(pipe.fileno(), False)
        told = pipe.read() or b"it ended without a word"
    return "" if told == b"done" else told.decode()


def within(job: dict[str, Any], folder: Path) -> str:
    """As a worker; what the lab would refuse of its output afterwards does not count."""
    try:
        run_worker("sandbox_probe", job, folder, LIMITS, [Path(job["input"])])
    except StudbookError as error:
        said = folder / "result.json"
        told = json.loads(said.read_text()) if said.is_file() else {}
        if "answer" in told:
            return ""
        return f"{told['error']['message'] if 'error' in told else error.message}"
    return ""


if __name__ == "__main__":
    main(Path(sys.argv[1]))
