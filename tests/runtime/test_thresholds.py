import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from authority_fixtures import HEADER
from studbook.errors import UsageError
from studbook.runtime.routing.thresholds import (
    confidence,
    confidence_threshold,
    isotonic,
    margin_threshold,
    rows_sha256,
    supersedes,
)

SHA = "a" * 64
rows = st.lists(st.tuples(st.floats(-5, 0), st.booleans()), min_size=1, max_size=40)


def test_the_curve_pools_what_falls():
    points = isotonic([-4, -3, -2, -1], [False, True, False, True])
    assert [(p.score, p.share) for p in points] == [(-4, 0.0), (-3, 0.5), (-1, 1.0)]


@settings(max_examples=100, deadline=None)
@given(rows)
def test_the_curve_never_falls_and_keeps_the_mean_and_no_step_curve_is_nearer(pairs):
    scores, right = zip(*pairs, strict=True)
    points = isotonic(scores, right)
    shares = [p.share for p in points]
    assert shares == sorted(shares)
    threshold = confidence_threshold(HEADER, scores, right, 0.5, engine=SHA, model=SHA)
    fitted = [confidence(threshold, s) for s in scores]
    assert math.fsum(fitted) == pytest.approx(sum(right))
    error = sum((f - r) ** 2 for f, r in zip(fitted, right, strict=True))
    # Any constant, and any single step, is a curve that never falls.
    for cut in (*sorted(scores), math.inf):
        low = [r for s, r in pairs if s < cut]
        high = [r for s, r in pairs if s >= cut]
        means = [sum(part) / len(part) if part else 0.0 for part in (low, high)]
        if means[0] <= means[1] or not low or not high:
            other = sum((means[s >= cut] - r) ** 2 for s, r in pairs)
            assert error <= other + 1e-9


def test_below_the_first_corner_and_without_a_score_nothing_is_sure():
    threshold = confidence_threshold(HEADER, [-1.0, -0.5], [True, True], 0.9, engine=SHA, model=SHA)
    assert [confidence(threshold, s) for s in (-2.0, None, math.nan, -1.0, 0.0)] == [0, 0, 0, 1, 1]


def test_a_margin_is_the_smallest_from_which_on_enough_are_right():
    margins, right = [0.1, 0.2, 0.3, 0.4, 0.5], [False, False, True, False, True]
    assert margin_threshold(HEADER, margins, right, 1.0, encoder=SHA).value == 0.5
    assert margin_threshold(HEADER, margins, right, 0.6, encoder=SHA).value == 0.3
    assert margin_threshold(HEADER, margins, right, 0.4, encoder=SHA).value == 0.1
    assert margin_threshold(HEADER, margins, [False] * 5, 0.5, encoder=SHA).value > 0.5


def test_margins_that_are_equal_count_together():
    assert margin_threshold(HEADER, [0.5, 0.5, 0.7], [False, True, True], 1.0, encoder=SHA).value == 0.7


def test_a_threshold_measured_again_moves_nothing_within_the_band():
    old = margin_threshold(HEADER, [0.4], [True], 0.5, encoder=SHA)
    assert not supersedes(old, replace(old, value=0.45))
    assert supersedes(old, replace(old, value=0.6))
    assert supersedes(old, replace(old, encoder="b" * 64))


def test_a_calibration_set_has_a_digest_whatever_its_order_and_must_hold_something():
    assert rows_sha256([1.0, 2.0], [True, False]) == rows_sha256([2.0, 1.0], [False, True])
    for scores, right in (([], []), ([1.0], [])):
        with pytest.raises(UsageError):
            rows_sha256(scores, right)
    with pytest.raises(UsageError):
        isotonic([math.nan], [True])
