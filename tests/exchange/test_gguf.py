"""GGUF without its library: what can be said of a tokenizer, and how a missing extra is told."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest

from lab_fixtures import Place
from studbook.errors import UsageError
from studbook.exchange.gguf import keeps_text
from studbook.lab.export import export
from studbook.lab.papers import Papers
from studbook.models.bpe import BpeTokenizer
from studbook.models.tokenizers import FIRST_WORD, ByteTokenizer


def learned(text: bytes, count: int) -> BpeTokenizer:
    """Merges of the pairs seen most in a text, and twice at least; nobody cut it before."""
    ids, words, merges = list(text), [], []
    spoken = {byte: bytes((byte,)) for byte in range(256)}
    for rank in range(count):
        (left, right), seen = max(Counter(pairwise(ids)).items(), key=lambda found: (found[1], found[0]))
        if seen < 2 or spoken[left] + spoken[right] in words:
            break
        token = FIRST_WORD + rank
        spoken[token] = spoken[left] + spoken[right]
        words.append(spoken[token])
        merges.append((left, right, token, rank))
        short: list[int] = []
        while ids:
            pair = tuple(ids[:2]) == (left, right)
            short.append(token if pair else ids[0])
            del ids[: 1 + pair]
        ids = short
    return BpeTokenizer.build(words, merges)


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ([b"th", b" the  end\n"], True),
        (["é".encode(), " café".encode(), "日本".encode(), "🙂".encode()], True),
        ([b"\xe6\x97", b"\xf0\x9f\x99", b"\x99\x82"], True),  # inside one character nobody cuts
        ([b"12"], False),
        ([b"a1"], False),
        (["x²".encode()], False),
        ([b"x\xc2"], False),  # x and the first half of a superscript
        ([b"\x82x"], False),
        ([b"</s>"], False),
        ([b"[PAD]"], False),
        ([b"ab", b"ab"], False),
        ([b"a"], False),
    ],
)
def test_text_is_kept_where_no_word_lies_across_a_cut(words: list[bytes], kept: bool):
    assert keeps_text(BpeTokenizer.build(words, ())) == kept


def test_a_byte_tokenizer_keeps_every_text():
    assert keeps_text(ByteTokenizer())


@pytest.mark.skipif(find_spec("gguf") is not None, reason="gguf is installed here")
def test_without_the_library_the_export_names_the_extra_and_leaves_nothing(lived_lab: Place, tmp_path: Path):
    with lived_lab.open(writer=False) as lab, pytest.raises(UsageError) as refused:
        export(lab.desk, "base", tmp_path / "out", Papers(gguf=True))
    assert refused.value.reason == "usage.extra"
    assert "studbook[gguf]" in refused.value.advice
    assert not (tmp_path / "out").exists()
