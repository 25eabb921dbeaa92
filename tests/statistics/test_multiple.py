from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from studbook.errors import UsageError
from studbook.statistics import benjamini_hochberg, holm

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


@given(p_lists)
def test_benjamini_hochberg_equals_scipys(p_values: list[float]) -> None:
    expected = stats.false_discovery_control(p_values, method="bh")
    assert benjamini_hochberg(p_values) == pytest.approx(tuple(expected), rel=1e-12)


@given(p_lists)
def test_benjamini_hochberg_is_never_stricter_than_holm(p_values: list[float]) -> None:
    for p, loose, strict in zip(p_values, benjamini_hochberg(p_values), holm(p_values), strict=True):
        assert p - 1e-15 <= loose <= strict + 1e-15


def test_benjamini_hochberg_of_nothing_is_nothing() -> None:
    assert benjamini_hochberg([]) == ()


@pytest.mark.parametrize("p", [float("nan"), -0.1, 1.1])
@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_what_is_no_p_value_is_refused(adjust: object, p: float) -> None:
    with pytest.raises(UsageError):
        adjust([0.5, p])  # type: ignore[operator]
