"""A package from an artifact of the lab: composed from what is on record and from the bytes; verify composes it again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import NamedTuple

from studbook.errors import DigestDiffers, OutOfOrder
from studbook.lab.desk import Desk
from studbook.lab.facts import require
from studbook.lab.package_basis import base_of, basis, quantised_from, smoke_of, stack_of
from studbook.lab.sources import licence_of
from studbook.models.engine import ENGINE_SHA256
from studbook.models.engine.compiled import ABI
from studbook.policy import inherited_licence
from studbook.records import (
    Blob,
    Compatibility,
    Header,
    JsonObject,
    PackageEvidence,
    RuntimeContract,
    RuntimeSmoke,
    Scorecard,
    SkillPackage,
    digest,
)
from studbook.runtime.packages import SLM, Artifact
from studbook.runtime.probing import Probe, probe
from studbook.schemas import check_schema

__all__ = [
    "Order",
    "check_contract",
    "check_package",
    "compose",
    "contract_in_force",
    "found_in",
    "order_of",
    "packages",
]

_STACKED = "The suites scored the model without the packages on it."


class Order(NamedTuple):
    """What somebody wants packaged.

    Attributes:
        id: Its stable name.
        version: Its semantic version.
        artifact: Digest of the model.
        clusters: What it shall answer for.
        stack: Digests of the adapters' files on it, in order.
        requires: Ids of the packages it needs.
        permissions: What it asks to be allowed.
        input: JSON Schema of the text that goes in.
        output: JSON Schema of the text that comes out.
        unsupported: What it does not do.
        trade_offs: What was given up.
        fallback: Id of the package to ask instead; None for the champion.
    """

    id: str
    version: str
    artifact: str
    clusters: tuple[str, ...]
    stack: tuple[str, ...]
    requires: tuple[str, ...]
    permissions: tuple[str, ...]
    input: JsonObject
    output: JsonObject
    unsupported: tuple[str, ...]
    trade_offs: tuple[str, ...]
    fallback: str | None


def packages(desk: Desk, name: str = "") -> dict[str, SkillPackage]:
    """Every package that counts, oldest first: revision -> package; of one id if it is given."""
    return {d: p for d, p in desk.unrevoked(SkillPackage) if name in ("", p.id)}


def contract_in_force(desk: Desk) -> tuple[str, RuntimeContract]:
    """Digest and record of the contract in force.

    Raises:
        OutOfOrder: if there is none; ``package.contract``.
    """
    found = desk.unrevoked(RuntimeContract)
    if not found:
        text = "nobody agreed to what packages may do here"
        advice = "A person signs it first: studbook package contract --as NAME"
        raise OutOfOrder(text, where="runtime-contract", advice=advice, reason="package.contract")
    return found[-1]


def check_contract(desk: Desk, record: RuntimeContract) -> None:
    """Refuse a contract that does not follow the one before.

    Raises:
        OutOfOrder: ``package.contract``.
    """
    # Every one counts for the number, one that was revoked too.
    before = max((r.contract_version for _, r in desk.all(RuntimeContract)), default=0)
    if record.contract_version != before + 1:
        text = f"has version {record.contract_version}, and {before + 1} comes next"
        raise OutOfOrder(text, where="runtime-contract: contract_version", reason="package.contract")


def compose(desk: Desk, header: Header, order: Order, day: date) -> SkillPackage:
    """The package that an order gives in the lab as it is; nothing is scored or written.

    Args:
        desk: The lab.
        header: Header of the record.
        order: What is wanted.
        day: The UTC day that approvals have to cover.

    Raises:
        StudbookError: any of its kinds, if nothing in force carries it, or its parts do not fit.
    """
    carried = basis(desk, order.artifact, order.clusters, day)
    smoke, _ = smoke_of(desk, order.artifact)
    stack = stack_of(desk, order.artifact, order.stack, order.clusters, day)
    seen = probe(desk.workspace.blob(order.artifact), stack, quantised_from(desk, order.artifact), order.id)
    found = found_in(desk, order.artifact, order.stack, seen)
    for name, schema in (("input", order.input), ("output", order.output)):
        check_schema(schema, f"skill-package {order.id}: {name}", "package.schema")
    cards = (d for d, c in desk.unrevoked(Scorecard) if (c.artifact, c.role) == (order.artifact, "development"))
    earlier = packages(desk, order.id)
    return SkillPackage(
        header=header,
        id=order.id,
        package_version=order.version,
        artifact=Blob(sha256=order.artifact, size=seen.size),
        base=found.base,
        tokenizer=seen.tokenizer,
        stack=order.stack,
        clusters=tuple(sorted(set(order.clusters))),
        requires=tuple(sorted(set(order.requires))),
        input=order.input,
        output=order.output,
        permissions=tuple(sorted(set(order.permissions))),
        licence=found.licence,
        envelope=seen.envelope,
        evidence=PackageEvidence(
            basis=carried.kind,
            record=carried.record,
            smoke=smoke,
            scorecards=carried.scorecards or tuple(cards)[-1:],
        ),
        unsupported=order.unsupported,
        trade_offs=tuple(dict.fromkeys((*order.trade_offs, *([_STACKED] if order.stack else [])))),
        fallback=order.fallback,
        rollback=list(earlier)[-1] if earlier else None,
        compatibility=Compatibility(slm=SLM, engine=ENGINE_SHA256, abi=ABI),
    )


def found_in(desk: Desk, artifact: str, stack: Sequence[str], seen: Probe) -> Artifact:
    """What the bytes of a package say, with what is on record of them.

    Raises:
        OutOfOrder: if it has no licence on record; ``package.licence``.
    """
    licences = [licence_of(desk, d) for d in (artifact, *stack)]
    held = [licence for licence in licences if licence]
    if len(held) < len(licences):
        advice = "Register it with its licence.manifest."
        raise OutOfOrder(
            "has no licence on record", where=desk.name_of(artifact), advice=advice, reason="package.licence"
        )
    return Artifact(
        sha256=seen.sha256,
        size=seen.size,
        stack=tuple(stack),
        stack_bytes=sum(desk.workspace.blob_size(d) for d in stack),
        tokenizer=seen.tokenizer,
        base=base_of(desk, artifact),
        decoded_bytes=seen.decoded_bytes,
        licence=inherited_licence(desk.policy[1], held) if stack else held[0],
        engine=ENGINE_SHA256,
        abi=ABI,
    )


def order_of(package: SkillPackage) -> Order:
    """What was wanted when a package was made."""
    return Order(
        id=package.id,
        version=package.package_version,
        artifact=package.artifact.sha256,
        clusters=package.clusters,
        stack=package.stack,
        requires=package.requires,
        permissions=package.permissions,
        input=package.input,
        output=package.output,
        unsupported=package.unsupported,
        trade_offs=package.trade_offs,
        fallback=package.fallback,
    )


def check_package(desk: Desk, record: SkillPackage) -> None:
    """A package is what its order gives in the lab as it was before it.

    Raises:
        DigestDiffers: naming the first field that is another; ``package.field``.
        StudbookError: any of its kinds, if nothing carried it then.
    """
    entry = desk.workspace.entry(digest(record))
    assert entry is not None
    smoke = desk.workspace.get(record.evidence.smoke, RuntimeSmoke)
    if record.compatibility.engine != ENGINE_SHA256:
        # Another version of the program composed it, and what its engine found is not this one's to find again.
        if smoke.engine != record.compatibility.engine:
            raise DigestDiffers("was not smoked with the engine it names", where="skill-package: compatibility")
        basis(desk, record.artifact.sha256, record.clusters, datetime.fromisoformat(entry.time).date())
        return
    again = compose(desk, record.header, order_of(record), datetime.fromisoformat(entry.time).date())
    fields = record.__struct_fields__
    require("skill-package", {f: (getattr(record, f), getattr(again, f)) for f in fields}, "package.field")
