from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from studbook.errors import UsageError
from studbook.statistics import Draws


def test_a_seed_gives_the_words_of_the_standard() -> None:
    block = hashlib.shake_256(b"studbook/draws/1\0" + (7).to_bytes(8, "little") + bytes(8)).digest(40)
    words = [int.from_bytes(block[4 * i : 4 * i + 4], "little") for i in range(10)]
    assert Draws(7).below(1 << 32, 10) == words
    assert Draws(7).below(1000, 10) == [word * 1000 >> 32 for word in words]
    assert Draws(7).uniform(10) == [(word + 0.5) / 2**32 for word in words]


@given(st.integers(0, (1 << 64) - 1), st.integers(1, 20_000), st.integers(1, 20_000))
@settings(max_examples=20, deadline=None)
def test_a_stream_drawn_in_pieces_is_the_same_stream(seed: int, first: int, second: int) -> None:
    pieces = Draws(seed)
    assert pieces.uniform(first) + pieces.uniform(second) == Draws(seed).uniform(first + second)


def test_no_two_blocks_repeat() -> None:
    drawn = Draws(7).below(1 << 32, 3 << 14)
    assert drawn[:10] != drawn[1 << 14 : (1 << 14) + 10] != drawn[2 << 14 : (2 << 14) + 10]


def test_uniforms_are_uniform_and_never_an_end() -> None:
    drawn = Draws(1).uniform(20_000)
    assert min(drawn) > 0 and max(drawn) < 1
    assert stats.kstest(drawn, "uniform").pvalue > 0.01


def test_laplace_variates_follow_scipys_distribution() -> None:
    draws = Draws(2)
    assert stats.kstest([draws.laplace() for _ in range(10_000)], "laplace").pvalue > 0.01


@given(st.integers(0, 1000), st.integers(1, 1 << 32))
def test_whole_numbers_stay_below_the_limit(seed: int, limit: int) -> None:
    assert all(0 <= drawn < limit for drawn in Draws(seed).below(limit, 50))


def test_every_whole_number_is_as_likely() -> None:
    assert stats.chisquare(np.bincount(Draws(3).below(7, 70_000), minlength=7)).pvalue > 0.01


@pytest.mark.parametrize("seed", [-1, 1 << 64])
def test_what_is_no_seed_is_refused(seed: int) -> None:
    with pytest.raises(UsageError):
        Draws(seed)
