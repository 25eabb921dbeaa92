"""Which packages a router may choose among, and why the others of the host may not answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from studbook.lab.desk import Desk
from studbook.lab.package_host import HELD, lives_of
from studbook.lab.package_life import Usable, usable
from studbook.lab.partitions import partition_in_force
from studbook.records import ExpertPartition, SkillPackage
from studbook.runtime.packages import version_key
from studbook.runtime.routing.router import Candidate

__all__ = ["OWN", "TASK", "Specialists", "specialists"]

OWN = "channel/model"
"""Under this id the channel's own model stands ready as the fallback; no package can have it."""
TASK = ("answer", "stream")
"""What a request on the request path allows a package, and needs of it."""


class Specialists(NamedTuple):
    """Everyone that is installed, as the router sees them.

    Attributes:
        candidates: One an id, sorted by it.
        usable: Revision -> the package, of everyone that may answer.
        partition: Digest of the partition that says who answers for what; None where none is in force.
    """

    candidates: tuple[Candidate, ...]
    usable: Mapping[str, Usable]
    partition: str | None


def specialists(desk: Desk, fallback: str | None = None) -> Specialists:
    """The installed packages of a lab: of each id the newest that may answer, or else the newest, excluded with a reason.

    Where a partition is in force, its specialists answer for the clusters that it gives them, and nobody else does.

    Args:
        desk: The lab.
        fallback: Id of the package that stands ready whatever is asked; the partition says nothing about it.
    """
    able = {u.revision: u for u in usable(desk)[0]}
    partition = desk.unrevoked(ExpertPartition)
    experts = {e.package: e.clusters for e in partition_in_force(desk)[1].experts} if partition else None
    lives = lives_of(desk)
    held = [(r, desk.workspace.get(r, SkillPackage)) for r, life in lives.items() if life.state in HELD]
    newest = sorted(held, key=lambda h: (h[0] in able, h[0] in (experts or ()), version_key(h[1].package_version)))
    found = []
    for revision, package in {package.id: (revision, package) for revision, package in newest}.values():
        named = None if package.id == fallback else experts
        state = lives[revision].state
        found.append(
            Candidate(
                package.id,
                revision,
                package.clusters if named is None else named.get(revision, package.clusters),
                int(package.envelope.decoded_bytes.value),
                not (why := _why_not(package, revision in able, state, named is None or revision in named)),
                why,
                package.permissions,
                package.licence,
            )
        )
    chosen = {c.revision: able[c.revision] for c in found if c.eligible}
    return Specialists(tuple(sorted(found)), chosen, partition[-1][0] if partition else None)


def _why_not(package: SkillPackage, able: bool, state: str, named: bool) -> str:
    """A reason code; empty where a package may answer."""
    if not able:
        return "package.refused" if state in ("verified", "resident", "active") else f"package.{state}"
    if not set(TASK) <= set(package.permissions):
        return "package.permission"
    if package.stack:
        return "package.stack"
    return "" if named else "route.partition"
