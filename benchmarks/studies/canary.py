"""What the controller of trials does to candidates that are as good as the champion, and to those that are not.

The quantiles are registered first, by the function that a plan registers them with. Then whole trials run through the
controller that serves, every observation of them, with all e-processes at once.

Run: python benchmarks/studies/canary.py [--null 2000] [--worse 200] [--out docs/proof]
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lines import chart

from studbook.records import (
    Answered,
    CanaryLimits,
    CanaryPlan,
    CanaryStep,
    Detection,
    Header,
    Observation,
    canonical,
    digest,
)
from studbook.release import ALONE, Controller, Verdict, in_cohort, probe_after, simulate_detection
from studbook.statistics import clopper_pearson

SEED, ALLOWED, SLOW = 20260307, 0.02, 0.01
HEADER = Header(source="studbook", version="0.1.0", environment="study", owner="study")


class World(NamedTuple):
    """How a candidate and the champion behave.

    Attributes:
        name: In words.
        failing: Share of the candidate's answers that fail, to requests.
        wrong: The same to probes.
        slow: Share of the candidate's answers that are slower than the budget of 99 in 100.
        champion: Share of the champion's answers that fail, to requests and probes.
    """

    name: str
    failing: float = ALLOWED
    wrong: float = ALLOWED
    slow: float = SLOW
    champion: float = ALLOWED


class Trial(NamedTuple):
    """How one trial ended.

    Attributes:
        verdict: The one that ended it.
        requests: Requests the candidate had answered.
        served: Requests that all models had answered.
        ready: Requests of the candidate when it was found ready; 0 where it was not.
        paged: Whether CUSUM called a person.
    """

    verdict: Verdict
    requests: int
    served: int
    ready: int
    paged: bool


NULL = World("no worse in anything")
WORSE = World("fails 4 % instead of 2 %", failing=0.04, wrong=0.04)
OTHERS = (
    World("fails 4 % of requests, probes as the champion", failing=0.04),
    World("6 % of probes wrong, requests as the champion", wrong=0.06),
    World("4 % of answers slower than the p99 budget", slow=0.04),
    World("better: fails 1 %", failing=0.01, wrong=0.01),
)


def plan_for(number: int) -> CanaryPlan:
    """The plan of the study, as the lab registers one by default; each run has a salt of its own."""
    blank = Detection(failing=2 * ALLOWED, simulations=400, seed=1, half=None, most=None, found=0.0)
    return CanaryPlan(
        header=HEADER,
        channel="canary",
        candidate="1" * 64,
        champion="2" * 64,
        deployment=ALONE,
        readiness="3" * 64,
        suite="4" * 64,
        salt=f"{number:064x}",
        steps=(
            CanaryStep(share=0.1, requests=200, probes=20),
            CanaryStep(share=0.25, requests=600, probes=60),
            CanaryStep(share=0.5, requests=2000, probes=200),
        ),
        limits=CanaryLimits(requests=4000, seconds=10**9, tokens=10**9),
        alpha=0.05,
        allowed=ALLOWED,
        margin=0.05,
        slow=500,
        window=250,
        disagreement=0.1,
        patience=10**6,
        page=7.0,
        probes=0.05,
        critical=(),
        detection=blank,
    )


def answers() -> dict[tuple[bool, bool], Answered]:
    """Every way to answer: right or not, slow or not."""
    return {
        (right, slow): Answered(right=right, broken=False, milliseconds=900 if slow else 100, tokens=8)
        for right in (True, False)
        for slow in (True, False)
    }


WAYS = answers()


def trial(world: World, number: int, *, on: bool) -> Trial:
    """Run one trial to its end.

    Args:
        world: How the models behave.
        number: Which one; it is the seed too.
        on: Whether it goes on after the candidate was found ready, to the limit.
    """
    plan, draw = plan_for(number), random.Random(SEED + number).random
    controller = Controller(plan, digest(plan))
    ready, paged, request = 0, False, 0
    while True:
        for seen in requests(world, plan, controller, request, draw):
            verdict = controller.observe(seen)
            paged |= verdict.paged
            if verdict.action == "promote-ready":
                ready = controller.requests
            if controller.halted or (ready and not on):
                return Trial(verdict, controller.requests, request + 1, ready, paged)
        request += 1


def requests(
    world: World, plan: CanaryPlan, controller: Controller, number: int, draw: Callable[[], float]
) -> Iterator[Observation]:
    """One request, and the probe that follows it."""
    step, moment, mine = controller.step, 50 * number, in_cohort(controller.digest, number, controller.share)
    right = draw() >= (world.failing if mine else world.champion)
    own = WAYS[right, draw() < (world.slow if mine else SLOW)]
    yield Observation(
        number=number,
        moment=moment,
        step=step,
        kind="canary" if mine else "champion",
        candidate=own if mine else None,
        champion=None if mine else own,
        differs=False,
        label=None,
    )
    if probe_after(controller.digest, number, plan.probes):
        pair = [WAYS[draw() >= share, False] for share in (world.wrong, world.champion)]
        yield Observation(
            number=number,
            moment=moment,
            step=step,
            kind="probe",
            candidate=pair[0],
            champion=pair[1],
            differs=pair[0] is not pair[1],
            label="rot",
        )


def share(count: int, of: int) -> str:
    """A share with its two-sided 99 % interval."""
    low, high = clopper_pearson(count, of, 0.005)
    return f"{count} of {of:,} = {count / of:.4f} ({low:.4f} to {high:.4f})"


def quantile(values: Sequence[int], part: float) -> str:
    """A quantile of some counts; nothing where there is none."""
    ordered = sorted(values)
    return f"{ordered[int(part * (len(ordered) - 1))]:,}" if ordered else ""


def row(world: World, found: Sequence[Trial], registered: Detection) -> str:
    """One line about one world."""
    back = [t for t in found if t.verdict.action == "roll-back"]
    most = registered.most or 0
    within = sum(t.requests <= most for t in back)
    ready = sum(t.ready > 0 for t in found)
    paged = sum(t.paged for t in found)
    times = [t.requests for t in back]
    cells = (world.name, f"{len(found):,}", share(len(back), len(found)), share(within, len(found)))
    return "| " + " | ".join((*cells, quantile(times, 0.5), quantile(times, 0.9), str(ready), str(paged))) + " |"


def report(registered: Detection, worlds: Sequence[tuple[World, Sequence[Trial]]]) -> str:
    """The page."""
    null = worlds[0][1]
    alarms = sum(t.verdict.action == "roll-back" for t in null)
    low, high = clopper_pearson(alarms, len(null), 0.005)
    text = [
        "# Trials: false alarms, and what is found out",
        "",
        f"Written by `benchmarks/studies/canary.py`, seed {SEED}. Every trial runs through the controller that serves, "
        "observation by observation, with the plan a lab registers by default (limit 4,000 requests of the candidate). "
        "Intervals are two-sided 99 %.",
        "",
        f"Registered before: a candidate that fails {registered.failing:g} instead of {ALLOWED:g} of its answers is rolled "
        f"back after {registered.half:,} of its requests in half of {registered.simulations} simulations and after "
        f"{registered.most:,} in nine of ten.",
        "",
        "![detection](canary.svg)",
        "",
        "| candidate | trials | rolled back | within the registered number | half after | 9 in 10 after | ready | paged |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        *(row(world, found, registered) for world, found in worlds),
        "",
        f"* False alarms: {alarms} of {len(null):,} trials that went on to the limit, {alarms / len(null):.4f} "
        f"({low:.4f} to {high:.4f}); at most 0.05 is promised.",
        "* *half after*, *9 in 10 after*: requests of the candidate, among the trials that rolled back.",
        "* Trials of all others end when the candidate is found ready, as for a person who promotes at once.",
        "* Requests of all models until a candidate that fails 4 % was rolled back, half of the trials: "
        f"{quantile([t.served for t in worlds[1][1]], 0.5)}.",
    ]
    return "\n".join(text) + "\n"


def curve(found: Sequence[Trial], limit: int) -> list[tuple[float, float]]:
    """Share of trials that rolled back by a number of requests."""
    times = sorted(t.requests for t in found if t.verdict.action == "roll-back")
    return [(float(x), sum(t <= x for t in times) / len(found)) for x in range(0, limit + 1, 50)]


def main() -> None:
    """Register, simulate, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--null", type=int, default=2000, help="trials without a difference")
    parser.add_argument("--worse", type=int, default=200, help="of each other world; five times as many that fail 4 %%")
    parser.add_argument("--out", type=Path, default=Path("docs/proof"))
    told = parser.parse_args()
    registered = simulate_detection(plan_for(0))
    counts = ((NULL, told.null, True), (WORSE, 5 * told.worse, False), *((w, told.worse, False) for w in OTHERS))
    worlds = [(w, [trial(w, i, on=on) for i in range(count)]) for w, count, on in counts]
    told.out.mkdir(parents=True, exist_ok=True)
    short = ("no worse", "4 % for 2 %, all", "4 % for 2 %, requests", "6 % for 2 %, probes")
    lines = {name: curve(found, 4000) for name, (_, found) in zip(short, worlds, strict=False)}
    picture = chart("Share of trials rolled back", "requests of the candidate", lines, 0.0, 1.0)
    (told.out / "canary.svg").write_bytes(picture)
    (told.out / "canary.md").write_text(report(registered, worlds), encoding="utf-8")
    data = [[w.name, [[t.verdict.code, t.requests, t.ready] for t in found]] for w, found in worlds]
    (told.out / "canary.json").write_bytes(canonical(data) + b"\n")


if __name__ == "__main__":
    main()
