"""The figures behind the rules of judgement, from seeds, with the functions that decide: beside the design's own.

Each row states the design's figure, ours with its interval, and whether the one lies in the other's noise. Where the
design does not state a setting (how answers are correlated, how often one looks), several are shown and all are kept.

Run: python benchmarks/studies/judgement.py [--rounds 1000] [--out docs/proof]
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lines import chart
from numpy.typing import NDArray

from studbook.records import canonical
from studbook.statistics import (
    Ladder,
    Thresholdout,
    calibration_null_band,
    climb,
    clopper_pearson,
    finalist_power,
    holm,
    log_mcnemar_e,
    log_non_inferiority_e,
    log_rate_e,
    log_two_sample_e,
    mcnemar,
    mcnemar_power,
    normal_quantile,
    paired_bounds,
    reached,
    required_items,
    unpaired_bounds,
    wilson,
    zero_failure_bound,
)

DESIGN_ROUNDS = 600  # behind every share that the design simulated
SEED, ALPHA, ACCURACY, GAIN, CANDIDATES = 20260102, 0.05, 0.638, 0.036, 10
Bools = NDArray[np.bool_]
SECTIONS = {
    1: "Suites: calibration, zero tolerance, size",
    2: "The decision: false promotion, inflation, power",
    3: "Reuse of judging items: a boosting attack",
    4: "Looking after every request",
}


class Row(NamedTuple):
    """One figure.

    Attributes:
        section: Of the design.
        figure: What is counted, with its setting.
        ours: Our figure.
        low: Lower end of the two-sided 99 % interval of the simulation; ours where it is exact.
        high: Upper end.
        design: The design's figure as low and high, equal where it is one number; None where it gives none.
        step: Last digit the design gives, as a number.
        rounds: Simulated rounds behind the design's figure when it is a share; 0 where its noise is not known.
    """

    section: int
    figure: str
    ours: float
    low: float
    high: float
    design: tuple[float, float] | None = None
    step: float = 0.01
    rounds: int = 0

    @property
    def verdict(self) -> str:
        """Whether the design's figure, with its own rounding and noise, meets our interval."""
        if self.design is None:
            return ""
        first, last = self.design[0] - self.step / 2 - 1e-9, self.design[1] + self.step / 2 + 1e-9
        if self.rounds:
            first = min(first, wilson(round(self.design[0] * self.rounds), self.rounds, 0.005).lower)
            last = max(last, wilson(round(self.design[1] * self.rounds), self.rounds, 0.005).upper)
        return "agrees" if self.low <= last and first <= self.high else "**differs**"


def exact(
    section: int, figure: str, value: float, design: float | None = None, step: float = 0.01, rounds: int = 0
) -> Row:
    """A figure without simulation noise of ours."""
    return Row(section, figure, value, value, value, None if design is None else (design, design), step, rounds)


def counted(
    section: int, figure: str, part: int, whole: int, design: tuple[float, float] | None = None, step: float = 0.01
) -> Row:
    """A share of simulated rounds."""
    return Row(section, figure, part / whole, *wilson(part, whole, 0.005), design, step, DESIGN_ROUNDS)


def averaged(
    section: int, figure: str, values: Sequence[float], design: float | None = None, step: float = 0.01
) -> Row:
    """A mean over simulated rounds."""
    mean = float(np.mean(values))
    half = normal_quantile(0.995) * float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return Row(section, figure, mean, mean - half, mean + half, None if design is None else (design, design), step)


def suites() -> Iterator[Row]:
    """Section 1: the null band of the calibration error, bounds after no failure, required items."""
    shown = {100: 0.106, 1000: 0.035}
    for bins in (10, 15):
        for low in (0.0, 0.5):
            for items, design in shown.items():
                confidences = np.linspace(low, 1.0, items).tolist()
                band = calibration_null_band(confidences, ALPHA, SEED, bins=bins)
                words = f"ECE of a perfectly calibrated model, n = {items:,}, {bins} bins, confidences even on {low}..1"
                yield exact(1, words, band.value, design, 0.001)
                if not low:
                    yield exact(1, f"its 95 % quantile, n = {items:,}, {bins} bins, {low}..1", band.upper)
    for items in (10, 59, 100, 299, 1000, 3000):
        words = f"upper bound of a rate after no failure in {items:,}; design: 1 - 0.05^(1/n)"
        yield exact(1, words, clopper_pearson(0, items, ALPHA).upper, zero_failure_bound(items), 1e-9)
    yield exact(1, "items for 1 pp at 10 % disagreement", required_items(0.01, 0.10), 6183, 1)


def like_the_champion(random: np.random.Generator, items: int, disagreement: float) -> Bools:
    """Champion and candidates as draws of one kind: all stray alike from shared answers; shape (11, items)."""
    shared = random.random(items) < ACCURACY
    low, high = 0.0, 0.5 / ACCURACY * min(ACCURACY, 1 - ACCURACY)
    for _ in range(60):
        stray = (low + high) / 2
        pair = sum(2 * s * p * (1 - p) for s, p in straying(stray))
        low, high = (stray, high) if pair < disagreement else (low, stray)
    wrong, right = (p for _, p in straying(low))
    return shared ^ (random.random((CANDIDATES + 1, items)) < np.where(shared, wrong, right))


def straying(stray: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Shares of right and of wrong shared answers, each with the chance to stray that keeps the accuracy."""
    return (ACCURACY, stray), (1 - ACCURACY, stray * ACCURACY / (1 - ACCURACY))


def unrelated(random: np.random.Generator, items: int, disagreement: float) -> Bools:
    """Champion and candidates answer independently of each other; disagreement is then 2 p (1 - p) = .46."""
    return random.random((CANDIDATES + 1, items)) < ACCURACY


def changed(random: np.random.Generator, items: int, disagreement: float) -> Bools:
    """Candidates as small changes of the champion: each flips some of its answers, as often up as down."""
    champion = random.random(items) < ACCURACY
    half = disagreement / 2
    flips = random.random((CANDIDATES, items)) < np.where(champion, half / ACCURACY, half / (1 - ACCURACY))
    return np.concatenate([champion[None, :], champion ^ flips])


WORLDS: dict[str, Callable[[np.random.Generator, int, float], Bools]] = {
    "champion a draw like the candidates": like_the_champion,
    "all answers independent": unrelated,
    "candidates small changes of the champion": changed,
}


def counts(answers: Bools) -> list[tuple[int, int]]:
    """Wins and losses of every candidate against the champion in row 0."""
    champion, others = answers[0], answers[1:]
    return [(int((o & ~champion).sum()), int((champion & ~o).sum())) for o in others]


def promotions(rounds: int) -> Iterator[Row]:
    """Section 2: ten candidates that equal the champion, and what each rule makes of them."""
    for place, (world, draw) in enumerate(WORLDS.items()):
        random = np.random.default_rng([SEED, 2, place])
        found: dict[str, list[float]] = {"highest score": [], "McNemar": [], "McNemar + Holm": []}
        finalists = 0
        for _ in range(rounds):
            pairs = counts(draw(random, 1000, 0.14))
            early = [w - x for w, x in counts(draw(random, 1000, 0.14))]
            gains = [w - x for w, x in pairs]
            best = max(range(CANDIDATES), key=lambda i: gains[i])
            p_values = [mcnemar(*pair) for pair in pairs]
            if gains[best] > 0:
                found["highest score"].append(gains[best] / 10)
            if min(p_values) <= ALPHA:
                found["McNemar"].append(gains[best] / 10)
            if min(holm(p_values)) <= ALPHA:
                found["McNemar + Holm"].append(gains[best] / 10)
            three = sorted(range(CANDIDATES), key=lambda i: -early[i])[:3]
            finalists += min(holm([p_values[i] for i in three])) <= ALPHA
        design = {"highest score": (0.90, 0.90), "McNemar": (0.18, 0.23), "McNemar + Holm": (0.02, 0.04)}
        for rule, gains in found.items():
            yield counted(2, f"false promotion, {rule}; {world}", len(gains), rounds, design[rule])
            if len(gains) > 1:
                yield averaged(2, f"gain shown by a promotion without one, pp, {rule}; {world}", gains)
        yield counted(2, f"false promotion, 3 finalists + Holm; {world}", finalists, rounds, (0.045, 0.045), 0.001)


def powers(rounds: int) -> Iterator[Row]:
    """Section 2: what is found when one candidate is truly 3.6 pp better."""
    random = np.random.default_rng([SEED, 3])
    wins, losses = (0.14 + GAIN) / 2, (0.14 - GAIN) / 2
    both = ACCURACY - losses  # right by both; shared accuracy of the champion
    table = random.multinomial(500, (both, wins, losses, 1 - both - wins - losses), size=rounds * 5)
    paired = sum(paired_bounds(int(w), int(x), 500, ALPHA).lower > 0 for _, w, x, _ in table)
    apart = sum(unpaired_bounds(int(b + w), 500, int(b + x), 500, ALPHA).lower > 0 for b, w, x, _ in table)
    others = random.binomial(500, ACCURACY, size=len(table))
    mine = random.binomial(500, ACCURACY + GAIN, size=len(table))
    alone = sum(unpaired_bounds(int(m), 500, int(o), 500, ALPHA).lower > 0 for m, o in zip(mine, others, strict=True))
    total = len(table)
    yield counted(
        2, "paired power, n = 500, +3.6 pp, disagreement .14, lower bound above 0", paired, total, (0.69, 0.69)
    )
    yield exact(2, "the same by McNemar's exact test", mcnemar_power(500, GAIN, 0.14))
    yield counted(2, "unpaired power, the same answers taken as unpaired", apart, total, (0.18, 0.18))
    yield counted(2, "unpaired power, different items for either side", alone, total, (0.18, 0.18))
    for psi, ten, one in ((0.10, 0.83, 0.97), (0.14, 0.66, 0.91), (0.20, 0.46, 0.80)):
        for words, design, alpha in (("Holm over 10", ten, ALPHA / CANDIDATES), ("one candidate", one, ALPHA)):
            power = mcnemar_power(1000, GAIN, psi, alpha)
            yield exact(2, f"power, {words}, n = 1,000, disagreement {psi:.2f}", power, design, rounds=DESIGN_ROUNDS)
    for items, design in ((1000, 0.80), (2000, 0.98)):
        words = f"power, 3 finalists of 10, n = {items:,}, disagreement .14 (screen x Holm)"
        power = finalist_power(CANDIDATES, 3, 1000, items, GAIN, 0.14)
        yield exact(2, words, power, design, rounds=DESIGN_ROUNDS)


GUARDS = {  # threshold and noise: of the article's experiments, and of its rule of thumb with n = 500
    "Thresholdout .04, .01": (0.04, 0.01),
    "Thresholdout 4/sqrt(n), 1/sqrt(n)": (4 / math.sqrt(500), 1 / math.sqrt(500)),
}


def asked(mechanism: str, truth: Bools, training: Bools, queries: Bools, seed: int) -> Iterator[float]:
    """The answers of one mechanism to every query: the share of judging items on which a query is right."""
    right = queries == truth
    scores, seen = right.mean(axis=1), (queries == training).mean(axis=1)
    ladder: Ladder | None = None
    guard = Thresholdout(*GUARDS.get(mechanism, (0.0, 1.0)), len(queries), seed)
    for index in range(len(queries)):
        if mechanism == "Ladder":
            ladder = climb(ladder, right[index].astype(float).tolist())
            yield ladder.released
        elif mechanism in GUARDS:
            answer = guard.ask(float(seen[index]), float(scores[index]))
            yield 0.5 if answer is None else answer
        else:
            yield float(scores[index])


def attack(rounds: int) -> tuple[list[Row], dict[str, list[tuple[float, float]]]]:
    """Section 3: a vote of random guesses whose answer looked good, scored on the items that judged.

    Two attackers: one keeps every guess answered above one half, the other every guess that raised the highest answer
    so far. The better of the two counts, a mechanism at a time.
    """
    marks = (1, *range(50, 1001, 50))
    rows, lines = [], {}
    for mechanism, design in (("naive", 0.788), *((guard, 0.647) for guard in GUARDS), ("Ladder", 0.539)):
        random = np.random.default_rng([SEED, 4])
        results = np.zeros((2, rounds, len(marks)))
        for number in range(rounds):
            truth, training = random.random((2, 500)) < 0.5
            queries = random.random((1000, 500)) < 0.5
            answers = np.array(list(asked(mechanism, truth, training, queries, SEED + number)))
            highest = np.concatenate([[0.5], np.maximum.accumulate(np.maximum(answers, 0.5))[:-1]])
            for place, kept in enumerate((answers > 0.5, answers > highest)):
                votes = np.cumsum(np.where(kept[:, None], np.where(queries, 1, -1), 0), axis=0)
                results[place, number] = [voted(votes[mark - 1], truth) for mark in marks]
        for place, who in enumerate(("above one half", "raised the highest")):
            better = results[place, :, -1].mean() >= results[1 - place, :, -1].mean()
            shown = design if better else None
            words = f"{mechanism}: score of the vote after 1,000 queries, n = 500, truth .50 (kept: {who})"
            rows.append(averaged(3, words, results[place, :, -1].tolist(), shown, 0.001))
        strongest = max(range(2), key=lambda p: results[p, :, -1].mean())
        lines[mechanism] = list(zip(map(float, marks), results[strongest].mean(axis=0).tolist(), strict=True))
    return rows, lines


def voted(votes: NDArray[np.int64], truth: Bools) -> float:
    """Share of items the majority gets right; an even vote is half right."""
    return float(np.where(votes == 0, 0.5, (votes > 0) == truth).mean())


def peeking(rounds: int) -> Iterator[Row]:
    """Section 4: false alarms of somebody who looks again and again, while nothing is better, or worse, than allowed."""
    random = np.random.default_rng([SEED, 5])
    items, shown = 1000, {10: None, 50: None, 100: (0.279, 0.279), 1000: None}
    z_alarms, e_alarms, rates, twos, bets = dict.fromkeys(shown, 0), 0, 0, 0, 0
    for _ in range(rounds):
        steps = random.choice([1, -1, 0], size=items, p=[0.07, 0.07, 0.86])
        wins, losses = np.cumsum(steps == 1), np.cumsum(steps == -1)
        z = (wins - losses) / np.sqrt(np.maximum(wins + losses, 1))
        for looks in shown:
            z_alarms[looks] += bool((z[items // looks - 1 :: items // looks] >= normal_quantile(1 - ALPHA)).any())
        moves = [i for i in range(items) if steps[i]]
        e_alarms += any(reached(log_mcnemar_e(int(wins[i]), int(losses[i])), ALPHA) for i in moves)
        errors = np.flatnonzero(random.random(items) < 0.02)
        rates += any(reached(log_rate_e(k + 1, int(i) - k, 0.02), ALPHA) for k, i in enumerate(errors))
        cohort = np.cumsum(random.random(len(errors)) < 0.1)
        twos += any(reached(log_two_sample_e(int(c), k + 1 - int(c), 0.1), ALPHA) for k, c in enumerate(cohort))
        worse = random.choice([1.0, -1.0, 0.0], size=items, p=[0.06, 0.08, 0.86]).tolist()
        bets += reached(max(log_non_inferiority_e(worse, 0.02)), ALPHA)
    for looks, alarms in z_alarms.items():
        words = f"false alarms of z-tests, {looks:,} looks in 1,000 pairs, disagreement .14"
        yield counted(4, words, alarms, rounds, shown[looks], 0.001)
    words = "false alarms of McNemar's e-process, a look after every pair"
    yield counted(4, words, e_alarms, rounds, (0.024, 0.024), 0.001)
    yield counted(4, "false alarms of the rate process at its baseline of 2 %, every request", rates, rounds)
    yield counted(4, "false alarms of the two-sample process, equal rates, a tenth in the cohort", twos, rounds)
    yield counted(4, "non-inferiority shown by betting when inferior by the margin of 2 pp", bets, rounds)


def power_lines() -> dict[str, list[tuple[float, float]]]:
    """Power by items, for the picture."""
    sizes = range(200, 3001, 200)
    return {
        "one candidate": [(n, mcnemar_power(n, GAIN, 0.14)) for n in sizes],
        "ten, three finalists": [(n, finalist_power(CANDIDATES, 3, 1000, n, GAIN, 0.14)) for n in sizes],
        "ten, Holm over all": [(n, mcnemar_power(n, GAIN, 0.14, ALPHA / CANDIDATES)) for n in sizes],
    }


def report(rows: Sequence[Row], rounds: int) -> str:
    """The tables as Markdown."""
    lines = [
        "# The figures behind the rules of judgement",
        "",
        f"Written by `benchmarks/studies/judgement.py`, {rounds:,} simulated rounds a figure (a tenth in section 3), seed "
        f"{SEED}. True accuracy {ACCURACY}, ten candidates, alpha {ALPHA}. Intervals are two-sided 99 %; a figure without "
        "one is exact, or a resampled mean whose noise is below the last digit. *agrees*: the design's figure, with its "
        f"rounding and the noise of its own {DESIGN_ROUNDS} rounds where it is a share, meets our interval. Where the "
        "design leaves a setting open, several are shown; one that differs is left standing. "
        "What a whole round does with all its gates: [false_promotion.md](false_promotion.md).",
        "",
        "![power](judgement_power.svg)",
        "",
        "![attack](judgement_attack.svg)",
    ]
    for section, title in SECTIONS.items():
        lines += ["", f"## {section}. {title}", "", "| figure | design | ours | |", "|---|---:|---:|---|"]
        for row in (row for row in rows if row.section == section):
            interval = f" ({row.low:.4g} to {row.high:.4g})" if row.high > row.low else ""
            design = "" if row.design is None else " to ".join(f"{d:.4g}" for d in sorted(set(row.design)))
            lines.append(f"| {row.figure} | {design} | {row.ours:.4g}{interval} | {row.verdict} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the studies, print their tables and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1000, help="simulated rounds a figure (default 1000)")
    parser.add_argument("--out", type=Path, default=Path("docs/proof"), help="folder for tables and pictures")
    told = parser.parse_args()
    attacked, lines = attack(max(2, told.rounds // 10))
    rows = [*suites(), *promotions(told.rounds), *powers(told.rounds), *attacked, *peeking(told.rounds)]
    words = report(rows, told.rounds)
    print(words)
    told.out.mkdir(parents=True, exist_ok=True)
    (told.out / "judgement.md").write_text(words, encoding="utf-8")
    found: dict[str, Any] = {"rounds": told.rounds, "seed": SEED, "rows": [row._asdict() for row in rows]}
    (told.out / "judgement.json").write_bytes(canonical(found) + b"\n")
    power = chart("Power at +3.6 pp and disagreement .14", "selection items", power_lines(), 0.0, 1.0)
    (told.out / "judgement_power.svg").write_bytes(power)
    leak = chart("Score of a vote of random guesses, truth .50", "queries", lines, 0.45, 0.85)
    (told.out / "judgement_attack.svg").write_bytes(leak)


if __name__ == "__main__":
    main()
