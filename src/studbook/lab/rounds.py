"""One breeding round: the blueprint, line for line.

Every step is keyed by the digests of what it works on and looks in the ledger first, so a round that was cut short
goes on where it stopped when it is started again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

from msgspec import Struct

from studbook.breeding.recipes import check_recipe, wants_one_parent, without_parent
from studbook.errors import OutOfOrder, OutsideAllowlist, UsageError
from studbook.lab import adapters, approvals, breeding, channels, clock, gates, judging, sources
from studbook.lab.breeding import Herd
from studbook.lab.descendants import bred_parents
from studbook.lab.desk import Desk
from studbook.lab.honesty import HonestyRow, honesty_rows
from studbook.lab.ladder import Learned, learned
from studbook.lab.missing import need_judge, need_operators
from studbook.lab.offering import check_offered, named_models, select_approved_parents, shared_base
from studbook.lab.pending import require_key
from studbook.lab.situations import ledger_time, situation
from studbook.lab.slices import compare, require_clean, taught
from studbook.records import (
    BaselineReceipt,
    BaselineRow,
    CandidateManifest,
    FailureCluster,
    Scorecard,
    ViabilityDecision,
    digest,
)
from studbook.registry.approval import Selection
from studbook.registry.compatibility import require
from studbook.viability import Baseline, archive, decide, screen

__all__ = [
    "Outcome",
    "breed_one",
    "choose",
    "conclude",
    "decide_only",
    "require_ceiling",
    "run_round",
    "start",
]


class Outcome(Struct, frozen=True):
    """What a round came to.

    Attributes:
        decision: Digest of the ViabilityDecision.
        record: The decision.
        archive: Digest of the ArchiveRecord, if anything was archived.
        released: Digest of the artifact now in shadow, or None.
        held: Why a winner was not released, or empty.
        baselines: The rows shown beside the winner or best candidate, if they were made.
        champion: The champion's scorecard on selection items.
        learned: What is let out about the decision; whoever makes candidates is shown this and not the record.
        honesty: Tasks nobody was taught, shown beside it; they decide nothing.
    """

    decision: str
    record: ViabilityDecision
    archive: str | None
    released: str | None
    held: str
    baselines: BaselineReceipt | None
    champion: Scorecard
    learned: Learned
    honesty: tuple[HonestyRow, ...]


def run_round(
    desk: Desk,
    label: str,
    recipes: Sequence[Mapping[str, Any]] | None = None,
    parents: Sequence[str] | None = None,
    ceiling: str | None = None,
    scope: Sequence[str] = (),
    today: date | None = None,
) -> Outcome:
    """Breed for one failure cluster, judge, and release to shadow or archive with reasons.

    Args:
        desk: The lab.
        label: The failure cluster.
        recipes: Operator records to try; the policy's by default.
        parents: Names of the parents to use; every approved one by default.
        ceiling: Name of a registered joint-training model to show as the ceiling; it is never a parent.
        scope: What a specialist shall answer for; its winner is admitted to be packaged, and enters no channel.
        today: The day approvals must cover.

    Raises:
        StudbookError: any of its kinds, before any work, if parents do not fit or something is missing.
    """
    chosen = list(recipes if recipes is not None else desk.policy[1].recipes)
    if not chosen:
        raise OutsideAllowlist("the policy names no recipe and none was given", where="policy: recipes")
    if ceiling is not None:
        require_ceiling(desk, ceiling)
    judging.require_judges(desk, label, scope)
    need_operators(desk, chosen, f"round {label}", desk.policy[0])
    require_key(desk, CandidateManifest, ViabilityDecision)
    herd, cluster, selection = start(desk, label, chosen, parents, today or clock.today(), scope=scope)
    orders = breeding.plan(desk, herd, chosen)
    judging.check_budget(desk, len(orders))
    candidates = breeding.breed_all(desk, orders)
    decision, record = _judge(desk, cluster, candidates, selection)
    baselines = _baselines(desk, herd, record, ceiling)
    return conclude(desk, decision, record, baselines)


def conclude(desk: Desk, decision: str, record: ViabilityDecision, baselines: BaselineReceipt | None) -> Outcome:
    """Release the winner to shadow, admit a specialist, or nothing; archive everybody else with reasons and scorecards."""
    released, held = None, ""
    if record.action == "package":
        held = channels.admit_specialist(desk, decision, record)
    elif record.chosen is not None:
        held = channels.release_to_shadow(desk, decision, record)
        released = record.chosen if not held else None
    losers = archive(desk.header, record, gates.confirmation_of(desk, decision))
    archived = desk.workspace.commit(losers) if losers.candidates else None
    return _outcome(desk, decision, record, archived, released, held, baselines)


def _outcome(
    desk: Desk,
    decision: str,
    record: ViabilityDecision,
    archived: str | None,
    released: str | None,
    held: str,
    baselines: BaselineReceipt | None,
) -> Outcome:
    return Outcome(
        decision=decision,
        record=record,
        archive=archived,
        released=released,
        held=held,
        baselines=baselines,
        champion=_champion_card(desk, record),
        learned=learned(desk, decision),
        honesty=honesty_rows(desk, record),
    )


def breed_one(desk: Desk, label: str, recipe: Mapping[str, Any], names: Sequence[str] | None) -> str:
    """Breed one candidate for a cluster; the digest of its artifact."""
    if recipe == {"operator": adapters.FUSE}:
        return adapters.breed_fused(desk, label, names or ())
    herd, _, _ = start(desk, label, [recipe], names, clock.today())
    manifest = breeding.breed_all(desk, breeding.plan(desk, herd, [recipe]))[0]
    return breeding.manifest_of(desk, manifest).artifact.sha256


def decide_only(desk: Desk, label: str, names: Sequence[str]) -> Outcome:
    """Judge candidates that exist against the champion as it is now; archive the losers, release nothing.

    Raises:
        UsageError: if a name is not a candidate's; nothing has run then.
    """
    bred = {m.artifact.sha256: d for d, m in desk.candidates() if m.purpose == "candidate"}
    artifacts = named_models(desk, names)
    for artifact in artifacts:
        if artifact not in bred:
            raise UsageError(
                f"{desk.name_of(artifact)} was not bred here",
                advice="Name candidates; parents and champion stand beside them as baselines by themselves.",
            )
        if sources.is_listing(desk, artifact):
            need_judge(desk, artifact, label)
            raise UsageError(
                "is a checkpoint, and suites judge SLM1 models",
                where=desk.name_of(artifact),
                advice="It can be shown, compared and exported; see what was proposed: studbook proposal list",
                reason="usage.checkpoint",
            )
    judging.check_budget(desk, len(artifacts))
    judging.require_judges(desk, label)
    _, cluster, selection = start(desk, label, [], None, clock.today(), breeds=False)
    for artifact in artifacts:
        if breeding.template_of(desk, bred[artifact]).cluster != digest(cluster):
            raise OutOfOrder(
                f"{desk.name_of(artifact)} was bred for another cluster, champion or policy",
                advice=f"Breed it again for this one: studbook breed {label} RECIPE; its bytes will be the same.",
                reason="order.cluster",
            )
    decision, record = _judge(desk, cluster, [bred[a] for a in artifacts], selection)
    losers = archive(desk.header, record)
    archived = desk.workspace.commit(losers) if losers.candidates else None
    held = "released by an act of its own: studbook release" if record.chosen else ""
    return _outcome(desk, decision, record, archived, None, held, None)


def start(
    desk: Desk,
    label: str,
    recipes: Sequence[Mapping[str, Any]],
    names: Sequence[str] | None,
    today: date,
    *,
    breeds: bool = True,
    scope: Sequence[str] = (),
) -> tuple[Herd, FailureCluster, Selection]:
    """Parents, compatibility and cluster: everything that can refuse, before any candidate is bred.

    Recipes, label and names come first: a slip of the pen is told before anything is measured.

    Raises:
        StudbookError: any of its kinds.
    """
    for recipe in recipes:
        check_recipe(recipe)
    base, chosen, selection = choose(desk, label, names, today)
    if breeds:
        _require_unseen(desk, recipes, chosen)
    herd, cluster = _prepare(desk, label, base, chosen, scope)
    return herd, cluster, selection


def choose(desk: Desk, label: str, names: Sequence[str] | None, today: date) -> tuple[str, tuple[str, ...], Selection]:
    """Base, parents and selection of a round; nothing is measured for it.

    Raises:
        StudbookError: any of its kinds, as `start`.
    """
    judging.require_label(desk, label)
    named_models(desk, names or ())
    base = _shared_base(desk, label, names, today)
    selection = select_approved_parents(desk, label, base, names, today)
    # Parents were selected by their approvals; base and champion are bred from all the same.
    approvals.require_approved(desk, label, (base, desk.champion()), today)
    chosen = tuple(dict.fromkeys(desk.find_model(n) for n in names)) if names is not None else selection.parents
    return base, chosen, selection


def require_ceiling(desk: Desk, name: str) -> None:
    """The ceiling is run beside the winner at the very end; what cannot be run is told before the beginning.

    Raises:
        UsageError: if it is the name of no model that can be run.
        DigestDiffers: if its bytes are gone.
    """
    artifact = desk.find_model(name)
    sources.require_model(desk, artifact)
    desk.model(artifact)


def _champion_card(desk: Desk, record: ViabilityDecision) -> Scorecard:
    cards = [desk.workspace.get(d, Scorecard) for d in record.champion_cards]
    return next(c for c in cards if c.role == "selection")


def _shared_base(desk: Desk, label: str, names: Sequence[str] | None, today: date) -> str:
    """The base of the named parents, or of every approved one."""
    if names is not None:
        return shared_base(desk, [desk.find_model(n) for n in names])
    return shared_base(desk, approvals.select(desk, label, "", today).parents)


def _prepare(
    desk: Desk, label: str, base: str, parents: tuple[str, ...], scope: Sequence[str]
) -> tuple[Herd, FailureCluster]:
    slice_ = sources.slice_of(desk, label, base)
    report_digest, report = sources.compare_parents(desk, base, parents, slice_[1] if slice_ else None)
    require(report)
    cluster_digest, cluster = judging.declare_cluster(desk, label, base, scope)
    return Herd(cluster_digest, cluster.champion, base, parents, report_digest), cluster


def _require_unseen(desk: Desk, recipes: Sequence[Mapping[str, Any]], parents: Sequence[str]) -> None:
    """A child inherits what its parents were taught, so of parents that were taught a suite's items none is bred."""
    alone = [wants_one_parent(recipe) for recipe in recipes]
    used = (*(() if alone and all(alone) else parents), *((desk.champion(),) if any(alone) else ()))
    for parent in dict.fromkeys(used):
        for slice_, (_, receipt) in compare(desk, taught(desk, sources.inherited_data(desk, [parent]))).items():
            require_clean(receipt, f"training slice {slice_[:12]}... of {desk.name_of(parent)}")


def _judge(
    desk: Desk, cluster: FailureCluster, candidates: Sequence[str], selection: Selection
) -> tuple[str, ViabilityDecision]:
    """Evaluate all, screen on development items, meet the finalists on selection items, decide."""
    _, policy = desk.policy
    _, lock = desk.suites_lock
    artifacts = {m: desk.workspace.get(m, CandidateManifest).artifact.sha256 for m in candidates}
    compare(desk, [s for m in candidates for s in taught(desk, breeding.manifest_of(desk, m).data)])
    smokes = judging.smoke_all(desk, list(artifacts.values()))
    able = [a for a in artifacts.values() if a in smokes and smokes[a].passed]
    development = judging.evaluate(desk, [cluster.champion, *able], "development")[cluster.champion]
    judging.drift(desk, able, cluster.champion, "development")
    screened = screen(judging.contenders(desk, candidates), development.card, cluster, policy)
    finalists = [artifacts[m] for m in screened]
    parents = (*selection.parents, *bred_parents(desk, candidates))
    judged = judging.evaluate(desk, [cluster.champion, *parents, *finalists], "selection")
    judging.drift(desk, finalists, cluster.champion, "selection")
    field = [
        c if digest(c.manifest) in screened else replace(c, selection=None)
        for c in judging.contenders(desk, candidates)
    ]
    record = decide(
        header=desk.header,
        policy=policy,
        cluster=cluster,
        suites=lock,
        contenders=field,
        champion_development=development.card,
        champion_selection=judged[cluster.champion].card,
        parents=[Baseline(p, desk.name_of(p), judged[p].card) for p in parents],
        excluded=selection.excluded,
        situation=situation(
            desk,
            judged[cluster.champion].card,
            development.card,
            field,
            ledger_time(desk, clock.now()),
        ),
    )
    # A round may take days, and approvals end: what could not be replayed is not written.
    check_offered(desk, record, clock.now())
    return desk.workspace.commit(record), record


def _baselines(desk: Desk, herd: Herd, record: ViabilityDecision, ceiling: str | None) -> BaselineReceipt | None:
    """The joint-training ceiling and each parent left out, beside the winner or the best-screened candidate."""
    ranked = sorted((s for s in record.standings if s.screen_rank), key=lambda s: s.screen_rank)
    best = next((s for s in record.standings if s.artifact == record.chosen), ranked[0] if ranked else None)
    if best is None:
        return None
    rows = [(f"candidate: {best.name}", best.artifact)]
    if ceiling is not None:
        rows.append((f"ceiling: {ceiling}", desk.find_model(ceiling)))
    rows += _left_out(desk, herd, best.manifest)
    cards = judging.evaluate(desk, [a for _, a in rows], "development")
    receipt = BaselineReceipt(
        header=desk.header,
        candidate=best.artifact,
        role="development",
        rows=tuple(
            BaselineRow(
                label=label,
                artifact=a,
                scorecard=cards[a].digest,
                joint_mean=round(cards[a].card.joint_mean, 9),
            )
            for label, a in rows
        ),
    )
    desk.workspace.commit(receipt)
    return receipt


def _left_out(desk: Desk, herd: Herd, manifest: str) -> list[tuple[str, str]]:
    """The same operator without each parent in turn: ablation rows, never eligible."""
    template = breeding.template_of(desk, manifest)
    if len(template.parents) < 3:
        return []
    rows = []
    for index, parent in enumerate(template.parents):
        rest = template.parents[:index] + template.parents[index + 1 :]
        # What holds for all parents holds for all but one, so the report of the round covers them.
        without = herd._replace(parents=rest)
        recipe = without_parent(template.operator, index)
        orders = breeding.plan(desk, without, [recipe], "ablation")
        bred = breeding.breed_all(desk, orders, f"without {desk.name_of(parent)}")
        artifact = breeding.manifest_of(desk, bred[0]).artifact.sha256
        rows.append((f"without {desk.name_of(parent)}", artifact))
    return rows
