"""What `studbook doctor` says of the engine."""

from __future__ import annotations

from studbook.evaluation.costs import meter
from studbook.lab.doctor import engine
from studbook.models.engine import ENGINE_SHA256


def test_doctor_runs_the_engine_in_a_worker_and_names_it_with_what_counts_fuel() -> None:
    check = engine()
    assert (check.name, check.ok, check.advice) == ("engine", True, "")
    assert check.found.startswith(f"{ENGINE_SHA256[:12]}, {meter()}, ")
    assert "tokens/s" in check.found
