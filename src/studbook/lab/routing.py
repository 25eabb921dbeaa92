"""From offline to routed: whose outputs may be offered outside the lab, and what makes an operator's outputs such.

An operator is offline until a signed policy cites admitted outputs of it. What an offline operator made may be bred from,
judged, and released to shadow and champion here; no publication and no registry of routes ever takes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studbook.errors import OutOfOrder
from studbook.lab.checkpoints import recipe_of
from studbook.lab.desk import Desk
from studbook.records import (
    AdmissionRecord,
    CandidateManifest,
    LineageTemplate,
    OperatorGrant,
    Policy,
)

__all__ = ["admitted_outputs", "check_routed", "kept_inside", "operators_of"]


def operators_of(desk: Desk, artifact: str) -> tuple[str, ...]:
    """Tags of every operator that made an artifact here, those inside a scheduled one too; none of a registered source.

    Args:
        desk: The lab.
        artifact: Digest of the artifact.
    """
    found: list[str] = []
    for _, manifest in desk.manifests():
        if manifest.artifact.sha256 == artifact:
            if not isinstance(manifest, CandidateManifest):
                # It was somebody's before anything here made it again.
                return tuple(dict.fromkeys(found))
            found += _tags(desk.workspace.get(manifest.template, LineageTemplate))
    return tuple(dict.fromkeys(found))


def admitted_outputs(desk: Desk, operator: str) -> tuple[str, ...]:
    """Digests of the admissions that count of an operator's outputs, oldest first.

    Args:
        desk: The lab.
        operator: Its tag.
    """
    return tuple(
        digest
        for digest, record in desk.unrevoked(AdmissionRecord)
        if not desk.revoked(record.artifact) and operator in operators_of(desk, record.artifact)
    )


def check_routed(desk: Desk, policy: Policy) -> None:
    """Refuse a policy that routes an operator on anything but admitted outputs of it that count.

    Args:
        desk: The lab as it is before the policy.
        policy: The policy.

    Raises:
        OutOfOrder: naming the operator and the record; ``policy.admitted``.
    """
    for grant in policy.operators:
        counts = admitted_outputs(desk, grant.operator) if grant.admitted else ()
        for digest in grant.admitted:
            if digest not in counts:
                raise OutOfOrder(
                    f"{digest[:16]}... is no admission of an output of {grant.operator} that counts",
                    where=f"policy: operators: {grant.operator}: admitted",
                    advice="Cite admissions of its own outputs, none revoked or withdrawn: studbook list admission-record/1",
                    reason="policy.admitted",
                )


def kept_inside(desk: Desk, artifact: str) -> str:
    """Why an artifact may be offered to nobody outside the lab; empty where it may.

    Every door to the outside asks this: publications do, and so has a registry of routes to.

    Args:
        desk: The lab.
        artifact: Digest of the artifact.
    """
    grants = {grant.operator: grant for grant in desk.policy[1].operators}
    for operator in operators_of(desk, artifact):
        if why := _offline(desk, operator, grants.get(operator)):
            return f"was made by {operator}, {why}"
    return ""


def _offline(desk: Desk, operator: str, grant: OperatorGrant | None) -> str:
    if grant is None:
        return "which the policy does not name any longer"
    if grant.status == "offline":
        return f"which is offline; once it is admitted: studbook policy route {operator} --as NAME"
    if not set(grant.admitted) & set(admitted_outputs(desk, operator)):
        return "and of the outputs that made it routed none counts any longer"
    return ""


def _tags(template: LineageTemplate) -> list[str]:
    recipe = recipe_of(template)
    record: Mapping[str, Any] = recipe.operator if recipe is not None else template.operator
    tags = []
    while isinstance(record, Mapping):
        tags.append(str(record.get("operator")))
        record = record.get("inner")  # type: ignore[assignment]
    return tags
