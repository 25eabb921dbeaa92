"""A worker that reads its inputs where they lie in the page cache: shut in it can, and a file cut meanwhile is told."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from checkpoint_fixtures import safetensors_bytes
from studbook.errors import BytesLie
from studbook.sandbox import Answer, Limits, client, run_worker

SIZE = 1 << 20
SOURCE = f"""
import hashlib, os, time
from pathlib import Path
from studbook.breeding.operators import Blend, Inputs
from studbook.breeding.operators.run import stream
from studbook.breeding.operators.warm import prepare
from studbook.models import windows
from studbook.models.safetensors import open_safetensors
from studbook.tensors.sinks import MemorySink
from studbook.tensors.sources import TensorSource

class Parent(TensorSource):
    names = ("w",)

    def __init__(self, path):
        self.file = open_safetensors(path, windows.Windows())
        self.sha256 = hashlib.sha256(path.encode()).hexdigest()

    def dims(self, name):
        return ({SIZE},)

    def storage(self, name):
        return self.file.storage(name)

    def fill(self, name, start, out):
        self.file.fill(name, start, out)

    def span(self, name, start, size):
        return self.file.span(name, start, size)

class Waiting(MemorySink):
    piece = {SIZE // 8}

    def put(self, name, start, raw):
        super().put(name, start, raw)
        Path("begun").write_text("")
        while job["waits"] and os.stat(job["parents"][0]).st_size > {SIZE}:
            time.sleep(0.001)

def work(given, folder):
    global job
    job = given
    parents = tuple(map(Parent, job["parents"]))
    sink = Waiting({{"w": ({SIZE},)}})
    stream(Blend(weights=(0.25, 0.75)), Inputs(parents[0], parents), sink)
    return {{"windows": len(windows._all), "sha256": hashlib.sha256(sink.tensors["w"].tobytes()).hexdigest()}}
"""
Run = Callable[[Path, list[Path], bool], Answer]


@pytest.fixture
def parents(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(7)
    found = []
    for name in ("first", "second"):
        found.append(tmp_path / name)
        found[-1].write_bytes(safetensors_bytes({"w": ("F32", rng.normal(size=SIZE).astype(np.float32))}))
    return found


@pytest.fixture
def run(locked: client._Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(client, "_current", [locked])
    limits = Limits(seconds=20, memory_bytes=4 << 30, file_bytes=1 << 20)

    def start(folder: Path, parents: list[Path], waits: bool) -> Answer:
        folder.mkdir(exist_ok=True)
        job = {"operator": {"operator": "blend/1"}, "parents": [str(p) for p in parents], "waits": waits}
        return run_worker("inmate", job, folder, limits, parents)

    return start


def test_a_worker_that_is_shut_in_reads_its_inputs_where_they_lie(
    run: Run, parents: list[Path], tmp_path: Path
) -> None:
    answer = run(tmp_path / "work", parents, False).value
    first, second = (np.frombuffer(p.read_bytes()[-4 * SIZE :], np.float32) for p in parents)
    wanted = np.float32(0.25) * first + np.float32(0.75) * second
    assert answer == {"windows": 2, "sha256": hashlib.sha256(wanted.tobytes()).hexdigest()}


def test_a_parent_that_is_cut_during_a_merge_is_named_as_what_ended_the_worker(
    run: Run, parents: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "work"

    def cut() -> None:
        while not (folder / "begun").exists():
            time.sleep(0.001)
        with parents[0].open("r+b") as file:
            file.truncate(SIZE)

    thread = threading.Thread(target=cut)
    thread.start()
    with pytest.raises(BytesLie, match="an input became shorter, or the disk failed, while it was read") as caught:
        run(folder, parents, True)
    thread.join()
    assert caught.value.reason == "file.changed"
    assert caught.value.advice
