"""Where the recipes of a generation come from: one table, one line a source.

A source is given the lab, the cluster, the parents and its share of the budget, and answers with operator records that
the parents can be bred with. What it looks at are development items; what it makes is judged like anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from studbook.breeding.heredity import mutate
from studbook.breeding.operators import trained_types
from studbook.breeding.recipes import expand, wants_one_parent
from studbook.errors import StudbookError, UsageError
from studbook.lab import search
from studbook.lab.desk import Desk
from studbook.records import LineageTemplate

__all__ = ["DEFAULT", "SOURCES", "Given", "Recipes", "check_sources", "gather_recipes"]


class Given(NamedTuple):
    """What a source works with.

    Attributes:
        desk: The lab.
        label: The failure cluster.
        parents: Digests of the parents, in order.
        evaluations: Recipes it may run.
        seed: Its seed.
    """

    desk: Desk
    label: str
    parents: tuple[str, ...]
    evaluations: int
    seed: int


class Recipes(NamedTuple):
    """What a source answers.

    Attributes:
        operators: Operator records.
        searches: Digests of the SearchReceipts behind them.
    """

    operators: tuple[Mapping[str, Any], ...]
    searches: tuple[str, ...] = ()


def _policy(given: Given) -> Recipes:
    """The policy's own recipes, as far as they fit so many parents."""
    return _fitting(given, given.desk.policy[1].recipes)


def _written(given: Given, recipes: Sequence[Mapping[str, Any]]) -> Recipes:
    """Recipes written here, with the generation's own seed."""
    return _fitting(given, [{**recipe, "seed": given.seed} for recipe in recipes])


def _fitting(given: Given, recipes: Sequence[Mapping[str, Any]]) -> Recipes:
    def fits(recipe: Mapping[str, Any]) -> bool:
        try:
            expand(recipe, 1 if wants_one_parent(recipe) else len(given.parents))
        except StudbookError as error:
            given.desk.progress.say(f"left out {recipe.get('operator')}: {error.message}")
            return False
        return True

    return Recipes(tuple(r for r in recipes if fits(r)))


def _search(given: Given, **how: Any) -> Recipes:
    request = search.Request(evaluations=given.evaluations, seed=given.seed, parents=given.parents, **how)
    found = search.search(given.desk, given.label, request)
    return Recipes((found.record.recipe,), (found.receipt,))


# The champion goes on learning the failure cluster and rehearses the rest; half the rows are the cluster's, or a seventh.
_TUNE: dict[str, Any] = {
    "operator": "fine-tune/1", "steps": 400, "rate": 1e-3, "batch": 96, "reach": 0.5, "rehearsal": 0.5,
    "data": "cluster", "rehearsed": "others",
}  # fmt: skip
_WIDE = {**_TUNE, "rehearsal": 0.85}
# The base learns what the best of the parents knows of every row.
_DISTIL = {**_WIDE, "operator": "distil/1", "steps": 600, "reach": 1.0, "imitation": 0.5, "temperature": 2.0}


def _inherited(given: Given) -> Recipes:
    """The recipes by which champion and parents were trained, each with one number changed inside the policy's bounds.

    Where none of them was trained here the line begins with the policy's own training recipes, or with fine-tuning. The
    slices are not inherited: what may be learned from is the cluster's.
    """
    desk, policy = given.desk, given.desk.policy[1]
    kinds = {kind.tag() for kind in trained_types()}
    line = {desk.champion(), *given.parents}
    bred = [m.template for _, m in desk.candidates() if m.artifact.sha256 in line and m.purpose == "candidate"]
    operators = [desk.workspace.get(template, LineageTemplate).operator for template in bred]
    known: list[Mapping[str, Any]] = [
        {**o, "data": "cluster", "rehearsed": "others" if o["rehearsed"] else []}
        for o in operators
        if o["operator"] in kinds
    ]
    known = known or [recipe for recipe in policy.recipes if recipe.get("operator") in kinds] or [_TUNE]
    bounds = {grant.operator: grant.bounds for grant in policy.operators}
    allowed = [recipe for recipe in known if recipe["operator"] in bounds]
    if not allowed:
        desk.progress.say("nothing to inherit: the policy allows no operator that trains")
    seeds = range(given.seed, given.seed + len(allowed))
    return _fitting(given, [mutate(o, bounds[o["operator"]], seed) for o, seed in zip(allowed, seeds, strict=True)])


SOURCES: dict[str, tuple[Callable[[Given], Recipes], bool]] = {
    # name: (the source, whether it takes a share of the evaluations)
    "policy": (_policy, False),
    "cma-mean": (partial(_search, method="cma", objective="mean"), True),
    "cma-worst": (partial(_search, method="cma", objective="worst"), True),
    "cma-layers": (partial(_search, method="cma", objective="mean", layered=True), True),
    "ties-mean": (partial(_search, method="cma", objective="mean", kind="ties"), True),
    "m2n2": (partial(_search, method="m2n2", objective="mean", layered=True), True),
    "fine-tune": (partial(_written, recipes=(_TUNE, _WIDE)), False),
    "distil": (partial(_written, recipes=(_DISTIL,)), False),
    "inherit": (_inherited, False),
    "random": (partial(_search, method="random", objective="mean"), True),
}
DEFAULT = ("policy", "cma-mean", "cma-worst", "cma-layers")
"""What a generation tries when nobody says otherwise."""


def check_sources(names: Sequence[str]) -> None:
    """Refuse a source that is not in the table, or that is named twice.

    Raises:
        UsageError: naming it.
    """
    for place, name in enumerate(names):
        if name not in SOURCES:
            advice = f"Known: {', '.join(SOURCES)}."
            raise UsageError(
                f"{name!r} is no source of recipes", where="--source", advice=advice, reason="usage.source"
            )
        if name in names[:place]:
            raise UsageError(f"{name!r} is named twice", where="--source", reason="usage.twice")


def gather_recipes(given: Given, names: Sequence[str]) -> Recipes:
    """The recipes of some sources, each once; the evaluations are shared out equally among those that search."""
    searching = sum(SOURCES[name][1] for name in names)
    share = given.evaluations // max(1, searching)
    operators: list[Mapping[str, Any]] = []
    searches: list[str] = []
    for name in names:
        found = SOURCES[name][0](given._replace(evaluations=share))
        operators += [o for o in found.operators if o not in operators]
        searches += found.searches
    return Recipes(tuple(operators), tuple(searches))
