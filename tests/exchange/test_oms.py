"""Signatures over a folder's files: ours, and those that producers bring."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given, settings
from hypothesis import strategies as st

from studbook.errors import BytesLie, DigestDiffers, NotAuthorised, StudbookError, UsageError
from studbook.exchange import check_producer_signature, sign_files
from studbook.exchange.dsse import pae
from studbook.exchange.links import olpc_json
from studbook.exchange.oms import load_key
from studbook.records import canonical

FILES = {"config.json": "c0" * 32, "a/b.json": "ab" * 32, "model.safetensors": "5a" * 32}
EDWARDS = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
LINK: dict[str, Any] = {
    "_type": "link",
    "name": "train",
    "materials": {},
    "products": {path: {"sha256": sha256} for path, sha256 in FILES.items()},
    "byproducts": {"return-value": 0, "stdout": 'say "hi"\n\\'},
    "command": ["train"],
    "environment": {},
}


def curve_key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(0x5EED, curve or ec.SECP256R1())


def public(key: Any) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    found: bytes = key.public_key().public_bytes(encoding, form)
    return found


def private(key: Any) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    found: bytes = key.private_bytes(encoding, form, serialization.NoEncryption())
    return found


def resigned(change: Callable[[dict[str, Any]], object]) -> bytes:
    """A signature that is good, over a statement that was changed before."""
    body = json.loads(sign_files("model", FILES, curve_key()))
    statement = json.loads(base64.b64decode(body["dsseEnvelope"]["payload"]))
    change(statement)
    payload = canonical(statement)
    made = curve_key().sign(pae(payload), ec.ECDSA(SHA256()))
    body["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    body["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(made).decode()
    return canonical(body)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda c: c.name)
def test_what_is_signed_checks_and_equal_files_make_equal_bytes(curve):
    key = curve_key(curve)
    bundle = sign_files("model", FILES, key)
    assert bundle == sign_files("model", dict(reversed(FILES.items())), key)
    found = check_producer_signature(FILES, bundle, public(key))
    assert (found.form, found.name, found.covered, found.absent) == ("oms", "model", tuple(sorted(FILES)), ())
    assert found.document_sha256 == hashlib.sha256(bundle).hexdigest()


def test_the_root_is_the_digest_of_the_digests_in_the_order_of_the_paths():
    body = json.loads(sign_files("model", FILES, curve_key()))
    statement = json.loads(base64.b64decode(body["dsseEnvelope"]["payload"]))
    names = [r["name"] for r in statement["predicate"]["resources"]]
    assert names == ["a/b.json", "config.json", "model.safetensors"]
    root = hashlib.sha256(b"".join(bytes.fromhex(FILES[name]) for name in names)).hexdigest()
    assert statement["subject"] == [{"name": "model", "digest": {"sha256": root}}]
    assert "model.sig" in statement["predicate"]["serialization"]["ignore_paths"]


def test_a_file_that_was_signed_and_not_taken_is_told():
    bundle = sign_files("model", FILES, curve_key())
    kept = {path: FILES[path] for path in ("config.json", "model.safetensors")}
    assert check_producer_signature(kept, bundle, public(curve_key())).absent == ("a/b.json",)


@pytest.mark.parametrize(
    ("files", "what"),
    [
        (FILES | {"config.json": "00" * 32}, "other bytes"),
        (FILES | {"extra.json": "00" * 32}, "not among"),
        (FILES | {"Config.json": "c0" * 32}, "not among"),
    ],
)
def test_a_changed_or_added_file_is_refused_by_name(files, what):
    with pytest.raises(DigestDiffers, match=what) as refused:
        check_producer_signature(files, sign_files("model", FILES, curve_key()), public(curve_key()))
    assert refused.value.reason == "oms.file"


def test_another_key_is_refused_whether_the_bundle_names_it_or_not():
    other = ec.derive_private_key(77, ec.SECP256R1())
    body = json.loads(sign_files("model", FILES, curve_key()))
    with pytest.raises(NotAuthorised, match="another key"):
        check_producer_signature(FILES, canonical(body), public(other))
    body["verificationMaterial"]["publicKey"] = {}
    with pytest.raises(NotAuthorised, match="does not verify") as refused:
        check_producer_signature(FILES, canonical(body), public(other))
    assert refused.value.reason == "oms.signature"
    check_producer_signature(FILES, canonical(body), public(curve_key()))


@pytest.mark.parametrize("cut", range(0, 2000, 173))
def test_a_bundle_with_one_byte_changed_never_checks(cut):
    bundle = bytearray(sign_files("model", FILES, curve_key()))
    cut %= len(bundle)
    bundle[cut] ^= 1
    with pytest.raises(StudbookError):
        check_producer_signature(FILES, bytes(bundle), public(curve_key()))


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.update(predicateType="https://model_signing/Digests/v0.1"),
        lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"),
        lambda s: s.update(subject=[]),
        lambda s: s.update(subject=s["subject"] * 2),
        lambda s: s["subject"][0]["digest"].update(sha256="00" * 32),
        lambda s: s["predicate"]["resources"].pop(),
        lambda s: s["predicate"]["resources"].append(s["predicate"]["resources"][0]),
        lambda s: s["predicate"]["resources"][0].update(algorithm="blake2b"),
        lambda s: s["predicate"]["resources"][0].update(digest="zz"),
        lambda s: s["predicate"]["serialization"].update(method="shards"),
        lambda s: s.pop("predicate"),
        lambda s: s.update(predicate=[]),
    ],
)
def test_a_signed_statement_that_contradicts_itself_is_refused(change):
    with pytest.raises(BytesLie) as refused:
        check_producer_signature(FILES, resigned(change), public(curve_key()))
    assert refused.value.reason == "oms.form"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"mediaType": "x"}',
        b'{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json"}',
        b'{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", "verificationMaterial": {"certificate": {}}}',
        b'{"signed": 1.5}',
        b'{"signed": {}, "signatures": 7}',
        b'{"signed": {}, "signatures": [{"sig": "xy"}]}',
        b'{"signed": ' + b"[" * 5000 + b"]" * 5000 + b', "signatures": []}',
        b'{"a": 1, "a": 2}',
        b"\xff",
    ],
)
def test_bytes_that_are_no_signature_are_refused(data):
    with pytest.raises(BytesLie):
        check_producer_signature(FILES, data, public(curve_key()), "model.sig")


@pytest.mark.parametrize("key", [EDWARDS, curve_key()], ids=["ed25519", "p256"])
def test_a_link_of_either_form_covers_its_products(key):
    def made(data: bytes) -> bytes:
        if isinstance(key, Ed25519PrivateKey):
            return key.sign(data)
        return key.sign(data, ec.ECDSA(SHA256()))

    payload = json.dumps(LINK, indent=1).encode()
    older = {"signed": LINK, "signatures": [{"keyid": "k", "sig": made(olpc_json(LINK)).hex()}]}
    signature = {"keyid": "k", "sig": base64.b64encode(made(pae(payload))).decode()}
    newer = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [signature],
    }
    for body in (older, newer):
        found = check_producer_signature(FILES, json.dumps(body).encode(), public(key))
        assert (found.form, found.name) == ("in-toto-link", "train")
        with pytest.raises(DigestDiffers):
            check_producer_signature({"model.bin": "00" * 32}, json.dumps(body).encode(), public(key))
        other = Ed25519PrivateKey.from_private_bytes(bytes(32))
        with pytest.raises(NotAuthorised) as refused:
            check_producer_signature(FILES, json.dumps(body).encode(), public(other))
        assert refused.value.reason == "oms.signature"


def test_a_layout_is_no_link_however_well_it_is_signed():
    layout = LINK | {"_type": "layout"}
    body = {"signed": layout, "signatures": [{"keyid": "k", "sig": EDWARDS.sign(olpc_json(layout)).hex()}]}
    with pytest.raises(BytesLie, match="no in-toto link"):
        check_producer_signature(FILES, json.dumps(body).encode(), public(EDWARDS))


def test_a_model_signature_is_not_checked_with_an_edwards_key():
    with pytest.raises(NotAuthorised) as refused:
        check_producer_signature(FILES, sign_files("model", FILES, curve_key()), public(EDWARDS))
    assert refused.value.reason == "oms.key"


@pytest.mark.parametrize("data", [b"", b"not a key", private(curve_key()), public(curve_key(ec.SECP256K1()))])
def test_only_public_keys_of_known_kinds_check_anything(data):
    with pytest.raises(NotAuthorised) as refused:
        check_producer_signature(FILES, sign_files("model", FILES, curve_key()), data)
    assert refused.value.reason == "oms.key"


def test_a_signing_key_is_private_unencrypted_and_on_a_known_curve(tmp_path: Path):
    path = tmp_path / "key.pem"
    path.write_bytes(private(curve_key()))
    path.chmod(0o644)
    with pytest.raises(NotAuthorised, match="open to others"):
        load_key(path)
    path.chmod(0o600)
    assert load_key(path).curve.name == "secp256r1"
    secret = serialization.BestAvailableEncryption(b"word")
    locked = curve_key().private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)
    for data in (private(EDWARDS), private(curve_key(ec.SECP256K1())), public(curve_key()), locked, b"junk"):
        path.write_bytes(data)
        with pytest.raises(NotAuthorised) as refused:
            load_key(path)
        assert refused.value.reason == "oms.key"
    with pytest.raises(UsageError):
        load_key(tmp_path / "absent.pem")


def test_nothing_is_not_signed():
    with pytest.raises(UsageError):
        sign_files("model", {}, curve_key())


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_signatures_of_any_form_are_refused_and_nothing_else_happens(data):
    link = {"signed": LINK, "signatures": [{"keyid": "k", "sig": EDWARDS.sign(olpc_json(LINK)).hex()}]}
    whole = data.draw(st.sampled_from([sign_files("model", FILES, curve_key()), json.dumps(link).encode()]))
    at = data.draw(st.integers(0, len(whole) - 1))
    piece = data.draw(st.sampled_from([b"", b"null", b"{", b'"', b"[]", b"\xff", b"1e999", b"0", b"}"]))
    broken = whole[:at] + piece + whole[at + data.draw(st.integers(0, 40)) :]
    for key in (curve_key(), EDWARDS):
        with suppress(StudbookError):
            check_producer_signature(FILES, broken, public(key))


@settings(max_examples=150, deadline=None)
@given(st.recursive(st.none() | st.integers() | st.text(max_size=4), lambda inner: st.lists(inner, max_size=2)
       | st.dictionaries(st.sampled_from(["name", "digest", "sha256", "resources", "algorithm", "serialization", "method"]),
                         inner, max_size=3), max_leaves=8))  # fmt: skip
def test_a_signed_statement_of_any_shape_is_refused_as_one(value):
    for field in ("subject", "predicate"):
        with pytest.raises(BytesLie):
            check_producer_signature(
                FILES, resigned(lambda s, field=field: s.update({field: value})), public(curve_key())
            )
