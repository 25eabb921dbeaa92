"""The lab's resident set: packages out of the ledger, records into it, and the known-good set again after a restart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from studbook.errors import UsageError
from studbook.lab.desk import Desk
from studbook.records import LogitDigest, ResidentSetRecord, RuntimeSmoke, SkillPackage
from studbook.runtime.arenas import Arena, Budgets, Place
from studbook.runtime.handles import Artifact, Artifacts, Runtime
from studbook.runtime.installing import Wish, prepare
from studbook.runtime.resident import ResidentSet
from studbook.runtime.residents import Installed

__all__ = ["open_residents", "prepared"]

_PLACES: tuple[Place, ...] = ("host", "device")


def prepared(desk: Desk, revision: str, wish: Wish = Wish()) -> Installed:  # noqa: B008
    """What the resident set needs to know of a package of the lab.

    Logits are those of its recorded smoke; of a package with adapters on it, which none was recorded of, the engine is
    asked once, here.

    Args:
        desk: The lab.
        revision: Digest of the package's record.
        wish: How it shall be run.

    Raises:
        UsageError: if a file is not held, or its smoke had logits that are not finite.
        BytesLie: if a file breaks a rule.
        DigestDiffers: if a file is not what was recorded.
    """
    package = desk.workspace.get(revision, SkillPackage)
    artifact, *stack = (_file(desk, sha256) for sha256 in (package.artifact.sha256, *package.stack))
    smoke = None if stack else _logits(desk, package)
    return prepare(package.id, revision, artifact, stack=stack, requires=package.requires, smoke=smoke, wish=wish)


def open_residents(
    desk: Desk,
    revisions: Iterable[str],
    budgets: Budgets,
    *,
    wishes: Mapping[str, Wish] | None = None,
    metered: bool = False,
    write: Callable[[ResidentSetRecord], object] | None = None,
) -> ResidentSet:
    """A resident set of packages of the lab, with nothing in memory yet.

    The known-good set of the last record is known again, so that `ResidentSet.restore` brings back what stood before the
    restart. It is forgotten if one of its packages may not be run any more: nobody vouched for the rest alone.

    Args:
        desk: The lab.
        revisions: Packages that may be run; a later revision of an id comes later.
        budgets: The limits.
        wishes: Id of a package -> how it shall be run.
        metered: Whether fuel is counted.
        write: Given every record before what it says happens; the ledger if it is None.

    Raises:
        OverBudget: ``resident.installed`` if these are more than may be installed.
        StudbookError: as `prepared`.
    """
    records = list(desk.all(ResidentSetRecord))
    previous, last = records[-1] if records else (None, None)
    allowed = list(dict.fromkeys(revisions))
    good = last.known_good if last else None
    if good is not None and not set(good.revisions) <= set(allowed):
        good = None
    limits, runtime = budgets.limits(), Runtime(metered=metered)
    residents = ResidentSet(
        budgets,
        {place: Arena(place, limits[place].total, runtime) for place in _PLACES if place in limits},
        Artifacts(),
        desk.header,
        write=write or desk.workspace.commit,
        previous=previous,
        known_good=good,
    )
    for revision in allowed:
        name = desk.workspace.get(revision, SkillPackage).id
        residents.install(prepared(desk, revision, (wishes or {}).get(name, Wish())))
    return residents


def _file(desk: Desk, sha256: str) -> Artifact:
    return Artifact(sha256, desk.workspace.blob_size(sha256), desk.workspace.blob_path(sha256))


def _logits(desk: Desk, package: SkillPackage) -> LogitDigest:
    smoke = desk.workspace.get(package.evidence.smoke, RuntimeSmoke)
    if smoke.logits is None or smoke.artifact != package.artifact.sha256:
        message = "its smoke has no logits that could be compared"
        raise UsageError(
            message, where=package.id, reason="resident.smoke", advice="Smoke it again, and package it anew."
        )
    return smoke.logits
