"""What becomes of a package: installed, taken up, put aside, taken out; verify holds every step against the lab."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import NamedTuple

from studbook.errors import DigestDiffers, OutOfOrder, OverBudget, StudbookError
from studbook.evaluation.smokes import smoked, spoken
from studbook.lab.desk import Desk
from studbook.lab.package_basis import basis, quantised_from
from studbook.lab.package_host import HELD, Contents, contents, finish_packages, folder_of, lives_of, put_away, stage
from studbook.lab.package_making import contract_in_force, found_in
from studbook.models.engine import Engine
from studbook.records import Check, PackageEvent, RuntimeContract, RuntimeSmoke, SkillPackage, digest
from studbook.records.packages import PackageState
from studbook.runtime.packages import Life, check_move, examine, needed, require, version_key
from studbook.runtime.probing import MEMORY, Probe, probe
from studbook.workspace import Accession

__all__ = ["Usable", "check_event", "event_for", "install", "move", "require_carried", "standing", "usable"]

_WAITING: tuple[PackageState, ...] = ("verified", "resident", "active")


class Usable(NamedTuple):
    """A package that a server may take up.

    Attributes:
        revision: Its revision.
        package: The package.
        folder: Where its bytes lie; `studbook.lab.package_host.contents` reads them.
        state: Where it stands.
    """

    revision: str
    package: SkillPackage
    folder: Path
    state: PackageState


def install(desk: Desk, revision: str, today: date) -> None:
    """Install a package: its bytes are copied, hashed, loaded and smoked beside its place; then one rename, then the ledger.

    Args:
        desk: The lab, opened for writing.
        revision: The package.
        today: The UTC day that approvals have to cover.

    Raises:
        StudbookError: any of its kinds; nothing is in its place then, and the ledger says nothing.
    """
    package = desk.workspace.get(revision, SkillPackage)
    held = lives_of(desk)
    life = held.get(revision)
    if life is None or life.state != "installed":
        check_move(life.state if life else None, "installed", package.id)
    contract, agreed = contract_in_force(desk)
    others = sum(one.state in HELD for name, one in held.items() if name != revision)
    if others >= agreed.maximum_packages:
        text = f"{others} packages are installed; the contract allows {agreed.maximum_packages}"
        raise OverBudget(
            text, where=package.id, advice="Retire one: studbook package retire ID", reason="package.count"
        )
    require_carried(desk, revision, package, today)
    finish_packages(desk)
    folder = stage(desk, revision)
    checks = _examined(desk, package, contents(desk, revision, folder), agreed, _smoked_again(desk, package, folder))
    require(checks, package.id)
    put_away(desk, folder, revision)
    installed = event_for(desk, revision, "installed", contract, "its bytes are in place", life=None)
    first = [] if life else [Accession(installed)]
    where = life or Life("installed", digest(installed), contract)
    verified = event_for(desk, revision, "verified", contract, "loads, computes and is carried", where, checks)
    desk.workspace.commit_all([*first, Accession(verified)])


def move(desk: Desk, revision: str, after: PackageState, reason: str) -> str:
    """Take an installed package one step on; digest of the event.

    Raises:
        OutOfOrder: if its life has no such step (``package.state``), or another package requires it.
    """
    package, life = desk.workspace.get(revision, SkillPackage), standing(desk, revision)
    check_move(life.state, after, package.id)
    if after == "retired":
        _require_unneeded(desk, revision, package)
    contract, _ = contract_in_force(desk)
    moved = desk.workspace.commit(event_for(desk, revision, after, contract, reason, life))
    finish_packages(desk)
    return moved


def event_for(
    desk: Desk,
    revision: str,
    after: PackageState,
    contract: str,
    reason: str,
    life: Life | None,
    checks: Sequence[Check] = (),
) -> PackageEvent:
    """The event of a step; nothing is written.

    Args:
        desk: The lab.
        revision: The package.
        after: Where it stands afterwards.
        contract: Digest of the contract in force.
        reason: Why.
        life: Where it stands; None where it was never installed.
        checks: What was looked at.
    """
    return PackageEvent(
        header=desk.header,
        package=revision,
        before=life.state if life else None,
        after=after,
        previous=life.event if life else None,
        contract=contract,
        checks=tuple(checks),
        reason=reason,
    )


def standing(desk: Desk, revision: str) -> Life:
    """Where a package stands.

    Raises:
        OutOfOrder: if it was never installed; ``package.state``.
    """
    life = lives_of(desk).get(revision)
    if life is None:
        package = desk.workspace.get(revision, SkillPackage)
        advice = f"Install it first: studbook package install {package.id}"
        raise OutOfOrder("is not installed", where=package.id, advice=advice, reason="package.state")
    return life


def usable(desk: Desk) -> tuple[tuple[Usable, ...], dict[str, str]]:
    """Packages that a server may take up now, and why others that are installed may not be: revision -> reason."""
    found: list[Usable] = []
    excluded: dict[str, str] = {}
    for revision, life in lives_of(desk).items():
        if life.state not in HELD:
            continue
        package = desk.workspace.get(revision, SkillPackage)
        if why := _why_not(desk, revision, package, life):
            excluded[revision] = why
        else:
            found.append(Usable(revision, package, folder_of(desk, revision), life.state))
    return tuple(found), excluded


def require_carried(desk: Desk, revision: str, package: SkillPackage, day: date) -> None:
    """Refuse a package whose record, evidence or basis counts no longer.

    Raises:
        StudbookError: any of its kinds, saying what fell.
    """
    if fallen := desk.taken_back() & {revision, *package.references()}:
        text = f"rests on {sorted(fallen)[0][:16]}..., which was revoked"
        raise OutOfOrder(text, where=package.id, advice="Make its next version.", reason="package.basis")
    for artifact in (package.artifact.sha256, *package.stack):
        if why := desk.revoked(artifact):
            advice = "Go on with models that have nothing to do with it."
            raise OutOfOrder(f"its model {why}", where=package.id, advice=advice, reason="order.revoked")
    if basis(desk, package.artifact.sha256, package.clusters, day).kind != package.evidence.basis:
        text = f"was made on an {package.evidence.basis}, and it is carried by something else now"
        raise OutOfOrder(text, where=package.id, advice="Make its next version.", reason="package.basis")


def check_event(desk: Desk, record: PackageEvent) -> None:
    """A step follows the one before, under the contract in force, and looked at what it says.

    Args:
        desk: The lab as it was before the event.
        record: The event.

    Raises:
        OutOfOrder: if its life has no such step, or nothing carried the package.
        DigestDiffers: if looking again finds something else; ``package.field``.
    """
    package = desk.workspace.get(record.package, SkillPackage)
    life = lives_of(desk).get(record.package)
    if (record.before, record.previous) != ((life.state, life.event) if life else (None, None)):
        text = "does not start from where the package stood"
        raise OutOfOrder(text, where="package-event: before, previous", reason="package.state")
    check_move(record.before, record.after, package.id)
    contract, agreed = contract_in_force(desk)
    if record.contract != contract:
        raise OutOfOrder(
            "cites another contract than the one in force", where="package-event", reason="package.contract"
        )
    entry = desk.workspace.entry(digest(record))
    assert entry is not None
    day = datetime.fromisoformat(entry.time).date()
    checks: tuple[Check, ...] = ()
    if record.before in ("installed", "suspended") and record.after == "verified":
        require_carried(desk, record.package, package, day)
    if record.before == "installed" and record.after == "verified":
        blob = desk.workspace.blob
        held = Contents(blob(package.artifact.sha256), tuple(blob(d) for d in package.stack))
        checks = _examined(desk, package, held, agreed, smoke=True)
        require(checks, package.id)
    if record.checks != checks:
        text = "says something else of the package than its bytes and the lab do"
        raise DigestDiffers(text, where="package-event: checks", reason="package.field")


def _examined(
    desk: Desk, package: SkillPackage, held: Contents, agreed: RuntimeContract, smoke: bool
) -> tuple[Check, ...]:
    """Every row about a package; a requirement that leads back to it is refused at once."""
    artifact = package.artifact.sha256
    seen = probe(held.model, held.stack, quantised_from(desk, artifact), package.id)
    stands = lives_of(desk)
    ever = [desk.workspace.get(r, SkillPackage) for r in stands if r != digest(package)]
    newest = {p.id: p for p in sorted(ever, key=lambda p: version_key(p.package_version))}
    here = {p.id: p for p in ever if stands[digest(p)].state in HELD}
    needed(package, here)
    return (
        *examine(package, found_in(desk, artifact, package.stack, seen), agreed, newest),
        Check(name="structure", passed=True, detail=_computes(seen)),
        Check(name="smoke", passed=smoke, detail="says what its recorded smoke says"),
    )


def _computes(seen: Probe) -> str:
    return f"loads; logits of {seen.logits.positions} positions are {seen.logits.sha256[:16]}..."


def _smoked_again(desk: Desk, package: SkillPackage, folder: Path) -> bool:
    """Whether the copied model does what its smoke recorded, packages on it left out."""
    smoke = desk.workspace.get(package.evidence.smoke, RuntimeSmoke)
    model = contents(desk, digest(package), folder).model
    with Engine(model, memory_limit=MEMORY, fuel=True, where=package.id) as engine:
        again = smoked(smoke.header, smoke.evaluator, spoken(engine))
    return (again.outputs_sha256, again.logits, again.passed) == (smoke.outputs_sha256, smoke.logits, True)


def _require_unneeded(desk: Desk, revision: str, package: SkillPackage) -> None:
    """Refuse to retire the last installed revision of an id that another installed package requires."""
    held = {r: desk.workspace.get(r, SkillPackage) for r, life in lives_of(desk).items() if life.state in HELD}
    if any(r != revision and p.id == package.id for r, p in held.items()):
        return
    for other in held.values():
        if package.id in other.requires:
            text = f"{other.id} {other.package_version} requires it"
            advice = f"Retire that first: studbook package retire {other.id}"
            raise OutOfOrder(text, where=package.id, advice=advice, reason="package.required")


def _why_not(desk: Desk, revision: str, package: SkillPackage, life: Life) -> str:
    if life.state not in _WAITING:
        return f"is {life.state}"
    if desk.taken_back() & {revision, *package.references()}:
        return "rests on a record that was revoked"
    for artifact in (package.artifact.sha256, *package.stack):
        if why := desk.revoked(artifact):
            return f"its model {why}"
    try:
        _, agreed = contract_in_force(desk)
    except StudbookError as error:
        return error.message
    beyond = sorted({*package.permissions, package.licence} - {*agreed.permissions, *agreed.licences})
    return f"the contract does not allow {', '.join(beyond)} any longer" if beyond else ""
