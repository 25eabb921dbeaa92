"""Whether a training slice and the suites that judge it share anything."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from studbook.evaluation.scorecards import SuiteFile
from studbook.records import ContaminationReceipt, Header, read_struct

__all__ = ["TrainingRow", "compare_with_suites", "parse_rows"]


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
    return tuple(read_struct(line, TrainingRow, f"{where}: line {n}") for n, line in enumerate(lines, 1))


def compare_with_suites(
    header: Header, training: str, rows: Sequence[TrainingRow], suites: Sequence[SuiteFile]
) -> ContaminationReceipt:
    """Count prompts, and prompt-answer pairs, that stand both in the slice and in a suite.

    Args:
        header: Record header.
        training: Digest of the slice.
        rows: Its rows.
        suites: The suites to compare with.
    """
    items = [item for suite in suites for item in suite.items]
    prompts = {_folded(row.prompt) for row in rows}
    pairs = {(_folded(row.prompt), row.expected) for row in rows}
    shared_prompts = sum(_folded(item.prompt) in prompts for item in items)
    shared_items = sum((_folded(item.prompt), item.expected) in pairs for item in items)
    return ContaminationReceipt(
        header=header,
        training=training,
        training_rows=len(rows),
        suites=tuple(suite.digest for suite in suites),
        items=len(items),
        shared_prompts=shared_prompts,
        shared_items=shared_items,
        clean=shared_prompts == 0 and shared_items == 0,
    )


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())
