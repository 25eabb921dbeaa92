"""The lab's cache of magnitude cuts: used by breeding, never believed, never used to reproduce."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from checkpoint_fixtures import write_llama
from lab_fixtures import PERSON
from studbook.breeding.checkpoint_worker import CUTS
from studbook.lab import Lab
from studbook.tensors.selection import Cut
from studbook.tensors.thresholds import CutStore, take_over

NAMES = ("base", "first", "second")
TENSOR = "model.layers.0.mlp.up_proj.weight"


def merge(scale: float = 1.0) -> dict[str, Any]:
    return {"operator": "sign-aware-merge/1", "density": 0.2, "weights": [1.0, 1.0], "scale": scale, "skip": []}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lab that holds three checkpoints, approved; only copy it."""
    folder = tmp_path_factory.mktemp("home")
    write_llama(folder / "base", 0)
    write_llama(folder / "first", 1, folder / "base")
    write_llama(folder / "second", 2, folder / "base")
    Lab.init(folder / "lab", PERSON, folder / "keys")
    with Lab(folder / "lab", folder / "keys") as lab:
        for name in NAMES:
            lab.register(folder / name)
            lab.approve(name, PERSON)
    return folder


@pytest.fixture
def lab(home: Path, tmp_path: Path) -> Iterator[Lab]:
    for name in ("lab", "keys"):
        shutil.copytree(home / name, tmp_path / name, ignore=shutil.ignore_patterns("cache"))
    with Lab(tmp_path / "lab", tmp_path / "keys") as opened:
        yield opened


def cuts(lab: Lab) -> Path:
    return lab.desk.workspace.path / "cache" / "thresholds"


def held(lab: Lab) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(cuts(lab).iterdir())}


def written(lab: Lab) -> dict[str, tuple[int, int]]:
    """Inode and time of every file: a file that is written again is another one."""
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in cuts(lab).iterdir()}


def breed(lab: Lab, scale: float = 1.0) -> str:
    return lab.breed(None, merge(scale), ["first", "second"], "base")


def test_a_merge_leaves_the_cuts_of_each_parent_from_its_base(lab: Lab) -> None:
    breed(lab)
    base, first, second = (lab.desk.find_model(n) for n in NAMES)
    assert held(lab).keys() == {f"{first}-{base}.json", f"{second}-{base}.json"}
    assert lab.verify().ok


def test_a_second_merge_of_the_same_parents_reads_the_cuts_and_gives_what_it_gives_without(
    lab: Lab, home: Path, tmp_path: Path
) -> None:
    breed(lab)
    before = held(lab), written(lab)
    found = breed(lab, 0.5)
    # Nothing new was found: all of it had been known, and what is known is not written again.
    assert (held(lab), written(lab)) == before
    for name in ("lab", "keys"):
        shutil.copytree(home / name, tmp_path / "fresh" / name, ignore=shutil.ignore_patterns("cache"))
    with Lab(tmp_path / "fresh" / "lab", tmp_path / "fresh" / "keys") as fresh:
        assert breed(fresh, 0.5) == found


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff" * 90], ids=["empty", "foreign", "noise"])
def test_a_damaged_entry_is_ignored_and_written_again(lab: Lab, damage: bytes) -> None:
    breed(lab)
    before = held(lab)
    for name in before:
        (cuts(lab) / name).chmod(0o644)
        (cuts(lab) / name).write_bytes(damage)
    breed(lab, 0.5)
    assert held(lab) == before


def forge(lab: Lab) -> None:
    """A cut of one tensor that keeps another share than it is for, under a true digest."""
    base, first = lab.desk.find_model("base"), lab.desk.find_model("first")
    store = CutStore(cuts(lab))
    size = 24 * 16
    count = size // 5
    true = store.find(first, base, TENSOR, count)
    assert true is not None
    store.keep(first, base, TENSOR, count, Cut(true.bits // 2, true.last_index))
    store.save()


def test_a_forged_cut_changes_no_byte_and_is_forgotten(lab: Lab, home: Path, tmp_path: Path) -> None:
    breed(lab)
    forge(lab)
    forged = held(lab)
    found = breed(lab, 0.5)
    assert not held(lab)
    assert forged
    for name in ("lab", "keys"):
        shutil.copytree(home / name, tmp_path / "fresh" / name, ignore=shutil.ignore_patterns("cache"))
    with Lab(tmp_path / "fresh" / "lab", tmp_path / "fresh" / "keys") as fresh:
        assert breed(fresh, 0.5) == found
    assert lab.verify().ok


def test_reproducing_looks_at_no_cut(lab: Lab) -> None:
    child = breed(lab)
    forge(lab)
    before = held(lab)
    assert lab.reproduce(child) == child
    assert held(lab) == before


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(lab: Lab) -> None:
    cuts(lab).parent.mkdir(exist_ok=True)
    cuts(lab).mkdir()
    for name in NAMES[1:]:
        base = lab.desk.find_model("base")
        (cuts(lab) / f"{lab.desk.find_model(name)}-{base}.json").mkdir()
    assert lab.desk.workspace.has_blob(breed(lab))


def test_only_sound_cuts_of_the_pairs_in_question_are_taken_over(tmp_path: Path) -> None:
    pair, other, bad = ("1" * 64, "0" * 64), ("2" * 64, "0" * 64), ("3" * 64, "0" * 64)
    store = CutStore(tmp_path / CUTS)
    for parent, base in (pair, other):
        store.keep(parent, base, "w", 5, Cut(7, 9))
    store.save()
    (tmp_path / CUTS / f"{bad[0]}-{bad[1]}.json").write_bytes(b"{}")
    take_over(tmp_path / CUTS, tmp_path / "cache", [pair, bad])
    assert CutStore(tmp_path / "cache").find(*pair, "w", 5) == Cut(7, 9)
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [f"{pair[0]}-{pair[1]}.json"]
    take_over(tmp_path / "nothing", tmp_path / "cache", [pair])
    assert CutStore(tmp_path / "cache").find(*pair, "w", 5) == Cut(7, 9)
