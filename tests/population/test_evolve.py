"""Generations in a small lab: they follow from the ledger, stop where a person is needed, and go on where they stopped."""

from __future__ import annotations

import json
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from msgspec import to_builtins

from lab_fixtures import (
    BLEND,
    CLUSTER,
    PARENTS,
    PERSON,
    PROTECTED,
    Place,
    drop_suite,
    founder,
    problems,
    run_cli,
    shipped_items,
    write_suite,
)
from population_fixtures import PLAN, hold, let_in
from release_fixtures import change_policy, refused
from studbook.breeding.recipes import check_recipe
from studbook.errors import OutOfOrder, OverBudget, StudbookError, UsageError
from studbook.lab import Lab, slices
from studbook.lab.clock import today
from studbook.lab.duplicates import duplicates
from studbook.lab.pooling import pool_of
from studbook.lab.recipe_sources import Given, gather_recipes
from studbook.lab.search import Request
from studbook.policy import check_operator
from studbook.population import cmaes
from studbook.records import (
    GenerationRecord,
    ParentPool,
    PopulationReview,
    SearchReceipt,
    SuiteManifest,
    ViabilityDecision,
)


class Cut:
    """Progress that is interrupted at a line or a step."""

    def __init__(self, at: str) -> None:
        self.at = at

    def _meet(self, words: str) -> None:
        if self.at in words:
            raise KeyboardInterrupt

    def track(self, title, items, /):
        self._meet(title)
        return iter(items)

    def count(self, title, items, total, /):
        self._meet(title if total else "")
        return iter(items)

    @contextmanager
    def measure(self, title, total, /):
        yield lambda _: None

    def say(self, line):
        self._meet(line)


def records(lab: Lab, kind):
    return [record for _, record in lab.desk.all(kind)]


def test_generations_start_where_the_champion_fails_most_and_every_record_of_them_holds(evolved_lab: Place) -> None:
    with evolved_lab.open(writer=False) as lab:
        first, second = records(lab, GenerationRecord)
        pools = records(lab, ParentPool)
        card = lab.desk.scorecard(first.evidence)
        champion = lab.desk.champion()
    wrong = {k: 1 - r.mean for k, r in card.tasks().items()}
    assert wrong[first.label] == max(wrong.values())
    assert (first.number, second.number) == (1, 2)
    assert first.chosen == second.champion == champion
    assert pools[0].chosen != pools[1].chosen
    assert pools[1].chosen[0] == champion, "a champion that may be a parent is one"
    assert problems(evolved_lab) == []


def test_the_same_command_again_does_nothing_and_a_larger_number_goes_further(
    evolved_lab: Place, tmp_path: Path
) -> None:
    place = evolved_lab.copy(tmp_path)
    with place.open() as lab:
        before = len(lab.desk.entries())
        again = lab.evolve(PLAN, PERSON)
        assert len(lab.desk.entries()) == before
        assert [r.number for _, r in again.generations] == [1, 2]
    more = hold(place, generations=3, sources=PLAN.sources)
    assert [r.number for _, r in more.generations] == [1, 2, 3]
    assert more.generations[2][1].previous == more.generations[1][0]


@pytest.mark.parametrize("at", ["searching", "evaluating on sealed"])
def test_what_an_interrupt_cut_short_comes_out_as_if_nothing_had_happened(
    evolved_lab: Place, prepared_lab: Place, tmp_path: Path, at: str
) -> None:
    place = prepared_lab.copy(tmp_path)
    let_in(place, tmp_path, "admitted")
    with Lab(place.path, place.keys, progress=Cut(at)) as lab, pytest.raises(KeyboardInterrupt):
        lab.evolve(PLAN, PERSON)
    found = hold(place)
    with evolved_lab.open(writer=False) as lab:
        expected = records(lab, GenerationRecord)
    told = [(r.label, r.champion, r.chosen, r.held, len(r.duplicates)) for _, r in found.generations]
    assert told == [(r.label, r.champion, r.chosen, r.held, len(r.duplicates)) for r in expected]


def test_without_a_person_it_stops_at_the_first_winner_which_waits_in_shadow(new_lab: Place) -> None:
    found = hold(new_lab, person=None)
    ((_, record),) = found.generations
    with new_lab.open() as lab:
        assert lab.desk.channels()["shadow"].artifact == record.chosen
        assert found.champion == record.champion == lab.desk.champion()
        assert "waits in shadow" in found.waiting
        assert lab.evolve(PLAN, None).waiting == found.waiting
        lab.release(record.chosen, "champion", PERSON, "looked at it")
        assert [r.number for _, r in lab.evolve(PLAN, None).generations] == [1, 2]
    assert problems(new_lab) == []


def test_children_of_children_are_bred_only_where_the_policy_lets_them(evolved_lab: Place, tmp_path: Path) -> None:
    place = evolved_lab.copy(tmp_path)
    let_in(place, tmp_path, "none")
    with place.open() as lab:
        child = next(r.chosen for r in records(lab, GenerationRecord) if r.chosen)
        assert child not in pool_of(lab.desk, CLUSTER, today())[1]
        with pytest.raises(OutOfOrder, match="is not registered") as caught:
            lab.breed(CLUSTER, {"operator": "blend/1", "weights": "uniform"}, [child, "cap-rot"])
        assert caught.value.reason == "order.approval"
        lab.rollback("champion", "to look at the child as no champion")
    let_in(place, tmp_path, "admitted")
    with place.open() as lab:
        assert child in pool_of(lab.desk, CLUSTER, today())[1]
        lab.breed(CLUSTER, {"operator": "blend/1", "weights": "uniform"}, [child, "cap-rot"])
    assert problems(place) == []


def test_a_parent_that_was_bred_here_stands_as_a_baseline_of_the_decision(evolved_lab: Place, tmp_path: Path) -> None:
    place = evolved_lab.copy(tmp_path)
    with place.open() as lab:
        child = next(r.chosen for r in records(lab, GenerationRecord) if r.chosen)
        lab.rollback("champion", "so that the child is a parent and not the champion")
        outcome = lab.round(CLUSTER, [{"operator": "blend/1", "weights": [0.7, 0.3]}], [child, "cap-rot"])
        assert outcome.record.parents[-1] == child
        beaten = [c.against for s in outcome.record.standings for c in s.comparisons if c.test == "parent"]
        assert child in beaten
    assert problems(place) == []


def test_what_repeats_a_known_model_is_found_by_its_direction_and_its_length(
    evolved_lab: Place, tmp_path: Path
) -> None:
    place = evolved_lab.copy(tmp_path)
    with place.open() as lab:
        base = lab.desk.find_model("base")
        made = {}
        for scale in (0.3, 0.3001, 0.45):
            made[scale] = lab.breed(
                CLUSTER, {"operator": "task-delta/1", "scales": scale, "skip": []}, ["cap-rot", "dup-odd"]
            )
        manifests = [next(d for d, m in lab.desk.candidates() if m.artifact.sha256 == a) for a in made.values()]
        found = duplicates(lab.desk, base, (), manifests)
        assert [(d.manifest, d.of) for d in found] == [(manifests[1], made[0.3])]
        assert found[0].cosine_ppm > 999_000
        (equal,) = duplicates(lab.desk, base, (made[0.45],), manifests[2:])
        assert equal.cosine_ppm == 1_000_000


def test_a_review_places_every_model_once_and_says_who_is_needed(evolved_lab: Place) -> None:
    with evolved_lab.open(writer=False) as lab:
        review = records(lab, PopulationReview)[-1]
        channels = {s.artifact for s in lab.desk.channels().values() if s.artifact}
        homes = {r.artifact: r.population for r in review.residents}
        decided = records(lab, ViabilityDecision)
        founders = set(lab.desk.sources())
    assert len(homes) == len(review.residents)
    assert channels <= {a for a, home in homes.items() if home == "active"}
    assert founders <= set(homes)
    assert {s.artifact for d in decided for s in d.standings if s.development} <= set(homes)
    assert not any(r.retire for r in review.residents if r.artifact in channels | founders)
    assert [r.rank == 0 for r in review.residents] == sorted(r.rank == 0 for r in review.residents)


def test_a_review_on_suites_that_describe_less_than_what_is_protected(opened: Lab, tmp_path: Path) -> None:
    items = shipped_items("development", CLUSTER)
    same = {"role": "descriptor", "cluster": CLUSTER}
    pairs = [row | {"id": f"{row['id']}-{p}", "perturbation": p} for row in items for p in ("none", "case")]
    opened.suites.freeze([write_suite(tmp_path, pairs, name="noisy", dimension="robustness", **same)], PERSON)
    assert opened.review().novelty.role == "development"
    opened.suites.freeze([write_suite(tmp_path, items, name="kinds", **same)], PERSON)
    found = opened.review()
    assert found.novelty.role == "descriptor"
    assert {r.cell for r in found.review.residents} == {f"leads in {CLUSTER}, worst at {CLUSTER}"}
    assert opened.verify().ok


def test_a_review_without_a_suite_that_tells_models_apart_is_refused(opened: Lab) -> None:
    for cluster in PROTECTED:
        drop_suite(opened, f"development-{cluster}")
    with refused("order.suite"):
        opened.review()


def test_a_pool_that_is_too_full_names_who_stands_for_retirement(evolved_lab: Place, tmp_path: Path) -> None:
    place = evolved_lab.copy(tmp_path)
    with place.open() as lab:
        lab.register(founder("rev-srt"))
        population = {**lab.policies.show()["population"], "pool": 1}
        change_policy(lab, tmp_path, population=population)
        leaving = [r for r in lab.review().review.residents if r.retire]
        assert leaving
        assert all("the candidate pool holds 1" in r.retire or "front" in r.retire for r in leaving)
        assert {r.population for r in leaving} == {"pool"}


def test_a_search_on_nothing_but_development_items_feeds_every_generation(evolved_lab: Place) -> None:
    with evolved_lab.open(writer=False) as lab:
        generations, found = records(lab, GenerationRecord), dict(lab.desk.all(SearchReceipt))
        searched = {d for r in found.values() for d in r.suites}
        roles = {lab.desk.workspace.get(d, SuiteManifest).role for d in searched}
    assert roles == {"development"}
    assert [d for g in generations for d in g.searches] == list(found)


def test_the_verbs_tell_it_to_people_and_to_programs(evolved_lab: Place, tmp_path: Path) -> None:
    place, out = evolved_lab.copy(tmp_path), tmp_path / "pages"
    words = ("--budget", "4", "--source", "policy", "--source", "random", "--size", "3")
    done = run_cli(place, "evolve", "--generations", "2", *words, "--as", PERSON, "-o", str(out))
    assert done.returncode == 0, done.stderr
    assert "generation 1" in done.stdout
    assert {p.name for p in out.iterdir()} == {"README.md", "generations.json", "generations.svg"}
    picture = ElementTree.fromstring((out / "generations.svg").read_text())
    assert picture.tag.endswith("svg")
    figures = json.loads((out / "generations.json").read_bytes())
    assert [p["title"] for p in figures["points"]] == ["before", "generation 1", "generation 2"]
    assert all(p["mean"]["lower"] <= p["mean"]["value"] <= p["mean"]["upper"] for p in figures["points"])
    parents = json.loads(run_cli(place, "--json", "parents", CLUSTER, "--size", "2").stdout)
    assert sorted(m["place"] for m in parents["pool"])[-2:] == [1, 2]
    assert len(parents["pairs"]) == 1
    page = run_cli(place, "review")
    assert page.returncode == 0
    assert "stands for retirement" in page.stdout
    assert problems(place) == []


def test_what_was_never_trained_inherits_the_policys_training_or_fine_tuning(opened: Lab, tmp_path: Path) -> None:
    given = Given(opened.desk, CLUSTER, tuple(opened.desk.find_model(p) for p in PARENTS), 0, 7)
    (recipe,) = gather_recipes(given, ("inherit",)).operators
    assert recipe["operator"] == "fine-tune/1"
    check_operator(opened.desk.policy[1], to_builtins(check_recipe(recipe)))
    own = {**recipe, "operator": "distil/1", "imitation": 0.5, "temperature": 2.0}
    change_policy(opened, tmp_path, recipes=[BLEND, own])
    (recipe,) = gather_recipes(given, ("inherit",)).operators
    assert recipe["operator"] == "distil/1"
    assert recipe != own


def without_cma(_name: str) -> str:
    raise PackageNotFoundError


IMPOSSIBLE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "an extra that searches": ("search.extra", "--source cma-worst", {"sources": ("policy", "cma-worst")}),
    "an extra that trains": ("usage.extra", "--source distil", {"sources": ("random", "distil")}),
    "inherited training": ("usage.extra", "--source inherit", {"sources": ("inherit",)}),
    "fewer recipes than searches": ("usage.evolve", "--budget", {"sources": ("random", "m2n2"), "evaluations": 1}),
    "a source twice": ("usage.twice", "--source", {"sources": ("random", "random")}),
    "a seed below zero": ("usage.evolve", "evolve", {"seed": -1}),
    "a ceiling nobody knows": ("usage.name", "", {"ceiling": "nobody"}),
    "more calls than the policy has": ("", "policy: budget.evaluations", {"evaluations": 10_000}),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_what_cannot_be_done_is_told_before_the_first_model_is_scored(
    opened: Lab, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    reason, where, changes = IMPOSSIBLE[what]
    monkeypatch.setattr(cmaes, "version", without_cma)
    monkeypatch.setattr(slices, "has_torch", lambda: False)
    before = len(opened.desk.entries())
    with pytest.raises(StudbookError) as caught:
        opened.evolve(PLAN._replace(**changes), PERSON)
    assert reason in ("", caught.value.reason)
    assert (caught.value.where or "") == where
    assert "--method" not in str(caught.value) + caught.value.advice
    assert len(opened.desk.entries()) == before


def test_who_cannot_promote_and_what_cannot_be_written_to_is_told_at_once(opened: Lab, tmp_path: Path) -> None:
    before = len(opened.desk.entries())
    with refused("authority.key-missing"):
        opened.evolve(PLAN, "nobody")
    (tmp_path / "pages").write_text("no folder")
    with pytest.raises(StudbookError, match="pages"):
        opened.evolve(PLAN, PERSON, tmp_path / "pages")
    assert len(opened.desk.entries()) == before


def test_a_search_refuses_for_a_missing_library_before_it_measures_anything(
    opened: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cmaes, "version", without_cma)
    before = len(opened.desk.entries())
    for request in (
        Request(),
        Request(method="random", evaluations=9_999),
        Request(method="random", filters=("nothing",)),
    ):
        with pytest.raises(StudbookError):
            opened.search(CLUSTER, request)
    assert len(opened.desk.entries()) == before


def test_more_candidates_than_a_round_may_have_are_refused_before_anything_is_searched(
    new_lab: Place, tmp_path: Path
) -> None:
    with new_lab.open() as lab:
        change_policy(lab, tmp_path, budget={**lab.policies.show()["budget"], "candidates": 2})
        with pytest.raises(OverBudget, match="3 candidates"):
            lab.evolve(PLAN, PERSON)
        assert not records(lab, SearchReceipt)


def test_a_generation_that_was_begun_goes_on_with_the_parents_it_drew(new_lab: Place, tmp_path: Path) -> None:
    let_in(new_lab, tmp_path, "admitted")
    with Lab(new_lab.path, new_lab.keys, progress=Cut("evaluating on selection")) as lab:
        with pytest.raises(KeyboardInterrupt):
            lab.evolve(PLAN, PERSON)
        assert len(records(lab, SearchReceipt)) == 1
    hold(new_lab, generations=1)
    with new_lab.open(writer=False) as lab:
        assert (
            len(records(lab, ParentPool))
            == len(records(lab, SearchReceipt))
            == len(records(lab, GenerationRecord))
            == 1
        )
    assert problems(new_lab) == []


def test_a_winner_that_was_taken_back_is_not_promoted_again(new_lab: Place, tmp_path: Path) -> None:
    let_in(new_lab, tmp_path, "admitted")
    hold(new_lab, generations=1)
    with new_lab.open() as lab:
        (first,) = records(lab, GenerationRecord)
        assert lab.desk.champion() == first.chosen
        lab.rollback("champion", "it does not do what it should")
        again = lab.evolve(PLAN._replace(generations=1), PERSON)
        assert lab.desk.champion() == first.champion
        assert again.waiting == ""


def test_choices_that_mean_nothing_are_refused_before_anything_runs(opened: Lab) -> None:
    before = len(opened.desk.entries())
    for plan, reason in ((PLAN._replace(sources=("magic",)), "usage.source"), (PLAN._replace(size=1), "usage.evolve")):
        with refused(reason):
            opened.evolve(plan)
    with pytest.raises(UsageError, match="no frozen suite"):
        opened.parents("nothing")
    assert len(opened.desk.entries()) == before
