"""Which records a bundle of a channel rests on, chosen from the ledger by fixed rules; each refusal says what is missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from studbook.assembly.meaning import names_line
from studbook.assembly.plan import EVIDENCE
from studbook.errors import OutOfOrder, OutsideAllowlist
from studbook.files import read_file
from studbook.lab.admissions import admitted_to_channels
from studbook.lab.approvals import require_unrevoked
from studbook.lab.desk import Desk
from studbook.lab.evaluators import in_force
from studbook.lab.routing import kept_inside, operators_of
from studbook.ledger.merkle import leaf_hash, verify_inclusion
from studbook.ledger.note import read_checkpoint
from studbook.ledger.proofs import read_inclusion
from studbook.records import (
    KINDS,
    AdmissionRecord,
    CandidateManifest,
    ChampionPromotion,
    LedgerEvidence,
    LineageTemplate,
    ModelSource,
    ParentPool,
    PopulationReview,
    PromotionTemplate,
    Record,
    RuntimeSmoke,
    Scorecard,
    ViabilityDecision,
)
from studbook.records.assembly import CheckpointMark, LedgerLine
from studbook.records.manifests import LineageNode

__all__ = ["Evidence", "gather", "inclusion", "ledger_evidence", "lineage", "require_offered"]

_LEDGER_LIMIT = 1 << 30
R = TypeVar("R", bound=Record)


class Evidence(NamedTuple):
    """What a bundle of a channel rests on.

    Attributes:
        artifact: Digest of the model.
        records: Role -> digest of the record, in the order of a plan; the ledger's own evidence is none of them.
        champion_card: Digest of the champion's scorecard of the same role; None where there is none.
    """

    artifact: str
    records: dict[str, str]
    champion_card: str | None


def gather(desk: Desk, channel: str) -> Evidence:
    """Find every record that a bundle of a channel rests on.

    Args:
        desk: The lab.
        channel: The channel.

    Raises:
        OutOfOrder: if the channel is empty, points at what was never admitted or is revoked, or a record is missing.
        OutsideAllowlist: if an offline operator made the model; ``assembly.offline``.
    """
    state = desk.channels()[channel]
    if state.artifact is None or state.record is None:
        advice = f"Release a winner first: studbook release NAME --to {channel}"
        raise OutOfOrder("points at nothing", where=channel, advice=advice, reason="assembly.empty")
    artifact = state.artifact
    require_offered(desk, artifact)
    admission, admitted = _admission(desk, artifact)
    promotion = desk.workspace.get(admitted.template, PromotionTemplate)
    candidate = desk.workspace.get(promotion.manifest, CandidateManifest)
    evaluation, champion = _cards(desk, promotion)
    entry = desk.workspace.entry(state.record)
    assert entry is not None
    move = desk.workspace.get(state.record, KINDS[entry.record_kind])
    found = {
        "review": _review(desk, artifact),
        "recipe": _recipe(desk, artifact),
        "operator-receipt": candidate.receipt,
        "candidate": promotion.manifest,
        "template": candidate.template,
        "promotion": admitted.template,
        "admission": admission,
        "move": state.record,
        "smoke": _smoke(desk, artifact),
        "evaluation": evaluation,
        "decision": promotion.decision,
    }
    if isinstance(move, ChampionPromotion):
        found["promotion-champion"] = move.evidence
    return Evidence(artifact, {role: found[role] for role in EVIDENCE if role in found}, champion)


def require_offered(desk: Desk, artifact: str) -> None:
    """Refuse what may go into no bundle: what was revoked, and what was bred here but not admitted or not routed.

    Args:
        desk: The lab.
        artifact: Digest of a model, or of anything else that a package says it was made from; what was not bred here
            need not be admitted.

    Raises:
        OutOfOrder: if it is revoked, or was bred here and never admitted; ``order.revoked``, ``assembly.admitted``.
        OutsideAllowlist: if an offline operator made it; ``assembly.offline``.
    """
    require_unrevoked(desk, artifact)
    if why := kept_inside(desk, artifact):
        raise OutsideAllowlist(why, where=desk.name_of(artifact), reason="assembly.offline")
    if operators_of(desk, artifact):
        _admission(desk, artifact)


def ledger_evidence(desk: Desk, records: Sequence[tuple[str, str]]) -> LedgerEvidence:
    """The ledger's checkpoint with the proof that records are in it.

    Args:
        desk: The lab.
        records: Role and digest of each, in the order of a plan.
    """
    ledger = desk.workspace.ledger
    lines = read_file(ledger.path, _LEDGER_LIMIT).split(b"\n")
    proofs = [read_inclusion(ledger.prove(_index(desk, record)), ledger.path) for _, record in records]
    note = proofs[0].checkpoint
    found, _ = read_checkpoint(note, ledger.path)
    return LedgerEvidence(
        header=desk.header,
        checkpoint=CheckpointMark(origin=found.origin, size=found.size, root=found.root.hex()),
        note=note.decode(),
        entries=tuple(
            LedgerLine(
                role=role,
                record=record,
                index=proof.number,
                line=lines[proof.number].decode(),
                path=tuple(node.hex() for node in proof.hashes),
            )
            for (role, record), proof in zip(records, proofs, strict=True)
        ),
    )


def inclusion(line: bytes, index: int, size: int, path: list[bytes], root: bytes) -> None:
    """Refuse a ledger's line that is not in a tree; what verification of a bundle asks for.

    Raises:
        DigestDiffers: if it is not; ``ledger.inclusion``.
    """
    verify_inclusion(leaf_hash(line), index, size, path, root)


def lineage(desk: Desk, artifact: str) -> tuple[LineageNode, ...]:
    """An artifact and everything it descends from, each once, itself first."""
    bred = {m.artifact.sha256: m for _, m in reversed(desk.candidates())}
    registered = desk.registered()
    found = []
    for digest in desk.ancestry(artifact):
        made = bred.get(digest)
        template = desk.workspace.get(made.template, LineageTemplate) if made else None
        held = registered.get(digest)
        model = held is not None and isinstance(held[1].source, ModelSource)
        found.append(
            LineageNode(
                digest=digest,
                name=desk.name_of(digest),
                kind="candidate" if template else "source" if model else "package",
                operator=str(template.operator.get("operator")) if template else None,
                parents=tuple(dict.fromkeys((template.base, *template.parents))) if template else (),
            )
        )
    return tuple(found)


def _index(desk: Desk, record: str) -> int:
    entry = desk.workspace.entry(record)
    assert entry is not None
    return entry.sequence


def _newest(desk: Desk, kind: type[R], fits: Callable[[R], bool]) -> str | None:
    """Digest of the newest record of a kind that fits and was not revoked."""
    found = [digest for digest, record in desk.unrevoked(kind) if fits(record)]
    return found[-1] if found else None


def _admission(desk: Desk, artifact: str) -> tuple[str, AdmissionRecord]:
    found = [(d, r) for d, r in admitted_to_channels(desk) if r.artifact == artifact]
    if not found:
        raise OutOfOrder(
            f"{desk.name_of(artifact)} was never admitted",
            where="admission-record",
            advice="Only winners of a round go into a bundle; a source that was installed as the first champion does not.",
            reason="assembly.admitted",
        )
    return found[-1]


def _cards(desk: Desk, promotion: PromotionTemplate) -> tuple[str, str | None]:
    """The scorecard that the decision rests on, and the champion's of the same role."""
    decision = desk.workspace.get(promotion.decision, ViabilityDecision)
    own = next(s for s in decision.standings if s.manifest == promotion.manifest)
    card = own.selection or own.development
    if card is None:
        text = "the decision cites no scorecard of it"
        raise OutOfOrder(text, where=desk.name_of(promotion.artifact), reason="assembly.evaluation")
    role = desk.workspace.get(card, Scorecard).role
    return card, next((d for d in decision.champion_cards if desk.scorecard(d).role == role), None)


def _smoke(desk: Desk, artifact: str) -> str:
    judge = in_force(desk)
    found = _newest(desk, RuntimeSmoke, lambda r: r.artifact == artifact and r.evaluator == judge and r.passed)
    if found is None:
        name = desk.name_of(artifact)
        advice = f"Have it measured anew: studbook evaluate {artifact[:12]}"
        text = f"{name} did not pass its runtime smoke under the evaluator in force"
        raise OutOfOrder(text, where=name, advice=advice, reason="order.smoke")
    return found


def _review(desk: Desk, artifact: str) -> str:
    found = _newest(desk, PopulationReview, lambda r: artifact in {one.artifact for one in r.residents})
    if found is None:
        advice = "Review the populations now that it was released: studbook review"
        where = desk.name_of(artifact)
        raise OutOfOrder("no population review names it", where=where, advice=advice, reason="assembly.review")
    return found


def _recipe(desk: Desk, artifact: str) -> str:
    line = lineage(desk, artifact)
    found = _newest(desk, ParentPool, lambda pool: names_line(pool, line))
    if found is None:
        advice = "Draw parents on record: studbook parents CLUSTER --keep"
        where = desk.name_of(artifact)
        text = "no parent-pool recipe names it, or every source it descends from"
        raise OutOfOrder(text, where=where, advice=advice, reason="assembly.recipe")
    return found
