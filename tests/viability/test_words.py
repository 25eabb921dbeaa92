from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studbook.viability.words import brier, counted, p_value, percent, points, settle, told_apart


def test_shares_are_told_in_percent_and_differences_in_points_with_a_sign() -> None:
    assert (percent(0.7124), points(-0.33), points(0.003)) == ("71.2 %", "-33.0 pp", "+0.3 pp")


def test_no_number_is_a_negative_zero() -> None:
    assert (points(-1e-9), brier(-1e-9), math.copysign(1, settle(-1e-12))) == ("+0.0 pp", "0.000", 1.0)


@pytest.mark.parametrize(
    ("value", "threshold", "words"),
    [
        (-0.33, -0.02, ("-33.0 pp", "-2.0 pp")),
        (0.00501, 0.005, ("+0.501 pp", "+0.500 pp")),
        (0.005, 0.005, ("+0.50000 pp", "+0.50000 pp")),
    ],
)
def test_two_numbers_get_as_many_digits_as_it_takes_to_tell_them_apart(
    value: float, threshold: float, words: tuple[str, str]
) -> None:
    assert told_apart(value, threshold) == words


def test_p_values_are_told_with_two_digits() -> None:
    assert (p_value(0.4123), p_value(0.00004), p_value(1.0)) == ("p = 0.41", "p < 0.0001", "p = 1")


def test_counting_knows_the_singular() -> None:
    assert (counted(1, "finalist"), counted(0, "finalist"), counted(3, "finalist")) == (
        "1 finalist",
        "0 finalists",
        "3 finalists",
    )


@given(st.floats(-1, 1))
def test_settling_twice_changes_nothing_and_noise_in_the_last_bits_is_gone(value: float) -> None:
    assert settle(settle(value)) == settle(value)
    assert abs(settle(value) - value) <= 5.1e-10
