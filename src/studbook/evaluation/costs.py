"""What a model costs: counted from its shapes and from the tokens of fixed items, so the same on every machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from studbook.evaluation.items import Item
from studbook.evaluation.scoring import KINDS
from studbook.models.slm import Slm
from studbook.records import Basis, Measure

__all__ = ["Answered", "answered", "measures", "scoring_work"]

_WORK = "closed form from the shapes, summed over the sequences that were scored"
_WRITTEN = "greedy answers to the suite's prompts, end markers included"
_ANSWERING = "closed form from the shapes over prompts and written tokens, every token fed once"


class Answered(NamedTuple):
    """What answering the prompts of one suite took.

    Attributes:
        cluster: Label of the suite.
        tokens: Tokens that were written.
        work: Multiply-adds of reading the prompts and writing the tokens.
    """

    cluster: str
    tokens: int
    work: int


def answered(model: Slm, cluster: str, items: Sequence[Item], written: Sequence[int]) -> Answered:
    """The cost of answers that were written with a cache: of a sequence every token but the last written is fed, once.

    Args:
        model: The model.
        cluster: Label of the suite.
        items: Its items.
        written: Tokens written to each.
    """
    encode = model.tokenizer.encode
    prompts = (len(encode(item.prompt, bos=True, eos=False)) for item in items)
    pairs = zip(prompts, written, strict=True)
    return Answered(cluster, sum(written), sum(model.shape.multiply_adds(p + w - 1, w) for p, w in pairs))


def measures(model: Slm, work: int, answers: Iterable[Answered] = ()) -> tuple[Measure, ...]:
    """The costs of a model, as a scorecard states them; no clock has a part in any of them.

    Args:
        model: The model.
        work: Multiply-adds of scoring it.
        answers: What answering took, one a suite of cost.
    """
    shape = model.shape
    rows: list[tuple[int, str, Basis, str]] = [
        (model.size, "bytes", "observed", "size of the artifact"),
        (shape.parameter_count, "parameters", "observed", "counted from the shapes"),
        (shape.decoded_bytes, "decoded-bytes", "observed", "f32 tensors after decoding"),
        (shape.kv_bytes(shape.max_context), "kv-bytes", "observed", "f32 cache at full context"),
        (work, "multiply-adds", "estimated", _WORK),
    ]
    for found in answers:
        rows.append((found.tokens, f"tokens-written/{found.cluster}", "observed", _WRITTEN))
        rows.append((found.work, f"multiply-adds/{found.cluster}", "estimated", _ANSWERING))
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
