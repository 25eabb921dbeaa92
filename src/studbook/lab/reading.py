"""Looking: one record or artifact, its ancestry, lists, and the difference of two models."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from typing import Any

from msgspec import Struct

from studbook.breeding.operators.bounds import squares
from studbook.breeding.operators.crossover import unit_name
from studbook.breeding.produce import squared_distance
from studbook.errors import UsageError
from studbook.evaluation.scorecards import evaluator_sha256
from studbook.lab import checkpoints
from studbook.lab.desk import Desk
from studbook.lab.producers import signatures
from studbook.lab.sources import licence_of
from studbook.records import KINDS, LedgerEntry, LineageTemplate, Record, Scorecard

__all__ = ["Ancestor", "difference", "lineage", "listing", "show"]


class Ancestor(Struct, frozen=True):
    """One model of a pedigree.

    Attributes:
        artifact: Digest.
        name: What people call it.
        how: The operator record that made it, or None for a registered source.
        licence: SPDX identifier, or None.
        signed_by: Digests of the keys by which producers signed it, as registered; what was bred here has none.
        parents: Its own ancestors: the base first where the operator used it, then the parents.
    """

    artifact: str
    name: str
    how: dict[str, Any] | None
    licence: str | None
    signed_by: tuple[str, ...]
    parents: tuple[Ancestor, ...]


def show(desk: Desk, name: str) -> list[tuple[LedgerEntry, Record]]:
    """Every record with this digest, or, for a model, every record that speaks about it.

    Raises:
        UsageError: if nothing is called that.
    """
    ledger = desk.workspace.ledger.entries
    if re.fullmatch(r"[0-9a-f]{8,64}", name):
        found = [e for e in ledger if e.record.startswith(name)]
        if len(found) == 1:
            return [(found[0], _record(desk, found[0]))]
    artifact = desk.find_model(name)
    pairs = [(e, _record(desk, e)) for e in ledger]
    return [(e, r) for e, r in pairs if artifact in r.subjects()]


def lineage(desk: Desk, name: str) -> Ancestor:
    """The ancestry of a model, back to registered sources."""
    templates = {
        m.artifact.sha256: desk.workspace.get(m.template, LineageTemplate) for _, m in reversed(desk.candidates())
    }

    def climb(artifact: str, below: tuple[str, ...] = ()) -> Ancestor:
        template = templates.get(artifact) if artifact not in below else None
        above = dict.fromkeys((template.base, *template.parents)) if template else {}
        return Ancestor(
            artifact,
            desk.name_of(artifact),
            template.operator if template else None,
            licence_of(desk, artifact),
            tuple(dict.fromkeys(s.key_sha256 for _, s in signatures(desk, artifact))),
            tuple(climb(a, (*below, artifact)) for a in above),
        )

    return climb(desk.find_model(name))


def listing(desk: Desk, what: str | None = None) -> list[dict[str, Any]]:
    """What the lab holds, as rows.

    Args:
        desk: The lab.
        what: ``models``, ``channels``, ``records`` or a record kind such as ``scorecard``; models and channels by default.

    Raises:
        UsageError: if there is no such thing to list.
    """
    if what in (None, "models"):
        rows = [
            {
                "name": m.name,
                "artifact": a,
                "origin": "registered",
                "licence": licence_of(desk, a),
                "bytes": m.artifact.size,
            }
            for a, (_, m) in desk.registered().items()
        ]
        rows += [
            {
                "name": m.name,
                "artifact": m.artifact.sha256,
                "origin": m.purpose,
                "licence": m.licence,
                "bytes": m.artifact.size,
            }
            for m in {m.artifact.sha256: m for _, m in desk.candidates()}.values()
        ]
        return rows + (listing(desk, "channels") if what is None else [])
    if what == "channels":
        return [
            {"channel": c, "artifact": s.artifact, "name": desk.name_of(s.artifact) if s.artifact else None}
            for c, s in desk.channels().items()
        ]
    kinds = {k for k in KINDS if what == "records" or k.split("/")[0] == what or k.split("/")[0] + "s" == what}
    if not kinds:
        known = ", ".join(sorted(k.split("/")[0] for k in KINDS))
        raise UsageError(f"nothing is called {what!r}", advice=f"List models, channels, records, or one of: {known}.")
    return [
        {"sequence": e.sequence, "time": e.time, "kind": e.record_kind, "zone": e.record_zone.value, "record": e.record}
        for e in desk.workspace.ledger.entries
        if e.record_kind in kinds
    ]


def difference(desk: Desk, first: str, second: str) -> dict[str, Any]:
    """Two models side by side: tensors (norms per layer), recipes, scorecards, licences.

    Raises:
        UsageError: if one of them does not exist.
    """
    a, b = desk.find_model(first), desk.find_model(second)
    return {
        "first": {"name": desk.name_of(a), "artifact": a},
        "second": {"name": desk.name_of(b), "artifact": b},
        "equal": a == b,
        "layers": _layer_norms(desk, a, b),
        "recipes": [_recipe(desk, a), _recipe(desk, b)],
        "licences": [licence_of(desk, a), licence_of(desk, b)],
        "scorecards": _scores(desk, a, b),
    }


def _record(desk: Desk, entry: LedgerEntry) -> Record:
    return desk.workspace.get(entry.record, KINDS[entry.record_kind])


def _layer_norms(desk: Desk, first: str, second: str) -> list[dict[str, Any]]:
    """||second - first|| and ||first|| a layer, f64; tensors that do not match in shape are named, not compared."""
    a, b = checkpoints.tensors(desk, first), checkpoints.tensors(desk, second)
    moved: dict[str, list[float]] = defaultdict(list)
    size: dict[str, list[float]] = defaultdict(list)
    shapes = {name: b.dims(name) for name in b.names}
    rows: list[dict[str, Any]] = []
    for name in a.names:
        if shapes.get(name) != a.dims(name):
            other = shapes.get(name)
            rows.append(
                {"layer": name, "difference": None, "first": list(a.dims(name)), "second": other and list(other)}
            )
            continue
        moved[unit_name(name)].append(squared_distance(a, b, name))
        size[unit_name(name)].append(squares(a, name))
    for layer, parts in moved.items():
        norm, base = math.sqrt(math.fsum(parts)), math.sqrt(math.fsum(size[layer]))
        rows.append({"layer": layer, "difference": norm, "relative": norm / base if base else None})
    return rows


def _recipe(desk: Desk, artifact: str) -> dict[str, Any] | None:
    for _, manifest in desk.candidates():
        if manifest.artifact.sha256 == artifact:
            template = desk.workspace.get(manifest.template, LineageTemplate)
            return {"operator": template.operator, "parents": [desk.name_of(p) for p in template.parents]}
    return None


def _scores(desk: Desk, first: str, second: str) -> list[dict[str, Any]]:
    """Accuracy a cluster on development items, where both have a scorecard of the same evaluator.

    Of selection suites only the Ladder lets anything out, and of sealed ones the confirmation: two models side by side
    are what whoever makes the next one looks at.
    """
    evaluator = evaluator_sha256()
    cards = {c.artifact: c for _, c in desk.all(Scorecard) if (c.evaluator, c.role) == (evaluator, "development")}
    if first not in cards or second not in cards:
        return []
    mine, other = cards[first].tasks(), cards[second].tasks()
    return [
        {"role": "development", "cluster": cluster, "first": mine[cluster].mean, "second": other[cluster].mean}
        for cluster in mine
        if cluster in other
    ]
