from __future__ import annotations

import pytest

from lab_fixtures import Place
from studbook.errors import DigestDiffers, OutOfOrder, OverBudget
from studbook.lab import Lab
from studbook.lab.residence import open_residents
from studbook.records import ResidentSetRecord, SkillPackage
from studbook.runtime.arenas import Budgets, Limits
from studbook.runtime.installing import Wish

MIB = 1 << 20
BUDGETS = Budgets(installed=4, active=3, parallel=2, host=Limits(total=256 * MIB, staging=64 * MIB))


def packages(lab: Lab) -> list[str]:
    """Revisions of the two specialists that are installed."""
    return [row.revision for row in lab.packages.list()]


def test_a_restart_finds_the_known_good_set_again(host: Place) -> None:
    with host.open() as lab:
        revisions = packages(lab)
        residents = open_residents(lab.desk, revisions, BUDGETS, wishes={"rot": Wish(positions=8)})
        residents.activate(["rot", "odd"], pins=["odd"])
        residents.settle(reason="both answer as they should")
        residents.evict("rot")
        residents.close()
    with host.open() as lab:
        found = [record for _, record in lab.desk.all(ResidentSetRecord)]
        assert [record.act for record in found] == ["activate", "settle", "evict"]
        residents = open_residents(lab.desk, revisions, BUDGETS)
        record = residents.restore(reason="the server starts")
        assert set(record.after) == set(revisions)
        assert record.pins == (revisions[1],)
        assert record.host_bytes == residents.bytes_held()["host"] > 0
        with residents.lease("rot") as module, module.session() as session:
            assert session.feed(module.encode("rot ab>", eos=False)).shape == (module.vocab_size,)
        residents.close()
    assert host.open(writer=False).verify().problems == ()


def test_a_set_one_of_whose_packages_may_not_run_is_forgotten(host: Place) -> None:
    with host.open() as lab:
        first, second = packages(lab)
        residents = open_residents(lab.desk, [first, second], BUDGETS)
        residents.activate(["rot", "odd"])
        residents.settle()
        residents.close()
        with pytest.raises(OutOfOrder, match="no set is known"):
            open_residents(lab.desk, [first], BUDGETS).restore()


def test_packages_beyond_the_limit_and_damaged_files_are_refused(host: Place) -> None:
    with host.open() as lab:
        revisions = packages(lab)
        with pytest.raises(OverBudget):
            open_residents(lab.desk, revisions, BUDGETS._replace(installed=1))
        artifact = lab.desk.workspace.get(revisions[0], SkillPackage).artifact
        path = lab.desk.workspace.blob_path(artifact.sha256)
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1] + b"\x01")
        with pytest.raises(DigestDiffers):
            open_residents(lab.desk, revisions, BUDGETS)
