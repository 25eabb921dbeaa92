"""Who would have children together, and why: a look at the next draw, with what is known of how the mates fit."""

from __future__ import annotations

from msgspec import Struct

from studbook.errors import ParentsDoNotFit
from studbook.lab import clock, judging, sources
from studbook.lab.desk import Desk
from studbook.lab.pooling import make_pool
from studbook.population import PoolMethod
from studbook.records import ParentPool
from studbook.records.sources import TaskVectorPair

__all__ = ["Mate", "Mates", "Pair", "mates"]

# What predicts a bad merge, as words; they refuse nothing.
_CONFLICT, _BARRIER = 0.4, 0.5


class Mate(Struct, frozen=True):
    """One model of the pool.

    Attributes:
        name: What people call it.
        weight: Its weight in the draw of a first parent, 0..1.
        children: Candidates bred from it so far.
        place: Its place among the chosen, from 1; 0 where it was not drawn.
        mean: Its joint mean on the suites that count, 0..1.
    """

    name: str
    weight: float
    children: int
    place: int
    mean: float


class Pair(Struct, frozen=True):
    """How two of the chosen fit.

    Attributes:
        first: Name of one.
        second: Name of the other.
        cosine: Cosine of their task vectors.
        conflict: Share of elements they move in opposite directions.
        barrier: Loss at the midpoint minus the mean of the ends, nats a token.
        words: What that predicts.
    """

    first: str
    second: str
    cosine: float
    conflict: float
    barrier: float
    words: str


class Mates(Struct, frozen=True):
    """The next draw.

    Attributes:
        label: The cluster.
        method: The rule of the draw.
        seed: Its seed.
        pool: Everybody, heaviest first.
        pairs: Every two of the chosen.
        chosen: Digests of the chosen, in order.
    """

    label: str
    method: str
    seed: int
    pool: tuple[Mate, ...]
    pairs: tuple[Pair, ...]
    chosen: tuple[str, ...]


def mates(desk: Desk, label: str, method: PoolMethod, size: int, seed: int, *, keep: bool = False) -> Mates:
    """Draw parents for a cluster and say how they fit; what is measured for it is kept.

    Args:
        desk: The lab.
        label: The cluster.
        method: How they are drawn.
        size: Parents that are wanted.
        seed: Seed of the draws.
        keep: Keep the draw too, as the recipe that a bundle rests on.

    Raises:
        UsageError: if no suite has this label.
        OutOfOrder: if nobody is approved.
        ParentsDoNotFit: if the chosen cannot be combined at all.
    """
    judging.require_label(desk, label)
    pool = make_pool(desk, label, method, size, seed, clock.today())
    slice_ = sources.slice_of(desk, label, pool.base)
    _, report = sources.compare_parents(desk, pool.base, pool.chosen, slice_[1] if slice_ else None)
    if not report.passed:
        failed = next(c for c in report.checks if not c.passed)
        raise ParentsDoNotFit(f"{failed.name}: {failed.detail}", where=label)
    if keep:
        desk.workspace.commit(pool)
    rows = sorted(_mates(desk, pool), key=lambda m: (-m.weight, m.name))
    pairs = tuple(_pair(desk, pair) for pair in report.pairs)
    return Mates(label, method, seed, tuple(rows), pairs, pool.chosen)


def _mates(desk: Desk, pool: ParentPool) -> list[Mate]:
    places = {a: i for i, a in enumerate(pool.chosen, 1)}
    return [
        Mate(
            desk.name_of(m.artifact),
            m.weight_ppm / 1e6,
            m.children,
            places.get(m.artifact, 0),
            desk.scorecard(m.scorecard).joint_mean,
        )
        for m in pool.members
    ]


def _pair(desk: Desk, pair: TaskVectorPair) -> Pair:
    conflict, barrier = pair.sign_conflict.value, pair.barrier.value
    told = [
        *(["their signs cancel"] if conflict > _CONFLICT else []),
        *(["a barrier lies between them"] if barrier > _BARRIER else []),
    ]
    words = " and ".join(told) or "nothing speaks against a merge"
    first, second = desk.name_of(pair.first), desk.name_of(pair.second)
    return Pair(first, second, pair.cosine.value, conflict, barrier, words)
