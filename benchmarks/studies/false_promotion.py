"""How often does a round promote a candidate that is no better, and how often does it find one that is?

Ten candidates a round; each disagrees with the champion on 14 % of the items. In the null scenario all ten are truly
equal to the champion, in the others one of them is truly 3.6 percentage points better. Every round is judged by
`studbook.viability.decide` with the gates of the default policy (screen on development items, three finalists, Holm,
net utility), on one protected suite. Simpler rules are counted on the same items for contrast.

Run: python benchmarks/studies/false_promotion.py [--rounds 600] [--out docs/proof]
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from studbook.policy import default_policy
from studbook.records import (
    Agreement,
    Blob,
    CandidateManifest,
    Check,
    Expected,
    FailureCluster,
    Header,
    InputDigest,
    LineageTemplate,
    Measure,
    OperatorReceipt,
    Policy,
    Rung,
    RuntimeSmoke,
    Scorecard,
    SuiteResult,
    SuitesLock,
    ViabilityDecision,
    WorkerLimits,
    canonical,
    digest,
    replace,
)
from studbook.records.evaluation import Role
from studbook.statistics import holm, mcnemar, paired_bounds, paired_counts, wilson
from studbook.viability import Contender, decide

HEADER = Header(source="studbook", version="0.1.0", environment="simulation", owner="study")
ACCURACY, DISAGREEMENT, CANDIDATES, BETTER, SEED = 0.638, 0.14, 10, 0.036, 20260101
LABEL = "target"
RULES = (
    "highest score of ten",
    "McNemar on ten, uncorrected",
    "McNemar on ten, Holm",
    "three finalists, Holm",
    "the whole decision",
)


class Scenario(NamedTuple):
    """One table: true gain of the first candidate, items a suite of either role, and its share of the rounds."""

    gain: float
    development: int
    selection: int
    share: float

    @property
    def name(self) -> str:
        """What the table shows."""
        who = f"One of ten is truly {100 * self.gain:.1f} pp better" if self.gain else "All ten equal the champion"
        return f"{who}: {self.development:,} development and {self.selection:,} selection items"


SCENARIOS = (
    Scenario(0.0, 1000, 1000, 1.0),
    Scenario(BETTER, 1000, 1000, 0.5),
    Scenario(BETTER, 200, 1000, 0.5),
    Scenario(BETTER, 1000, 2000, 0.25),
)


def sha(text: str) -> str:
    """A digest that stands for something the study does not need."""
    return hashlib.sha256(text.encode()).hexdigest()


CHAMPION, EVALUATOR = sha("champion"), sha("evaluator")
POLICY: Policy = default_policy(HEADER, protected=(LABEL,))
CLUSTER = FailureCluster(
    header=HEADER,
    label=LABEL,
    champion=CHAMPION,
    evidence=sha("evidence"),
    failed=1,
    of=3,
    data=sha("data"),
    training_slice=sha("slice"),
    suites=(),
    contamination=sha("contamination"),
)
SUITES = SuitesLock(
    header=HEADER,
    lock_version=1,
    suites=tuple(sha(f"{role} {kind}") for role in ("development", "selection") for kind in (LABEL, "calibration")),
)
COST = tuple(
    Measure(value=1e6, unit=unit, basis="observed", method="simulated")
    for unit in ("bytes", "decoded-bytes", "multiply-adds")
)

TEMPLATE = LineageTemplate(
    header=HEADER,
    purpose="candidate",
    cluster=digest(CLUSTER),
    policy=digest(POLICY),
    compatibility=None,
    base=CHAMPION,
    parents=(CHAMPION,),
    operator={"operator": "mutation/1", "strength": 0.01},
    recipe_sha256=sha("recipe"),
    numeric_contract=sha("contract"),
    limits=WorkerLimits(seconds=1, memory_bytes=1, output_bytes=1),
    expected=Expected(
        layout_sha256=sha("layout"),
        tokenizer_sha256=sha("tokenizer"),
        label="f32",
        size_bytes=1_000_000,
        delta_norm=1.0,
        relative_delta=0.1,
    ),
)
RECEIPT = OperatorReceipt(
    header=HEADER,
    template=digest(TEMPLATE),
    operator=TEMPLATE.operator,
    inputs=tuple(InputDigest(role=role, before=CHAMPION, after=CHAMPION) for role in ("base", "parent")),
    numeric_contract=TEMPLATE.numeric_contract,
    isolation=POLICY.minimum_isolation,
    output=Blob(sha256=CHAMPION, size=1_000_000),
    delta_norm=1.0,
    reproducibility="exact",
)
MANIFEST = CandidateManifest(
    header=HEADER,
    name="candidate",
    artifact=RECEIPT.output,
    family="mutation",
    purpose="candidate",
    template=digest(TEMPLATE),
    receipt=digest(RECEIPT),
    checks=(Check(name="layout", passed=True, detail="equal"),),
    licence="CC0-1.0",
    data=(),
    claim=Rung.STRUCTURAL,
    unsupported=(),
    trade_offs=(),
    fallback=CHAMPION,
)
SMOKE = RuntimeSmoke(
    header=HEADER,
    artifact=CHAMPION,
    evaluator=EVALUATOR,
    prompts=sha("prompts"),
    outputs_sha256=sha("outputs"),
    tokens=1,
    finite=True,
    deterministic=True,
    passed=True,
    detail="simulated",
)


def result(role: Role, kind: str, bits: str) -> SuiteResult:
    """One suite's results; the scores beside the bits carry nothing."""
    n = len(bits)
    return SuiteResult(
        suite=sha(f"{role} {kind}"),
        cluster=kind,
        dimension="task" if kind == LABEL else "calibration",
        items_before=sha(f"items {role} {kind}"),
        items_after=sha(f"items {role} {kind}"),
        expected_calls=n,
        actual_calls=n,
        correct=bits,
        loglik_micro=" ".join(["0"] * n),
        brier_micro=" ".join(["0"] * n),
        verdict="pass",
        detail="",
    )


def card(artifact: str, role: Role, bits: str) -> Scorecard:
    """A scorecard with one task suite, and two items of calibration."""
    return Scorecard(
        header=HEADER,
        artifact=artifact,
        role=role,
        evaluator=EVALUATOR,
        mode="score",
        agreement=Agreement(sampled=1, agreed=1),
        results=(result(role, LABEL, bits), result(role, "calibration", "11")),
        cost=COST,
        isolation=POLICY.minimum_isolation,
    )


def contender(name: str, development: str, selection: str) -> Contender:
    """A candidate without a flaw in its papers: only its answers differ."""
    file = Blob(sha256=sha(name), size=1_000_000)
    receipt = replace(RECEIPT, output=file)
    return Contender(
        manifest=replace(MANIFEST, name=name, artifact=file, receipt=digest(receipt)),
        smoke=replace(SMOKE, artifact=file.sha256),
        receipt=receipt,
        template=TEMPLATE,
        development=card(file.sha256, "development", development),
        selection=card(file.sha256, "selection", selection),
    )


def answers(random: np.random.Generator, items: int, gain: float) -> tuple[str, list[str]]:
    """Results of the champion and of ten candidates on one suite; only the first has the gain.

    A candidate wins an item the champion misses, or loses one it has, so that the share of discordant items is 14 %
    and its true difference is the gain.
    """
    champion = random.random(items) < ACCURACY
    candidates = []
    for index in range(CANDIDATES):
        true_gain = gain if index == 0 else 0.0
        loses = (DISAGREEMENT - true_gain) / 2 / ACCURACY
        wins = (DISAGREEMENT + true_gain) / 2 / (1 - ACCURACY)
        flipped = random.random(items) < np.where(champion, loses, wins)
        candidates.append(text(champion ^ flipped))
    return text(champion), candidates


def text(bits: np.ndarray[Any, np.dtype[np.bool_]]) -> str:
    """Results as a string of 0 and 1."""
    return "".join("1" if bit else "0" for bit in bits)


def judge(random: np.random.Generator, scenario: Scenario, number: int) -> tuple[str | None, ...]:
    """The artifact each rule would promote in one round, in the order of ``RULES``."""
    champion_dev, early = answers(random, scenario.development, scenario.gain)
    champion_sel, late = answers(random, scenario.selection, scenario.gain)
    # Digests settle ties, so names change from round to round.
    field = [contender(f"{number}-{i}", early[i], late[i]) for i in range(CANDIDATES)]
    decision = decide(
        header=HEADER,
        policy=POLICY,
        cluster=CLUSTER,
        suites=SUITES,
        contenders=field,
        champion_development=card(CHAMPION, "development", champion_dev),
        champion_selection=card(CHAMPION, "selection", champion_sel),
        parents=(),
        excluded=(),
    )
    naive = simpler_rules(champion_sel, late)
    return (*(None if i is None else field[i].artifact for i in naive), screened(decision), decision.chosen)


def simpler_rules(champion: str, candidates: Sequence[str]) -> tuple[int | None, ...]:
    """What three simpler rules would promote when all ten meet the selection suite: the best that passes."""
    pairs = [paired_counts(bits, champion) for bits in candidates]
    p_values = [mcnemar(pair.wins, pair.losses) for pair in pairs]
    order = sorted(range(len(pairs)), key=lambda i: -pairs[i].difference)
    rules: tuple[Callable[[int], bool], ...] = (
        lambda i: pairs[i].difference > 0,
        lambda i: p_values[i] <= POLICY.gates.alpha,
        lambda i: holm(p_values)[i] <= POLICY.gates.alpha,
    )
    return tuple(next((i for i in order if rule(i)), None) for rule in rules)


def screened(decision: ViabilityDecision) -> str | None:
    """The finalist with the largest gain whose superiority row holds, whatever else stopped it."""
    rows = [(c.difference, s.artifact) for s in decision.standings for c in s.comparisons if c.test == "superiority"]
    holds = {s.artifact for s in decision.standings for c in s.comparisons if c.test == "superiority" and c.passed}
    return max((row for row in rows if row[1] in holds), default=(0.0, None))[1]


def run(scenario: Scenario, rounds: int) -> dict[str, Any]:
    """Counts of one scenario: how often each rule promotes the better candidate, and one that is no better."""
    random = np.random.default_rng([SEED, scenario.development, scenario.selection, round(scenario.gain * 1e6)])
    right, wrong = [0] * len(RULES), [0] * len(RULES)
    for number in range(rounds):
        better = sha(f"{number}-0") if scenario.gain else None
        for index, chosen in enumerate(judge(random, scenario, number)):
            right[index] += chosen is not None and chosen == better
            wrong[index] += chosen is not None and chosen != better
    return {
        "scenario": scenario.name,
        "gain": scenario.gain,
        "rounds": rounds,
        "rules": [
            {"rule": rule, "promotes the better one": right[i], "promotes one that is no better": wrong[i]}
            for i, rule in enumerate(RULES)
        ],
    }


def protection(draws: int) -> list[dict[str, Any]]:
    """How often a suite on which a candidate is truly equal passes non-inferiority, and how often seven do."""
    random = np.random.default_rng([SEED, 7])
    rows = []
    for items in (1000, 2000, 5000):
        for disagreement in (0.02, 0.05, 0.10, 0.14):
            half = disagreement / 2
            counts = random.multinomial(items, (half, half, 1 - disagreement), size=draws)
            bounds = [paired_bounds(int(w), int(x), items, POLICY.gates.alpha).lower for w, x, _ in counts]
            passed = sum(bound >= -POLICY.gates.margin for bound in bounds)
            rows.append({"items": items, "disagreement": disagreement, "draws": draws, "passed": passed})
    return rows


def share(part: int, whole: int) -> str:
    """A share in percent with its two-sided 95 % Wilson interval."""
    interval = wilson(part, whole, 0.025)
    return f"{100 * part / whole:.1f} % ({100 * interval.lower:.1f} to {100 * interval.upper:.1f})"


def report(studies: Sequence[dict[str, Any]], protected: Sequence[dict[str, Any]]) -> str:
    """The tables as Markdown."""
    lines = [
        "# False promotion and power of one round",
        "",
        "Written by `benchmarks/studies/false_promotion.py`; simulated, not measured on a model. Ten candidates a round, "
        f"true accuracy of the champion {ACCURACY}, {100 * DISAGREEMENT:.0f} % of the items discordant, default policy, "
        "one protected suite. Intervals are two-sided 95 % (Wilson). "
        "The last two rules are read from the record that `decide` returns; confirmation on sealed suites comes after "
        "it and is not part of these figures.",
    ]
    for study in studies:
        lines += ["", f"## {study['scenario']} ({study['rounds']} rounds)", ""]
        lines += ["| rule | promotes the better one | promotes one that is no better |", "|---|---:|---:|"]
        for row in study["rules"]:
            rounds = study["rounds"]
            found = share(row["promotes the better one"], rounds) if study["gain"] else "none exists"
            lines.append(f"| {row['rule']} | {found} | {share(row['promotes one that is no better'], rounds)} |")
    lines += ["", "## The price of protection", ""]
    lines += [
        f"How often a candidate that is truly equal to the champion on a suite passes non-inferiority there (margin "
        f"{100 * POLICY.gates.margin:.0f} pp), and on seven such suites at once. A suite with too few items for its "
        "disagreement stops good candidates; ones that are inferior by the whole margin pass in about 5 % of the rounds.",
        "",
        "| items | discordant | one suite | seven suites |",
        "|---:|---:|---:|---:|",
    ]
    for row in protected:
        one = row["passed"] / row["draws"]
        lines.append(
            f"| {row['items']:,} | {100 * row['disagreement']:.0f} % | {share(row['passed'], row['draws'])} | "
            f"{100 * one**7:.0f} % |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the study, print its tables and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=600, help="rounds of the first scenario (default 600)")
    parser.add_argument("--out", type=Path, default=Path("docs/proof"), help="folder for the tables")
    told = parser.parse_args()
    studies = []
    for scenario in SCENARIOS:
        rounds = max(1, round(told.rounds * scenario.share))
        print(f"{scenario.name}: {rounds} rounds ...", flush=True)
        studies.append(run(scenario, rounds))
    protected = protection(2000)
    words = report(studies, protected)
    print(words)
    told.out.mkdir(parents=True, exist_ok=True)
    (told.out / "false_promotion.md").write_text(words, encoding="utf-8")
    found = {"rounds": studies, "protection": protected, "seed": SEED}
    (told.out / "false_promotion.json").write_bytes(canonical(found) + b"\n")


if __name__ == "__main__":
    main()
