"""The facet behind ``studbook package``: what a host may run, made from what the lab admitted."""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct, field

from studbook.errors import UsageError, printable
from studbook.lab import clock, judging
from studbook.lab.desk import Desk
from studbook.lab.entering import check_entering
from studbook.lab.package_host import lives_of
from studbook.lab.package_life import install, move, require_carried, standing, usable
from studbook.lab.package_making import Order, compose, packages
from studbook.lab.pending import Signed, require_key, sign, signers_here
from studbook.lab.words import plain_name, plain_text
from studbook.records import (
    AdapterSource,
    JsonObject,
    PackageEvent,
    RuntimeContract,
    SkillPackage,
)
from studbook.records.packages import PackageState
from studbook.runtime.packages import PERMISSIONS, Life, version_key
from studbook.runtime.schemas import TEXT
from studbook.seal import Signer

__all__ = ["Installed", "Packages", "Shown", "Terms", "Wanted"]


class Terms(Struct, frozen=True):
    """What a contract shall allow; what is None stays as it is, or as wide as it goes in the first one.

    Attributes:
        permissions: What may be allowed at all.
        licences: SPDX identifiers that are accepted.
        packages: Most packages that are installed.
        size: Most bytes of one package's files.
        decoded: Most bytes of one package's weights, decoded.
    """

    permissions: tuple[str, ...] | None = None
    licences: tuple[str, ...] | None = None
    packages: int | None = None
    size: int | None = None
    decoded: int | None = None


class Wanted(Struct, frozen=True):
    """How a model shall be packaged.

    Attributes:
        version: Its semantic version.
        clusters: What it shall answer for.
        adapters: Names of registered packages on it, in order.
        requires: Ids of the packages it needs.
        permissions: What it asks to be allowed.
        input: JSON Schema of the text that goes in.
        output: JSON Schema of the text that comes out.
        unsupported: What it does not do.
        trade_offs: What was given up.
        fallback: Id of the package to ask instead; None for the champion.
    """

    version: str
    clusters: tuple[str, ...]
    adapters: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    permissions: tuple[str, ...] = ("answer", "stream")
    input: JsonObject = field(default_factory=lambda: TEXT)
    output: JsonObject = field(default_factory=lambda: TEXT)
    unsupported: tuple[str, ...] = ()
    trade_offs: tuple[str, ...] = ()
    fallback: str | None = None


class Installed(Struct, frozen=True):
    """One package and where it stands.

    Attributes:
        id: Its name.
        version: Its version.
        revision: Digest of its record.
        model: What people call its model.
        clusters: What it may answer for.
        state: Where it stands; ``made`` where it was never installed.
        why_not: Why no server takes it up; empty where one may.
    """

    id: str
    version: str
    revision: str
    model: str
    clusters: tuple[str, ...]
    state: str
    why_not: str


class Shown(Struct, frozen=True):
    """One package with its life.

    Attributes:
        revision: Digest of its record.
        package: The record.
        state: Where it stands; ``made`` where it was never installed.
        events: Every event of it, oldest first.
    """

    revision: str
    package: SkillPackage
    state: str
    events: tuple[PackageEvent, ...]


class Packages:
    """The lab's packages."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def contract(self, person: str, terms: Terms | None = None, reason: str = "") -> Signed:
        """A person says what packages may do here at most.

        Raises:
            NotAuthorised: if the person's key is not at hand.
            UsageError: if a permission is none.
        """
        desk, terms = self._desk, terms or Terms()
        before = [r for _, r in desk.unrevoked(RuntimeContract)]
        known = before[-1] if before else _widest(desk)
        permissions = terms.permissions if terms.permissions is not None else known.permissions
        if unknown := sorted(set(permissions) - set(PERMISSIONS)):
            advice = f"Known: {', '.join(PERMISSIONS)}."
            raise UsageError(f"{printable(unknown[0])!r} is no permission", where="--permission", advice=advice)
        licences = terms.licences if terms.licences is not None else known.licences
        record = RuntimeContract(
            header=desk.header,
            contract_version=1 + max((r.contract_version for _, r in desk.all(RuntimeContract)), default=0),
            permissions=tuple(sorted(set(permissions))),
            licences=tuple(sorted({plain_name(one, "--licence") for one in licences})),
            maximum_packages=known.maximum_packages if terms.packages is None else terms.packages,
            maximum_bytes=known.maximum_bytes if terms.size is None else terms.size,
            maximum_decoded_bytes=known.maximum_decoded_bytes if terms.decoded is None else terms.decoded,
            agreed_by=plain_name(person, "--as"),
            reason=plain_text(reason, "--reason"),
        )
        signers = [Signer(key.public, person) for key in signers_here(desk, record, person)]
        check_entering(desk, record, signers, clock.now())
        return sign(desk, record, person)

    def make(self, name: str, model: str, wanted: Wanted) -> tuple[str, SkillPackage]:
        """Package a model that was admitted, or a source that was approved, for some clusters; installs nothing.

        Returns:
            The package's revision, and the package.

        Raises:
            StudbookError: any of its kinds, if nothing in force carries it, or its parts do not fit.
        """
        desk = self._desk
        require_key(desk, SkillPackage)
        order = _order(desk, name, desk.find_model(model), wanted)
        if earlier := packages(desk, name):
            newest = max(earlier.values(), key=lambda p: version_key(p.package_version))
            if version_key(order.version) <= version_key(newest.package_version):
                advice = f"Give it a version above {newest.package_version}."
                text = f"{order.version} does not follow {newest.package_version}"
                raise UsageError(text, where=name, advice=advice, reason="package.version")
        # Scored only once it is known that something carries it.
        judging.require_smoke(desk, [order.artifact])
        compose(desk, desk.header, order, clock.today())
        judging.evaluate(desk, [order.artifact], "development")
        package = compose(desk, desk.header, order, clock.today())
        return desk.workspace.commit(package), package

    def install(self, name: str) -> Installed:
        """Install a package: bytes, signatures, structure and smoke beside its place, one rename, then the ledger."""
        revision = self._find(name)
        require_key(self._desk, PackageEvent)
        install(self._desk, revision, clock.today())
        return self._told(revision)

    def list(self) -> tuple[Installed, ...]:
        """Every package, oldest first."""
        held, (_, out) = lives_of(self._desk), usable(self._desk)
        return tuple(self._row(revision, held.get(revision), out) for revision in packages(self._desk))

    def show(self, name: str) -> Shown:
        """One package, and everything that became of it."""
        desk, revision = self._desk, self._find(name)
        events = tuple(e for _, e in desk.unrevoked(PackageEvent) if e.package == revision)
        package = desk.workspace.get(revision, SkillPackage)
        return Shown(revision, package, self._told(revision).state, events)

    def suspend(self, name: str, reason: str = "") -> Installed:
        """Put a package aside; it can be taken up again."""
        return self._move(name, "suspended", reason)

    def resume(self, name: str, reason: str = "") -> Installed:
        """Take a suspended package up again, if everything that carried it still does."""
        revision = self._find(name)
        standing(self._desk, revision)
        require_carried(self._desk, revision, self._desk.workspace.get(revision, SkillPackage), clock.today())
        return self._move(revision, "verified", reason)

    def retire(self, name: str, reason: str = "") -> Installed:
        """Take a package out for good; its bytes leave the host's folder."""
        return self._move(name, "retired", reason)

    def quarantine(self, name: str, reason: str = "") -> Installed:
        """Take a package out of service at once and keep its bytes for whoever looks into it."""
        return self._move(name, "quarantined", reason)

    def _move(self, name: str, after: PackageState, reason: str) -> Installed:
        revision = self._find(name)
        move(self._desk, revision, after, plain_text(reason, "--reason"))
        return self._told(revision)

    def _told(self, revision: str) -> Installed:
        return self._row(revision, lives_of(self._desk).get(revision), usable(self._desk)[1])

    def _row(self, revision: str, life: Life | None, out: Mapping[str, str]) -> Installed:
        desk, package = self._desk, self._desk.workspace.get(revision, SkillPackage)
        return Installed(
            id=package.id,
            version=package.package_version,
            revision=revision,
            model=desk.name_of(package.artifact.sha256),
            clusters=package.clusters,
            state=life.state if life else "made",
            why_not=out.get(revision, "") if life else "is not installed",
        )

    def _find(self, name: str) -> str:
        """Revision of a package by it, the unique start of it, its id (the newest version), or ``id@version``.

        Raises:
            UsageError: if nothing, or more than one thing, is called that.
        """
        held = packages(self._desk)
        found = [r for r, p in held.items() if name == f"{p.id}@{p.package_version}"]
        if not found and (own := [r for r, p in held.items() if p.id == name]):
            found = [max(own, key=lambda r: version_key(held[r].package_version))]
        if not found and re.fullmatch(r"[0-9a-f]{8,64}", name):
            found = [r for r in held if r.startswith(name)]
        if len(found) == 1:
            return found[0]
        what = "is not unique; give more of its digest" if found else "is not the name of a package here"
        raise UsageError(f"{printable(name)!r} {what}", advice="See them: studbook package list", reason="usage.name")


def _order(desk: Desk, name: str, artifact: str, wanted: Wanted) -> Order:
    """What is wanted, with names resolved; the record's own rules refuse ids and versions that are none."""
    held = {
        m.name: m.source.adapter_sha256 for _, m in desk.registered().values() if isinstance(m.source, AdapterSource)
    }
    for adapter in wanted.adapters:
        if adapter not in held:
            text = "is not the name of a registered package"
            raise UsageError(
                text, where=printable(adapter), advice="Register its source.manifest first.", reason="usage.adapter"
            )
    if not wanted.clusters:
        raise UsageError("answers for nothing", where="--for", advice="Name its clusters.", reason="usage.cluster")
    return Order(
        id=_plain(name, "ID", r"[a-z0-9][a-z0-9.-]{0,62}"),
        version=_plain(wanted.version, "--version", r"[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?"),
        artifact=artifact,
        clusters=tuple(sorted({plain_name(c, "--for") for c in wanted.clusters})),
        stack=tuple(held[adapter] for adapter in wanted.adapters),
        requires=tuple(wanted.requires),
        permissions=tuple(wanted.permissions),
        input=wanted.input,
        output=wanted.output,
        unsupported=tuple(plain_text(t, "--unsupported") for t in wanted.unsupported),
        trade_offs=tuple(plain_text(t, "--trade-off") for t in wanted.trade_offs),
        fallback=wanted.fallback,
    )


def _plain(text: str, where: str, rule: str) -> str:
    if not re.fullmatch(rule, text):
        advice = "An id has lowercase letters, digits, dots and hyphens, a version looks like 1.0.0."
        raise UsageError(f"{printable(text)!r} is none", where=where, advice=advice, reason="usage.name")
    return text


def _widest(desk: Desk) -> RuntimeContract:
    """What the first contract begins with: every permission, and the policy's licences."""
    return RuntimeContract(
        header=desk.header,
        contract_version=1,
        permissions=PERMISSIONS,
        licences=tuple(sorted(rule.spdx for rule in desk.policy[1].licences)),
        maximum_packages=512,
        maximum_bytes=128 << 20,
        maximum_decoded_bytes=512 << 20,
        agreed_by=desk.header.owner,
        reason="",
    )
