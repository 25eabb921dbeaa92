"""Lies about what was measured, signed with the right process keys: each one verify can tell without measuring again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs

from lab_fixtures import PARENTS, Place, problems, shipped_items
from release_fixtures import replayed, told
from studbook.errors import DigestDiffers, OutOfOrder, StudbookError
from studbook.evaluation.floor import floor_rows
from studbook.evaluation.suites import known_items, scorer_sha256
from studbook.lab import Lab, judging, replay
from studbook.lab.judging import check_cluster
from studbook.records import (
    Agreement,
    BaselineReceipt,
    Blob,
    ContaminationReceipt,
    DataFile,
    DataSource,
    FailureCluster,
    FloorReport,
    LicenceSource,
    LogitDigest,
    ReadinessRecord,
    Record,
    RuntimeSmoke,
    Scorecard,
    SealedOpening,
    SourceManifest,
    SuiteManifest,
    ViabilityDecision,
    digest,
    replace,
)


@pytest.fixture(scope="module")
def home(lived_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return lived_lab.copy(tmp_path_factory.mktemp("measured"))


@pytest.fixture
def lab(home: Place, tmp_path: Path) -> Iterator[Lab]:
    with home.copy(tmp_path / "copy").open() as opened:
        yield opened


def last(lab: Lab, kind: type[Record]) -> Any:
    return list(lab.desk.all(kind))[-1][1]


def card(lab: Lab, **changes: Any) -> Record:
    """The newest scorecard with changes to the result of its first suite."""
    record = last(lab, Scorecard)
    return replace(record, results=(replace(record.results[0], **changes), *record.results[1:]))


def short(lab: Lab) -> Record:
    first = last(lab, Scorecard).results[0]
    return card(lab, correct=first.correct[:-1])


def called_base(lab: Lab) -> Record:
    manifest = next(m for _, m in lab.desk.all(SourceManifest) if m.name == PARENTS[0])
    return replace(manifest, name="base")


def cheaper(lab: Lab, unit: str) -> Record:
    record = last(lab, Scorecard)
    cost = tuple(structs.replace(m, value=m.value / 2 if m.unit == unit else m.value) for m in record.cost)
    return replace(record, cost=cost)


def smoke(lab: Lab, **changes: Any) -> Record:
    record = last(lab, RuntimeSmoke)
    return replace(record, logits=structs.replace(record.logits, **changes))


def counted_by_another(lab: Lab) -> Record:
    record, other = last(lab, Scorecard), f"wasmtime 1.0.0, engine {'0' * 64}: "
    cost = [
        structs.replace(m, method=other + m.method.partition(": ")[2]) if m.unit == "fuel" else m for m in record.cost
    ]
    return replace(record, cost=tuple(cost))


LIES: dict[str, Callable[[Lab], Record]] = {
    "a scorecard with an answer fewer than its suite has items": short,
    "a scorecard without calls": lambda lab: card(lab, actual_calls=0),
    "a scorecard whose items changed meanwhile": lambda lab: card(lab, items_after="0" * 64),
    "a scorecard that passes all the same": lambda lab: card(lab, correct="0" * 24, verdict="pass"),
    "a scorecard that leaves a suite out": lambda lab: replace(
        last(lab, Scorecard), results=last(lab, Scorecard).results[1:]
    ),
    "a scorecard of half the work": lambda lab: cheaper(lab, "multiply-adds"),
    "a scorecard without what generating took": lambda lab: replace(
        last(lab, Scorecard), cost=tuple(m for m in last(lab, Scorecard).cost if m.unit != "fuel")
    ),
    "a scorecard whose fuel another engine counted": counted_by_another,
    "a scorecard of half the memory": lambda lab: cheaper(lab, "decoded-bytes"),
    "a scorecard without its parameters": lambda lab: replace(
        last(lab, Scorecard), cost=tuple(m for m in last(lab, Scorecard).cost if m.unit != "parameters")
    ),
    "a scorecard whose modes were compared on one item": lambda lab: replace(
        last(lab, Scorecard), agreement=Agreement(sampled=1, agreed=1)
    ),
    "a floor report without rows": lambda lab: replace(last(lab, FloorReport), rows=()),
    "a suite of other items": lambda lab: replace(last(lab, SuiteManifest), name="other", count=1),
    "a suite whose floor is of another mark": lambda lab: replace(last(lab, SuiteManifest), name="o", pass_mark=1.9),
    "a comparison with no rows": lambda lab: replace(last(lab, ContaminationReceipt), training_rows=0),
    "a comparison with no items": lambda lab: replace(last(lab, ContaminationReceipt), items=0),
    "readiness of another ledger": lambda lab: replace(last(lab, ReadinessRecord), entries=3),
    "readiness of a criterion fewer": lambda lab: replace(
        last(lab, ReadinessRecord),
        criteria=last(lab, ReadinessRecord).criteria[1:],
        entries=len(lab.desk.entries()),
        head=lab.desk.workspace.ledger.head,
    ),
    "a model under the name of another": called_base,
}


SMOKES: dict[str, Callable[[Lab], Record]] = {
    "without tokens": lambda lab: replace(last(lab, RuntimeSmoke), tokens=0),
    "that passed on numbers that were not": lambda lab: replace(last(lab, RuntimeSmoke), finite=False),
    "that passed without logits": lambda lab: replace(last(lab, RuntimeSmoke), logits=None),
    "of other logits": lambda lab: smoke(lab, sha256="0" * 64),
    "of the logits of fewer positions": lambda lab: smoke(lab, positions=1),
    "of other tokens": lambda lab: replace(last(lab, RuntimeSmoke), outputs_sha256="0" * 64),
    "of half the fuel": lambda lab: replace(last(lab, RuntimeSmoke), fuel=last(lab, RuntimeSmoke).fuel // 2),
    "of another model": lambda lab: replace(last(lab, RuntimeSmoke), artifact=lab.desk.find_model("dup-odd")),
    "by an engine that its evaluator does not have": lambda lab: replace(
        last(lab, RuntimeSmoke), engine="0" * 64, logits=LogitDigest(positions=63, sha256="0" * 64)
    ),
}


@pytest.mark.parametrize("lie", SMOKES)
def test_a_forged_smoke_is_found_by_asking_the_engine_again(lab: Lab, lie: str) -> None:
    found = told(lab, SMOKES[lie](lab))
    assert isinstance(found, DigestDiffers), found
    assert found.reason == "measured.field"
    assert found.where.startswith("runtime-smoke: ")


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_about_what_was_measured_is_found(lab: Lab, lie: str) -> None:
    found = told(lab, LIES[lie](lab))
    assert isinstance(found, DigestDiffers), found
    assert found.reason.startswith("measured.")
    assert found.where and found.advice


def suite_of(lab: Lab, rows: list[dict[str, Any]], **changes: Any) -> StudbookError | None:
    """What replay says of a suite that somebody wrote by hand, its floor report counted by its own scorer."""
    like = last(lab, SuiteManifest)
    data = b"".join(msgspec.json.encode(row, order="sorted") + b"\n" for row in rows)
    kind, mark = changes.get("scorer", "exact-match"), changes.get("pass_mark", 0.25)
    floor = replace(last(lab, FloorReport), rows=floor_rows(known_items(data), kind, mark, 12))
    changes = {"name": "by-hand", "role": "selection", "dimension": "task", "scorer": kind, "pass_mark": mark} | changes
    blob = Blob(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    record = replace(
        like, items=blob, count=len(rows), scorer_sha256=scorer_sha256(kind), floor=digest(floor), max_new_tokens=12,
        **changes,
    )  # fmt: skip
    first = len(lab.desk.entries())
    lab.desk.workspace.commit(floor)
    lab.desk.workspace.commit(record, {blob.sha256: data})
    return replayed(lab, first)


def test_a_suite_by_hand_that_freezing_would_refuse_is_found(lab: Lab) -> None:
    rows = shipped_items("development", "rot")
    assert suite_of(lab, rows) is None
    half = [row | {"expected": "yes"} for row in rows[:12]] + rows[12:]
    for made, changes, reason in (
        (half, {"pass_mark": 0.9}, "suite.floor"),
        ([*rows[:5], rows[5] | {"expected": "x" * 13}, *rows[6:]], {}, "suite.floor"),
        (rows, {"dimension": "honesty"}, "suite.honesty"),
        (rows, {"dimension": "robustness"}, "suite.pairs"),
        ([*rows, rows[0]], {}, "suite.duplicate"),
        ([rows[0] | {"rule": {"patern": "x"}}, *rows[1:]], {}, "suite.rule"),
    ):
        found = suite_of(lab, made, name=f"by-hand-{reason}", **changes)
        assert found is not None, reason
        assert found.reason == reason


CLUSTERS: dict[str, Callable[[Lab, FailureCluster], dict[str, Any]]] = {
    "another model's failures": lambda lab, _: {"champion": lab.desk.find_model(PARENTS[0])},
    "fewer failures": lambda _, c: {"failed": c.failed - 1},
    "a label that nothing was asked about": lambda *_: {"label": "nothing"},
    "another skill's slice": lambda lab, c: {
        "training_slice": next(f.sha256 for f in files(lab, c) if f.label != c.label)
    },
    "a licence for data": lambda lab, _: {
        "data": next(d for d, m in lab.desk.all(SourceManifest) if isinstance(m.source, LicenceSource))
    },
    "a suite fewer": lambda _, c: {"suites": c.suites[1:]},
    "another slice's comparison": lambda lab, c: {
        "contamination": next(d for d, r in lab.desk.all(ContaminationReceipt) if r.training != c.training_slice)
    },
    "evidence of another role": lambda lab, _: {
        "evidence": next(d for d, r in lab.desk.all(Scorecard) if r.role == "selection")
    },
}


def files(lab: Lab, cluster: FailureCluster) -> tuple[DataFile, ...]:
    source = lab.desk.workspace.get(cluster.data, SourceManifest).source
    assert isinstance(source, DataSource)
    return source.files


@pytest.mark.parametrize("lie", CLUSTERS)
def test_a_failure_cluster_that_was_never_shown_is_found(lab: Lab, lie: str) -> None:
    true = next(record for _, record in lab.desk.all(FailureCluster))
    check_cluster(lab.desk, true)
    found = told(lab, replace(true, **CLUSTERS[lie](lab, true)))
    assert found is not None
    assert found.reason == "cluster.field"


def test_what_a_lab_measured_itself_is_no_lie(home: Place) -> None:
    assert problems(home) == []


def test_a_look_at_the_sealed_suites_that_no_opening_was_logged_for_is_found(lab: Lab) -> None:
    first, unseen = len(lab.desk.entries()), lab.desk.find_model(PARENTS[0])
    judging.evaluate(lab.desk, [unseen], "sealed")
    found = replayed(lab, first)
    assert isinstance(found, OutOfOrder)
    assert found.reason == "order.opening"


def test_a_look_for_a_decision_at_another_than_its_winner_is_found(lab: Lab) -> None:
    (decision, _), looks = list(lab.desk.all(ViabilityDecision))[-1], [o for _, o in lab.desk.all(SealedOpening)]
    other = replace(looks[-1], decision=decision, opening=len(looks) + 1)
    assert "another model than the winner" in str(told(lab, other))


def test_baselines_of_another_candidate_are_found(lab: Lab) -> None:
    other = replace(last(lab, BaselineReceipt), candidate=lab.desk.find_model(PARENTS[0]))
    assert "not the candidate" in str(told(lab, other))


def test_a_forgery_that_no_check_foresaw_is_named_and_keeps_nothing_else_from_being_looked_at(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumbles(*_: object) -> None:
        raise KeyError("what it cites")

    monkeypatch.setitem(replay._CHECKS, FloorReport, stumbles)
    found = told(lab, replace(last(lab, FloorReport), disagreement=0.5))
    assert isinstance(found, DigestDiffers) and found.reason == "record.contradiction"
    assert len([p for p in lab.verify().problems if "contradicts what it cites" in p.what]) > 1
