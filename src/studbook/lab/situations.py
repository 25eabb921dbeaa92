"""What the ledger says before a decision: what was used up, how long the champion has stood, and who stood before it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from studbook.errors import DigestDiffers, OutOfOrder
from studbook.lab.desk import Desk
from studbook.lab.proposals import still_waiting
from studbook.population import Scored, archive_of, cells, elites, standings
from studbook.records import (
    ChampionPromotion,
    LedgerEntry,
    Policy,
    RollbackRecord,
    Scorecard,
    SealedOpening,
    ViabilityDecision,
    digest,
)
from studbook.viability import Contender, Former, Situation, held, waits_by_time

__all__ = ["check_moment", "diverse", "ledger_time", "require_released_hold", "situation"]


def ledger_time(desk: Desk, now: datetime) -> str | None:
    """The moment a decision is made at, never before the newest entry; None where the policy measures no time.

    Args:
        desk: The lab before the decision.
        now: What the clock says, in UTC.
    """
    return _written(desk, now) if waits_by_time(desk.policy[1]) else None


def check_moment(desk: Desk, record: ViabilityDecision, entry: LedgerEntry) -> None:
    """A decision's moment lies between the entry before it and its own, so that nobody decides in the future.

    Args:
        desk: The lab as it was before the decision.
        record: The decision.
        entry: Its entry.

    Raises:
        DigestDiffers: if it does not, or is stated where the policy measures no time, or is missing where it does.
    """
    last = max((e.time for e in desk.entries()), default="")
    timed, moment = waits_by_time(desk.policy[1]), record.as_of
    if timed != (moment is not None) or (moment is not None and not last <= moment <= entry.time):
        raise DigestDiffers(
            f"was decided at {moment}; the entry before it is of {last or 'no time'}, its own of {entry.time}",
            where="viability-decision: as_of",
            advice="Run the round again; what was bred and scored already is not done twice.",
            reason="decision.moment",
        )


def situation(
    desk: Desk, selection: Scorecard, development: Scorecard, contenders: Sequence[Contender], as_of: str | None
) -> Situation:
    """What the ledger says before a decision.

    Args:
        desk: The lab as it is before the decision.
        selection: The champion's selection scorecard.
        development: Its development scorecard.
        contenders: Every candidate.
        as_of: The decision's moment, as `ledger_time` gives it.
    """
    policy = desk.policy[1]
    since, moved = _moves(desk)
    return Situation(
        as_of=as_of,
        since=since.time if since else None,
        moved=moved,
        decisions=_decisions(desk, since, selection.artifact),
        openings=_openings(desk, contenders),
        waiting=len(still_waiting(desk)),
        former=tuple(_former(desk, artifact, selection) for artifact in _gone(desk)),
        diverse=diverse(policy, development, contenders),
    )


def diverse(policy: Policy, development: Scorecard, contenders: Sequence[Contender]) -> frozenset[str]:
    """Candidates that a population keeps for diversity, by development items; none unless the policy's may have children.

    Kept is who stands in the first front of noisy dominance, champion included, and who is the best of its cell; of more
    than the policy keeps, those that stand first.

    Args:
        policy: The policy in force.
        development: The champion's development scorecard.
        contenders: Every candidate; only those with a development scorecard on the same suites count.
    """
    if policy.population.descendants != "diverse":
        return frozenset()
    suites = [r.suite for r in development.results]
    found = {c.artifact: c.development for c in contenders if c.development}
    cards = {a: c for a, c in found.items() if [r.suite for r in c.results] == suites} | {
        development.artifact: development
    }
    labels = policy.protects(development.labels())
    correct = {a: {k: card.tasks()[k].correct for k in labels} for a, card in cards.items()}
    shares = {a: {k: bits.count("1") / len(bits) for k, bits in row.items() if bits} for a, row in correct.items()}
    if not labels or any(len(row) < len(labels) for row in shares.values()):
        return frozenset()
    rule = policy.population
    ranked = standings([Scored(a, row) for a, row in sorted(correct.items())], rule.epsilon, policy.gates.alpha)
    mean = {a: sum(row.values()) / len(row) for a, row in shares.items()}
    best = set(elites(cells(shares), mean).values())
    kept = [s for s in ranked if s.artifact != development.artifact and (s.rank == 1 or s.artifact in best)]
    return frozenset(archive_of(kept, rule.diverse))


def require_released_hold(desk: Desk, time: datetime) -> None:
    """Refuse a promotion while a wait of the policy holds: after a rollback an older decision may stand again.

    Args:
        desk: The lab as it is before the promotion.
        time: When it enters, in UTC.

    Raises:
        OutOfOrder: ``order.cooldown``, naming the wait.
    """
    policy, champion = desk.policy[1], desk.channels()["champion"].artifact
    since, moved = _moves(desk)
    now = Situation(
        as_of=_written(desk, time),
        since=since.time if since else None,
        moved=moved,
        decisions=_decisions(desk, since, champion),
    )
    if waits := held(policy, now):
        raise OutOfOrder(
            waits[0],
            where="champion-promotion",
            advice="Wait until then; or have the policy's owners sign another policy.",
            reason="order.cooldown",
        )


def _written(desk: Desk, now: datetime) -> str:
    last = max((e.time for e in desk.entries()), default="")
    return max(last, now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))


def _moves(desk: Desk) -> tuple[LedgerEntry | None, str | None]:
    """The entry with which the champion took its place, and when a promotion or rollback last moved it."""
    record = desk.channels()["champion"].record
    entry = desk.workspace.entry(record) if record else None
    if record is None or entry is None:
        return None, None
    if entry.record_kind == ChampionPromotion.kind():
        first = desk.workspace.get(record, ChampionPromotion).basis == "first"
        return entry, None if first else entry.time
    return entry, entry.time if entry.record_kind == RollbackRecord.kind() else None


def _openings(desk: Desk, contenders: Sequence[Contender]) -> int:
    """Looks at the sealed suites on record, but for the one that these very candidates had before.

    A round that is held again, as after a crash, comes to the same decision, and goes on with the look it has.
    """
    own = tuple(digest(c.manifest) for c in contenders)
    had = {d for d, r in desk.all(ViabilityDecision) if tuple(s.manifest for s in r.standings) == own}
    return sum(look.decision not in had for _, look in desk.all(SealedOpening))


def _decisions(desk: Desk, since: LedgerEntry | None, champion: str | None) -> int:
    """Decisions on record against a champion since it took its place; 0 where the policy does not ask."""
    if not desk.policy[1].hysteresis.window_decisions:
        return 0
    start = since.sequence if since else 0
    made = (e for e in desk.entries() if e.sequence > start and e.record_kind == ViabilityDecision.kind())
    held_now = (desk.workspace.get(e.record, ViabilityDecision) for e in made if not desk.workspace.void(e))
    return sum(1 for d in held_now if d.champion == champion)


def _gone(desk: Desk) -> tuple[str, ...]:
    """Models that were champion, and are in no channel and no way back now; the one that left last first."""
    states = desk.channels().values()
    kept = {s.artifact for s in states} | {s.way_back.artifact for s in states if s.way_back}
    before = (s.artifact for s in reversed(desk.history("champion")))
    return tuple(dict.fromkeys(a for a in before if a and a not in kept and not desk.revoked(a)))


def _former(desk: Desk, artifact: str, selection: Scorecard) -> Former:
    suites = [r.suite for r in selection.results]
    for named, card in desk.all(Scorecard):
        same = (card.artifact, card.role, card.evaluator) == (artifact, "selection", selection.evaluator)
        scored = all(r.verdict in ("pass", "fail") for r in card.results)
        if same and scored and [r.suite for r in card.results] == suites:
            return Former(artifact, desk.name_of(artifact), card, named)
    return Former(artifact, desk.name_of(artifact), None, "")
