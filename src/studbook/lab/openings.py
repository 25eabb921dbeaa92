"""Looks at the sealed suites by hand: k of K, each on record before it is taken, and none spent on what cannot be scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from studbook.errors import OverBudget
from studbook.lab.desk import Desk
from studbook.lab.evaluators import require_in_force
from studbook.lab.judging import Card, already, evaluate, require_smoke
from studbook.lab.pending import require_key
from studbook.lab.sources import require_model
from studbook.records import Scorecard, SealedOpening

__all__ = ["Opened", "open_sealed"]


class Opened(NamedTuple):
    """A look at the sealed suites.

    Attributes:
        name: The model's name.
        opening: Which opening it was, from 1; 0 where it had been looked at already.
        of: How many the policy allows.
        card: Its sealed scorecard.
    """

    name: str
    opening: int
    of: int
    card: Card


def open_sealed(desk: Desk, names: Sequence[str]) -> tuple[Opened, ...]:
    """Score models on the sealed suites; each look is an opening on record, written before it, k of K.

    A model that was looked at already under the suites and the evaluator in force is shown again for nothing. A look
    that was cut short goes on under its own number.

    Args:
        desk: The lab.
        names: The models.

    Raises:
        UsageError: if one of them is no model that can be scored; in this case as in all that follow nothing was opened.
        OutOfOrder: if no sealed suite is frozen, one does not pass its runtime smoke, or nobody let this evaluator judge.
        OverBudget: if the policy allows fewer further openings than are needed.
        DigestDiffers: if the bytes of one are gone.
        NotAuthorised: if no key for openings or scorecards is at hand.
    """
    allowed = desk.policy[1].gates.sealed_openings
    artifacts = tuple(dict.fromkeys(desk.find_model(name) for name in names))
    for artifact in artifacts:
        require_model(desk, artifact)
    require_in_force(desk)
    wanted = [a for a in artifacts if not already(desk, a, "sealed")]
    begun = {a: number for a, number in _cut_short(desk).items() if a in wanted}
    fresh = [a for a in wanted if a not in begun]
    used = max((o.opening for _, o in desk.all(SealedOpening)), default=0)
    _require_openings(len(fresh), used, allowed)
    if wanted:
        require_key(desk, SealedOpening, Scorecard)
        require_smoke(desk, wanted)
    for artifact in wanted:
        # A smoke on record says nothing of whether the bytes are still here.
        desk.model(artifact)
    numbers = begun | {artifact: used + n for n, artifact in enumerate(fresh, 1)}
    out = []
    for artifact in artifacts:
        number = numbers.get(artifact, 0)
        if artifact in fresh:
            look = SealedOpening(header=desk.header, decision=None, candidate=artifact, opening=number, of=allowed)
            desk.workspace.commit(look)
        card = evaluate(desk, [artifact], "sealed")[artifact]
        out.append(Opened(desk.name_of(artifact), number, allowed, card))
    return tuple(out)


def _cut_short(desk: Desk) -> dict[str, int]:
    """Looks by hand that were logged and ended before there was a scorecard: model -> opening; they go on uncounted."""
    place = {entry.record: entry.sequence for entry in desk.entries()}
    scored = {c.artifact: place[d] for d, c in desk.all(Scorecard) if c.role == "sealed"}
    looks = [(place[d], o) for d, o in desk.all(SealedOpening) if o.decision is None]
    return {o.candidate: o.opening for at, o in looks if at > scored.get(o.candidate, -1)}


def _require_openings(wanted: int, used: int, allowed: int) -> None:
    if wanted and used + wanted > allowed:
        raise OverBudget(
            f"{wanted} more looks at the sealed suites, and {used} of all {allowed} openings are used up",
            where="policy: gates.sealed_openings",
            advice="Have the policy's owner allow more, beside new sealed suites: studbook policy sign FILE --as NAME. "
            "The more often items were looked at, the less they confirm.",
        )
