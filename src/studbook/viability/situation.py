"""Where a decision stands in the life of the lab: what was used up, how long the champion has stood, who stood before it.

Whoever decides reads it from the ledger as it was before the decision, and whoever verifies reads it there again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from studbook.records import Policy, Scorecard

__all__ = ["ALONE", "Former", "Situation", "held", "is_wait", "waits_by_time"]

_COOLDOWN, _OBSERVATION = "cooldown: ", "observation: "


class Former(NamedTuple):
    """A model that was champion, is in no channel and is no way back.

    Attributes:
        artifact: Its digest.
        name: What people call it.
        card: Its selection scorecard on the suites and by the evaluator of the decision; None where there is none.
        digest: Digest of that scorecard; empty where there is none.
    """

    artifact: str
    name: str
    card: Scorecard | None
    digest: str


@dataclass(frozen=True)
class Situation:
    """What the ledger says before a decision.

    Attributes:
        as_of: Ledger time of the decision, ISO 8601; None where the policy measures no time.
        since: When the champion took its place.
        moved: When a promotion or rollback last moved the champion; None where none did.
        decisions: Decisions on record against this champion since then.
        openings: Openings of the sealed suites on record.
        waiting: Acts of people that something in the ledger waits for.
        former: Former champions, the one that left last first.
        diverse: Digests of candidates that a population keeps for diversity.
    """

    as_of: str | None = None
    since: str | None = None
    moved: str | None = None
    decisions: int = 0
    openings: int = 0
    waiting: int = 0
    former: tuple[Former, ...] = ()
    diverse: frozenset[str] = frozenset()


ALONE = Situation()
"""A lab without a past."""


def waits_by_time(policy: Policy) -> bool:
    """Whether the policy has a wait that is measured in ledger time."""
    return policy.hysteresis.cooldown_hours > 0 or policy.hysteresis.window_days > 0


def held(policy: Policy, situation: Situation) -> tuple[str, ...]:
    """Why the champion may not be replaced yet, each wait with its numbers; empty when it may.

    A wait ends at the very moment that it names.

    Args:
        policy: The policy in force.
        situation: What the ledger says.
    """
    rule, waits = policy.hysteresis, []
    if rule.cooldown_hours and situation.moved:
        waits += _wait(_COOLDOWN, situation.moved, timedelta(hours=rule.cooldown_hours), "last moved", situation)
    if rule.window_days and situation.since:
        waits += _wait(_OBSERVATION, situation.since, timedelta(days=rule.window_days), "took its place", situation)
    if situation.decisions < rule.window_decisions:
        waits.append(
            f"{_OBSERVATION}{situation.decisions} decisions stand on record against this champion, and the policy "
            f"asks for {rule.window_decisions} before it is replaced"
        )
    return tuple(waits)


def is_wait(reason: str) -> bool:
    """Whether a reason of a decision is a wait, as `held` words it."""
    return reason.startswith((_COOLDOWN, _OBSERVATION))


def _wait(name: str, begin: str, length: timedelta, what: str, situation: Situation) -> list[str]:
    assert situation.as_of is not None
    now, start = datetime.fromisoformat(situation.as_of), datetime.fromisoformat(begin)
    until = start + length
    if now >= until:
        return []
    # Rounded down, so that a wait which is not over never reads as if it were.
    passed, asked = (now - start) // timedelta(minutes=6) / 10, length // timedelta(hours=1)
    return [
        f"{name}{passed:.1f} of {asked} hours since the champion {what}; it may be replaced from "
        f"{until:%Y-%m-%dT%H:%M:%SZ} on"
    ]
