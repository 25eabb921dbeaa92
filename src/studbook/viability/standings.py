"""How far each candidate came: gates, screen, comparisons and worth, and what stopped it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from studbook.records import Check, Scorecard, Standing, digest
from studbook.records.decisions import Action
from studbook.statistics import holm, mcnemar
from studbook.viability.comparisons import joint_gain, no_data, no_worse, superior, target, worst_skill
from studbook.viability.contenders import Baseline, Contender, Round
from studbook.viability.findings import Finding
from studbook.viability.gates import failed, gate_in_round, selection_gate
from studbook.viability.reserve import Spent
from studbook.viability.screening import Place, joint_mean, ranking
from studbook.viability.words import counted, percent, settle
from studbook.viability.worth import Worth, worth

__all__ = ["Judged", "Trial", "judge", "standing"]

# Checks of a selection scorecard that fail for what was measured, not for how.
_MERIT = ("pass-mark", "safety/", "drift/", "cost/")
NO_WORTH = Worth((), 0.0, ())


@dataclass(frozen=True)
class Trial:
    """What the selection suites said about one finalist.

    Attributes:
        checks: Whether its selection scorecard is evidence.
        findings: Every answered question, gating and shown.
        worth: Its net utility.
    """

    checks: tuple[Check, ...]
    findings: tuple[Finding, ...]
    worth: Worth


@dataclass(frozen=True)
class Judged:
    """A candidate with everything found out about it.

    Attributes:
        contender: The candidate.
        manifest: Digest of its manifest.
        gates: Hard gates.
        rank: Place on development items, from 1; 0 when it was not ranked.
        trial: What the selection suites said, for finalists.
        stopped: Why it never met the selection suites; empty for finalists.
    """

    contender: Contender
    manifest: str
    gates: tuple[Check, ...]
    rank: int
    trial: Trial | None
    stopped: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its name."""
        return self.contender.manifest.name

    @property
    def checks(self) -> tuple[Check, ...]:
        """Gates, and for a finalist the checks of its selection scorecard."""
        return (*self.gates, *(self.trial.checks if self.trial else ()))

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Every answered question."""
        return self.trial.findings if self.trial else ()

    @property
    def passed(self) -> bool:
        """Whether it met the selection suites and nothing stopped it."""
        return self.trial is not None and not self.reasons

    @property
    def reasons(self) -> tuple[str, ...]:
        """What stopped it, in the order of the rules; empty when nothing did."""
        broken = tuple(f"{check.name}: {check.detail}" for check in failed(self.checks))
        lost = tuple(f.words for f in self.findings if f.row.test != "shown" and not f.row.passed)
        return (*broken, *self.stopped, *lost)

    def finding(self, test: str, on: str) -> Finding | None:
        """The first answer to one kind of question, if it was asked and there was data."""
        return next((f for f in self.findings if f.row.test == test and f.row.on == on and f.row.items), None)


def judge(contenders: Sequence[Contender], circle: Round) -> tuple[Judged, ...]:
    """Steps 1 to 4 for every candidate, in the order given.

    Gates first; who passes is ranked on development items; the policy's number of finalists is tried on selection
    items, with Holm's correction over all of them.
    """
    gates = {
        digest(c.manifest): gate_in_round(c, circle.development, circle.cluster, circle.policy) for c in contenders
    }
    by_manifest = {digest(c.manifest): c for c in contenders}
    places = ranking([by_manifest[m] for m, g in gates.items() if not failed(g)], circle.development, circle.rules)
    finalists = [place.manifest for place in places[: circle.rules.gates.finalists]]
    calls = _calls(by_manifest.values(), (by_manifest[m] for m in finalists))
    spent = Spent(calls, circle.situation.openings, circle.situation.waiting)
    trials = _trials({m: by_manifest[m] for m in finalists}, circle, spent)
    ranks = {place.manifest: rank for rank, place in enumerate(places, start=1)}
    return tuple(
        Judged(
            contender=contender,
            manifest=manifest,
            gates=gates[manifest],
            rank=ranks.get(manifest, 0),
            trial=trials.get(manifest),
            stopped=()
            if manifest in trials or failed(gates[manifest])
            else _unranked(manifest, places, by_manifest, circle),
        )
        for manifest, contender in by_manifest.items()
    )


def _fallen(place: Place, contender: Contender, circle: Round) -> tuple[str, ...]:
    """Where it is worse than the champion by more than the margin on development items: the deepest fall."""
    if place.shortfalls == 0 or contender.development is None:
        return ()
    mine, theirs = contender.development.tasks(), circle.development.tasks()
    worst = min(circle.protected, key=lambda k: (settle(mine[k].mean - theirs[k].mean), k))
    return (
        f"worse than the champion on {counted(place.shortfalls, 'protected cluster')} of {len(circle.protected)}: "
        f"joint mean {percent(-place.loss)} against {percent(joint_mean(circle.development, circle.protected))}, deepest on "
        f"{worst}, {percent(mine[worst].mean)} against {percent(theirs[worst].mean)} (development items)",
    )


def _unranked(
    manifest: str, places: Sequence[Place], by_manifest: dict[str, Contender], circle: Round
) -> tuple[str, ...]:
    for rank, place in enumerate(places, start=1):
        if place.manifest == manifest:
            return (
                *_fallen(place, by_manifest[manifest], circle),
                f"place {rank} of {len(places)} on development items (joint mean {percent(-place.loss)}, "
                f"{counted(place.shortfalls, 'protected cluster')} below the margin); the policy lets "
                f"{counted(circle.rules.gates.finalists, 'finalist')} meet the selection suites",
            )
        if place.artifact == by_manifest[manifest].artifact:
            twin = by_manifest[place.manifest].manifest.name
            return (f"the same bytes as {twin} by another recipe; one of them is judged",)
    return ("not ranked on development items",)


def _calls(contenders: Iterable[Contender], finalists: Iterable[Contender]) -> int:
    """Model calls of everybody's development scorecard and the finalists' selection scorecards."""
    cards = (*(c.development for c in contenders), *(c.selection for c in finalists))
    return sum(result.actual_calls for card in cards if card for result in card.results)


def _trials(finalists: dict[str, Contender], circle: Round, spent: Spent) -> dict[str, Trial]:
    checks = {m: selection_gate(c, circle.selection, circle.cluster.label, circle.rules) for m, c in finalists.items()}
    usable = {m: c.selection for m, c in finalists.items() if c.selection and _comparable(checks[m])}
    p_values = [_p_value(usable.get(m), circle) for m in finalists]
    adjusted = dict(zip(finalists, holm(p_values), strict=True))
    out = {}
    for manifest, contender in finalists.items():
        card = usable.get(manifest)
        if card is None:
            out[manifest] = Trial(checks[manifest], (_untried(circle, checks[manifest]),), NO_WORTH)
        else:
            out[manifest] = _trial(
                contender, card, checks[manifest], circle, (adjusted[manifest], len(finalists)), spent
            )
    return out


def _comparable(checks: Sequence[Check]) -> bool:
    # A suite below its mark was measured, so its numbers are shown; a void scorecard has none.
    return all(check.name.startswith(_MERIT) for check in failed(checks))


def _p_value(card: Scorecard | None, circle: Round) -> float:
    if card is None:
        return 1.0
    pair = target(card, circle.selection, circle.cluster.label)
    return mcnemar(pair.wins, pair.losses)


def _untried(circle: Round, checks: Sequence[Check]) -> Finding:
    why = failed(checks)[0].detail
    return no_data("superiority", circle.champion, circle.cluster.label, circle.rules.gates.alpha, why)


def _trial(
    contender: Contender,
    card: Scorecard,
    checks: tuple[Check, ...],
    circle: Round,
    corrected: tuple[float, int],
    spent: Spent,
) -> Trial:
    policy, champion, label = circle.rules, circle.selection, circle.cluster.label
    value = worth(card, champion, contender.manifest.artifact.size, policy, spent)
    findings = [
        *no_worse(card, champion, policy),
        superior(
            target(card, champion, label),
            champion.artifact,
            label,
            policy.gates,
            *corrected,
            minimum=policy.gates.practical_minimum,
        ),
        *_against_parents(contender, card, circle),
        *value.findings,
    ]
    return Trial(checks, tuple(findings), value)


def _against_parents(contender: Contender, card: Scorecard, circle: Round) -> list[Finding]:
    policy, parents = circle.rules, list(circle.parents)
    known = {parent.artifact for parent in parents}
    if circle.champion in contender.template.parents and circle.champion not in known:
        parents.append(Baseline(circle.champion, "champion", circle.selection))
    findings = []
    for parent in parents:
        name = f"the parent {parent.name}"
        findings.append(joint_gain(card, parent.card, name, policy, "parent"))
        findings.append(worst_skill(card, parent.card, name, policy.protects(card.labels()), policy.gates.alpha))
    for absent in sorted(set(contender.template.parents) - known - {circle.champion}):
        findings.append(
            no_data("parent", absent, "joint-mean", 0.0, f"parent {absent} was not evaluated as a baseline")
        )
    return findings


def standing(judged: Judged, action: Action, reasons: Sequence[str], protected: Sequence[str]) -> Standing:
    """The record of one candidate.

    Args:
        judged: What was found out.
        action: What becomes of it.
        reasons: Why, in plain words.
        protected: Labels the joint mean is taken over.
    """
    contender, trial = judged.contender, judged.trial
    development, selection = contender.development, contender.selection if trial else None
    return Standing(
        manifest=judged.manifest,
        artifact=contender.artifact,
        name=judged.name,
        family=contender.manifest.family,
        gates=judged.checks,
        screen_rank=judged.rank,
        screen_mean=joint_mean(development, protected) if development and judged.rank else 0.0,
        development=digest(development) if development else None,
        selection=digest(selection) if selection else None,
        comparisons=tuple(finding.row for finding in judged.findings),
        utility=trial.worth.terms if trial else (),
        net_utility=trial.worth.net if trial else 0.0,
        action=action,
        reasons=tuple(reason[:4000] for reason in reasons),
    )
