"""A whole lab that is made in seconds: the shipped founders, two of them as parents, and suites of two dozen items.

The suites are cut from the shipped ones and the gates are loosened, so that one round promotes and the next is a
no-op. What the small lab shows is that records, files and channels hold; what it decides says nothing about models.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from studbook.errors import StudbookError
from studbook.lab import Lab
from studbook.lab.demo import examples_folder
from studbook.lab.founding import read_policy
from studbook.models.forward import Forward
from studbook.models.slm import Slm, parse_slm, read_slm
from studbook.models.slm_writer import write_slm
from studbook.records import Policy, SuiteManifest, replace

PERSON = "ann"
CLUSTER = "rot"
PARENTS = ("cap-rot", "dup-odd")
PROTECTED = ("cap", "rot", "odd")
ROLES = ("development", "selection", "sealed")
# Items of a suite, and of the shipped suite's beginning from which they are taken.
ITEMS, POOL = 24, 72
BLEND = {"operator": "blend/1", "weights": "uniform"}
PRUNE = {"operator": "prune/1", "fraction": 0.5, "scope": "global", "skip": []}
POLICY: dict[str, Any] = {
    "name": "small-lab",
    "notes": "Loosened gates for suites of two dozen items.",
    "protected": list(PROTECTED),
    "recipes": [BLEND, PRUNE],
    "gates": {"alpha": 0.2, "margin": 0.5, "calibration_margin": 2.0, "practical_minimum": 0.0, "finalists": 2},
    "utility": {"risk": 0.0, "switching_threshold": 0.0},
}

Change = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


class Place(NamedTuple):
    """Where a lab lies.

    Attributes:
        path: Its folder.
        keys: The folder of its keys.
    """

    path: Path
    keys: Path

    def open(self, *, writer: bool = True) -> Lab:
        """Open it."""
        return Lab(self.path, self.keys, writer=writer)

    def copy(self, folder: Path) -> Place:
        """The same lab in another folder, cache left out."""
        target = Place(folder / "lab", folder / "keys")
        shutil.copytree(self.path, target.path, symlinks=True, ignore=_cache_of(self.path))
        shutil.copytree(self.keys, target.keys, symlinks=True)
        return target


def founder(name: str) -> Path:
    """Folder of a shipped founder."""
    return examples_folder() / "founders" / name


def small_policy(folder: Path, **changes: Any) -> Policy:
    """The policy of the small lab, with changes."""
    path = folder / "policy.json"
    path.write_text(json.dumps(POLICY | changes))
    return read_policy(path, PERSON)


def write_suite(folder: Path, items: Sequence[dict[str, Any]], /, **settings: object) -> Path:
    """A suite folder whose manifest fits its items; the folder is named after the suite."""
    lines = b"".join(msgspec.json.encode(item, order="sorted") + b"\n" for item in items)
    fields: dict[str, object] = {
        "manifest_version": 1,
        "kind": "suite",
        "name": "selection-rot",
        "role": "selection",
        "dimension": "task",
        "cluster": CLUSTER,
        "scorer": "exact-match",
        "licence": "CC0-1.0",
        "items": len(items),
        "items_sha256": hashlib.sha256(lines).hexdigest(),
        "max_new_tokens": 12,
    }
    fields |= settings
    path = folder / str(fields["name"])
    path.mkdir(parents=True)
    (path / "items.jsonl").write_bytes(lines)
    (path / "suite.manifest").write_text("".join(f"{key}={value}\n" for key, value in fields.items()))
    return path


def shipped_items(role: str, cluster: str) -> list[dict[str, Any]]:
    """The items the small lab takes from a shipped suite.

    Where a candidate is judged they are items on which the blend of the parents is ahead, or this few would show nothing.
    """
    path = examples_folder() / "suites" / role / f"{role}-{cluster}" / "items.jsonl"
    items = [json.loads(line) for line in path.read_text().splitlines()]
    if cluster == "calibration":
        return items[:: len(items) // ITEMS]
    if role == "development":
        return items[:ITEMS]
    pool = items[:POOL]
    child, base, *parents = (answers(model, pool) for model in contestants())
    lead = [sum(own - other for other in rest) for own, *rest in zip(child, *parents, strict=True)]
    ahead = sorted(range(POOL), key=lambda i: (-lead[i], base[i] - child[i], i))[:ITEMS]
    return [pool[i] for i in sorted(ahead)]


@cache
def contestants() -> tuple[Slm, ...]:
    """The uniform blend of the parents, and whom it has to beat: the base and every parent."""
    base, *parents = (read_slm(founder(name) / f"{name}.slm") for name in ("base", *PARENTS))
    share = np.float32(1 / len(parents))
    names = [spec.name for spec in base.shape.tensors()]
    tensors = {name: np.sum([share * p.dense(name) for p in parents], axis=0, dtype=np.float32) for name in names}
    return parse_slm(write_slm(base.shape, base.tokenizer, tensors), "blend"), base, *parents


def answers(model: Slm, items: Sequence[dict[str, Any]]) -> list[int]:
    """1 where a model answers exactly, else 0."""
    encode = model.tokenizer.encode
    pairs = [(encode(i["prompt"], bos=True, eos=False), encode(i["expected"], bos=False, eos=True)) for i in items]
    return [int(right) for right in Forward(model).score(pairs).exact]


def small_suites(folder: Path) -> Path:
    """Every suite of the small lab, in one folder."""
    for role in ROLES:
        for cluster in PROTECTED:
            items = shipped_items(role, cluster)
            write_suite(folder / role, items, name=f"{role}-{cluster}", role=role, cluster=cluster)
        write_suite(
            folder / role,
            shipped_items(role, "calibration"),
            name=f"{role}-calibration",
            role=role,
            dimension="calibration",
            cluster="mixture",
            scorer="proper-scores",
        )
    return folder


def prepare(folder: Path) -> Place:
    """A lab up to just before its first round: sources registered and approved, suites frozen, the base champion."""
    folder.mkdir(parents=True, exist_ok=True)
    place = Place(folder / "lab", folder / "keys")
    Lab.init(place.path, PERSON, place.keys, small_policy(folder))
    with place.open() as lab:
        for name in ("base", *PARENTS):
            lab.register(founder(name))
            lab.approve(name, PERSON, reason="shipped founder")
        lab.suites.freeze([small_suites(folder / "suites")], PERSON)
        lab.release("base", "champion", PERSON, "the deployed generalist")
    return place


def live(place: Place) -> None:
    """A whole life: a round that promotes, the promotion, a no-op round, readiness, and a rollback."""
    with place.open() as lab:
        first = lab.round(CLUSTER)
        assert first.released is not None, first.record.no_op.reasons
        lab.release(first.released, "champion", PERSON, "won the first round")
        second = lab.round(CLUSTER)
        assert second.record.action == "no-op"
        assert lab.ready().ready
        lab.rollback("champion", "the way back is tested")


def drop_suite(lab: Lab, name: str) -> None:
    """Put the next lock of suites in force, without one of them."""
    _, lock = lab.desk.suites_lock
    kept = tuple(d for d in lock.suites if lab.desk.workspace.get(d, SuiteManifest).name != name)
    lab.desk.workspace.commit(replace(lock, lock_version=lock.lock_version + 1, suites=kept))


def problems(place: Place) -> list[str]:
    """Every file that opening or verifying a lab complains about; a refusal to open counts with its place."""
    try:
        with place.open(writer=False) as lab:
            return [problem.where for problem in lab.verify().problems]
    except StudbookError as error:
        return [error.where or str(error)]


def run_cli(place: Place, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """One command of the command line in a process of its own."""
    command = [sys.executable, "-m", "studbook", "--lab", str(place.path), "--keys", str(place.keys), *arguments]
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("STUDBOOK")}
    return subprocess.run(
        command, capture_output=True, text=True, env=inherited | environment, timeout=300, check=False
    )


def lab_files(place: Place) -> list[Path]:
    """Every file of a lab outside its cache, sorted."""
    cache = place.path / "cache"
    return sorted(p for p in place.path.rglob("*") if p.is_file() and not p.is_relative_to(cache))


def rewrite(path: Path, data: bytes) -> None:
    """Replace a file's bytes whatever its mode says, the way an intruder would."""
    path.chmod(0o644)
    path.write_bytes(data)


def _cache_of(lab: Path) -> Callable[[str, list[str]], list[str]]:
    return lambda folder, names: [n for n in names if n == "cache" and Path(folder) == lab]


@pytest.fixture(scope="session")
def prepared_lab(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The small lab just before its first round; read it, or copy it."""
    return prepare(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="session")
def lived_lab(prepared_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The small lab after a whole life; read it, or copy it."""
    place = prepared_lab.copy(tmp_path_factory.mktemp("lived"))
    live(place)
    return place


@pytest.fixture
def new_lab(prepared_lab: Place, tmp_path: Path) -> Place:
    """A copy of the prepared lab to change."""
    return prepared_lab.copy(tmp_path / "new")


@pytest.fixture
def old_lab(lived_lab: Place, tmp_path: Path) -> Place:
    """A copy of the lived lab to change."""
    return lived_lab.copy(tmp_path / "old")


@pytest.fixture
def opened(new_lab: Place) -> Iterator[Lab]:
    """A copy of the prepared lab, opened for writing."""
    with new_lab.open() as lab:
        yield lab
