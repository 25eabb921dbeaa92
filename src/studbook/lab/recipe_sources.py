"""Where the recipes of a generation come from: one table, one line a source.

A source is given the lab, the cluster, the parents and its share of the budget, and answers with operator records that
the parents can be bred with. What it looks at are development items; what it makes is judged like anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from studbook.breeding.heredity import mutate
from studbook.breeding.operators import Learned, every_type, trained_types
from studbook.breeding.recipes import check_recipe, expand, wants_one_parent
from studbook.breeding.template import operator_fields
from studbook.errors import StudbookError, UsageError
from studbook.lab import judging, search
from studbook.lab.desk import Desk
from studbook.lab.slices import require_training
from studbook.policy import check_operator
from studbook.records import LineageTemplate

__all__ = [
    "DEFAULT",
    "SOURCES",
    "Given",
    "Recipes",
    "Source",
    "asked_of",
    "check_sources",
    "gather_recipes",
    "share_of",
]


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
    made = []
    for place, recipe in enumerate(allowed):
        try:
            made.append(mutate(recipe, bounds[recipe["operator"]], given.seed + place))
        except StudbookError as error:
            desk.progress.say(f"left out {recipe['operator']}: {error.where}: {error.message}")
    return _fitting(given, made)


class Source(NamedTuple):
    """One way to come to recipes.

    Attributes:
        recipes: Gives them.
        search: Fields of the search's request; None where nothing is searched, and no evaluation is spent.
        writes: Training recipes that it brings itself, without a seed; the policy has to allow each.
    """

    recipes: Callable[[Given], Recipes]
    search: Mapping[str, Any] | None = None
    writes: tuple[Mapping[str, Any], ...] = ()


def _searching(**how: Any) -> Source:
    return Source(partial(_search, **how), how)


def _writing(*recipes: Mapping[str, Any]) -> Source:
    return Source(partial(_written, recipes=recipes), writes=recipes)


SOURCES: dict[str, Source] = {
    "policy": Source(_policy),
    "cma-mean": _searching(method="cma", objective="mean"),
    "cma-worst": _searching(method="cma", objective="worst"),
    "cma-layers": _searching(method="cma", objective="mean", layered=True),
    "ties-mean": _searching(method="cma", objective="mean", kind="ties"),
    "m2n2": _searching(method="m2n2", objective="mean", layered=True),
    "fine-tune": _writing(_TUNE, _WIDE),
    "distil": _writing(_DISTIL),
    "inherit": Source(_inherited),
    "random": _searching(method="random", objective="mean"),
}
DEFAULT = ("policy", "cma-mean", "cma-worst", "cma-layers")
"""What a generation tries when nobody says otherwise."""


def check_sources(desk: Desk, names: Sequence[str], evaluations: int) -> None:
    """Refuse sources that can give nothing here, before anything is scored.

    Args:
        desk: The lab.
        names: The sources.
        evaluations: Recipes they may run, all of them together.

    Raises:
        UsageError: naming a source that is not in the table, is named twice, or needs an extra that is not installed;
            or if there are too few evaluations to share out.
        OutsideAllowlist: if the policy does not allow what a source is made for.
    """
    for place, name in enumerate(names):
        if name not in SOURCES:
            advice = f"Known: {', '.join(SOURCES)}."
            raise UsageError(
                f"{name!r} is no source of recipes", where="--source", advice=advice, reason="usage.source"
            )
        if name in names[:place]:
            advice = "Name every source once."
            raise UsageError(f"{name!r} is named twice", where="--source", advice=advice, reason="usage.twice")
    for name in names:
        _check_source(desk, name, share_of(names, evaluations))


def share_of(names: Sequence[str], evaluations: int) -> int:
    """Evaluations of every source that searches: they are shared out equally, and what is left over is not spent."""
    return evaluations // max(1, sum(SOURCES[name].search is not None for name in names))


def asked_of(names: Sequence[str], evaluations: int) -> list[search.Request]:
    """The searches that sources make, in their order, seed and parents left open."""
    found = [SOURCES[name].search for name in names]
    share = share_of(names, evaluations)
    return [search.Request(evaluations=share, **how) for how in found if how is not None]


def gather_recipes(given: Given, names: Sequence[str]) -> Recipes:
    """The recipes of some sources, each once; the evaluations are shared out equally among those that search.

    Raises:
        OverBudget: if they are more candidates than the policy allows a round; nothing was searched then.
        StudbookError: any of its kinds, as a search.
    """
    at_once = {name: SOURCES[name].recipes(given) for name in names if SOURCES[name].search is None}
    judging.check_budget(given.desk, sum(len(r.operators) for r in at_once.values()) + len(names) - len(at_once))
    share = share_of(names, given.evaluations)
    operators: list[Mapping[str, Any]] = []
    searches: list[str] = []
    for name in names:
        found = at_once.get(name) or SOURCES[name].recipes(given._replace(evaluations=share))
        operators += [o for o in found.operators if o not in operators]
        searches += found.searches
    return Recipes(tuple(operators), tuple(searches))


def _check_source(desk: Desk, name: str, share: int) -> None:
    source, policy = SOURCES[name], desk.policy[1]
    granted = {grant.operator for grant in policy.operators}
    if source.search is not None:
        if share < 1:
            raise UsageError(
                f"leaves {name} nothing to run",
                where="--budget",
                advice="Allow one recipe or more for every source that searches.",
                reason="usage.evolve",
            )
        try:
            search.check_request(desk, search.Request(evaluations=share, **source.search))
        except UsageError as error:
            # What it said of a search's own options means nothing here.
            error.where = f"--source {name}"
            if error.reason == "search.extra":
                error.advice = "Install the extra: pip install 'studbook[search]'. Other sources need nothing more: "
                error.advice += "--source policy --source m2n2"
            raise
    for recipe in source.writes:
        check_operator(policy, operator_fields(check_recipe({**recipe, "seed": 1})))
    kinds = {kind.tag(): kind for kind in every_type() if issubclass(kind, Learned)}
    written = policy.recipes if name == "policy" else source.writes
    used = granted if name == "inherit" else {str(r.get("operator")) for r in written}
    if trained := sorted(kinds.keys() & used):
        require_training(kinds[trained[0]].family, f"--source {name}")
