"""The kinds of scorers, one file each. A new kind is a file here and a line in `KINDS`."""

from __future__ import annotations

from studbook.evaluation.scoring.base import Answers, Kind, exact, source_sha256
from studbook.evaluation.scoring.bits_per_byte import BitsPerByte
from studbook.evaluation.scoring.code import Code
from studbook.evaluation.scoring.exact_match import ExactMatch
from studbook.evaluation.scoring.json_schema import JsonSchema
from studbook.evaluation.scoring.multiple_choice import MultipleChoice
from studbook.evaluation.scoring.numeric import Numeric
from studbook.evaluation.scoring.pattern import Regex
from studbook.evaluation.scoring.proper_scores import ProperScores
from studbook.evaluation.scoring.safe_text import SafeText

__all__ = ["KINDS", "Answers", "Kind", "exact", "source_sha256"]

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        ExactMatch(),
        ProperScores(),
        BitsPerByte(),
        MultipleChoice(),
        Regex(),
        Numeric(),
        JsonSchema(),
        SafeText(),
        Code(),
    )
}
