"""Federated rounds on record: what every client sent, kept in the lab, so that `verify` averages it again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from studbook.breeding.federation import Left, Update, average_round, gather, limit_of
from studbook.breeding.operators import FederatedRound, decode_operator
from studbook.breeding.operators.run import compute
from studbook.breeding.sources import as_inputs
from studbook.errors import DigestDiffers, printable
from studbook.files import sha256_file
from studbook.lab.desk import Desk
from studbook.lab.facts import require
from studbook.models.slm import Slm
from studbook.models.slm_writer import write_slm
from studbook.records import ClientUpdate, FederatedReceipt, LineageTemplate, digest

__all__ = ["check_federated", "federated_on_record", "write_federated"]

_WORDS = 400


def write_federated(desk: Desk, template: LineageTemplate, sent: Sequence[Update | Left], output: str) -> None:
    """Put a round on record with the packages that were sent; nothing is written that could not be derived again.

    Args:
        desk: The lab.
        template: Its template.
        sent: What every client sent, in the operator's order.
        output: Digest of the child.

    Raises:
        DigestDiffers: if the packages do not give the child.
    """
    operator, start = _round(template), desk.model(template.parents[0])
    packages = {sha256_file(one.package): one.package for one in sent if isinstance(one, Update)}
    record = FederatedReceipt(
        header=desk.header,
        template=digest(template),
        limit=limit_of(operator, start),
        clients=_clients(operator, start, sent),
        output=output,
    )
    _check(desk, record, template, sent)
    desk.workspace.commit(record, packages)


def check_federated(desk: Desk, record: FederatedReceipt) -> None:
    """Hold every package against base and norm bound again, and average those that were let in.

    Args:
        desk: The lab as it was before the record.
        record: The receipt.

    Raises:
        DigestDiffers: naming the field that differs; ``federated.field``.
        StudbookError: any of its kinds, if the template is of no federated round, or a package is gone.
    """
    template = desk.workspace.get(record.template, LineageTemplate)
    _check(desk, record, template, [_sent(desk, client) for client in record.clients])


def federated_on_record(desk: Desk, template: str, artifact: str) -> bool:
    """Whether a receipt tells how the child of a federated round came about.

    Args:
        desk: The lab.
        template: Digest of its template.
        artifact: Digest of the child.
    """
    return any((r.template, r.output) == (template, artifact) for _, r in desk.all(FederatedReceipt))


def _round(template: LineageTemplate) -> FederatedRound:
    operator = decode_operator(template.operator)
    if not isinstance(operator, FederatedRound):
        raise DigestDiffers(
            f"its template is of {operator.tag()}, which has no clients",
            where="federated-receipt: template",
            advice="The record does not speak of what is stored here. Do not use what it describes.",
            reason="federated.field",
        )
    return operator


def _check(desk: Desk, record: FederatedReceipt, template: LineageTemplate, sent: Sequence[Update | Left]) -> None:
    operator, start = _round(template), desk.model(template.parents[0])
    silent = [c.manifest for c in record.clients if c.package is None and not c.reason]
    facts: dict[str, tuple[object, object]] = {
        "clients: names": (
            [(c.manifest, c.rows) for c in record.clients],
            [(c.manifest, c.rows) for c in operator.clients],
        ),
        "clients: reasons": (silent, []),
        "limit": (record.limit, limit_of(operator, start)),
    }
    require("federated-receipt", facts, "federated.field")
    inputs = as_inputs(desk.model(template.base), [start])
    learned, _ = average_round(operator, inputs, start, sent)
    tensors = compute(operator, learned)
    shaped = {spec.name: tensors[spec.name].reshape(spec.dims) for spec in start.shape.tensors()}
    child = hashlib.sha256(write_slm(start.shape, start.tokenizer, shaped)).hexdigest()
    facts = {"clients": (record.clients, _clients(operator, start, sent)), "output": (record.output, child)}
    require("federated-receipt", facts, "federated.field")


def _sent(desk: Desk, client: ClientUpdate) -> Update | Left:
    if client.package is None:
        return Left(client.manifest, client.reason, client.words)
    # Read whole once, so that it is what its digest says.
    desk.workspace.blob(client.package)
    return Update(client.manifest, desk.workspace.blob_path(client.package), client.rows)


def _clients(operator: FederatedRound, start: Slm, sent: Sequence[Update | Left]) -> tuple[ClientUpdate, ...]:
    gathered = gather(start, sent, limit_of(operator, start))
    norms = dict(zip(gathered.clients, gathered.norms, strict=True))
    left = {one.client: one for one in gathered.left}
    return tuple(
        ClientUpdate(
            manifest=one.client,
            rows=holding.rows,
            package=sha256_file(one.package) if isinstance(one, Update) else None,
            norm=norms.get(one.client),
            reason=left[one.client].reason if one.client in left else "",
            words=printable(left[one.client].words)[:_WORDS] if one.client in left else "",
        )
        for holding, one in zip(operator.clients, sent, strict=True)
    )
