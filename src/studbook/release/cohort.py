"""Which requests a candidate answers, and which are followed by a probe: a hash decides, and no client.

A request is known by the number under which the server counts it. Plans carry a random salt, so their digests, and with
them the cohort, are known to nobody outside beforehand.
"""

from __future__ import annotations

import hashlib

__all__ = ["drawn", "in_cohort", "probe_after"]


def in_cohort(plan: str, number: int, share: float) -> bool:
    """Whether the candidate answers a request.

    Args:
        plan: Digest of the plan.
        number: The request's.
        share: Share of requests in the cohort; whoever is in a smaller one is in every larger one.
    """
    return _share(b"cohort", plan, number) < share


def probe_after(plan: str, number: int, share: float) -> bool:
    """Whether a probe follows a request; whether the request is in the cohort says nothing about that."""
    return _share(b"probe", plan, number) < share


def drawn(plan: str, number: int, count: int) -> int:
    """Which of some probes follows a request: an index below ``count``."""
    return int(_share(b"item", plan, number) * count)


def _share(purpose: bytes, plan: str, number: int) -> float:
    """The first 53 bits of SHA-256('studbook/cohort/1' NUL | purpose NUL | raw digest | u64 LE number), as 0 to 1."""
    data = b"studbook/cohort/1\0" + purpose + b"\0" + bytes.fromhex(plan) + number.to_bytes(8, "little")
    return (int.from_bytes(hashlib.sha256(data).digest()[:8], "big") >> 11) * 2.0**-53
