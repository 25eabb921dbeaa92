"""Stock tools as judges: securesystemslib verifies what we write, in-toto accepts it, and the other way round."""

from __future__ import annotations

import json
from typing import Any

import pytest

from authority_fixtures import APPROVAL, KEYS, LOCK, PAIR, ROOT, entry, refused, signed
from studbook.records import Record, digest
from studbook.seal import PAYLOAD_TYPE, unseal

pytestmark = pytest.mark.train
dsse = pytest.importorskip("securesystemslib.dsse")
signer = pytest.importorskip("securesystemslib.signer")
RECORDS: list[tuple[Record, tuple[str, ...]]] = [
    (APPROVAL, ("ann-approval", "bob-approval")),
    (LOCK, ("ann-policy",)),
    (ROOT, ("ann-root",)),
    (entry(APPROVAL, digest(APPROVAL), 3), ("audit",)),
]
ONE = pytest.mark.parametrize(("record", "names"), RECORDS, ids=lambda v: v.kind() if isinstance(v, Record) else "")


def stock_key(name: str) -> Any:
    """Our public key in their type, under the key id that our envelopes use."""
    public = KEYS[name].public
    return signer.SSlibKey(public, "ed25519", "ed25519", {"public": public})


def as_dict(name: str) -> dict[str, Any]:
    """The same in the older form that in-toto's layouts use."""
    return {"keyid": KEYS[name].public, **stock_key(name).to_dict()}


@ONE
def test_securesystemslib_verifies_our_envelopes(record: Record, names: tuple[str, ...]) -> None:
    envelope = dsse.Envelope.from_dict(json.loads(signed(record, *names)))
    keys = [stock_key(name) for name in names]
    assert set(envelope.verify(keys, threshold=len(keys))) == {KEYS[name].public for name in names}
    assert envelope.payload_type == PAYLOAD_TYPE


@ONE
def test_securesystemslib_refuses_them_under_another_key_or_after_a_change(
    record: Record, names: tuple[str, ...]
) -> None:
    errors = pytest.importorskip("securesystemslib.exceptions")
    envelope = dsse.Envelope.from_dict(json.loads(signed(record, *names)))
    with pytest.raises(errors.VerificationError):
        envelope.verify([stock_key("foreign")], threshold=1)
    envelope.payload = envelope.payload[:-1] + b" "
    with pytest.raises(errors.VerificationError):
        envelope.verify([stock_key(name) for name in names], threshold=1)


@ONE
def test_both_encode_the_same_bytes_to_sign(record: Record, names: tuple[str, ...]) -> None:
    data = signed(record, *names)
    envelope = dsse.Envelope.from_dict(json.loads(data))
    for name in names:
        assert envelope.signatures[KEYS[name].public].signature == KEYS[name].sign(envelope.pae()).hex()


@ONE
def test_in_toto_accepts_our_statements(record: Record, names: tuple[str, ...]) -> None:
    v1 = pytest.importorskip("in_toto_attestation.v1.statement")
    text_format = pytest.importorskip("google.protobuf.json_format")
    pb = pytest.importorskip("in_toto_attestation.v1.statement_pb2")
    payload = dsse.Envelope.from_dict(json.loads(signed(record, *names))).payload
    message = text_format.Parse(payload.decode(), pb.Statement())
    statement = v1.Statement.copy_from_pb(message)
    statement.validate()
    assert statement.pb.subject[0].digest["sha256"] == digest(record)
    assert statement.pb.predicate_type == f"urn:studbook:record:{record.kind()}"


def test_in_toto_reads_our_envelopes_as_metadata_it_can_verify() -> None:
    models = pytest.importorskip("in_toto.models.metadata")
    exceptions = pytest.importorskip("in_toto.exceptions")
    found = models.Envelope.from_dict(json.loads(signed(LOCK, "ann-policy")))
    found.verify_signature(as_dict("ann-policy"))
    with pytest.raises(
        (exceptions.SignatureVerificationError, pytest.importorskip("securesystemslib.exceptions").Error)
    ):
        found.verify_signature(as_dict("foreign"))


def test_a_signature_that_securesystemslib_added_counts_here() -> None:
    envelope = dsse.Envelope.from_dict(json.loads(signed(APPROVAL, "ann-approval")))
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    names = list(KEYS)
    seed = (names.index("bob-approval") + 1).to_bytes(32, "big")
    private = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
    envelope.sign(signer.CryptoSigner(private, stock_key("bob-approval")))
    whole = envelope.to_dict()
    whole["signatures"].sort(key=lambda s: s["keyid"])
    data = json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()
    assert data == signed(APPROVAL, "ann-approval", "bob-approval")
    assert unseal(data, PAIR).owners == {"ann", "bob"}
    with refused("authority.threshold"):
        unseal(signed(APPROVAL, "ann-approval"), PAIR)
