"""A small lab whose policy has a canary stage, with a winner in shadow and the lab found ready; and requests to serve it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab_fixtures import CLUSTER, PERSON, Place, shipped_items, write_suite
from release_fixtures import change_policy, winner
from routing_fixtures import EXAMPLES
from studbook.lab import Lab
from studbook.lab.packages import Wanted
from studbook.lab.runs import Clock
from studbook.lab.segments import install_router
from studbook.lab.specialists import OWN
from studbook.lab.traffic import Reply, Traffic
from studbook.records import (
    CanaryLimits,
    CanaryPlan,
    CanaryStep,
    Detection,
    Header,
)
from studbook.release import ALONE, simulate_detection
from studbook.runtime.routing.state import learn_state
from studbook.runtime.routing.thresholds import margin_threshold

STAGES = [
    {"stage": "shadow", "approvals": 0, "hold_hours": 0},
    {"stage": "canary", "approvals": 0, "hold_hours": 0},
    {"stage": "champion", "approvals": 1, "hold_hours": 0},
]
# Small enough for a test, and still found out in nine of ten trials.
QUICK: dict[str, Any] = {
    "steps": [{"share": 0.25, "requests": 40, "probes": 2}, {"share": 0.5, "requests": 120, "probes": 10}],
    "limits": {"requests": 4000, "seconds": 100_000, "tokens": 1_000_000},
    "probes": 0.2,
    "margin": 0.05,
    "patience": 60,
}
HEADER = Header(source="studbook", version="0.1.0", environment="test", owner="ann")


def plan_of(**changes: Any) -> CanaryPlan:
    """A plan that no lab holds, with changes."""
    fields: dict[str, Any] = {
        "header": HEADER,
        "channel": "canary",
        "candidate": "1" * 64,
        "champion": "2" * 64,
        "deployment": ALONE,
        "readiness": "3" * 64,
        "suite": "4" * 64,
        "salt": "5" * 64,
        "steps": (
            CanaryStep(share=0.1, requests=200, probes=20),
            CanaryStep(share=0.25, requests=600, probes=60),
            CanaryStep(share=0.5, requests=2000, probes=200),
        ),
        "limits": CanaryLimits(requests=6000, seconds=1_000_000, tokens=100_000_000),
        "alpha": 0.05,
        "allowed": 0.02,
        "margin": 0.05,
        "slow": 500,
        "window": 250,
        "disagreement": 0.1,
        "patience": 600,
        "page": 7.0,
        "probes": 0.05,
        "critical": (),
        "detection": Detection(failing=0.04, simulations=400, seed=1, half=None, most=None, found=0.0),
    }
    plan = CanaryPlan(**{**fields, **changes})
    if "detection" in changes:
        return plan
    return CanaryPlan(**{**fields, **changes, "detection": simulate_detection(plan)})


class Models:
    """Answers for the models of a lab: right to everything, unless a model is told to fail a share of what it is asked.

    Args:
        lab: The lab; probes are answered as its canary suite expects.
        seed: Of who fails when.
        failing: Artifact -> share of answers that fail.
    """

    def __init__(self, lab: Lab, seed: int = 1, failing: dict[str, float] | None = None) -> None:
        self.failing = failing or {}
        self.asked: list[str] = []
        self.broken: set[str] = set()
        self._draw = random.Random(seed)
        self._expected = {item["prompt"]: item["expected"] for item in shipped_items("development", CLUSTER)}

    def __call__(self, artifact: str, prompt: str) -> Reply:
        """Answer a prompt."""
        self.asked.append(artifact)
        fails = self._draw.random() < self.failing.get(artifact, 0.0)
        text = f"{artifact[:8]} fails" if fails else self._expected.get(prompt, f"answer to {prompt}")
        return Reply(text, right=not fails, broken=artifact in self.broken, milliseconds=10, tokens=4)


class Ticking:
    """A clock that goes on by so much at every look."""

    def __init__(self, step: int = 20) -> None:
        self.now, self.step = 0, step

    def __call__(self) -> int:
        """Milliseconds."""
        self.now += self.step
        return self.now


def served(lab: Lab, models: Models, clock: Clock | None = None) -> Traffic:
    """Traffic that asks these models."""
    return Traffic(lab.desk, lab.canaries, models, clock or Ticking())


def until(traffic: Traffic, done: Callable[[], bool], most: int = 20_000) -> int:
    """Send requests until something is so; returns how many it took."""
    for count in range(most):
        if done():
            return count
        traffic.complete(f"request {count}")
    raise AssertionError(f"{most} requests were not enough")


def package_of(lab: Lab, artifact: str, name: str, version: str) -> str:
    """Package a model that was admitted here; its revision."""
    lab.packages.contract(PERSON)
    return lab.packages.make(name, artifact, Wanted(version=version, clusters=(CLUSTER,)))[0]


def router_of(lab: Lab) -> str:
    """Enter a router that learnt from a few prompts; the digest of its state, the same each time."""
    return install_router(lab.desk, *learn_state(lab.desk.header, EXAMPLES, fallback=OWN)).known.digest


def thresholds_of(lab: Lab, version: int) -> str:
    """Enter a margin of `router_of`, one for each version; its digest."""
    margin = margin_threshold(lab.desk.header, [version / 100], [True], 0.9, encoder=router_of(lab))
    return lab.desk.workspace.commit(margin)


def into_canary(lab: Lab, **settings: Any) -> CanaryPlan:
    """Register a plan for the winner and move it to canary."""
    plan = lab.plan("canary", {**QUICK, **settings})
    lab.release(winner(lab), "canary")
    return plan


@pytest.fixture(scope="session")
def trial_lab(lived_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The small lab after a whole life, with a canary suite and stage, and its winner in shadow again; only copy it."""
    folder = tmp_path_factory.mktemp("trial")
    place = lived_lab.copy(folder)
    with place.open() as lab:
        items = shipped_items("development", CLUSTER)
        suite = write_suite(folder / "canary", items, name=f"canary-{CLUSTER}", role="canary", cluster=CLUSTER)
        lab.suites.freeze([suite], PERSON)
        change_policy(lab, folder, stages=STAGES)
        # Its outputs were admitted in the life before; from here on they may be packaged.
        lab.policies.route("blend/1", PERSON)
        outcome = lab.round(CLUSTER)
        assert outcome.released is not None, (outcome.held, outcome.record.no_op.reasons)
        assert lab.ready().ready
    return place


@pytest.fixture
def tried(trial_lab: Place, tmp_path: Path) -> Place:
    """A copy of the lab with a canary stage."""
    return trial_lab.copy(tmp_path / "tried")
