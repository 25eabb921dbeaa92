"""Signatures: keys by zone and record kind, DSSE envelopes around in-toto statements, and who may sign at a position.

A key's public bytes are its identity. The root of keys says for which zone and which kinds of record it may sign, how
many people a kind needs, and who may replace the root itself. In the order an envelope walks:

* `studbook.seal.keys`: key files, one folder a zone.
* `studbook.seal.statement`: the in-toto statement of a record; subjects are the record first, then its artifacts.
* `studbook.seal.envelope`: DSSE, one or more signatures over one payload.
* `studbook.seal.roots`: the rules of a root of keys.
* `studbook.seal.authority`: the root in force at a position of the ledger, less what was revoked.
* `studbook.seal.verify`: the pipeline through all of them, and the step from one root to the next.
* `studbook.seal.succession`: roots and revocations of one ledger in order: the authority at every position.
"""

from __future__ import annotations

from studbook.seal.authority import Authority, check_revocation, keys_in_force, revoked_since
from studbook.seal.envelope import PAYLOAD_TYPE, add_signature, peek, seal, signing_keys
from studbook.seal.keys import KeyRing, Passphrase, SigningKey, read_passphrase
from studbook.seal.roots import PEOPLES_KINDS, Signer, check_root
from studbook.seal.succession import AUTHORITY_KINDS, Succession
from studbook.seal.verify import Sealed, follow_root, open_root, unseal

__all__ = [
    "AUTHORITY_KINDS",
    "PAYLOAD_TYPE",
    "PEOPLES_KINDS",
    "Authority",
    "KeyRing",
    "Passphrase",
    "Sealed",
    "Signer",
    "SigningKey",
    "Succession",
    "add_signature",
    "check_revocation",
    "check_root",
    "follow_root",
    "keys_in_force",
    "open_root",
    "peek",
    "read_passphrase",
    "revoked_since",
    "seal",
    "signing_keys",
    "unseal",
]
