"""The controller of a trial in shadow or canary: observations in, verdicts out; no clock, no chance, no I/O.

The rules (JUDGEMENT section 4), in this order:

1. An invariant that may never be broken rolls back at once.
2. The mean of the e-processes of `parts_of` rolls back when it reaches 1 / alpha. It may be looked at after every request,
   and a candidate that is no worse is ever rolled back with a chance of at most alpha, all of them together.
3. Pairs of answers that differ without a reason, too often, pause for a person to look.
4. The limits pause for good; so does silence, until a person resumes. CUSUM calls a person and decides nothing.
5. Enough requests and probes raise the share. After the last step, evidence that right answers are not fewer by the margin
   makes a candidate ready, and it is watched on.

The same observations in the same order give the same verdicts; any other order is refused.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from studbook.errors import OutOfOrder
from studbook.records import Answered, CanaryPlan, Observation
from studbook.release.cohort import in_cohort, probe_after
from studbook.release.detection import parts_of
from studbook.statistics import (
    Betting,
    Watch,
    average,
    log_mcnemar_e,
    log_rate_e,
    log_shifting_e,
    next_sum,
    reached,
)

__all__ = ["CONVICTED", "FINAL", "Action", "Controller", "Verdict"]

Action = Literal["continue", "step", "promote-ready", "roll-back", "pause"]
FINAL = ("canary.limit",)
"""Codes of pauses that nobody resumes: another plan has to be registered."""
CONVICTED = ("canary.invariant", "canary.evidence")
"""Codes of what rolls back."""
_P99 = 0.01


class Verdict(NamedTuple):
    """What follows from everything seen so far.

    Attributes:
        action: What to do.
        code: Why, for programs; empty while nothing is the matter.
        words: Why, for people.
        step: The step now, from 0.
        requests: Requests the candidate answered.
        log_e: Mean evidence that it is worse, as a natural logarithm, when it was last looked at.
        evidence: The same for every part.
        paged: Whether a person should look.
    """

    action: Action
    code: str = ""
    words: str = ""
    step: int = 0
    requests: int = 0
    log_e: float = 0.0
    evidence: tuple[tuple[str, float], ...] = ()
    paged: bool = False


class Controller:
    """One trial.

    Args:
        plan: Its plan.
        digest: The plan's digest.

    Attributes:
        ready: Whether it was found ready; it may still be rolled back.
        halted: Code of why it is not running; empty while it is.
        step: The step now, from 0.
        number: Of the newest observation; -1 before the first.
        moment: How far it looked, in milliseconds.
    """

    def __init__(self, plan: CanaryPlan, digest: str) -> None:
        self.plan, self.digest = plan, digest
        self.ready, self.halted = False, ""
        self.step, self.number, self.moment = 0, -1, 0
        self.requests = self.probes = self.tokens = self.failures = 0
        self._probed, self._seen = True, 0
        self._sides = [[0, 0] for _ in plan.steps]
        self._pairs: dict[str, list[int]] = {"": [0, 0], **{label: [0, 0] for label in plan.critical}}
        self._differing = [0, 0]
        self._betting = Betting(plan.margin)
        self._slow = Watch(_P99, -(-plan.limits.requests // plan.window))
        self._sum = 0.0
        self._evidence: tuple[tuple[str, float], ...] = ()
        self._log_e = 0.0

    @property
    def share(self) -> float:
        """Share of the requests that the candidate answers now; 0 while it is halted."""
        return 0.0 if self.halted else self.plan.steps[self.step].share

    def observe(self, seen: Observation) -> Verdict:
        """Take the next observation.

        Raises:
            OutOfOrder: if it is not the next one (``canary.order``), the cohort says another model should have answered
                (``canary.cohort``), or the trial is not running (``canary.halted``). Nothing is counted then.
        """
        self._check(seen)
        self.number, self._probed = seen.number, seen.kind == "probe"
        self.moment = seen.moment
        if self._silent(seen.moment):
            return self._halt("pause", "canary.no-data", f"nothing was seen for {self.plan.patience} seconds")
        worse = self._count(seen)
        if seen.candidate is not None and seen.candidate.broken:
            return self._halt("roll-back", "canary.invariant", f"request {seen.number} broke an invariant")
        if worse and self._convicted():
            return self._halt("roll-back", "canary.evidence", self._told())
        if seen.differs and self._differ():
            words = f"{self._differing[0]} of {sum(self._differing)} pairs of answers differ without a reason"
            return self._halt("pause", "canary.disagreement", words)
        return self._limits() or self._advance()

    def wait(self, until: int) -> Verdict:
        """Look at the clock where nothing was seen.

        Args:
            until: Milliseconds of serving since the trial began.

        Raises:
            OutOfOrder: if it goes back; ``canary.clock``.
        """
        if until < self.moment:
            raise _refused(f"looks at {until} ms after {self.moment} ms: the clock went back", "clock")
        self.moment = until
        if self.halted:
            return self._verdict("continue")
        if self._silent(until):
            return self._halt("pause", "canary.no-data", f"nothing was seen for {self.plan.patience} seconds")
        return self._limits() or self._verdict("continue")

    def halt(self, code: str) -> None:
        """Stop for a reason from outside: a person, or an analysis that failed."""
        self.halted = self.halted or code

    def resume(self) -> None:
        """Go on after a pause: silence and differences are counted anew, the evidence is not.

        Raises:
            OutOfOrder: if it was rolled back or a limit was reached, or nothing is halted; ``canary.resume``.
        """
        if not self.halted or self.halted in (*FINAL, *CONVICTED):
            raise _refused("is not a trial that can go on", "resume")
        self.halted, self._seen, self._differing = "", self.moment, [0, 0]

    def _check(self, seen: Observation) -> None:
        if self.halted:
            raise _refused(f"observation {seen.number} came while the trial was halted", "halted")
        again = seen.kind == "probe" and seen.number == self.number and not self._probed
        if seen.number < self.number or (seen.number == self.number and not again):
            raise _refused(f"observation {seen.number} came after {self.number}: replayed or reordered", "order")
        if seen.moment < self.moment:
            raise _refused(f"observation {seen.number} is of a time before the one before it", "clock")
        if seen.step > self.step:
            raise _refused(
                f"observation {seen.number} is of step {seen.step}, and the trial is at {self.step}", "order"
            )
        self._check_cohort(seen)

    def _check_cohort(self, seen: Observation) -> None:
        """Who answered is who the hash says, and no answer is there without its model."""
        share = self.plan.steps[seen.step].share
        if seen.kind == "probe":
            held = probe_after(self.digest, seen.number, self.plan.probes) and seen.label is not None
        elif seen.kind == "mirror":
            held = self.plan.channel == "shadow"
        else:
            held = self.plan.channel == "canary" and in_cohort(self.digest, seen.number, share) == (
                seen.kind == "canary"
            )
        both = seen.kind in ("mirror", "probe")
        there = (seen.candidate is not None, seen.champion is not None)
        if not held or there != (both or seen.kind == "canary", both or seen.kind == "champion"):
            raise _refused(f"observation {seen.number} was not answered by whom the cohort says", "cohort")

    def _count(self, seen: Observation) -> bool:
        """Count an observation; returns whether any evidence against the candidate may have risen."""
        candidate, champion = seen.candidate, seen.champion
        if candidate is None:
            self._sides[seen.step][1] += champion is not None and not champion.right
            return False
        self._seen, self.tokens = seen.moment, self.tokens + candidate.tokens
        worse = not candidate.right
        if seen.kind == "probe":
            self.probes += 1
        else:
            worse |= self._live(seen, candidate)
        if champion is not None:
            self._pair(seen, candidate, champion)
        return worse

    def _live(self, seen: Observation, candidate: Answered) -> bool:
        if self.requests % self.plan.window == 0:
            self._slow.begin()
        self.requests += 1
        slow, failed = candidate.milliseconds > self.plan.slow, not candidate.right
        self._slow.add(slow)
        self.failures += failed
        self._sides[seen.step][0] += failed
        self._sum = next_sum(self._sum, float(failed), self.plan.allowed, self.plan.allowed / 2)
        return slow

    def _pair(self, seen: Observation, candidate: Answered, champion: Answered) -> None:
        self._betting.add(float(candidate.right) - float(champion.right))
        if candidate.right != champion.right:
            for label in self._pairs.keys() & {"", seen.label}:
                self._pairs[label][candidate.right] += 1
        unexplained = seen.differs and candidate.right == champion.right
        self._differing[not unexplained] += 1

    def _convicted(self) -> bool:
        plan = self.plan
        steps = [(s.share, inside, beside) for s, (inside, beside) in zip(plan.steps, self._sides, strict=True)]
        found = {
            "failures": log_rate_e(self.failures, self.requests - self.failures, plan.allowed),
            "beside": log_shifting_e(step for step in steps if step[0] > 0.0),
            "slow": self._slow.log_e,
            **{f"paired {k}".rstrip(): log_mcnemar_e(lost, won) for k, (lost, won) in self._pairs.items()},
        }
        self._evidence = tuple((name, found[name]) for name in parts_of(plan.channel, plan.critical))
        self._log_e = average([log for _, log in self._evidence])
        return reached(self._log_e, plan.alpha)

    def _differ(self) -> bool:
        apart, alike = self._differing
        return reached(log_rate_e(apart, alike, self.plan.disagreement), self.plan.alpha)

    def _told(self) -> str:
        worst, log = max(self._evidence, key=lambda part: part[1])
        return f"mean evidence e^{self._log_e:.2f} after {self.requests} requests, most of it of {worst}: e^{log:.2f}"

    def _silent(self, moment: int) -> bool:
        return moment - self._seen > 1000 * self.plan.patience

    def _limits(self) -> Verdict | None:
        limits = self.plan.limits
        used = (("requests", self.requests), ("seconds", self.moment // 1000), ("tokens", self.tokens))
        for name, found in used:
            if found >= getattr(limits, name):
                return self._halt("pause", "canary.limit", f"{found} {name} were used up")
        return None

    def _advance(self) -> Verdict:
        step = self.plan.steps[self.step]
        if self.requests < step.requests or self.probes < step.probes:
            return self._verdict("continue")
        if self.step + 1 < len(self.plan.steps):
            self.step += 1
            return self._verdict("step", words=f"step {self.step} begins after {self.requests} requests")
        if self.ready or not reached(self._betting.log_e, self.plan.alpha):
            return self._verdict("continue")
        self.ready = True
        words = f"right answers are not fewer by {self.plan.margin:g}: evidence e^{self._betting.log_e:.2f}"
        return self._verdict("promote-ready", "canary.ready", words)

    def _halt(self, action: Action, code: str, words: str) -> Verdict:
        self.halted = code
        return self._verdict(action, code, words)

    def _verdict(self, action: Action, code: str = "", words: str = "") -> Verdict:
        paged = self._sum > self.plan.page
        return Verdict(action, code, words, self.step, self.requests, self._log_e, self._evidence, paged)


def _refused(what: str, code: str) -> OutOfOrder:
    advice = "Nothing was counted. Look at who wrote the observations, and register another plan."
    return OutOfOrder(what, where="canary", advice=advice, reason=f"canary.{code}")
