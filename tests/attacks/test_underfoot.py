"""Files that change while they are used: what was checked is what is used, or nothing is."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoint_fixtures import HIDDEN, bf16, read_llama, safetensors_bytes, write_llama
from lab_fixtures import PERSON
from studbook.errors import DigestDiffers, StudbookError
from studbook.lab import Lab
from studbook.records import CandidateManifest, SourceManifest

BLEND = {"operator": "blend/1", "weights": "uniform"}
ROWS = 1 << 17


class Thief:
    """Shown the progress of a lab's long steps, it strikes once: when the step of its choice has done its first bytes."""

    def __init__(self, step: str, strike: Callable[[], None]) -> None:
        self.step, self.strike, self.struck = step, strike, False

    def track(self, _title: str, items: Collection[Any], /) -> Iterator[Any]:
        return iter(items)

    def count(self, _title: str, items: Iterable[Any], _total: int, /) -> Iterator[Any]:
        return iter(items)

    @contextmanager
    def measure(self, title: str, _total: int, /) -> Iterator[Callable[[int], None]]:
        def shown(_bytes: int) -> None:
            if title.startswith(self.step) and not self.struck:
                self.struck = True
                self.strike()

        yield shown

    def say(self, line: str) -> None:
        pass


def write_large(folder: Path, seed: int) -> Path:
    """A llama with one tensor more, so large that it is copied in several steps."""
    write_llama(folder, seed)
    noise = np.random.default_rng(seed).standard_normal((ROWS, HIDDEN)).astype(np.float32)
    tensors = {name: ("BF16", bf16(values)) for name, values in read_llama(folder).items()}
    (folder / "model.safetensors").write_bytes(safetensors_bytes({**tensors, "model.extra": ("BF16", bf16(noise))}))
    return folder


def in_place(target: Path, other: bytes) -> None:
    """Write other bytes of the same length into the same file, whatever its mode."""
    target.chmod(0o600)
    with target.open("r+b") as file:
        file.write(other)


def by_rename(target: Path, other: bytes) -> None:
    """Put another file under the name."""
    fresh = target.with_name("fresh")
    fresh.write_bytes(other)
    fresh.replace(target)


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., Lab]:
    Lab.init(tmp_path / "lab", PERSON, tmp_path / "keys")
    return lambda **how: Lab(tmp_path / "lab", tmp_path / "keys", **how)


@pytest.mark.parametrize("swap", [in_place, by_rename])
def test_a_checkpoint_swapped_while_it_is_registered(
    tmp_path: Path, opened: Callable[..., Lab], swap: Callable[[Path, bytes], None]
) -> None:
    """What is stored, checked and recorded is one and the same copy, whichever bytes it caught."""
    folder, other = write_large(tmp_path / "victim", 1), write_large(tmp_path / "other", 2)
    target, wanted = folder / "model.safetensors", (other / "model.safetensors").read_bytes()
    thief = Thief("copying", lambda: swap(target, wanted))
    with opened(progress=thief) as lab:
        lab.register(folder)
    assert thief.struck
    with opened(writer=False) as lab:
        assert [m.name for _, m in lab.desk.all(SourceManifest)].count("victim") == 1
        assert lab.verify().ok


def test_a_checkpoint_cut_short_while_it_is_registered_is_refused_whole(
    tmp_path: Path, opened: Callable[..., Lab]
) -> None:
    folder = write_large(tmp_path / "victim", 1)
    target = folder / "model.safetensors"
    thief = Thief("copying", lambda: os.truncate(target, target.stat().st_size // 2))
    with opened(progress=thief) as lab, pytest.raises(StudbookError) as caught:
        lab.register(folder)
    assert thief.struck
    assert "model.safetensors" in caught.value.where
    with opened(writer=False) as lab:
        assert not list(lab.desk.all(SourceManifest))
        assert lab.verify().ok


def blob_of(lab: Lab, name: str) -> Path:
    """Where the weights of a registered checkpoint lie."""
    manifest = next(m for _, m in lab.desk.all(SourceManifest) if m.name == name)
    weights = max(manifest.files, key=lambda b: b.size)
    return next(lab.desk.workspace.path.glob(f"*/blobs/{weights.sha256}"))


@pytest.mark.parametrize("swap", [in_place, by_rename])
@pytest.mark.parametrize("when", ["before the worker", "while it writes"])
def test_a_stored_parent_swapped_while_a_child_is_bred(
    tmp_path: Path, opened: Callable[..., Lab], swap: Callable[[Path, bytes], None], when: str
) -> None:
    """Either the breeding is refused, or the child is what the true bytes give; never a child of the thief's bytes."""
    with opened() as lab:
        for number, name in enumerate(("first", "second")):
            lab.register(write_large(tmp_path / name, number))
            lab.approve(name, PERSON)
        target = blob_of(lab, "first")
        true = target.read_bytes()
        wanted = true[:-4096] + bytes(4096)
        stop, struck = threading.Event(), threading.Event()

        def strike() -> None:
            if when == "while it writes":
                while not stop.is_set() and not any(lab.desk.workspace.path.glob("cache/**/*.partial")):
                    stop.wait(0.001)
            swap(target, wanted)
            struck.set()

        robber = threading.Thread(target=strike)
        robber.start()
        if when == "before the worker":
            robber.join()
        child = None
        try:
            child = lab.breed(None, BLEND, ["first", "second"])
        except DigestDiffers as error:
            assert error.reason == "digest.input"
        finally:
            stop.set()
            robber.join()
    assert struck.is_set()
    with opened(writer=False) as lab:
        assert any(target.name in problem.where for problem in lab.verify().problems)
        assert [c.artifact.sha256 for _, c in lab.desk.candidates()] == ([child] if child else [])
    swap(target, true)
    target.chmod(0o444)
    with opened() as lab:
        if child is None:
            child = lab.breed(None, BLEND, ["first", "second"])
        assert lab.reproduce(child) == child
        assert lab.verify().ok
        assert len(list(lab.desk.all(CandidateManifest))) == 1


def test_a_lab_that_is_swapped_for_another_behind_an_open_reader(tmp_path: Path, opened: Callable[..., Lab]) -> None:
    """A reader that opened the true ledger names every record that is gone, instead of reading the other lab's."""
    with opened() as lab:
        lab.register(write_llama(tmp_path / "model", 3))
    Lab.init(tmp_path / "forged", "mallory", tmp_path / "forged.keys")
    with opened(writer=False) as lab:
        for zone in ("registry", "policy"):
            shutil.rmtree(tmp_path / "lab" / zone)
            if (tmp_path / "forged" / zone).is_dir():
                shutil.copytree(tmp_path / "forged" / zone, tmp_path / "lab" / zone)
        found = lab.verify()
    assert not found.ok
    assert any("registry" in problem.where for problem in found.problems)
