"""What the evidence says, held against the model it lies beside: checksums can be right although the records are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from studbook.assembly.manifests import eval_case, fault_in_line, scores
from studbook.assembly.plan import BROWSER
from studbook.assembly.rules import Drift, Refusal
from studbook.records import (
    AdapterFamilyReceipt,
    AdapterManifest,
    AdapterSource,
    AdmissionRecord,
    AssemblyReceipt,
    BrowserSmoke,
    CandidateManifest,
    ChampionPromotion,
    LedgerEvidence,
    LineageTemplate,
    ModelManifest,
    ModulePlan,
    OperatorReceipt,
    ParentPool,
    PopulationReview,
    PromotionTemplate,
    Record,
    ReleaseRecord,
    RollbackRecord,
    RuntimeSmoke,
    Scorecard,
    SourceManifest,
    ViabilityDecision,
    digest,
)
from studbook.records.decisions import Standing
from studbook.records.manifests import LineageNode

__all__ = ["Case", "check_browser", "check_case", "check_meaning", "kinds_of", "names_line", "refuse"]

_QUANTISE = "quantise/1"
_MOVES = (ReleaseRecord, ChampionPromotion, RollbackRecord)
_KINDS: dict[str, tuple[type[Record], ...]] = {
    "ledger": (LedgerEvidence,),
    "review": (PopulationReview,),
    "recipe": (ParentPool,),
    "operator-receipt": (OperatorReceipt,),
    "candidate": (CandidateManifest,),
    "template": (LineageTemplate,),
    "promotion": (PromotionTemplate,),
    "admission": (AdmissionRecord,),
    "promotion-champion": (PromotionTemplate,),
    "move": _MOVES,
    "smoke": (RuntimeSmoke,),
    "evaluation": (Scorecard,),
    "decision": (ViabilityDecision,),
    BROWSER: (BrowserSmoke,),
}
Facts = Iterator[tuple[str, object, object]]


class Case(NamedTuple):
    """Everything that the evidence of a bundle is held against.

    Attributes:
        plan: The plan.
        receipt: The assembly receipt.
        model: The model's manifest.
        adapters: Those of the packages, in order.
        family: The receipt of the stack; None without packages.
        records: Role -> record of every evidence file.
        digests: Role -> digest of it.
    """

    plan: ModulePlan
    receipt: AssemblyReceipt
    model: ModelManifest
    adapters: tuple[AdapterManifest, ...]
    family: AdapterFamilyReceipt | None
    records: Mapping[str, Any]
    digests: Mapping[str, str]


def kinds_of(role: str) -> tuple[type[Record], ...]:
    """The kinds of record that evidence of a role may be."""
    return _KINDS.get(role, (SourceManifest,))


def names_line(pool: ParentPool, line: Sequence[LineageNode]) -> bool:
    """Whether a parent-pool recipe is of a model's line: it names the model, or every source model it descends from.

    Args:
        pool: The recipe.
        line: The model first, then everything it descends from.
    """
    named = {pool.base, *(member.artifact for member in pool.members)}
    sources = {node.digest for node in line if node.kind == "source"}
    return line[0].digest in named or (bool(sources) and sources <= named)


def check_meaning(case: Case) -> None:
    """Hold every record against the model, and against the records it has to go with.

    Raises:
        Drift: ``evidence.meaning``, naming the file and the field.
    """
    for role, facts in _FACTS.items():
        if role in case.records:
            for field, found, wanted in facts(case):
                if found != wanted:
                    refuse("evidence.meaning", f"{field} is {_told(found)}; it has to be {_told(wanted)}", role)
    for order, adapter in enumerate(case.adapters, 1):
        for field, found, wanted in _source(case, adapter, f"adapter-{order}-source"):
            if found != wanted:
                refuse("evidence.meaning", f"{field} is not that of the package", f"adapter-{order}-source")


def check_case(case: Case) -> None:
    """Hold the suites and items of the scorecard against the plan's eval case.

    Raises:
        Drift: ``evidence.case``.
    """
    card: Scorecard = case.records["evaluation"]
    if any(r.items_before != r.items_after for r in card.results):
        refuse("evidence.case", "items of a suite changed while it was scored", "evaluation")
    if eval_case(card) != case.plan.eval_case:
        refuse("evidence.case", "was scored on other suites or items than plan and receipt say", "evaluation")


def check_browser(case: Case, unsmoked: str) -> None:
    """Hold a BrowserSmoke against plan and receipts.

    Args:
        case: The bundle.
        unsmoked: Digest of the plan of the same bundle without it.

    Raises:
        Drift: ``evidence.browser``.
    """
    smoke: BrowserSmoke | None = case.records.get(BROWSER)
    if smoke is None:
        return
    facts: dict[str, tuple[object, object]] = {
        "passed": (smoke.passed, True),
        "plan": ((smoke.plan, case.plan.unsmoked), (unsmoked, unsmoked)),
        "page_build": (smoke.page_build, case.plan.page.build),
        "engine": (smoke.engine, case.plan.execution.engine),
        "model": (smoke.model, case.model.artifact.sha256),
        "logits": (smoke.logits, case.family.logits if case.family else case.model.logits),
        "state_sha256": (smoke.state_sha256, case.receipt.state_sha256),
        "requests": (smoke.requests >= case.plan.fetch.count, True),
    }
    for field, (found, wanted) in facts.items():
        if found != wanted:
            refuse("evidence.browser", f"{field} is not that of this bundle", BROWSER)


def refuse(reason: str, detail: str, role: str) -> NoReturn:
    """Refuse a bundle for what one of its records says.

    Raises:
        Drift: always, at the step evidence.
    """
    raise Drift(Refusal("evidence", reason, detail, f"evidence-{role}"))


def _told(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


# -- one question a role -----------------------------------------------------------------------------------------


def _review(case: Case) -> Facts:
    named = {one.artifact for one in case.records["review"].residents}
    yield "residents: the model", case.model.artifact.sha256 in named, True


def _recipe(case: Case) -> Facts:
    yield "members: the model's line", names_line(case.records["recipe"], case.model.lineage), True


def _receipt(case: Case) -> Facts:
    receipt: OperatorReceipt = case.records["operator-receipt"]
    yield "output", receipt.output, case.model.artifact
    yield "template", receipt.template, case.digests["template"]
    declared: LineageTemplate = case.records["template"]
    yield "operator", digest(receipt.operator), digest(declared.operator)
    yield "numeric_contract", receipt.numeric_contract, declared.numeric_contract
    parents = [declared.base, *declared.parents]
    yield "inputs", [(i.before, i.after) for i in receipt.inputs], [(d, d) for d in parents]


def _candidate(case: Case) -> Facts:
    own: CandidateManifest = case.records["candidate"]
    yield "artifact", own.artifact, case.model.artifact
    yield "purpose", own.purpose, "candidate"
    yield "template", own.template, case.digests["template"]
    yield "receipt", own.receipt, case.digests["operator-receipt"]
    yield "checks", all(check.passed for check in own.checks), True
    shown = case.model
    yield "name", shown.name, own.name
    yield "licence", shown.licence, own.licence
    yield "fallback", shown.fallback, own.fallback
    yield "unsupported", shown.unsupported, own.unsupported
    yield "trade_offs", shown.trade_offs, own.trade_offs


def _template(case: Case) -> Facts:
    own: LineageTemplate = case.records["template"]
    yield "purpose", own.purpose, "candidate"
    expected = own.expected
    yield "expected.size_bytes", expected.size_bytes, case.model.artifact.size
    yield "expected.tokenizer_sha256", expected.tokenizer_sha256, case.model.tokenizer_sha256
    yield "expected.layout_sha256", expected.layout_sha256, case.model.layout_sha256
    yield "expected.label", expected.label, case.model.storage
    quantised = own.operator.get("operator") == _QUANTISE
    # The base of a template is what its change is measured from; a build is made of its one parent.
    yield "base of the build", case.model.base, own.parents[0] if quantised and own.parents else None
    wanted = case.digests["operator-receipt"] if quantised else None
    yield "receipt of the build", case.model.quantise_receipt, wanted
    first = case.model.lineage[0] if case.model.lineage else None
    yield "lineage", first.digest if first else None, case.model.artifact.sha256
    yield "lineage: parents", first.parents if first else (), tuple(dict.fromkeys((own.base, *own.parents)))
    yield "lineage: operator", first.operator if first else None, own.operator.get("operator")
    yield "lineage: name", first.name if first else None, case.model.name
    yield "lineage: fault", fault_in_line(case.model.lineage), None


def _promotion(case: Case) -> Facts:
    own: PromotionTemplate = case.records["promotion"]
    yield "stage", own.stage, "shadow"
    yield from _passed(case, own)


def _promotion_champion(case: Case) -> Facts:
    own: PromotionTemplate = case.records["promotion-champion"]
    yield "stage", own.stage, "champion"
    yield from _passed(case, own)


def _passed(case: Case, own: PromotionTemplate) -> Facts:
    yield "artifact", own.artifact, case.model.artifact.sha256
    yield "open gates", [gate.name for gate in own.open_gates], []
    yield "gates", bool(own.gates), True
    yield "manifest", own.manifest, case.digests["candidate"]
    yield "decision", own.decision, case.digests["decision"]


def _admission(case: Case) -> Facts:
    own: AdmissionRecord = case.records["admission"]
    yield "artifact", own.artifact, case.model.artifact.sha256
    yield "template", own.template, case.digests["promotion"]
    yield "claim", case.model.claim, own.claim


def _move(case: Case) -> Facts:
    own = case.records["move"]
    yield "artifact", own.artifact, case.model.artifact.sha256
    if isinstance(own, ChampionPromotion):
        yield "channel", "champion", case.receipt.channel
        yield "basis", own.basis, "promotion"
        yield "evidence", own.evidence, case.digests.get("promotion-champion")
        return
    yield "channel", own.channel, case.receipt.channel
    yield "promotion-champion", "promotion-champion" in case.digests, False
    if isinstance(own, ReleaseRecord):
        yield "admission", own.admission, case.digests["admission"]


def _smoke(case: Case) -> Facts:
    own: RuntimeSmoke = case.records["smoke"]
    yield "engine", own.engine, case.plan.execution.engine
    yield "logits", own.logits, case.model.logits
    yield "artifact", own.artifact, case.model.artifact.sha256
    yield "passed", (own.passed, own.finite, own.deterministic), (True, True, True)


def _evaluation(case: Case) -> Facts:
    own: Scorecard = case.records["evaluation"]
    yield "artifact", own.artifact, case.model.artifact.sha256
    yield "role", case.model.role, own.role
    again = [(s.label, s.dimension, s.right, s.items) for s in scores(own, None)]
    yield "scores shown", [(s.label, s.dimension, s.right, s.items) for s in case.model.scores], again
    yield "calls", [r.actual_calls for r in own.results], [r.expected_calls for r in own.results]


def _decision(case: Case) -> Facts:
    own: ViabilityDecision = case.records["decision"]
    yield "action", own.action, "promote-to-shadow"
    yield "chosen", own.chosen, case.model.artifact.sha256
    cited = {d for s in own.standings if s.artifact == own.chosen for d in (s.development, s.selection)}
    yield "standings: scorecard", case.digests["evaluation"] in cited, True
    named = (own.chosen, case.digests["candidate"])
    chosen = next((s for s in own.standings if (s.artifact, s.manifest) == named), None)
    yield "standings: manifest", chosen is not None, True
    if chosen is not None:
        yield "standings: action", chosen.action, own.action
        shown = [score.champion_right for score in case.model.scores]
        yield "champion shown", _champions_right(case, chosen, own.champion), shown


def _champions_right(case: Case, chosen: Standing, champion: str) -> list[int | None]:
    """The champion's right answers, which follow from the paired comparisons; what was not compared so, as it is shown."""
    paired = {
        (c.on, c.items): c.losses - c.wins
        for c in chosen.comparisons
        if (c.test, c.against) == ("non-inferiority", champion) and case.digests["evaluation"] in c.scorecards
    }
    return [
        score.right + paired[score.label, score.items]
        if score.dimension == "task" and (score.label, score.items) in paired
        else score.champion_right
        for score in case.model.scores
    ]


def _source(case: Case, adapter: AdapterManifest, role: str) -> Facts:
    source = case.records[role].source
    yield "form", isinstance(source, AdapterSource), True
    if isinstance(source, AdapterSource):
        yield "adapter_sha256", source.adapter_sha256, adapter.artifact.sha256
        yield "package", source.package, adapter.package
        yield "base", source.base, adapter.base
        yield "tokenizer_sha256", source.tokenizer_sha256, adapter.tokenizer_sha256
        yield "source", adapter.source, case.digests[role]
        yield "unsupported", adapter.unsupported, case.records[role].unsupported


_FACTS: dict[str, Callable[[Case], Facts]] = {
    "review": _review,
    "recipe": _recipe,
    "operator-receipt": _receipt,
    "candidate": _candidate,
    "template": _template,
    "promotion": _promotion,
    "admission": _admission,
    "promotion-champion": _promotion_champion,
    "move": _move,
    "smoke": _smoke,
    "evaluation": _evaluation,
    "decision": _decision,
}
