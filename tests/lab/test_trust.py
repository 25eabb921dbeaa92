"""What a careless or hostile colleague with some of the keys cannot do without being refused or found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lab_fixtures import CLUSTER, PERSON, Place, founder, problems, rewrite
from studbook.errors import OutOfOrder, OutsideAllowlist, ParentsDoNotFit, RecordRefused, StudbookError, UsageError
from studbook.lab import Lab, judging
from studbook.lab.founding import read_policy
from studbook.records import (
    AdmissionRecord,
    CandidateManifest,
    ReleaseRecord,
    SealedOpening,
    ViabilityDecision,
)
from studbook.release import ALONE


def test_bytes_on_record_are_not_registered_again_with_less(old_lab: Place, tmp_path: Path) -> None:
    bare = shutil.copy(founder("base") / "base.slm", tmp_path / "base.slm")
    with old_lab.open() as lab, pytest.raises(UsageError, match="registered already"):
        lab.register(Path(bare))
    assert problems(old_lab) == []


@pytest.mark.parametrize("name", ["champion", "shadow", "0123456789abcdef", "a" * 64])
def test_a_model_is_not_named_like_a_digest_or_a_channel(opened: Lab, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name"):
        opened.register(founder("ceiling"), name)


def test_a_stale_decision_promotes_nothing(new_lab: Place) -> None:
    with new_lab.open() as lab:
        won = lab.round(CLUSTER).released
        assert won is not None
        lab.release(won, "champion", PERSON)
        lab.rollback("shadow")
        with pytest.raises(OutOfOrder, match="decided against another champion"):
            lab.release(won, "shadow")
    assert problems(new_lab) == []


def test_the_champion_is_not_promoted_twice(new_lab: Place) -> None:
    with new_lab.open() as lab:
        won = lab.round(CLUSTER).released
        assert won is not None
        lab.release(won, "champion", PERSON)
        with pytest.raises(OutOfOrder, match="champion already"):
            lab.release(won, "champion", PERSON)


def test_a_round_does_not_undo_a_rollback_by_itself(new_lab: Place) -> None:
    with new_lab.open() as lab:
        won = lab.round(CLUSTER).released
        assert won is not None
        lab.rollback("shadow", "it misbehaved")
        again = lab.round(CLUSTER)
        assert again.released is None and "left it" in again.held
        assert lab.desk.channels()["shadow"].artifact is None
        lab.release(won, "shadow")
        assert lab.desk.channels()["shadow"].artifact == won


def test_a_release_signed_for_another_than_the_admitted_candidate_is_found(old_lab: Place) -> None:
    with old_lab.open() as lab:
        admission = next(d for d, _ in lab.desk.all(AdmissionRecord))
        admitted = lab.desk.workspace.get(admission, AdmissionRecord).artifact
        other = next(m.artifact.sha256 for _, m in lab.desk.all(CandidateManifest) if m.artifact.sha256 != admitted)
        shadow = lab.desk.channels()["shadow"]
        forged = ReleaseRecord(
            header=lab.desk.header,
            channel="shadow",
            artifact=other,
            admission=admission,
            deployment=ALONE,
            rollback=shadow.back,
        )
        digest = lab.desk.workspace.commit(forged)
    assert any(digest in where for where in problems(old_lab))


def test_a_sealed_look_is_logged_before_it_is_taken(new_lab: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate = judging.evaluate

    def broken(desk: object, artifacts: object, role: str) -> object:
        if role == "sealed":
            raise StudbookError("the lights went out")
        return evaluate(desk, artifacts, role)  # type: ignore[arg-type]

    with new_lab.open() as lab:
        monkeypatch.setattr(judging, "evaluate", broken)
        with pytest.raises(StudbookError, match="lights"):
            lab.round(CLUSTER)
        monkeypatch.setattr(judging, "evaluate", evaluate)
        assert [o.opening for _, o in lab.desk.all(SealedOpening)] == [1]
        assert lab.round(CLUSTER).released is not None
        assert [o.opening for _, o in lab.desk.all(SealedOpening)] == [1]
        # The same round again, whatever was looked at since, is the same decision and takes no look of its own.
        again = [lab.round(CLUSTER).decision for _ in range(2)]
        assert len({*again, *(d for d, _ in lab.desk.all(ViabilityDecision))}) == 1
        assert [o.opening for _, o in lab.desk.all(SealedOpening)] == [1]


def test_a_recipe_that_changes_nothing_makes_no_candidate(opened: Lab) -> None:
    with pytest.raises(ParentsDoNotFit, match="changed nothing"):
        opened.breed(CLUSTER, {"operator": "task-delta/1", "scales": 0, "skip": []})
    assert opened.lineage("base").parents == ()
    assert opened.desk.candidates() == []


def test_changed_bytes_of_a_candidate_are_put_back_from_its_receipt(old_lab: Place) -> None:
    with old_lab.open(writer=False) as lab:
        manifest = lab.desk.candidates()[0][1]
        path = lab.desk.workspace.blob_path(manifest.artifact.sha256)
    rewrite(path, path.read_bytes()[:-1] + b"\x01")
    assert problems(old_lab) == [str(path)]
    with old_lab.open() as lab:
        lab.reproduce(manifest.artifact.sha256, restore=True)
    assert problems(old_lab) == []


def test_deleted_bytes_of_a_source_are_put_back_by_registering_it(old_lab: Place) -> None:
    with old_lab.open(writer=False) as lab:
        path = lab.desk.workspace.blob_path(lab.desk.find_model("cap-rot"))
    path.unlink()
    assert str(path) in problems(old_lab)
    with old_lab.open() as lab:
        lab.register(founder("cap-rot"))
    assert problems(old_lab) == []


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"stages": [{"stage": "canary", "approvals": 0, "hold_hours": 0}]}, OutsideAllowlist),
        ({"licences": []}, OutsideAllowlist),
        ({"budget": {"worker_bytes": 1}}, OutsideAllowlist),
        ({"utility": {"accuracy": -5}}, OutsideAllowlist),
        ({"recipes": [{"operator": "task-delta/1", "scales": 3.0, "skip": []}]}, OutsideAllowlist),
        ({"recipes": [{"operator": "task-delta/1", "scales": 0.3}]}, RecordRefused),
        ({"nonsense": 1}, RecordRefused),
    ],
)
def test_a_policy_that_cannot_run_makes_no_lab(tmp_path: Path, changes: dict[str, object], error: type) -> None:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(changes))
    with pytest.raises(error):
        Lab.init(tmp_path / "lab", PERSON, tmp_path / "keys", read_policy(path, PERSON))
    assert not (tmp_path / "lab").exists() and not (tmp_path / "keys").exists()


def test_a_key_that_stands_twice_in_a_policy_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text('{"name": "a", "name": "b"}')
    with pytest.raises(RecordRefused, match="twice"):
        read_policy(path, PERSON)
