"""What the ledger says of a bundle's evidence: its checkpoint, and a line for every record."""

from __future__ import annotations

import base64
from collections.abc import Callable

import msgspec
from msgspec import Struct

from studbook.assembly.meaning import Case, refuse
from studbook.assembly.plan import BROWSER
from studbook.errors import RecordRefused, StudbookError
from studbook.records import LedgerEvidence, decode_json

__all__ = ["check_ledger"]


def check_ledger(case: Case, inclusion: Callable[[bytes, int, int, list[bytes], bytes], None]) -> None:
    """Hold the ledger's evidence against the receipt, and every other record against the ledger's evidence.

    Args:
        case: The bundle.
        inclusion: Refuses a line (its bytes, position, size of the tree, path, root) that is not in the tree.

    Raises:
        Drift: ``evidence.ledger``.
    """
    # A BrowserSmoke is made of the bundle, so it enters the ledger after the checkpoint; the receipt binds it alone.
    ledger: LedgerEvidence = case.records["ledger"]
    mark = ledger.checkpoint
    root = base64.b64encode(bytes.fromhex(mark.root)).decode()
    if ledger.checkpoint != case.receipt.checkpoint or not ledger.note.startswith(
        f"{mark.origin}\n{mark.size}\n{root}\n"
    ):
        refuse("evidence.ledger", "the checkpoint is not the one that the receipt binds", "ledger")
    wanted = [(role, digest) for role, digest in case.digests.items() if role not in ("ledger", BROWSER)]
    if [(entry.role, entry.record) for entry in ledger.entries] != wanted:
        refuse("evidence.ledger", "does not speak of exactly the records of the evidence, in their order", "ledger")
    for entry in ledger.entries:
        path = [bytes.fromhex(node) for node in entry.path]
        try:
            inclusion(entry.line.encode(), entry.index, mark.size, path, bytes.fromhex(mark.root))
        except StudbookError as error:
            refuse("evidence.ledger", f"{entry.role}: {error.message}", "ledger")
        if _entered(entry.line) != (entry.record, entry.index):
            refuse("evidence.ledger", f"the line of {entry.role} is another record's", "ledger")


def _entered(line: str) -> tuple[str, int] | None:
    """Digest of the record and position of the entry that a signed line of the ledger is about."""
    try:
        envelope = msgspec.convert(decode_json(line.encode()), _Envelope)
        data = base64.b64decode(envelope.payload, validate=True)
        # Bits that stand for nothing could be any.
        if base64.b64encode(data).decode() != envelope.payload:
            return None
        statement = msgspec.convert(decode_json(data), _Statement)
    except (RecordRefused, msgspec.ValidationError, ValueError):
        return None
    return statement.predicate.record, statement.predicate.sequence


class _Envelope(Struct):
    payload: str


class _Predicate(Struct):
    record: str
    sequence: int


class _Statement(Struct):
    predicate: _Predicate
