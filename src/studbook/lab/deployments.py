"""What works together with a model in a channel, package, router, thresholds, stack and caches: moved and put back whole."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from studbook.errors import DigestDiffers, OutOfOrder, UsageError
from studbook.lab.desk import Desk
from studbook.records import Deployment, RouterState, RouteThreshold, SkillPackage

__all__ = ["cache_key", "check_deployment", "deployment_of"]

_ADVICE = "Learn a router and name the two digests it tells: studbook routes learn"


def deployment_of(desk: Desk, artifact: str, router: str | None = None, thresholds: str | None = None) -> Deployment:
    """What a model is deployed with when it enters its first channel: the newest package of it, and what was named.

    Args:
        desk: The lab.
        artifact: Digest of the model.
        router: Digest of the record of a router's state, or its unique beginning.
        thresholds: The same of thresholds.

    Raises:
        UsageError: if there is no such record.
        OutOfOrder: if one is not of its kind, or was revoked; ``order.deployment``.
        DigestDiffers: if the thresholds were not measured with the router; ``release.deployment``.
    """
    found = [(d, p) for d, p in desk.unrevoked(SkillPackage) if p.artifact.sha256 == artifact]
    digest, package = found[-1] if found else (None, None)
    stack = package.stack if package else ()
    made = Deployment(
        package=digest,
        router=_record(desk, router, "--router"),
        thresholds=_record(desk, thresholds, "--thresholds"),
        stack=stack,
        cache=cache_key(artifact, stack) if package else None,
    )
    check_deployment(desk, artifact, made)
    return made


def cache_key(artifact: str, stack: Sequence[str]) -> str:
    """SHA-256 of 'studbook/cache/1' NUL and the raw digests of the model and its stack, in order: whose caches fit whom."""
    return hashlib.sha256(b"studbook/cache/1\0" + b"".join(map(bytes.fromhex, (artifact, *stack)))).hexdigest()


def check_deployment(desk: Desk, artifact: str, deployment: Deployment) -> None:
    """Hold a deployment against the records it names.

    Args:
        desk: The lab as it is before the move.
        artifact: Digest of the model.
        deployment: The deployment.

    Raises:
        DigestDiffers: if package, stack and cache are not of this model and of each other, or the thresholds were not
            measured with the router; ``release.deployment``.
        OutOfOrder: if a record it names is not of its kind, or was revoked; ``order.deployment``.
    """
    where = "deployment"
    named = (
        (deployment.package, SkillPackage.kind()),
        (deployment.router, RouterState.kind()),
        (deployment.thresholds, RouteThreshold.kind()),
    )
    for digest, kind in named:
        entry = desk.workspace.entry(digest) if digest else None
        if digest and (entry is None or entry.record_kind != kind or digest in desk.taken_back()):
            text = f"record {digest[:16]}... is no {kind}, or was revoked"
            raise OutOfOrder(text, where=where, advice=_ADVICE, reason="order.deployment")
    if deployment.thresholds is not None:
        _check_fits(desk.workspace.get(deployment.thresholds, RouteThreshold), deployment.router)
    if deployment.package is None:
        fits = not deployment.stack and deployment.cache is None
    else:
        package = desk.workspace.get(deployment.package, SkillPackage)
        key = cache_key(artifact, package.stack)
        fits = (package.artifact.sha256, package.stack, key) == (artifact, deployment.stack, deployment.cache)
    if not fits:
        advice = "Look who signed it; release the model anew with its own package."
        raise DigestDiffers(
            "package, stack and cache are not of one model", where=where, advice=advice, reason="release.deployment"
        )


def _check_fits(threshold: RouteThreshold, router: str | None) -> None:
    """Thresholds are the margin that was measured with the router beside them."""
    if (threshold.purpose, threshold.encoder) != ("margin", router):
        text = "the thresholds are no margin that was measured with its router"
        raise DigestDiffers(text, where="deployment", advice=_ADVICE, reason="release.deployment")


def _record(desk: Desk, name: str | None, option: str) -> str | None:
    if name is None:
        return None
    found = [e.record for e in desk.entries() if e.record.startswith(name)] if len(name) >= 8 else []
    if len(found) != 1:
        raise UsageError(f"{name!r} is not the digest of one record", where=option, reason="usage.name")
    return found[0]
