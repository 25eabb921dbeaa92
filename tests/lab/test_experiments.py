"""Experiments in the small lab: promised first, run as promised, concluded from the answers, and shown whole."""

from __future__ import annotations

from experiment_fixtures import result_of
from lab_fixtures import Place


def test_it_runs_and_verifies(experimented: Place) -> None:
    with experimented.open(writer=False) as lab:
        print(result_of(lab))
        found = lab.verify()
        assert found.ok, found.problems
