"""Code: the written answer is a Python program, and calls of it have to give the right values."""

from __future__ import annotations

import ast
from typing import Annotated

from msgspec import Meta, Struct

from studbook.errors import RecordRefused
from studbook.evaluation.items import Item
from studbook.evaluation.scoring.base import Kind

__all__ = ["Code", "UnitTests"]

Line = Annotated[str, Meta(min_length=1, max_length=2000)]
Lines = Annotated[tuple[Line, ...], Meta(min_length=1, max_length=64)]


class UnitTests(Struct, frozen=True, forbid_unknown_fields=True):
    """The unit tests of an item.

    Attributes:
        calls: Python expressions over what the program defines, such as ``add(1, 2)``.
        gives: The value of each as a Python literal, such as ``3``; the program never sees these.
    """

    calls: Lines
    gives: Lines


class Code(Kind):
    """Share of programs all of whose calls give the right value.

    Program and calls run in a worker of their own without network, exec or files; only the printed form of each value
    comes back, and it is compared here, so a program that ends early or writes its own verdict has passed nothing.
    """

    name = "code"
    mark = 0.25
    floor = 0.25
    runs = "studbook.evaluation.code_worker"
    rule = UnitTests

    def check(self, item: Item) -> None:
        """Refuse an item whose calls are no expressions, or whose values are no literals."""
        rule = self.asked(item)
        try:
            for call in rule.calls:
                ast.parse(call, mode="eval")
            values = [ast.literal_eval(text) for text in rule.gives]
        except (SyntaxError, ValueError, RecursionError, MemoryError, TypeError) as error:
            raise _refused(item, f"does not hold expressions and literals: {error}") from error
        if any(
            isinstance(part, ast.Set | ast.Call) for text in rule.gives for part in ast.walk(ast.parse(text.strip()))
        ):
            raise _refused(item, "gives a set, which is printed in another order every time; let the call sort it")
        if len(values) != len(rule.calls):
            raise _refused(item, f"{len(rule.calls)} calls and {len(values)} values")

    def right(self, item: Item, said: object, limit: int) -> bool:
        """Whether every call gave its value; ``said`` is the list of printed values that the worker answered."""
        del limit
        wanted = [repr(ast.literal_eval(text)) for text in item.rule["gives"]]
        return isinstance(said, list) and said == wanted


def _refused(item: Item, words: str) -> RecordRefused:
    advice = "Write one literal value a call."
    return RecordRefused(words, where=f"item {item.id}: rule", advice=advice, reason="suite.rule")
