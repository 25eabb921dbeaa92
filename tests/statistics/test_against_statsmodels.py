from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studbook.statistics import benjamini_hochberg, clustered_bounds, holm, mcnemar, normal_quantile, wilson

pytestmark = pytest.mark.train
linear = pytest.importorskip("statsmodels.regression.linear_model")
multitest = pytest.importorskip("statsmodels.stats.multitest")
tables = pytest.importorskip("statsmodels.stats.contingency_tables")
proportion = pytest.importorskip("statsmodels.stats.proportion")

p_lists = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@settings(deadline=None)
@given(p_lists)
def test_adjusted_p_values_equal_those_of_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(tuple(multitest.multipletests(p_values, method="holm")[1]))
    assert benjamini_hochberg(p_values) == pytest.approx(tuple(multitest.multipletests(p_values, method="fdr_bh")[1]))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 12))
def test_clustered_bounds_equal_a_regression_on_a_constant(seed: int, groups: int) -> None:
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(groups), random.integers(0, groups, size=40)])
    values = random.normal(size=len(labels)) + labels
    fit = linear.OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": labels})
    got = clustered_bounds(values.tolist(), labels.tolist(), 0.05)
    assert got.value == pytest.approx(fit.params[0])
    assert got.upper - got.value == pytest.approx(normal_quantile(0.95) * fit.bse[0])


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(0, 200))
def test_the_larger_half_of_the_exact_test_is_that_of_statsmodels(wins: int, losses: int) -> None:
    both = tables.mcnemar([[0, wins], [losses, 0]], exact=True).pvalue if wins + losses else 1.0
    assert min(1.0, 2 * min(mcnemar(wins, losses), mcnemar(losses, wins))) == pytest.approx(both, rel=1e-9)


@settings(deadline=None)
@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_bounds_equal_those_of_statsmodels(count: tuple[int, int]) -> None:
    expected = proportion.proportion_confint(*count, alpha=0.1, method="wilson")
    assert wilson(*count, 0.05) == pytest.approx(tuple(map(float, expected)), abs=1e-9)
