"""A task of lm-eval-harness, YAML and JSON lines on this disk, as the two files of a Studbook suite.

What decides a verdict is carried over or refused: nothing is run, no template language is interpreted beyond
``{{field}}``, no data set is fetched. Fields and defaults: the task guide of lm-eval 0.4.13. `lm_eval_rules` holds what a
suite cannot say. The harness itself is not needed.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from studbook.errors import OutsideAllowlist, RecordRefused, UsageError
from studbook.exchange.lm_eval_rules import Rules, read_rules
from studbook.exchange.mergekit_yaml import LIMIT, Node, read_yaml
from studbook.files import read_file
from studbook.models.keyvalue import format_manifest
from studbook.records import canonical, read_plain_json

__all__ = ["ForeignTask", "read_task", "suite_files"]

_DATA_LIMIT = 64 << 20
_FIELD = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_LITERALS = frozenset(("true", "false", "none", "True", "False", "None"))

Row = dict[str, Any]


class ForeignTask(NamedTuple):
    """A task that was read.

    Attributes:
        name: What it calls itself.
        scorer: The kind of scorer that gives the harness's verdicts.
        questions: For each row of its data ``prompt``, ``expected`` and, of a multiple choice, ``rule``.
        max_new_tokens: Longest answer that is asked for, in tokens.
        sources: SHA-256 of the task file and of its data.
    """

    name: str
    scorer: str
    questions: tuple[Row, ...]
    max_new_tokens: int
    sources: tuple[str, str]


def read_task(path: Path) -> ForeignTask:
    """Read a task file and its data.

    Args:
        path: The YAML file; its data must lie in its folder.

    Raises:
        UsageError: if a file is missing, or is no task.
        OutsideAllowlist: if a suite would not give the harness's verdicts; the message says why.
        RecordRefused: if a line of the data is not a JSON object.
    """
    text = read_file(path, LIMIT)
    rules = read_rules(_yaml(text, path))
    data, where = _data(rules.data, path.parent)
    rows = _rows(data, where)
    if any(rules.description in row for row in rows):
        rules.task.outside("the description is the name of a field to the harness", "template")
    questions = tuple(_question(rules, row, rows, f"{where}: line {n}") for n, row in enumerate(rows, 1))
    longest = max(len(t.encode()) for q in questions for t in q.get("rule", {}).get("choices", [q["expected"]]))
    if rules.limit is not None and longest >= rules.limit:
        message = f"an answer of {longest} bytes does not end within max_gen_toks={rules.limit} tokens for sure"
        rules.task.outside(message, "limit", "Raise max_gen_toks above the longest answer.")
    digests = (hashlib.sha256(text).hexdigest(), hashlib.sha256(data).hexdigest())
    return ForeignTask(rules.name, rules.scorer, questions, rules.limit or longest, digests)


def _yaml(text: bytes, path: Path) -> Node:
    try:
        return read_yaml(text.decode("utf-8", "replace"), str(path), "lm-eval")
    except UsageError as error:
        if error.reason != "lm-eval.tag":
            raise
        message = f"{error.message}: a Python function is code, and a suite is data"
        advice = "Run it once, and write what it gives into the data."
        raise OutsideAllowlist(message, where=error.where, advice=advice, reason="lm-eval.code") from error


def suite_files(task: ForeignTask, *, name: str, role: str, cluster: str, licence: str) -> dict[str, bytes]:
    """The bytes of ``suite.manifest`` and ``items.jsonl``.

    Args:
        task: The task.
        name: Name of the suite; its items are named after it.
        role: Role of the suite.
        cluster: The skill it asks for.
        licence: SPDX identifier of the data.

    Raises:
        ManifestRefused: if a value cannot stand in a manifest.
    """
    common = {"cluster": cluster, "perturbation": "none"}
    items = [canonical({**common, **q, "id": f"{name}-{n:05d}"}) for n, q in enumerate(task.questions, 1)]
    data = b"".join(item + b"\n" for item in items)
    settings = {
        "manifest_version": "1",
        "kind": "suite",
        "name": name,
        "role": role,
        "dimension": "task",
        "cluster": cluster,
        "scorer": task.scorer,
        "licence": licence,
        "items": str(len(items)),
        "items_sha256": hashlib.sha256(data).hexdigest(),
        "generator": f"lm-eval task {task.name}",
        "generator_sha256": task.sources[0],
        "data_sha256": task.sources[1],
        "max_new_tokens": str(task.max_new_tokens),
    }
    return {"items.jsonl": data, "suite.manifest": format_manifest(settings, "suite.manifest")}


def _data(named: Node, folder: Path) -> tuple[bytes, Path]:
    if not named.text().isprintable():
        named.wrong("is no name of a file", "data", "Name the data in plain text.")
    path = folder / named.text()
    # Not Path.resolve, to which a loop of links is an error of no type of ours.
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        advice = "Put the data beside the task file, and name it relative to that."
        named.outside("lies outside the folder of the task", "data", advice)
    if not path.is_file():
        named.wrong(f"no such file: {path}", "data", "Put the data beside the task file, and name it relative to that.")
    return read_file(path, _DATA_LIMIT), path


def _rows(data: bytes, where: Path) -> list[Row]:
    lines = data.removesuffix(b"\n").split(b"\n") if data else []
    rows = [read_plain_json(line, f"{where}: line {n}") for n, line in enumerate(lines, 1)]
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise RecordRefused("is no JSON object", where=f"{where}: line {number}", reason="lm-eval.row")
    if not rows:
        raise UsageError("holds no rows", where=where, advice="Give at least one row.", reason="lm-eval.row")
    return rows


def _question(rules: Rules, row: Row, rows: Sequence[Row], where: str) -> Row:
    prompt = rules.description + str(_value(rules.text, row, rows, where))
    target = _value(rules.target, row, rows, where)
    if breaks := [c for c in prompt if unicodedata.category(c) in ("Cc", "Zl", "Zp") and c not in "\n\t"]:
        text = (
            f"the prompt holds U+{ord(breaks[0]):04X}; of control characters only line feeds and tabs may stand there"
        )
        _refuse(where, rules.text, text)
    if rules.choices is None:
        return {"prompt": prompt, "expected": _single(str(target), rules.target)}
    if prompt.isdigit():
        rules.text.outside("a prompt of digits alone is a number of a choice to the harness", "prompt")
    choices = _choices(rules.choices, row, rows, where)
    number = isinstance(target, int) or (_templated(rules.target, rows) and re.fullmatch("[0-9]{1,9}", target))
    place = int(target) if number else None
    if place is None and target in choices:
        place = choices.index(str(target))
    if place is None or not 0 <= place < len(choices):
        _refuse(where, rules.target, f"{target!r} is none of the {len(choices)} choices")
    texts = [rules.delimiter + choice for choice in choices]
    return {"prompt": prompt, "expected": texts[place], "rule": {"choices": texts, "by": rules.by}}


def _choices(node: Node, row: Row, rows: Sequence[Row], where: str) -> list[str]:
    if isinstance(node.value, list):
        found: Any = [_plain(entry) for entry in node.value]
    else:
        name = node.text()
        if not any(name in other for other in rows):
            node.outside("is neither a field of the data nor a list of plain texts", "choices")
        found = row.get(name)
    if not isinstance(found, list) or len(found) < 2 or not all(isinstance(c, str) and c for c in found):
        _refuse(where, node, "is no list of at least two texts")
    if len(set(found)) != len(found):
        _refuse(where, node, "names a choice twice; the harness takes the first, a suite refuses a tie")
    return list(found)


def _plain(node: Node) -> str:
    text = node.text()
    if "{" in text:
        node.outside("a template as a choice is not carried over", "choices")
    return text


def _templated(node: Node, rows: Sequence[Row]) -> bool:
    """Whether the harness renders this as a template, and does not take a field's value as it is."""
    return not any(node.value in row for row in rows)


def _value(node: Node, row: Row, rows: Sequence[Row], where: str) -> str | int:
    """What the harness makes of ``doc_to_text`` or ``doc_to_target`` for a row."""
    template = node.text()
    if not _templated(node, rows):
        return _field(template, node, row, where)
    if re.search(r"\{[{%#]|[%#}]\}|\r", _FIELD.sub("", template)) or _LITERALS & set(_FIELD.findall(template)):
        advice = "Write the finished text into a field of the data, and name that field."
        node.outside("a template that is more than {{field}} is not interpreted", "template", advice)
    return _FIELD.sub(lambda found: str(_field(found[1], node, row, where)), template)


def _field(name: str, node: Node, row: Row, where: str) -> str | int:
    value = row.get(name)
    if not isinstance(value, str | int) or isinstance(value, bool):
        _refuse(where, node, f"field {name} is missing, or neither a text nor a whole number")
    return value


def _single(target: str, node: Node) -> str:
    if len(target) >= 2 and target[0] == "[" and target[-1] == "]":
        node.outside("a target in brackets is a list of targets to the harness", "target")
    return target


def _refuse(where: str, node: Node, message: str) -> NoReturn:
    advice = "Correct the row; nothing was written."
    raise OutsideAllowlist(message, where=f"{where}: {node.field}", advice=advice, reason="lm-eval.row")
