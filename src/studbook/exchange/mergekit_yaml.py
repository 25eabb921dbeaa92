"""A YAML file as plain values that remember their line, without anything YAML can do beyond mappings, lists and scalars.

Anchors, aliases, tags, merge keys, several documents and names written twice are refused: each of them lets a file mean
something else than it shows. Source of the syntax: yaml.org/spec/1.1, as PyYAML's event parser reads it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml

from studbook.errors import OutsideAllowlist, UsageError, printable

__all__ = ["LIMIT", "Node", "read_yaml"]

LIMIT = 1 << 20
_DEPTH = 16
_NODES = 50_000
_NUMBER = re.compile(r"[-+]?(\d{1,300}(\.\d{0,300})?|\.\d{1,300})([eE][-+]?\d{1,4})?")
_INTEGER = re.compile(r"[-+]?\d{1,18}")
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NOTHING = ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True)
class Node:
    """One value of the file.

    Attributes:
        file: Name of the file.
        line: Line it begins on, from 1.
        field: Path to it, such as ``models[1].parameters.weight``.
        value: A mapping, a list, the text of a scalar, or None for a scalar that is left out.
        area: First part of every ``reason``, such as ``mergekit``.
    """

    file: str
    line: int
    field: str
    value: dict[str, Node] | list[Node] | str | None
    area: str = "mergekit"

    @property
    def where(self) -> str:
        """File, line and field, for an error's ``where``."""
        return f"{self.file}:{self.line}: {self.field}" if self.field else f"{self.file}:{self.line}"

    def wrong(self, message: str, reason: str, advice: str = "") -> NoReturn:
        """Refuse what is no valid file of its tool.

        Raises:
            UsageError: always, with ``reason`` behind the area.
        """
        advice = advice or "Correct the file at the named line; nothing was read from it."
        raise UsageError(message, where=self.where, advice=advice, reason=f"{self.area}.{reason}")

    def outside(self, message: str, reason: str, advice: str = "") -> NoReturn:
        """Refuse what the other tool could do and Studbook does not.

        Raises:
            OutsideAllowlist: always, with ``reason`` behind the area.
        """
        advice = advice or f"docs/{self.area}.md lists what can be translated."
        raise OutsideAllowlist(message, where=self.where, advice=advice, reason=f"{self.area}.{reason}")

    def mapping(self, known: tuple[str, ...] | None = None) -> dict[str, Node]:
        """The entries of a mapping; None counts as an empty one.

        Raises:
            UsageError: if it is no mapping, or has a key that is not known.
        """
        if self.value is None:
            return {}
        if not isinstance(self.value, dict):
            self.wrong("is no mapping", "type")
        for key, node in self.value.items():
            if known is not None and key not in known:
                node.wrong(f"unknown key; known are {', '.join(known)}", "unknown")
        return {key: node for key, node in self.value.items() if node.value is not None}

    def sequence(self) -> list[Node]:
        """The elements of a list that is not empty.

        Raises:
            UsageError: if it is none.
        """
        if not isinstance(self.value, list) or not self.value:
            self.wrong("is no list with elements", "type")
        return self.value

    def text(self) -> str:
        """A scalar as text.

        Raises:
            UsageError: if it is none, or is empty.
        """
        if not isinstance(self.value, str) or not self.value:
            self.wrong("is no text", "type")
        return self.value

    def number(self) -> float:
        """A finite number, f64; ``1e-5`` counts, as it does for mergekit, though YAML 1.1 takes it for text.

        Raises:
            UsageError: if it is none.
        """
        text = self.text()
        if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
            self.wrong(f"{printable(text)[:40]!r} is no finite decimal number", "number")
        return float(text)

    def integer(self) -> int:
        """An integer in decimal digits.

        Raises:
            UsageError: if it is none.
        """
        text = self.text()
        if not _INTEGER.fullmatch(text) or (len(text.lstrip("-+")) > 1 and text.lstrip("-+")[0] == "0"):
            self.wrong(f"{printable(text)[:40]!r} is no decimal integer", "number")
        return int(text)

    def flag(self) -> bool:
        """True or false; 1 and 0 count, as they do for mergekit.

        Raises:
            UsageError: if it is neither.
        """
        text = self.text()
        if text.lower() in _WORDS:
            return _WORDS[text.lower()]
        if not _NUMBER.fullmatch(text) or float(text) not in (0.0, 1.0):
            self.wrong(f"{printable(text)[:40]!r} is neither true nor false", "flag")
        return float(text) == 1.0


def read_yaml(text: str, file: str, area: str = "mergekit") -> Node:
    """The one document of a YAML file.

    Args:
        text: The whole file, up to `LIMIT` characters.
        file: Its name, for messages.
        area: First part of every ``reason``.

    Raises:
        UsageError: if it is no YAML, uses more of YAML than mappings, lists and scalars, or is too large or too deep.
    """
    top = Node(file, 1, "", None, area)
    if len(text) > LIMIT:
        top.wrong(f"{len(text)} characters; at most {LIMIT} are read", "size")
    try:
        return _Builder(top).document(yaml.parse(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 1
        message = getattr(error, "problem", None) or str(error).splitlines()[0]
        Node(file, line, "", None, area).wrong(f"is no YAML: {printable(message)}", "yaml")
    except (ValueError, OverflowError):
        # PyYAML turns some escapes into characters without a check of its own.
        top.wrong("is no YAML: an escape names no character", "yaml")


class _Builder:
    """Builds nodes from events; the only recursion is bounded by `_DEPTH`."""

    def __init__(self, top: Node) -> None:
        self._top, self._seen = top, 0

    def document(self, events: Iterator[Any]) -> Node:
        next(events)
        begin = next(events)
        if isinstance(begin, yaml.StreamEndEvent):
            self._top.wrong("is empty", "empty")
        found = self._node(next(events), events, "", 0)
        next(events)
        if not isinstance(after := next(events), yaml.StreamEndEvent):
            self._at(after, "").wrong("holds several documents", "documents", "Split it into one file each.")
        return found

    def _at(self, event: Any, field: str) -> Node:
        return Node(self._top.file, event.start_mark.line + 1, field, None, self._top.area)

    def _node(self, event: Any, events: Iterator[Any], field: str, depth: int) -> Node:
        here = self._at(event, field)
        self._seen += 1
        if depth > _DEPTH or self._seen > _NODES:
            here.wrong("is nested too deeply, or holds too many values", "size")
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            here.wrong("anchors and aliases are not read", "alias", "Write the value out at every place.")
        if event.tag is not None:
            here.wrong(f"the tag {printable(event.tag)} is not read", "tag", "Write plain values.")
        value: Any
        if isinstance(event, yaml.ScalarEvent):
            value = None if event.style is None and event.value in _NOTHING else event.value
        elif isinstance(event, yaml.SequenceStartEvent):
            value = []
            while not isinstance(inner := next(events), yaml.SequenceEndEvent):
                value.append(self._node(inner, events, f"{field}[{len(value)}]", depth + 1))
        else:
            value = self._entries(events, field, depth)
        return Node(here.file, here.line, field, value, here.area)

    def _entries(self, events: Iterator[Any], field: str, depth: int) -> Mapping[str, Node]:
        found: dict[str, Node] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            key = self._node(event, events, field, depth + 1)
            if not isinstance(key.value, str) or key.value == "<<":
                key.wrong("a key that is no plain text", "key")
            if key.value in found:
                key.wrong(f"{printable(key.value)!r} is written twice", "twice")
            name = f"{field}.{key.value}" if field else key.value
            found[key.value] = self._node(next(events), events, printable(name), depth + 1)
        return found
