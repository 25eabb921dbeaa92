"""The policy as people handle it: read it, compare two of them, sign the next one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from studbook.breeding.operators import every_type
from studbook.breeding.recipes import check_recipe
from studbook.breeding.template import operator_fields
from studbook.errors import OutOfOrder, OutsideAllowlist, RecordRefused, UsageError, printable
from studbook.files import read_file, write_new
from studbook.lab.desk import Desk
from studbook.lab.frozen import GATING_ROLES
from studbook.lab.pending import Signed, sign
from studbook.lab.routing import admitted_outputs, check_routed, operators_of
from studbook.policy import PolicyChange, check_operator, check_policy, check_version, record_changes
from studbook.records import (
    ChampionPromotion,
    Header,
    Policy,
    StageApproval,
    SuiteManifest,
    SuitesLock,
    read_plain_json,
    read_struct,
    replace,
    write_record,
)

__all__ = [
    "Policies",
    "as_policy",
    "check_next",
    "check_reach",
    "check_whole",
    "editable",
    "next_version",
    "policy_from",
]

_LIMIT = 1 << 20
_FILE = "policy.file"
# What the lab fills in; everything else is the owners' to write.
_FILLED_IN = ("header", "kind")


class Policies:
    """The facet behind ``studbook policy``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def show(self, file: Path | None = None) -> dict[str, Any]:
        """The policy in force, as people edit it; written to a new file too, if one is named.

        Raises:
            UsageError: if the file exists.
        """
        fields = editable(self._desk.policy[1])
        if file is not None:
            if file.exists() or file.is_symlink():
                advice = "Name a file that does not exist yet."
                raise UsageError("exists already", where=file, advice=advice, reason="usage.file")
            write_new(file, (json.dumps(fields, indent=2, ensure_ascii=False) + "\n").encode(), 0o644)
        return fields

    def diff(self, first: str, second: str) -> tuple[PolicyChange, ...]:
        """What changed between two policies, each a file, a version number, or ``current``.

        Raises:
            UsageError: if the lab holds no such version, or there is no such file.
            RecordRefused: if a file holds no whole policy.
        """
        return record_changes(self._named(first), self._named(second))

    def sign(self, file: Path, person: str) -> Signed:
        """A person signs the next policy; it is in force at once, or waits until enough people signed it.

        Args:
            file: The whole policy, as `show` writes it, with the next version number.
            person: Who signs.

        Raises:
            RecordRefused: if the file holds no whole policy; ``policy.file``.
            OutOfOrder: if its version is not the next; ``policy.replay``, ``policy.same``, ``policy.skip``.
            OutsideAllowlist: if no round could run under it; ``policy.unreachable`` if a stage could never be reached.
            NotAuthorised: if the person's key is not at hand.
        """
        policy = policy_from(read_file(file, _LIMIT), self._desk.header, file)
        check_next(self._desk, policy, file)
        check_reach(self._desk, policy)
        return sign(self._desk, policy, person)

    def route(self, name: str, person: str) -> Signed:
        """A person signs the policy in force again with an operator routed, citing every admitted output of it.

        Args:
            name: Its tag; or a model made here, for every operator that made it.
            person: Who signs.

        Raises:
            UsageError: if it is neither.
            OutOfOrder: if no output of it was admitted, or the policy routes it already; ``policy.admitted``.
            NotAuthorised: if the person's key is not at hand.
        """
        desk, policy = self._desk, self._desk.policy[1]
        known = {grant.operator: grant for grant in policy.operators}
        tags = (name,) if name in known else operators_of(desk, desk.find_model(name))
        routed = dict(known)
        for tag in tags:
            if tag in known and (found := admitted_outputs(desk, tag)):
                routed[tag] = structs.replace(known[tag], status="routed", admitted=found)
            else:
                raise OutOfOrder(
                    "no output of it that counts was admitted",
                    where=f"policy: operators: {printable(tag)}",
                    advice="Release one to shadow first; its gates are the evidence.",
                    reason="policy.admitted",
                )
        if routed == known:
            text, advice = "is routed already, or was made by no operator", "Nothing has to be signed."
            raise OutOfOrder(text, where=printable(name), advice=advice, reason="policy.admitted")
        record = replace(
            policy, header=desk.header, policy_version=next_version(desk), operators=tuple(routed.values())
        )
        check_next(desk, record, "policy")
        return sign(desk, record, person)

    def _named(self, name: str) -> Policy:
        if name == "current":
            return self._desk.policy[1]
        if re.fullmatch(r"[0-9]{1,9}", name):
            found = [p for _, p in self._desk.all(Policy) if p.policy_version == int(name)]
            if not found:
                versions = ", ".join(str(p.policy_version) for _, p in self._desk.all(Policy))
                advice = f"Versions here: {versions}. A file whose name is a number: ./{name}"
                raise UsageError("is no version of this lab's policy", where=name, advice=advice, reason="usage.name")
            return found[-1]
        return policy_from(read_file(Path(name), _LIMIT), self._desk.header, name)


def editable(policy: Policy) -> dict[str, Any]:
    """A policy's fields as plain JSON values, without those that the lab fills in."""
    fields: dict[str, Any] = msgspec.json.decode(write_record(policy))
    order = [f for f in Policy.__struct_fields__ if f not in _FILLED_IN]
    return {field: fields[field] for field in order}


def policy_from(data: bytes, header: Header, where: object) -> Policy:
    """A whole policy from a file that people wrote: every field, and no other.

    Args:
        data: JSON.
        header: The header it gets.
        where: Its file, for errors.

    Raises:
        RecordRefused: if it is not JSON, or a field is missing, unknown or out of range; ``policy.file``.
    """
    fields = read_plain_json(data, where)
    if not isinstance(fields, Mapping):
        advice = "Begin with what `studbook policy show` prints."
        raise RecordRefused("is not a JSON object", where=where, advice=advice, reason=_FILE)
    if filled := [field for field in _FILLED_IN if field in fields]:
        advice = "Leave it out: the lab fills it in when the policy is signed."
        raise RecordRefused(f"states {filled[0]!r}", where=where, advice=advice, reason=_FILE)
    return as_policy({**fields, "header": header, "kind": Policy.kind()}, where)


def as_policy(fields: Mapping[str, Any], where: object) -> Policy:
    """A policy from plain JSON values, header and kind included, through the strict door.

    Raises:
        RecordRefused: if a field is missing, unknown or out of range; ``policy.file``.
    """
    try:
        written = write_record(msgspec.convert(fields, Policy))
    except (msgspec.ValidationError, RecordRefused) as error:
        advice = "Mend the named field. `studbook policy show` prints a policy with every field."
        raise RecordRefused(printable(error), where=where, advice=advice, reason=_FILE) from error
    return read_struct(written, Policy, where)


def check_whole(policy: Policy) -> None:
    """Refuse a policy under which no round could run, its recipes included, or that bounds what is no parameter.

    Raises:
        OutsideAllowlist: naming the field; ``policy.field``.
        RecordRefused: if a recipe is no operator record.
    """
    check_policy(policy)
    known = {kind.tag(): kind for kind in every_type()}
    for grant in policy.operators:
        for field in grant.bounds if grant.operator in known else ():
            if field not in known[grant.operator].__struct_fields__:
                # It would bound nothing, and nobody would notice.
                raise OutsideAllowlist(
                    f"{grant.operator} has no parameter {field!r}",
                    where=f"policy: operators: {grant.operator}: bounds",
                    advice=f"Its parameters: {', '.join(known[grant.operator].__struct_fields__) or 'none'}.",
                    reason="policy.field",
                )
    for recipe in policy.recipes:
        check_operator(policy, operator_fields(check_recipe(recipe)))


def next_version(desk: Desk) -> int:
    """The version that the next policy must have.

    The first is version 1, and every one that entered counts: what a stolen key signed is no policy any more, but its
    number is used up. So the entries alone say it, even where no policy is left in force.
    """
    return 1 + sum(entry.record_kind == Policy.kind() for entry in desk.entries())


def check_next(desk: Desk, policy: Policy, where: object) -> None:
    """Refuse a policy that does not follow those of the lab, or under which no round could run.

    Args:
        desk: The lab as it is before the policy.
        policy: The policy.
        where: Its file or record, for errors.

    Raises:
        StudbookError: as `check_whole`, `studbook.policy.check_version` and `studbook.lab.routing.check_routed`.
    """
    check_version(policy, next_version(desk), where)
    check_whole(policy)
    check_routed(desk, policy)


def check_reach(desk: Desk, policy: Policy) -> None:
    """Refuse to sign a policy that asks for more people before a stage than hold a key, or protects what nothing judges.

    Only for whoever signs: keys and suites come and go, and a policy that was in reach stays what it is.

    Args:
        desk: The lab.
        policy: The policy.

    Raises:
        OutsideAllowlist: naming the stage or the cluster; ``policy.unreachable``.
    """
    _check_protected(desk, policy)
    grants = desk.workspace.authority().root.keys
    voters = {g.owner for g in grants if StageApproval.kind() in g.kinds}
    promoters = {g.owner for g in grants if ChampionPromotion.kind() in g.kinds}
    # Whoever promotes is one of those who approve, whether they hold a key for approvals too or not.
    reach = {"shadow": len(voters), "canary": len(voters), "champion": len(voters) + bool(promoters - voters)}
    for rule in policy.stages:
        if rule.approvals > (found := reach.get(rule.stage, 0)):
            raise OutsideAllowlist(
                f"asks for {rule.approvals} distinct owners, and {found} can say yes",
                where=f"policy: stages: {rule.stage}: approvals",
                advice=f"Give more owners a key first: studbook key new NAME --kind {StageApproval.kind()} --as PERSON",
                reason="policy.unreachable",
            )


def _check_protected(desk: Desk, policy: Policy) -> None:
    """Where suites are frozen, every protected cluster has its own before each step of a round; else none could end."""
    locks = [lock for _, lock in desk.all(SuitesLock)]
    frozen = [desk.workspace.get(d, SuiteManifest) for d in locks[-1].suites] if locks else []
    held = {(m.role, m.cluster) for m in frozen if m.dimension == "task"}
    for role, cluster in ((r, c) for c in policy.protected for r in GATING_ROLES if locks):
        if (role, cluster) not in held:
            judged = ", ".join(sorted({c for r, c in held if r == role})) or "nothing"
            raise OutsideAllowlist(
                f"no frozen {role} suite has the label {cluster}; there are suites of {judged}",
                where="policy: protected",
                advice="Freeze its suites first: studbook suite freeze FOLDER ...; or protect other clusters.",
                reason="policy.unreachable",
            )
