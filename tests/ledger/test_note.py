"""Signed notes and checkpoints: the published example, one spelling, and who may have signed."""

from __future__ import annotations

from base64 import b64decode, b64encode

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from studbook.errors import BytesLie, DigestDiffers, NotAuthorised, StudbookError
from studbook.ledger.merkle import EMPTY
from studbook.ledger.note import (
    NOTE_LIMIT,
    Checkpoint,
    key_id,
    open_checkpoint,
    origin_of,
    read_checkpoint,
    read_note,
    verify_note,
    write_checkpoint,
    write_note,
)
from studbook.seal import SigningKey

KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
OTHER = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
ORIGIN = origin_of("ab" * 32)
ROOT = bytes(range(32))
GOOD = write_checkpoint(ORIGIN, 7, ROOT, KEY)
# An Ed25519 key and a note of the Go module that the form comes from.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


def signed(text: str, *keys: SigningKey, name: str = ORIGIN) -> bytes:
    """A note signed by several keys."""
    lines = [f"— {name} {b64encode(key_id(name, k.public) + k.sign(text.encode())).decode()}\n" for k in keys]
    return f"{text}\n{''.join(lines)}".encode()


def refused(data: bytes, keys: tuple[str, ...] = (KEY.public,)) -> StudbookError:
    with pytest.raises(StudbookError) as caught:
        open_checkpoint(data, ORIGIN, keys, "here")
    assert caught.value.where == "here"
    return caught.value


def test_a_note_of_another_program_verifies_and_is_written_alike() -> None:
    name, stated, encoded = GO_KEY.split("+", 2)
    public = b64decode(encoded)[1:].hex()
    assert key_id(name, public).hex() == stated
    note = read_note(GO_NOTE.encode())
    assert verify_note(note, name, [public]) == public
    assert write_note(note.text, name, KEY).decode().split("\n\n")[0] + "\n" == note.text


def test_a_checkpoint_reads_back() -> None:
    assert open_checkpoint(GOOD, ORIGIN, [OTHER.public, KEY.public]) == Checkpoint(ORIGIN, 7, ROOT)
    assert GOOD.startswith(f"{ORIGIN}\n7\n{b64encode(ROOT).decode()}\n\n— {ORIGIN} ".encode())


def test_extension_lines_are_read_and_mean_nothing() -> None:
    data = signed(f"{ORIGIN}\n7\n{b64encode(ROOT).decode()}\nmore\nand more\n", KEY)
    assert open_checkpoint(data, ORIGIN, [KEY.public]) == Checkpoint(ORIGIN, 7, ROOT, ("more", "and more"))


def test_lines_of_other_keys_are_left_alone() -> None:
    text = GOOD.decode().split("\n\n")[0] + "\n"
    stranger = signed(text, OTHER, name="witness.example").decode().split("\n\n")[1]
    assert open_checkpoint(GOOD + stranger.encode(), ORIGIN, [KEY.public]).size == 7
    assert open_checkpoint(signed(text, OTHER, KEY), ORIGIN, [KEY.public]).size == 7
    many = [SigningKey(Ed25519PrivateKey.generate()) for _ in range(16)]
    assert open_checkpoint(signed(text, *many, KEY), ORIGIN, [KEY.public]).size == 7


def test_a_checkpoint_of_another_origin_is_refused_even_if_our_key_signed_it() -> None:
    error = refused(write_checkpoint(origin_of("cd" * 32), 7, ROOT, KEY))
    assert isinstance(error, DigestDiffers)
    assert error.reason == "ledger.origin"


def test_a_checkpoint_that_no_known_key_signed_is_refused() -> None:
    for data in (
        write_checkpoint(ORIGIN, 7, ROOT, OTHER),
        signed(GOOD.decode().split("\n\n")[0] + "\n", KEY, name="x"),
    ):
        error = refused(data)
        assert isinstance(error, NotAuthorised)
        assert error.reason == "ledger.unsigned"


def test_one_wrong_signature_of_a_known_key_refuses_the_note() -> None:
    text = GOOD.decode().split("\n\n")[0] + "\n"
    wrong = signed(text.replace("7", "8"), OTHER).decode().split("\n\n")[1]
    error = refused(GOOD + wrong.encode(), (KEY.public, OTHER.public))
    assert isinstance(error, NotAuthorised)
    assert error.reason == "ledger.signature"


def test_every_flipped_bit_is_refused() -> None:
    for position in range(len(GOOD)):
        for bit in range(8):
            data = bytearray(GOOD)
            data[position] ^= 1 << bit
            refused(bytes(data))


def test_every_truncation_and_every_doubled_byte_is_refused() -> None:
    for position in range(len(GOOD)):
        refused(GOOD[:position])
        refused(GOOD[: position + 1] + GOOD[position:])


BROKEN = {
    "no empty line": b"a\n7\nb\n",
    "no signature": GOOD.split(b"\n\n")[0] + b"\n\n",
    "no last newline": GOOD[:-1],
    "carriage returns": GOOD.replace(b"\n", b"\r\n"),
    "tab": GOOD.replace(b"\n7\n", b"\n7\t\n"),
    "byte order mark": b"\xff\xfe" + GOOD,
    "too long": b"x" * NOTE_LIMIT + GOOD,
    "plain dash": GOOD.replace("—".encode(), b"-"),
    "space in the name": GOOD.replace(f"— {ORIGIN}".encode(), f"— {ORIGIN} x".encode()),
    "plus in the name": GOOD.replace(f"— {ORIGIN}".encode(), f"— {ORIGIN}+".encode()),
    "wide space in the name": GOOD.replace(f"— {ORIGIN}".encode(), f"— {ORIGIN}\u3000".encode()),
    "no name": GOOD.replace(f"— {ORIGIN}".encode(), "— ".encode()),
    "the same line twice": GOOD + GOOD.split(b"\n\n")[1],
    "leading zero": signed(f"{ORIGIN}\n07\n{b64encode(ROOT).decode()}\n", KEY),
    "sign": signed(f"{ORIGIN}\n+7\n{b64encode(ROOT).decode()}\n", KEY),
    "other digits": signed(f"{ORIGIN}\n٧\n{b64encode(ROOT).decode()}\n", KEY),
    "enormous size": signed(f"{ORIGIN}\n{10**17}\n{b64encode(ROOT).decode()}\n", KEY),
    "short root": signed(f"{ORIGIN}\n7\n{b64encode(ROOT[:31]).decode()}\n", KEY),
    "root in web base64": signed(f"{ORIGIN}\n7\n{'-_' * 21}-=\n", KEY),
    "root with stray bits": signed(f"{ORIGIN}\n7\n{b64encode(ROOT).decode()[:-2]}9=\n", KEY),
    "no root": signed(f"{ORIGIN}\n7\n", KEY),
    "no origin": signed(f"\n7\n{b64encode(ROOT).decode()}\n", KEY),
    "empty extension line": signed(f"{ORIGIN}\n7\n{b64encode(ROOT).decode()}\n\nx\n", KEY),
    "signature of nothing": GOOD.split(b"\n\n")[0] + f"\n\n— {ORIGIN} {b64encode(b'1234').decode()}\n".encode(),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_malformed_checkpoint_is_refused_by_its_form(how: str) -> None:
    error = refused(BROKEN[how])
    assert isinstance(error, BytesLie)
    assert error.reason == "ledger.note"


def test_a_text_that_has_no_place_in_a_note_is_never_signed() -> None:
    for text, name in (("no end", "a"), ("tab\there\n", "a"), ("fine\n", "a b"), ("fine\n", "a+b"), ("", "a")):
        with pytest.raises(BytesLie):
            write_note(text, name, KEY)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40), st.integers(0, 2**53 - 1))
@settings(max_examples=80, deadline=None)
def test_what_is_written_reads_back_and_verifies(line: str, size: int) -> None:
    text = f"{line}\n\n{line}\n"
    if line:
        assert read_note(write_note(text, "someone", KEY)).text == text
    assert read_checkpoint(write_checkpoint(ORIGIN, size, EMPTY, KEY))[0] == Checkpoint(ORIGIN, size, EMPTY)
