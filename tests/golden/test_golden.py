"""Labs that earlier versions left: every later version opens, verifies and explains them, byte for byte as they are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from make_golden import sums
from studbook.lab import Lab
from studbook.lab.bundles import Bundles
from studbook.records import BundleRelease, CandidateManifest, Tombstone
from studbook.workspace import FORMAT

HERE = Path(__file__).parent
GOLDEN = sorted(p for p in HERE.iterdir() if (p / "SHA256SUMS").is_file())


@pytest.fixture(params=GOLDEN, ids=lambda p: p.name)
def golden(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.param
    return folder


@pytest.fixture
def copy(golden: Path, tmp_path: Path) -> Path:
    """The golden lab in a place of its own; version control keeps no empty folders, and neither does a copy."""
    shutil.copytree(golden, tmp_path / "golden")
    return tmp_path / "golden"


def stated(folder: Path) -> dict[str, str]:
    lines = (folder / "SHA256SUMS").read_text(encoding="ascii").splitlines()
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}


def test_there_is_a_golden_lab_and_it_is_small() -> None:
    assert GOLDEN
    for folder in GOLDEN:
        assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) < 6_000_000


def test_no_golden_file_was_changed_added_or_lost(golden: Path) -> None:
    assert sums(golden) == stated(golden)


def test_a_changed_added_or_lost_golden_file_is_noticed(copy: Path) -> None:
    listed = stated(copy)
    path = copy / "lab" / "audit" / "ledger.jsonl"
    path.write_bytes(path.read_bytes() + b"\n")
    assert sums(copy) != listed
    path.write_bytes(path.read_bytes()[:-1])
    assert sums(copy) == listed
    (copy / "lab" / "more").write_bytes(b"")
    assert sums(copy) != listed


def test_a_golden_lab_verifies_with_its_pin_and_explains_what_is_gone(copy: Path) -> None:
    with Lab(copy / "lab", copy / "keys", writer=False) as lab:
        found = lab.verify()
        assert found.ok, found.problems
        assert found.pinned
        assert lab.desk.workspace.format <= FORMAT
        gone = {Path(a.where).name for a in found.absent}
        assert {b.sha256 for _, stone in lab.desk.all(Tombstone) for b in stone.blobs} <= gone
        for row in lab.list("models"):
            assert lab.audit(row["artifact"]).artifact == row["artifact"]
            assert lab.lineage(row["artifact"]).artifact == row["artifact"]
        assert [row.sequence for row in lab.log()] == list(range(found.entries))


def test_looking_at_a_golden_lab_changes_nothing(copy: Path) -> None:
    with Lab(copy / "lab", copy / "keys", writer=False, still=True) as lab:
        assert lab.verify().ok
        assert lab.log()
    assert sums(copy) == stated(copy)


def test_a_golden_candidate_is_bred_again_to_the_same_bytes(copy: Path, tmp_path: Path) -> None:
    with Lab(copy / "lab", copy / "keys", writer=False) as lab:
        manifests = [m for _, m in lab.desk.all(CandidateManifest)]
        assert manifests
        for number, manifest in enumerate(manifests):
            assert lab.reproduce(manifest.name, tmp_path / str(number)) == manifest.artifact.sha256


def test_the_bundle_of_every_golden_lab_that_assembled_one_is_verified(copy: Path) -> None:
    with Lab(copy / "lab", copy / "keys", writer=False) as lab:
        plans = {release.plan for _, release in lab.desk.all(BundleRelease)}
    assert bool(plans) == (copy / "bundle").is_dir()
    if plans:
        found = Bundles.verify(copy / "bundle", copy / "lab")
        assert found.ok, found.refusal
        assert found.plan in plans


def test_a_byte_of_a_golden_lab_that_changes_is_named(copy: Path) -> None:
    blobs = sorted((copy / "lab").rglob("blobs/*"))
    for path in blobs[:3]:
        data = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with Lab(copy / "lab", copy / "keys", writer=False) as lab:
            assert str(path) in {p.where for p in lab.verify().problems}
        path.write_bytes(data)
