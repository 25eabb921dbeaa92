"""What becomes of whom: one rule an action, each written down here and nowhere else.

Of the champion, the first that holds:

* ``package``: in a round for a specialist, a candidate passes every rule; it is packaged and goes into no channel.
* ``promote-to-shadow``: a candidate passes every rule of `studbook.viability`, and no wait of the policy holds.
* ``no-op``: a wait of the policy holds (cooldown or observation window), whatever the candidates did.
* ``merge-compress``: a finalist is a smaller equal, see below. Its bytes are no promotion: superiority was not shown.
* ``keep``: the champion stands although a finalist is no worse on every protected suite.
* ``no-op``: none of these; nobody came near.

Of a candidate that is not promoted, the first that holds:

* ``quarantine``: a gate of integrity failed.
* ``merge-compress``: it met the selection suites, failed no gate, is not inferior on any protected suite, keeps every
  reserve, and its file is smaller than the champion's by the policy's share.
* ``archive-for-diversity``: it failed no gate, and the population keeps it: nobody dominates it, or it is the best of
  its kind.
* ``archive``: everybody else.

``retire`` is for former champions: the champion's joint mean is above theirs by more than the policy's removal threshold
(lower bound), and the policy's number of active models is used up by those that left the channel after them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from studbook.records import Retired
from studbook.records.decisions import Away
from studbook.viability.comparisons import joint
from studbook.viability.contenders import Round
from studbook.viability.costs import BYTES, cost
from studbook.viability.gates import failed, tampered
from studbook.viability.situation import Former
from studbook.viability.standings import Judged
from studbook.viability.words import percent, points, settle

__all__ = ["compresses", "losing_action", "no_worse_than_champion", "retired", "standing_champion", "why_it_compresses"]

_EVERYTHING = 1.0


def no_worse_than_champion(judged: Judged) -> bool:
    """Whether a candidate met the selection suites, failed no gate, and is not inferior on any protected suite."""
    rows = [f.row for f in judged.findings if f.row.test == "non-inferiority"]
    return bool(rows) and not failed(judged.checks) and all(row.passed for row in rows)


def compresses(judged: Judged, circle: Round) -> bool:
    """Whether a candidate is as good as the champion within the margins, and smaller by the policy's share."""
    share = circle.rules.hysteresis.smaller_by
    size = cost(circle.selection, BYTES)
    kept = all(f.row.passed for f in judged.findings if f.row.on.endswith("-reserve"))
    if share == 0.0 or size is None or not kept or not no_worse_than_champion(judged):
        return False
    return judged.contender.manifest.artifact.size <= (_EVERYTHING - share) * size


def why_it_compresses(judged: Judged, circle: Round) -> str:
    """The numbers of a smaller equal."""
    own, size = judged.contender.manifest.artifact.size, cost(circle.selection, BYTES) or 0
    share = circle.rules.hysteresis.smaller_by
    return (
        f"no worse than the champion within every margin, in {own:,} bytes against {size:,}, {percent(1 - own / size)} "
        f"less where the policy asks for {percent(share)}; superiority was not shown, so it is not promoted"
    )


def losing_action(judged: Judged, circle: Round) -> Away:
    """What becomes of a candidate that is not promoted."""
    if tampered(judged.checks):
        return "quarantine"
    if compresses(judged, circle):
        return "merge-compress"
    kept = judged.contender.artifact in circle.situation.diverse and not failed(judged.checks)
    return "archive-for-diversity" if kept else "archive"


def retired(circle: Round) -> tuple[Retired, ...]:
    """Former champions that stand for retirement: more than the policy keeps, and the champion is better."""
    kept = circle.rules.population.active
    rows = (_retired(former, circle) for former in circle.situation.former[kept:])
    return tuple(row for row in rows if row is not None)


def _retired(former: Former, circle: Round) -> Retired | None:
    if former.card is None:
        return None
    labels, policy = circle.protected, circle.rules
    _, gain = joint(circle.selection, former.card, labels, policy.gates.alpha)
    threshold = policy.hysteresis.removal_threshold
    if settle(gain.lower) <= threshold:
        return None
    words = (
        f"the champion's joint mean is {points(gain.value)} above it, lower bound {points(gain.lower, 2)}, and the policy "
        f"removes above {points(threshold, 2)}; {policy.population.active} former champions that left later are kept"
    )
    return Retired(artifact=former.artifact, name=former.name, scorecard=former.digest, reasons=(words,))


def standing_champion(judged: Sequence[Judged], circle: Round) -> Literal["keep", "merge-compress", "no-op"]:
    """What is done with the champion where nobody is promoted and no wait holds."""
    if any(compresses(j, circle) for j in judged):
        return "merge-compress"
    return "keep" if any(no_worse_than_champion(j) for j in judged) else "no-op"
