"""Federated round: clients train one parent apart, each on rows of its own, and the mean of their changes is the child."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from msgspec import Meta, Struct

from studbook.breeding.operators.adapter_train import Licence
from studbook.breeding.operators.parameters import MAX_PARENTS
from studbook.breeding.operators.trained import Learned, SliceDigest, Slices
from studbook.errors import OutsideAllowlist

__all__ = ["ClientData", "FederatedRound", "Limit"]

Limit = Annotated[
    float,
    Meta(
        description="largest ||change|| / ||parent|| of a client that is let in",
        extra={"low": 1e-6, "high": 4.0},
        extra_json_schema={"minimum": 1e-6, "maximum": 4.0},
    ),
]


class ClientData(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one client holds, and nobody else.

    Attributes:
        manifest: Digest of its registered data manifest.
        data: SHA-256 of every slice of that manifest.
        rows: Rows in all of them: its weight in the mean.
    """

    manifest: SliceDigest
    data: Slices
    rows: Annotated[int, Meta(ge=1, le=2**53 - 1)]


class FederatedRound(Learned, frozen=True, tag="federated-round/1"):
    """Train one parent at several clients that never share a row, and add the mean of their changes.

    Formula:
        child = p + sum_k (w_k / W) * d_k with d_k = q_k - p and w_k the rows of client k

        q_k is what fine-tune/1 makes of p with these steps, rate, batch, seed and reach on the slices of client k, without
        rehearsal, in a process that can open no others. A client whose training failed, or with ||d_k|| > limit * ||p||,
        is left out, and W is the sum of the weights of the others. The mean is federated-update/1 with scale 1 on the
        packages that the clients leave; the lab keeps them, so everything behind the training is exact on any machine.

    Source:
        McMahan et al., Communication-efficient learning of deep networks from decentralized data, arXiv 1602.05629.

    Base:
        The model the clients start from; in a round the champion, which is the parent too.

    Attributes:
        steps: Optimiser steps of every client, its whole budget.
        rate: Peak learning rate, 1e-7..1.
        batch: Rows a step, 1..4096.
        seed: Seed of the drawn rows.
        reach: Largest ||q_k - p|| over ||p||: a client's worker makes a larger change shorter.
        limit: Largest ||d_k|| over ||p|| of a client that is let in, measured on what it sent.
        licence: SPDX identifier that the packages state: the parent's.
        clients: Each with ``manifest`` (its data manifest), ``data`` (the slices of that) and ``rows``; a recipe names data
            manifests instead, by name or digest.

    Bound:
        ||p - base|| + reach * ||p|| + rounding.

    When to use:
        Rows that may not be brought together. Short rounds: clients that train long on rows of one kind drift apart.

    Failure modes:
        Skills whose rows nobody holds are forgotten. Norms say nothing about direction, and deltas tell of the rows they
        come from: neither robustness to a patient attacker nor privacy is claimed. The same record gives other bytes
        under another torch or vector unit.
    """

    family: ClassVar[str] = "federated-round"
    parents_needed: ClassVar[tuple[int, int]] = (1, 1)
    worker: ClassVar[str] = "studbook.breeding.federated_worker"

    limit: Limit
    licence: Licence
    clients: Annotated[tuple[ClientData, ...], Meta(max_length=MAX_PARENTS)]

    def slices(self) -> tuple[str, ...]:
        """Digests of the slices of every client."""
        return tuple(slice_ for client in self.clients for slice_ in client.data)

    def validate(self, parents: int | None = None) -> None:
        """As `Operator.validate`; also there are two clients at least, each with slices, and none has another's.

        Raises:
            OutsideAllowlist: as `Operator.validate`; ``operator.clients``.
            ParentsDoNotFit: as `Operator.validate`.
        """
        super().validate(parents)
        manifests, named = [c.manifest for c in self.clients], self.slices()
        faults = (
            (len(self.clients) < 2, "names fewer than two clients"),
            (not all(c.data for c in self.clients), "names a client without slices"),
            (len(set(manifests)) < len(manifests), "names a data manifest twice"),
            (len(set(named)) < len(named), "gives a slice to two clients"),
        )
        for wrong, what in faults:
            if wrong:
                raise OutsideAllowlist(
                    what,
                    where=f"{self.tag()}: clients",
                    advice="Name registered data manifests that share no slice, one a client.",
                    reason="operator.clients",
                )

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """Two clients of unequal size, and three with a limit below what they may reach."""
        common: dict[str, Any] = {"steps": 6, "rate": 1e-3, "batch": 48, "seed": 1, "licence": "CC0-1.0"}

        def client(name: str, rows: int) -> ClientData:
            return ClientData(manifest=name * 64, data=(chr(ord(name) + 3) * 64,), rows=rows)

        two = (client("1", 500), client("2", 300))
        return (
            cls(**common, reach=0.25, limit=0.25, clients=two),
            cls(**common, reach=4.0, limit=0.25, clients=(*two, client("3", 100))),
        )
