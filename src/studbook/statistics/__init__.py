"""The statistics of paired decisions: pure functions over counts and differences, each with its formula and source.

Read in this order: `binomial` (exact tails and the intervals built on them), `paired` (candidate against somebody else
on the same items), `planning` (how many items an answer needs, and what several questions at once cost).

Everything is one-sided: a bound at ``alpha`` is on the wrong side of the truth in at most a share ``alpha`` of rounds.
Accuracies and differences are shares of items (0.01 is one percentage point).
"""

from __future__ import annotations

from studbook.statistics.binomial import (
    Interval,
    clopper_pearson,
    mcnemar,
    normal_quantile,
    upper_tail,
    wilson,
    zero_failure_bound,
)
from studbook.statistics.paired import (
    EXACT_BELOW,
    Estimate,
    Paired,
    clustered_bounds,
    mean_bounds,
    paired_bounds,
    paired_counts,
    stratified_bounds,
    unpaired_bounds,
)
from studbook.statistics.planning import holm, minimum_detectable, required_items

__all__ = [
    "EXACT_BELOW",
    "Estimate",
    "Interval",
    "Paired",
    "clopper_pearson",
    "clustered_bounds",
    "holm",
    "mcnemar",
    "mean_bounds",
    "minimum_detectable",
    "normal_quantile",
    "paired_bounds",
    "paired_counts",
    "required_items",
    "stratified_bounds",
    "unpaired_bounds",
    "upper_tail",
    "wilson",
    "zero_failure_bound",
]
