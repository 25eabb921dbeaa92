from __future__ import annotations

import hashlib
import struct
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studbook.errors import TokenizerRefused
from studbook.models.bpe import BpeTokenizer, parse_tokenizer
from studbook.models.tokenizers import BOS, EOS, PAD, UNK, ByteTokenizer, TokenizerRule

WORDS = (b"th", b"the", b"he")
MERGES = ((ord("t"), ord("h"), 260, 0), (260, ord("e"), 261, 1), (ord("h"), ord("e"), 262, 5))


def bpe() -> BpeTokenizer:
    return BpeTokenizer.build(WORDS, MERGES)


def test_byte_section_is_its_published_28_bytes() -> None:
    section = ByteTokenizer().section()
    assert section == b"BTOK" + struct.pack("<6I", 1, 260, 256, 257, 258, 259)
    assert ByteTokenizer().sha256 == hashlib.sha256(section).hexdigest()
    assert isinstance(parse_tokenizer(section), ByteTokenizer)


def test_bytes_are_framed_and_a_prompt_stays_open() -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.encode("aé") == [BOS, 97, 0xC3, 0xA9, EOS]
    assert tokenizer.encode("a", eos=False) == [BOS, 97]
    assert tokenizer.encode("a", bos=False, eos=False) == [97]


def test_published_fixture_of_merges() -> None:
    tokenizer = BpeTokenizer.build(WORDS[:2], MERGES[:2])
    assert tokenizer.encode("the") == [256, 261, 257]
    assert tokenizer.decode([256, 261, 257]) == "the"


@given(st.text(max_size=40))
@settings(deadline=None)
def test_decoding_undoes_encoding(text: str) -> None:
    for tokenizer in (ByteTokenizer(), bpe()):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_begin_end_and_padding_are_silent_and_unknown_is_a_question_mark() -> None:
    assert ByteTokenizer().decode([BOS, 104, UNK, 105, PAD, EOS]) == "h?i"


@given(st.data())
@settings(deadline=None)
def test_merging_equals_a_rescan_after_every_merge(data: st.DataObject) -> None:
    alphabet = [*b"abc", 260, 261, 262, 263, 264]
    texts = {ord(c): c.encode() for c in "abc"}
    words, merges = [], []
    ranks = data.draw(st.permutations(range(5)))
    for step in range(5):
        known = [i for i in alphabet if i in texts]
        free = [(a, b) for a in known for b in known if (a, b) not in {(m[0], m[1]) for m in merges}]
        left, right = data.draw(st.sampled_from(free))
        texts[260 + step] = texts[left] + texts[right]
        words.append(texts[260 + step])
        merges.append((left, right, 260 + step, ranks[step]))
    text = data.draw(st.text(alphabet="abc", max_size=25))
    ids = list(text.encode())
    table = {(left, right): (rank, output) for left, right, output, rank in merges}
    while True:
        found = [(*table[pair], at) for at, pair in enumerate(pairwise(ids)) if pair in table]
        if not found:
            break
        _, output, at = min(found, key=lambda f: (f[0], f[2]))
        ids[at : at + 2] = [output]
    assert BpeTokenizer.build(words, merges).encode(text, bos=False, eos=False) == ids


def test_long_texts_are_merged_without_rescanning() -> None:
    tokenizer = bpe()
    assert tokenizer.encode("the" * 20_000, bos=False, eos=False) == [261] * 20_000


def test_a_section_is_kept_byte_for_byte() -> None:
    section = bpe().section()
    again = parse_tokenizer(section)
    assert again.section() == section
    assert again.sha256 == hashlib.sha256(section).hexdigest()
    assert again.vocab_size == 263


def test_token_records_may_stand_in_any_order() -> None:
    head = struct.pack("<4s8I", b"BPE1", 1, 262, 256, 257, 258, 259, 2, 0)
    records = struct.pack("<II", 261, 2) + b"xy" + struct.pack("<II", 260, 1) + b"z"
    assert parse_tokenizer(head + records).decode([260, 261]) == "zxy"  # type: ignore[union-attr]


BTOK_FIELDS = [
    (4, 2, TokenizerRule.VERSION),
    (8, 259, TokenizerRule.VOCAB),
    (8, 261, TokenizerRule.VOCAB),
    (12, 0, TokenizerRule.SPECIAL),
    (24, 260, TokenizerRule.SPECIAL),
]


@pytest.mark.parametrize(("at", "value", "rule"), BTOK_FIELDS)
def test_every_field_of_the_byte_section_is_checked(at: int, value: int, rule: TokenizerRule) -> None:
    section = bytearray(ByteTokenizer().section())
    struct.pack_into("<I", section, at, value)
    with pytest.raises(TokenizerRefused) as refused:
        parse_tokenizer(bytes(section), "m.slm")
    assert refused.value.reason == rule
    assert refused.value.where == "m.slm"


def head(vocab: int = 263, tokens: int = 3, merges: int = 3, version: int = 1, unk: int = 259) -> bytes:
    return struct.pack("<4s8I", b"BPE1", version, vocab, 256, 257, 258, unk, tokens, merges)


def token(index: int, word: bytes, length: int | None = None) -> bytes:
    return struct.pack("<II", index, len(word) if length is None else length) + word


def merge(*fields: int) -> bytes:
    return struct.pack("<4I", *fields)


T = (token(260, b"th"), token(261, b"the"), token(262, b"he"))
M = tuple(merge(*fields) for fields in MERGES)
# One long word as the output of 2,049 merges, each of another word "a" and one that has the rest.
LONG = b"".join(
    (
        head(vocab=260 + 2051, tokens=2051, merges=2049),
        token(260, b"a" * 65_536) + token(261, b"a" * 65_535),
        *(token(262 + i, b"a") for i in range(2049)),
        *(merge(262 + i, 261, 260, i) for i in range(2049)),
    )
)
BPE_SECTIONS = [
    (TokenizerRule.LENGTH, head()[:-1]),
    (TokenizerRule.LENGTH, head(vocab=260 + 2**31, tokens=2**31) + T[0]),
    (TokenizerRule.VERSION, head(version=2) + b"".join(T + M)),
    (TokenizerRule.VOCAB, head(vocab=259) + b"".join(T + M)),
    (TokenizerRule.SPECIAL, head(unk=260) + b"".join(T + M)),
    (TokenizerRule.TOKEN_COUNT, head(vocab=264) + b"".join(T + M)),
    (TokenizerRule.TOKEN_COUNT, head(vocab=262) + b"".join(T + M)),
    (TokenizerRule.TOKEN_EMPTY, head() + token(260, b"") + b"".join(T[1:] + M)),
    (TokenizerRule.TOKEN_RANGE, head() + token(263, b"th") + b"".join(T[1:] + M)),
    (TokenizerRule.TOKEN_RANGE, head() + token(259, b"th") + b"".join(T[1:] + M)),
    (TokenizerRule.TOKEN_DUPLICATE, head() + T[0] + T[0] + b"".join(T[2:] + M)),
    (TokenizerRule.TOKEN_LENGTH, head(merges=0) + T[0] + T[1] + token(262, b"he", 3)),
    (TokenizerRule.TOKEN_LENGTH, head(merges=0) + token(260, b"thththththth") + T[1]),
    (TokenizerRule.TOKEN_LENGTH, head() + b"".join(T[:2]) + token(262, b"he", 2**32 - 1) + b"".join(M)),
    (TokenizerRule.TOKEN_LONG, head(merges=0) + T[0] + T[1] + token(262, b"a" * 65_537)),
    (TokenizerRule.MERGE_LENGTH, head(merges=4) + b"".join(T + M)),
    (TokenizerRule.MERGE_LENGTH, head() + b"".join(T + M)[:-1]),
    (TokenizerRule.TRAILING, head(merges=2) + b"".join(T + M)),
    (TokenizerRule.TRAILING, head() + b"".join(T + M) + b"\0"),
    (TokenizerRule.MERGE_RANGE, head() + b"".join(T + M[:2]) + merge(256, ord("e"), 262, 5)),
    (TokenizerRule.MERGE_RANGE, head() + b"".join(T + M[:2]) + merge(ord("h"), 263, 262, 5)),
    (TokenizerRule.MERGE_OUTPUT, head() + b"".join(T + M[:2]) + merge(ord("h"), ord("e"), 263, 5)),
    (TokenizerRule.MERGE_OUTPUT, head() + b"".join(T + M[:2]) + merge(ord("h"), ord("e"), 104, 5)),
    (TokenizerRule.MERGE_LONG, LONG),
    (TokenizerRule.MERGE_BYTES, head() + b"".join(T + M[:2]) + merge(ord("e"), ord("h"), 262, 5)),
    (TokenizerRule.MERGE_BYTES, head() + b"".join(T + M[:2]) + merge(ord("h"), ord("e"), 261, 5)),
    (TokenizerRule.MERGE_PAIR, head() + b"".join(T + M[:2]) + merge(ord("t"), ord("h"), 260, 5)),
    (TokenizerRule.MERGE_RANK, head() + b"".join(T + M[:2]) + merge(ord("h"), ord("e"), 262, 1)),
    (TokenizerRule.MAGIC, b"BPE2" + head()[4:] + b"".join(T + M)),
    (TokenizerRule.MAGIC, b""),
    (TokenizerRule.LENGTH, ByteTokenizer().section()[:-1]),
    (TokenizerRule.TRAILING, ByteTokenizer().section() + b"\0"),
]


@pytest.mark.parametrize(
    ("rule", "section"), BPE_SECTIONS, ids=[f"{rule}-{n}" for n, (rule, _) in enumerate(BPE_SECTIONS)]
)
def test_every_rule_of_the_sections_has_its_own_refusal(rule: TokenizerRule, section: bytes) -> None:
    with pytest.raises(TokenizerRefused) as refused:
        parse_tokenizer(section, "m.slm")
    assert refused.value.reason == rule
    assert refused.value.where.startswith("m.slm")


def test_the_table_of_refusals_leaves_no_rule_out() -> None:
    on_use = {TokenizerRule.TEXT, TokenizerRule.ID, TokenizerRule.LIMIT, TokenizerRule.UTF8}
    assert {rule for rule, _ in BPE_SECTIONS} | on_use == set(TokenizerRule)


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"BPE1", b"BTOK", b""]))
def test_noise_is_refused_or_read_but_never_crashes(noise: bytes, magic: bytes) -> None:
    try:
        parsed = parse_tokenizer(magic + noise)
    except TokenizerRefused:
        return
    assert parsed.section() == magic + noise


@settings(deadline=None, max_examples=300)
@given(st.integers(0, len(bpe().section()) - 1), st.integers(1, 255))
def test_a_flipped_byte_is_refused_or_leaves_a_sound_tokenizer(at: int, flip: int) -> None:
    section = bytearray(bpe().section())
    section[at] ^= flip
    try:
        parsed = parse_tokenizer(bytes(section))
    except TokenizerRefused:
        return
    assert parsed.decode(parsed.encode("the hat")) == "the hat"


@pytest.mark.parametrize(
    ("ids", "rule"),
    [
        ([0xC3], TokenizerRule.UTF8),
        ([0xFF, 97], TokenizerRule.UTF8),
        ([263], TokenizerRule.ID),
        ([-1], TokenizerRule.ID),
        ([97] * 65_537, TokenizerRule.LIMIT),
        ([261] * 21_846, TokenizerRule.LIMIT),
    ],
)
def test_what_does_not_decode_is_refused(ids: list[int], rule: TokenizerRule) -> None:
    with pytest.raises(TokenizerRefused) as refused:
        bpe().decode(ids)
    assert refused.value.reason == rule


def test_half_a_surrogate_pair_is_no_text() -> None:
    for tokenizer in (ByteTokenizer(), bpe()):
        with pytest.raises(TokenizerRefused) as refused:
            tokenizer.encode("a\ud800")
        assert refused.value.reason == TokenizerRule.TEXT
