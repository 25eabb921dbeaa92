"""What a model costs: counted from its shapes and from the tokens of fixed items, so the same on every machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from studbook.evaluation.items import Item
from studbook.evaluation.scoring import KINDS
from studbook.models.slm import Slm
from studbook.records import Basis, Measure

__all__ = ["measures", "scoring_work"]

_WORK = "closed form from the shapes, summed over the sequences that were scored"


def measures(model: Slm, work: int) -> tuple[Measure, ...]:
    """The costs of a model, as a scorecard states them.

    Args:
        model: The model.
        work: Multiply-adds of scoring it.
    """
    shape = model.shape
    rows: tuple[tuple[int, str, Basis, str], ...] = (
        (model.size, "bytes", "observed", "size of the artifact"),
        (shape.parameter_count, "parameters", "observed", "counted from the shapes"),
        (shape.decoded_bytes, "decoded-bytes", "observed", "f32 tensors after decoding"),
        (shape.kv_bytes(shape.max_context), "kv-bytes", "observed", "f32 cache at full context"),
        (work, "multiply-adds", "estimated", _WORK),
    )
    return tuple(Measure(value=float(v), unit=unit, basis=basis, method=method) for v, unit, basis, method in rows)


def scoring_work(model: Slm, suites: Iterable[tuple[str, Sequence[Item]]]) -> int:
    """Multiply-adds of scoring every sequence of some suites once; nothing is run.

    Args:
        model: The model.
        suites: For each the name of its scorer, and its items.
    """
    encode, total = model.tokenizer.encode, 0
    for scorer, items in suites:
        for item in items:
            prompt = len(encode(item.prompt, bos=True, eos=False))
            for text in KINDS[scorer].sequences(item):
                answer = len(encode(text, bos=False, eos=True))
                # The answer's last token is predicted and never fed.
                total += model.shape.multiply_adds(prompt + answer - 1, answer)
    return total
