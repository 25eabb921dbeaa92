"""A small lab in which admitted descendants may be parents, two generations were held and the populations reviewed."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab_fixtures import PERSON, Place
from release_fixtures import change_policy
from studbook.lab.evolving import Evolution, Plan

PLAN = Plan(generations=2, evaluations=4, sources=("policy", "random"), size=3)


def let_in(place: Place, folder: Path, rule: str) -> None:
    """Say in a new policy which models bred here may be parents."""
    with place.open() as lab:
        population = {**lab.policies.show()["population"], "descendants": rule}
        change_policy(lab, folder, population=population)


def hold(place: Place, person: str | None = PERSON, **changes: object) -> Evolution:
    """Hold the generations of the plan, with changes."""
    with place.open() as lab:
        return lab.evolve(PLAN._replace(**changes), person)


@pytest.fixture(scope="session")
def evolved_lab(prepared_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Two generations, their winner promoted by a person, and a review; read it, or copy it."""
    folder = tmp_path_factory.mktemp("evolved")
    place = prepared_lab.copy(folder)
    let_in(place, folder, "admitted")
    hold(place)
    with place.open() as lab:
        lab.review()
    return place
