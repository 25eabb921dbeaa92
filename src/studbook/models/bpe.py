"""``BPE1``: byte-fallback pair merges, lowest rank anywhere first, leftmost on a tie, one merge at a time."""

from __future__ import annotations

import hashlib
import heapq
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from studbook.errors import UsageError
from studbook.models.tokenizers import (
    BOS,
    FIRST_WORD,
    MAX_DECODED_BYTES,
    SPECIAL,
    ByteTokenizer,
    TokenizerRule,
    byte_ids,
    bytes_of,
    check_head,
    framed,
    refused,
    text_of,
)

__all__ = ["BpeTokenizer", "Merge", "parse_tokenizer"]

_HEAD = struct.Struct("<4s8I")
_TOKEN = struct.Struct("<II")
_MERGE = struct.Struct("<4I")
_MAX_RANK = 0xFFFFFFFF
_MAX_NEW_BYTES = 1 << 25
# Outputs of all merges together; files whose every word has a merge or two stay far below.
_MAX_JOINED_BYTES = 1 << 27


class Merge(NamedTuple):
    """One merge: the pair, the id it becomes, and its rank (lower merges first)."""

    left: int
    right: int
    output: int
    rank: int


@dataclass(frozen=True)
class BpeTokenizer:
    """A vocabulary of merged byte strings.

    Attributes:
        words: Bytes of ids 260 and up.
        merges: The merges, in file order.
    """

    words: tuple[bytes, ...]
    merges: tuple[Merge, ...]
    _section: bytes = field(repr=False)
    _ranks: Mapping[tuple[int, int], Merge] = field(repr=False, compare=False)

    @classmethod
    def build(cls, words: Sequence[bytes], merges: Sequence[tuple[int, int, int, int]]) -> BpeTokenizer:
        """A tokenizer from its words (ids 260 and up) and merges (left, right, output, rank).

        Raises:
            TokenizerRefused: if they break a rule of the section.
        """
        vocab = FIRST_WORD + len(words)
        parts = [_HEAD.pack(b"BPE1", 1, vocab, *SPECIAL, len(words), len(merges))]
        parts += [_TOKEN.pack(FIRST_WORD + index, len(word)) + word for index, word in enumerate(words)]
        parts += [_MERGE.pack(*merge) for merge in merges]
        return cls.parse(b"".join(parts))

    @classmethod
    def parse(cls, section: bytes, where: object = "") -> BpeTokenizer:
        """Read a ``BPE1`` section.

        Raises:
            TokenizerRefused: naming the rule and the record that breaks it.
        """
        if len(section) < _HEAD.size:
            raise refused(TokenizerRule.LENGTH, f"{len(section)} bytes; the head alone has {_HEAD.size}", where)
        _, version, vocab, bos, eos, pad, unk, token_count, merge_count = _HEAD.unpack_from(section)
        check_head(version, vocab, (bos, eos, pad, unk), where)
        if token_count != vocab - FIRST_WORD:
            message = f"{token_count} tokens; a vocabulary of {vocab} has {vocab - FIRST_WORD}"
            raise refused(TokenizerRule.TOKEN_COUNT, message, where)
        words, offset = _read_words(section, token_count, where)
        if merge_count * _MERGE.size > len(section) - offset:
            message = f"{merge_count} merges do not fit {len(section) - offset} bytes"
            raise refused(TokenizerRule.MERGE_LENGTH, message, where)
        end = offset + merge_count * _MERGE.size
        if end != len(section):
            raise refused(TokenizerRule.TRAILING, f"{len(section) - end} bytes after the last merge", where)
        merges = tuple(Merge(*fields) for fields in _MERGE.iter_unpack(section[offset:end]))
        _check_merges(merges, words, where)
        return cls(words, merges, section, {(m.left, m.right): m for m in merges})

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return FIRST_WORD + len(self.words)

    @property
    def sha256(self) -> str:
        """SHA-256 of the section, hexadecimal."""
        return hashlib.sha256(self._section).hexdigest()

    def section(self) -> bytes:
        """The section, byte for byte as it was read or built."""
        return self._section

    def encode(self, text: str, *, bos: bool = True, eos: bool = True) -> list[int]:
        """Begin, the merged ids of the text, end.

        Raises:
            TokenizerRefused: if the text holds a lone surrogate.
        """
        return framed(self._merged(byte_ids(text)), bos=bos, eos=eos)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids.

        Raises:
            TokenizerRefused: if an id is out of range, the text is too long or its bytes are not UTF-8.
        """
        return text_of(ids, self.words)

    def piece(self, token: int) -> bytes:
        """Bytes of one id; none of begin, end and padding.

        Raises:
            TokenizerRefused: if the id is out of range.
        """
        return bytes_of(token, self.words)

    def pruned(self, merges: int) -> tuple[BpeTokenizer, tuple[int, ...]]:
        """The tokenizer that keeps the merges of lowest rank, and of the words those that text can still become.

        Words keep their order and get the ids from 260 on; merges keep their ranks and their order in the file. A merge
        of a word that is gone is gone too.

        Args:
            merges: How many to keep, 0..number of merges.

        Returns:
            The tokenizer, and the ids of the kept words in this one, ascending.

        Raises:
            UsageError: if there are fewer merges than are to be kept.
        """
        if not 0 <= merges <= len(self.merges):
            message = f"cannot keep {merges} of {len(self.merges)} merges"
            raise UsageError(message, where="merges", reason="tokenizer.prune")
        ranks = sorted(merge.rank for merge in self.merges)[:merges]
        left = [merge for merge in self.merges if ranks and merge.rank <= ranks[-1]]
        kept = _reachable(left)
        place = {**{byte: byte for byte in range(BOS)}, **{old: FIRST_WORD + new for new, old in enumerate(kept)}}
        moved = [
            Merge(place[m.left], place[m.right], place[m.output], m.rank)
            for m in left
            if m.left in place and m.right in place
        ]
        return BpeTokenizer.build([self.words[old - FIRST_WORD] for old in kept], moved), kept

    def extended(self, pairs: Sequence[tuple[int, int]]) -> BpeTokenizer:
        """The tokenizer with more merges, each of a new word, ranked after all others in their order.

        Args:
            pairs: (left id, right id); a pair may name the words of the pairs before it.

        Raises:
            TokenizerRefused: if an id is neither a byte nor a word, or a pair is merged already.
            UsageError: if a pair makes a word that there is already or one too long, or no rank is left.
        """
        words, merges = list(self.words), list(self.merges)
        known, rank, total = set(words), max((merge.rank for merge in merges), default=-1), 0
        if rank + len(pairs) > _MAX_RANK:
            raise UsageError(f"no rank is left above {rank}", where="merges", reason="tokenizer.extend")
        for place, (left, right) in enumerate(pairs):
            where = f"pair {place}"
            word = _word(left, words, where) + _word(right, words, where)
            total += len(word)
            if len(word) > MAX_DECODED_BYTES or total > _MAX_NEW_BYTES:
                message = f"the new words have {total} bytes or this one {len(word)}; that is more than fits"
                raise UsageError(message, where=where, reason="tokenizer.extend")
            if word in known:
                message = f"{word[:40]!r} is a word already; a second one would split what the model knows of it"
                raise UsageError(message, where=where, reason="tokenizer.extend")
            known.add(word)
            words.append(word)
            merges.append(Merge(left, right, FIRST_WORD + len(words) - 1, rank + 1 + place))
        return BpeTokenizer.build(words, merges)

    def _merged(self, ids: list[int]) -> list[int]:
        # A heap of candidate merges over a linked list gives the order of a full rescan after every merge.
        follower = [*range(1, len(ids)), -1]
        leader = list(range(-1, len(ids) - 1))
        heap: list[tuple[int, int, Merge]] = []

        def offer(at: int) -> None:
            after = follower[at] if at >= 0 else -1
            if after >= 0 and (merge := self._ranks.get((ids[at], ids[after]))):
                heapq.heappush(heap, (merge.rank, at, merge))

        for start in range(len(ids) - 1):
            offer(start)
        while heap:
            _, at, merge = heapq.heappop(heap)
            after = follower[at]
            if after < 0 or (ids[at], ids[after]) != (merge.left, merge.right):
                continue
            ids[at], ids[after] = merge.output, -1
            follower[at] = follower[after]
            if follower[at] >= 0:
                leader[follower[at]] = at
            offer(leader[at])
            offer(at)
        return [token for token in ids if token >= 0]


def parse_tokenizer(section: bytes, where: object = "") -> ByteTokenizer | BpeTokenizer:
    """Read a tokenizer section of either kind.

    Raises:
        TokenizerRefused: if the magic is unknown or the section breaks a rule.
    """
    magic = section[:4]
    if magic == b"BTOK":
        return ByteTokenizer.parse(section, where)
    if magic == b"BPE1":
        return BpeTokenizer.parse(section, where)
    raise refused(TokenizerRule.MAGIC, f"unknown kind {magic!r}; BTOK and BPE1 are known", where)


def _read_words(section: bytes, count: int, where: object) -> tuple[tuple[bytes, ...], int]:
    offset = _HEAD.size
    # Nothing is sized by the count before it is known to fit the section.
    if count * (_TOKEN.size + 1) > len(section) - offset:
        raise refused(TokenizerRule.LENGTH, f"{count} tokens do not fit {len(section)} bytes", where)
    words = [b""] * count
    for index in range(count):
        place = f"{where}: token record {index}"
        if offset + _TOKEN.size > len(section):
            raise refused(TokenizerRule.TOKEN_LENGTH, "the section ends inside the record", place)
        token, length = _TOKEN.unpack_from(section, offset)
        offset += _TOKEN.size
        if not FIRST_WORD <= token < FIRST_WORD + count:
            raise refused(TokenizerRule.TOKEN_RANGE, f"id {token} outside {FIRST_WORD}..vocabulary", place)
        if length == 0:
            raise refused(TokenizerRule.TOKEN_EMPTY, f"id {token} has no bytes", place)
        if words[token - FIRST_WORD]:
            raise refused(TokenizerRule.TOKEN_DUPLICATE, f"id {token} appears twice", place)
        if length > len(section) - offset:
            raise refused(TokenizerRule.TOKEN_LENGTH, f"{length} bytes do not fit the section", place)
        if length > MAX_DECODED_BYTES:  # it could never be decoded, and checking merges of it would take long
            raise refused(TokenizerRule.TOKEN_LONG, f"{length} bytes; at most {MAX_DECODED_BYTES}", place)
        words[token - FIRST_WORD] = section[offset : offset + length]
        offset += length
    return tuple(words), offset


def _check_merges(merges: Sequence[Merge], words: Sequence[bytes], where: object) -> None:
    pairs: set[tuple[int, int]] = set()
    ranks: set[int] = set()
    joined_bytes = 0
    for index, merge in enumerate(merges):
        place = f"{where}: merge {index}"
        left, right = _word(merge.left, words, place), _word(merge.right, words, place)
        if not FIRST_WORD <= merge.output < FIRST_WORD + len(words):
            raise refused(TokenizerRule.MERGE_OUTPUT, f"output {merge.output} has no token", place)
        joined = words[merge.output - FIRST_WORD]
        joined_bytes += len(joined)
        if joined_bytes > _MAX_JOINED_BYTES:  # comparing a few long tokens in millions of merges would take minutes
            message = f"the outputs up to here have {joined_bytes} bytes; at most {_MAX_JOINED_BYTES} together"
            raise refused(TokenizerRule.MERGE_LONG, message, place)
        if len(joined) != len(left) + len(right) or not (joined.startswith(left) and joined.endswith(right)):
            message = f"token {merge.output} is not its left and right bytes joined"
            raise refused(TokenizerRule.MERGE_BYTES, message, place)
        if (merge.left, merge.right) in pairs:
            raise refused(TokenizerRule.MERGE_PAIR, f"pair {merge.left}, {merge.right} appears twice", place)
        if merge.rank in ranks:
            raise refused(TokenizerRule.MERGE_RANK, f"rank {merge.rank} appears twice", place)
        pairs.add((merge.left, merge.right))
        ranks.add(merge.rank)


def _reachable(merges: Sequence[Merge]) -> tuple[int, ...]:
    """Ids of the words that merges can make of bytes, ascending."""
    made: set[int] = set()
    waiting: dict[int, list[Merge]] = {}
    ready = list(merges)
    while ready:
        merge = ready.pop()
        missing = next((part for part in (merge.left, merge.right) if part >= BOS and part not in made), None)
        if missing is not None:
            waiting.setdefault(missing, []).append(merge)
        elif merge.output not in made:
            made.add(merge.output)
            ready += waiting.pop(merge.output, ())
    return tuple(sorted(made))


def _word(token: int, words: Sequence[bytes], place: str) -> bytes:
    if token < BOS:
        return bytes((token,))
    if FIRST_WORD <= token < FIRST_WORD + len(words):
        return words[token - FIRST_WORD]
    raise refused(TokenizerRule.MERGE_RANGE, f"id {token} is neither a byte nor a token", place)
