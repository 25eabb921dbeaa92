"""A search's receipt, held against what it cites and against itself: policy, suites, space, proposals, winner.

The proposals of ``random`` and ``m2n2`` follow from the seed and the recorded results alone and are made again; another
way of proposing is another kind of receipt. Those of ``cma`` come from a library that calls the machine's linear algebra;
they are taken as recorded, and everything that follows from them is checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from studbook.breeding.recipes import recipe_sha256
from studbook.breeding.sources import as_inputs, open_inputs
from studbook.errors import DigestDiffers
from studbook.lab.desk import Desk
from studbook.lab.search_worker import inner_products
from studbook.policy import check_operator
from studbook.population import (
    Method,
    NaturalNiches,
    Objective,
    Outcome,
    RandomSearch,
    Search,
    Task,
    make_space,
    recipe,
    soup,
)
from studbook.population.cmaes import SIGMA
from studbook.population.genomes import OPERATORS, centre
from studbook.population.loop import STALL
from studbook.population.m2n2 import ALPHA, ARCHIVE, Table
from studbook.records import (
    CandidateManifest,
    FailureCluster,
    LineageTemplate,
    Policy,
    Scorecard,
    SearchReceipt,
    SuiteManifest,
)
from studbook.records.population import Evaluated, GenomeSpace

__all__ = ["check_search", "require_same", "searched_suites", "space_of", "tables_of"]


def searched_suites(policy: Policy, label: str, suites: Mapping[str, SuiteManifest]) -> tuple[str, ...]:
    """The suites a search may look at: development, of tasks, of the clusters the policy protects and the target.

    Args:
        policy: The policy in force.
        label: Label of the failure cluster.
        suites: Digest -> manifest, in the order of the lock.

    Returns:
        Their digests, in the same order.
    """
    tasks = {d: m for d, m in suites.items() if m.role == "development" and m.dimension == "task"}
    wanted = (*policy.protects(tuple(dict.fromkeys(m.cluster for m in tasks.values()))), label)
    return tuple(d for d, m in tasks.items() if m.cluster in wanted)


def space_of(policy: Policy, asked: GenomeSpace) -> GenomeSpace:
    """The space of the same kind, layers and filters inside the policy's bounds; what it means must be allowed.

    Args:
        policy: The policy in force.
        asked: What is looked at of it: kind, number of parents, depth, layers, filters and decimals.

    Raises:
        OutsideAllowlist: if the policy does not allow an operator, or leaves nothing of a range.
    """
    tag = OPERATORS[asked.kind]
    check_operator(policy, {"operator": tag})
    bounds = next(grant.bounds for grant in policy.operators if grant.operator == tag)
    layered = asked.layers > 1
    space = make_space(asked.kind, asked.parents, bounds, asked.depth, layered, asked.filters, asked.decimals)
    for operator in (soup(asked.parents), recipe(space, centre(space))):
        check_operator(policy, operator)
    return space


def tables_of(desk: Desk, base: str, parents: Sequence[str], space: GenomeSpace) -> dict[int, Table]:
    """For every block of a space the inner products of the parents' task vectors, computed in this process.

    Raises:
        StudbookError: any of its kinds, if a model's bytes are gone or are not as recorded.
    """
    named = [(str(desk.workspace.blob_path(d)), d) for d in (base, *parents)]
    inputs = as_inputs(*open_inputs(named[0], named[1:]))
    return dict(enumerate(inner_products(inputs, space.layers, space.filters)))


def check_search(desk: Desk, record: SearchReceipt) -> None:
    """Hold a receipt against itself and against what it cites.

    Args:
        desk: The lab as it was before the receipt.
        record: The receipt.

    Raises:
        DigestDiffers: naming what is not as the receipt says.
        StudbookError: any of its kinds, if something it cites is not there.
    """
    _check_ground(desk, record)
    scorecard = desk.workspace.get(record.scorecard, Scorecard)
    suites = [desk.workspace.get(d, SuiteManifest).cluster for d in record.suites]
    objective = Objective(record.objective, suites, record.labels)
    sizes = [int(n) for n in record.items.split()]
    _check_rows(record, objective, sizes)
    if record.method != "cma":
        _check_proposals(desk, record, objective, sizes)
    _check_best(record)
    _check_winner(desk, record, scorecard)
    require_same(record.evaluated[record.best], sizes, record.suites, scorecard)


def require_same(row: Evaluated, sizes: Sequence[int], suites: Sequence[str], card: Scorecard) -> None:
    """The winner's file must answer every item as the search saw it.

    Args:
        row: What the search saw.
        sizes: Items of each suite.
        suites: Digests of the suites, in the row's order.
        card: The file's scorecard.

    Raises:
        DigestDiffers: if it does not.
    """
    results = {result.suite: result for result in card.results}
    outcome = _outcome_of(row, sizes)
    for suite, bits, loglik in zip(suites, outcome.correct, outcome.loglik_micro, strict=True):
        if suite not in results or (results[suite].correct, sum(results[suite].logliks)) != (bits, loglik):
            raise DigestDiffers(
                "the winner's file does not answer as the search saw it",
                where=f"search: {row.recipe[:16]}",
                advice="Nothing was recorded. Run the search again; if it repeats, please report it.",
                reason="search.winner",
            )


def _require(holds: bool, field: str, what: str) -> None:
    if not holds:
        raise DigestDiffers(
            what,
            where=f"search: {field}",
            advice="The receipt does not tell how its winner was found. Do not rely on it; search again.",
            reason=f"search.{field}",
        )


def _check_ground(desk: Desk, record: SearchReceipt) -> None:
    """Policy, suites, labels, budget and space must be those that were in force, whatever the receipt says."""
    in_force, policy = desk.policy
    _require(record.policy == in_force, "policy", "its policy is not the one that was in force")
    locked = {d: desk.workspace.get(d, SuiteManifest) for d in desk.suites_lock[1].suites}
    label = desk.workspace.get(record.cluster, FailureCluster).label
    right = searched_suites(policy, label, locked)
    _require(record.suites == right, "suites", "its suites are not the development suites that were to be searched on")
    counts = " ".join(str(locked[d].count) for d in right)
    _require(record.items == counts, "items", f"its suites have {counts} items")
    labels = tuple(dict.fromkeys(locked[d].cluster for d in right))
    _require(record.labels == labels, "labels", "its labels are not the clusters of its suites")
    calls = record.budget * sum(locked[d].count for d in right)
    allowed = policy.budget.evaluations
    _require(calls <= allowed, "budget", f"{calls} model calls; the policy allowed {allowed}")
    depth = desk.model(record.base).shape.layer_count
    shaped = record.space.depth == depth and record.space.parents == len(record.parents)
    fits = shaped and record.space.layers in (1, depth)
    _require(fits and record.space == space_of(policy, record.space), "space", "its space is not within the policy")
    fixed: dict[str, dict[str, object]] = {
        "random": {},
        "m2n2": {"alpha": ALPHA, "archive": ARCHIVE},
        "cma": {"sigma": SIGMA},
    }
    free = {"random": set(), "m2n2": {"mix"}, "cma": {"library"}}[record.method]
    due = fixed[record.method]
    known = set(record.settings) == {*due, *free} and {f: record.settings[f] for f in due} == due
    _require(known, "settings", f"its settings are not those of the method {record.method}")


def _check_rows(record: SearchReceipt, objective: Objective, sizes: Sequence[int]) -> None:
    """Every row must follow from its genome and its answers; the first is the uniform soup, and no recipe stands twice."""
    for place, row in enumerate(record.evaluated):
        where = f"row {place}"
        _require((row.origin == "soup") == (place == 0), where, "the uniform soup is the first recipe, and no other")
        # A parent by itself cannot win, so a row that says it is one is left out of the race.
        alone = row.origin == "founder" and record.method != "m2n2"
        _require(not alone, where, f"the method {record.method} begins with no parents by themselves")
        operator = soup(len(record.parents)) if place == 0 else recipe(record.space, _genome(record.space, row, where))
        named = row.recipe == recipe_sha256(record.base, record.parents, operator)
        _require(named and (place > 0 or not row.genome), where, "its digest is not that of its genome's recipe")
        whole = bool(row.detail) != (len(row.correct) == sum(sizes)) and bool(row.detail) == (not row.correct)
        _require(whole, where, "it neither answers every item nor says why it could not be run")
        outcome = _outcome_of(row, sizes)
        told = len(outcome.loglik_micro) == (0 if row.detail else len(sizes))
        told = told and row.right == " ".join(str(bits.count("1")) for bits in outcome.correct)
        told = told and tuple(objective.score(outcome)) == (row.objective_ppm, row.tie_micro)
        _require(told, where, "its counts or its score are not those of its answers")
    once = len({row.recipe for row in record.evaluated}) == len(record.evaluated)
    _require(once, "evaluated", "a recipe stands twice")
    spent = len(record.evaluated) == record.budget
    stalled = len(record.evaluated) < record.budget and len(record.repeats) >= STALL
    ended = spent if record.ended == "budget" else stalled
    _require(ended, "ended", f"{len(record.evaluated)} recipes were run of {record.budget}, and it says {record.ended}")
    held = all(r.of < r.after <= len(record.evaluated) for r in record.repeats)
    _require(held, "repeats", "a repeat is of a recipe that had not been run")


def _check_proposals(desk: Desk, record: SearchReceipt, objective: Objective, sizes: Sequence[int]) -> None:
    """The method, begun again from the seed and told the recorded results, must make the recorded proposals."""
    known = {row.recipe: _outcome_of(row, sizes) for row in record.evaluated}

    def run(tasks: Sequence[Task]) -> Iterator[Outcome]:
        for task in tasks:
            _require(task.identity in known, "seed", "its seed proposes a recipe that is not among its rows")
            yield known[task.identity]

    again = Search(
        record.space,
        _method(desk, record),
        objective,
        record.budget,
        lambda operator: recipe_sha256(record.base, record.parents, dict(operator)),
        run,
    )
    made = tuple(again.steps())
    _require(made == record.evaluated, "seed", "its seed proposes other recipes, or in another order")
    _require(tuple(again.repeats) == record.repeats, "repeats", "its seed repeats other proposals")


def _method(desk: Desk, record: SearchReceipt) -> Method:
    if record.method == "random":
        return RandomSearch(record.space, record.seed)
    mix = record.settings["mix"]
    _require(mix in ("lerp", "slerp"), "settings", "its settings are not those of the method m2n2")
    tables = tables_of(desk, record.base, record.parents, record.space) if mix == "slerp" else None
    return NaturalNiches(record.space, record.seed, mix, tables)


def _check_best(record: SearchReceipt) -> None:
    rows = record.evaluated
    able = [i for i, row in enumerate(rows) if row.objective_ppm >= 0 and row.origin != "founder"]
    best = max(able, key=lambda i: (rows[i].objective_ppm, rows[i].tie_micro, -i), default=None)
    _require(best == record.best, "best", "its winner is not the best of what it ran")


def _check_winner(desk: Desk, record: SearchReceipt, scorecard: Scorecard) -> None:
    """Manifest, artifact, template and scorecard must be those of the winning recipe, bred for the same cluster."""
    wanted = recipe_sha256(record.base, record.parents, record.recipe)
    _require(wanted == record.evaluated[record.best].recipe, "recipe", "its recipe is not the winning row's")
    manifest = desk.workspace.get(record.winner, CandidateManifest)
    template = desk.workspace.get(manifest.template, LineageTemplate)
    bred = (manifest.artifact.sha256, manifest.purpose, template.recipe_sha256, template.cluster, template.policy)
    same = bred == (record.artifact, "candidate", wanted, record.cluster, record.policy)
    _require(same, "winner", "its winner was not bred from the winning recipe for this cluster and policy")
    measured = (scorecard.artifact, scorecard.evaluator, scorecard.role)
    same = measured == (record.artifact, record.evaluator, "development")
    _require(same, "scorecard", "its scorecard is not the winner's on development items by the same evaluator")


def _outcome_of(row: Evaluated, sizes: Sequence[int]) -> Outcome:
    bits, start = [], 0
    for size in sizes if row.correct else ():
        bits.append(row.correct[start : start + size])
        start += size
    return Outcome(tuple(bits), tuple(int(n) for n in row.loglik_micro.split()), row.detail)


def _genome(space: GenomeSpace, row: Evaluated, where: str) -> tuple[int, ...]:
    genome = tuple(int(n) for n in row.genome.split())
    fits = len(genome) == len(space.genes)
    fits = fits and all(gene.low <= n <= gene.high for n, gene in zip(genome, space.genes, strict=True))
    _require(fits, where, "its genome is not a point of the space")
    return genome
