from __future__ import annotations

from itertools import chain, combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from studbook.runtime import victims
from studbook.runtime.victims import Candidate, choose

LIMITS = ("active", "host.weights", "device.kv")


def alone(name: str, used: int, **gains: int) -> Candidate:
    return Candidate(name, gains, sum(gains.values()), used, frozenset({name}))


@st.composite
def crowds(draw: st.DrawFn) -> tuple[list[Candidate], dict[str, int]]:
    """Candidates some of which fall with others, and what is short."""
    names = [f"m{i}" for i in range(draw(st.integers(0, 6)))]
    needs = {name: draw(st.sampled_from([None, *names[:i]])) for i, name in enumerate(names)}
    found = []
    for name in names:
        falls = {name}
        for other in names:  # whoever needs one of them comes later in the list
            if needs[other] in falls:
                falls.add(other)
        gains = {limit: draw(st.integers(0, 5)) for limit in LIMITS}
        found.append(Candidate(name, gains, sum(gains.values()), draw(st.integers(0, 3)), frozenset(falls)))
    return found, {limit: draw(st.integers(1, 12)) for limit in draw(st.sets(st.sampled_from(LIMITS), max_size=2))}


def suffices(some: frozenset[str], crowd: list[Candidate], short: dict[str, int]) -> bool:
    chosen = [candidate for candidate in crowd if candidate.revision in some]
    closed = all(candidate.falls <= some for candidate in chosen)
    return closed and all(sum(c.gains[limit] for c in chosen) >= amount for limit, amount in short.items())


def every_set(crowd: list[Candidate]) -> list[frozenset[str]]:
    names = [candidate.revision for candidate in crowd]
    return [frozenset(some) for some in chain.from_iterable(combinations(names, n) for n in range(len(names) + 1))]


@settings(deadline=None)
@given(crowds())
def test_no_smaller_set_suffices(case: tuple[list[Candidate], dict[str, int]]) -> None:
    crowd, short = case
    good = [some for some in every_set(crowd) if suffices(some, crowd, short)]
    found = choose(crowd, short)
    if found is None:
        assert not good
        return
    by_name = {candidate.revision: candidate for candidate in crowd}

    def cost(some: frozenset[str]) -> tuple[int, int, list[int]]:
        chosen = [by_name[name] for name in some]
        return len(some), sum(c.size for c in chosen), sorted((c.used for c in chosen), reverse=True)

    assert suffices(found, crowd, short)
    assert cost(found) == min(map(cost, good))


@settings(deadline=None)
@given(crowds())
def test_the_approximation_keeps_its_bound(case: tuple[list[Candidate], dict[str, int]]) -> None:
    crowd, short = case
    exact = choose(crowd, short)
    if not exact:
        return
    found = victims._approximate(crowd, short)
    assert suffices(found, crowd, short)
    assert len(found) <= len(short) * max(len(candidate.falls) for candidate in crowd) * len(exact)


def test_a_crowd_too_large_for_every_set_is_still_served() -> None:
    crowd = [alone(f"m{i:02}", used=i, active=1, weights=10 + i % 3, kv=10 - i % 3) for i in range(60)]
    short = {"active": 9, "weights": 95, "kv": 95}
    found = choose(crowd, short)
    assert found is not None
    assert suffices(found, crowd, short)
    assert len(found) <= 3 * 10


def test_the_longest_unused_goes_among_equals() -> None:
    crowd = [alone(f"m{used}", used, weights=5) for used in (3, 1, 2)]
    assert choose(crowd, {"weights": 8}) == {"m1", "m2"}
    assert choose(crowd, {}) == frozenset()
    assert choose(crowd, {"weights": 16}) is None
