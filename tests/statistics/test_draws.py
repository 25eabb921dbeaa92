from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from studbook.errors import UsageError
from studbook.statistics import Draws


def test_a_seed_gives_the_same_numbers_for_good() -> None:
    assert Draws(7).uniform(3).tolist() == [0.8720734548204874, 0.2953653815137836, 0.4200976785072423]
    assert Draws(7).below(1000, 5).tolist() == [872, 295, 420, 405, 82]


@given(st.integers(0, (1 << 64) - 1), st.integers(1, 40), st.integers(1, 40))
def test_a_stream_drawn_in_pieces_is_the_same_stream(seed: int, first: int, second: int) -> None:
    pieces = Draws(seed)
    joined = np.concatenate([pieces.uniform(first), pieces.uniform(second)])
    assert joined.tolist() == Draws(seed).uniform(first + second).tolist()


def test_uniforms_are_uniform_and_never_an_end() -> None:
    drawn = Draws(1).uniform(20_000)
    assert drawn.min() > 0 and drawn.max() < 1
    assert stats.kstest(drawn, "uniform").pvalue > 0.01


def test_laplace_variates_follow_scipys_distribution() -> None:
    assert stats.kstest(Draws(2).laplace(20_000), "laplace").pvalue > 0.01


@given(st.integers(0, 1000), st.integers(1, 1 << 32))
def test_whole_numbers_stay_below_the_limit(seed: int, limit: int) -> None:
    drawn = Draws(seed).below(limit, 50)
    assert drawn.min() >= 0 and drawn.max() < limit


def test_every_whole_number_is_as_likely() -> None:
    assert stats.chisquare(np.bincount(Draws(3).below(7, 70_000), minlength=7)).pvalue > 0.01


@pytest.mark.parametrize("seed", [-1, 1 << 64])
def test_what_is_no_seed_is_refused(seed: int) -> None:
    with pytest.raises(UsageError):
        Draws(seed)
