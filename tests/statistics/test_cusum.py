from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studbook.errors import UsageError
from studbook.statistics import first_alarm, upper_sums

values = st.lists(st.integers(-50, 50).map(float), max_size=40)


@given(values, st.integers(-5, 5), st.integers(0, 3))
def test_the_sum_is_the_worst_stretch_that_ends_here(series: list[float], target: int, slack: int) -> None:
    excess = [value - target - slack for value in series]
    expected = [max(0.0, *(sum(excess[start : end + 1]) for start in range(end + 1))) for end in range(len(series))]
    assert upper_sums(series, target, slack) == pytest.approx(expected)


@given(values, st.integers(0, 3))
def test_more_slack_never_raises_an_alarm_sooner(series: list[float], slack: int) -> None:
    strict, loose = upper_sums(series, 0.0, slack), upper_sums(series, 0.0, slack + 1)
    assert all(a >= b for a, b in zip(strict, loose, strict=True))


def test_a_textbook_shift_is_noticed_where_the_book_notices_it() -> None:
    # Mean 10, half a shift of 1: the series rises to 11 from the fifth value on; sums 0, 0, .1, 0, .9, 1.1, 1.8, 2.5.
    series = [9.5, 10.2, 10.6, 9.8, 11.4, 10.7, 11.2, 11.2]
    sums = upper_sums(series, 10.0, 0.5)
    assert sums == pytest.approx((0, 0, 0.1, 0, 0.9, 1.1, 1.8, 2.5))
    assert first_alarm(sums, 1.5) == 6
    assert first_alarm(sums, 2.5 + 1e-9) is None


@pytest.mark.parametrize(
    "told", [([float("nan")], 0.0, 0.0), ([1.0], float("inf"), 0.0), ([1.0], 0.0, -1.0), ([float("inf")], 0.0, 0.0)]
)
def test_what_cannot_be_summed_is_refused(told: tuple[list[float], float, float]) -> None:
    with pytest.raises(UsageError):
        upper_sums(*told)
