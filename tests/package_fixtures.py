"""Packages: records without a lab for the rules, and the small lab with two specialists installed."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from lab_fixtures import PERSON, Place
from studbook.lab import Lab
from studbook.lab.packages import Wanted
from studbook.records import (
    Blob,
    Compatibility,
    Envelope,
    Header,
    Measure,
    PackageEvent,
    PackageEvidence,
    RuntimeContract,
    SkillPackage,
    digest,
)
from studbook.records.packages import PackageState
from studbook.runtime.packages import PERMISSIONS, Artifact

HEADER = Header(source="studbook", version="0", environment="test", owner=PERSON)
SPECIALISTS = {"rot": "cap-rot", "odd": "dup-odd"}


def sha(text: str) -> str:
    """A digest that stands for something."""
    return hashlib.sha256(text.encode()).hexdigest()


def measure(value: float) -> Measure:
    """So many bytes."""
    return Measure(value=value, unit="bytes", basis="observed", method="counted")


def package(name: str = "rot", version: str = "1.0.0", **changes: Any) -> SkillPackage:
    """A package record, with changes."""
    fields: dict[str, Any] = {
        "header": HEADER,
        "id": name,
        "package_version": version,
        "artifact": Blob(sha256=sha("model"), size=1000),
        "base": sha("base"),
        "tokenizer": sha("tokenizer"),
        "stack": (),
        "clusters": ("rot",),
        "requires": (),
        "input": {"type": "string"},
        "output": {"type": "string"},
        "permissions": ("answer", "stream"),
        "licence": "CC0-1.0",
        "envelope": Envelope(
            file_bytes=measure(1000),
            decoded_bytes=measure(4000),
            kv_bytes_per_position=measure(64),
            scratch_bytes=measure(100),
        ),
        "evidence": PackageEvidence(
            basis="admission", record=sha("admission"), smoke=sha("smoke"), scorecards=(sha("card"),)
        ),
        "unsupported": (),
        "trade_offs": (),
        "fallback": None,
        "rollback": None,
        "compatibility": Compatibility(slm=1, engine=sha("engine"), abi=1),
    }
    return SkillPackage(**{**fields, **changes})


def artifact(**changes: Any) -> Artifact:
    """What was found in the bytes of `package`, with changes."""
    found = Artifact(
        sha256=sha("model"),
        size=1000,
        stack=(),
        stack_bytes=0,
        tokenizer=sha("tokenizer"),
        base=sha("base"),
        decoded_bytes=4000,
        licence="CC0-1.0",
        engine=sha("engine"),
        abi=1,
    )
    return found._replace(**changes)


def contract(**changes: Any) -> RuntimeContract:
    """A contract that allows `package`, with changes."""
    fields: dict[str, Any] = {
        "header": HEADER,
        "contract_version": 1,
        "permissions": PERMISSIONS,
        "licences": ("CC0-1.0",),
        "maximum_packages": 10,
        "maximum_bytes": 2000,
        "maximum_decoded_bytes": 5000,
        "agreed_by": PERSON,
        "reason": "",
    }
    return RuntimeContract(**{**fields, **changes})


def event(
    held: SkillPackage, before: PackageState | None, after: PackageState, previous: str | None
) -> tuple[str, PackageEvent]:
    """An event of a package with its digest."""
    record = PackageEvent(
        header=HEADER,
        package=digest(held),
        before=before,
        after=after,
        previous=previous,
        contract=digest(contract()),
        checks=(),
        reason="",
    )
    return digest(record), record


def install_specialists(lab: Lab) -> None:
    """Agree to a contract; package and install the two approved parents for what each is good at."""
    lab.packages.contract(PERSON)
    for name, model in SPECIALISTS.items():
        lab.packages.make(name, model, Wanted(version="1.0.0", clusters=(name,)))
        lab.packages.install(name)


@pytest.fixture(scope="session")
def packaged_lab(prepared_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The small lab with two specialists installed; read it, or copy it."""
    place = prepared_lab.copy(tmp_path_factory.mktemp("packaged"))
    with place.open() as lab:
        install_specialists(lab)
    return place


@pytest.fixture
def host(packaged_lab: Place, tmp_path: Any) -> Place:
    """A copy of the lab with packages, to change."""
    return packaged_lab.copy(tmp_path / "host")
