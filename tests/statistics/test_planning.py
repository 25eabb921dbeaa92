from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studbook.errors import UsageError
from studbook.statistics import holm, minimum_detectable, required_items

p_lists = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def rejected_step_by_step(p_values: list[float], alpha: float) -> set[int]:
    """Holm's own wording: go up from the smallest and stop at the first that fails alpha / remaining."""
    out: set[int] = set()
    for i in sorted(range(len(p_values)), key=lambda j: p_values[j]):
        if p_values[i] * (len(p_values) - len(out)) > alpha:
            break
        out.add(i)
    return out


@given(p_lists, st.sampled_from([0.01, 0.05, 0.2]))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float], alpha: float) -> None:
    adjusted = holm(p_values)
    assert {i for i, p in enumerate(adjusted) if p <= alpha} == rejected_step_by_step(p_values, alpha)


@given(p_lists)
def test_holm_never_makes_a_p_value_smaller_nor_larger_than_bonferronis(p_values: list[float]) -> None:
    for p, adjusted in zip(p_values, holm(p_values), strict=True):
        assert p <= adjusted <= min(1.0, len(p_values) * p)


@given(p_lists, st.floats(0, 1))
def test_one_more_question_never_makes_an_answer_easier(p_values: list[float], extra: float) -> None:
    alone, together = holm(p_values), holm([*p_values, extra])
    assert all(a <= b for a, b in zip(alone, together, strict=False))


def test_a_published_example_of_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))


def test_holm_of_nothing_is_nothing() -> None:
    assert holm([]) == ()


@pytest.mark.parametrize("p", [float("nan"), -0.1, 1.1])
def test_holm_refuses_what_is_no_p_value(p: float) -> None:
    with pytest.raises(UsageError):
        holm([0.5, p])


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
        lambda: required_items(0.01, 1.1),
        lambda: required_items(0.01, 0.1, 0.5, 0.4),
        lambda: minimum_detectable(0, 0.1),
    ],
)
def test_plans_that_make_no_sense_are_refused(call: object) -> None:
    with pytest.raises(UsageError):
        call()  # type: ignore[operator]
