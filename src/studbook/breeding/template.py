"""What is declared before anything runs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from studbook.adapters.reader import Adapter
from studbook.breeding.operators import AnyOperator
from studbook.breeding.operators.bounds import norm
from studbook.breeding.recipes import recipe_sha256
from studbook.breeding.sources import as_inputs
from studbook.errors import OverBudget, ParentsDoNotFit
from studbook.models.slm import Slm
from studbook.models.slm_layout import MAX_FILE_BYTES
from studbook.models.slm_writer import write_slm
from studbook.records import Expected, Header, LineageTemplate, Policy, WorkerLimits
from studbook.tensors.contract import CONTRACT_SHA256

__all__ = ["draft", "operator_fields"]


def operator_fields(operator: AnyOperator) -> dict[str, Any]:
    """An operator as plain JSON values."""
    fields: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(operator))
    return fields


def draft(
    header: Header,
    policy: Policy,
    policy_digest: str,
    cluster: str | None,
    compatibility: str | None,
    operator: AnyOperator,
    base: Slm,
    parents: Sequence[Slm | Adapter],
    purpose: Literal["candidate", "ablation"] = "candidate",
) -> LineageTemplate:
    """Bind parents, operator, budget and expected output.

    Args:
        header: Record header.
        policy: The policy in force.
        policy_digest: Its digest.
        cluster: Digest of the failure cluster.
        compatibility: Digest of the passing report, for operators of several parents.
        operator: The operator.
        base: The reference the output is bounded against.
        parents: The parents, in order.
        purpose: Candidate or ablation row.

    Raises:
        ParentsDoNotFit: if the operator wants another number of parents.
        OverBudget: if the declared output would break the policy's budget; nothing has run then.
    """
    fewest, most = operator.parents_needed
    if not fewest <= len(parents) <= most:
        raise ParentsDoNotFit(f"{operator.family} takes {fewest} to {most} parents, {len(parents)} were given")
    fields, digests = operator_fields(operator), tuple(p.sha256 for p in parents)
    return LineageTemplate(
        header=header,
        purpose=purpose,
        cluster=cluster,
        policy=policy_digest,
        compatibility=compatibility,
        base=base.sha256,
        parents=digests,
        operator=fields,
        recipe_sha256=recipe_sha256(base.sha256, digests, fields),
        numeric_contract=CONTRACT_SHA256,
        limits=WorkerLimits(
            seconds=policy.budget.worker_seconds,
            memory_bytes=policy.budget.worker_bytes,
            output_bytes=min(policy.budget.output_bytes, MAX_FILE_BYTES),
        ),
        expected=_expected(operator, base, parents, policy),
    )


def _expected(operator: AnyOperator, base: Slm, parents: Sequence[Slm | Adapter], policy: Policy) -> Expected:
    label = operator.storage or "f32"
    inputs = as_inputs(base, parents)
    shape, tokenizer = operator.remake(base.shape, base.tokenizer)
    bound = operator.delta_bound(inputs)
    reference = operator.reference(inputs)
    relative = bound / max(norm(reference, reference.names), 1e-30)
    zeros = {spec.name: np.zeros(spec.dims, np.float32) for spec in shape.tensors()}
    size = len(write_slm(shape, tokenizer, zeros, label))
    budget = policy.budget
    if size > budget.output_bytes:
        raise OverBudget(f"the output would have {size} bytes; the policy allows {budget.output_bytes}")
    if not relative <= budget.relative_delta:
        raise OverBudget(
            f"{operator.family} may move the weights by {relative:.3f} of the base's norm; "
            f"the policy allows {budget.relative_delta:g}",
            where="policy: budget.relative_delta",
            reason="budget.relative-delta",
        )
    return Expected(
        layout_sha256=shape.layout_sha256(),
        tokenizer_sha256=hashlib.sha256(tokenizer.section()).hexdigest(),
        label=label,
        size_bytes=size,
        delta_norm=bound,
        relative_delta=relative,
    )
