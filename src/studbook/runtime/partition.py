"""Who answers for what: disjoint clusters, one specialist each, with what that covers and where specialists overlap.

Pure. `divide` puts a partition together; `split` and `merge` change one, each by one step that keeps what is covered:

* a split gives one specialist's clusters to two packages, every cluster to one of them;
* a merge gives two specialists' clusters to one package, which has to be no worse than either on that one's clusters: paired
  lower bound >= -margin on every cluster (one-sided, all have to hold, so nothing is corrected).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Literal, NamedTuple

from studbook.errors import DigestDiffers, OutOfOrder, UsageError
from studbook.records import (
    Comparison,
    Expert,
    ExpertPartition,
    Header,
    Overlap,
    Scorecard,
    SkillPackage,
    digest,
)
from studbook.statistics import paired_bounds, paired_counts

__all__ = ["Ground", "Member", "divide", "merge", "no_worse", "split"]


class Member(NamedTuple):
    """One package and what it shall answer for.

    Attributes:
        package: The package.
        card: Its model's scorecard on selection items.
        clusters: What it shall answer for.
    """

    package: SkillPackage
    card: Scorecard
    clusters: tuple[str, ...]


class Ground(NamedTuple):
    """What a partition is put together on.

    Attributes:
        header: Header of the record.
        suites: Digest of the suites lock in force.
        labels: Every task cluster of it, sorted.
        alpha: One-sided error rate of every test of a merge.
        margin: Share of items that a merge may lose at most.
        reason: Why.
    """

    header: Header
    suites: str
    labels: tuple[str, ...]
    alpha: float
    margin: float
    reason: str


def divide(
    ground: Ground,
    members: Sequence[Member],
    made_by: Literal["declare", "split", "merge"] = "declare",
    previous: str | None = None,
    comparisons: Sequence[Comparison] = (),
) -> ExpertPartition:
    """A partition of some members.

    Args:
        ground: What it is put together on.
        members: The specialists, in any order.
        made_by: How it came about.
        previous: Digest of the partition before.
        comparisons: What a merge showed.

    Raises:
        UsageError: if two answer for one cluster, one for none or for what it may not; ``partition.clusters``.
        DigestDiffers: if scorecards are of other models, or of other suites; ``partition.cards``.
    """
    _check(ground, members)
    held = sorted(members, key=lambda m: m.package.id)
    covered = {c for m in held for c in m.clusters}
    return ExpertPartition(
        header=ground.header,
        made_by=made_by,
        previous=previous,
        suites=ground.suites,
        labels=ground.labels,
        experts=tuple(
            Expert(
                id=m.package.id,
                package=digest(m.package),
                artifact=m.package.artifact.sha256,
                clusters=tuple(sorted(m.clusters)),
                scorecard=digest(m.card),
            )
            for m in held
        ),
        uncovered=tuple(label for label in ground.labels if label not in covered),
        coverage=round(len(covered) / len(ground.labels), 9),
        overlaps=tuple(_overlap(a, b, ground.labels) for a, b in combinations(held, 2)),
        comparisons=tuple(comparisons),
        reason=ground.reason,
    )


def split(ground: Ground, before: ExpertPartition, members: Sequence[Member], whole: str) -> ExpertPartition:
    """One specialist's clusters to two packages.

    Args:
        ground: What it is put together on.
        before: The partition before.
        members: All members afterwards, the two among them.
        whole: Id of the specialist that is split.

    Raises:
        OutOfOrder: if it is no such step; ``partition.split``.
    """
    old = {e.id: e for e in before.experts}
    kept = [e for e in before.experts if e.id != whole]
    new = [m for m in members if not _stays(m, kept)]
    asked = sorted(c for m in new for c in m.clusters)
    if whole not in old or len(new) != 2 or len(members) != len(kept) + 2 or asked != sorted(old[whole].clusters):
        text = f"is no split of {whole} into two packages that share out its clusters"
        advice = "Name one specialist of the partition in force, and two packages for all of its clusters."
        raise OutOfOrder(text, where="expert-partition: experts", advice=advice, reason="partition.split")
    return divide(ground, members, "split", digest(before))


def merge(
    ground: Ground,
    before: ExpertPartition,
    members: Sequence[Member],
    parts: tuple[str, str],
    cards: tuple[Scorecard, Scorecard],
) -> ExpertPartition:
    """Two specialists' clusters to one package that is no worse than either on that one's clusters.

    Args:
        ground: What it is put together on.
        before: The partition before.
        members: All members afterwards, the merged one among them.
        parts: Ids of the two specialists.
        cards: Their scorecards on selection items.

    Raises:
        OutOfOrder: if it is no such step, or the package is not shown to be no worse; ``partition.merge``.
    """
    old = {e.id: e for e in before.experts}
    kept = [e for e in before.experts if e.id not in parts]
    new = [m for m in members if not _stays(m, kept)]
    asked = sorted(c for p in parts if p in old for c in old[p].clusters)
    known = set(parts) <= old.keys() and len(set(parts)) == 2
    if not known or len(new) != 1 or len(members) != len(kept) + 1 or sorted(new[0].clusters) != asked:
        text = f"is no merge of {parts[0]} and {parts[1]} into one package for all of their clusters"
        advice = "Name two specialists of the partition in force, and a package that may answer for all they do."
        raise OutOfOrder(text, where="expert-partition: experts", advice=advice, reason="partition.merge")
    rows = [r for p, card in zip(parts, cards, strict=True) for r in no_worse(ground, new[0], card, old[p].clusters)]
    if lost := [row.on for row in rows if not row.passed]:
        raise OutOfOrder(
            f"{new[0].package.id} is not shown to be no worse on {', '.join(lost)}",
            where="expert-partition: comparisons",
            advice="Keep both specialists, or bring a better package.",
            reason="partition.merge",
        )
    return divide(ground, members, "merge", digest(before), rows)


def no_worse(ground: Ground, merged: Member, card: Scorecard, clusters: Sequence[str]) -> list[Comparison]:
    """A merged package against one specialist, one row a cluster of that one's."""
    _check_cards([merged.card, card])
    mine, theirs = merged.card.tasks(), card.tasks()
    rows = []
    for label in sorted(clusters):
        pair = paired_counts(mine[label].correct, theirs[label].correct)
        found = paired_bounds(*pair, ground.alpha)
        value, lower, upper = (round(number, 9) + 0.0 for number in found)
        rows.append(
            Comparison(
                test="non-inferiority",
                against=card.artifact,
                on=label,
                items=pair.items,
                wins=pair.wins,
                losses=pair.losses,
                difference=value,
                lower=lower,
                upper=upper,
                p_value=1.0,
                threshold=-ground.margin,
                passed=lower >= -ground.margin,
                method="paired by item; see studbook.statistics.paired_bounds; lower bound at least -margin",
                scorecards=(digest(merged.card), digest(card)),
            )
        )
    return rows


def _stays(member: Member, kept: Sequence[Expert]) -> bool:
    named = (member.package.id, digest(member.package), tuple(sorted(member.clusters)))
    return named in {(e.id, e.package, e.clusters) for e in kept}


def _overlap(first: Member, second: Member, labels: Sequence[str]) -> Overlap:
    """Agreement over the items of every task cluster, as two strings of bits."""
    mine, theirs = ("".join(m.card.tasks()[label].correct for label in labels) for m in (first, second))
    pair = paired_counts(mine, theirs)
    both = sum(a == b == "1" for a, b in zip(mine, theirs, strict=True))
    neither = pair.items - both - pair.wins - pair.losses
    return Overlap(
        first=first.package.id,
        second=second.package.id,
        items=pair.items,
        both_right=both,
        neither=neither,
        first_only=pair.wins,
        second_only=pair.losses,
        agreement=round((both + neither) / pair.items, 9),
        both_right_share=round(both / pair.items, 9),
    )


def _check(ground: Ground, members: Sequence[Member]) -> None:
    if not members:
        raise UsageError("names no specialist", where="partition", reason="partition.clusters")
    taken: dict[str, str] = {}
    for member in members:
        name, own = member.package.id, member.clusters
        beyond = sorted(set(own) - set(member.package.clusters) | set(own) - set(ground.labels))
        if not own or beyond or member.package.stack:
            why = "has packages on it that no suite scored" if member.package.stack else "answers for nothing"
            why = f"may not answer for {', '.join(beyond)}" if beyond else why
            raise UsageError(why, where=name, advice="See it: studbook package show ID", reason="partition.clusters")
        for cluster in own:
            if cluster in taken:
                text = f"{cluster} is {taken[cluster]}'s already"
                raise UsageError(text, where=name, advice="Give it to one of them.", reason="partition.clusters")
            taken[cluster] = name
    if len({m.package.id for m in members}) < len(members):
        raise UsageError("names one id twice", where="partition", reason="partition.clusters")
    for member in members:
        if member.card.artifact != member.package.artifact.sha256:
            raise DigestDiffers("cites another model's scorecard", where=member.package.id, reason="partition.cards")
    _check_cards([m.card for m in members])


def _check_cards(cards: Sequence[Scorecard]) -> None:
    """Scorecards of one evaluator, role and list of suites, or items could not be paired."""
    kinds = {(c.role, c.evaluator, tuple(r.suite for r in c.results)) for c in cards}
    if len(kinds) != 1 or cards[0].role != "selection":
        text = "scorecards are not all of the selection suites by one evaluator"
        raise DigestDiffers(text, where="expert-partition: experts: scorecard", reason="partition.cards")
