"""How a training recipe is inherited: one number changed a little, inside the operator's range and the policy's bounds.

A recipe is a record like any other, so a search or a next generation can take the parent's and vary it. The slices are
never varied: what may be learned from is the cluster's to say.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Mapping
from typing import Any

from studbook.breeding.operators import Trained, trained_types
from studbook.breeding.operators.parameters import range_of
from studbook.errors import OutsideAllowlist, UsageError

__all__ = ["VARIED", "mutate"]

# The fields that may change, in the order they are drawn from: each by a factor of 1/2..2, shares by -1/4..1/4.
VARIED = ("steps", "rate", "batch", "rehearsal", "reach", "imitation", "temperature", "rank", "alpha")
_SHARES = ("rehearsal", "imitation")
_WHOLE = ("steps", "batch", "rank")
_LEAST_SHARE = 0.05
_SEEDS = 2**31


def mutate(recipe: Mapping[str, Any], bounds: Mapping[str, tuple[float, float]], seed: int) -> dict[str, Any]:
    """A recipe that differs from another one in one number and in the seed of its run.

    Args:
        recipe: A training recipe or operator record.
        bounds: Lowest and highest value the policy allows, by field.
        seed: Decides which field changes and how; equal arguments give equal recipes.

    Returns:
        The new recipe, numbers rounded to three digits; the old one is left as it is.

    Raises:
        UsageError: if it is no training recipe; ``recipe.training``.
        OutsideAllowlist: if policy and operator leave nothing of the field's range; ``recipe.bounds``.
    """
    kind = next((k for k in trained_types() if k.tag() == recipe.get("operator")), None)
    if kind is None:
        names = ", ".join(k.tag() for k in trained_types())
        raise UsageError(
            f"{recipe.get('operator')!r} does not train",
            where="recipe",
            advice=f"Use {names}.",
            reason="recipe.training",
        )
    draw = random.Random(int.from_bytes(hashlib.sha256(f"heredity/{seed}".encode()).digest()[:8], "big")).random
    fields = [f for f in VARIED if f in kind.__struct_fields__ and not (f == "rehearsal" and not recipe["rehearsed"])]
    field = fields[int(draw() * len(fields))]
    low, high = _range(kind, field, bounds)
    value = recipe[field]
    wanted = value + (draw() - 0.5) / 2 if field in _SHARES else value * 2.0 ** (2.0 * draw() - 1.0)
    held = min(max(float(f"{wanted:.3g}"), low), high)
    # A number such as 1.0 is read back from a record as 1, so its type says nothing of the field's.
    new = max(math.ceil(low), min(int(high), round(held))) if field in _WHOLE else held
    return {**recipe, field: new, "seed": int(draw() * _SEEDS)}


def _range(kind: type[Trained], field: str, bounds: Mapping[str, tuple[float, float]]) -> tuple[float, float]:
    """The values that operator and policy both allow; a share that is used at all stays above a twentieth."""
    low, high = range_of(kind, field) or (-float("inf"), float("inf"))
    least, most = bounds.get(field, (low, high))
    low, high = max(low, least, _LEAST_SHARE if field in _SHARES else low), min(high, most)
    if low > high:
        raise OutsideAllowlist(
            f"nothing lies between {low:g} and {high:g}",
            where=f"policy: operators: {kind.tag()}: bounds.{field}",
            advice="Mend the bounds in the policy file.",
            reason="recipe.bounds",
        )
    return low, high
