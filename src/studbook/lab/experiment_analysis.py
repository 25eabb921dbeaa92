"""What an experiment's answers come to: pure arithmetic over charter and answers, so that `verify` gets equal bytes.

A comparison of two runs is the paired difference on shared items, suite by suite (`stratified_bounds`). Over several
pairs of runs (seeds, levels of other factors) the differences and their distances to the bounds are averaged: the runs
answer the same items, so nothing is won by counting them as new ones, and sd(mean) <= mean(sd) holds however they are
correlated. Main effects are those of a full two-level factorial (Box, Hunter and Hunter 2005, chapter 5).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

from studbook.breeding.operators import every_type
from studbook.errors import OutOfOrder
from studbook.records import ArmOutcome, Contrast, Effect, ExperimentCharter, Scorecard, SuiteResult
from studbook.statistics import Estimate, paired_counts, stratified_bounds, wilson

__all__ = [
    "Planned",
    "Rival",
    "attribution",
    "bits_of",
    "contrast",
    "draws",
    "outcome",
    "planned",
    "score",
    "shortfalls",
]

Bits = tuple[str, ...]
"""One string of ``0`` and ``1`` a suite, one character an item."""
Runs = Mapping[tuple[str, int | None], Bits]
_DECIMALS = 9


class Planned(NamedTuple):
    """One candidate that a charter asks for.

    Attributes:
        arm: Its levels.
        seed: Its seed; None where the operator draws nothing.
        recipe: The operator record; one number may stand for every parent.
    """

    arm: str
    seed: int | None
    recipe: dict[str, Any]


class Rival(NamedTuple):
    """The answers of one baseline.

    Attributes:
        baseline: What it is.
        artifact: Digest of a parent; None elsewhere.
        bits: Seed -> answers; one entry under None where it has no seeds.
        needed: What the lower bound has to exceed.
    """

    baseline: str
    artifact: str | None
    bits: Mapping[int | None, Bits]
    needed: float


def draws(operator: str) -> bool:
    """Whether an operator has a seed: if not, one run an arm says everything."""
    kinds = {kind.tag(): kind for kind in every_type()}
    return operator in kinds and "seed" in kinds[operator].__struct_fields__


def planned(charter: ExperimentCharter) -> tuple[Planned, ...]:
    """Every arm in counting order, and every seed of it in the charter's order."""
    found = []
    seeds: tuple[int | None, ...] = charter.seeds if draws(charter.operator) else (None,)
    for levels in product("01", repeat=len(charter.factors)):
        varied = {f.field: f.on if level == "1" else f.off for f, level in zip(charter.factors, levels, strict=True)}
        for seed in seeds:
            recipe = {"operator": charter.operator, **charter.fixed, **varied}
            found.append(Planned("".join(levels), seed, recipe if seed is None else {**recipe, "seed": seed}))
    return tuple(found)


def bits_of(results: Sequence[SuiteResult] | Scorecard, suites: Sequence[str], where: str) -> Bits:
    """Answers to the analysed suites.

    Raises:
        OutOfOrder: if one of them was not scored; ``experiment.no-data``.
    """
    held = {r.suite: r for r in (results.results if isinstance(results, Scorecard) else results)}
    for suite in suites:
        if suite not in held or not held[suite].correct:
            raise OutOfOrder(
                f"there are no answers to suite {suite[:16]}",
                where=where,
                advice="An experiment without data has no result. Look at the scorecard, and run it again.",
                reason="experiment.no-data",
            )
    return tuple(held[suite].correct for suite in suites)


def score(bits: Bits) -> float:
    """Unweighted mean over the suites of the share of items answered rightly, 0..1."""
    return round(math.fsum(b.count("1") / len(b) for b in bits) / len(bits), _DECIMALS)


def outcome(charter: ExperimentCharter, runs: Runs, arm: str) -> ArmOutcome:
    """One arm over its seeds: Wilson bounds of every suite, combined by squares, averaged over seeds."""
    found = _averaged([_level(bits, charter.analysis.alpha) for (a, _), bits in runs.items() if a == arm])
    return ArmOutcome(arm=arm, score=found.value, lower=found.lower, upper=found.upper)


def contrast(charter: ExperimentCharter, runs: Runs, rival: Rival) -> Contrast:
    """The primary arm against one baseline, seed by seed where both have seeds."""
    own = {seed: bits for (arm, seed), bits in runs.items() if arm == charter.primary}
    pairs = [(_of(own, seed), _of(rival.bits, seed)) for seed in charter.seeds]
    found = _averaged([_difference(a, b, charter.analysis.alpha) for a, b in pairs])
    return Contrast(
        baseline=rival.baseline,
        artifact=rival.artifact,
        difference=found.value,
        lower=found.lower,
        upper=found.upper,
        needed=rival.needed,
        beaten=found.lower > rival.needed,
    )


def attribution(charter: ExperimentCharter, runs: Runs) -> tuple[Effect, ...]:
    """The main effect of every factor; empty where nothing is varied."""
    return tuple(_effect(charter, runs, place) for place in range(len(charter.factors)))


def shortfalls(contrasts: Sequence[Contrast], effects: Sequence[Effect]) -> tuple[str, ...]:
    """What did not hold, in words."""
    found = []
    for row in contrasts:
        if not row.beaten:
            who = f"{row.baseline} {row.artifact[:12]}" if row.artifact else row.baseline
            found.append(f"does not beat {who}: {_told(row)}; the lower bound has to exceed {100 * row.needed:.2f} pp")
    for effect in effects:
        if not effect.shown:
            found.append(
                f"no gain by {effect.field} is shown: {_told(effect)}; ahead in {effect.ahead} of {effect.pairs}"
            )
    return tuple(found)


def _effect(charter: ExperimentCharter, runs: Runs, place: int) -> Effect:
    alpha = charter.analysis.alpha / len(charter.factors)
    found = []
    for (arm, seed), bits in runs.items():
        if arm[place] == "1":
            found.append(_difference(bits, runs[f"{arm[:place]}0{arm[place + 1 :]}", seed], alpha))
    mean = _averaged(found)
    return Effect(
        field=charter.factors[place].field,
        difference=mean.value,
        lower=mean.lower,
        upper=mean.upper,
        pairs=len(found),
        ahead=sum(e.value > 0.0 for e in found),
        shown=mean.lower > 0.0,
    )


def _told(row: Contrast | Effect) -> str:
    return f"{100 * row.difference:+.2f} pp, bounds {100 * row.lower:+.2f} to {100 * row.upper:+.2f}"


def _of(bits: Mapping[int | None, Bits], seed: int) -> Bits:
    return bits[seed] if seed in bits else bits[None]


def _difference(mine: Bits, other: Bits, alpha: float) -> Estimate:
    return stratified_bounds([paired_counts(a, b) for a, b in zip(mine, other, strict=True)], alpha)


def _level(bits: Bits, alpha: float) -> Estimate:
    shares = [b.count("1") / len(b) for b in bits]
    bounds = [wilson(b.count("1"), len(b), alpha) for b in bits]
    mean = math.fsum(shares) / len(shares)
    below = math.hypot(*(share - bound.lower for share, bound in zip(shares, bounds, strict=True))) / len(shares)
    above = math.hypot(*(bound.upper - share for share, bound in zip(shares, bounds, strict=True))) / len(shares)
    return Estimate(mean, mean - below, mean + above)


def _averaged(found: Sequence[Estimate]) -> Estimate:
    columns = zip(*found, strict=True)
    return Estimate(*(round(math.fsum(column) / len(found), _DECIMALS) for column in columns))
