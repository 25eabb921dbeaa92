"""Foreign text in Markdown: a name, licence or file name shows as what it is and never becomes markup or a formula.

Sources: CommonMark 0.31.2 (backslash escapes, entities), GitHub Flavored Markdown 0.29 (tables, autolinks), and the
OWASP page on CSV injection (cells that begin with ``=``, ``+``, ``-`` or ``@``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from studbook.errors import printable

__all__ = ["bullets", "cell", "code_block", "plain", "rows", "scalar"]

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_INLINE = re.compile(r"[\\`*_\[\]|~$]")
# What begins a block at the start of a line: headings, lists, rules; quotes are entities already.
_FIRST = re.compile(r"\A([-+=#]|[0-9]+(?=[.)]))")
# What GitHub makes a link of by itself.
_WEB = re.compile(r"www(?=\.)|(?<=[a-z])(?=://)|(?<=mailto)(?=:)", re.IGNORECASE)
# ASCII that YAML, Markdown or HTML could read as more than a letter.
_NOT_IN_SCALAR = re.compile(r"(?=[\x00-\x7f])[^\w .,:/+-]")
_FORMULA = ("=", "+", "-", "@")


def plain(text: object) -> str:
    """Text that a Markdown renderer shows letter for letter, on one line; what is not printable becomes U+FFFD."""
    # Spaces before a mark would hide it from the rule for beginnings, and a renderer drops them.
    shown = "".join(_ENTITIES.get(c, c) for c in printable(text).strip())
    shown = _INLINE.sub(lambda found: "\\" + found[0], shown)
    shown = _WEB.sub(lambda found: found[0] + "\\", shown)
    return _FIRST.sub(_quoted, shown)


def cell(text: object) -> str:
    """The same for a table's cell; text that a spreadsheet would compute gets an apostrophe before it."""
    found = printable(text).strip()
    return plain("'" + found if found.startswith(_FORMULA) else found)


def rows(head: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table whose cells are Markdown already (see `cell`); a line of dashes follows the head."""
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines)]


def bullets(items: Iterable[str]) -> list[str]:
    """The lines of a list of plain texts."""
    return [f"- {plain(item)}" for item in items]


def code_block(value: Any) -> list[str]:
    """JSON values as a block of code: every character of markup is escaped the way JSON allows.

    Args:
        value: Plain JSON values.
    """
    text = json.dumps(value, indent=2, sort_keys=True)
    for character in "<>&`~":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return ["```json", *text.splitlines(), "```"]


def scalar(text: object) -> str:
    """Text as a double-quoted scalar of YAML 1.2 front matter, inert where a reader takes front matter for Markdown."""
    return '"' + _NOT_IN_SCALAR.sub(lambda found: f"\\u{ord(found[0]):04x}", printable(text)) + '"'


def _quoted(found: re.Match[str]) -> str:
    """The mark escaped; of a number with a dot, the dot."""
    return found[0] + "\\" if found[0][0].isdigit() else "\\" + found[0]
