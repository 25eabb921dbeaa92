"""The arithmetic of experiments: effects, contrasts and bounds, on answers made up for the purpose."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studbook.errors import OutOfOrder
from studbook.lab.experiment_analysis import Bits, Rival, attribution, bits_of, contrast, draws, outcome, planned, score
from studbook.records import Analysis, ExperimentBudget, ExperimentCharter, Factor, Header
from studbook.records.experiments import BASELINES
from studbook.statistics import paired_bounds, paired_counts

NONE = "0" * 64
HEADER = Header(source="studbook", version="0.1.0", environment="test", owner="ann")
Runs = dict[tuple[str, int | None], Bits]


def charter(fields: tuple[str, ...] = ("keep",), seeds: tuple[int, ...] = (1,), **changes: Any) -> ExperimentCharter:
    """A charter of dare/1 with these factors."""
    told: dict[str, Any] = {
        "name": "test",
        "hypothesis": "",
        "cluster": NONE,
        "policy": NONE,
        "champion": NONE,
        "base": NONE,
        "parents": (NONE, NONE),
        "compatibility": NONE,
        "suites": (NONE,),
        "operator": "dare/1",
        "fixed": {"skip": []},
        "factors": tuple(Factor(field=name, off=0.1, on=0.9) for name in fields),
        "primary": "1" * len(fields),
        "seeds": seeds,
        "baselines": BASELINES,
        "stopping": "every-arm-and-seed-once",
        "analysis": Analysis(metric="joint-mean", test="paired-bounds", alpha=0.05, margin=0.0),
        "budget": ExperimentBudget(candidates=1, calls=1),
    }
    return ExperimentCharter(header=HEADER, **{**told, **changes})


def bits(rng: np.random.Generator, share: float, items: int) -> str:
    return "".join("1" if hit else "0" for hit in rng.random(items) < share)


def test_every_combination_of_levels_is_an_arm_and_every_seed_a_run_of_it() -> None:
    plan = planned(charter(("keep", "scales"), (7, 3)))
    assert [(p.arm, p.seed) for p in plan] == [(a, s) for a in ("00", "01", "10", "11") for s in (7, 3)]
    assert plan[2].recipe == {"operator": "dare/1", "skip": [], "keep": 0.1, "scales": 0.9, "seed": 7}


def test_an_operator_that_draws_nothing_runs_once_an_arm() -> None:
    plan = planned(charter(("density",), (7, 3), operator="sign-aware-merge/1"))
    assert [(p.arm, p.seed) for p in plan] == [("0", None), ("1", None)]
    assert all("seed" not in p.recipe for p in plan)
    assert draws("dare/1") and not draws("sign-aware-merge/1") and not draws("nobody/1")


def test_without_factors_there_is_one_arm_and_nothing_to_attribute() -> None:
    alone = charter((), (1,))
    assert [(p.arm, p.seed) for p in planned(alone)] == [("", 1)]
    assert attribution(alone, {("", 1): ("1100",)}) == ()


def test_an_effect_is_the_mean_over_the_other_factor_and_the_seeds() -> None:
    runs: Runs = {("00", 1): ("0000",), ("01", 1): ("1000",), ("10", 1): ("1100",), ("11", 1): ("1111",)}
    first, second = attribution(charter(("keep", "scales")), runs)
    assert first.difference == pytest.approx(((0.5 - 0.0) + (1.0 - 0.25)) / 2)
    assert second.difference == pytest.approx(((0.25 - 0.0) + (1.0 - 0.5)) / 2)
    assert (first.pairs, first.ahead) == (2, 2)


@given(st.integers(0, 2**32), st.integers(20, 300))
def test_one_run_against_one_other_is_the_plain_paired_bound(seed: int, items: int) -> None:
    rng = np.random.default_rng(seed)
    mine, other = bits(rng, 0.6, items), bits(rng, 0.5, items)
    found = contrast(charter(), {("1", 1): (mine,), ("0", 1): (other,)}, Rival("champion", None, {None: (other,)}, 0.0))
    plain = paired_bounds(*paired_counts(mine, other), 0.05)
    assert (found.difference, found.lower) == pytest.approx((plain.value, plain.lower), abs=1e-8)
    assert found.beaten == (found.lower > 0.0)


@given(st.integers(0, 2**32))
def test_the_same_answers_under_more_seeds_are_no_more_evidence(seed: int) -> None:
    rng = np.random.default_rng(seed)
    on, off = bits(rng, 0.6, 120), bits(rng, 0.5, 120)
    once: Runs = {("0", 1): (off,), ("1", 1): (on,)}
    often: Runs = {(arm, s): once[arm, 1] for arm in "01" for s in range(1, 9)}
    (single,), (many,) = attribution(charter(), once), attribution(charter(seeds=tuple(range(1, 9))), often)
    assert (single.difference, single.lower, single.upper) == (many.difference, many.lower, many.upper)


def test_a_factor_that_does_nothing_is_shown_in_few_studies_whatever_the_seeds_share() -> None:
    rng = np.random.default_rng(1)
    found, studies, seeds = 0, 400, (1, 2, 3)
    for _ in range(studies):
        known = rng.random(200) < 0.6
        runs: Runs = {}
        for arm in "01":
            for seed in seeds:
                flipped = known ^ (rng.random(200) < 0.1)
                runs[arm, seed] = ("".join("1" if hit else "0" for hit in flipped),)
        found += attribution(charter(seeds=seeds), runs)[0].shown
    # Binomial(400, .05) stays below 32 with probability .997.
    assert found <= 31


def test_a_real_effect_is_shown() -> None:
    rng = np.random.default_rng(2)
    off = bits(rng, 0.5, 500)
    on = "".join("1" if bit == "1" or gain else "0" for bit, gain in zip(off, rng.random(500) < 0.2, strict=True))
    (effect,) = attribution(charter(), {("0", 1): (off,), ("1", 1): (on,)})
    assert effect.shown and 0.05 < effect.lower < effect.difference < effect.upper


def test_factors_share_the_error_rate() -> None:
    rng = np.random.default_rng(3)
    on, off = bits(rng, 0.6, 200), bits(rng, 0.5, 200)
    (alone,) = attribution(charter(), {("0", 1): (off,), ("1", 1): (on,)})
    both: Runs = {("00", 1): (off,), ("01", 1): (off,), ("10", 1): (on,), ("11", 1): (on,)}
    first, _ = attribution(charter(("keep", "scales")), both)
    assert first.difference == alone.difference and first.lower < alone.lower


def test_a_search_is_compared_seed_by_seed() -> None:
    runs: Runs = {("1", 1): ("1100",), ("1", 2): ("0011",)}
    same = Rival("random-search", None, {1: ("1100",), 2: ("0011",)}, 0.0)
    other = Rival("random-search", None, {1: ("0011",), 2: ("1100",)}, 0.0)
    asked = charter(seeds=(1, 2))
    widths = [c.upper - c.lower for c in (contrast(asked, runs, same), contrast(asked, runs, other))]
    assert widths[0] < widths[1]


def test_scores_and_outcomes_weigh_suites_and_seeds_alike() -> None:
    assert score(("1111", "0" * 40)) == 0.5
    found = outcome(charter(seeds=(1, 2)), {("1", 1): ("1111",), ("1", 2): ("0000",)}, "1")
    assert math.isclose(found.score, 0.5) and found.lower < 0.5 < found.upper


def test_a_suite_without_answers_gives_no_result() -> None:
    with pytest.raises(OutOfOrder) as caught:
        bits_of((), (NONE,), "arm 1")
    assert caught.value.reason == "experiment.no-data" and caught.value.where == "arm 1" and caught.value.advice
