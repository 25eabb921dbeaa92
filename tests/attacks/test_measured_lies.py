"""Lies about what was measured, signed with the right process keys: each one verify can tell without measuring again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lab_fixtures import PARENTS, Place, problems
from release_fixtures import told
from studbook.errors import DigestDiffers
from studbook.lab import Lab
from studbook.records import (
    Agreement,
    ContaminationReceipt,
    FloorReport,
    ReadinessRecord,
    Record,
    RuntimeSmoke,
    Scorecard,
    SourceManifest,
    SuiteManifest,
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
    cost = tuple(msgspec.structs.replace(m, value=m.value / 2 if m.unit == unit else m.value) for m in record.cost)
    return replace(record, cost=cost)


LIES: dict[str, Callable[[Lab], Record]] = {
    "a scorecard with an answer fewer than its suite has items": short,
    "a scorecard without calls": lambda lab: card(lab, actual_calls=0),
    "a scorecard whose items changed meanwhile": lambda lab: card(lab, items_after="0" * 64),
    "a scorecard that passes all the same": lambda lab: card(lab, correct="0" * 24, verdict="pass"),
    "a scorecard that leaves a suite out": lambda lab: replace(
        last(lab, Scorecard), results=last(lab, Scorecard).results[1:]
    ),
    "a scorecard of half the work": lambda lab: cheaper(lab, "multiply-adds"),
    "a scorecard of half the memory": lambda lab: cheaper(lab, "decoded-bytes"),
    "a scorecard without its parameters": lambda lab: replace(
        last(lab, Scorecard), cost=tuple(m for m in last(lab, Scorecard).cost if m.unit != "parameters")
    ),
    "a scorecard whose modes were compared on one item": lambda lab: replace(
        last(lab, Scorecard), agreement=Agreement(sampled=1, agreed=1)
    ),
    "a smoke without tokens": lambda lab: replace(last(lab, RuntimeSmoke), tokens=0),
    "a smoke that passed on numbers that were not": lambda lab: replace(last(lab, RuntimeSmoke), finite=False),
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


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_about_what_was_measured_is_found(lab: Lab, lie: str) -> None:
    found = told(lab, LIES[lie](lab))
    assert isinstance(found, DigestDiffers), found
    assert found.reason.startswith("measured.")
    assert found.where and found.advice


def test_what_a_lab_measured_itself_is_no_lie(home: Place) -> None:
    assert problems(home) == []
