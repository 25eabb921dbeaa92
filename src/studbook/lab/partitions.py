"""The facet behind ``studbook partition``: which specialist answers for which clusters, and how that changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from studbook.errors import DigestDiffers, OutOfOrder, UsageError, printable
from studbook.lab import judging
from studbook.lab.desk import Desk
from studbook.lab.package_basis import task_labels
from studbook.lab.package_life import usable
from studbook.lab.pending import require_key
from studbook.lab.words import plain_text
from studbook.records import ExpertPartition, Scorecard, SkillPackage, digest
from studbook.runtime.partition import Ground, Member, divide, merge, split

__all__ = ["Partitions", "check_partition", "partition_in_force"]


class Partitions:
    """The lab's partition of clusters."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def declare(self, experts: Mapping[str, Sequence[str]], reason: str = "") -> tuple[str, ExpertPartition]:
        """Put installed packages together anew: id -> the clusters it shall answer for.

        Returns:
            The partition's digest, and the partition.
        """
        desk = self._desk
        members = self._members([(self._package(name), clusters) for name, clusters in experts.items()])
        return self._enter(divide(_ground(desk, plain_text(reason, "--reason")), members))

    def split(self, whole: str, parts: Mapping[str, Sequence[str]], reason: str = "") -> tuple[str, ExpertPartition]:
        """Give the clusters of one specialist to two installed packages, every cluster to one of them."""
        desk, before = self._desk, partition_in_force(self._desk)[1]
        new = [(self._package(name), clusters) for name, clusters in parts.items()]
        members = self._members([*self._kept(before, (whole,)), *new])
        return self._enter(split(_ground(desk, plain_text(reason, "--reason")), before, members, whole))

    def merge(self, first: str, second: str, into: str, reason: str = "") -> tuple[str, ExpertPartition]:
        """Give the clusters of two specialists to one installed package that is no worse on either's."""
        desk, before = self._desk, partition_in_force(self._desk)[1]
        held = {e.id: e for e in before.experts}
        clusters = [c for name in (first, second) if name in held for c in held[name].clusters]
        members = self._members([*self._kept(before, (first, second)), (self._package(into), clusters)])
        cards = _cards_of(desk, before, (first, second))
        ground = _ground(desk, plain_text(reason, "--reason"))
        return self._enter(merge(ground, before, members, (first, second), cards))

    def show(self) -> tuple[str, ExpertPartition]:
        """Digest and record of the partition in force."""
        return partition_in_force(self._desk)

    def _package(self, name: str) -> SkillPackage:
        """The newest usable package of an id."""
        held = [u.package for u in usable(self._desk)[0] if u.package.id == name]
        if not held:
            text = f"{printable(name)!r} is not the id of a package that may be taken up"
            raise UsageError(text, advice="See why: studbook package list", reason="usage.name")
        return held[-1]

    def _kept(self, before: ExpertPartition, but: Sequence[str]) -> list[tuple[SkillPackage, Sequence[str]]]:
        get = self._desk.workspace.get
        return [(get(e.package, SkillPackage), e.clusters) for e in before.experts if e.id not in but]

    def _members(self, wanted: Sequence[tuple[SkillPackage, Sequence[str]]]) -> list[Member]:
        """Packages with their scorecards on selection items; one that is missing is made."""
        require_key(self._desk, ExpertPartition)
        cards = judging.evaluate(self._desk, [p.artifact.sha256 for p, _ in wanted], "selection")
        return [Member(p, cards[p.artifact.sha256].card, tuple(sorted(clusters))) for p, clusters in wanted]

    def _enter(self, made: ExpertPartition) -> tuple[str, ExpertPartition]:
        return self._desk.workspace.commit(made), made


def partition_in_force(desk: Desk) -> tuple[str, ExpertPartition]:
    """Digest and record of the newest partition that counts.

    Raises:
        OutOfOrder: if there is none; ``partition.none``.
    """
    found = desk.unrevoked(ExpertPartition)
    if not found:
        advice = "Put one together: studbook partition declare ID=CLUSTER ..."
        raise OutOfOrder(
            "nobody said which specialist answers for what", where="partition", advice=advice, reason="partition.none"
        )
    return found[-1]


def check_partition(desk: Desk, record: ExpertPartition) -> None:
    """A partition is what its packages and scorecards give, and the step it says from the one before.

    Args:
        desk: The lab as it was before the record.
        record: The partition.

    Raises:
        DigestDiffers: if putting it together again gives another one; ``partition.field``.
        OutOfOrder: if a package could not be taken up then, or it does not follow the partition before.
    """
    able = {u.revision for u in usable(desk)[0]}
    members = []
    for expert in record.experts:
        if expert.package not in able:
            text = f"{expert.id} could not be taken up when it entered"
            raise OutOfOrder(text, where="expert-partition: experts", reason="partition.package")
        package = desk.workspace.get(expert.package, SkillPackage)
        members.append(Member(package, desk.scorecard(expert.scorecard), expert.clusters))
    if digest(_again(desk, record, members)) != digest(record):
        text = "is not what its packages and scorecards give"
        raise DigestDiffers(text, where="expert-partition", advice="Put it together anew.", reason="partition.field")


def _again(desk: Desk, record: ExpertPartition, members: Sequence[Member]) -> ExpertPartition:
    ground = _ground(desk, record.reason)._replace(header=record.header)
    if record.made_by == "declare":
        return divide(ground, members)
    before = partition_in_force(desk)[1]
    mine = {(e.id, e.package, e.clusters) for e in record.experts}
    gone = [e for e in before.experts if (e.id, e.package, e.clusters) not in mine]
    if record.made_by == "split":
        return split(ground, before, members, gone[0].id if len(gone) == 1 else "")
    # The rows of whoever was named first stand first, and no cluster is both's.
    cited = [c.on for c in record.comparisons]
    order = [e.id for e in sorted(gone, key=lambda e: cited.index(e.clusters[0]))]
    pair = (order[0], order[1]) if len(order) == 2 else ("", "")
    return merge(ground, before, members, pair, _cards_of(desk, before, pair))


def _cards_of(desk: Desk, before: ExpertPartition, names: tuple[str, str]) -> tuple[Scorecard, Scorecard]:
    """The scorecards that two specialists of a partition cite.

    Raises:
        OutOfOrder: if one is none of it; ``partition.merge``.
    """
    held = {e.id: e.scorecard for e in before.experts}
    for name in names:
        if name not in held:
            text = f"{printable(name)!r} is no specialist of the partition in force"
            raise OutOfOrder(
                text, where="partition", advice="See it: studbook partition show", reason="partition.merge"
            )
    return desk.scorecard(held[names[0]]), desk.scorecard(held[names[1]])


def _ground(desk: Desk, reason: str) -> Ground:
    gates = desk.policy[1].gates
    return Ground(desk.header, desk.suites_lock[0], task_labels(desk), gates.alpha, gates.margin, reason)
