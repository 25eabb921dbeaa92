from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studbook.errors import UsageError
from studbook.models.sampling import GREEDY, Sampler, Sampling, XorShift64, greedy

logit_lists = st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=12)


def shifted(state: int) -> int:
    """One step on a list of 64 bits, highest first."""
    bits = [state >> (63 - i) & 1 for i in range(64)]
    bits = [a ^ b for a, b in zip(bits, bits[13:] + [0] * 13, strict=True)]
    bits = [a ^ b for a, b in zip(bits, [0] * 7 + bits[:-7], strict=True)]
    bits = [a ^ b for a, b in zip(bits, bits[17:] + [0] * 17, strict=True)]
    return int("".join(map(str, bits)), 2)


@given(st.integers(1, 2**64 - 1))
def test_generator_steps_as_defined(seed: int) -> None:
    generator = XorShift64(seed)
    first = generator.step()
    assert first == shifted(seed)
    assert generator.step() == shifted(first)


def test_generator_gives_the_known_first_state_of_seed_one() -> None:
    # 1 -> 0x2001 -> 0x2041 (0x2001 >> 7 is 0x40) -> 0x2041 ^ 0x2041 << 17
    assert XorShift64(1).step() == 0x40822041


def test_a_zero_seed_becomes_one() -> None:
    assert XorShift64(0).step() == XorShift64(1).step()


@given(st.integers(0, 2**64 - 1))
def test_a_draw_is_the_top_53_bits(seed: int) -> None:
    draw = XorShift64(seed).draw()
    assert 0 <= draw < 1
    assert draw * 2**53 == XorShift64(seed).step() >> 11


def test_defaults_are_greedy() -> None:
    assert Sampling() == GREEDY == Sampling(0.0, 1, 1.0, 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1), ("temperature", float("nan")), ("temperature", float("inf")), ("top_k", 0),
        ("top_k", 1025), ("top_p", 0.0), ("top_p", 1.01), ("top_p", float("nan")), ("seed", -1), ("seed", 2**64),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(UsageError) as refused:
        Sampling(**{field: value})  # type: ignore[arg-type]
    assert refused.value.reason == f"sampling.{field}"


def test_greedy_ties_go_to_the_lowest_id_and_nan_loses() -> None:
    assert greedy(np.array([[1.0, 3.0, 3.0], [np.nan, -np.inf, -5.0], [np.nan] * 3])).tolist() == [1, 2, 0]


def slow_pick(logits: list[float], sampling: Sampling, draw: float) -> int:
    """The definition, in plain Python."""
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))[: sampling.top_k]
    weights = [float(np.exp((logits[i] - logits[order[0]]) / sampling.temperature)) for i in order]
    total = sum(weights)
    kept, mass = [], 0.0
    for index, weight in zip(order, weights, strict=True):
        kept.append((index, weight / total))
        mass += weight / total
        if mass >= sampling.top_p:
            break
    threshold, seen = draw * mass, 0.0
    for index, share in kept:
        seen += share
        if seen > threshold:
            return index
    return kept[-1][0]


@settings(deadline=None, max_examples=300)
@given(logit_lists, st.floats(0.25, 4), st.integers(1, 12), st.floats(0.05, 0.99), st.integers(0, 2**64 - 1))
def test_a_draw_follows_the_definition(
    logits: list[float], temperature: float, top_k: int, top_p: float, seed: int
) -> None:
    sampling = Sampling(temperature, top_k, top_p, seed)
    expected = slow_pick(logits, sampling, XorShift64(seed).draw())
    assert Sampler(sampling).pick(np.array(logits, dtype=np.float64)) == expected


def test_shares_of_many_draws_are_those_of_the_softmax() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05]))
    sampler = Sampler(Sampling(1.0, 4, 1.0, 12345))
    counts = np.bincount([sampler.pick(logits) for _ in range(4000)], minlength=4) / 4000
    assert np.abs(counts - [0.5, 0.3, 0.15, 0.05]).max() < 0.03


def test_top_k_and_top_p_cut_the_tail() -> None:
    logits = np.log(np.array([0.1, 0.5, 0.1, 0.3]))
    for sampling in (Sampling(1.0, 2, 1.0, 9), Sampling(1.0, 4, 0.75, 9)):
        sampler = Sampler(sampling)
        assert {sampler.pick(logits) for _ in range(200)} == {1, 3}


@pytest.mark.parametrize(
    "logits", [[np.nan, 2.0, 2.0], [np.inf, 2.0, 2.0], [-np.inf, -np.inf, -np.inf], [np.nan, np.nan, np.nan]]
)
def test_a_broken_mass_falls_back_to_greedy(logits: list[float]) -> None:
    values = np.array(logits)
    assert Sampler(Sampling(1.0, 3, 1.0, 7)).pick(values) == greedy(values)


def test_a_temperature_near_zero_does_not_overflow() -> None:
    assert Sampler(Sampling(1e-300, 1024, 1.0, 7)).pick(np.array([1.0, 5.0, 2.0])) == 1
