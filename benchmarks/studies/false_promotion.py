"""How often does a round promote a candidate that is no better, and how often does it find one that is?

Each candidate disagrees with the champion on 14 % of the items. In the null scenario all ten are truly equal to the
champion; in the others one is truly 3.6 percentage points better, alone or among ten. Every round is judged by
`studbook.viability.decide` with all gates (screen on development items, three finalists, Holm, practical minimum, net
utility) on one protected suite, under two policies that differ in what a change is made to cost: the default one and a
costlier one. Both see the same rounds. Simpler rules are counted on the same items for contrast.

Run: python benchmarks/studies/false_promotion.py [--rounds 2400] [--out docs/proof]
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from simulated_round import ACCURACY, HEADER, LABEL, Court, answers, sha

from studbook.policy import default_policy
from studbook.records import Policy, ViabilityDecision, canonical, replace
from studbook.statistics import holm, mcnemar, paired_bounds, paired_counts, wilson

DISAGREEMENT, BETTER, SEED = 0.14, 0.036, 20260101
DEFAULT: Policy = default_policy(HEADER, protected=(LABEL,))
COSTLIER: Policy = replace(
    DEFAULT, utility=replace(DEFAULT.utility, weights_version="costlier", risk=0.0025, switching_threshold=0.005)
)
COURTS = {"default": Court(DEFAULT), "costlier": Court(COSTLIER)}
RULES = (
    "highest score",
    "McNemar, uncorrected",
    "McNemar, Holm over all",
    "finalists, Holm",
    "the whole decision, default policy",
    "the whole decision, costlier policy",
)
SWITCHING = (0.0, 0.001, 0.0015, 0.0025, 0.005, 0.0075)


class Scenario(NamedTuple):
    """One table: candidates, true gain of the first, items a suite of either role, and its share of the rounds."""

    candidates: int
    gain: float
    development: int
    selection: int
    share: float

    @property
    def name(self) -> str:
        """What the table shows."""
        items = f"{self.development:,} development and {self.selection:,} selection items"
        if not self.gain:
            return f"All {self.candidates} equal the champion: {items}"
        who = "The only candidate" if self.candidates == 1 else f"One of {self.candidates}"
        return f"{who} is truly {100 * self.gain:.1f} pp better: {items}"


SCENARIOS = (
    Scenario(10, 0.0, 1000, 1000, 1.0),
    Scenario(1, BETTER, 1000, 1000, 1.0),
    Scenario(10, BETTER, 1000, 1000, 0.5),
    Scenario(10, BETTER, 200, 1000, 0.25),
    Scenario(10, BETTER, 1000, 2000, 0.5),
)
DEMANDS = (
    ("false promotion of a whole round of ten", 0, "at most", 0.05),
    ("power, one candidate, n = 1,000", 1, "at least", 0.9),
    ("power, round of ten with finalists, n = 1,000", 2, "at least", 0.75),
    ("power, round of ten with finalists, n = 2,000", 4, "at least", 0.93),
)


class Outcome(NamedTuple):
    """The artifact each rule would promote, in the order of ``RULES``, and what failed for the better candidate."""

    chosen: tuple[str | None, ...]
    failed: dict[str, tuple[str, ...]]


def judge(random: np.random.Generator, scenario: Scenario, number: int) -> Outcome:
    """One round under both policies and by the simpler rules."""
    gains = [scenario.gain] + [0.0] * (scenario.candidates - 1)
    champion_dev, early = answers(random, scenario.development, gains, DISAGREEMENT)
    champion_sel, late = answers(random, scenario.selection, gains, DISAGREEMENT)
    # Digests settle ties, so names change from round to round.
    names = [f"{number}-{i}" for i in range(scenario.candidates)]
    pairs = list(zip(early, late, strict=True))
    decisions = {k: court.decide(names, (champion_dev, champion_sel), pairs) for k, court in COURTS.items()}
    naive = [None if i is None else sha(names[i]) for i in simpler_rules(champion_sel, late)]
    wholes = [decision.chosen for decision in decisions.values()]
    failed = {k: stopped(decision, sha(names[0]), COURTS[k].policy) for k, decision in decisions.items()}
    return Outcome((*naive, screened(decisions["default"]), *wholes), failed)


def simpler_rules(champion: str, candidates: Sequence[str]) -> tuple[int | None, ...]:
    """What three simpler rules would promote when all meet the selection suite: the best that passes."""
    pairs = [paired_counts(bits, champion) for bits in candidates]
    p_values = [mcnemar(pair.wins, pair.losses) for pair in pairs]
    order = sorted(range(len(pairs)), key=lambda i: -pairs[i].difference)
    rules: tuple[Callable[[int], bool], ...] = (
        lambda i: pairs[i].difference > 0,
        lambda i: p_values[i] <= DEFAULT.gates.alpha,
        lambda i: holm(p_values)[i] <= DEFAULT.gates.alpha,
    )
    return tuple(next((i for i in order if rule(i)), None) for rule in rules)


def screened(decision: ViabilityDecision) -> str | None:
    """The finalist with the largest gain whose superiority row holds, whatever else stopped it."""
    rows = [
        (c.difference, s.artifact)
        for s in decision.standings
        for c in s.comparisons
        if c.test == "superiority" and c.passed
    ]
    return max(rows, default=(0.0, None))[1]


def stopped(decision: ViabilityDecision, artifact: str, policy: Policy) -> tuple[str, ...]:
    """Every gate that the better candidate failed, as its standing records them; empty when it was chosen."""
    standing = next(s for s in decision.standings if s.artifact == artifact)
    if standing.selection is None:
        return ("screen",)
    failed = []
    for row in standing.comparisons:
        if row.passed or row.test == "shown":
            continue
        small = row.test == "superiority" and row.difference < policy.gates.practical_minimum
        failed.append("practical minimum" if small else row.on if row.test == "utility" else row.test)
    return tuple(failed) if failed or decision.chosen == artifact else ("another was worth more",)


def run(scenario: Scenario, rounds: int) -> dict[str, Any]:
    """Counts of one scenario: how often each rule promotes the better candidate, and one that is no better."""
    random = np.random.default_rng(
        [SEED, scenario.candidates, scenario.development, scenario.selection, round(scenario.gain * 1e6)]
    )
    right, wrong = [0] * len(RULES), [0] * len(RULES)
    gates: dict[str, Counter[str]] = {name: Counter() for name in COURTS}
    alone: dict[str, Counter[str]] = {name: Counter() for name in COURTS}
    for number in range(rounds):
        better = sha(f"{number}-0") if scenario.gain else None
        outcome = judge(random, scenario, number)
        for index, chosen in enumerate(outcome.chosen):
            right[index] += chosen is not None and chosen == better
            wrong[index] += chosen is not None and chosen != better
        for name, failed in outcome.failed.items():
            gates[name].update(failed)
            alone[name].update(failed if len(failed) == 1 else ())
    return {
        "scenario": scenario.name,
        "gain": scenario.gain,
        "rounds": rounds,
        "rules": [
            {"rule": rule, "promotes the better one": right[i], "promotes one that is no better": wrong[i]}
            for i, rule in enumerate(RULES)
        ],
        "gates": [
            {"gate": gate, "policy": name, "failed": gates[name][gate], "nothing else failed": alone[name][gate]}
            for name in COURTS
            for gate in sorted(gates[name])
            if scenario.gain
        ],
    }


def switching(items: int) -> list[dict[str, Any]]:
    """Exact power of one candidate by what a change has to be worth: no simulation, every (wins, losses) weighed.

    McNemar at alpha and at alpha / finalists (Holm's first step), the practical minimum, and a lower bound of the gain
    above risk + switching threshold.
    """
    gates, cells = DEFAULT.gates, []
    wins_rate, losses_rate = (DISAGREEMENT + BETTER) / 2, (DISAGREEMENT - BETTER) / 2
    for wins in range(items // 4):
        for losses in range(items // 4):
            log = _log_trinomial(wins, losses, items, wins_rate, losses_rate)
            if log > -40.0 and (wins - losses) / items >= gates.practical_minimum:
                lower = paired_bounds(wins, losses, items, gates.alpha).lower
                cells.append((math.exp(log), mcnemar(wins, losses), lower))
    levels = (gates.alpha, gates.alpha / gates.finalists)
    return [
        {
            "items": items,
            "cost": cost,
            "power": [sum(chance for chance, p, low in cells if p <= level and low > cost) for level in levels],
        }
        for cost in SWITCHING
    ]


def _log_trinomial(wins: int, losses: int, items: int, wins_rate: float, losses_rate: float) -> float:
    rest = items - wins - losses
    ways = math.lgamma(items + 1) - math.lgamma(wins + 1) - math.lgamma(losses + 1) - math.lgamma(rest + 1)
    odds = wins * math.log(wins_rate) + losses * math.log(losses_rate)
    return ways + odds + rest * math.log1p(-wins_rate - losses_rate)


def protection(draws: int) -> list[dict[str, Any]]:
    """How often a suite on which a candidate is truly equal passes non-inferiority, and how often seven do."""
    random = np.random.default_rng([SEED, 7])
    rows = []
    for items in (1000, 2000, 5000):
        for disagreement in (0.02, 0.05, 0.10, 0.14):
            half = disagreement / 2
            counts = random.multinomial(items, (half, half, 1 - disagreement), size=draws)
            bounds = [paired_bounds(int(w), int(x), items, DEFAULT.gates.alpha).lower for w, x, _ in counts]
            passed = sum(bound >= -DEFAULT.gates.margin for bound in bounds)
            rows.append({"items": items, "disagreement": disagreement, "draws": draws, "passed": passed})
    return rows


def share(part: int, whole: int) -> str:
    """A share in percent with its two-sided 95 % Wilson interval."""
    interval = wilson(part, whole, 0.025)
    return f"{100 * part / whole:.1f} % ({100 * interval.lower:.1f} to {100 * interval.upper:.1f})"


def costs(policy: Policy) -> str:
    """What a change is made to cost, in words."""
    utility = policy.utility
    return f"risk {100 * utility.risk:.2f} pp + switching threshold {100 * utility.switching_threshold:.2f} pp"


def accepted(studies: Sequence[dict[str, Any]]) -> list[str]:
    """The contract's four figures beside what each policy reaches; a figure that is not reached says so."""
    lines = ["", "## What is demanded, under one policy at a time", ""]
    lines += ["| figure | demanded | default policy | | costlier policy | |", "|---|---|---:|---|---:|---|"]
    for words, place, sense, limit in DEMANDS:
        study, cells = studies[place], []
        key = "promotes one that is no better" if sense == "at most" else "promotes the better one"
        for row in study["rules"][-2:]:
            found = row[key] / study["rounds"]
            holds = found <= limit if sense == "at most" else found >= limit
            cells += [share(row[key], study["rounds"]), "holds" if holds else "**does not hold**"]
        lines.append(f"| {words} | {sense} {100 * limit:.0f} % | {' | '.join(cells)} |")
    return lines


def gate_table(study: dict[str, Any]) -> list[str]:
    """Which gates the better candidate failed, and which one alone kept it out."""
    lines = ["", "| the better one failed | policy | rounds | and nothing else |", "|---|---|---:|---:|"]
    for row in study["gates"]:
        alone = share(row["nothing else failed"], study["rounds"])
        lines.append(f"| {row['gate']} | {row['policy']} | {share(row['failed'], study['rounds'])} | {alone} |")
    return lines


def switching_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Exact power by the cost of a change."""
    first = [row for row in rows if row["items"] == rows[0]["items"]]
    free = max(row["cost"] for row in first if row["power"][0] >= first[0]["power"][0] - 0.0005)
    enough = max((row["cost"] for row in first if row["power"][0] >= DEMANDS[1][3]), default=math.nan)
    lines = ["", "## What the cost of a change costs", ""]
    lines += [
        "Net utility has to exceed the switching threshold, so for a file of equal size and work the lower bound of the "
        f"gain has to exceed risk + switching threshold. Exact power for a true gain of {100 * BETTER:.1f} pp, every "
        "outcome weighed: once with McNemar at alpha (one candidate), once at alpha / "
        f"{DEFAULT.gates.finalists} (Holm's first step with that many finalists, after the screen). At n = "
        f"{rows[0]['items']:,} and one candidate a sum of {100 * free:.2f} pp costs nothing, because McNemar's exact test "
        f"demands as much, and up to {100 * enough:.2f} pp leave the demanded power; the default policy's sum is "
        f"{100 * (DEFAULT.utility.risk + DEFAULT.utility.switching_threshold):.2f} pp, the costlier one's "
        f"{100 * (COSTLIER.utility.risk + COSTLIER.utility.switching_threshold):.2f} pp.",
        "",
        "| items | risk + switching threshold | one candidate | finalist |",
        "|---:|---:|---:|---:|",
    ]
    for row in rows:
        one, finalist = row["power"]
        lines.append(f"| {row['items']:,} | {100 * row['cost']:.2f} pp | {100 * one:.1f} % | {100 * finalist:.1f} % |")
    return lines


def report(found: dict[str, Any]) -> str:
    """The tables as Markdown."""
    lines = [
        "# False promotion and power of one round",
        "",
        "Written by `benchmarks/studies/false_promotion.py`; simulated, not measured on a model. True accuracy of the "
        f"champion {ACCURACY}, {100 * DISAGREEMENT:.0f} % of the items discordant, one protected suite, alpha "
        f"{DEFAULT.gates.alpha}, {DEFAULT.gates.finalists} finalists. Intervals are two-sided 95 % (Wilson). Rules from "
        "*finalists* on are read from the record that `decide` returns; confirmation on sealed suites comes after it "
        f"and is not part of these figures. Default policy: {costs(DEFAULT)}; costlier policy: {costs(COSTLIER)}, "
        "everything else equal.",
    ]
    lines += accepted(found["rounds"])
    for study in found["rounds"]:
        lines += ["", f"## {study['scenario']} ({study['rounds']:,} rounds)", ""]
        lines += ["| rule | promotes the better one | promotes one that is no better |", "|---|---:|---:|"]
        for row in study["rules"]:
            rounds = study["rounds"]
            right = share(row["promotes the better one"], rounds) if study["gain"] else "none exists"
            lines.append(f"| {row['rule']} | {right} | {share(row['promotes one that is no better'], rounds)} |")
        lines += gate_table(study) if study["gain"] else []
    return "\n".join([*lines, *switching_table(found["switching"]), *protection_table(found["protection"])]) + "\n"


def protection_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What non-inferiority on every suite costs a candidate that is equal there."""
    lines = ["", "## The price of protection", ""]
    lines += [
        f"How often a candidate that is truly equal to the champion on a suite passes non-inferiority there (margin "
        f"{100 * DEFAULT.gates.margin:.0f} pp), and on seven such suites at once. A suite with too few items for its "
        "disagreement stops good candidates; ones that are inferior by the whole margin pass in about 5 % of the rounds.",
        "",
        "| items | discordant | one suite | seven suites |",
        "|---:|---:|---:|---:|",
    ]
    for row in rows:
        one = row["passed"] / row["draws"]
        lines.append(
            f"| {row['items']:,} | {100 * row['disagreement']:.0f} % | {share(row['passed'], row['draws'])} | "
            f"{100 * one**7:.0f} % |"
        )
    return lines


def main() -> None:
    """Run the study, print its tables and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2400, help="rounds of the first scenario (default 2400)")
    parser.add_argument("--out", type=Path, default=Path("docs/proof"), help="folder for the tables")
    told = parser.parse_args()
    studies = []
    for scenario in SCENARIOS:
        rounds = max(1, round(told.rounds * scenario.share))
        print(f"{scenario.name}: {rounds} rounds ...", flush=True)
        studies.append(run(scenario, rounds))
    exact = [row for items in (1000, 2000) for row in switching(items)]
    found = {"rounds": studies, "switching": exact, "protection": protection(2000), "seed": SEED}
    words = report(found)
    print(words)
    told.out.mkdir(parents=True, exist_ok=True)
    (told.out / "false_promotion.md").write_text(words, encoding="utf-8")
    (told.out / "false_promotion.json").write_bytes(canonical(found) + b"\n")


if __name__ == "__main__":
    main()
