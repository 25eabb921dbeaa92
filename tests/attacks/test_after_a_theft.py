"""Life after a theft: what a revoked key signed is told by verify, and keeps nobody from going on."""

from __future__ import annotations

from pathlib import Path

from lab_fixtures import CLUSTER, PERSON, Place, problems, run_cli
from release_fixtures import change_policy, decisions, refused
from studbook.lab import Lab
from studbook.records import ReleaseRecord, RollbackRecord, replace


def throw_out(lab: Lab, kind: str, since: int) -> None:
    """Put a new key in the place of the one that signs a kind of record, and void what it signed."""
    stolen = next(g.key for g in lab.desk.workspace.root.keys if kind in g.kinds)
    assert lab.keys.rotate(PERSON, stolen[:16]).committed
    lab.keys.revoke(stolen[:16], PERSON, "stolen", since)


def void(lab: Lab) -> list[str]:
    """The kinds of the records that verify calls void."""
    return [Path(v.where).parent.name for v in lab.verify().void]


def entered(lab: Lab, kind: str) -> int:
    return next(e.sequence for e in reversed(lab.desk.entries()) if e.record_kind == kind)


def test_a_lab_goes_on_after_its_first_move_to_shadow_was_voided(new_lab: Place, tmp_path: Path) -> None:
    with new_lab.open() as lab:
        won = lab.round(CLUSTER).released
        alias = lab.desk.workspace.alias_path("shadow")
        assert won is not None and won.encode() in alias.read_bytes()
        since = entered(lab, ReleaseRecord.kind())
        throw_out(lab, ReleaseRecord.kind(), since)
    with new_lab.open() as lab:
        assert not alias.exists()
        assert void(lab) == ["release-record-1"]
        assert lab.verify().ok
        verified = next(c for c in lab.ready().criteria if c.name == "verify")
        assert verified.passed
    done = run_cli(new_lab, "verify")
    assert done.returncode == 0
    assert "void: key" in done.stdout
    copy, back = tmp_path / "copy", Place(tmp_path / "back", new_lab.keys)
    assert run_cli(new_lab, "backup", str(copy)).returncode == 0
    restored = run_cli(back, "restore", str(copy))
    assert restored.returncode == 0, restored.stderr
    assert run_cli(new_lab, "upgrade").returncode == 0
    with new_lab.open() as lab:
        # The same work done again is another record, and counts.
        lab.release(won, "shadow")
        assert lab.desk.channels()["shadow"].artifact == won
    assert problems(new_lab) == []


def test_an_honest_decision_made_against_a_thiefs_champion_is_void_and_the_thiefs_other_lie_is_not(
    new_lab: Place, tmp_path: Path
) -> None:
    with new_lab.open() as lab:
        won = lab.round(CLUSTER).released
        assert won is not None
        lab.release(won, "champion", PERSON)
        since = len(lab.desk.entries())
        lab.rollback("champion", "the thief's")
        # The round is honest; only what it finds as champion is not.
        change_policy(lab, tmp_path, notes="another day, so another decision")
        assert lab.round(CLUSTER).record.chosen == won
        assert len(decisions(lab)) == 2
        throw_out(lab, RollbackRecord.kind(), since)
    with new_lab.open() as lab:
        assert lab.desk.champion() == won
        assert void(lab)[:1] == ["rollback-record-1"]
        assert "viability-decision-1" in void(lab)
        assert problems(new_lab) == []
        decision = decisions(lab)[0]
        lab.desk.workspace.commit(replace(decision, assumptions=("none",)))
        lie = str(lab.desk.workspace.record_path(lab.desk.entries()[-1]))
    assert problems(new_lab) == [lie]


def test_a_lie_by_another_key_told_before_the_theft_was_known_stays_a_problem(new_lab: Place) -> None:
    with new_lab.open() as lab:
        won = lab.round(CLUSTER).released
        assert won is not None
        lab.release(won, "champion", PERSON)
        since = len(lab.desk.entries())
        lab.rollback("champion", "the thief's")
        decision = decisions(lab)[0]
        lab.desk.workspace.commit(replace(decision, assumptions=("none",)))
        lie = str(lab.desk.workspace.record_path(lab.desk.entries()[-1]))
        throw_out(lab, RollbackRecord.kind(), since)
    with new_lab.open():
        pass
    assert problems(new_lab) == [lie]


def test_a_void_record_is_not_taken_for_one_that_counts_when_it_enters_again(new_lab: Place) -> None:
    with new_lab.open() as lab:
        lab.round(CLUSTER)
        held = list(lab.desk.all(ReleaseRecord))[-1][1]
        throw_out(lab, ReleaseRecord.kind(), entered(lab, ReleaseRecord.kind()))
        entries = len(lab.desk.entries())
        with refused("ledger.void"):
            lab.desk.workspace.commit(held)
        assert len(lab.desk.entries()) == entries
