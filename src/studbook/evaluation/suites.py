"""Suites: read from a folder, put to the floor test, frozen.

A suite is a folder with ``suite.manifest`` (``key=value`` lines) and ``items.jsonl`` (one canonical JSON object a line).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, get_args

import msgspec

from studbook.errors import BytesLie, ManifestRefused, OutOfOrder, StudbookError, printable
from studbook.evaluation.floor import Run, check_rows, floor_rows
from studbook.evaluation.floor_worker import rows_apart
from studbook.evaluation.items import Item, items_sha256, known_items, parse_items
from studbook.evaluation.scoring import KINDS, source_sha256
from studbook.files import read_file
from studbook.models.manifests import parse_manifest
from studbook.records import Blob, FloorReport, FloorRow, Header, SuiteManifest, canonical, digest, read_struct
from studbook.records.base import Name
from studbook.records.evaluation import Dimension, Role
from studbook.sandbox import Limits
from studbook.statistics import minimum_detectable, required_items

__all__ = [
    "DISAGREEMENT",
    "Item",
    "SuiteFolder",
    "check_items",
    "check_values",
    "floor_of",
    "freeze",
    "items_sha256",
    "known_items",
    "parse_items",
    "read_suite_folder",
    "require_testable",
    "scorer_sha256",
]

# The disagreement between two related models that the minimum detectable effect is stated for.
DISAGREEMENT = 0.14
_MANIFEST_LIMIT = 1 << 20
_ITEMS_LIMIT = 64 << 20
_MOST_TOKENS = 4096
_REQUIRED = ("name", "role", "dimension", "cluster", "scorer", "licence", "items", "items_sha256", "max_new_tokens")
# Its cluster becomes a part of the units of its measures.
_LONGEST_COST = 100
_PAIRED = ("robustness", "bias")


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


def read_suite_folder(path: Path) -> SuiteFolder:
    """Read a suite from its folder and check it against its manifest.

    Raises:
        ManifestRefused: if a key is missing, or the items are not the ones the manifest names.
        BytesLie: if the items file is malformed, or the neighbours of a paired suite are no pairs.
        RecordRefused: if an item lacks what its scorer asks for.
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
    check_values(settings, manifest)
    check_items(parsed, settings["scorer"], settings["dimension"], settings["role"], path)
    return SuiteFolder(path, settings, data, parsed)


def check_values(settings: Mapping[str, str], manifest: Path) -> None:
    """Refuse a value of a manifest that no suite can have, whether it is written already or not.

    Args:
        settings: The manifest's keys and values.
        manifest: Its file, for errors.

    Raises:
        ManifestRefused: naming the key.
    """
    allowed = {"role": get_args(Role), "dimension": get_args(Dimension), "scorer": tuple(sorted(KINDS))}
    for key, known in allowed.items():
        if settings[key] not in known:
            told = f"a value is not allowed: {key} {printable(settings[key])!r} is not one of {', '.join(known)}"
            raise ManifestRefused(told, where=manifest, advice="Take one of them.")
    for key in ("name", "cluster", "licence"):
        try:
            msgspec.convert(settings[key], Name)
        except msgspec.ValidationError as error:
            advice = "Use letters, digits and . _ + / - only, beginning with a letter or digit."
            told = f"a value is not allowed: {key} {printable(settings[key])!r} is not a plain name"
            raise ManifestRefused(told, where=manifest, advice=advice) from error
    if settings["dimension"] == "cost" and len(settings["cluster"]) > _LONGEST_COST:
        told = f"cluster of a cost suite is longer than {_LONGEST_COST} characters"
        raise ManifestRefused(told, where=manifest, advice="Give it a shorter one.")
    limit = _whole(settings, "max_new_tokens", manifest)
    if not 1 <= limit <= _MOST_TOKENS:
        told = f"max_new_tokens={limit} is not 1..{_MOST_TOKENS}"
        raise ManifestRefused(told, where=manifest, advice="Write how many tokens an answer may have.")


def check_items(items: tuple[Item, ...], scorer: str, dimension: str, role: str, path: Path) -> None:
    """Refuse items that scorer or dimension cannot use, and a suite of honesty that would judge.

    Args:
        items: The items.
        scorer: Name of the scorer; one that there is.
        dimension: The suite's dimension.
        role: Its role.
        path: Its folder, for errors.

    Raises:
        RecordRefused: if an item lacks what its scorer asks for.
        ManifestRefused: ``suite.honesty``.
        BytesLie: if the neighbours of a paired suite are no pairs; ``suite.pairs``.
    """
    for item in items:
        try:
            KINDS[scorer].check(item)
        except StudbookError as error:
            error.where = f"{path / 'items.jsonl'}: {error.where}"
            raise
    if dimension == "honesty" and role != "development":
        raise ManifestRefused(
            f"a suite of the dimension honesty has the role {role}: it is shown and never judges",
            where=path / "suite.manifest",
            advice="Write role=development.",
            reason="suite.honesty",
        )
    if dimension in _PAIRED:
        _check_pairs(dimension, items, path / "items.jsonl")


def floor_of(suite: SuiteFolder, run: Run | None, limits: Limits) -> tuple[FloorRow, ...]:
    """What every worthless answerer and the oracle get in a suite; nothing is refused for it.

    Args:
        suite: The suite.
        run: What runs written answers first, for kinds that need it.
        limits: What a worker may use, for kinds whose items hold patterns.

    Raises:
        ManifestRefused: if the mark is not allowed.
        OverBudget: if a pattern takes too long; ``suite.pattern``.
    """
    scorer, mark = suite.settings["scorer"], _mark(suite)
    limit = _whole(suite.settings, "max_new_tokens", suite.path / "suite.manifest")
    if KINDS[scorer].patterns:
        return rows_apart(suite.path / "items.jsonl", scorer, mark, limit, limits)
    return floor_rows(suite.items, scorer, mark, limit, run)


def require_testable(items: int, margin: float, alpha: float, disagreement: float, where: object) -> None:
    """Refuse a margin that this many items cannot test: n = (z_alpha + z_power)^2 psi / m^2, power .8.

    Args:
        items: Items of the suite.
        margin: The margin, as a share of items.
        alpha: One-sided error rate.
        disagreement: Share of discordant items expected, psi.
        where: The suite, for errors.

    Raises:
        OutOfOrder: with both numbers; ``suite.power``.
    """
    needed = required_items(margin, disagreement, alpha)
    if items < needed:
        raise OutOfOrder(
            f"a margin of {margin:g} at {disagreement:.0%} disagreement needs {needed:,} items, the suite has {items:,}",
            where=where,
            advice="Add items, or state a margin that this many can test.",
            reason="suite.power",
        )


def freeze(
    header: Header, suite: SuiteFolder, alpha: float, run: Run | None, limits: Limits
) -> tuple[FloorReport, SuiteManifest]:
    """Put a suite to the floor test and bind everything that decides how it is scored.

    Args:
        header: Record header.
        suite: The suite.
        alpha: One-sided error rate that the minimum detectable effect is stated for.
        run: What runs written answers first, for kinds that need it.
        limits: What a worker may use, for kinds whose items hold patterns.

    Raises:
        OutOfOrder: if a worthless answerer passes, the oracle fails, or the margin it names cannot be tested.
        ManifestRefused: if a value of the manifest is not allowed.
    """
    if "margin" in suite.settings:
        margin = _number(suite, "margin", suite.settings["margin"])
        if not 0.0 < margin <= 1.0:
            told = f"margin={suite.settings['margin']} is not a share of items above 0"
            advice = "Write a share of items, such as 0.05, or leave it out."
            raise ManifestRefused(told, where=suite.path / "suite.manifest", advice=advice)
        require_testable(len(suite.items), margin, alpha, DISAGREEMENT, suite.path / "suite.manifest")
    rows = floor_of(suite, run, limits)
    check_rows(rows, suite.settings["scorer"], suite.path)
    floor = FloorReport(
        header=header,
        suite_files=digest({"items": items_sha256(suite.data), "settings": suite.settings}),
        rows=rows,
        minimum_detectable=round(minimum_detectable(len(suite.items), DISAGREEMENT, alpha), 6),
        disagreement=DISAGREEMENT,
    )
    return floor, _manifest(header, suite, _mark(suite), digest(floor))


def scorer_sha256(scorer: str) -> str:
    """Digest of one scorer's source; a suite frozen under another one is not used."""
    return source_sha256(type(KINDS[scorer]).__module__)


def _check_pairs(dimension: str, items: tuple[Item, ...], where: Path) -> None:
    """Neighbours are pairs: clean then perturbed, or one group then the other, with the attribute as their cluster."""
    pairs = list(zip(items[::2], items[1::2], strict=False))
    if dimension == "robustness":
        wrong = [b.id for a, b in pairs if a.perturbation != "none" or b.perturbation == "none"]
        rule = "a clean item, then the same perturbed"
    else:
        groups = {(a.cluster, b.cluster) for a, b in pairs}
        wrong = [] if len(groups) == 1 and len(set(*groups)) == 2 else [items[0].id]
        rule = "an item of one group, then its twin of the other, the group as their cluster"
    if len(items) % 2 or wrong:
        raise BytesLie(
            f"the items of a {dimension} suite are pairs of neighbours: {rule}",
            where=f"{where}: item {wrong[0] if wrong else items[-1].id}",
            advice="Mend the items: every odd line with the even one behind it.",
            reason="suite.pairs",
        )


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
            scorer=suite.settings["scorer"],
            scorer_sha256=scorer_sha256(suite.settings["scorer"]),
            max_new_tokens=_whole(suite.settings, "max_new_tokens", suite.path / "suite.manifest"),
            pass_mark=mark,
            licence=suite.settings["licence"],
            floor=floor,
        )
        return read_struct(canonical(manifest), SuiteManifest, suite.path)
    except BytesLie as error:
        raise ManifestRefused(
            f"a value is not allowed: {error.message}", where=suite.path / "suite.manifest"
        ) from error


def _mark(suite: SuiteFolder) -> float:
    return _number(suite, "pass_mark", suite.settings.get("pass_mark", str(KINDS[suite.settings["scorer"]].mark)))


def _number(suite: SuiteFolder, key: str, text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,12})?", text):
        raise ManifestRefused(f"{key}={text!r} is not a number", where=suite.path / "suite.manifest")
    return float(text)


def _whole(settings: Mapping[str, str], key: str, manifest: Path) -> int:
    text = settings[key]
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise ManifestRefused(f"{key}={text!r} is not a whole number", where=manifest)
    return int(text)
