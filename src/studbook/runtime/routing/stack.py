"""Adapters on a shared base: put on only after base and tokenizer are known, by digest, to be those they were made for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from studbook.adapters.reader import parse_adapter
from studbook.adapters.stack import Diagnostics
from studbook.errors import DigestDiffers, OutOfOrder, UsageError
from studbook.models.engine import Engine

__all__ = ["MAX_ADAPTERS", "StackPlan", "apply_stack", "check_stack"]

MAX_ADAPTERS = 5
"""Most adapter packages on one base."""


class StackPlan(NamedTuple):
    """Which adapters shall stand on which base.

    Attributes:
        base: Digest of the f32 model all of them were made for.
        tokenizer: Digest of its tokenizer section.
        adapters: Digests of the packages, in order.
    """

    base: str
    tokenizer: str
    adapters: tuple[str, ...]


def check_stack(plan: StackPlan, engine: Engine, packages: Sequence[bytes]) -> None:
    """Refuse a stack unless every identity is the one that was planned; the engine's weights are not touched.

    Args:
        plan: What shall be.
        engine: The base, open.
        packages: The bytes of the packages, in order.

    Raises:
        UsageError: if there are none or too many packages; ``route.stack``.
        DigestDiffers: naming base, tokenizer or package that is another one; ``route.base``, ``route.tokenizer`` or
            ``route.adapter``.
        AdapterRefused: if a package breaks a rule.
    """
    if not 1 <= len(plan.adapters) == len(packages) <= MAX_ADAPTERS:
        text = f"{len(packages)} packages for a stack of {len(plan.adapters)}; 1 to {MAX_ADAPTERS}"
        raise UsageError(text, reason="route.stack", advice="Give the bytes of every package that the stack names.")
    _same("the open model", engine.facts.sha256, plan.base, "route.base")
    _same("the open model's tokenizer", engine.facts.tokenizer_sha256, plan.tokenizer, "route.tokenizer")
    for number, (promised, data) in enumerate(zip(plan.adapters, packages, strict=True)):
        where = f"adapter {number}"
        _same(where, hashlib.sha256(data).hexdigest(), promised, "route.adapter")
        package = parse_adapter(data, where)
        _same(f"{where}: base", package.meta.base_sha256, plan.base, "route.base")
        _same(f"{where}: tokenizer", package.head.tokenizer_sha256, plan.tokenizer, "route.tokenizer")


def apply_stack(plan: StackPlan, engine: Engine, packages: Sequence[bytes]) -> Diagnostics:
    """Put the packages on, in order: all of them or none.

    Args:
        plan: What shall be.
        engine: The base, open.
        packages: The bytes of the packages, in order.

    Raises:
        OutOfOrder: if packages are on already; ``route.stacked``.
        StudbookError: as `check_stack`, and as `Engine.apply`; the weights are then as they were.
    """
    if applied := engine.diagnostics().applied:
        advice = "Take them off first."
        raise OutOfOrder(f"{len(applied)} packages are on already", reason="route.stacked", advice=advice)
    check_stack(plan, engine, packages)
    return engine.apply(*packages)


def _same(what: str, found: str, promised: str, reason: str) -> None:
    if found != promised:
        text = f"is {found[:16]}..., and {promised[:16]}... was planned"
        raise DigestDiffers(
            text, where=what, reason=reason, advice="Stack adapters of one base and one tokenizer only."
        )
