"""Everything a person should know before a promotion, gathered from the records of a lab."""

from __future__ import annotations

from collections.abc import Iterable

from studbook.errors import DigestDiffers, OutOfOrder
from studbook.exchange.dossier import Dossier
from studbook.exchange.figures import figures, limits, unmeasured
from studbook.lab.absence import absent
from studbook.lab.audit_artifact import audit_artifact
from studbook.lab.desk import Desk
from studbook.lab.dossiers import collect
from studbook.lab.review import standing
from studbook.lab.review.facts import Asked, Back, Cited, Cost, Reserved, Review, Situation, Verdict
from studbook.lab.review.judges import judges_since
from studbook.lab.review.origin import forebears, papers_of
from studbook.lab.rollbacks import hindrance
from studbook.records import (
    KINDS,
    AdmissionRecord,
    ArchiveRecord,
    BaselineReceipt,
    ChampionPromotion,
    ConfirmationRecord,
    FailureCluster,
    Measure,
    Policy,
    PromotionTemplate,
    ReleaseRecord,
    ReportedResult,
    Revocation,
    Root,
    RuntimeSmoke,
    Scorecard,
    SuitesLock,
    ViabilityDecision,
)

__all__ = ["gather"]


def gather(desk: Desk, artifact: str) -> Review:
    """Everything a pack says; without its pictures, which are drawn from it.

    Args:
        desk: The lab.
        artifact: Digest of the candidate, or of the source to be installed.

    Raises:
        OutOfOrder: if there is nothing to review; ``review.champion``, ``review.source``, ``review.undecided``,
            ``order.unjudged``.
        DigestDiffers: if its bytes are gone without leave, or damaged; ``review.bytes``.
        StudbookError: any of its kinds, if a record cannot be read.
    """
    found = standing.decision_of(desk, artifact)
    situation = _situation(desk, artifact, found)
    _check_bytes(desk, artifact)
    dossier = collect(desk, artifact, {})
    cards = _cards(found[1], artifact) if found else tuple(d for d, _ in dossier.cards)
    cited = _cited(desk, artifact, found, cards)
    verdict = standing.verdict_of(desk, *found, artifact) if found else None
    own, champion = _compared_cards(found[1], artifact) if found else (cards[-1:], ())
    return Review(
        lab=desk.workspace.root.lab,
        entries=len(desk.entries()),
        head=desk.workspace.ledger.head,
        name=desk.name_of(artifact),
        artifact=artifact,
        size=dossier.manifest.artifact.size,
        situation=situation,
        asked=_asked(desk, artifact, situation),
        verdict=verdict,
        scores=standing.scores_of(desk, found[1], artifact) if found else standing.own_scores(desk, artifact, cards),
        reported=tuple(f for f in figures(dossier) if f.basis == "reported"),
        gates=standing.gates_of(desk, *found, artifact, situation) if found else standing.first_gates(desk, artifact),
        lineage=forebears(desk, artifact),
        data=tuple((d.name, d.sha256) for d in dossier.data),
        judges=judges_since(desk, cards),
        costs=_costs(desk, own, champion),
        reserve=_reserve(desk, verdict),
        back=_back(desk),
        assumptions=(*(found[1].assumptions if found else ()), *audit_artifact(desk, artifact).assumptions),
        untested=_untested(dossier, verdict),
        excluded=tuple(f"{e.name} {e.reason}" for e in found[1].excluded) if found else (),
        records=tuple(_entry(desk, d) for d in cited),
        withheld=_withheld(desk, verdict),
        proofs=_proven(desk, artifact, found),
        plots=(),
    )


def _situation(desk: Desk, artifact: str, found: tuple[str, ViabilityDecision] | None) -> Situation:
    name, channels = desk.name_of(artifact), desk.channels()
    if channels["champion"].artifact == artifact:
        advice = f"Nothing is asked of anybody. What is on record about it: studbook audit {artifact[:12]}"
        raise OutOfOrder(f"{name} is the champion already", advice=advice, reason="review.champion")
    if found is not None:
        if found[1].chosen != artifact:
            return "not-chosen"
        return "in-shadow" if channels["shadow"].artifact == artifact else "chosen"
    if any(c.artifact.sha256 == artifact for _, c in desk.candidates()):
        advice = f"Let a round judge it first: studbook decide CLUSTER {artifact[:12]}"
        raise OutOfOrder(f"no decision speaks of {name}", advice=advice, reason="review.undecided")
    if artifact not in desk.sources():
        advice = "Checkpoints and adapters are bred from, shown and exported; a channel holds what was judged."
        raise OutOfOrder(
            f"{name} is no SLM1 model, and no suite here judges it", advice=advice, reason="order.unjudged"
        )
    if channels["champion"].record is not None:
        advice = "Only a candidate that passed shadow replaces a champion. Offer this one as an approved parent."
        raise OutOfOrder(f"{name} is a source, and there is a champion", advice=advice, reason="review.source")
    return "first"


def _check_bytes(desk: Desk, artifact: str) -> None:
    if artifact not in absent(desk) and not desk.sound(artifact):
        advice = f"Bred here: studbook reproduce {artifact[:12]} --restore. A source: register its file again."
        where = desk.workspace.blob_path(artifact)
        raise DigestDiffers(f"the bytes of {desk.name_of(artifact)} are gone or damaged", where=where, advice=advice,
                            reason="review.bytes")  # fmt: skip


def _asked(desk: Desk, artifact: str, situation: Situation) -> Asked:
    name, short = desk.name_of(artifact), artifact[:12]
    people, needed = standing.people_for(desk)
    yes = f"studbook release {short} --to champion --as NAME"
    if situation == "in-shadow":
        question = f"Shall {name}, which stands in shadow, become the champion?"
        no = "Without a signature nothing changes. To take it out of shadow: studbook rollback shadow"
    elif situation == "first":
        question, no = f"Shall {name} be installed as the first champion?", "Without a signature nothing changes."
    elif situation == "chosen":
        question = f"Nothing yet: {name} was chosen, but it is not in shadow. The gates below say what is open."
        yes, no = "", f"It can be put into shadow once they are passed: studbook release {short} --to shadow"
    else:
        question = f"Nothing: the decision did not choose {name}, so it cannot be promoted. The verdict says why."
        yes, no = "", "The champion stays. Another round may judge it again."
    return Asked(question=question, command=yes, otherwise=no, people=people, needed=needed)


def _cards(record: ViabilityDecision, artifact: str) -> tuple[str, ...]:
    own = standing.standing_of(record, artifact)
    return tuple(d for d in (own.development, own.selection, *record.champion_cards, *record.parent_cards) if d)


def _compared_cards(record: ViabilityDecision, artifact: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The newest card of the candidate, and those of the champion."""
    own = standing.standing_of(record, artifact)
    newest = own.selection or own.development
    return ((newest,) if newest else ()), record.champion_cards


def _costs(desk: Desk, own: tuple[str, ...], champion: tuple[str, ...]) -> tuple[Cost, ...]:
    """Costs of the candidate's newest card beside those of the champion's on suites of the same role."""
    found: list[Cost] = []
    for record in own:
        card = desk.scorecard(record)
        others = [(d, desk.scorecard(d)) for d in champion if desk.scorecard(d).role == card.role]
        for cost in card.cost:
            pairs = [(d, m) for d, c in others for m in c.cost if _alike(m, cost)]
            other = pairs[0] if len(pairs) == 1 else None
            found.append(
                Cost(
                    candidate=cost,
                    champion=other[1] if other else None,
                    record=record,
                    other=other[0] if other else None,
                )
            )
    return tuple(found)


def _alike(first: Measure, second: Measure) -> bool:
    return (first.unit, first.method, first.basis) == (second.unit, second.method, second.basis)


def _reserve(desk: Desk, verdict: Verdict | None) -> Reserved:
    rows = [r for r in verdict.rows if r.on == "storage-reserve"] if verdict else []
    row = rows[0] if rows and not rows[0].method.startswith("no data") else None
    reserve = desk.policy[1].reserve
    return Reserved(
        capacity=reserve.capacity_bytes,
        minimum=reserve.minimum_bytes,
        left=int(row.difference) if row else None,
        record=row.record if row else None,
    )


def _back(desk: Desk) -> tuple[Back, ...]:
    """What a rollback of champion restores once somebody else is champion: the one now, and those before it."""
    now = desk.channels()["champion"]
    ways = (now.back, *desk.ways_back("champion"))
    return tuple(
        Back(
            name=desk.name_of(way.artifact),
            artifact=way.artifact,
            record=way.record,
            problem=found.words if (found := hindrance(desk, way)) else "",
        )
        for way in ways
        if way.artifact is not None and way.record is not None
    )


def _untested(dossier: Dossier, verdict: Verdict | None) -> tuple[str, ...]:
    judged = () if verdict else ("Whether it is better than anything: no round compared it with another model.",)
    return (*judged, *unmeasured(dossier), *(f"Not supported: {text}" for text in limits(dossier)))


def _withheld(desk: Desk, verdict: Verdict | None) -> tuple[str, ...]:
    if verdict is None or verdict.confirmation is None:
        return ()
    look = desk.workspace.get(verdict.confirmation, ConfirmationRecord)
    return (look.champion_card, look.candidate_card)


def _cited(
    desk: Desk,
    artifact: str,
    found: tuple[str, ViabilityDecision] | None,
    cards: Iterable[str],
) -> tuple[str, ...]:
    """Digests of the records that the pack speaks from, oldest first; sealed scorecards stay in the lab."""
    cited = {*papers_of(desk, artifact), *cards}
    for newest in (Policy, SuitesLock, Root, ChampionPromotion):
        cited |= {d for d, _ in list(desk.all(newest))[-1:]}
    for about in (RuntimeSmoke, AdmissionRecord, ReleaseRecord, BaselineReceipt, ReportedResult):
        cited |= {d for d, r in desk.all(about) if artifact in r.subjects()}
    cited |= {d for d, _ in desk.all(Revocation)}
    cited |= {way.record for way in _back(desk)}
    if found is not None:
        digest, record = found
        cluster = desk.workspace.get(record.cluster, FailureCluster)
        cited |= {digest, *record.references(), *cluster.references()}
        cited |= {d for d, a in desk.all(ArchiveRecord) if a.decision == digest}
        cited |= {d for d, c in desk.all(ConfirmationRecord) if c.decision == digest}
        cited |= {d for d, t in desk.all(PromotionTemplate) if t.decision == digest and t.artifact == artifact}
    for digest in tuple(cited):
        if _kind(desk, digest) in (SuitesLock.kind(), Scorecard.kind()):
            cited |= {*desk.workspace.get(digest, KINDS[_kind(desk, digest)]).references()}
    held = [e for d in cited if (e := desk.workspace.entry(d)) is not None and not desk.workspace.void(e)]
    return tuple(e.record for e in sorted(held, key=lambda e: e.sequence) if not _sealed(desk, e.record))


def _proven(desk: Desk, artifact: str, found: tuple[str, ViabilityDecision] | None) -> tuple[tuple[str, str], ...]:
    """What is proved to be in the ledger: name and digest of the manifest, the decision and its promotion template."""
    proven = {"manifest": papers_of(desk, artifact)[0]}
    if found is not None:
        templates = [(d, t) for d, t in desk.all(PromotionTemplate) if (t.decision, t.artifact) == (found[0], artifact)]
        proven["decision"] = found[0]
        proven |= {"template": templates[-1][0]} if templates else {}
    return tuple(proven.items())


def _kind(desk: Desk, digest: str) -> str:
    entry = desk.workspace.entry(digest)
    return entry.record_kind if entry else ""


def _sealed(desk: Desk, digest: str) -> bool:
    return _kind(desk, digest) == Scorecard.kind() and desk.scorecard(digest).role == "sealed"


def _entry(desk: Desk, digest: str) -> Cited:
    entry = desk.workspace.entry(digest)
    assert entry is not None
    return Cited(record=digest, kind=entry.record_kind, entry=entry.sequence, time=entry.time)
