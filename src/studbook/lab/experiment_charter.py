"""Charters of experiments: what one may promise, what it costs, and that nobody saw the outcome before.

A charter is looked at twice by the same function: before it is registered, and when `verify` replays the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping

from studbook.breeding.recipes import expand, recipe_sha256, wants_one_parent
from studbook.breeding.template import operator_fields
from studbook.errors import OutOfOrder, OverBudget, UsageError
from studbook.lab import experiment_analysis as analysis
from studbook.lab.desk import Desk
from studbook.lab.experiment_analysis import Planned
from studbook.lab.facts import require
from studbook.lab.search_check import searched_suites, space_of
from studbook.lab.slices import check_slices, offered, with_clients
from studbook.policy import LEAST_ALPHA, check_operator
from studbook.population import make_space
from studbook.records import (
    CompatibilityReport,
    ExperimentBudget,
    ExperimentCharter,
    FailureCluster,
    JsonObject,
    LineageTemplate,
    SearchReceipt,
    SuiteManifest,
)
from studbook.records.experiments import BASELINES

__all__ = ["ANSWERED", "analysed", "budget_of", "check_charter", "development", "operator_of"]

# The search's workers and the ensemble compare the likeliest answer with the expected one.
ANSWERED = "exact-match"


def development(desk: Desk) -> dict[str, SuiteManifest]:
    """The development suites in force, in the order of the lock."""
    locked = {d: desk.workspace.get(d, SuiteManifest) for d in desk.suites_lock[1].suites}
    return {d: manifest for d, manifest in locked.items() if manifest.role == "development"}


def analysed(desk: Desk, label: str, metric: str) -> tuple[str, ...]:
    """The suites a metric is computed over: those a search may see, or the target's alone."""
    held = development(desk)
    seen = searched_suites(desk.policy[1], label, held)
    return seen if metric == "joint-mean" else tuple(d for d in seen if held[d].cluster == label)


def budget_of(desk: Desk, charter: ExperimentCharter) -> ExperimentBudget:
    """What a charter costs: scorecards of arms, champion, parents and search winners, the ensemble, and the searches."""
    held, label = development(desk), desk.workspace.get(charter.cluster, FailureCluster).label
    items, runs, seeds = sum(m.count for m in held.values()), len(analysis.planned(charter)), len(charter.seeds)
    searched = sum(held[d].count for d in searched_suites(desk.policy[1], label, held))
    # The ensemble runs every parent once more.
    cards = runs + 1 + 2 * len(charter.parents) + seeds
    return ExperimentBudget(candidates=runs, calls=cards * items + seeds * runs * searched)


def operator_of(desk: Desk, charter: ExperimentCharter, recipe: JsonObject) -> tuple[str, tuple[str, ...], JsonObject]:
    """Base, parents and whole operator record of one candidate.

    Raises:
        StudbookError: any of its kinds, if the recipe is none, or trains on what the cluster does not give.
    """
    single = wants_one_parent(recipe)
    base, parents = (charter.champion, (charter.champion,)) if single else (charter.base, charter.parents)
    operator = expand(with_clients(desk, recipe), len(parents), offered(desk, charter.cluster))
    check_slices(desk, operator, charter.cluster, parents)
    return base, parents, operator_fields(operator)


def check_charter(desk: Desk, record: ExperimentCharter) -> None:
    """Refuse a charter that is not of the lab as it is, promises less than the rules ask for, or comes too late.

    Args:
        desk: The lab as it is before the charter.
        record: The charter.

    Raises:
        DigestDiffers: naming the field; ``experiment.charter``.
        UsageError: if factors, levels or seeds contradict each other; ``experiment.field``. If a suite is
            scored in a way in which random search and the ensemble do not answer; ``experiment.scorer``.
        OutOfOrder: ``experiment.seen`` if one of its candidates or searches was made already, ``experiment.name``.
        OverBudget: if it costs more than the policy allows.
        StudbookError: any of its kinds, if the policy does not allow an operator, or a recipe is none.
    """
    _check_fields(record)
    _check_scorers(desk, record)
    in_force, policy = desk.policy
    cluster = desk.workspace.get(record.cluster, FailureCluster)
    report = desk.workspace.get(record.compatibility, CompatibilityReport)
    facts = {
        "policy": (record.policy, in_force),
        "champion": (record.champion, desk.champion()),
        "cluster": (cluster.champion, record.champion),
        "compatibility": ((report.base, report.parents, report.passed), (record.base, record.parents, True)),
        "suites": (record.suites, analysed(desk, cluster.label, record.analysis.metric)),
        "baselines": (record.baselines, BASELINES),
        "analysis.margin": (record.analysis.margin, policy.gates.practical_minimum),
        "budget": (record.budget, budget_of(desk, record)),
    }
    require(f"experiment {record.name}", facts, "experiment.charter")
    _check_budget(record.budget, policy.budget.candidates, policy.budget.evaluations)
    # What random search will look for has to be allowed too, or nobody could be held against it.
    space_of(policy, make_space("scales", len(record.parents), {}))
    works = {}
    for run in analysis.planned(record):
        base, parents, operator = operator_of(desk, record, run.recipe)
        check_operator(policy, operator)
        works[recipe_sha256(base, parents, operator)] = run
    if len(works) < record.budget.candidates:
        text = "two arms are the same recipe: a factor changes nothing"
        raise UsageError(text, where=f"experiment {record.name}: factors", reason="experiment.field")
    _check_unseen(desk, record, works)


def _check_fields(record: ExperimentCharter) -> None:
    varied = [f.field for f in record.factors]
    reserved = {"operator", "inner", *(["seed"] if analysis.draws(record.operator) else [])}
    rules = (
        ("factors", len(set(varied)) == len(varied), "name a field twice"),
        ("factors", not reserved & set(varied), f"vary {', '.join(sorted(reserved & set(varied)))}: a candidate has one "
         "mutation family, and seeds are listed by themselves"),
        ("fixed", not (reserved | set(varied)) & set(record.fixed), "sets what is varied, the operator or the seed"),
        ("primary", len(record.primary) == len(varied), f"has to have one digit for each of {len(varied)} factors"),
        ("seeds", len(set(record.seeds)) == len(record.seeds), "names a seed twice"),
        ("alpha", record.analysis.alpha / max(1, len(varied)) >= LEAST_ALPHA, f"is below {LEAST_ALPHA:g} a bound, which "
         "no number of items can show"),
        ("parents", len(record.parents) > 1, "are fewer than two, and there is no ensemble of one"),
    )  # fmt: skip
    for field, holds, what in rules:
        if not holds:
            advice = "Mend the field in the experiment's file."
            raise UsageError(what, where=f"experiment {record.name}: {field}", advice=advice, reason="experiment.field")


def _check_scorers(desk: Desk, record: ExperimentCharter) -> None:
    for suite in record.suites:
        manifest = desk.workspace.get(suite, SuiteManifest)
        if manifest.scorer != ANSWERED:
            raise UsageError(
                f"suite {manifest.name} is scored by {manifest.scorer}; random search and the ensemble answer by {ANSWERED}",
                where=f"experiment {record.name}: suites",
                advice="Choose a cluster whose development suites are scored by it, with the metric target.",
                reason="experiment.scorer",
            )


def _check_budget(budget: ExperimentBudget, candidates: int, calls: int) -> None:
    for field, wanted, allowed in (("candidates", budget.candidates, candidates), ("calls", budget.calls, calls)):
        if wanted > allowed:
            raise OverBudget(
                f"the experiment needs {wanted} {'model calls' if field == 'calls' else field}; the policy allows {allowed}",
                where=f"policy: budget.{'evaluations' if field == 'calls' else field}",
                advice="Vary fewer factors, name fewer seeds, or have the policy's owner allow more.",
            )


def _check_unseen(desk: Desk, record: ExperimentCharter, works: Mapping[str, Planned]) -> None:
    where = f"experiment {record.name}"
    for found, template in desk.all(LineageTemplate):
        if template.recipe_sha256 in works:
            arm = works[template.recipe_sha256].arm or "the candidate"
            raise OutOfOrder(
                f"arm {arm} was declared before, in {found[:16]}: what was seen cannot be predicted any more",
                where=f"{where}: factors",
                advice="Choose other levels, seeds or parents.",
                reason="experiment.seen",
            )
    ground = (record.base, record.parents)
    for found, receipt in desk.all(SearchReceipt):
        if receipt.method == "random" and receipt.seed in record.seeds and (receipt.base, receipt.parents) == ground:
            raise OutOfOrder(
                f"seed {receipt.seed} was searched with before, in {found[:16]}",
                where=f"{where}: seeds",
                advice="Choose another seed.",
                reason="experiment.seen",
            )
    if any(c.name == record.name for _, c in desk.all(ExperimentCharter)):
        text = f"an experiment called {record.name} is registered already"
        raise OutOfOrder(text, where=f"{where}: name", advice="Give it another name.", reason="experiment.name")
