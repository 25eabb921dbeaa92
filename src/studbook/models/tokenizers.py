"""The two tokenizer sections of a container: bytes (``BTOK``) and byte-fallback pairs (``BPE1``).

Both share ids 0..255 for bytes and 256..259 for begin, end, padding and unknown. A section's SHA-256 is the identity
of the tokenizer.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from studbook.errors import TokenizerRefused

__all__ = [
    "BOS",
    "EOS",
    "FIRST_WORD",
    "MAX_DECODED_BYTES",
    "PAD",
    "SPECIAL",
    "UNK",
    "ByteTokenizer",
    "Tokenizer",
    "TokenizerRule",
    "byte_ids",
    "bytes_of",
    "check_head",
    "framed",
    "refused",
    "text_of",
]

BOS, EOS, PAD, UNK = 256, 257, 258, 259
FIRST_WORD = 260
SPECIAL = (BOS, EOS, PAD, UNK)
MAX_DECODED_BYTES = 65_536
_BTOK = struct.Struct("<4s6I")
_SKIPPED = frozenset((BOS, EOS, PAD))


class TokenizerRule(StrEnum):
    """One member a rule of a tokenizer section, of encoding or of decoding."""

    MAGIC = "tokenizer.magic"
    LENGTH = "tokenizer.length"
    VERSION = "tokenizer.version"
    VOCAB = "tokenizer.vocab"
    SPECIAL = "tokenizer.special"
    TRAILING = "tokenizer.trailing"
    TOKEN_COUNT = "tokenizer.token.count"
    TOKEN_EMPTY = "tokenizer.token.empty"
    TOKEN_RANGE = "tokenizer.token.range"
    TOKEN_DUPLICATE = "tokenizer.token.duplicate"
    TOKEN_LENGTH = "tokenizer.token.length"
    TOKEN_LONG = "tokenizer.token.long"
    MERGE_LENGTH = "tokenizer.merge.length"
    MERGE_RANGE = "tokenizer.merge.range"
    MERGE_OUTPUT = "tokenizer.merge.output"
    MERGE_LONG = "tokenizer.merge.long"
    MERGE_BYTES = "tokenizer.merge.bytes"
    MERGE_PAIR = "tokenizer.merge.duplicate-pair"
    MERGE_RANK = "tokenizer.merge.duplicate-rank"
    TEXT = "tokenizer.encode.text"
    ID = "tokenizer.decode.id"
    LIMIT = "tokenizer.decode.limit"
    UTF8 = "tokenizer.decode.utf8"


class Tokenizer(Protocol):
    """What every tokenizer of a container can do."""

    @property
    def vocab_size(self) -> int:
        """Number of ids."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the section, hexadecimal."""

    def section(self) -> bytes:
        """The section as it stands in a container."""

    def encode(self, text: str, *, bos: bool = True, eos: bool = True) -> list[int]:
        """Ids of a text; a prompt that will be continued is encoded with ``eos=False``."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; begin, end and padding are skipped, unknown becomes ``?``."""

    def piece(self, token: int) -> bytes:
        """Bytes of one id, as `decode` puts them together."""


class ByteTokenizer:
    """Ids are bytes; ``BTOK``, 28 bytes."""

    vocab_size = FIRST_WORD

    @classmethod
    def parse(cls, section: bytes, where: object = "") -> ByteTokenizer:
        """Read a ``BTOK`` section.

        Raises:
            TokenizerRefused: naming the field that differs from the only values there are.
        """
        if len(section) < _BTOK.size:
            raise refused(TokenizerRule.LENGTH, f"{len(section)} bytes; a BTOK section has {_BTOK.size}", where)
        if len(section) > _BTOK.size:
            raise refused(TokenizerRule.TRAILING, f"{len(section) - _BTOK.size} bytes after the section", where)
        _, version, vocab, *special = _BTOK.unpack(section)
        check_head(version, vocab, tuple(special), where)
        if vocab != FIRST_WORD:
            raise refused(TokenizerRule.VOCAB, f"vocabulary {vocab}; bytes and specials are {FIRST_WORD}", where)
        return cls()

    @property
    def sha256(self) -> str:
        """SHA-256 of the section, hexadecimal."""
        return hashlib.sha256(self.section()).hexdigest()

    def section(self) -> bytes:
        """The 28 bytes of the section."""
        return _BTOK.pack(b"BTOK", 1, FIRST_WORD, *SPECIAL)

    def encode(self, text: str, *, bos: bool = True, eos: bool = True) -> list[int]:
        """Begin, the UTF-8 bytes of the text, end.

        Raises:
            TokenizerRefused: if the text holds a lone surrogate.
        """
        return framed(byte_ids(text), bos=bos, eos=eos)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids.

        Raises:
            TokenizerRefused: if an id is out of range, the text is too long or its bytes are not UTF-8.
        """
        return text_of(ids, ())

    def piece(self, token: int) -> bytes:
        """Bytes of one id; none of begin, end and padding.

        Raises:
            TokenizerRefused: if the id is out of range.
        """
        return bytes_of(token, ())


def check_head(version: int, vocab: int, special: tuple[int, ...], where: object) -> None:
    """The rules both sections share: version 1, at least 260 ids, specials 256..259.

    Raises:
        TokenizerRefused: naming the field.
    """
    if version != 1:
        raise refused(TokenizerRule.VERSION, f"version {version}; only 1 is known", where)
    if vocab < FIRST_WORD:
        raise refused(TokenizerRule.VOCAB, f"vocabulary {vocab}; at least {FIRST_WORD}", where)
    if special != SPECIAL:
        raise refused(TokenizerRule.SPECIAL, f"special ids {special}; they are {SPECIAL}", where)


def byte_ids(text: str) -> list[int]:
    """The UTF-8 bytes of a text as ids.

    Raises:
        TokenizerRefused: if the text holds a lone surrogate.
    """
    try:
        return list(text.encode())
    except UnicodeEncodeError as error:
        advice = "Give text, not half of a surrogate pair."
        message = f"character {error.start} is a lone surrogate"
        raise TokenizerRefused(message, reason=TokenizerRule.TEXT, advice=advice) from error


def framed(ids: list[int], *, bos: bool, eos: bool) -> list[int]:
    """Ids between begin and end, each where asked for."""
    return [BOS] * bos + ids + [EOS] * eos


def text_of(ids: Sequence[int], words: Sequence[bytes]) -> str:
    """Text of ids, where ``words`` holds the bytes of ids 260 and up.

    Raises:
        TokenizerRefused: if an id is out of range, the text exceeds 65,536 bytes, or its bytes are not UTF-8.
    """
    data = bytearray()
    for position, token in enumerate(ids):
        data += bytes_of(int(token), words, position)
        if len(data) > MAX_DECODED_BYTES:
            message = f"more than {MAX_DECODED_BYTES} bytes"
            raise refused(TokenizerRule.LIMIT, message, f"token {position}", "Decode fewer tokens at a time.")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        message = f"byte {error.start} of the decoded text is not UTF-8"
        raise refused(
            TokenizerRule.UTF8, message, "", "The model wrote bytes that are no text; count it as wrong."
        ) from error


def bytes_of(token: int, words: Sequence[bytes], position: int = 0) -> bytes:
    """Bytes of one id, where ``words`` holds those of ids 260 and up; ``position`` is told in errors.

    Raises:
        TokenizerRefused: if the id is out of range.
    """
    if token in _SKIPPED:
        return b""
    if token == UNK:
        return b"?"
    if 0 <= token < BOS:
        return bytes((token,))
    if FIRST_WORD <= token < FIRST_WORD + len(words):
        return words[token - FIRST_WORD]
    message = f"id {token} is not in the vocabulary"
    raise refused(TokenizerRule.ID, message, f"token {position}", "Decode with the tokenizer of the same model.")


def refused(rule: TokenizerRule, message: str, where: object, advice: str = "") -> TokenizerRefused:
    """The error for one broken rule."""
    return TokenizerRefused(message, where=where, reason=rule, advice=advice)
