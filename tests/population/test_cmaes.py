"""CMA-ES: the optimiser is rebuilt from its seed and costs, stays in its worker, and learns."""

from __future__ import annotations

import warnings
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from lab_fixtures import CLUSTER, Place
from studbook.errors import StudbookError, UsageError
from studbook.lab.search import Request
from studbook.population import CmaSearch, Objective, Outcome, Search, cmaes, cmaes_worker, library, make_space
from studbook.records import digest
from studbook.sandbox import Limits, run_worker

SPACE = make_space("scales", 4, {"scales": (0.0, 1.0)})
BEST = (0.7, 0.1, 0.4, 0.3)
LIMITS = Limits(seconds=60, memory_bytes=4 << 30, file_bytes=1 << 20)


@pytest.fixture
def optimiser(tmp_path: Path) -> Any:
    """The optimiser in its worker; skips where the library is missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("cma")
    calls = iter(range(1000))

    def advance(job: dict[str, Any]) -> dict[str, Any]:
        folder = tmp_path / str(next(calls))
        folder.mkdir()
        answer = run_worker(cmaes.WORKER, job, folder, LIMITS).value
        assert {p.name for p in folder.iterdir()} <= {"result.json", "noise.txt"}
        return answer

    return advance


def job(dimensions: int = 4, told: Any = (), seed: int = 1) -> dict[str, Any]:
    return {"start": [0.25] * dimensions, "sigma": 0.2, "seed": seed, "told": list(told)}


def run(method: Any, budget: int) -> Search:
    def answer(operator: Any) -> Outcome:
        scales = operator.get("scales", operator.get("weights"))
        miss = sum((s - best) ** 2 for s, best in zip(scales, BEST, strict=True))
        return Outcome(("1" * round(1000 * (2 - miss)) + "0" * round(1000 * miss),), (round(-miss * 1e9),))

    made = Search(SPACE, method, Objective("worst", ("a",), ("a",)), budget, digest,
                  lambda tasks: (answer(t.operator) for t in tasks))  # fmt: skip
    list(made.steps())
    return made


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(_: str) -> str:
        raise PackageNotFoundError

    monkeypatch.setattr(cmaes, "version", missing)
    monkeypatch.setattr(cmaes_worker, "cma", None)
    for call in (library, lambda: cmaes_worker.work(job(), tmp_path)):
        with pytest.raises(UsageError) as caught:
            call()
        assert "studbook[search]" in caught.value.advice


@pytest.mark.train
def test_the_same_seed_and_costs_propose_the_same_inside_the_unit_cube(optimiser: Any) -> None:
    first = optimiser(job())["asked"]
    assert optimiser(job())["asked"] == first != optimiser(job(seed=2))["asked"]
    assert all(0.0 <= x <= 1.0 for point in first for x in point)
    costs = [float(i) for i in range(len(first))]
    second = optimiser(job(told=[costs]))["asked"]
    assert second != first
    assert second != optimiser(job(told=[costs[::-1]]))["asked"]


@pytest.mark.train
def test_costs_of_another_generation_are_refused(optimiser: Any) -> None:
    with pytest.raises(StudbookError, match="1 costs"):
        optimiser(job(told=[[1.0]]))


@pytest.mark.train
def test_a_run_that_has_converged_begins_anew_with_twice_the_population(optimiser: Any) -> None:
    told: list[list[float]] = []
    size = len(optimiser(job())["asked"])
    while len(asked := optimiser(job(told=told))["asked"]) == size:
        told.append([0.0] * size)
        assert len(told) < 200
    assert told
    assert len(asked) == 2 * size
    # The new run is part of what seed and costs say, too.
    assert optimiser(job(told=told))["asked"] == asked


@pytest.mark.train
def test_a_space_of_one_gene_can_be_searched(optimiser: Any) -> None:
    method = CmaSearch(make_space("split", 2, {}), 1, optimiser)
    assert {len(p.genome) for p in method.ask()} == {1}


@pytest.mark.train
def test_it_comes_closer_than_the_soup_and_than_its_first_generation(optimiser: Any) -> None:
    made = run(CmaSearch(SPACE, 3, optimiser), 85)
    assert len(made.evaluated) == 85
    best = made.evaluated[made.best()]
    assert made.best() > 16
    assert all(abs(int(n) / 1000 - want) < 0.15 for n, want in zip(best.genome.split(), BEST, strict=True))


@pytest.mark.train
def test_a_lab_searches_with_it_and_two_labs_come_to_the_same(
    optimiser: Any, prepared_lab: Place, tmp_path: Path
) -> None:
    receipts = []
    for name in ("one", "two"):
        with prepared_lab.copy(tmp_path / name).open() as lab:
            found = lab.search(CLUSTER, Request(method="cma", evaluations=11, seed=4))
            assert found.record.settings["library"] == library()
            receipts.append(found.receipt)
    assert receipts[0] == receipts[1]
