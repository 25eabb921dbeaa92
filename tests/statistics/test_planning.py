from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studbook.errors import UsageError
from studbook.statistics import minimum_detectable, required_items


def test_one_percentage_point_at_ten_percent_disagreement_needs_6183_items() -> None:
    assert required_items(0.01, 0.10) == 6183


@given(st.floats(0.01, 0.5), st.floats(0.01, 1.0), st.floats(0.55, 0.95))
def test_the_required_number_of_items_can_detect_the_effect_and_one_less_cannot(
    effect: float, disagreement: float, power: float
) -> None:
    items = required_items(effect, disagreement, 0.05, power)
    assert minimum_detectable(items, disagreement, 0.05, power) <= effect + 1e-9
    if items > 1:
        assert minimum_detectable(items - 1, disagreement, 0.05, power) >= min(1.0, effect) - 1e-9


@pytest.mark.parametrize(
    "call",
    [
        lambda: required_items(0.0, 0.1),
        lambda: required_items(float("nan"), 0.1),
        lambda: required_items(1e-200, 0.1),
        lambda: required_items(1e-160, 0.1),
        lambda: required_items(0.01, 1.1),
        lambda: required_items(0.01, 0.1, 0.5, 0.4),
        lambda: minimum_detectable(0, 0.1),
    ],
)
def test_plans_that_make_no_sense_are_refused(call: object) -> None:
    with pytest.raises(UsageError):
        call()  # type: ignore[operator]
