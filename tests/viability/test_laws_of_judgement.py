from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studbook.records import digest
from studbook.viability import screen

change = st.tuples(st.integers(0, 70), st.integers(0, 40))
changes = st.fixed_dictionaries({"rot": change, "srt": change})
worthless = st.fixed_dictionaries({"rot": st.tuples(st.integers(0, 15), st.integers(15, 120)), "srt": change})
relaxed = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def small(world: Any) -> Any:
    """A world of 200 items, so that draws are fast and near misses common."""
    return dataclasses.replace(world, items=200).having(practical_minimum=0.005, margin=0.1)


def contenders(world: Any, drawn: list[Any], prefix: str = "c") -> list[Any]:
    return [world.contender(f"{prefix}{i}", late, early) for i, (late, early) in enumerate(drawn)]


@relaxed
@given(
    st.lists(st.tuples(changes, changes), max_size=5), st.lists(st.tuples(worthless, changes), min_size=1, max_size=3)
)
def test_worthless_candidates_never_turn_a_no_op_into_a_promotion(world: Any, drawn: Any, idle: Any) -> None:
    tiny = small(world)
    field = contenders(tiny, drawn)
    before = tiny.decide(field)
    after = tiny.decide([*field, *contenders(tiny, idle, "idle")])
    if before.no_op.chosen:
        assert after.no_op.chosen
    if after.chosen is not None:
        assert after.chosen in {c.artifact for c in field}


@relaxed
@given(st.lists(st.tuples(changes, changes), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_the_order_of_contenders_changes_nothing_but_the_order_of_standings(
    world: Any, drawn: Any, random: Any
) -> None:
    tiny = small(world)
    field = contenders(tiny, drawn)
    mixed = list(field)
    random.shuffle(mixed)
    one, other = tiny.decide(field), tiny.decide(mixed)
    assert one.chosen == other.chosen
    assert {s.manifest: s for s in one.standings} == {s.manifest: s for s in other.standings}


@relaxed
@given(st.lists(st.tuples(changes, changes), min_size=1, max_size=5))
def test_a_promotion_means_that_every_gating_row_of_the_winner_holds(world: Any, drawn: Any) -> None:
    tiny = small(world)
    decision = tiny.decide(contenders(tiny, drawn))
    for standing in decision.standings:
        holds = standing.selection is not None and all(c.passed for c in standing.comparisons if c.test != "shown")
        if standing.action == "promote-to-shadow":
            assert holds and standing.artifact == decision.chosen
        elif holds:
            assert decision.chosen is not None
        assert standing.reasons
    promoted = [s for s in decision.standings if s.action == "promote-to-shadow"]
    assert len(promoted) == (decision.action == "promote-to-shadow") != decision.no_op.chosen


@relaxed
@given(st.lists(st.tuples(changes, changes), min_size=1, max_size=6))
def test_selection_results_have_no_influence_on_the_screen(world: Any, drawn: Any) -> None:
    tiny = small(world)
    field = contenders(tiny, drawn)
    blind = [dataclasses.replace(c, selection=None) for c in field]
    champion = tiny.card(tiny.champion, "development")
    terms = (champion, tiny.cluster, tiny.policy)
    assert screen(field, *terms) == screen(blind, *terms) == screen(blind[::-1], *terms)


SCRIPT = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("viability_world", sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules["viability_world"] = module
spec.loader.exec_module(module)
world = module.World()
field = [world.contender(f"c{i}", {"rot": (60 + 9 * i, 20), "srt": (50, 9 * i)}) for i in range(5)]
print(module.digest(world.decide(field)))
"""


@pytest.mark.parametrize("seed", ["0", "1", "4242"])
def test_the_decision_is_the_same_bytes_under_any_hash_seed(world: Any, seed: str) -> None:
    field = [world.contender(f"c{i}", {"rot": (60 + 9 * i, 20), "srt": (50, 9 * i)}) for i in range(5)]
    told = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(Path(__file__).with_name("conftest.py"))],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == digest(world.decide(field))
