"""Vocabularies of Hugging Face checkpoints, read strictly, and their differences in words people read.

Formats: ``tokenizer.json`` of the tokenizers library (``model`` of type BPE, WordPiece, WordLevel or Unigram, and
``added_tokens``), ``vocab.json`` with ``added_tokens.json``, and ``vocab.txt`` (one token a line, its id the line).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from studbook.errors import BytesLie, printable
from studbook.files import read_file

__all__ = ["MAX_BYTES", "AddedToken", "Vocabulary", "parse_tokenizer_json", "read_vocabulary", "vocabulary_diff"]

MAX_BYTES: Final = 128 * 1024 * 1024
_MAX_ID: Final = 2**31 - 1
_MAX_SCORE: Final = 1e30
_MAX_DEPTH: Final = 64
_FLAGS: Final = ("single_word", "lstrip", "rstrip", "normalized", "special")
# What decides how text is cut into tokens, apart from the vocabulary itself.
_STEPS: Final = ("normalizer", "pre_tokenizer", "post_processor")


@dataclass(frozen=True)
class AddedToken:
    """One entry of ``added_tokens``.

    Attributes:
        id: Its id.
        content: Its text.
        flags: ``single_word``, ``lstrip``, ``rstrip``, ``normalized`` and ``special``, in this order.
    """

    id: int
    content: str
    flags: tuple[bool, bool, bool, bool, bool]

    def entry(self) -> dict[str, Any]:
        """The entry as it stands in ``tokenizer.json``."""
        return {"id": self.id, "content": self.content, **dict(zip(_FLAGS, self.flags, strict=True))}


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The tokens of one model.

    Attributes:
        name: What people call the model.
        kind: Type of the tokenizer's model, such as ``BPE``; ``list`` where only a list of tokens is known.
        ids: Token -> id, added tokens included, in ascending order of the ids.
        added: The added tokens, in ascending order of the ids.
        size: The model's ``vocab_size``: rows of its embedding, never fewer than ids; the rest is padding.
        plain: Number of tokens in the tokenizer's own model, without those that were only added.
        rules: Part of the tokenizer (such as ``normalizer``) -> its canonical JSON.
        merges: Merges or scores, one text each, in their order.
        document: The parsed ``tokenizer.json``; None where there is none. Not to be written to.
    """

    name: str
    kind: str
    ids: Mapping[str, int]
    added: tuple[AddedToken, ...]
    size: int
    plain: int
    rules: Mapping[str, str]
    merges: tuple[str, ...]
    document: Mapping[str, Any] | None

    @property
    def last(self) -> int:
        """The highest id; -1 where there is no token."""
        return max(self.ids.values(), default=-1)


def read_vocabulary(files: Mapping[str, Path], size: int, name: str) -> Vocabulary:
    """The vocabulary of a checkpoint: from ``tokenizer.json``, else ``vocab.json``, else ``vocab.txt``.

    Args:
        files: File name -> where it lies; other files are not looked at.
        size: The model's ``vocab_size``.
        name: What people call the model.

    Raises:
        BytesLie: if a file is too large, not strict JSON or breaks a rule, or none of the three is there.
        UsageError: if a file cannot be read.
    """
    if place := files.get("tokenizer.json"):
        return parse_tokenizer_json(read_file(place, MAX_BYTES), size, name, place)
    if place := files.get("vocab.json"):
        table = _ids(_strict(read_file(place, MAX_BYTES), place), place)
        plain = len(table)
        if more := files.get("added_tokens.json"):
            for token, number in _ids(_strict(read_file(more, MAX_BYTES), more), more).items():
                if table.setdefault(token, number) != number:
                    raise _refused("id", f"token {_shown(token)} has two ids", more)
    elif place := files.get("vocab.txt"):
        table = _listed(read_file(place, MAX_BYTES), place)
        plain = len(table)
    else:
        advice = "Write tokenizer.json with the tokenizers library; a tokenizer.model alone is not read."
        message = "has no tokenizer.json, vocab.json or vocab.txt"
        raise BytesLie(message, where=name, advice=advice, reason="vocabulary.file")
    return _vocabulary(name, "list", table, (), size, plain, {}, (), None, place)


def parse_tokenizer_json(data: bytes, size: int, name: str, where: object = "") -> Vocabulary:
    """The vocabulary in a ``tokenizer.json``.

    Args:
        data: The file.
        size: The model's ``vocab_size``.
        name: What people call the model.
        where: The file, for messages.

    Raises:
        BytesLie: naming the rule (``vocabulary.<rule>``) and the token that breaks it.
    """
    document = _object(_strict(data, where), "the file", where)
    model = _object(document.get("model"), "model", where)
    kind = model.get("type", "BPE" if "merges" in model else None)
    if kind in ("BPE", "WordPiece", "WordLevel"):
        table = _ids(model.get("vocab"), where)
        merges = _merges(model.get("merges", []), where)
    elif kind == "Unigram":
        table, merges = _pieces(model.get("vocab"), where)
    else:
        raise _refused("kind", f"model type {kind!r:.60}; BPE, WordPiece, WordLevel and Unigram are known", where)
    plain = len(table)
    added = _added(document.get("added_tokens", []), table, where)
    rules = {part: _text(document.get(part)) for part in _STEPS}
    rules["model"] = _text({k: v for k, v in model.items() if k not in ("vocab", "merges", "type")})
    return _vocabulary(name, kind, table, added, size, plain, rules, merges, document, where)


def vocabulary_diff(a: Vocabulary, b: Vocabulary, limit: int = 5) -> tuple[str, ...]:
    """The first differences between two vocabularies, one line each; empty if they are the same.

    Args:
        a: One vocabulary.
        b: The other one.
        limit: Most lines about tokens and about added tokens, each.
    """
    lines = []
    if a.kind != b.kind:
        lines.append(f"{a.name} is a {a.kind} tokenizer, {b.name} is {b.kind}")
    if a.size != b.size:
        lines.append(f"{a.name} has {a.size} rows, {b.name} has {b.size}")
    lines += _first(_token_lines(a, b), limit)
    lines += _first(_added_lines(a, b), limit)
    for place, (left, right) in enumerate(zip(a.merges, b.merges, strict=False)):
        if left != right:
            lines.append(f"merge or score {place} is {_shown(left)} in {a.name} and {_shown(right)} in {b.name}")
            break
    else:
        if len(a.merges) != len(b.merges):
            lines.append(f"{a.name} has {len(a.merges)} merges or scores, {b.name} has {len(b.merges)}")
    parts = sorted(a.rules.keys() & b.rules.keys())
    lines += [f"the {p} of {a.name} and {b.name} are not the same" for p in parts if a.rules[p] != b.rules[p]]
    return tuple(lines)


def _token_lines(a: Vocabulary, b: Vocabulary) -> Iterator[str]:
    for token, number in a.ids.items():
        other = b.ids.get(token)
        if other is None:
            yield f"token {_shown(token)} (id {number} in {a.name}) is not in {b.name}"
        elif other != number:
            yield f"token {_shown(token)} is id {number} in {a.name} and {other} in {b.name}"
    for token, number in b.ids.items():
        if token not in a.ids:
            yield f"token {_shown(token)} (id {number} in {b.name}) is not in {a.name}"


def _added_lines(a: Vocabulary, b: Vocabulary) -> Iterator[str]:
    left, right = ({token.content: token.flags for token in v.added} for v in (a, b))
    for content in sorted(left.keys() | right.keys()):
        if content in a.ids and content in b.ids and left.get(content) != right.get(content):
            yield f"token {_shown(content)} is added in different ways in {a.name} and {b.name}"


def _first(lines: Iterator[str], limit: int) -> list[str]:
    found = list(lines)
    rest = len(found) - limit
    return found if rest <= 0 else [*found[:limit], f"and {rest} more like these"]


def _shown(token: str) -> str:
    return repr(printable(token if len(token) <= 40 else token[:39] + "\N{HORIZONTAL ELLIPSIS}"))


def _vocabulary(
    name: str,
    kind: str,
    table: Mapping[str, int],
    added: tuple[AddedToken, ...],
    size: int,
    plain: int,
    rules: Mapping[str, str],
    merges: tuple[str, ...],
    document: Mapping[str, Any] | None,
    where: object,
) -> Vocabulary:
    ids = dict(sorted(table.items(), key=lambda entry: entry[1]))
    seen: dict[int, str] = {}
    for token, number in ids.items():
        if number in seen:
            raise _refused("id", f"{_shown(seen[number])} and {_shown(token)} both have id {number}", where)
        if number >= size:
            advice = "Give the model as many rows as its tokenizer has ids, or take the token out of the tokenizer."
            message = f"token {_shown(token)} has id {number}; the model has {size} rows"
            raise BytesLie(message, where=where, advice=advice, reason="vocabulary.row")
        seen[number] = token
    return Vocabulary(name, kind, ids, added, size, plain, rules, merges, document)


def _strict(data: bytes, where: object) -> Any:
    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(found)
        if len(table) != len(found):
            twice = next(key for key, count in Counter(key for key, _ in found).items() if count > 1)
            raise ValueError(f"key {_shown(twice)} stands twice in one object")
        return table

    def constant(word: str) -> float:
        raise ValueError(f"{word} is not a number JSON knows")

    try:
        value = json.loads(data.decode(), object_pairs_hook=pairs, parse_constant=constant)
        _check_depth(value)
        return value
    except (ValueError, RecursionError) as error:
        raise _refused("json", f"not strict JSON: {printable(error)[:200]}", where) from error


def _check_depth(value: Any) -> None:
    # Not by recursion: what was read must also be writable again without running out of stack.
    level, depth = [value], 0
    while level:
        if (depth := depth + 1) > _MAX_DEPTH:
            raise ValueError(f"nested deeper than {_MAX_DEPTH} levels")
        inner = [v for v in level if isinstance(v, dict | list)]
        level = [v for holder in inner for v in (holder.values() if isinstance(holder, dict) else holder)]


def _object(value: Any, part: str, where: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _refused("shape", f"{part} is no JSON object", where)
    return value


def _ids(value: Any, where: object) -> dict[str, int]:
    table = _object(value, "the vocabulary", where)
    for token, number in table.items():
        _check_token(token, where)
        _id(token, number, where)
    return dict(table)


def _pieces(value: Any, where: object) -> tuple[dict[str, int], tuple[str, ...]]:
    if not isinstance(value, list):
        raise _refused("shape", "the vocabulary of a Unigram model is no list", where)
    table: dict[str, int] = {}
    scores = []
    for place, entry in enumerate(value):
        fits = isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)
        if not fits or type(entry[1]) not in (int, float) or not abs(entry[1]) < _MAX_SCORE:
            raise _refused("shape", f"piece {place} is no pair of text and score", where)
        _check_token(entry[0], where)
        if entry[0] in table:
            raise _refused("token", f"token {_shown(entry[0])} stands twice", where)
        table[entry[0]] = place
        scores.append(repr(float(entry[1])))
    return table, tuple(scores)


def _merges(value: Any, where: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _refused("shape", "merges are no list", where)
    merges = []
    for place, entry in enumerate(value):
        parts = entry.split(" ") if isinstance(entry, str) else entry
        if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
            raise _refused("merge", f"merge {place} is no pair of tokens", where)
        merges.append(" ".join(parts))
    return tuple(merges)


def _added(value: Any, table: dict[str, int], where: object) -> tuple[AddedToken, ...]:
    """The added tokens; those that the model does not have are put into its table."""
    if not isinstance(value, list):
        raise _refused("shape", "added_tokens is no list", where)
    added = []
    for place, entry in enumerate(value):
        fields = _object(entry, f"added token {place}", where)
        content, number = fields.get("content"), fields.get("id")
        if not isinstance(content, str) or fields.keys() - {"id", "content", *_FLAGS}:
            raise _refused("added", f"added token {place} has no content, or a field that is not known", where)
        _check_token(content, where)
        number = _id(content, number, where)
        flags = [fields.get(flag, False) for flag in _FLAGS]
        if not all(isinstance(flag, bool) for flag in flags):
            raise _refused("added", f"a flag of added token {_shown(content)} is neither true nor false", where)
        if table.setdefault(content, number) != number:
            raise _refused("id", f"token {_shown(content)} has ids {table[content]} and {number}", where)
        added.append(AddedToken(number, content, (flags[0], flags[1], flags[2], flags[3], flags[4])))
    if len({token.id for token in added}) != len(added):
        raise _refused("added", "an added token stands twice", where)
    return tuple(sorted(added, key=lambda token: token.id))


def _listed(data: bytes, where: object) -> dict[str, int]:
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError as error:
        raise _refused("text", f"byte {error.start} is not UTF-8", where) from error
    if lines[-1] == "":
        lines.pop()
    table: dict[str, int] = {}
    for number, line in enumerate(lines):
        token = line.removesuffix("\r")
        if token in table:
            raise _refused("token", f"token {_shown(token)} stands on lines {table[token] + 1} and {number + 1}", where)
        table[token] = number
    return table


def _check_token(token: str, where: object) -> None:
    if any("\ud800" <= character <= "\udfff" for character in token):
        raise _refused("token", f"token {_shown(token)} holds a lone surrogate", where)


def _id(token: str, number: Any, where: object) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= _MAX_ID:
        raise _refused("id", f"token {_shown(token)} has no id between 0 and {_MAX_ID}", where)
    return number


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=True)


def _refused(rule: str, message: str, where: object) -> BytesLie:
    return BytesLie(message, where=where, reason=f"vocabulary.{rule}")
