"""What changes between two tokenizers of containers: ids, round trips, and how many tokens a text becomes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from studbook.errors import TokenizerRefused, printable
from studbook.models.bpe import BpeTokenizer
from studbook.models.tokenizers import FIRST_WORD, ByteTokenizer

__all__ = ["TokenizerReport", "compare_tokenizers"]

_SHOWN = 60


@dataclass(frozen=True)
class TokenizerReport:
    """One tokenizer against another on some texts.

    Attributes:
        kept: (id in the parent, id in the child) of every token of equal bytes, bytes and specials included.
        dropped: Ids of the parent that the child has no token for.
        added: Ids of the child that the parent has no token for.
        text_bytes: Bytes of all texts in UTF-8.
        parent_tokens: Tokens the parent makes of them, without begin and end.
        child_tokens: Tokens the child makes of them.
        differing: Places of the texts whose tokens are not the same tokens under both.
        failed: Places of the texts that one of them does not give back.
        first_difference: Start of the first differing text; empty where there is none.
    """

    kept: tuple[tuple[int, int], ...]
    dropped: tuple[int, ...]
    added: tuple[int, ...]
    text_bytes: int
    parent_tokens: int
    child_tokens: int
    differing: tuple[int, ...]
    failed: tuple[int, ...]
    first_difference: str

    @property
    def parent_tokens_per_byte(self) -> float:
        """Tokens a byte under the parent; 0 where there is no text."""
        return self.parent_tokens / self.text_bytes if self.text_bytes else 0.0

    @property
    def child_tokens_per_byte(self) -> float:
        """Tokens a byte under the child; 0 where there is no text."""
        return self.child_tokens / self.text_bytes if self.text_bytes else 0.0

    @property
    def moved(self) -> tuple[tuple[int, int], ...]:
        """Of the kept tokens those whose id is another one."""
        return tuple(pair for pair in self.kept if pair[0] != pair[1])

    def lines(self) -> tuple[str, ...]:
        """The report in sentences."""
        lines = [
            f"{len(self.kept)} tokens kept ({len(self.moved)} under another id), {len(self.dropped)} dropped, "
            f"{len(self.added)} added",
            f"{self.parent_tokens_per_byte:.3f} tokens a byte before, {self.child_tokens_per_byte:.3f} after, "
            f"on {self.text_bytes} bytes",
        ]
        if self.differing:
            lines.append(f"{len(self.differing)} texts are cut in another way, first {self.first_difference!r}")
        if self.failed:
            lines.append(f"{len(self.failed)} texts do not come back from their tokens, first number {self.failed[0]}")
        return tuple(lines)


def compare_tokenizers(
    parent: ByteTokenizer | BpeTokenizer, child: ByteTokenizer | BpeTokenizer, texts: Sequence[str]
) -> TokenizerReport:
    """Compare two tokenizers: their ids, and what they make of texts.

    A text that is longer than one may decode (65,536 bytes) counts as not coming back.

    Args:
        parent: One tokenizer.
        child: The other one.
        texts: Texts to try.

    Raises:
        TokenizerRefused: if a text holds a lone surrogate.
    """
    kept, dropped, added = _ids(parent, child)
    place = dict(kept)
    counts = [0, 0]
    differing: list[int] = []
    failed: list[int] = []
    size, first = 0, ""
    for number, text in enumerate(texts):
        before, after = (t.encode(text, bos=False, eos=False) for t in (parent, child))
        counts[0] += len(before)
        counts[1] += len(after)
        size += len(text.encode())
        if [place.get(token) for token in before] != after:
            first = first if differing else printable(text[:_SHOWN])
            differing.append(number)
        if not (_comes_back(parent, before, text) and _comes_back(child, after, text)):
            failed.append(number)
    return TokenizerReport(kept, dropped, added, size, counts[0], counts[1], tuple(differing), tuple(failed), first)


def _ids(
    parent: ByteTokenizer | BpeTokenizer, child: ByteTokenizer | BpeTokenizer
) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...], tuple[int, ...]]:
    """Kept, dropped and added ids; of several tokens of equal bytes the first goes with the first."""
    waiting: defaultdict[bytes, list[int]] = defaultdict(list)
    for number, word in reversed(list(enumerate(_words(child), start=FIRST_WORD))):
        waiting[word].append(number)
    kept = [(number, number) for number in range(FIRST_WORD)]
    dropped = []
    for number, word in enumerate(_words(parent), start=FIRST_WORD):
        if waiting[word]:
            kept.append((number, waiting[word].pop()))
        else:
            dropped.append(number)
    return tuple(kept), tuple(dropped), tuple(sorted(n for numbers in waiting.values() for n in numbers))


def _words(tokenizer: ByteTokenizer | BpeTokenizer) -> tuple[bytes, ...]:
    return tokenizer.words if isinstance(tokenizer, BpeTokenizer) else ()


def _comes_back(tokenizer: ByteTokenizer | BpeTokenizer, ids: Sequence[int], text: str) -> bool:
    try:
        return tokenizer.decode(ids) == text
    except TokenizerRefused:
        return False
