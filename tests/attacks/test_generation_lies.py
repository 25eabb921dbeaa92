"""Lies about pools, generations, novelty and reviews: every one is found by deriving the record again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace as change

from lab_fixtures import Place
from studbook.errors import StudbookError
from studbook.lab import Lab
from studbook.lab.generation_rules import check_generation_record
from studbook.lab.pooling import check_pool
from studbook.lab.populations import check_novelty, check_review
from studbook.records import GenerationRecord, NoveltyRecord, ParentPool, PopulationReview, Record, replace

Lie = Callable[[Any], dict[str, Any]]
NOBODY = "0" * 64
CHECKS: dict[type[Record], Callable[..., None]] = {
    ParentPool: check_pool,
    GenerationRecord: check_generation_record,
    NoveltyRecord: check_novelty,
    PopulationReview: check_review,
}


def one(field: str, place: int = 0, **changes: Any) -> Lie:
    """One row of a list says something else."""

    def lie(record: Any) -> dict[str, Any]:
        rows = list(getattr(record, field))
        rows[place] = change(rows[place], **changes)
        return {field: tuple(rows)}

    return lie


def swapped(field: str) -> Lie:
    """The first row of a list cites the second one's scorecard."""
    return lambda r: one(field, scorecard=getattr(r, field)[1].scorecard)(r)


LIES: dict[str, tuple[type[Record], str, Lie]] = {
    "parents that were not drawn": (ParentPool, "chosen", lambda r: {"chosen": r.chosen[::-1]}),
    "a seed that draws others": (ParentPool, "members", one("members", weight_ppm=7)),
    "children that nobody had": (ParentPool, "members", one("members", children=99)),
    "the scorecard of another": (ParentPool, "members.artifact", swapped("members")),
    "a report on others": (ParentPool, "compatibility", lambda r: {"members": r.members[:-1]}),
    "another evaluator": (ParentPool, "evaluator", lambda r: {"evaluator": NOBODY}),
    "suites that nobody answered": (ParentPool, "suites", lambda r: {"suites": r.suites[1:]}),
    "a number that does not follow": (GenerationRecord, "number", lambda r: {"number": r.number + 1}),
    "no generation before it": (GenerationRecord, "number", lambda _: {"previous": None}),
    "another line's settings": (GenerationRecord, "previous", lambda r: {"settings": {**r.settings, "seed": 9}}),
    "a champion that was none": (GenerationRecord, "champion", lambda r: {"champion": r.pool}),
    "an easier cluster": (GenerationRecord, "label", lambda _: {"label": "odd"}),
    "a search that was left out": (GenerationRecord, "searches", lambda _: {"searches": ()}),
    "a winner nobody chose": (GenerationRecord, "chosen", lambda r: {"chosen": r.pool}),
    "a duplicate that was evaluated": (GenerationRecord, "duplicates", one("duplicates", cosine_ppm=999_500)),
    "clusters it never tried": (GenerationRecord, "tried", lambda _: {"tried": ("brk",)}),
    "more novelty": (NoveltyRecord, "rows: descriptors", one("rows", novelty_ppm=999_999)),
    "answers it did not give": (NoveltyRecord, "rows: descriptors", one("rows", correct="10")),
    "a model that is not described": (NoveltyRecord, "rows", lambda r: {"rows": r.rows[1:]}),
    "evidence of another model": (NoveltyRecord, "rows", swapped("rows")),
    "a better front": (PopulationReview, "residents", one("residents", -1, rank=1)),
    "a home in the archive": (PopulationReview, "residents", one("residents", -1, population="active")),
    "a retirement nobody asked for": (PopulationReview, "residents", one("residents", retire="too old")),
}


def last(lab: Lab, kind: type[Record]) -> tuple[Lab, Any]:
    """The newest record of a kind, and the lab as it was before it."""
    digest, record = list(lab.desk.all(kind))[-1]
    entry = lab.desk.workspace.entry(digest)
    assert entry is not None
    return lab.desk.at(entry.sequence), record


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_about_a_population_is_refused_and_the_field_is_named(evolved_lab: Place, lie: str) -> None:
    kind, field, changes = LIES[lie]
    with evolved_lab.open(writer=False) as lab:
        then, record = last(lab, kind)
        CHECKS[kind](then, record)
        with pytest.raises(StudbookError) as caught:
            CHECKS[kind](then, replace(record, **changes(record)))
    assert caught.value.where.split(": ", 1)[1].startswith(field), caught.value.where
    assert caught.value.advice


def test_a_merge_of_a_model_that_may_have_no_children_is_refused_by_verify_too(evolved_lab: Place) -> None:
    with evolved_lab.open(writer=False) as lab:
        entries = lab.desk.entries()
        policies = [e.sequence for e in entries if e.record_kind == "policy/1"]
        from_child = next(e for e in entries if e.record_kind == "parent-pool/1" and e.sequence > policies[-1])
        pool = lab.desk.workspace.get(list(dict(lab.desk.all(ParentPool)))[-1], ParentPool)
        assert from_child.sequence > policies[-1]
        # Before the policy that lets descendants in, the same pool would not have held.
        with pytest.raises(StudbookError):
            check_pool(lab.desk.at(policies[-1]), pool)
