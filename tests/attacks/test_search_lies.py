"""Search receipts that tell something else than what was searched: each lie, well signed, is refused and named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from lab_fixtures import CLUSTER, PERSON, Place, problems
from studbook.breeding.recipes import recipe_sha256
from studbook.errors import DigestDiffers, StudbookError
from studbook.lab import Lab
from studbook.lab.search import Request
from studbook.lab.search_check import check_search
from studbook.population import recipe
from studbook.records import CandidateManifest, Scorecard, SearchReceipt, SuiteManifest, SuitesLock, replace
from studbook.records.population import Evaluated, Repeat

METHODS: dict[str, Request] = {
    "random": Request(method="random", evaluations=7),
    "m2n2": Request(method="m2n2", evaluations=7, mix="slerp"),
}


@pytest.fixture(scope="module")
def searched(prepared_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A lab in which two searches were made; only read it, or copy it."""
    place = prepared_lab.copy(tmp_path_factory.mktemp("searched"))
    with place.open() as lab:
        for request in METHODS.values():
            lab.search(CLUSTER, request)
    return place


def receipt(lab: Lab, method: str = "random") -> SearchReceipt:
    return next(r for _, r in lab.desk.all(SearchReceipt) if r.method == method)


def row(record: SearchReceipt, place: int, **changes: Any) -> tuple[Evaluated, ...]:
    """The rows with one of them changed."""
    rows = list(record.evaluated)
    rows[place] = msgspec.structs.replace(rows[place], **changes)
    return tuple(rows)


def other_suites(lab: Lab, role: str) -> tuple[str, ...]:
    return tuple(d for d, m in lab.desk.all(SuiteManifest) if (m.role, m.dimension) == (role, "task"))


def another_recipe(lab: Lab, r: SearchReceipt) -> dict[str, Any]:
    """A row that says it ran another point of the space, its digest brought up to date."""
    genome = tuple(gene.high for gene in r.space.genes)
    work = recipe_sha256(r.base, r.parents, recipe(r.space, genome))
    return {"evaluated": row(r, 3, genome=" ".join(map(str, genome)), recipe=work)}


def widened(r: SearchReceipt) -> dict[str, Any]:
    """A space that goes beyond what the policy and the usual range allow."""
    genes = tuple(msgspec.structs.replace(g, high=g.high * 4) for g in r.space.genes)
    return {"space": msgspec.structs.replace(r.space, genes=genes)}


Lie = Callable[[Lab, SearchReceipt], dict[str, Any]]
LIES: dict[str, tuple[str, Lie]] = {
    "sealed suites": ("suites", lambda lab, _: {"suites": other_suites(lab, "sealed")}),
    "selection suites": ("suites", lambda lab, _: {"suites": other_suites(lab, "selection")}),
    "a suite left out": ("suites", lambda _, r: {"suites": r.suites[1:]}),
    "suites in another order": ("suites", lambda _, r: {"suites": r.suites[::-1]}),
    "fewer items": ("items", lambda _, r: {"items": "1 1 1"}),
    "a label left out": ("labels", lambda _, r: {"labels": r.labels[1:]}),
    "another seed": ("seed", lambda _, r: {"seed": r.seed + 1}),
    "a larger space": ("space", lambda _, r: widened(r)),
    "another method": ("settings", lambda _, r: {"method": "m2n2"}),
    "settings it does not have": ("settings", lambda _, r: {"settings": {"sigma": 0.2}}),
    "a larger budget": ("ended", lambda _, r: {"budget": r.budget + 1}),
    "a budget that is not kept": ("ended", lambda _, r: {"budget": r.budget - 1}),
    "an end that did not come": ("ended", lambda _, r: {"ended": "exhausted"}),
    "no soup first": ("row 0", lambda _, r: {"evaluated": r.evaluated[1:]}),
    "soup further down": ("row 2", lambda _, r: {"evaluated": row(r, 2, origin="soup", genome="")}),
    "a row twice": ("evaluated", lambda _, r: {"evaluated": (*r.evaluated[:-1], r.evaluated[1])}),
    "rows in another order": ("seed", lambda _, r: {"evaluated": (*r.evaluated[:-2], *r.evaluated[:-3:-1])}),
    "another point of the space": ("seed", another_recipe),
    "a genome outside": ("row 3", lambda _, r: {"evaluated": row(r, 3, genome="9999 9999")}),
    "a genome cut short": ("row 3", lambda _, r: {"evaluated": row(r, 3, genome="1")}),
    "a better objective": ("row 3", lambda _, r: {"evaluated": row(r, 3, objective_ppm=1_000_000)}),
    "better answers": ("row 3", lambda _, r: {"evaluated": row(r, 3, correct="1" * len(r.evaluated[3].correct))}),
    "fewer answers": ("row 3", lambda _, r: {"evaluated": row(r, 3, correct=r.evaluated[3].correct[1:])}),
    "no answers and no reason": ("row 3", lambda _, r: {"evaluated": row(r, 3, correct="")}),
    "answers and a reason": ("row 3", lambda _, r: {"evaluated": row(r, 3, detail="it was tired")}),
    "a repeat of nothing": ("repeats", lambda _, r: {"repeats": (Repeat(after=99, of=98),)}),
    "a repeat nobody proposed": ("repeats", lambda _, r: {"repeats": (Repeat(after=3, of=1),)}),
    "a winner that is not the best": ("best", lambda _, r: {"best": (r.best + 1) % len(r.evaluated)}),
    "a winner beyond the rows": ("best", lambda _, r: {"best": 99}),
    "the recipe of another row": ("recipe", lambda _, r: {"recipe": {**r.recipe, "skip": ["*"]}}),
    "another parent": ("row 0", lambda _, r: {"parents": r.parents[::-1]}),
    "another objective": ("row 0", lambda _, r: {"objective": "mean"}),
    "another evaluator": ("scorecard", lambda _, r: {"evaluator": "0" * 64}),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_receipt_that_lies_is_refused_and_the_field_is_named(searched: Place, lie: str) -> None:
    field, change = LIES[lie]
    with searched.open(writer=False) as lab:
        true = receipt(lab)
        check_search(lab.desk, true)
        with pytest.raises(DigestDiffers) as caught:
            check_search(lab.desk, replace(true, **change(lab, true)))
    assert caught.value.where == f"search: {field}"
    assert caught.value.advice


@pytest.mark.parametrize("changes", [{"seed": 9}, {"settings": {"alpha": 1.0, "archive": 12, "mix": "lerp"}}], ids=str)
def test_proposals_of_competing_niches_are_made_again_too(searched: Place, changes: dict[str, Any]) -> None:
    with searched.open(writer=False) as lab:
        true = receipt(lab, "m2n2")
        check_search(lab.desk, true)
        with pytest.raises(DigestDiffers, match="seed"):
            check_search(lab.desk, replace(true, **changes))


def test_a_row_of_cma_cannot_leave_the_race_as_a_parent(searched: Place) -> None:
    with searched.open(writer=False) as lab:
        true = receipt(lab)
        lie = {"method": "cma", "settings": {"library": "cma 4", "sigma": 0.2}}
        lie["evaluated"] = row(true, true.best or 1, origin="founder")
        with pytest.raises(DigestDiffers) as caught:
            check_search(lab.desk, replace(true, **lie))
    assert caught.value.where == f"search: row {true.best or 1}"


@pytest.mark.parametrize("settings", [{"alpha": 1e308}, {"archive": -5}, {"mix": "both"}], ids=str)
def test_settings_that_no_search_has_are_refused_and_compute_nothing(searched: Place, settings: dict[str, Any]) -> None:
    with searched.open(writer=False) as lab:
        true = receipt(lab, "m2n2")
        with pytest.raises(DigestDiffers) as caught:
            check_search(lab.desk, replace(true, settings={**true.settings, **settings}))
    assert caught.value.where == "search: settings"


def test_a_winner_scorecard_or_manifest_of_something_else_is_refused(searched: Place) -> None:
    with searched.open(writer=False) as lab:
        true, other = receipt(lab), receipt(lab, "m2n2")
        cards = [d for d, c in lab.desk.all(Scorecard) if c.artifact != true.artifact]
        for field, changes in (
            ("winner", {"winner": other.winner}),
            ("winner", {"artifact": other.artifact}),
            ("winner", {"winner": other.winner, "artifact": other.artifact, "scorecard": other.scorecard}),
            ("scorecard", {"scorecard": cards[0]}),
        ):
            with pytest.raises(DigestDiffers) as caught:
                check_search(lab.desk, replace(true, **changes))
            assert caught.value.where == f"search: {field}"


def test_what_a_receipt_cites_must_be_there(searched: Place) -> None:
    with searched.open(writer=False) as lab:
        true = receipt(lab)
        for field in ("cluster", "winner", "scorecard"):
            with pytest.raises(StudbookError, match="holds no"):
                check_search(lab.desk, replace(true, **{field: "0" * 64}))


def test_a_policy_or_lock_that_came_later_does_not_touch_an_older_receipt(searched: Place, tmp_path: Any) -> None:
    with searched.copy(tmp_path / "later").open() as lab:
        _, policy = lab.desk.policy
        lab.desk.workspace.commit(replace(policy, policy_version=policy.policy_version + 1), owner=PERSON)
        _, lock = lab.desk.suites_lock
        lab.desk.workspace.commit(SuitesLock(header=lock.header, lock_version=2, suites=lock.suites[:-1]), owner=PERSON)
        true = receipt(lab)
        with pytest.raises(DigestDiffers) as caught:
            check_search(lab.desk, true)
        assert caught.value.where == "search: policy"
        place = Place(lab.desk.workspace.path, lab.desk.workspace.keys.folder)
    assert problems(place) == []


def test_the_winner_is_bred_from_the_recipe_it_says(searched: Place) -> None:
    with searched.open(writer=False) as lab:
        for method in METHODS:
            record = receipt(lab, method)
            manifest = lab.desk.workspace.get(record.winner, CandidateManifest)
            assert manifest.artifact.sha256 == record.artifact
