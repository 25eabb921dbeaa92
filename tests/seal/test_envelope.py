"""Envelopes: one payload, one or more signatures, and every way an envelope can lie."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from authority_fixtures import APPROVAL, KEYS, LOCK, PAIR, ROOT, SHA, refused, resigned, signed
from studbook.errors import NotAuthorised, RecordRefused, StudbookError
from studbook.policy import default_policy
from studbook.records import LedgerEntry, Policy, canonical, digest, replace
from studbook.records.doors import MAX_RECORD_BYTES
from studbook.seal import PAYLOAD_TYPE, add_signature, peek, seal, signing_keys, unseal


def test_a_sealed_record_opens_to_itself() -> None:
    sealed = unseal(signed(APPROVAL, "ann-approval"), ROOT)
    assert sealed.record == APPROVAL
    assert sealed.digest == digest(APPROVAL)
    assert [signer.owner for signer in sealed.signers] == ["ann"]
    assert resigned(lambda _e, _s: None) == signed(APPROVAL, "ann-approval")


def test_the_envelope_is_dsse_around_an_in_toto_statement() -> None:
    envelope = json.loads(signed(APPROVAL, "ann-approval"))
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


Change = Callable[[dict[str, Any], dict[str, Any]], object]
# What is changed in envelope and statement, before the right key signs again; and the reason of the refusal.
LIES: dict[str, tuple[Change, str]] = {
    "another payload type": (lambda e, _: e.update(payloadType="text/plain"), "record.payload-type"),
    "a payload type with an escape": (lambda e, _: e.update(payloadType="in\ntoto"), "record.payload-type"),
    "one key twice": (lambda e, _: e["signatures"].append(e["signatures"][0]), "authority.signature-twice"),
    "no signature": (lambda e, _: e.update(signatures=[]), "authority.unsigned"),
    "an unknown envelope field": (lambda e, _: e.update(extra=1), "record.decode"),
    "an unknown signature field": (lambda e, _: e["signatures"][0].update(cert="x"), "record.decode"),
    "another record's digest as subject": (
        lambda _, s: s["subject"][0]["digest"].update(sha256="c" * 64),
        "record.subjects",
    ),
    "another artifact as subject": (
        lambda _, s: s["subject"][1]["digest"].update(sha256="c" * 64),
        "record.subjects",
    ),
    "another name of a subject": (lambda _, s: s["subject"][1].update(name="model"), "record.subjects"),
    "a subject more": (lambda _, s: s["subject"].append(s["subject"][1]), "record.subjects"),
    "a subject less": (lambda _, s: s["subject"].pop(), "record.subjects"),
    "no subject": (lambda _, s: s["subject"].clear(), "record.subjects"),
    "subjects in another order": (lambda _, s: s["subject"].reverse(), "record.subjects"),
    "a second digest algorithm": (lambda _, s: s["subject"][0]["digest"].update(md5="0"), "record.subjects"),
    "another predicate type": (lambda _, s: s.update(predicateType="urn:studbook:record:policy/1"), "record.subjects"),
    "another statement type": (lambda _, s: s.update(_type="https://in-toto.io/Statement/v0.1"), "record.subjects"),
    "an unknown statement field": (lambda _, s: s.update(extra=1), "record.decode"),
    "a record with an unknown field": (lambda _, s: s["predicate"].update(extra=1), "record.decode"),
    "a record of an unknown kind": (lambda _, s: s["predicate"].update(kind="swan/1"), "record.decode"),
    "an edited record": (lambda _, s: s["predicate"].update(until="2099-12-31"), "record.subjects"),
    "a key id of another key": (
        lambda e, _: e["signatures"][0].update(keyid=KEYS["ann-policy"].public),
        "authority.signature",
    ),
    "a key id that is no key": (lambda e, _: e["signatures"][0].update(keyid="zz"), "record.decode"),
    "a key id in capitals": (
        lambda e, _: e["signatures"][0].update(keyid=KEYS["ann-approval"].public.upper()),
        "record.decode",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_envelope_that_lies_is_refused_even_when_signed_by_the_right_key(lie: str) -> None:
    change, reason = LIES[lie]
    with refused(reason) as caught:
        unseal(resigned(change), ROOT, "some/file.json")
    assert caught.value.where == "some/file.json"


def test_an_edited_record_under_its_old_signature_is_refused() -> None:
    def edit(_envelope: dict[str, Any], statement: dict[str, Any]) -> None:
        statement["predicate"]["until"] = "2099-12-31"

    with pytest.raises(NotAuthorised, match="does not verify"):
        unseal(resigned(edit, sign=False), ROOT)


@pytest.mark.parametrize("field", ["payload", "sig"])
def test_base64_that_is_not_the_one_spelling_is_refused(field: str) -> None:
    envelope = json.loads(signed(APPROVAL, "ann-approval"))
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


@pytest.mark.parametrize("spoilt", [lambda d: d + b"\n", lambda d: d.replace(b'":', b'": ', 1), lambda d: b" " + d])
def test_an_envelope_with_white_space_is_refused(spoilt: Callable[[bytes], bytes]) -> None:
    with refused("record.canonical"):
        unseal(spoilt(signed(APPROVAL, "ann-approval")), ROOT)


def test_an_envelope_whose_keys_stand_twice_or_in_another_order_is_refused() -> None:
    data = signed(APPROVAL, "ann-approval")
    envelope = json.loads(data)
    twice = data[:-1] + b',"payloadType":"application/vnd.in-toto+json"}'
    other = json.dumps(dict(reversed(envelope.items())), separators=(",", ":")).encode()
    for spelling in (twice, other):
        assert json.loads(spelling) == envelope
        with refused("record.canonical"):
            unseal(spelling, ROOT)


@pytest.mark.parametrize("spoilt", ['{"a":1}', "[]", "", "{", "null", '"x"', "\xff", "[" * 100_000, "{}"])
def test_what_is_no_envelope_is_refused(spoilt: str) -> None:
    for data in (spoilt.encode("latin-1"), b"\xef\xbb\xbf" + signed(APPROVAL, "ann-approval")):
        with refused("record.decode"):
            unseal(data, ROOT)


def test_an_envelope_larger_than_any_record_is_not_parsed() -> None:
    with refused("record.size"):
        unseal(b'{"payload":"' + b"A" * MAX_RECORD_BYTES, ROOT)


@pytest.mark.parametrize("cut", range(0, 64, 7))
def test_a_signature_of_another_length_is_refused(cut: int) -> None:
    envelope = json.loads(signed(APPROVAL, "ann-approval"))
    data = base64.b64decode(envelope["signatures"][0]["sig"])
    for wrong in (data[:cut], data + data[: cut + 1]):
        envelope["signatures"][0]["sig"] = base64.b64encode(wrong).decode()
        with refused("authority.signature"):
            unseal(canonical(envelope), ROOT)


def test_a_payload_that_is_signed_but_no_statement_is_refused() -> None:
    envelope = json.loads(signed(APPROVAL, "ann-approval"))
    statement = base64.b64decode(envelope["payload"])
    for payload, reason in (
        (b"", "record.decode"),
        (b"{}", "record.decode"),
        (statement + b"\n", "record.canonical"),
        (statement.replace(b'"reason":""', b'"reason":"\\u0041"'), "record.canonical"),
        (statement.replace(b'"reason":""', b'"reason":"\xff"'), "record.decode"),
        (b"[" * 50_000, "record.decode"),
    ):
        encoded = b"DSSEv1 28 application/vnd.in-toto+json %d " % len(payload) + payload
        envelope["payload"] = base64.b64encode(payload).decode()
        envelope["signatures"][0]["sig"] = base64.b64encode(KEYS["ann-approval"].sign(encoded)).decode()
        with refused(reason):
            unseal(canonical(envelope), ROOT)


def test_only_the_record_without_its_signature_can_be_peeked_at() -> None:
    assert peek(resigned(lambda _e, s: s["predicate"].update(until="2099-12-31"), sign=False)) == replace(
        APPROVAL, until="2099-12-31"
    )


# -- several signatures ------------------------------------------------------------------------------------------


def test_signatures_are_sorted_by_key_whoever_signed_first() -> None:
    one, two = signed(APPROVAL, "ann-approval", "bob-approval"), signed(APPROVAL, "bob-approval", "ann-approval")
    later = add_signature(signed(APPROVAL, "bob-approval"), KEYS["ann-approval"])
    assert one == two == later
    names = [s["keyid"] for s in json.loads(one)["signatures"]]
    assert names == sorted(names) == sorted(KEYS[n].public for n in ("ann-approval", "bob-approval"))
    assert signing_keys(one) == frozenset(names)
    assert {s.owner for s in unseal(one, PAIR).signers} == unseal(one, PAIR).owners == {"ann", "bob"}


def test_signatures_in_another_order_are_refused() -> None:
    envelope = json.loads(signed(APPROVAL, "ann-approval", "bob-approval"))
    envelope["signatures"].reverse()
    with refused("authority.signature-order"):
        unseal(canonical(envelope), PAIR)


def test_one_bad_signature_among_good_ones_is_refused() -> None:
    envelope = json.loads(signed(APPROVAL, "ann-approval", "bob-approval", "ann-approval-2"))
    for number in range(3):
        changed = json.loads(json.dumps(envelope))
        changed["signatures"][number]["sig"] = envelope["signatures"][number - 1]["sig"]
        with refused("authority.signature"):
            unseal(canonical(changed), PAIR)


def test_a_key_signs_an_envelope_once() -> None:
    with refused("authority.signature-twice"):
        add_signature(signed(APPROVAL, "ann-approval"), KEYS["ann-approval"], "pending.json")
    with refused("authority.signature-twice"):
        seal(APPROVAL, KEYS["ann-approval"], KEYS["ann-approval"])
    with refused("authority.unsigned"):
        seal(APPROVAL)


def test_nobody_signs_a_statement_that_speaks_of_something_else() -> None:
    with refused("record.subjects"):
        add_signature(resigned(lambda _, s: s["subject"].pop()), KEYS["bob-approval"])


# -- the fast path and the slow one agree ------------------------------------------------------------------------

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=40)


@given(TEXTS)
def test_any_text_survives_sealing(text: str) -> None:
    try:
        data = signed(replace(APPROVAL, reason=text), "ann-approval")
    except RecordRefused:
        return
    assert unseal(data, ROOT).record == replace(APPROVAL, reason=text)


NUMBERS = st.one_of(
    st.integers(-(2**53) + 1, 2**53 - 1), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none()
)


@given(st.dictionaries(TEXTS, st.one_of(NUMBERS, TEXTS, st.lists(NUMBERS, max_size=3)), max_size=4))
def test_any_value_survives_sealing_or_is_refused_by_both_doors(values: dict[str, Any]) -> None:
    """Free JSON, where the fast encoder and RFC 8785 differ most: numbers, escapes, and the order of keys."""
    policy = replace(default_policy(APPROVAL.header), recipes=({"operator": "x", **values},))
    try:
        wanted = canonical(policy)
        data = signed(policy, "ann-policy")
    except RecordRefused:
        return
    sealed = unseal(data, ROOT)
    assert isinstance(sealed.record, Policy)
    assert canonical(sealed.record) == wanted
    assert sealed.digest == digest(policy)


@given(st.data())
def test_another_spelling_of_the_same_record_is_never_accepted(data: st.DataObject) -> None:
    """One byte of the payload is changed and signed again: it is refused, or it is another record's one spelling."""
    envelope = json.loads(signed(LOCK, "ann-policy"))
    payload = bytearray(base64.b64decode(envelope["payload"]))
    place = data.draw(st.integers(0, len(payload) - 1))
    payload[place] = data.draw(st.integers(0, 255))
    encoded = b"DSSEv1 28 application/vnd.in-toto+json %d " % len(payload) + bytes(payload)
    envelope["payload"] = base64.b64encode(payload).decode()
    envelope["signatures"][0]["sig"] = base64.b64encode(KEYS["ann-policy"].sign(encoded)).decode()
    try:
        sealed = unseal(canonical(envelope), ROOT)
    except StudbookError:
        return
    assert canonical(envelope) == signed(sealed.record, "ann-policy")


@pytest.mark.parametrize("position", range(0, 1000, 13))
def test_a_flipped_bit_anywhere_is_refused(position: int) -> None:
    data = bytearray(signed(APPROVAL, "ann-approval"))
    if position < len(data):
        data[position] ^= 1
        with pytest.raises(StudbookError):
            unseal(bytes(data), ROOT)


def test_the_payload_type_is_in_toto() -> None:
    assert PAYLOAD_TYPE == "application/vnd.in-toto+json"


def test_the_numbers_of_a_line_are_small_integers_alone_as_its_reader_takes_for_granted() -> None:
    def numbers(node: object) -> list[dict[str, object]]:
        if isinstance(node, list):
            return [found for part in node for found in numbers(part)]
        if not isinstance(node, dict):
            return []
        own = [node] if node.get("type") in ("integer", "number") else []
        return own + [found for part in node.values() for found in numbers(part)]

    found = numbers(msgspec.json.schema(LedgerEntry))
    assert len(found) == 2
    assert all(n["type"] == "integer" and n["minimum"] == 0 and n["maximum"] == 2**53 - 1 for n in found)
