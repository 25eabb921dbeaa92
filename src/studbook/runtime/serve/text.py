"""From tokens to text as it grows: whole characters only, and nothing that may turn out to be a stop text."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from studbook.models.tokenizers import Tokenizer

__all__ = ["Composer"]


class Composer:
    """The text of one answer.

    Bytes that are no UTF-8 become U+FFFD, each as soon as it is certain, so that an answer in parts is the same text as one
    in whole.

    Args:
        tokenizer: What turns ids into bytes.
        stops: Texts that end the answer; none of them is part of it.
        most: Most bytes of the answer.

    Attributes:
        stopped: Whether a stop text was found.
        full: Whether the answer has its most bytes.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str], most: int) -> None:
        self._tokenizer, self._stops, self._room = tokenizer, stops, most
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = self.full = False

    def add(self, token: int) -> str:
        """Take a token; what is certain of the text now, and was not before."""
        return self._grown(self._decoder.decode(self._tokenizer.piece(token)))

    def end(self) -> str:
        """The rest, when no token follows."""
        if self.stopped or self.full:
            return ""
        text = self._grown(self._decoder.decode(b"", final=True))
        held, self._held = self._held, ""
        return text + ("" if self.stopped or self.full else self._fitting(held))

    def _grown(self, more: str) -> str:
        self._held += more
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._fitting(self._held[: min(found)])
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        text, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return self._fitting(text)

    def _fitting(self, text: str) -> str:
        data = text.encode()
        if len(data) > self._room:
            self.full = True
            text = data[: self._room].decode("utf-8", "ignore")
        self._room -= min(len(data), self._room)
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of a text that is a beginning of a stop text."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
