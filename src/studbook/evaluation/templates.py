"""New suite folders: a manifest around items that are there, around perturbed ones, or around two examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from studbook.errors import UsageError
from studbook.evaluation.items import Item, items_sha256, parse_items
from studbook.evaluation.scoring import KINDS
from studbook.evaluation.suites import check_items, check_values
from studbook.files import read_file, write_new
from studbook.models.manifests import format_manifest
from studbook.records import canonical

__all__ = ["example_items", "write_folder"]

_ITEMS_LIMIT = 64 << 20
_EXAMPLES = (("two and two", "four"), ("three and four", "seven"))
# What an example has to ask in each kind that asks something; kinds without a line ask nothing.
_RULES: Mapping[str, Mapping[str, object]] = {
    "multiple-choice": {"choices": ["four", "seven", "nine"], "by": "byte"},
    "regex": {"pattern": "four|seven"},
    "numeric": {"absolute": 0.0, "relative": 0.0},
    "json-schema": {"schema": {"type": "integer"}},
    "safe-text": {"pattern": "four|seven", "banned": ["secret"]},
    "code": {"calls": ["f(1)"], "gives": ["2"]},
}
_ANSWERS = {"numeric": ("4", "7"), "json-schema": ("4", "7"), "code": ("f = lambda x: x + 1", "def f(x): return x + 1")}


def example_items(scorer: str, cluster: str) -> tuple[Item, ...]:
    """Two items that show what a kind of scorer asks for; they are to be replaced, and pass no floor test.

    Args:
        scorer: Name of the scorer.
        cluster: The label of the suite.
    """
    rows = []
    for number, (prompt, expected) in enumerate(_EXAMPLES):
        answer = _ANSWERS.get(scorer, (expected,) * 2)[number]
        rows.append(Item(f"example-{number + 1}", cluster, prompt, answer, "none", dict(_RULES.get(scorer, {}))))
    return tuple(rows)


def write_folder(path: Path, settings: Mapping[str, object], items: Sequence[Item] | None = None) -> int:
    """Write a suite's manifest, and its items where they are given; items that lie there already are kept.

    Args:
        path: The folder; made if it is not there.
        settings: The manifest's keys: name, role, dimension, cluster, scorer, licence, max_new_tokens and more.
        items: The items, or None for those in the folder (or two examples where there are none).

    Returns:
        How many items the suite has.

    Raises:
        UsageError: if the folder has a manifest already, items would be written over, or the scorer is unknown.
        BytesLie: if there is no item, those that are there are malformed, or a paired suite has no pairs.
        RecordRefused: if an item is not one, such as one that a perturber made too long.
        ManifestRefused: if a setting is not allowed; nothing was written in any of these cases.
    """
    manifest, rows = path / "suite.manifest", path / "items.jsonl"
    scorer = str(settings["scorer"])
    if scorer not in KINDS:
        known = ", ".join(sorted(KINDS))
        raise UsageError(f"no scorer is called {scorer!r}", advice=f"There are: {known}.", reason="suite.scorer")
    # All of it is checked before any of it is written.
    values = {key: str(value) for key, value in settings.items()}
    check_values(values, manifest)
    here = read_file(rows, _ITEMS_LIMIT) if rows.exists() else None
    if here is None and items is None:
        items = example_items(scorer, values["cluster"])
    data = here or b"" if items is None else b"".join(canonical(item) + b"\n" for item in items)
    # Items that an interrupted call of the same command left are taken over.
    if manifest.exists() or here not in (None, data):
        raise UsageError("holds a suite already", where=path, advice="Name a new folder.", reason="suite.taken")
    parsed = parse_items(data, rows)
    check_items(parsed, scorer, values["dimension"], values["role"], path)
    stated = {"items": str(len(parsed)), "items_sha256": items_sha256(data)}
    text = format_manifest({"manifest_version": "1", "kind": "suite", **values, **stated}, manifest)
    path.mkdir(parents=True, exist_ok=True)
    if here is None:
        write_new(rows, data, 0o644)
    write_new(manifest, text, 0o644)
    return len(parsed)
