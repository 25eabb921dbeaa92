"""The lab's resident set: packages out of the ledger, records into it, and the known-good set again after a restart.

In the records of a server stands, for a model that is no package, the record that put it into its channel: that says which
model it is and by what right it was in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from studbook.errors import UsageError
from studbook.lab.desk import Desk
from studbook.lab.package_life import Usable
from studbook.records import LogitDigest, ResidentSetRecord, RuntimeSmoke, SkillPackage
from studbook.runtime.arenas import Arena, Budgets, Place
from studbook.runtime.handles import ENGINE, Artifact, Artifacts, Runtime
from studbook.runtime.installing import Wish, prepare
from studbook.runtime.resident import ResidentSet
from studbook.runtime.residents import Installed
from studbook.runtime.serve import Model

__all__ = ["open_residents", "prepared", "served_model", "served_package"]

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


def served_model(desk: Desk, artifact: str, record: str) -> Model:
    """A model of the lab as a server takes it up: its file, and the logits of its newest smoke in this engine.

    Args:
        desk: The lab.
        artifact: Digest of the model.
        record: Digest of the record that lets it be served; empty where none does yet.

    Raises:
        UsageError: if it is no SLM1 model, or not held; ``serve.format``.
    """
    file = _file(desk, artifact)
    with file.path.open("rb") as there:
        magic = there.read(4)
    if magic != b"SLM1":
        advice = "Deploy it for what knows its format: studbook deploy champion FOLDER --hook PROGRAM"
        message = "is no SLM1 model, and only those are served"
        raise UsageError(message, where=desk.name_of(artifact), advice=advice, reason="serve.format")
    smokes = [s.logits for _, s in desk.unrevoked(RuntimeSmoke) if (s.artifact, s.engine) == (artifact, ENGINE)]
    entry = desk.workspace.entry(record) if record else None
    created = int(datetime.fromisoformat(entry.time).timestamp()) if entry else 0
    return Model(artifact, desk.name_of(artifact), file, created, smokes[-1] if smokes else None, record)


def served_package(desk: Desk, held: Usable) -> Model:
    """A package without adapters as a server takes it up where there is room; packages of one file are one model."""
    blob, name = held.package.artifact, f"{held.package.id} {held.package.package_version}"
    file = Artifact(blob.sha256, blob.size, held.folder / "model.slm")
    return Model(blob.sha256, name, file, 0, _logits(desk, held.package), held.revision, spare=True)


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
