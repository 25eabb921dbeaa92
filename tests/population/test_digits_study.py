"""The study on digits keeps running with the functions it is about; its figures are made by `make proof`."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.train
FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "studies" / "digits.py"


@pytest.fixture(scope="module")
def study() -> ModuleType:
    """The script as a module."""
    pytest.importorskip("sklearn")
    spec = importlib.util.spec_from_file_location("digits_study", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def charter(study: ModuleType) -> dict[str, Any]:
    """The charter with a handful of children."""
    told: dict[str, Any] = json.loads(study.CHARTER.read_text(encoding="utf-8"))
    return told | {"children": 30}


def test_all_arms_run_and_equal_seeds_give_equal_figures(study: ModuleType, charter: dict[str, Any]) -> None:
    first, again = study.run_seed(1, charter), study.run_seed(1, charter)
    assert first == again and {*charter["arms"], *charter["baselines"]} <= first.keys()
    assert all(0.0 <= value <= 1.0 for value in first.values())


def test_the_archive_keeps_its_size_and_the_answers_of_its_members(study: ModuleType, charter: dict[str, Any]) -> None:
    network, data = study.Network(charter["network"]["hidden"]), study.data_of(1, charter["data"])
    start = study.founders(network, data, 1, charter)
    found = study.evolve(network, start, data.evolve, charter["arms"]["full"], charter, 1)
    assert len(found.members) == len(found.weights) == charter["archive"]
    for weights, member in zip(found.weights, found.members, strict=True):
        assert member.correct == "".join("1" if hit else "0" for hit in network.right(weights, data.evolve))


def test_mixing_without_a_split_point_ends_at_either_parent(study: ModuleType) -> None:
    first, second = study.np.array([1.0, 0.0, 2.0]), study.np.array([0.0, 1.0, 1.0])
    assert study.mixed(first, second, 0.0, 3) == pytest.approx(first)
    assert study.mixed(first, second, 1.0, 3) == pytest.approx(second)
    assert study.mixed(first, second, 0.0, 1) == pytest.approx([first[0], *second[1:]])


def test_the_page_cites_the_charter_that_is_there(study: ModuleType) -> None:
    found = json.loads((FILE.parents[2] / "docs" / "proof" / "digits.json").read_text(encoding="utf-8"))
    assert found["charter_sha256"] == study.hashlib.sha256(study.CHARTER.read_bytes()).hexdigest()
    assert [run["seed"] for run in found["runs"]] == json.loads(study.CHARTER.read_text())["seeds"]
