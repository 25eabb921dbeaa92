"""Who is better than whom under noise: the rule, fronts that always end, crowding, and the bounded archive."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from studbook.population.dominance import Scored, archive_of, crowding, dominates, fronts, standings
from studbook.statistics import paired_bounds, paired_counts

EPSILON, ALPHA = 0.02, 0.05
rows = st.text("01", min_size=40, max_size=40)
fields = st.lists(st.tuples(rows, rows), min_size=1, max_size=7)


def scored(name: str, *bits: str, able: bool = True) -> Scored:
    return Scored(name, {f"skill-{i}": b for i, b in enumerate(bits)}, able)


def share(right: int, items: int = 400) -> str:
    return "1" * right + "0" * (items - right)


def field_of(pairs):
    return [scored(f"{i:03d}", *bits) for i, bits in enumerate(pairs)]


@given(rows, rows, rows, rows)
@settings(deadline=None)
def test_domination_is_every_lower_bound_above_minus_epsilon_and_one_above_nought(a, b, c, d):
    def one_way(first, second):
        pairs = [paired_counts(x, y) for x, y in zip(first, second, strict=True)]
        lows = [paired_bounds(p.wins, p.losses, p.items, ALPHA).lower for p in pairs]
        return all(low >= -EPSILON for low in lows) and any(low > 0 for low in lows)

    expected = one_way((a, b), (c, d)) and not one_way((c, d), (a, b))
    assert dominates(scored("x", a, b), scored("y", c, d), EPSILON, ALPHA) is expected


def test_noise_dominates_nobody_and_a_real_gain_without_a_loss_does():
    base = scored("base", share(200), share(200))
    lucky = scored("lucky", share(203), share(200))
    better = scored("better", share(260), share(200))
    trade = scored("trade", share(260), share(140))
    assert not dominates(lucky, base, EPSILON, ALPHA)
    assert dominates(better, base, EPSILON, ALPHA)
    assert not dominates(trade, base, EPSILON, ALPHA)
    assert not dominates(base, trade, EPSILON, ALPHA)


def test_two_that_would_dominate_each_other_are_a_trade_off():
    # Both lose a little less than epsilon allows where the other gains beyond doubt.
    a, b = scored("a", share(1060, 2000), share(1000, 2000)), scored("b", share(1000, 2000), share(1060, 2000))
    assert not dominates(a, b, 0.1, ALPHA)
    assert not dominates(b, a, 0.1, ALPHA)


@given(fields)
@settings(deadline=None, max_examples=40)
def test_every_model_stands_in_one_front_and_nobody_in_the_first_is_beaten_by_fewest(pairs):
    field = field_of(pairs)
    found = fronts(field, EPSILON, ALPHA)
    assert sorted(s.artifact for front in found for s in front) == sorted(s.artifact for s in field)
    beaten = {b.artifact: sum(dominates(a, b, EPSILON, ALPHA) for a in field if a is not b) for b in field}
    assert {beaten[s.artifact] for s in found[0]} == {min(beaten.values())}
    shuffled = fronts(field[::-1], EPSILON, ALPHA)
    assert [[s.artifact for s in f] for f in shuffled] == [[s.artifact for s in f] for f in found]


def test_a_model_that_breaks_a_constraint_comes_last_whatever_its_scores():
    ranked = standings([scored("bad", share(400), able=False), scored("good", share(10))], EPSILON, ALPHA)
    assert [(s.artifact, s.rank) for s in ranked] == [("good", 1), ("bad", 0)]
    assert archive_of(ranked, 5) == ("good",)


def test_crowding_keeps_the_ends_and_counts_the_gaps_of_the_others():
    front = [scored("a", share(100)), scored("b", share(200)), scored("c", share(220)), scored("d", share(300))]
    assert crowding(front) == {"a": -1, "b": 600_000, "c": 500_000, "d": -1}


@given(fields, st.integers(0, 8))
@settings(deadline=None, max_examples=40)
def test_an_archive_is_bounded_and_holds_no_later_front_while_an_earlier_one_waits(pairs, capacity):
    ranked = standings(field_of(pairs), EPSILON, ALPHA)
    kept = archive_of(ranked, capacity)
    assert len(kept) == min(capacity, len(ranked))
    rank = {s.artifact: s.rank for s in ranked}
    left = [rank[a] for a in rank if a not in kept]
    assert not kept or not left or max(rank[a] for a in kept) <= min(left)
