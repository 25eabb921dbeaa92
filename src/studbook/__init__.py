"""Studbook: an offline lab that breeds small language models and can prove what it did.

A guided tour, in the order a parent walks. `Lab` is the door, and each of its methods is one verb of the command line:

    with Lab("my-lab") as lab:
        lab.register(founder)                      # bytes, licence and data become records; registered is not approved
        lab.approve("rev-srt", "ada")              # a person's key says: this one may be a parent
        lab.suites.freeze([suites], "ada")         # what judges is fixed before anything is bred
        outcome = lab.round("rot")                 # select, breed, evaluate, decide, release to shadow or archive
        lab.release(outcome.released, "champion", "ada")
        lab.rollback("champion")                   # back to the one before, by digest
        lab.verify()                               # every byte, signature, chain, alias, claim and decision
        lab.reproduce(outcome.released)            # the same digest again, from parents and receipt alone

Behind the door, one package a question:

* `studbook.registry`: which parents are there, who approved them, do they fit?
* `studbook.breeding`: how was this candidate made, and does it come out the same again?
* `studbook.evaluation`: what can it do, on which frozen items?
* `studbook.viability`: is it better than the champion, than its parents and than doing nothing?
* `studbook.release`: may it move, who has to say so, and what is the way back?
* `studbook.population`: which recipe is best, within an exact budget of evaluations?
* `studbook.exchange`: what does somebody else's merge file mean here?
* `studbook.lab`: puts the rooms together and is the only one that writes.

They stand on a cellar that knows nothing of breeding: `ledger`, `workspace`, `seal`, `policy`, `sandbox`, `executor`,
`statistics`, `adapters`, `models`, `tensors`, `fetch`, `files`; on `studbook.records`, where every noun is a frozen struct
with canonical bytes; and on `studbook.errors`, one tree of everything that can go wrong, with advice.

Nothing is imported until it is asked for, so ``import studbook`` costs milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from studbook.errors import (
        AdapterRefused,
        Busy,
        BytesLie,
        ClaimRefused,
        DigestDiffers,
        ManifestRefused,
        NotAuthorised,
        OutOfOrder,
        OutsideAllowlist,
        OverBudget,
        ParentsDoNotFit,
        RecordRefused,
        SlmRefused,
        StudbookError,
        TokenizerRefused,
        UsageError,
    )
    from studbook.fetch import HttpMirror
    from studbook.lab import Lab
    from studbook.records import Policy, Record, digest, read_record
    from studbook.seal import SigningKey

__all__ = [
    "AdapterRefused",
    "Busy",
    "BytesLie",
    "ClaimRefused",
    "DigestDiffers",
    "HttpMirror",
    "Lab",
    "ManifestRefused",
    "NotAuthorised",
    "OutOfOrder",
    "OutsideAllowlist",
    "OverBudget",
    "ParentsDoNotFit",
    "Policy",
    "Record",
    "RecordRefused",
    "SigningKey",
    "SlmRefused",
    "StudbookError",
    "TokenizerRefused",
    "UsageError",
    "digest",
    "read_record",
]

_ELSEWHERE = {
    "HttpMirror": "fetch",
    "Lab": "lab",
    "Policy": "records",
    "Record": "records",
    "SigningKey": "seal",
    "digest": "records",
    "read_record": "records",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'studbook' has no attribute {name!r}")
    found = getattr(import_module(f"studbook.{_ELSEWHERE.get(name, 'errors')}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted(__all__)
