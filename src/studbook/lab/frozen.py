"""The frozen suites that count, by role."""

from __future__ import annotations

from collections.abc import Iterator

from studbook.errors import DigestDiffers, OutOfOrder
from studbook.evaluation.scorecards import SuiteFile
from studbook.evaluation.scoring import KINDS
from studbook.evaluation.suites import known_items, scorer_sha256
from studbook.lab.desk import Desk
from studbook.records import SuiteManifest
from studbook.records.evaluation import Role

__all__ = ["GATING_ROLES", "every", "of_role"]

GATING_ROLES: tuple[Role, ...] = ("development", "selection", "sealed")
"""Roles whose suites stop candidates: the screen's, the finalists' and the winner's."""


def of_role(desk: Desk, role: Role, *, needed: bool = True) -> tuple[SuiteFile, ...]:
    """The suites in force for a role, in the order of the lock.

    Args:
        desk: The lab.
        role: The role.
        needed: Whether there has to be one.

    Raises:
        OutOfOrder: if there is none and one is needed, or one was frozen under another version of its scorer.
        DigestDiffers: if the items of one are gone; ``digest.missing``.
    """
    found = tuple(_all(desk, role))
    if not found and needed:
        raise OutOfOrder(f"no {role} suite is frozen", advice="Freeze some: studbook suite freeze FOLDER ...")
    return found


def every(desk: Desk) -> tuple[SuiteFile, ...]:
    """All suites in force, in the order of the lock.

    Raises:
        OutOfOrder: if one was frozen under another version of its scorer.
    """
    return tuple(_all(desk))


def _all(desk: Desk, role: Role | None = None) -> Iterator[SuiteFile]:
    _, lock = desk.suites_lock
    for suite in lock.suites:
        manifest = desk.workspace.get(suite, SuiteManifest)
        if role is not None and manifest.role != role:
            continue
        if manifest.scorer not in KINDS or manifest.scorer_sha256 != scorer_sha256(manifest.scorer):
            raise OutOfOrder(
                f"suite {manifest.name} was frozen under another version of its scorer",
                advice="Freeze it again: an evaluator change is never silent.",
                reason="order.scorer",
            )
        path = desk.workspace.blob_path(manifest.items.sha256)
        if not path.exists():
            raise DigestDiffers(
                f"the items of suite {manifest.name} are gone",
                where=path,
                advice="Restore the file from a backup; nothing is judged by a suite that is not whole.",
                reason="digest.missing",
            )
        items = known_items(desk.workspace.blob(manifest.items.sha256), path)
        yield SuiteFile(suite, manifest, path, items)
