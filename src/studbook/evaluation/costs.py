"""What a model costs: counted from its shapes and from the tokens of fixed items, so the same on every machine.

Fuel is what the engine really did: the meter counts one for every instruction of the module (Wasmtime, Config::consume_fuel;
a few kinds count none). It is equal in every run and on every machine, for one engine and one meter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import version
from typing import NamedTuple

from studbook.evaluation.items import Item
from studbook.evaluation.scoring import KINDS
from studbook.models.engine import ENGINE_SHA256
from studbook.models.slm import Slm
from studbook.records import Basis, Measure

__all__ = ["Answered", "answered", "counter", "measures", "meter", "scoring_work"]

_WORK = "closed form from the shapes, summed over the sequences that were scored"
_WRITTEN = "greedy answers to the suite's prompts, end markers included"
_SAMPLE = "greedy answers to the sample on which generating and scoring are compared"
_COUNTER = re.compile(r"[a-z]+ [0-9.]+, engine [0-9a-f]{64}")
_ANSWERING = "closed form from the shapes over prompts and written tokens, every token fed once"


class Answered(NamedTuple):
    """What answering the prompts of one suite took.

    Attributes:
        cluster: Label of the suite.
        tokens: Tokens that were written.
        work: Multiply-adds of reading the prompts and writing the tokens.
        fuel: What the engine counted for it, text to tokens and back included.
    """

    cluster: str
    tokens: int
    work: int
    fuel: int


@cache
def meter() -> str:
    """What counts fuel: another version may count otherwise."""
    return f"wasmtime {version('wasmtime')}"


def counter(stated: Iterable[Measure] = ()) -> str:
    """What counted fuel, as its method begins: this program's meter and engine, or those that some measures state.

    Args:
        stated: Measures that another evaluator made.
    """
    found = (_COUNTER.match(m.method) for m in stated if m.unit.partition("/")[0] == "fuel")
    return next((match[0] for match in found if match), f"{meter()}, engine {ENGINE_SHA256}")


def answered(model: Slm, cluster: str, items: Sequence[Item], written: Sequence[int], fuel: int) -> Answered:
    """The cost of answers that were written with a cache: of a sequence every token but the last written is fed, once.

    Args:
        model: The model.
        cluster: Label of the suite.
        items: Its items.
        written: Tokens written to each.
        fuel: What the engine counted for it.
    """
    encode = model.tokenizer.encode
    prompts = (len(encode(item.prompt, bos=True, eos=False)) for item in items)
    pairs = zip(prompts, written, strict=True)
    return Answered(cluster, sum(written), sum(model.shape.multiply_adds(p + w - 1, w) for p, w in pairs), fuel)


def measures(
    model: Slm, work: int, fuel: int, answers: Iterable[Answered] = (), counted: str = ""
) -> tuple[Measure, ...]:
    """The costs of a model, as a scorecard states them; no clock has a part in any of them.

    Args:
        model: The model.
        work: Multiply-adds of scoring it.
        fuel: What the engine counted for generating on the sample; 0 where there is none.
        answers: What answering took, one a suite of cost.
        counted: What counted fuel; this program's `counter` by default.
    """
    shape = model.shape
    rows: list[tuple[int, str, Basis, str]] = [
        (model.size, "bytes", "observed", "size of the artifact"),
        (shape.parameter_count, "parameters", "observed", "counted from the shapes"),
        (shape.decoded_bytes, "decoded-bytes", "observed", "f32 tensors after decoding"),
        (shape.kv_bytes(shape.max_context), "kv-bytes", "observed", "f32 cache at full context"),
        (work, "multiply-adds", "estimated", _WORK),
    ]
    counted = counted or counter()
    if fuel:
        rows.append((fuel, "fuel", "observed", f"{counted}: {_SAMPLE}"))
    for found in answers:
        rows.append((found.tokens, f"tokens-written/{found.cluster}", "observed", _WRITTEN))
        rows.append((found.work, f"multiply-adds/{found.cluster}", "estimated", _ANSWERING))
        rows.append((found.fuel, f"fuel/{found.cluster}", "observed", f"{counted}: {_WRITTEN}"))
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
