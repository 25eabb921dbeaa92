"""Keys and envelopes: who may sign what, and every way an envelope can lie."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from studbook import seal as seal_module
from studbook.errors import DigestDiffers, NotAuthorised, RecordRefused, StudbookError
from studbook.files import read_file
from studbook.records import Header, KeyGrant, ParentApproval, Root, SuitesLock, Zone, canonical, digest, replace
from studbook.seal import PAYLOAD_TYPE, KeyRing, SigningKey, open_root, seal, unseal

HEADER = Header(source="studbook", version="1", environment="test", owner="ann")
SHA = "a" * 64
KEYS = {name: SigningKey(Ed25519PrivateKey.generate()) for name in ("policy", "approval", "process", "foreign")}


def grant(name: str, zone: Zone, *kinds: str, holder: Any = "person") -> KeyGrant:
    return KeyGrant(key=KEYS[name].public, owner="ann", holder=holder, zone=zone, kinds=kinds)


ROOT = Root(
    header=HEADER,
    lab=SHA,
    root_version=1,
    keys=(
        grant("policy", Zone.POLICY, "root/1", "policy/1"),
        grant("approval", Zone.REGISTRY, "parent-approval/1"),
        grant("process", Zone.REGISTRY, "source-manifest/1", holder="process"),
    ),
)
APPROVAL = ParentApproval(
    header=HEADER,
    artifact=SHA,
    source="b" * 64,
    approved_by="ann",
    clusters=("*",),
    until="2030-01-31",
    reason="",
)


def forged(change: Callable[[dict[str, Any], dict[str, Any]], None], sign: bool = True) -> bytes:
    """The approval's envelope with envelope and statement changed, and signed again by the right key."""
    envelope = json.loads(seal(APPROVAL, KEYS["approval"]))
    statement = json.loads(base64.b64decode(envelope["payload"]))
    change(envelope, statement)
    payload = canonical(statement)
    kind = envelope["payloadType"].encode()
    encoded = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    envelope["payload"] = base64.b64encode(payload).decode()
    if sign and envelope["signatures"]:
        envelope["signatures"][0]["sig"] = base64.b64encode(KEYS["approval"].sign(encoded)).decode()
    return canonical(envelope)


def test_a_sealed_record_opens_to_itself() -> None:
    sealed = unseal(seal(APPROVAL, KEYS["approval"]), ROOT)
    assert sealed.record == APPROVAL
    assert sealed.digest == digest(APPROVAL)
    assert sealed.grant.zone == Zone.REGISTRY
    assert forged(lambda _e, _s: None) == seal(APPROVAL, KEYS["approval"])


def test_the_envelope_is_dsse_around_an_in_toto_statement() -> None:
    envelope = json.loads(seal(APPROVAL, KEYS["approval"]))
    statement = json.loads(base64.b64decode(envelope["payload"]))
    payload = base64.b64decode(envelope["payload"])
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "urn:studbook:record:parent-approval/1"
    assert {s["name"]: s["digest"]["sha256"] for s in statement["subject"]} == {
        "record": digest(APPROVAL),
        "artifact-0": SHA,
    }
    encoded = b"DSSEv1 28 application/vnd.in-toto+json %d " % len(payload) + payload
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(envelope["signatures"][0]["keyid"]))
    public.verify(base64.b64decode(envelope["signatures"][0]["sig"]), encoded)


LIES: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], object], type[StudbookError]]] = {
    "another payload type": (lambda e, _: e.update(payloadType="text/plain"), RecordRefused),
    "two signatures": (lambda e, _: e["signatures"].append(e["signatures"][0]), NotAuthorised),
    "no signature": (lambda e, _: e.update(signatures=[]), NotAuthorised),
    "an unknown envelope field": (lambda e, _: e.update(extra=1), RecordRefused),
    "another record's digest as subject": (
        lambda _, s: s["subject"][0]["digest"].update(sha256="c" * 64),
        DigestDiffers,
    ),
    "another artifact as subject": (lambda _, s: s["subject"][1]["digest"].update(sha256="c" * 64), DigestDiffers),
    "a subject more": (lambda _, s: s["subject"].append(s["subject"][1]), DigestDiffers),
    "a subject less": (lambda _, s: s["subject"].pop(), DigestDiffers),
    "a second digest algorithm": (lambda _, s: s["subject"][0]["digest"].update(md5="0"), DigestDiffers),
    "another predicate type": (lambda _, s: s.update(predicateType="urn:studbook:record:policy/1"), DigestDiffers),
    "another statement type": (lambda _, s: s.update(_type="https://in-toto.io/Statement/v0.1"), DigestDiffers),
    "an unknown statement field": (lambda _, s: s.update(extra=1), RecordRefused),
    "an edited record": (lambda _, s: s["predicate"].update(until="2099-12-31"), DigestDiffers),
    "a key id of another key": (lambda e, _: e["signatures"][0].update(keyid=KEYS["policy"].public), NotAuthorised),
    "a key id that is no key": (lambda e, _: e["signatures"][0].update(keyid="zz"), NotAuthorised),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_envelope_that_lies_is_refused_even_when_signed_by_the_right_key(lie: str) -> None:
    change, error = LIES[lie]
    with pytest.raises(error) as caught:
        unseal(forged(lambda e, s: change(e, s) and None), ROOT, "some/file.json")
    assert caught.value.where == "some/file.json"


def test_an_edited_record_under_its_old_signature_is_refused() -> None:
    def edit(_envelope: dict[str, Any], statement: dict[str, Any]) -> None:
        statement["predicate"]["until"] = "2099-12-31"

    with pytest.raises(NotAuthorised, match="signature does not verify"):
        unseal(forged(edit, sign=False), ROOT)


@pytest.mark.parametrize("field", ["payload", "sig"])
def test_base64_that_is_not_the_one_spelling_is_refused(field: str) -> None:
    envelope = json.loads(seal(APPROVAL, KEYS["approval"]))
    holder = envelope if field == "payload" else envelope["signatures"][0]
    data = base64.b64decode(holder[field])
    padded = next(d for d in (data, data + b" ", data + b"  ") if len(d) % 3)
    text = base64.b64encode(padded).decode()
    body = text.rstrip("=")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    stray = body[:-1] + alphabet[alphabet.index(body[-1]) + 1] + text[len(body) :]
    assert base64.b64decode(stray) == padded
    for spelling in (stray, holder[field] + "\n", holder[field][:4] + "-" + holder[field][5:], holder[field][:-1]):
        holder[field] = spelling
        with pytest.raises(StudbookError):
            unseal(canonical(envelope), ROOT)


def test_an_envelope_with_white_space_is_refused() -> None:
    with pytest.raises(RecordRefused):
        unseal(seal(APPROVAL, KEYS["approval"]) + b"\n", ROOT)


def test_a_key_the_root_does_not_list_is_refused() -> None:
    with pytest.raises(NotAuthorised, match="does not list"):
        unseal(seal(APPROVAL, KEYS["foreign"]), ROOT)


@pytest.mark.parametrize("signer", ["policy", "process"])
def test_a_key_outside_its_zone_or_kind_is_refused(signer: str) -> None:
    with pytest.raises(NotAuthorised, match="may not sign parent-approval/1") as caught:
        unseal(seal(APPROVAL, KEYS[signer]), ROOT)
    assert caught.value.reason == "authority.zone"


def test_a_root_signed_by_a_process_key_is_refused() -> None:
    root = replace(ROOT, keys=(grant("process", Zone.POLICY, "root/1", holder="process"),))
    with pytest.raises(NotAuthorised, match="person"):
        open_root(seal(root, KEYS["process"]))
    assert open_root(seal(ROOT, KEYS["policy"])) == (ROOT, digest(ROOT))


def test_a_record_that_is_not_a_root_opens_nothing() -> None:
    with pytest.raises(RecordRefused, match="root of keys"):
        open_root(seal(APPROVAL, KEYS["approval"]))


# -- the ring ----------------------------------------------------------------------------------------------------


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return KeyRing(tmp_path / "keys")


def root_for(key: SigningKey, owner: str = "ann") -> Root:
    allowed = KeyGrant(key=key.public, owner=owner, holder="person", zone=Zone.POLICY, kinds=("suites-lock/1",))
    return replace(ROOT, keys=(allowed,))


def test_a_new_key_is_private_and_found_again(ring: KeyRing) -> None:
    key = ring.create("people/policy")
    assert (ring.folder / "people" / "policy.pem").stat().st_mode & 0o777 == 0o600
    assert ring.find(root_for(key), Zone.POLICY, SuitesLock.kind()).public == key.public
    with pytest.raises(NotAuthorised, match="exists already"):
        ring.create("people/policy")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o666, 0o610])
def test_a_key_file_that_others_can_reach_is_refused(ring: KeyRing, mode: int) -> None:
    key = ring.create("people/policy")
    path = ring.folder / "people" / "policy.pem"
    path.chmod(mode)
    with pytest.raises(NotAuthorised) as caught:
        ring.find(root_for(key), Zone.POLICY, SuitesLock.kind())
    assert caught.value.where == str(path)
    assert caught.value.advice == f"chmod 600 {path}"


def test_a_key_file_that_is_a_link_is_refused(ring: KeyRing, tmp_path: Path) -> None:
    key = ring.create("people/policy")
    path = ring.folder / "people" / "policy.pem"
    path.rename(tmp_path / "away.pem")
    path.symlink_to(tmp_path / "away.pem")
    with pytest.raises(NotAuthorised):
        ring.find(root_for(key), Zone.POLICY, SuitesLock.kind())


def test_the_public_key_lies_beside_the_private_one(ring: KeyRing) -> None:
    key = ring.create("people/policy")
    public = ring.folder / "people" / "policy.pub"
    assert public.read_bytes() == f"{key.public}\n".encode()
    assert public.stat().st_mode & 0o777 == 0o444


def test_only_the_key_that_is_needed_is_opened(ring: KeyRing, monkeypatch: pytest.MonkeyPatch) -> None:
    ring.create("people/policy")
    (ring.folder / "people" / "policy.pem").chmod(0o644)
    needed = ring.create("process/audit")
    ring.create("process/zebra")
    opened: list[str] = []

    def watched(path: Path, limit: int) -> bytes:
        opened.append(path.name)
        return read_file(path, limit)

    monkeypatch.setattr(seal_module, "read_file", watched)
    assert ring.find(root_for(needed), Zone.POLICY, SuitesLock.kind()).public == needed.public
    assert [name for name in opened if name.endswith(".pem")] == ["audit.pem"]


def test_no_key_is_opened_for_what_nobody_may_sign(ring: KeyRing) -> None:
    key = ring.create("people/policy")
    (ring.folder / "people" / "policy.pem").write_bytes(b"not a key")
    with pytest.raises(NotAuthorised) as caught:
        ring.find(root_for(key), Zone.POLICY, "policy/1")
    assert caught.value.reason == "authority.key-missing"


@pytest.mark.parametrize("content", [None, b"", b"zz", b"a" * 64, b"A" * 64 + b"\n", b"\xff" * 65, b"a" * 9000])
def test_a_key_without_a_readable_public_file_is_opened_last(ring: KeyRing, content: bytes | None) -> None:
    key = ring.create("people/policy")
    public = ring.folder / "people" / "policy.pub"
    public.unlink()
    if content is not None:
        public.write_bytes(content)
    assert ring.find(root_for(key), Zone.POLICY, SuitesLock.kind()).public == key.public
    other = ring.create("process/other")
    (ring.folder / "people" / "policy.pem").chmod(0o644)
    assert ring.find(root_for(other), Zone.POLICY, SuitesLock.kind()).public == other.public


def test_a_key_that_is_not_what_its_public_file_says_is_refused(ring: KeyRing) -> None:
    key, other = ring.create("people/policy"), ring.create("people/zebra")
    (ring.folder / "people" / "zebra.pub").unlink()
    (ring.folder / "people" / "zebra.pub").write_text(f"{key.public}\n")
    (ring.folder / "people" / "policy.pem").unlink()
    with pytest.raises(NotAuthorised, match="not the key that its public file says") as caught:
        ring.find(root_for(key), Zone.POLICY, SuitesLock.kind())
    assert caught.value.where == str(ring.folder / "people" / "zebra.pem")
    assert other.public != key.public


def test_a_key_is_never_made_beside_the_public_half_of_another(ring: KeyRing) -> None:
    ring.create("people/policy")
    (ring.folder / "people" / "policy.pem").unlink()
    with pytest.raises(NotAuthorised, match="exists already"):
        ring.create("people/policy")


def test_a_foreign_key_does_not_count(ring: KeyRing) -> None:
    ring.create("people/policy")
    with pytest.raises(NotAuthorised) as caught:
        ring.find(root_for(KEYS["foreign"]), Zone.POLICY, SuitesLock.kind())
    assert caught.value.reason == "authority.key-missing"


def test_another_persons_key_does_not_count(ring: KeyRing) -> None:
    key = ring.create("people/policy")
    with pytest.raises(NotAuthorised, match="of bob"):
        ring.find(root_for(key), Zone.POLICY, SuitesLock.kind(), "bob")


def test_a_file_that_is_no_ed25519_key_is_refused(ring: KeyRing) -> None:
    path = ring.folder / "people" / "policy.pem"
    path.parent.mkdir(parents=True)
    other = generate_private_key(SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for content in (b"not a key", other):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(NotAuthorised) as caught:
            ring.find(ROOT, Zone.POLICY, "policy/1")
        assert caught.value.where == str(path)


def test_the_payload_type_is_in_toto() -> None:
    assert PAYLOAD_TYPE == "application/vnd.in-toto+json"
