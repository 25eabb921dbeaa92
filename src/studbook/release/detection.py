"""When a trial will have found out a candidate that fails too often: simulated, and registered before the run."""

from __future__ import annotations

import math

from studbook.records import CanaryPlan, Detection
from studbook.statistics import Draws, log_rate_e, reached

__all__ = ["parts_of", "simulate_detection"]

# Words that are drawn at once.
_BLOCK = 256


def parts_of(channel: str, critical: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the e-processes of a trial, whose mean is held against alpha.

    Args:
        channel: ``shadow`` or ``canary``.
        critical: Labels of the probes that are looked at by themselves.
    """
    beside = ("beside",) if channel == "canary" else ()
    return ("failures", *beside, "paired", "slow", *(f"paired {label}" for label in critical))


def simulate_detection(
    plan: CanaryPlan | None = None,
    *,
    allowed: float = 0.02,
    alpha: float = 0.05,
    parts: int = 4,
    limit: int = 10_000,
    failing: float = 0.04,
    simulations: int = 400,
    seed: int = 1,
) -> Detection:
    """Simulate a candidate whose answers fail by chance, and count its requests until it is rolled back.

    Only one of the e-processes is simulated, failures against what is allowed; the others add evidence and take none, so a
    trial finds it as soon or sooner.

    Args:
        plan: A plan, from which all that follows is taken; its own detection is not looked at, but for its settings.
        allowed: Share of answers that may fail.
        alpha: Chance of a false alarm.
        parts: How many e-processes are averaged.
        limit: Most requests of the candidate.
        failing: Share of its answers that fail.
        simulations: How many runs.
        seed: Their seed.

    Returns:
        When half, and nine of ten, of them were found out.
    """
    if plan is not None:
        allowed, alpha, limit = plan.allowed, plan.alpha, plan.limits.requests
        parts, told = len(parts_of(plan.channel, plan.critical)), plan.detection
        failing, simulations, seed = told.failing, told.simulations, told.seed
    draws = Draws(seed)
    times = sorted(_time(draws, allowed, alpha / parts, limit, failing) for _ in range(simulations))
    return Detection(
        failing=failing,
        simulations=simulations,
        seed=seed,
        half=_quantile(times, 0.5),
        most=_quantile(times, 0.9),
        found=sum(t < math.inf for t in times) / simulations,
    )


def _time(draws: Draws, allowed: float, alpha: float, limit: int, failing: float) -> float:
    """Requests until one candidate is found out; infinite if it is not within the limit."""
    requests, failures, scale = 0, 0, math.log1p(-failing)
    while True:
        for draw in draws.uniform(_BLOCK):
            requests += 1 + int(math.log(draw) / scale)
            failures += 1
            if requests > limit:
                return math.inf
            if reached(log_rate_e(failures, requests - failures, allowed), alpha):
                return requests


def _quantile(times: list[float], share: float) -> int | None:
    value = times[math.ceil(share * len(times)) - 1]
    return int(value) if value < math.inf else None
