"""Sine, cosine and arc cosine in f64 from + - * / and sqrt alone, so that their last bit does not depend on a libm.

IEEE 754 defines those five operations to the bit; it only recommends the others, and C libraries differ in them. Angles
are reduced by a multiple of pi/2 held in two parts (Cody & Waite, Software Manual for the Elementary Functions, 1980,
chapter 8), then summed as Taylor polynomials by Horner's rule. The arc sine is Newton's iteration on the sine from four
terms of its series. Every result is within 1e-14 of the true value.
"""

from __future__ import annotations

import math

from studbook.errors import UsageError

__all__ = ["LARGEST_ANGLE", "acos", "cos", "sin"]

LARGEST_ANGLE = 1000.0

_HALF_PI = 1.5707963267948966
# pi/2 in two parts of 33 bits, so that a multiple below 2^20 of each is exact; 2e-21 of it is left out.
_PARTS = (1.5707963267341256, 6.077100506303966e-11)
# Coefficients of x^(2k) of sin(x)/x and cos(x), highest first; the first one left out adds below 1e-19 up to pi/4.
_SINE = tuple((-1) ** k / math.factorial(2 * k + 1) for k in range(8, -1, -1))
_COSINE = tuple((-1) ** k / math.factorial(2 * k) for k in range(9, -1, -1))


def sin(angle: float) -> float:
    """Sine of an angle in radians.

    Raises:
        UsageError: if |angle| is above 1000, or is not a number.
    """
    quarter, rest = _reduced(angle)
    value = _cosine(rest) if quarter % 2 else _sine(rest)
    return -value if quarter % 4 >= 2 else value


def cos(angle: float) -> float:
    """Cosine of an angle in radians.

    Raises:
        UsageError: if |angle| is above 1000, or is not a number.
    """
    quarter, rest = _reduced(angle)
    value = _sine(rest) if quarter % 2 else _cosine(rest)
    return -value if quarter % 4 in (1, 2) else value


def acos(cosine: float) -> float:
    """The angle in [0, pi], in radians, that has this cosine.

    Raises:
        UsageError: if the cosine is outside -1..1, or is not a number.
    """
    if not -1.0 <= cosine <= 1.0:
        raise UsageError(f"no angle has the cosine {cosine!r}", reason="trigonometry.range")
    if cosine > 0.5:
        return 2.0 * _arc_sine(math.sqrt((1.0 - cosine) / 2.0))
    if cosine < -0.5:
        return 2.0 * (_HALF_PI - _arc_sine(math.sqrt((1.0 + cosine) / 2.0)))
    return _HALF_PI - _arc_sine(cosine)


def _reduced(angle: float) -> tuple[int, float]:
    """Which quarter turn is nearest, and what is left of the angle, within about pi/4 of zero."""
    if not abs(angle) <= LARGEST_ANGLE:
        raise UsageError(
            f"an angle lies within {LARGEST_ANGLE:g} of zero, not at {angle!r}", reason="trigonometry.range"
        )
    quarter = round(angle / _HALF_PI)
    rest = angle
    for part in _PARTS:
        rest = rest - quarter * part
    return quarter, rest


def _sine(angle: float) -> float:
    return angle * _horner(_SINE, angle * angle)


def _cosine(angle: float) -> float:
    return _horner(_COSINE, angle * angle)


def _arc_sine(sine: float) -> float:
    # |sine| <= 1/2. The start is good to 1e-4; each step squares the error, the third only rounds.
    square = sine * sine
    angle = sine * (1.0 + square * (1.0 / 6.0 + square * (3.0 / 40.0 + square * (5.0 / 112.0))))
    for _ in range(3):
        angle = angle - (_sine(angle) - sine) / _cosine(angle)
    return angle


def _horner(coefficients: tuple[float, ...], x: float) -> float:
    result = 0.0
    for coefficient in coefficients:
        result = result * x + coefficient
    return result
