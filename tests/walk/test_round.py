"""The whole round and its rollback on a small lab: what it leaves can be recomputed, replayed and undone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lab_fixtures import CLUSTER, PARENTS, PERSON, Place, problems, run_cli
from studbook.breeding.recompute import check_receipt, recompute
from studbook.errors import DigestDiffers, NotAuthorised, OutOfOrder, OutsideAllowlist, UsageError
from studbook.lab import Lab
from studbook.lab.replay import replay
from studbook.records import (
    ArchiveRecord,
    CandidateManifest,
    ChampionPromotion,
    ConfirmationRecord,
    LineageTemplate,
    OperatorReceipt,
    ParentApproval,
    ReadinessRecord,
    RollbackRecord,
    Scorecard,
    ViabilityDecision,
    digest,
    replace,
    write_record,
)


@pytest.fixture
def reader(lived_lab: Place) -> Lab:
    return lived_lab.open(writer=False)


def decisions(lab: Lab) -> list[ViabilityDecision]:
    return [record for _, record in lab.desk.workspace.all(ViabilityDecision)]


def winner(lab: Lab) -> str:
    chosen = decisions(lab)[0].chosen
    assert chosen is not None
    return chosen


def candidates(lab: Lab) -> dict[str, CandidateManifest]:
    """Every candidate's first manifest, by artifact."""
    return {m.artifact.sha256: m for _, m in reversed(list(lab.desk.workspace.all(CandidateManifest)))}


def test_the_first_round_promotes_and_the_second_is_a_no_op_under_the_same_policy(reader: Lab) -> None:
    first, second = decisions(reader)
    assert (first.action, second.action) == ("promote-to-shadow", "no-op")
    assert first.policy == second.policy
    assert second.champion == first.chosen != first.champion


def test_both_decisions_decided_again_from_their_records_give_the_recorded_bytes(reader: Lab) -> None:
    for record in decisions(reader):
        assert write_record(replay(reader.desk, record)) == write_record(record)


def test_a_decision_with_another_number_in_a_scorecard_is_another_decision(reader: Lab) -> None:
    record = decisions(reader)[0]
    entry = next(s for s in record.standings if s.artifact == record.chosen)
    card = reader.desk.workspace.get(entry.selection or "", Scorecard)
    turned = tuple(replace_correct(r) for r in card.results)
    workspace = reader.desk.workspace
    workspace._records[entry.selection or ""] = replace(card, results=turned)
    assert digest(replay(reader.desk, record)) != digest(record)


def replace_correct(result):  # type: ignore[no-untyped-def]
    flipped = result.correct.translate(str.maketrans("01", "10"))
    return replace(result, correct=flipped)


def test_every_loser_is_archived_with_numbers_and_the_no_op_names_its_own(reader: Lab) -> None:
    archived = {c.manifest: c for _, a in reader.desk.workspace.all(ArchiveRecord) for c in a.candidates}
    for record in decisions(reader):
        for standing in record.standings:
            if standing.artifact != record.chosen:
                assert archived[standing.manifest].reasons
        assert any(ch.isdigit() for reason in record.no_op.reasons for ch in reason)
    prune = next(s for s in decisions(reader)[0].standings if s.family == "prune")
    assert prune.action == "archive"
    assert any("fell from" in reason for reason in prune.reasons)


def test_the_parents_stand_as_baselines_and_the_child_beats_each(reader: Lab) -> None:
    first = decisions(reader)[0]
    assert [reader.desk.name_of(p) for p in first.parents] == list(PARENTS)
    won = next(s for s in first.standings if s.artifact == first.chosen)
    beaten = {c.against for c in won.comparisons if c.test == "parent" and c.passed}
    assert set(first.parents) <= beaten
    assert not [c for c in won.comparisons if c.test in ("parent", "superiority", "non-inferiority") and not c.passed]


def test_the_winner_was_confirmed_once_on_the_sealed_suites(reader: Lab) -> None:
    (confirmation,) = [c for _, c in reader.desk.workspace.all(ConfirmationRecord)]
    assert (confirmation.candidate, confirmation.opening, confirmation.passed) == (winner(reader), 1, True)
    sealed = {c.artifact for _, c in reader.desk.workspace.all(Scorecard) if c.role == "sealed"}
    assert sealed == {winner(reader), decisions(reader)[0].champion}


def test_generating_and_scoring_agree_on_a_sample_of_every_scorecard(reader: Lab) -> None:
    cards = [card for _, card in reader.desk.workspace.all(Scorecard)]
    assert len(cards) >= 10
    for card in cards:
        assert card.agreement.sampled >= 24
        assert card.agreement.agreed == card.agreement.sampled
        assert all(r.expected_calls == r.actual_calls == len(r.correct) for r in card.results)
        assert all(r.items_before == r.items_after for r in card.results)


def test_the_lab_was_ready_and_the_rollback_restored_the_base(reader: Lab) -> None:
    (ready,) = [r for _, r in reader.desk.workspace.all(ReadinessRecord)]
    assert ready.ready
    assert [c.name for c in ready.criteria] == ["reproduce", "reject", "explain", "verify", "rollback"]
    assert reader.desk.champion() == reader.desk.find_model("base")
    assert reader.verify().ok


def test_lineage_leads_back_to_registered_sources(reader: Lab) -> None:
    tree = reader.lineage(winner(reader))
    assert {ancestor.name for ancestor in tree.parents} == {"base", *PARENTS}
    assert all(ancestor.how is None and ancestor.licence == "CC0-1.0" for ancestor in tree.parents)


def test_a_second_life_in_another_folder_gives_the_same_candidates_and_decisions(
    reader: Lab, prepared_lab: Place, tmp_path: Path
) -> None:
    place = prepared_lab.copy(tmp_path)
    with place.open() as lab:
        lab.round(CLUSTER)
        assert winner(lab) == winner(reader)
        assert write_record(decisions(lab)[0]) == write_record(decisions(reader)[0])
        assert set(candidates(lab)) <= set(candidates(reader))


def test_a_round_run_again_works_on_nothing_twice(old_lab: Place) -> None:
    with old_lab.open() as lab:
        ledger = lab.desk.workspace.ledger.entries
        before = len(ledger)
        outcome = lab.round(CLUSTER)
        assert outcome.record == decisions(lab)[0]
        # Only the promotion papers may be written again: the way back is another record since the rollback.
        assert {e.record_kind for e in ledger[before:]} <= {"promotion-template/1", "admission-record/1"}
        again = len(ledger)
        lab.round(CLUSTER)
        assert len(ledger) == again


# -- reproduce ---------------------------------------------------------------------------------------------------


def without_candidates(place: Place) -> list[str]:
    """Delete the bytes of every candidate; returns their digests."""
    with place.open(writer=False) as lab:
        found = sorted(candidates(lab))
        for artifact in found:
            lab.desk.workspace.blob_path(artifact).unlink()
    return found


@pytest.mark.parametrize(("threads", "chunk"), [(1, 1 << 20), (2, 1 << 20), (1, 999), (2, 4096)])
def test_every_child_of_the_sources_is_bred_again_without_its_bytes(
    old_lab: Place, tmp_path: Path, threads: int, chunk: int
) -> None:
    with old_lab.open(writer=False) as lab:
        first = {s.artifact for s in decisions(lab)[0].standings}
    without_candidates(old_lab)
    with old_lab.open() as lab:
        for artifact in sorted(first):
            assert lab.reproduce(artifact, tmp_path / f"{artifact[:8]}-elsewhere", threads, chunk) == artifact


def test_a_candidate_bred_again_in_a_process_of_its_own_with_another_hash_seed_is_equal(
    old_lab: Place, tmp_path: Path
) -> None:
    with old_lab.open(writer=False) as lab:
        child = winner(lab)
    without_candidates(old_lab)
    for seed, threads in (("0", "1"), ("4242", "2")):
        folder = tmp_path / f"seed-{seed}"
        ended = run_cli(
            old_lab, "--json", "reproduce", child, "--folder", str(folder), "--threads", threads, PYTHONHASHSEED=seed
        )
        assert ended.returncode == 0, ended.stderr
        assert json.loads(ended.stdout) == {"artifact": child, "equal": True}


def test_deleted_bytes_are_put_back_and_children_of_deleted_parents_follow(old_lab: Place) -> None:
    deleted = without_candidates(old_lab)
    assert len(problems(old_lab)) == len(deleted)
    with old_lab.open() as lab:
        first = [s.artifact for s in decisions(lab)[0].standings]
        orphan = next(a for a in deleted if a not in first)
        with pytest.raises(OutOfOrder, match="are not in the lab") as caught:
            lab.reproduce(orphan)
        assert "--restore" in caught.value.advice
        for artifact in [*first, orphan]:
            assert lab.reproduce(artifact, restore=True) == artifact
    assert problems(old_lab) == []


def papers(lab: Lab) -> tuple[LineageTemplate, OperatorReceipt]:
    manifest = candidates(lab)[winner(lab)]
    workspace = lab.desk.workspace
    return workspace.get(manifest.template, LineageTemplate), workspace.get(manifest.receipt, OperatorReceipt)


def test_a_receipt_that_promises_other_bytes_is_found_out(reader: Lab, tmp_path: Path) -> None:
    template, receipt = papers(reader)
    other = replace(receipt, output=replace(receipt.output, sha256="0" * 64))
    paths = {d: reader.desk.workspace.blob_path(d) for d in (template.base, *template.parents)}
    with pytest.raises(DigestDiffers, match="the receipt says 0000") as caught:
        recompute(template, other, paths, tmp_path)
    assert caught.value.reason == "digest.recompute"


@pytest.mark.parametrize("field", ["operator", "inputs", "numeric_contract", "template"])
def test_a_receipt_that_differs_from_its_template_is_refused_by_field(reader: Lab, field: str) -> None:
    template, receipt = papers(reader)
    other = {
        "operator": receipt.operator | {"weights": [0.4, 0.6]},
        "inputs": (receipt.inputs[0], receipt.inputs[2], receipt.inputs[1]),
        "numeric_contract": "0" * 64,
        "template": "0" * 64,
    }[field]
    check_receipt(template, receipt)
    with pytest.raises(DigestDiffers) as caught:
        check_receipt(template, replace(receipt, **{field: other}))
    assert caught.value.where == f"receipt: {field}"


def test_a_registered_source_has_no_receipt_to_reproduce(opened: Lab) -> None:
    with pytest.raises(UsageError, match="no receipt"):
        opened.reproduce("base")


# -- channels ----------------------------------------------------------------------------------------------------


def test_canary_is_refused_where_the_policy_does_not_list_it(opened: Lab) -> None:
    with pytest.raises(OutsideAllowlist, match="no stage 'canary'"):
        opened.release("base", "canary", PERSON)


def test_a_candidate_nobody_chose_goes_nowhere(old_lab: Place) -> None:
    with old_lab.open() as lab:
        loser = next(s.name for s in decisions(lab)[0].standings if s.action == "archive")
        before = len(lab.desk.workspace.ledger.entries)
        for stage in ("shadow", "champion"):
            with pytest.raises(OutOfOrder, match="no decision chose"):
                lab.release(loser, stage, PERSON)
        assert len(lab.desk.workspace.ledger.entries) == before


def test_a_winner_that_left_shadow_is_not_promoted(old_lab: Place) -> None:
    with old_lab.open() as lab:
        lab.rollback("shadow")
        with pytest.raises(OutOfOrder, match="is not in shadow"):
            lab.release(winner(lab), "champion", PERSON)
        assert lab.desk.champion() == lab.desk.find_model("base")
    assert problems(old_lab) == []


def test_a_champion_undone_by_name_leaves_a_lab_that_verifies(old_lab: Place) -> None:
    with old_lab.open() as lab:
        lab.release("shadow", "champion", PERSON, "once more")
        lab.rollback("champion", "it misbehaves", "base")
        assert lab.desk.champion() == lab.desk.find_model("base")
        assert lab.desk.ways_back("champion") == ()
    assert problems(old_lab) == []


def test_a_second_first_champion_is_refused(opened: Lab) -> None:
    with pytest.raises(OutOfOrder, match="there is a champion already"):
        opened.release("cap-rot", "champion", PERSON)
    with pytest.raises(OutOfOrder, match="nothing before it"):
        opened.rollback()


def test_promotion_without_a_person_is_refused(old_lab: Place) -> None:
    with old_lab.open() as lab, pytest.raises(UsageError, match="act of a person"):
        lab.release(winner(lab), "champion")


# -- keys --------------------------------------------------------------------------------------------------------


@pytest.fixture
def keyless(old_lab: Place, tmp_path: Path) -> Place:
    """A lived lab whose people's keys were taken away."""
    shutil.move(old_lab.keys / "people", tmp_path / "in-a-safe")
    return old_lab


def test_round_and_rollback_need_no_persons_key(new_lab: Place, tmp_path: Path) -> None:
    shutil.move(new_lab.keys / "people", tmp_path / "in-a-safe")
    with new_lab.open() as lab:
        outcome = lab.round(CLUSTER)
        assert outcome.released is not None
        assert lab.ready().criteria
        assert isinstance(lab.rollback("shadow"), RollbackRecord)
    assert problems(new_lab) == []


def test_without_any_persons_key_a_round_and_both_rollbacks_go_on_and_a_promotion_does_not(
    new_lab: Place, tmp_path: Path
) -> None:
    with new_lab.open() as lab:
        won = lab.round(CLUSTER).released
        assert won is not None
        lab.release(won, "champion", PERSON)
    shutil.move(new_lab.keys / "people", tmp_path / "in-a-safe")
    with new_lab.open() as lab:
        assert lab.round(CLUSTER).record.action == "no-op"
        assert isinstance(lab.rollback("champion", "it misbehaved"), RollbackRecord)
        assert lab.desk.champion() == lab.desk.find_model("base")
        entries = len(lab.desk.entries())
        with pytest.raises(NotAuthorised, match="no key of ann here") as promoted:
            lab.release(won, "champion", PERSON)
        with pytest.raises(NotAuthorised, match="no key of ann here") as approved:
            lab.approve(won, PERSON, ["champion"])
        assert {promoted.value.reason, approved.value.reason} == {"authority.key-missing"}
        assert len(lab.desk.entries()) == entries
        assert isinstance(lab.rollback("shadow"), RollbackRecord)
    assert problems(new_lab) == []


def test_promotion_and_approval_need_a_persons_key(keyless: Place) -> None:
    with keyless.open() as lab:
        workspace = lab.desk.workspace
        before = len(workspace.ledger.entries)
        with pytest.raises(NotAuthorised) as caught:
            lab.release(winner(lab), "champion", PERSON)
        assert caught.value.reason == "authority.key-missing"
        with pytest.raises(NotAuthorised):
            lab.approve("cap-rot", PERSON)
        assert len(workspace.ledger.entries) == before
        assert len(list(workspace.all(ChampionPromotion))) == 2
        assert len(list(workspace.all(ParentApproval))) == 3
    assert problems(keyless) == []


def test_another_person_cannot_promote_with_the_owners_key(old_lab: Place) -> None:
    with old_lab.open() as lab, pytest.raises(NotAuthorised, match="of mallory"):
        lab.release(winner(lab), "champion", "mallory")


def test_a_world_readable_key_is_refused_and_named(new_lab: Place) -> None:
    key = new_lab.keys / "people" / "registry" / "approval.pem"
    key.chmod(0o644)
    ended = run_cli(new_lab, "approve", "cap-rot", "--as", PERSON)
    assert ended.returncode == 9
    assert str(key) in ended.stderr
    assert f"chmod 600 {key}" in ended.stderr
    assert "Traceback" not in ended.stderr
