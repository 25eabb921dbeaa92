"""Search for a recipe on development items, breed the winner, and put down everything that was tried.

Candidates are run in memory by workers (`search_worker`); only the winner becomes a file, by the same way as every other
candidate, and has to answer every development item as the search saw it. Selection and sealed suites are never opened:
their paths are not even looked up here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from msgspec import Struct

from studbook.breeding.recipes import check_recipe, recipe_sha256
from studbook.errors import OutOfOrder, OverBudget, UsageError
from studbook.evaluation.scorecards import SuiteFile, evaluator_sha256
from studbook.executor import available_cores, in_order
from studbook.lab import breeding, clock, judging, rounds
from studbook.lab.breeding import Herd
from studbook.lab.desk import Desk
from studbook.lab.frozen import of_role
from studbook.lab.generations import require_depth
from studbook.lab.pending import require_key
from studbook.lab.search_check import require_same, searched_suites, space_of, tables_of
from studbook.lab.search_journal import Journal
from studbook.population import (
    CmaSearch,
    Kind,
    Method,
    NaturalNiches,
    Objective,
    Outcome,
    RandomSearch,
    Search,
    Task,
    library,
    make_space,
    recipe,
    soup,
)
from studbook.population.cmaes import SIGMA, WORKER
from studbook.population.genomes import centre, founders
from studbook.population.m2n2 import ALPHA, ARCHIVE
from studbook.records import CandidateManifest, SearchReceipt, SuiteManifest, digest
from studbook.records.population import GenomeSpace
from studbook.sandbox import run_worker

__all__ = ["Found", "Request", "check_request", "search"]

_JOURNAL = "evaluations.jsonl"
_MODULE = "studbook.lab.search_worker"
# Recipes a worker runs at most before it answers: what a kill costs.
_BATCH = 8
_MOST = 10_000
# One character each in the receipt, which has to stay below the size of a record.
_MOST_ANSWERS = 24_000_000


class Request(NamedTuple):
    """What is to be searched.

    Attributes:
        method: ``cma``, ``m2n2`` or ``random``.
        evaluations: Recipes that are run, the uniform soup included.
        seed: Seed of the method.
        parents: Names of the parents; every approved one by default.
        kind: What the genes set: ``scales``, ``ties`` or ``split``.
        layered: Scales of their own for every layer.
        filters: Substrings of tensor names with scales of their own.
        objective: ``worst`` or ``mean`` accuracy over the protected clusters and the target.
        mix: How m2n2 mixes: ``lerp`` or ``slerp``.
    """

    method: Literal["cma", "m2n2", "random"] = "cma"
    evaluations: int = 85
    seed: int = 1
    parents: Sequence[str] | None = None
    kind: Kind = "scales"
    layered: bool = False
    filters: Sequence[str] = ()
    objective: Literal["worst", "mean"] = "worst"
    mix: Literal["lerp", "slerp"] = "lerp"


class Found(Struct, frozen=True):
    """What a search came to.

    Attributes:
        receipt: Digest of the SearchReceipt.
        record: The receipt.
        name: Name of the winner.
        suites: Name of each suite, in the receipt's order.
    """

    receipt: str
    record: SearchReceipt
    name: str
    suites: tuple[str, ...]


class _Ground(NamedTuple):
    """Everything a search stands on, before the first recipe is run."""

    herd: Herd
    suites: tuple[SuiteFile, ...]
    labels: tuple[str, ...]
    space: GenomeSpace
    fields: dict[str, Any]


def search(desk: Desk, label: str, request: Request, *, resume: bool = False) -> Found:
    """Search, breed the winner, record. The same call goes on where an earlier one was cut short.

    Args:
        desk: The lab.
        label: The failure cluster to breed for.
        request: What is to be searched.
        resume: Refuse to begin anew: there must be something to go on with.

    Raises:
        UsageError: if a choice is impossible, or there is nothing to resume.
        OverBudget: if it would need more model calls than the policy allows; nothing has run then.
        OutsideAllowlist: if the policy does not allow the operators.
        StudbookError: any of its kinds, as a round before its first candidate.
    """
    ground = _prepare(desk, label, request)
    if done := _done(desk, ground.fields):
        return _found(desk, ground, *done)
    require_key(desk, SearchReceipt, CandidateManifest)
    shape = tuple(s.manifest.count for s in ground.suites)
    key = digest({"header": desk.header, **ground.fields})
    journal = Journal(desk.workspace.resume_folder(f"search-{key}") / _JOURNAL, shape)
    if resume and not journal.known:
        raise UsageError(
            "there is nothing to resume", where="--resume", advice="Leave --resume out, or repeat the earlier command."
        )
    made = Search(
        ground.space,
        _method(desk, ground, request),
        _objective(ground, request.objective),
        request.evaluations,
        lambda operator: recipe_sha256(ground.herd.base, ground.herd.parents, dict(operator)),
        lambda tasks: _run(desk, ground, journal, tasks),
    )
    _show(desk, made, request)
    record = _conclude(desk, ground, made)
    found = _found(desk, ground, desk.workspace.commit(record), record)
    journal.discard()
    return found


def check_request(desk: Desk, request: Request) -> None:
    """Refuse what no lab could search, or what the policy forbids, whoever the parents are; nothing is measured for it.

    Raises:
        UsageError: if a choice is impossible, or the method's library is not installed.
        OutsideAllowlist: if the policy does not allow the operators.
        OverBudget: if it would need more model calls than the policy allows.
        OutOfOrder: if no suite is frozen.
    """
    if not 1 <= request.evaluations <= _MOST:
        raise UsageError(
            f"{request.evaluations} evaluations; 1 to {_MOST}",
            where="--evaluations",
            advice="Ask for fewer, or for one at least.",
        )
    _settings(request)
    held = {d: desk.workspace.get(d, SuiteManifest) for d in desk.suites_lock[1].suites}
    # Whatever the target is, the protected clusters are searched on.
    _check_budget(desk, request, sum(held[d].count for d in searched_suites(desk.policy[1], "", held)))
    space = space_of(desk.policy[1], make_space(request.kind, 2, {}, 2, request.layered, tuple(request.filters)))
    if request.method == "m2n2":
        founders(space)


def _found(desk: Desk, ground: _Ground, receipt: str, record: SearchReceipt) -> Found:
    return Found(receipt, record, desk.name_of(record.artifact), tuple(s.manifest.name for s in ground.suites))


def _prepare(desk: Desk, label: str, request: Request) -> _Ground:
    policy_digest, policy = desk.policy
    names = list(request.parents) if request.parents is not None else None
    check_request(desk, request)
    # What can be refused is refused before the champion is scored and the parents are measured.
    base, parents, _ = rounds.choose(desk, label, names, clock.today())
    _check_filters(desk, base, request.filters)
    require_depth(desk, (base, *parents), "the winner")
    held = {s.digest: s for s in of_role(desk, "development")}
    suites = tuple(held[d] for d in searched_suites(policy, label, {d: s.manifest for d, s in held.items()}))
    labels = tuple(dict.fromkeys(s.manifest.cluster for s in suites))
    _check_budget(desk, request, sum(s.manifest.count for s in suites))
    space = _space(desk, base, len(parents), request)
    herd, cluster, _ = rounds.start(desk, label, [], names, clock.today())
    fields = {
        "cluster": digest(cluster),
        "policy": policy_digest,
        "base": herd.base,
        "parents": herd.parents,
        "method": request.method,
        "settings": _settings(request),
        "seed": request.seed,
        "budget": request.evaluations,
        "space": space,
        "objective": request.objective,
        "labels": labels,
        "evaluator": evaluator_sha256(),
        "suites": tuple(s.digest for s in suites),
        "items": " ".join(str(s.manifest.count) for s in suites),
    }
    return _Ground(herd, suites, labels, space, fields)


def _check_filters(desk: Desk, base: str, filters: Sequence[str]) -> None:
    names = [spec.name for spec in desk.model(base).shape.tensors()]
    for pattern in filters:
        if not any(pattern in name for name in names):
            raise UsageError(
                f"{pattern!r} is part of no tensor's name, so it would set nothing",
                where="--filter",
                advice=f"Names are such as {', '.join(names[:3])}.",
                reason="usage.filter",
            )


def _check_budget(desk: Desk, request: Request, items: int) -> None:
    allowed = min(desk.policy[1].budget.evaluations, _MOST_ANSWERS)
    if request.evaluations * items > allowed:
        raise OverBudget(
            f"{request.evaluations} evaluations x {items} development items = {request.evaluations * items} model "
            f"calls; {allowed} are allowed",
            where="policy: budget.evaluations",
            advice="Ask for fewer evaluations, or have the policy's owner allow more.",
        )


def _space(desk: Desk, base: str, parents: int, request: Request) -> GenomeSpace:
    """The space inside the policy's bounds; what it means must be allowed, and be something, before anything is run."""
    depth = desk.model(base).shape.layer_count
    asked = make_space(request.kind, parents, {}, depth, request.layered, tuple(request.filters))
    space = space_of(desk.policy[1], asked)
    for operator in (soup(parents), recipe(space, centre(space))):
        check_recipe(operator)
    return space


def _settings(request: Request) -> dict[str, Any]:
    if request.method == "cma":
        return {"library": library(), "sigma": SIGMA}
    if request.method == "m2n2":
        return {"alpha": ALPHA, "archive": ARCHIVE, "mix": request.mix}
    return {}


def _method(desk: Desk, ground: _Ground, request: Request) -> Method:
    if request.method == "random":
        return RandomSearch(ground.space, request.seed)
    if request.method == "cma":
        return CmaSearch(ground.space, request.seed, lambda job: _work(desk, WORKER, job, "optimiser"))
    herd = ground.herd
    tables = tables_of(desk, herd.base, herd.parents, ground.space) if request.mix == "slerp" else None
    return NaturalNiches(ground.space, request.seed, request.mix, tables)


def _run(desk: Desk, ground: _Ground, journal: Journal, tasks: Sequence[Task]) -> Iterator[Outcome]:
    """Outcomes of some recipes in their order; what the journal knows is not run again."""
    missing = [t for t in tasks if t.identity not in journal.known]
    size = min(_BATCH, max(1, -(-len(missing) // available_cores())))
    batches = [missing[i : i + size] for i in range(0, len(missing), size)]
    fixed = {
        **_inputs(desk, ground.herd),
        "suites": [[str(s.path.absolute()), s.manifest.items.sha256] for s in ground.suites],
        "relative_delta": desk.policy[1].budget.relative_delta,
    }

    def work(batch: Sequence[Task]) -> list[Outcome]:
        job = {**fixed, "operators": [dict(t.operator) for t in batch]}
        answer = _work(desk, _MODULE, job, f"search-{batch[0].identity[:16]}")
        return [Outcome(tuple(o["correct"]), tuple(o["loglik_micro"]), o["detail"]) for o in answer["outcomes"]]

    made = zip(batches, in_order(work, batches), strict=True)
    for task in tasks:
        while task.identity not in journal.known:
            for done, outcome in zip(*next(made), strict=True):
                journal.add(done.identity, outcome)
        yield journal.known[task.identity]


def _work(desk: Desk, module: str, job: dict[str, Any], name: str) -> dict[str, Any]:
    files = [*([job["base"]] if "base" in job else ()), *job.get("parents", ()), *job.get("suites", ())]
    reads = [path for path, _ in files]
    return run_worker(module, job, desk.workspace.work_folder(name), desk.worker_limits(), reads).value


def _inputs(desk: Desk, herd: Herd) -> dict[str, Any]:
    def file(artifact: str) -> list[str]:
        return [str(desk.workspace.blob_path(artifact).absolute()), artifact]

    return {"base": file(herd.base), "parents": [file(p) for p in herd.parents]}


def _objective(ground: _Ground, kind: Literal["worst", "mean"]) -> Objective:
    return Objective(kind, [s.manifest.cluster for s in ground.suites], ground.labels)


def _show(desk: Desk, made: Search, request: Request) -> None:
    """Run the search to its end, saying whenever something better was found."""
    best = (-1, 0)
    title = f"searching with {request.method}"
    for row in desk.progress.count(title, made.steps(), request.evaluations):
        if row.origin != "founder" and (row.objective_ppm, row.tie_micro) > best:
            best = (row.objective_ppm, row.tie_micro)
            share = f"{row.objective_ppm / 10_000:.2f} %"
            desk.progress.say(f"{len(made.evaluated):>5}  {request.objective} {share}, {row.tie_micro / 1e6:.4f} nats")


def _conclude(desk: Desk, ground: _Ground, made: Search) -> SearchReceipt:
    """Breed the winner the usual way and hold its file against what the search saw."""
    best = made.best()
    operator = dict(made.operators[best])
    manifest = breeding.breed_all(desk, breeding.plan(desk, ground.herd, [operator]), "breeding the winner")[0]
    artifact = breeding.manifest_of(desk, manifest).artifact.sha256
    if not (smoke := judging.smoke_all(desk, [artifact]).get(artifact)) or not smoke.passed:
        raise OutOfOrder(f"{desk.name_of(artifact)} did not pass its runtime smoke")
    card = judging.evaluate(desk, [artifact], "development")[artifact]
    sizes = [s.manifest.count for s in ground.suites]
    require_same(made.evaluated[best], sizes, [s.digest for s in ground.suites], card.card)
    return SearchReceipt(
        header=desk.header,
        **ground.fields,
        evaluated=tuple(made.evaluated),
        repeats=tuple(made.repeats),
        ended=made.ended or "budget",
        best=best,
        recipe=operator,
        winner=manifest,
        artifact=artifact,
        scorecard=card.digest,
    )


def _done(desk: Desk, fields: Mapping[str, Any]) -> tuple[str, SearchReceipt] | None:
    """The receipt of the same search, if it was finished before."""
    for found, record in desk.all(SearchReceipt):
        if record.header == desk.header and all(getattr(record, name) == value for name, value in fields.items()):
            return found, record
    return None
