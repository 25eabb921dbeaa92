"""Whether a training slice and the suites that judge it share anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct

from studbook.evaluation.items import Item, read_line
from studbook.evaluation.scorecards import SuiteFile
from studbook.records import ContaminationReceipt, Header

__all__ = ["LONG_RUN", "SHORT_RUN", "Overlap", "TrainingRow", "compare_with_suites", "folded", "overlaps", "parse_rows"]

# Words of a run that two texts must not share; the second for items too short for the first.
LONG_RUN, SHORT_RUN = 13, 8


class TrainingRow(Struct, frozen=True, forbid_unknown_fields=True):
    """One row of a training slice.

    Attributes:
        prompt: What the model sees.
        expected: What it is to answer.
    """

    prompt: str
    expected: str


def parse_rows(data: bytes, where: object = "") -> tuple[TrainingRow, ...]:
    """Every row of a JSON-lines slice.

    Raises:
        RecordRefused: if a line is not a canonical row.
    """
    lines = [line for line in data.split(b"\n") if line]
    return tuple(read_line(line, TrainingRow, f"{where}: line {n}") for n, line in enumerate(lines, 1))


class Overlap(NamedTuple):
    """What training rows and items share.

    Attributes:
        prompts: Items whose prompt, case and white space folded, stands in a row.
        items: Items whose prompt and answer do.
        runs: Items that share a run of words with a row.
    """

    prompts: int
    items: int
    runs: int

    @property
    def clean(self) -> bool:
        """Whether nothing is shared."""
        return self == (0, 0, 0)


def overlaps(rows: Sequence[TrainingRow], items: Sequence[Item]) -> Overlap:
    """Count prompts, prompt-answer pairs and runs of words that stand both in rows and in items.

    A run is 13 words of prompt and answer, 8 for an item of 8 to 12 words, none for a shorter one, whose prompt is
    compared as a whole. Source of the length: Brown et al. 2020, 2005.14165, appendix C.

    Args:
        rows: Training rows.
        items: Items of suites.
    """
    prompts = {folded(row.prompt) for row in rows}
    pairs = {(folded(row.prompt), row.expected) for row in rows}
    taught = {length: _runs_of_all(rows, length) for length in (LONG_RUN, SHORT_RUN)}
    return Overlap(
        sum(folded(item.prompt) in prompts for item in items),
        sum((folded(item.prompt), item.expected) in pairs for item in items),
        sum(_shares_run(item.prompt, item.expected, taught) for item in items),
    )


def compare_with_suites(
    header: Header, training: str, rows: Sequence[TrainingRow], suites: Sequence[SuiteFile]
) -> ContaminationReceipt:
    """The receipt of `overlaps` between a training slice and some suites.

    Args:
        header: Record header.
        training: Digest of the slice.
        rows: Its rows.
        suites: The suites to compare with.
    """
    items = [item for suite in suites for item in suite.items]
    found = overlaps(rows, items)
    return ContaminationReceipt(
        header=header,
        training=training,
        training_rows=len(rows),
        suites=tuple(suite.digest for suite in suites),
        items=len(items),
        shared_prompts=found.prompts,
        shared_items=found.items,
        shared_runs=found.runs,
        clean=found.clean,
    )


def _words(prompt: str, expected: str) -> list[str]:
    return f"{prompt} {expected}".casefold().split()


def _runs(words: Sequence[str], length: int) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}


def _runs_of_all(rows: Sequence[TrainingRow], length: int) -> set[tuple[str, ...]]:
    return {run for row in rows for run in _runs(_words(row.prompt, row.expected), length)}


def _shares_run(prompt: str, expected: str, taught: Mapping[int, set[tuple[str, ...]]]) -> bool:
    words = _words(prompt, expected)
    length = LONG_RUN if len(words) >= LONG_RUN else SHORT_RUN
    return not taught[length].isdisjoint(_runs(words, length))


def folded(text: str) -> str:
    """A text with case and white space folded: two prompts that are equal so are one prompt."""
    return " ".join(text.casefold().split())
