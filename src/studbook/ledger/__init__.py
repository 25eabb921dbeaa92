"""The pedigree: an append-only file of signed lines, a hash chain and the leaves of a Merkle tree at once.

In the order a line walks:

* `studbook.ledger.chain`: a line is verified and chained to the one before it.
* `studbook.ledger.merkle`: it becomes a leaf of the tree, and proofs about it can be made.
* `studbook.ledger.note`: a signed checkpoint says how many entries there are and what the tree's root is.
* `studbook.ledger.witness`: a copy of the checkpoint outside the lab, which only moves forward.
* `studbook.ledger.proofs`: proofs as files, for those who do not have the ledger.
* `studbook.ledger.staging`: the files that enter with a line.
* `studbook.ledger.book`: all of it on disk.
"""

from __future__ import annotations

from studbook.ledger.book import Ledger
from studbook.ledger.chain import NOTHING, Draft
from studbook.ledger.note import audit_keys
from studbook.ledger.proofs import check_consistency, check_inclusion
from studbook.ledger.staging import Staging
from studbook.ledger.witness import Witness, default_witness

__all__ = [
    "NOTHING",
    "Draft",
    "Ledger",
    "Staging",
    "Witness",
    "audit_keys",
    "check_consistency",
    "check_inclusion",
    "default_witness",
]
