"""The loop of every search: propose, drop what was run before, run the rest, tell the method, stop at the budget.

The first recipe that is run is always the uniform soup. Equal recipes are run once; the second proposal is told the
first one's result and costs nothing. A method sees results in the order of its proposals and nothing else, so the same
seed and the same results give the same search, and one that was cut short goes on by being run again over what is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from studbook.errors import OutOfOrder
from studbook.population.genomes import Genome, recipe, soup
from studbook.records.population import Evaluated, GenomeSpace, Origin, Repeat

__all__ = ["STALL", "Method", "Objective", "Outcome", "Proposal", "Result", "Score", "Search", "Task"]

STALL = 1000
"""Proposals in a row that were all run before, after which nothing new is expected of a method."""
_MICRO = 1_000_000


class Outcome(NamedTuple):
    """What running one recipe gave.

    Attributes:
        correct: For every suite one character an item, ``1`` right and ``0`` wrong; empty if it could not be run.
        loglik_micro: For every suite the sum of the items' log-likelihoods, in millionths of a nat.
        detail: Why it could not be run, or empty.
    """

    correct: tuple[str, ...]
    loglik_micro: tuple[int, ...]
    detail: str = ""


class Score(NamedTuple):
    """How good a recipe is; compared field by field, larger is better.

    Attributes:
        objective_ppm: The objective in millionths; -1 where the recipe could not be run.
        tie_micro: Mean log-likelihood of the items that count, in millionths of a nat, never above 0.
    """

    objective_ppm: int
    tie_micro: int

    @property
    def cost(self) -> float:
        """One number for optimisers that minimise: it orders scores exactly as they are ordered, 1 at the worst."""
        # The second term lies in 0..1 and so never outweighs one millionth of the objective.
        return 1.0 if self.objective_ppm < 0 else -(self.objective_ppm + 1.0 / (1.0 - self.tie_micro / _MICRO))


class Proposal(NamedTuple):
    """What a method would like to see run.

    Attributes:
        genome: The genome.
        origin: A parent by itself, or a proposal.
    """

    genome: Genome
    origin: Origin = "proposal"


class Result(NamedTuple):
    """A proposal with what it gave.

    Attributes:
        proposal: The proposal.
        outcome: What running it gave.
        score: The same as one score.
    """

    proposal: Proposal
    outcome: Outcome
    score: Score


class Method(Protocol):
    """A way of searching: asked for proposals, told their results, in turns."""

    def ask(self) -> Sequence[Proposal]:
        """The next proposals, at least one."""

    def tell(self, results: Sequence[Result]) -> None:
        """What they gave, in their order."""


class Task(NamedTuple):
    """One recipe to be run.

    Attributes:
        identity: Digest of base, parents and operator.
        operator: The operator record.
    """

    identity: str
    operator: Mapping[str, Any]


class Objective:
    """From per-item results to one score.

    Args:
        kind: ``worst`` (lowest accuracy over the labels) or ``mean`` (their unweighted mean).
        suites: The label of every suite, in the outcomes' order; suites of one label are pooled.
        labels: The labels that count.
    """

    def __init__(self, kind: Literal["worst", "mean"], suites: Sequence[str], labels: Sequence[str]) -> None:
        self.kind = kind
        self.groups = [[i for i, label in enumerate(suites) if label == wanted] for wanted in labels]

    def score(self, outcome: Outcome) -> Score:
        """The score of an outcome."""
        if outcome.detail:
            return Score(-1, 0)
        shares = []
        for group in self.groups:
            right = sum(outcome.correct[i].count("1") for i in group)
            shares.append(right * _MICRO // sum(len(outcome.correct[i]) for i in group))
        counted = [i for group in self.groups for i in group]
        items = sum(len(outcome.correct[i]) for i in counted)
        tie = sum(outcome.loglik_micro[i] for i in counted) // items
        return Score(min(shares) if self.kind == "worst" else sum(shares) // len(shares), min(tie, 0))


class Search:
    """One search in the making.

    Args:
        space: What is searched.
        method: How.
        objective: What is looked for.
        budget: Recipes that are run, the soup included.
        identify: The digest of an operator record's work.
        run: Runs recipes; outcomes come in the recipes' order.

    Attributes:
        evaluated: What was run, in order.
        operators: The operator records of what was run.
        repeats: Proposals that cost nothing.
        ended: Why it ended; empty while it goes on.
    """

    def __init__(
        self,
        space: GenomeSpace,
        method: Method,
        objective: Objective,
        budget: int,
        identify: Callable[[Mapping[str, Any]], str],
        run: Callable[[Sequence[Task]], Iterator[Outcome]],
    ) -> None:
        self.space, self.method, self.objective = space, method, objective
        self.budget, self._identify, self._run = budget, identify, run
        self.evaluated: list[Evaluated] = []
        self.operators: list[Mapping[str, Any]] = []
        self.repeats: list[Repeat] = []
        self.ended: Literal["", "budget", "exhausted"] = ""
        self._outcomes: list[Outcome] = []
        self._places: dict[str, int] = {}
        self._stalled = 0

    def steps(self) -> Iterator[Evaluated]:
        """Run the search; every recipe is given as soon as it has been run."""
        first = soup(self.space.parents)
        yield from self._work([(Task(self._identify(first), first), Proposal((), "soup"))])
        while len(self.evaluated) < self.budget and self._stalled < STALL:
            proposals = list(self.method.ask())
            fresh, places = self._sort(proposals)
            yield from self._work(fresh)
            if len(self.evaluated) < self.budget:
                self.method.tell([self._result(p, place) for p, place in zip(proposals, places, strict=True)])
        self.ended = "budget" if len(self.evaluated) >= self.budget else "exhausted"

    def best(self) -> int:
        """Place of the best recipe that can be bred: a parent by itself is no child. Ties go to the earlier one.

        Raises:
            OutOfOrder: if none could be run.
        """
        able = [i for i, e in enumerate(self.evaluated) if e.objective_ppm >= 0 and e.origin != "founder"]
        if not able:
            detail = next((e.detail for e in self.evaluated if e.detail), "")
            advice = "Look at the reason, and search a smaller space or other parents."
            raise OutOfOrder(f"no recipe of the search could be run: {detail}", advice=advice, reason="search.nothing")
        return max(able, key=lambda i: (self.evaluated[i].objective_ppm, self.evaluated[i].tie_micro, -i))

    def _sort(self, proposals: Sequence[Proposal]) -> tuple[list[tuple[Task, Proposal]], list[int]]:
        """What of some proposals is new and still paid for, and the place every one of them has or will have."""
        fresh: list[tuple[Task, Proposal]] = []
        places: list[int] = []
        for proposal in proposals:
            operator = recipe(self.space, proposal.genome)
            identity = self._identify(operator)
            after = len(self.evaluated) + len(fresh)
            place = self._places.get(identity)
            if place is not None:
                self.repeats.append(Repeat(after=after, of=place))
                self._stalled += 1
                places.append(place)
            elif after < self.budget:
                self._places[identity] = after
                self._stalled = 0
                fresh.append((Task(identity, operator), proposal))
                places.append(after)
            else:
                break
        return fresh, places

    def _work(self, fresh: Sequence[tuple[Task, Proposal]]) -> Iterator[Evaluated]:
        outcomes = self._run([task for task, _ in fresh]) if fresh else iter(())
        for (task, proposal), outcome in zip(fresh, outcomes, strict=True):
            row = self._row(task.identity, proposal, outcome)
            self._places[task.identity] = len(self.evaluated)
            self.evaluated.append(row)
            self.operators.append(task.operator)
            self._outcomes.append(outcome)
            yield row

    def _row(self, identity: str, proposal: Proposal, outcome: Outcome) -> Evaluated:
        score = self.objective.score(outcome)
        return Evaluated(
            recipe=identity,
            origin=proposal.origin,
            genome=_numbers(proposal.genome),
            correct="".join(outcome.correct),
            right=_numbers([bits.count("1") for bits in outcome.correct]),
            loglik_micro=_numbers(outcome.loglik_micro),
            objective_ppm=score.objective_ppm,
            tie_micro=score.tie_micro,
            detail=outcome.detail,
        )

    def _result(self, proposal: Proposal, place: int) -> Result:
        outcome = self._outcomes[place]
        return Result(proposal, outcome, self.objective.score(outcome))


def _numbers(values: Sequence[int]) -> str:
    return " ".join(map(str, values))
