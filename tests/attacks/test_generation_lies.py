"""Lies about pools, generations, novelty and reviews: every one is found by deriving the record again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as change

from lab_fixtures import CLUSTER, Place, founder
from release_fixtures import refused
from studbook.errors import StudbookError
from studbook.lab import Lab, pooling, populations
from studbook.lab.clock import today
from studbook.lab.generation_rules import check_generation_record
from studbook.lab.pooling import check_pool
from studbook.lab.populations import check_novelty, check_review
from studbook.records import (
    CandidateManifest,
    GenerationRecord,
    NoveltyRecord,
    ParentPool,
    PopulationReview,
    Record,
    replace,
)

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
    "no generation before it": (GenerationRecord, "previous", lambda _: {"previous": None}),
    "a line begun anew": (GenerationRecord, "previous", lambda _: {"previous": None, "number": 1, "tried": ()}),
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


FIRST: dict[str, tuple[str, dict[str, Any]]] = {
    "another seed": ("pool", {"settings": {"seed": 9}}),
    "more parents": ("pool", {"settings": {"size": 4}}),
    "another way to draw": ("pool", {"settings": {"method": "front"}}),
    "more evaluations": ("searches: asked", {"settings": {"evaluations": 9}}),
    "sources that search more": ("searches: asked", {"settings": {"sources": ["random", "m2n2"]}}),
    "a source nobody knows": ("settings", {"settings": {"sources": ["magic"]}}),
    "settings of another kind": ("settings", {"settings": {"seed": "one"}}),
    "a winner that was not held back": ("held", {"held": "gate recompute is open"}),
}


@pytest.mark.parametrize("lie", FIRST)
def test_a_lie_about_the_first_generation_of_a_line_is_refused_too(evolved_lab: Place, lie: str) -> None:
    field, changes = FIRST[lie]
    with evolved_lab.open(writer=False) as lab:
        digest, record = next(lab.desk.all(GenerationRecord))
        entry = lab.desk.workspace.entry(digest)
        assert entry is not None
        then = lab.desk.at(entry.sequence)
        check_generation_record(then, record)
        whole = {k: {**getattr(record, k), **v} if k == "settings" else v for k, v in changes.items()}
        with refused("generation.field") as caught:
            check_generation_record(then, replace(record, **whole))
    assert caught.value.where == f"generation: {field}"


def test_a_candidate_cannot_be_left_out_as_a_repetition_of_itself(evolved_lab: Place) -> None:
    with evolved_lab.open(writer=False) as lab:
        then, record = last(lab, GenerationRecord)
        manifest = record.duplicates[0].manifest
        own = lab.desk.workspace.get(manifest, CandidateManifest).artifact.sha256
        lie = one("duplicates", of=own, cosine_ppm=1_000_000)(record)
        with refused("generation.field") as caught:
            check_generation_record(then, replace(record, **lie))
    assert caught.value.where == "generation: duplicates: of"


def test_nobody_may_be_left_out_of_a_draw(evolved_lab: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with evolved_lab.copy(tmp_path).open() as lab:
        base, everybody = pooling.pool_of(lab.desk, CLUSTER, today())
        check_pool(lab.desk, pooling.make_pool(lab.desk, CLUSTER, "niches", 2, 1, today()))
        monkeypatch.setattr(pooling, "pool_of", lambda *_: (base, everybody[:-1]))
        fewer = pooling.make_pool(lab.desk, CLUSTER, "niches", 2, 1, today())
        monkeypatch.undo()
        with refused("pool.field") as caught:
            check_pool(lab.desk, fewer)
    assert caught.value.where == "parent-pool: members"


def test_a_review_of_the_field_as_it_was_long_ago_is_refused(evolved_lab: Place, tmp_path: Path) -> None:
    with evolved_lab.copy(tmp_path).open() as lab:
        old, novelty = next(lab.desk.all(NoveltyRecord))
        lab.register(founder("rev-srt"))
        lab.review()
        lie = populations._review(lab.desk, old, novelty)
        with refused("novelty.field"):
            check_review(lab.desk, lie)
