from __future__ import annotations

import pytest

from lab_fixtures import Place
from studbook.errors import DigestDiffers, OutOfOrder, OverBudget
from studbook.lab import Lab
from studbook.lab.desk import Desk
from studbook.lab.residence import open_residents
from studbook.models.engine import ENGINE_SHA256
from studbook.records import (
    Blob,
    Compatibility,
    Envelope,
    Measure,
    PackageEvidence,
    ParentApproval,
    ResidentSetRecord,
    RuntimeSmoke,
    Scorecard,
    SkillPackage,
)
from studbook.runtime.arenas import Budgets, Limits
from studbook.runtime.installing import Wish

MIB = 1 << 20
BUDGETS = Budgets(installed=4, active=3, parallel=2, host=Limits(total=256 * MIB, staging=64 * MIB))


def measure(value: float) -> Measure:
    return Measure(value=value, unit="bytes", basis="estimated", method="closed form of the engine")


def package(desk: Desk, name: str, artifact: str, smoke: str, version: str = "1.0.0") -> str:
    """A package of a parent of the lab, as its record."""
    approval, _ = next(iter(desk.all(ParentApproval)))
    slm = desk.model(artifact)
    envelope = Envelope(
        file_bytes=measure(slm.size),
        decoded_bytes=measure(0),
        kv_bytes_per_position=measure(0),
        scratch_bytes=measure(0),
    )
    record = SkillPackage(
        header=desk.header, id=name, package_version=version, artifact=Blob(sha256=artifact, size=slm.size), base=None,
        tokenizer=slm.tokenizer_sha256, stack=(), clusters=("rot",), requires=(), input={}, output={},
        permissions=("answer",), licence="MIT", envelope=envelope,
        evidence=PackageEvidence(basis="approval", record=approval, smoke=smoke, scorecards=()),
        unsupported=(), trade_offs=(), fallback=None, rollback=None,
        compatibility=Compatibility(slm=1, engine=ENGINE_SHA256, abi=1),
    )  # fmt: skip
    return desk.workspace.commit(record)


def packages(lab: Lab) -> list[str]:
    """Packages of two models that were smoked."""
    smokes = {smoke.artifact: digest for digest, smoke in lab.desk.all(RuntimeSmoke) if smoke.logits}
    scored = {card.artifact for _, card in lab.desk.all(Scorecard)}
    chosen = sorted(smokes.keys() & scored)[:2]
    return [package(lab.desk, f"skill-{i}", artifact, smokes[artifact]) for i, artifact in enumerate(chosen)]


def test_a_restart_finds_the_known_good_set_again(old_lab: Place) -> None:
    with old_lab.open() as lab:
        revisions = packages(lab)
        residents = open_residents(lab.desk, revisions, BUDGETS, wishes={"skill-0": Wish(positions=8)})
        residents.activate(["skill-0", "skill-1"], pins=["skill-1"])
        residents.settle(reason="both answer as they should")
        residents.evict("skill-0")
        residents.close()
    with old_lab.open() as lab:
        found = [record for _, record in lab.desk.all(ResidentSetRecord)]
        assert [record.act for record in found] == ["activate", "settle", "evict"]
        residents = open_residents(lab.desk, revisions, BUDGETS)
        record = residents.restore(reason="the server starts")
        assert set(record.after) == set(revisions)
        assert record.pins == (revisions[1],)
        assert record.host_bytes == residents.bytes_held()["host"] > 0
        with residents.lease("skill-0") as module, module.session() as session:
            assert session.feed(module.encode("rot ab>", eos=False)).shape == (module.vocab_size,)
        residents.close()
    assert old_lab.open(writer=False).verify().problems == ()


def test_a_set_one_of_whose_packages_may_not_run_is_forgotten(old_lab: Place) -> None:
    with old_lab.open() as lab:
        first, second = packages(lab)
        residents = open_residents(lab.desk, [first, second], BUDGETS)
        residents.activate(["skill-0", "skill-1"])
        residents.settle()
        residents.close()
        with pytest.raises(OutOfOrder, match="no set is known"):
            open_residents(lab.desk, [first], BUDGETS).restore()


def test_packages_beyond_the_limit_and_damaged_files_are_refused(old_lab: Place) -> None:
    with old_lab.open() as lab:
        revisions = packages(lab)
        with pytest.raises(OverBudget):
            open_residents(lab.desk, revisions, BUDGETS._replace(installed=1))
        artifact = lab.desk.workspace.get(revisions[0], SkillPackage).artifact
        path = lab.desk.workspace.blob_path(artifact.sha256)
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1] + b"\x01")
        with pytest.raises(DigestDiffers):
            open_residents(lab.desk, revisions, BUDGETS)
