"""The statistics of decisions: pure functions over counts and differences, each with its formula and source.

Read in this order: `binomial` (exact tails and the intervals built on them), `paired` (candidate against somebody else
on the same items), `multiple` (several questions at once), `planning` and `power` (how many items an answer needs and
what a round can find), `bootstrap` and `ece` (figures without a formula for their spread), `ladder` (what may be learnt
from items that judge; `thresholdout` to compare with), `eprocess` and `cusum` (looking after every request).

Everything is one-sided: a bound at ``alpha`` is on the wrong side of the truth in at most a share ``alpha`` of rounds.
Accuracies and differences are shares of items (0.01 is one percentage point). What is drawn is drawn from a seed and is
the same everywhere.
"""

from __future__ import annotations

from studbook.statistics.binomial import (
    Interval,
    clopper_pearson,
    log_upper_tail,
    mcnemar,
    normal_quantile,
    upper_tail,
    wilson,
    zero_failure_bound,
)
from studbook.statistics.bootstrap import bootstrap_bounds, mean_of, quantile
from studbook.statistics.cusum import first_alarm, next_sum, upper_sums
from studbook.statistics.draws import Draws
from studbook.statistics.ece import calibration_error, calibration_null_band
from studbook.statistics.eprocess import (
    Betting,
    Watch,
    average,
    log_mcnemar_e,
    log_non_inferiority_e,
    log_rate_e,
    log_shifting_e,
    log_two_sample_e,
    reached,
)
from studbook.statistics.ladder import Ladder, climb
from studbook.statistics.multiple import benjamini_hochberg, holm
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
from studbook.statistics.planning import minimum_detectable, required_items
from studbook.statistics.power import finalist_power, mcnemar_detectable, mcnemar_power, screening_power
from studbook.statistics.thresholdout import Thresholdout

__all__ = [
    "EXACT_BELOW",
    "Betting",
    "Draws",
    "Estimate",
    "Interval",
    "Ladder",
    "Paired",
    "Thresholdout",
    "Watch",
    "average",
    "benjamini_hochberg",
    "bootstrap_bounds",
    "calibration_error",
    "calibration_null_band",
    "climb",
    "clopper_pearson",
    "clustered_bounds",
    "finalist_power",
    "first_alarm",
    "holm",
    "log_mcnemar_e",
    "log_non_inferiority_e",
    "log_rate_e",
    "log_shifting_e",
    "log_two_sample_e",
    "log_upper_tail",
    "mcnemar",
    "mcnemar_detectable",
    "mcnemar_power",
    "mean_bounds",
    "mean_of",
    "minimum_detectable",
    "next_sum",
    "normal_quantile",
    "paired_bounds",
    "paired_counts",
    "quantile",
    "reached",
    "required_items",
    "screening_power",
    "stratified_bounds",
    "unpaired_bounds",
    "upper_sums",
    "upper_tail",
    "wilson",
    "zero_failure_bound",
]
