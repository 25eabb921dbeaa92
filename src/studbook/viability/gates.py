"""Step 1, the hard gates: is this candidate what it says it is, was it bred as declared, and within the policy?

A failed check whose name begins with ``integrity/`` quarantines the candidate, any other archives it.
Every check is phrased positively, so that a value that is not a number fails it.
"""

from __future__ import annotations

from collections.abc import Iterable

from studbook.errors import RecordRefused
from studbook.policy import operator_refusals
from studbook.records import Check, FailureCluster, Policy, Record, Scorecard, digest
from studbook.viability.contenders import Contender
from studbook.viability.costs import cost_checks
from studbook.viability.dimensions import drift_checks, safety_checks
from studbook.viability.evidence import INTEGRITY, card_checks
from studbook.viability.words import counted, percent

__all__ = ["failed", "gate", "gate_in_round", "selection_gate", "tampered"]


# Its parents are a model and packages, which no report compares.
_FUSE = "adapter-fuse/1"


def gate(contender: Contender, champion_development: Scorecard, policy: Policy) -> tuple[Check, ...]:
    """Every hard gate of one candidate, one row each, in a fixed order.

    Args:
        contender: The candidate with its records; its selection scorecard is not looked at.
        champion_development: The champion's scorecard on development items.
        policy: The policy in force.
    """
    return (
        _purpose(contender),
        _family(contender),
        _bindings(contender, policy),
        _inputs(contender),
        _declared(contender),
        _operator(contender, policy),
        _isolation(contender.receipt.isolation, "breeding", policy),
        *_evaluated_in_isolation(contender.development, policy),
        _delta(contender),
        _mutation_budget(contender, policy),
        _resources(contender, policy),
        _licence(contender, policy),
        _compatibility(contender),
        _smoke(contender),
        _contamination(contender, champion_development),
        *card_checks(contender.development, contender.artifact, "development", champion_development),
        *(safety_checks(contender.development) if contender.development else ()),
        *_drifted(contender, contender.development, champion_development, policy),
        *(cost_checks(contender.development, champion_development, policy.gates) if contender.development else ()),
        _different(contender, champion_development),
    )


def gate_in_round(
    contender: Contender, champion_development: Scorecard, cluster: FailureCluster, policy: Policy
) -> tuple[Check, ...]:
    """`gate`, and that the candidate was bred for this failure cluster."""
    bred_for = contender.template.cluster == digest(cluster)
    row = _check(f"{INTEGRITY}cluster", bred_for, f"bred for failure cluster {cluster.label}")
    return (*gate(contender, champion_development, policy), row)


def selection_gate(contender: Contender, champion: Scorecard, label: str, policy: Policy) -> tuple[Check, ...]:
    """What a finalist's selection scorecard has to be before its numbers are compared.

    Args:
        contender: A finalist.
        champion: The champion's scorecard on selection items.
        label: The target cluster.
        policy: The policy in force.
    """
    card = contender.selection
    rows = card_checks(card, contender.artifact, "selection", champion)
    if card is None:
        return rows
    return (
        *rows,
        _isolation(card.isolation, "selection", policy),
        _pass_mark(card, {label, *policy.protects(card.labels())}),
        *safety_checks(card),
        *_drifted(contender, card, champion, policy),
        *cost_checks(card, champion, policy.gates),
    )


def failed(checks: Iterable[Check]) -> tuple[Check, ...]:
    """The checks that do not hold."""
    return tuple(check for check in checks if not check.passed)


def tampered(checks: Iterable[Check]) -> bool:
    """Whether a failed check is one of integrity."""
    return any(check.name.startswith(INTEGRITY) for check in failed(checks))


def _isolation(reached: Iterable[str], worker: str, policy: Policy) -> Check:
    """Whether a worker had every measure in force that the policy demands."""
    missing = sorted(set(policy.minimum_isolation) - set(reached))
    detail = f"{worker} worker without {', '.join(missing)}" if missing else f"{worker} worker held apart as demanded"
    return Check(name=f"{INTEGRITY}{worker}-isolation", passed=not missing, detail=detail)


def _drifted(c: Contender, card: Scorecard | None, champion: Scorecard, policy: Policy) -> tuple[Check, ...]:
    return () if card is None else drift_checks(c.drift, card, champion, policy.gates, policy.minimum_isolation)


def _check(name: str, passed: bool, detail: str) -> Check:
    return Check(name=name, passed=bool(passed), detail=detail if passed else f"does not hold: {detail}")


def _evaluated_in_isolation(card: Scorecard | None, policy: Policy) -> tuple[Check, ...]:
    return () if card is None else (_isolation(card.isolation, "development", policy),)


def _pass_mark(card: Scorecard, labels: set[str]) -> Check:
    gating = [
        r for r in card.results if r.dimension == "calibration" or (r.cluster in labels and r.dimension != "honesty")
    ]
    below = [f"{r.cluster} {percent(r.mean)}" for r in gating if r.verdict != "pass"]
    detail = f"does not hold: pass marks reached on {', '.join(below)}" if below else "every suite's pass mark reached"
    return Check(name="pass-mark", passed=not below, detail=detail)


def _purpose(c: Contender) -> Check:
    eligible = c.manifest.purpose == c.template.purpose == "candidate"
    detail = "offered as a candidate" if eligible else "an ablation explains another candidate and is never eligible"
    return Check(name="purpose", passed=eligible, detail=detail)


def _family(c: Contender) -> Check:
    tag = c.receipt.operator.get("operator")
    one = isinstance(tag, str) and tag != "" and not set(c.manifest.family) & set("+,;")
    return _check("family", one, f"one mutation family: {c.manifest.family} by {tag}")


def _bindings(c: Contender, policy: Policy) -> Check:
    template, receipt = _digest(c.template), _digest(c.receipt)
    pairs = {
        "manifest names another receipt": c.manifest.receipt == receipt,
        "manifest names another template": c.manifest.template == template,
        "receipt names another template": c.receipt.template == template,
        "receipt and manifest name different files": c.receipt.output == c.manifest.artifact,
        "receipt ran another operator than the template declared": c.receipt.operator == c.template.operator,
        "receipt followed another numeric contract": c.receipt.numeric_contract == c.template.numeric_contract,
        "template was declared under another policy": c.template.policy == digest(policy),
    }
    broken = [words for words, holds in pairs.items() if not holds]
    detail = "; ".join(broken) or "manifest, receipt, template and policy name each other"
    return Check(name=f"{INTEGRITY}bindings", passed=not broken, detail=detail)


def _digest(record: Record) -> str | None:
    try:
        return digest(record)
    except RecordRefused:  # a number in it is not one, so nothing can name it
        return None


def _inputs(c: Contender) -> Check:
    changed = [i.before for i in c.receipt.inputs if i.before != i.after]
    bases = {i.before for i in c.receipt.inputs if i.role == "base"}
    parents = tuple(i.before for i in c.receipt.inputs if i.role == "parent")
    declared = bases == {c.template.base} and parents == c.template.parents
    detail = f"inputs unchanged during the run: {', '.join(changed)}" if changed else "inputs are the declared ones"
    return _check(f"{INTEGRITY}inputs", declared and not changed, detail)


def _declared(c: Contender) -> Check:
    differing = failed(c.manifest.checks)
    detail = "; ".join(f"{check.name}: {check.detail}" for check in differing)[:1000]
    passed = bool(c.manifest.checks) and not differing
    return Check(
        name=f"{INTEGRITY}output", passed=passed, detail=detail or f"{len(c.manifest.checks)} checks of the output"
    )


def _operator(c: Contender, policy: Policy) -> Check:
    refusals = operator_refusals(policy, c.receipt.operator)
    detail = refusals[0] if refusals else f"{c.receipt.operator.get('operator')} is allowed with these parameters"
    return Check(name=f"{INTEGRITY}operator", passed=not refusals, detail=detail)


def _delta(c: Contender) -> Check:
    measured, declared = c.receipt.delta_norm, c.template.expected.delta_norm
    return _check(f"{INTEGRITY}delta", 0.0 <= measured <= declared, f"change {measured:.6g} <= declared {declared:.6g}")


def _mutation_budget(c: Contender, policy: Policy) -> Check:
    relative, cap = c.template.expected.relative_delta, policy.budget.relative_delta
    return _check("mutation-budget", 0.0 <= relative <= cap, f"relative change {relative:.4g} <= allowed {cap:.4g}")


def _resources(c: Contender, policy: Policy) -> Check:
    limits, budget = c.template.limits, policy.budget
    ceiling = min(policy.gates.maximum_bytes, budget.output_bytes)
    used = {
        f"file of {c.manifest.artifact.size:,} bytes <= {ceiling:,}": 1 <= c.manifest.artifact.size <= ceiling,
        f"{limits.seconds} processor seconds <= {budget.worker_seconds}": limits.seconds <= budget.worker_seconds,
        f"{limits.memory_bytes:,} bytes of memory <= {budget.worker_bytes:,}": (
            limits.memory_bytes <= budget.worker_bytes
        ),
    }
    broken = [words for words, holds in used.items() if not holds]
    return _check("resources", not broken, "; ".join(broken or used))


def _licence(c: Contender, policy: Policy) -> Check:
    listed = c.manifest.licence in {rule.spdx for rule in policy.licences}
    return _check("licence", listed, f"{c.manifest.licence} is in the policy's table")


def _compatibility(c: Contender) -> Check:
    count = len(c.template.parents)
    if c.template.operator.get("operator") == _FUSE:
        told = f"{count - 1} packages name the model they were made for by digest; the worker opens them over no other"
        return _check("compatibility", c.template.parents[:1] == (c.template.base,), told)
    passed = count == 1 or (count > 1 and c.template.compatibility is not None)
    return _check("compatibility", passed, f"a passing compatibility report stands behind {count} parents")


def _smoke(c: Contender) -> Check:
    if c.smoke is None:
        return Check(name="smoke", passed=False, detail="no runtime smoke: it was never shown to load and run")
    mine = c.smoke.artifact == c.artifact
    runs = mine and c.smoke.finite and c.smoke.deterministic and c.smoke.passed
    words = c.smoke.detail[:1000] if mine else f"the smoke is of {c.smoke.artifact}"
    return Check(name="smoke", passed=runs, detail=words)


def _contamination(c: Contender, champion_development: Scorecard) -> Check:
    """Whether nothing it was taught stands in a suite; a slice that was not compared is no data, and does not pass."""
    met = {r.suite for r in champion_development.results}
    for slice_ in c.slices:
        mine = [r for r in c.receipts if r.training == slice_ and met <= set(r.suites)]
        bad = [f"shares {r.shared} with the suites" for r in mine if not r.clean]
        if bad or not mine:
            why = bad[0] if bad else "was not compared with the suites"
            return _check("contamination", False, f"training slice {slice_[:12]}... {why}")
    told = f"nothing of {counted(len(c.slices), 'training slice')} stands in the suites"
    return _check("contamination", True, told if c.slices else "no training data on record to compare")


def _different(c: Contender, champion_development: Scorecard) -> Check:
    other = c.artifact != champion_development.artifact
    return Check(name="difference", passed=other, detail="not the champion" if other else "identical to the champion")
