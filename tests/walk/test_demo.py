"""The demo on the shipped founders: one round promotes, one is an honest no-op, and both can be decided again."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab_fixtures import Place, problems
from studbook.lab import Lab
from studbook.lab.demo import PARENTS, DemoReport
from studbook.lab.replay import replay
from studbook.records import (
    ArchiveRecord,
    BaselineReceipt,
    CandidateManifest,
    OperatorReceipt,
    Scorecard,
    Standing,
    ViabilityDecision,
    digest,
    write_record,
)

pytestmark = pytest.mark.proof


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two demos in two folders."""
    found = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    for folder in found:
        report = Lab.demo(folder)
        assert isinstance(report, DemoReport)
        assert report.ok, report.lines
    return found


@pytest.fixture
def labs(folders: tuple[Path, Path]) -> tuple[Lab, Lab]:
    one, two = (Place(folder / "lab", folder / "keys").open(writer=False) for folder in folders)
    return one, two


def decisions(lab: Lab) -> list[ViabilityDecision]:
    return [record for _, record in lab.desk.workspace.all(ViabilityDecision)]


def test_one_round_promotes_and_one_is_a_no_op_under_one_policy(labs: tuple[Lab, Lab]) -> None:
    first, second = decisions(labs[0])
    assert first.action == "promote-to-shadow" and second.no_op.chosen
    assert first.policy == second.policy
    assert second.champion == first.chosen
    assert [labs[0].desk.name_of(p) for p in first.parents] == list(PARENTS)
    assert labs[0].desk.name_of(first.champion) == "base"


def test_the_promoted_child_beats_the_best_parent(labs: tuple[Lab, Lab]) -> None:
    first = decisions(labs[0])[0]
    child = next(s for s in first.standings if s.artifact == first.chosen)
    against_best = next(c for c in child.comparisons if c.test == "parent" and c.against == first.best_parent)
    assert against_best.lower > 0


def test_both_decisions_can_be_decided_again_from_the_scorecards(labs: tuple[Lab, Lab]) -> None:
    for record in decisions(labs[0]):
        assert write_record(replay(labs[0].desk, record)) == write_record(record)


def test_a_second_demo_gives_the_same_candidates_scorecards_and_decisions(labs: tuple[Lab, Lab]) -> None:
    for kind in (CandidateManifest, Scorecard, ViabilityDecision):
        one, two = ([d for d, _ in lab.desk.workspace.all(kind)] for lab in labs)
        assert one == two
    assert [digest(r) for r in decisions(labs[0])] == [digest(r) for r in decisions(labs[1])]


def test_the_negative_controls_are_archived_with_the_right_reason(labs: tuple[Lab, Lab]) -> None:
    """Task delta at lambda 1 and pruning 20 % with the embedding: a fall in every skill, with numbers."""
    workspace = labs[0].desk.workspace
    first = decisions(labs[0])[0]
    archived = {c.manifest: c for _, a in workspace.all(ArchiveRecord) for c in a.candidates}
    operators = {s.manifest: operator_of(labs[0], s) for s in first.standings}
    delta = next(s for s in first.standings if operators[s.manifest].get("scales") == [1.0] * 4)
    prune = next(s for s in first.standings if operators[s.manifest]["operator"] == "prune/1")
    for standing in (delta, prune):
        reasons = archived[standing.manifest].reasons
        assert standing.action == "archive"
        assert reasons[0].startswith("worse than the champion on 7 protected clusters of 7: joint mean "), reasons
        assert standing.screen_rank in (len(first.standings), len(first.standings) - 1)


def operator_of(lab: Lab, standing: Standing) -> dict[str, object]:
    manifest = lab.desk.workspace.get(standing.manifest, CandidateManifest)
    return lab.desk.workspace.get(manifest.receipt, OperatorReceipt).operator


def test_the_no_op_names_the_numbers_that_made_doing_nothing_better(labs: tuple[Lab, Lab]) -> None:
    reasons = decisions(labs[0])[1].no_op.reasons
    assert any("lower bound" in reason for reason in reasons), reasons


def test_the_ceiling_and_every_parent_left_out_are_shown_and_never_eligible(labs: tuple[Lab, Lab]) -> None:
    receipts = [receipt for _, receipt in labs[0].desk.workspace.all(BaselineReceipt)]
    labels = {row.label for row in receipts[0].rows}
    assert "ceiling: ceiling" in labels
    assert {f"without {name}" for name in PARENTS} <= labels
    ablations = {m.artifact.sha256 for _, m in labs[0].desk.candidates() if m.purpose == "ablation"}
    assert len(ablations) >= len(PARENTS)
    for record in decisions(labs[0]):
        assert record.chosen not in ablations


def test_every_lab_verifies(folders: tuple[Path, Path]) -> None:
    for folder in folders:
        assert problems(Place(folder / "lab", folder / "keys")) == []
