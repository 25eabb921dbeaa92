"""Suites: read from a folder, put to the floor test, frozen.

A suite is a folder with ``suite.manifest`` (``key=value`` lines) and ``items.jsonl`` (one canonical JSON object a line).
"""

from __future__ import annotations

import hashlib
import inspect
import re
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Struct

from studbook.errors import BytesLie, ManifestRefused, OutOfOrder
from studbook.evaluation import scorers
from studbook.evaluation.floor import floor_rows
from studbook.files import read_file
from studbook.models.manifests import parse_manifest
from studbook.records import Blob, FloorReport, Header, SuiteManifest, canonical, digest, read_struct
from studbook.records.base import Name, Text
from studbook.statistics import minimum_detectable

__all__ = [
    "DISAGREEMENT",
    "Item",
    "SuiteFolder",
    "freeze",
    "items_sha256",
    "known_items",
    "parse_items",
    "read_suite_folder",
    "scorer_sha256",
]

# The disagreement between two related models that the minimum detectable effect is stated for.
DISAGREEMENT = 0.14
_MANIFEST_LIMIT = 1 << 20
_ITEMS_LIMIT = 64 << 20
_MOST_TOKENS = 4096
# What an exact-match suite must be passed with at least, and what no worthless answerer may reach whatever the mark.
_PASS_MARKS = {"exact-match": 0.25, "proper-scores": 0.75}
_REQUIRED = ("name", "role", "dimension", "cluster", "scorer", "licence", "items", "items_sha256", "max_new_tokens")


class Item(Struct, frozen=True, forbid_unknown_fields=True):
    """One question.

    Attributes:
        id: Unique within the suite.
        cluster: The skill it asks for.
        prompt: What the model sees.
        expected: The one right answer, without the end marker.
        perturbation: Family of the perturbation, ``none`` when clean.
    """

    id: Name
    cluster: Name
    prompt: Text
    expected: Annotated[str, Meta(min_length=1, max_length=4000)]
    perturbation: Name


_ITEMS = msgspec.json.Decoder(Item, strict=True)


class SuiteFolder(NamedTuple):
    """A suite as read, before it is frozen.

    Attributes:
        path: The folder.
        settings: The manifest's keys and values.
        data: The items file.
        items: The same, parsed.
    """

    path: Path
    settings: dict[str, str]
    data: bytes
    items: tuple[Item, ...]


def items_sha256(data: bytes) -> str:
    """Digest of an items file."""
    return hashlib.sha256(data).hexdigest()


def parse_items(data: bytes, where: object = "") -> tuple[Item, ...]:
    """Every item of an items file, in order.

    Raises:
        BytesLie: if there is none, the last line is cut, or two share an id.
        RecordRefused: if a line is not a canonical item.
    """
    if not data.endswith(b"\n"):
        raise BytesLie("holds no items, or its last line has no end", where=where, reason="suite.items")
    lines = data[:-1].split(b"\n")
    items = tuple(read_struct(line, Item, f"{where}: line {n}") for n, line in enumerate(lines, 1))
    if len({item.id for item in items}) != len(items):
        raise BytesLie("two items share an id", where=where, reason="suite.duplicate")
    return items


def known_items(data: bytes, where: object = "") -> tuple[Item, ...]:
    """Every item of an items file that was checked line by line when its suite was frozen.

    Raises:
        BytesLie: if a line is not an item.
    """
    try:
        return tuple(_ITEMS.decode_lines(data))
    except msgspec.DecodeError as error:
        raise BytesLie(f"is not the items file that was frozen: {error}", where=where) from error


def read_suite_folder(path: Path) -> SuiteFolder:
    """Read a suite from its folder and check it against its manifest.

    Raises:
        ManifestRefused: if a key is missing, or the items are not the ones the manifest names.
        BytesLie: if the items file is malformed.
    """
    manifest, items = path / "suite.manifest", path / "items.jsonl"
    settings = parse_manifest(read_file(manifest, _MANIFEST_LIMIT), manifest)
    for key in _REQUIRED:
        if key not in settings:
            raise ManifestRefused(f"key {key} is missing", where=manifest)
    data = read_file(items, _ITEMS_LIMIT)
    if items_sha256(data) != settings["items_sha256"]:
        raise ManifestRefused("items_sha256 is not the digest of items.jsonl", where=manifest)
    parsed = parse_items(data, items)
    if str(len(parsed)) != settings["items"]:
        raise ManifestRefused(f"items={settings['items']}, but the file holds {len(parsed)}", where=manifest)
    if settings["scorer"] not in scorers.SCORERS:
        known = ", ".join(sorted(scorers.SCORERS))
        raise ManifestRefused(f"scorer {settings['scorer']!r} is not one of {known}", where=manifest)
    return SuiteFolder(path, settings, data, parsed)


def freeze(header: Header, suite: SuiteFolder, alpha: float) -> tuple[FloorReport, SuiteManifest]:
    """Put a suite to the floor test and bind everything that decides how it is scored.

    Args:
        header: Record header.
        suite: The suite.
        alpha: One-sided error rate that the minimum detectable effect is stated for.

    Raises:
        OutOfOrder: if a worthless answerer passes, or the oracle fails.
        ManifestRefused: if a value of the manifest is not allowed.
    """
    scorer = suite.settings["scorer"]
    mark = _mark(suite, scorer)
    limit = _whole(suite, "max_new_tokens")
    if not 1 <= limit <= _MOST_TOKENS:
        raise ManifestRefused(f"max_new_tokens={limit} is not 1..{_MOST_TOKENS}", where=suite.path / "suite.manifest")
    rows = floor_rows(suite.items, scorer, mark, limit)
    for row in rows:
        cheap = scorer == "exact-match" and row.answerer != "oracle" and row.score >= _PASS_MARKS[scorer]
        if cheap or (row.verdict == "pass") != (row.answerer == "oracle"):
            raise OutOfOrder(
                f"the {row.answerer} answerer gets {row.score:.3f} and the verdict is {row.verdict}",
                where=suite.path,
                advice="A suite that a worthless answerer passes, or a perfect one fails, measures nothing.",
                reason="suite.floor",
            )
    floor = FloorReport(
        header=header,
        suite_files=digest({"items": items_sha256(suite.data), "settings": suite.settings}),
        rows=rows,
        minimum_detectable=round(minimum_detectable(len(suite.items), DISAGREEMENT, alpha), 6),
        disagreement=DISAGREEMENT,
    )
    return floor, _manifest(header, suite, mark, digest(floor))


def scorer_sha256() -> str:
    """Digest of the scorers' source; a suite frozen under another one is not used."""
    return hashlib.sha256(inspect.getsource(scorers).encode()).hexdigest()


def _manifest(header: Header, suite: SuiteFolder, mark: float, floor: str) -> SuiteManifest:
    try:
        manifest = SuiteManifest(
            header=header,
            name=suite.settings["name"],
            role=suite.settings["role"],  # type: ignore[arg-type]
            dimension=suite.settings["dimension"],  # type: ignore[arg-type]
            cluster=suite.settings["cluster"],
            items=Blob(sha256=items_sha256(suite.data), size=len(suite.data)),
            count=len(suite.items),
            scorer=suite.settings["scorer"],  # type: ignore[arg-type]
            scorer_sha256=scorer_sha256(),
            max_new_tokens=_whole(suite, "max_new_tokens"),
            pass_mark=mark,
            licence=suite.settings["licence"],
            floor=floor,
        )
        return read_struct(canonical(manifest), SuiteManifest, suite.path)
    except BytesLie as error:
        raise ManifestRefused(
            f"a value is not allowed: {error.message}", where=suite.path / "suite.manifest"
        ) from error


def _mark(suite: SuiteFolder, scorer: str) -> float:
    text = suite.settings.get("pass_mark", str(_PASS_MARKS[scorer]))
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        raise ManifestRefused(f"pass_mark={text!r} is not a number", where=suite.path / "suite.manifest")
    return float(text)


def _whole(suite: SuiteFolder, key: str) -> int:
    text = suite.settings[key]
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise ManifestRefused(f"{key}={text!r} is not a whole number", where=suite.path / "suite.manifest")
    return int(text)
