"""The engine in a worker with every measure: the same numbers, little room, and nothing left to compile there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studbook.models.engine import ENGINE_SHA256, Engine
from studbook.models.tokenizers import BOS
from studbook.sandbox import Answer, Limits

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "examples" / "founders" / "base" / "base.slm"
Run = Callable[..., Answer]

SOURCE = """
import os
from pathlib import Path
from studbook.errors import OverBudget
from studbook.models.engine import ENGINE_SHA256, Engine, warm
from studbook.models.engine.compiled import compiled
from studbook.models.engine.instance import Instance

def work(job, folder):
    before = compiled.cache_info().misses
    data = Path(job["model"]).read_bytes()
    found = {"engine": ENGINE_SHA256, "refused": 0}
    with Engine(data, memory_limit=job["memory"], fuel=True) as engine:
        found["digest"] = engine.logit_digest()
        found["written"] = engine.generate([[256, 97, 98]], 10)
        found["fuel"] = engine.fuel_used
        sessions = []
        try:
            while len(sessions) < job["sessions"]:
                sessions.append(engine.session(64))
        except OverBudget as over:
            found["refused"] = len(sessions)
            found["reason"] = over.reason
        for session in sessions:
            session.close()
        found["again"] = engine.logit_digest() == found["digest"]
        found["memory"] = engine.memory_bytes
        other = Instance(4 << 30, fuel=True, where="")
        try:
            other.take(job["large"])
        except OverBudget as over:
            found["large"] = over.reason
        other.give(other.take(1 << 20))
        found["answers"] = engine.logit_digest() == found["digest"]
    found["compiled"] = compiled.cache_info().misses - before
    found["threads"] = len(os.listdir("/proc/self/task"))
    return found
"""


@pytest.mark.parametrize("room", [1 << 30, 4 << 30])
def test_a_worker_gets_the_numbers_of_the_lab_in_little_room(run: Run, room: int) -> None:
    data = MODEL.read_bytes()
    with Engine(data, fuel=True) as engine:
        expected = {
            "engine": ENGINE_SHA256,
            "digest": engine.logit_digest(),
            "written": engine.generate([[BOS, 97, 98]], 10),
            "fuel": engine.fuel_used,
        }
    limits = Limits(seconds=20, memory_bytes=room, file_bytes=1 << 20)
    job: dict[str, Any] = {"model": str(MODEL), "memory": 2 << 20, "sessions": 30, "large": room - (1 << 20)}
    found = run("engine", limits, (MODEL,), **job).value
    assert {name: found[name] for name in expected} == expected
    assert 0 < found["refused"] < 30
    # The engine's own limit, and then the system's.
    assert (found["reason"], found["large"]) == ("engine.memory", "engine.memory")
    assert found["again"]
    assert found["answers"]
    assert found["memory"] <= 2 << 20
    assert found["compiled"] == 0
    assert found["threads"] == 1
