"""The rules of a root of keys that no single field can state, each refused by its own reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import NamedTuple

from studbook.errors import NotAuthorised
from studbook.records import KINDS, Root, Zone

__all__ = ["PEOPLES_KINDS", "Signer", "check_root"]

# What only a person may sign; no running process holds a key for it. The root itself is signed by root keys alone.
PEOPLES_KINDS = frozenset(
    (
        "champion-promotion/1",
        "code-change-closing/1",
        "evaluator-change/1",
        "parent-approval/1",
        "policy/1",
        "resumption/1",
        "revocation/1",
        "runtime-contract/1",
        "stage-approval/1",
        "suites-lock/1",
        "tombstone/1",
    )
)
_P = 2**255 - 19
# Ordinates of the points of order 1, 2, 4 and 8 on edwards25519 (RFC 8032 section 5.1): a signature under such a key
# can be written by anybody.
_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_WEAK = {0, 1, _P - 1, _ORDER_8, _P - _ORDER_8}


class Signer(NamedTuple):
    """Who stands behind one signature.

    Attributes:
        key: The public key, 64 hex digits.
        owner: The person who answers for it.
    """

    key: str
    owner: str


def check_root(root: Root, where: object = "root of keys") -> None:
    """Check every rule of a root.

    The reasons: ``authority.key-weak``, ``authority.key-zones`` (one key, one zone), ``authority.key-twice`` (distinct
    key bytes), ``authority.owner-twins``, ``authority.kind-zone``, ``authority.root-kind``, ``authority.person-kind``,
    ``authority.separation``, ``authority.threshold-twice``, ``authority.threshold-unreachable``,
    ``authority.evaluator-threshold``.

    Raises:
        NotAuthorised: naming the key, kind or owner that breaks one.
    """
    for reason, text in _broken(root):
        advice = "Have the owners sign a root that keeps this rule; one that breaks it gives nobody any right."
        raise NotAuthorised(text, where=where, advice=advice, reason=f"authority.{reason}")


def _broken(root: Root) -> Iterator[tuple[str, str]]:
    yield from _broken_keys(root)
    yield from _broken_kinds(root)
    yield from _broken_separation(root)
    yield from _broken_thresholds(root)


def _broken_keys(root: Root) -> Iterator[tuple[str, str]]:
    named = [*((k.key, k.owner, Zone.POLICY) for k in root.owners.keys), *((g.key, g.owner, g.zone) for g in root.keys)]
    for key in dict.fromkeys(key for key, _, _ in named):
        ordinate = int.from_bytes(bytes.fromhex(key), "little") & (2**255 - 1)
        if ordinate >= _P or ordinate in _WEAK:
            yield "key-weak", f"key {key[:16]}... is a point that anybody can sign for"
        zones = sorted({zone.value for k, _, zone in named if k == key})
        if len(zones) > 1:
            yield (
                "key-zones",
                f"key {key[:16]}... stands in the zones {' and '.join(zones)}; one key signs for one zone",
            )
        owners = sorted({owner for k, owner, _ in named if k == key})
        if len(owners) > 1:
            yield "key-twice", f"key {key[:16]}... is listed for {' and '.join(owners)}; a key has one owner"
    for what, keys in (("root keys", [k.key for k in root.owners.keys]), ("grants", [g.key for g in root.keys])):
        if twice := [key for key, count in Counter(keys).items() if count > 1]:
            yield "key-twice", f"key {twice[0][:16]}... stands twice among the {what}"
    owners_ = sorted({owner for _, owner, _ in named})
    for folded, count in Counter(owner.casefold() for owner in owners_).items():
        if count > 1:
            yield "owner-twins", f"owner {folded} is written in {count} ways; one person would count more than once"


def _broken_kinds(root: Root) -> Iterator[tuple[str, str]]:
    for grant in root.keys:
        for kind in grant.kinds:
            if kind == Root.kind():
                yield "root-kind", f"key {grant.key[:16]}... is granted {kind}, which root keys alone sign"
            if kind in KINDS and KINDS[kind].zone != grant.zone:
                yield "kind-zone", f"{kind} belongs to zone {KINDS[kind].zone.value}, not to {grant.zone.value}"
            if kind in PEOPLES_KINDS and grant.holder != "person":
                yield "person-kind", f"{kind} is for people, and key {grant.key[:16]}... is held by a process"


def _broken_separation(root: Root) -> Iterator[tuple[str, str]]:
    if len({k.owner for k in root.owners.keys}) < 2:
        return
    made = {g.owner for g in root.keys if g.zone == Zone.CANDIDATE}
    judged = {g.owner for g in root.keys if g.zone == Zone.EVALUATION}
    for owner in sorted(made & judged):
        text = f"{owner} owns a candidate key and an evaluation key; where there are two owners, the judge is another"
        yield "separation", text


def _broken_thresholds(root: Root) -> Iterator[tuple[str, str]]:
    wanted = {(t.zone, t.kind): t.owners for t in root.thresholds}
    if len(wanted) != len(root.thresholds):
        yield "threshold-twice", "two thresholds name one kind"
    reach = _reach(root.owners.threshold, [k.owner for k in root.owners.keys])
    if reach:
        yield "threshold-unreachable", f"a root of keys {reach}"
    for (zone, kind), count in wanted.items():
        owners = [g.owner for g in root.keys if g.zone == zone and kind in g.kinds]
        # People are listed one by one: until enough of them are, no evaluator is changed, and that harms nobody.
        if kind != "evaluator-change/1" and (reach := _reach(count, owners)):
            yield "threshold-unreachable", f"{kind} in zone {zone.value} {reach}"
    needed = {kind: count for (_, kind), count in wanted.items()}
    granted = {kind for grant in root.keys for kind in grant.kinds}
    change, promotion = needed.get("evaluator-change/1", 1), needed.get("champion-promotion/1", 1)
    changers = {grant.owner for grant in root.keys if "evaluator-change/1" in grant.kinds}
    # One person alone could list anybody as a second one: asking for two would prove nothing (ADR 19).
    several = len(changers | {k.owner for k in root.owners.keys}) > 1
    if several and "evaluator-change/1" in granted and change <= promotion:
        text = f"an evaluator change needs {change} owners; it takes more than the {promotion} of a champion promotion"
        text += f"; ask for them first: studbook key rotate --needs evaluator-change/1={promotion + 1}"
        yield "evaluator-threshold", text


def _reach(wanted: int, owners: Collection[str]) -> str:
    there = len(set(owners))
    return f"needs {wanted} owners, and {there} could sign it" if there < wanted else ""
