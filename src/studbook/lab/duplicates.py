"""Candidates that say nothing new, found before an item is spent on them.

Two models are the same for a search if their bytes are equal, or if their task vectors (model - base, over all tensors)
point the same way, cosine above .999, and are nearly as long. The second half is needed: base + .25 v and base + .35 v
have cosine 1 and answer differently.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from studbook.breeding.sources import as_inputs, open_inputs
from studbook.lab.desk import Desk
from studbook.lab.search_worker import inner_products
from studbook.records import CandidateManifest
from studbook.records.population import Duplicate

__all__ = ["COSINE", "LENGTH", "duplicates", "likeness"]

COSINE = 0.999
"""Cosine of two task vectors above which they point the same way."""
LENGTH = 0.98
"""Ratio of their lengths, the shorter over the longer, above which they are as long."""
_MICRO = 1_000_000


def duplicates(desk: Desk, base: str, known: Sequence[str], manifests: Sequence[str]) -> tuple[Duplicate, ...]:
    """Those of some candidates that repeat a known model, or a candidate before them.

    Args:
        desk: The lab.
        base: Digest of the base the task vectors are taken from.
        known: Digests of models that were evaluated before.
        manifests: Digests of the candidates' manifests, in order.

    Raises:
        StudbookError: any of its kinds, if a model's bytes are gone or are not as recorded.
    """
    artifacts = {m: desk.workspace.get(m, CandidateManifest).artifact.sha256 for m in manifests}
    shape = desk.model(base).layout_sha256
    models = [a for a in dict.fromkeys((*known, *artifacts.values())) if a != base]
    # A child with another layout has no task vector here; equal bytes are all that can be asked of it.
    models = [a for a in models if desk.model(a).layout_sha256 == shape]
    table = _table(desk, base, models)
    found: list[Duplicate] = []
    seen = list(dict.fromkeys(known))
    for manifest, artifact in artifacts.items():
        rows = [(likeness(table, models, artifact, other), other) for other in seen]
        best = max(rows, default=(0, ""), key=lambda row: row[0])
        if best[0]:
            found.append(Duplicate(manifest=manifest, of=best[1], cosine_ppm=best[0]))
        else:
            seen.append(artifact)
    return tuple(found)


def likeness(table: Sequence[Sequence[float]], models: Sequence[str], first: str, second: str) -> int:
    """Cosine in millionths of two models that are the same for a search, else 0.

    Args:
        table: Inner products of the models' task vectors.
        models: Digests, in the table's order.
        first: One model.
        second: Another.
    """
    if first == second:
        return _MICRO
    if first not in models or second not in models:
        return 0
    i, j = models.index(first), models.index(second)
    a, b, both = math.sqrt(table[i][i]), math.sqrt(table[j][j]), table[i][j]
    if not (a > 0.0 and b > 0.0):
        return 0
    same = both / (a * b) > COSINE and min(a, b) / max(a, b) > LENGTH
    return min(_MICRO, math.floor(both / (a * b) * _MICRO)) if same else 0


def _table(desk: Desk, base: str, models: Sequence[str]) -> Sequence[Sequence[float]]:
    if not models:
        return ()
    named = [(str(desk.workspace.blob_path(d)), d) for d in (base, *models)]
    return inner_products(as_inputs(*open_inputs(named[0], named[1:])), 1, ())[0]
