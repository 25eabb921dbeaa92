"""Angles against their series summed in 60 decimal digits."""

from __future__ import annotations

import ast
import inspect
import math
from decimal import Decimal, localcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studbook.errors import UsageError
from studbook.tensors import trigonometry
from studbook.tensors.trigonometry import LARGEST_ANGLE, acos, cos, sin

DIGITS = 60
WITHIN = Decimal("1e-14")
angles = st.floats(-LARGEST_ANGLE, LARGEST_ANGLE) | st.floats(-4.0, 4.0)
# The f64 next to every multiple of a quarter turn: there the reduction loses most.
corners = st.integers(-636, 636).map(lambda k: k * (math.pi / 2))
slow = settings(deadline=None, max_examples=150)


def series(x: Decimal, first: int) -> Decimal:
    """Sum of (-1)^j x^(first + 2 j) / (first + 2 j)!: the sine from 1, the cosine from 0."""
    term = x**first if first else Decimal(1)
    total, power = term, first
    while abs(term) > Decimal(10) ** -DIGITS:
        power += 2
        term = -term * x * x / (power * (power - 1))
        total += term
    return total


def pi() -> Decimal:
    """Machin's formula."""

    def arc_tangent(inverse: int) -> Decimal:
        total, term, k = Decimal(0), Decimal(1) / inverse, 0
        while abs(term) > Decimal(10) ** -(DIGITS + 5):
            total += term / (2 * k + 1)
            term, k = -term / (inverse * inverse), k + 1
        return total

    return 4 * (4 * arc_tangent(5) - arc_tangent(239))


def turned(angle: float) -> Decimal:
    """The angle within a half turn of zero."""
    whole = 2 * pi()
    return Decimal(angle) - whole * (Decimal(angle) / whole).to_integral_value()


def arc_cosine(cosine: float) -> Decimal:
    """By bisection: the cosine falls from 0 to pi."""
    low, high, wanted = Decimal(0), pi(), Decimal(cosine)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if series(middle, 0) > wanted else (low, middle)
    return low


@slow
@given(angles | corners)
def test_sine_and_cosine_are_within_1e_14(angle):
    with localcontext() as context:
        context.prec = DIGITS + 10
        assert abs(Decimal(sin(angle)) - series(turned(angle), 1)) < WITHIN
        assert abs(Decimal(cos(angle)) - series(turned(angle), 0)) < WITHIN


@settings(deadline=None, max_examples=40)
@given(st.floats(-1.0, 1.0) | st.sampled_from([1.0, -1.0, 0.0, 0.5, -0.5, math.nextafter(1, 0), 0.9995, -0.9995]))
def test_arc_cosine_is_within_1e_14(cosine):
    with localcontext() as context:
        context.prec = DIGITS + 10
        assert abs(Decimal(acos(cosine)) - arc_cosine(cosine)) < WITHIN


def test_known_angles():
    assert (sin(0.0), cos(0.0), acos(1.0)) == (0.0, 1.0, 0.0)
    assert acos(-1.0) == math.pi
    assert acos(0.0) == math.pi / 2
    assert sin(math.pi / 2) == 1.0
    assert abs(sin(math.pi / 6) - 0.5) < 1e-15
    assert abs(acos(0.5) - math.pi / 3) < 1e-15


@slow
@given(st.floats(-100.0, 100.0))
def test_sine_is_odd_cosine_even_and_their_squares_sum_to_one(angle):
    assert sin(-angle) == -sin(angle)
    assert cos(-angle) == cos(angle)
    assert abs(sin(angle) ** 2 + cos(angle) ** 2 - 1.0) < 1e-15


@slow
@given(st.floats(0.0, math.pi))
def test_the_arc_cosine_undoes_the_cosine(angle):
    # Near 0 and pi the cosine is flat: an error of its last bit moves the angle by the root of it.
    assert abs(acos(cos(angle)) - angle) < (2e-15 if 0.5 < angle < 2.6 else 4e-8)


@pytest.mark.parametrize("angle", [math.nan, math.inf, -math.inf, 1000.5, -1e300])
def test_an_angle_too_far_from_zero_is_refused(angle):
    for function in (sin, cos):
        with pytest.raises(UsageError) as caught:
            function(angle)
        assert caught.value.reason == "trigonometry.range"


@pytest.mark.parametrize("cosine", [math.nan, 1.0000001, -2.0, math.inf])
def test_a_cosine_that_no_angle_has_is_refused(cosine):
    with pytest.raises(UsageError) as caught:
        acos(cosine)
    assert caught.value.reason == "trigonometry.range"


def test_nothing_but_the_square_root_comes_from_the_maths_library():
    tree = ast.parse(inspect.getsource(trigonometry))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    # The factorial is an integer function: it only spells the coefficients.
    assert used <= {"sqrt", "factorial"}


def test_the_bits_are_these_on_every_machine():
    shown = [function(x).hex() for function, x in ((sin, 0.7), (cos, 2.5), (sin, 3.1), (acos, 0.25), (acos, -0.99))]
    assert shown == [
        "0x1.49d6e694619b8p-1",
        "-0x1.9a2f7ef858b7dp-1",
        "0x1.54a0f8298102ep-5",
        "0x1.51700e0c14b25p+0",
        "0x1.8001be1bc011bp+1",
    ]
