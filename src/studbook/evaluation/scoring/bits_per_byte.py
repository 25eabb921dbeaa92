"""Bits per byte: how many bits the model needs for a byte of the expected text, whatever its tokenizer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from studbook.evaluation.items import Item
from studbook.evaluation.scoring.base import Answers, Kind

__all__ = ["BitsPerByte"]


class BitsPerByte(Kind):
    """-sum log2 p(expected) / sum of its UTF-8 bytes, lower is better; the end marker's bits count, its byte does not.

    Bytes make models with different tokenizers comparable. Source: Gao et al. 2020, 2101.00027, section 3.1.
    """

    name = "bits-per-byte"
    mark = 2.0
    lower = True
    reads = "likelihood"
    whole = True

    def score(self, answers: Answers, items: Sequence[Item]) -> float:
        """Bits per byte over the whole suite."""
        return -math.fsum(answers.loglik) / math.log(2) / sum(len(item.expected.encode()) for item in items)
