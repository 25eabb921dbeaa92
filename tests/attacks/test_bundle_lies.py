"""Bundles recorded by whoever holds the bundle key, that say what the lab does not: `verify` finds each and names it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from bundle_fixtures import STACK
from lab_fixtures import PARENTS, Place, problems
from release_fixtures import told
from studbook.errors import DigestDiffers
from studbook.lab import Lab, assembling
from studbook.lab.assembling import Wanted
from studbook.lab.bundle_evidence import Evidence
from studbook.records import (
    AdapterFamilyReceipt,
    AssemblyReceipt,
    BundleRelease,
    LedgerEvidence,
    ModelManifest,
    ModulePlan,
    RuntimeSmoke,
    SelectorRegistry,
    digest,
    replace,
)

EVIL = "0" * 63 + "1"


@pytest.fixture
def lab(released_lab: Place, tmp_path: Path) -> Iterator[Lab]:
    """A lab that assembled its champion."""
    with released_lab.copy(tmp_path / "copy").open() as opened:
        opened.assemble("champion", tmp_path / "good", Wanted(STACK))
        yield opened


def newest(lab: Lab, kind: type) -> Any:
    return list(lab.desk.all(kind))[-1][1]


def test_a_release_that_says_what_is_not_so_is_found_and_its_field_is_named(lab: Lab) -> None:
    honest: BundleRelease = newest(lab, BundleRelease)
    moves = {r.move for _, r in lab.desk.all(BundleRelease)}
    other = next(e.record for e in lab.desk.entries() if e.record_kind == "release-record/1")
    assert other not in moves
    lies: dict[str, Any] = {
        "channel": "shadow",
        "artifact": lab.desk.find_model(PARENTS[0]),
        "move": other,
        "page_build": EVIL,
    }
    for field, lie in lies.items():
        found = told(lab, replace(honest, **{field: lie}))
        assert found is not None and found.reason == "bundle.field", field
        if field != "channel":
            assert field in found.where
    assert len(problems(Place(lab.desk.workspace.path, lab.desk.workspace.keys.folder))) == len(lies)


@pytest.mark.parametrize(
    ("path", "to", "reason"),
    [
        (("profile",), "studbook-browser/9", "plan.profile"),
        (("fetch", "origin"), "*", "plan.origin-policy"),
        (("budgets", "model"), 1 << 40, "plan.model-budget"),
        (("stack",), (), "plan.stack"),
        (("calls",), (), "plan.graph"),
    ],
)
def test_a_plan_that_no_page_would_take_is_found(lab: Lab, path: tuple[str, ...], to: Any, reason: str) -> None:
    honest: ModulePlan = newest(lab, ModulePlan)
    value = to if len(path) == 1 else structs.replace(getattr(honest, path[0]), **{path[1]: to})
    found = told(lab, replace(honest, **{path[0]: value}))
    assert found is not None and found.reason == reason


def test_proofs_that_are_not_of_this_ledger_are_found(lab: Lab) -> None:
    honest: LedgerEvidence = newest(lab, LedgerEvidence)
    first, second, *rest = honest.entries
    mark = honest.checkpoint
    lies: list[dict[str, Any]] = [
        {"checkpoint": structs.replace(mark, size=mark.size - 1)},
        {"checkpoint": structs.replace(mark, root=EVIL)},
        {"checkpoint": structs.replace(mark, origin="studbook/" + EVIL)},
        {"checkpoint": structs.replace(mark, size=10**6)},
        {"entries": (structs.replace(first, index=second.index), second, *rest)},
        {"entries": (structs.replace(first, line=second.line), second, *rest)},
        {"entries": (structs.replace(first, path=first.path[1:]), second, *rest)},
        {"note": honest.note.replace("— ", "— x", 1)},
    ]
    for lie in lies:
        assert told(lab, replace(honest, **lie)) is not None, lie
    assert told(lab, replace(honest, entries=(second, first, *rest))) is None


def test_a_manifest_that_shows_better_numbers_or_another_past_is_found(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = assembling.describe
    lies: list[dict[str, Any]] = [
        {"name": "flawless"},
        {"scores": lambda s: (structs.replace(s[0], champion_right=0), *s[1:])},
        {"lineage": lambda n: (n[0], *n[2:])},
    ]
    for number, lie in enumerate(lies):
        ((field, to),) = lie.items()

        def lying(desk: Any, evidence: Evidence, logits: Any, field: str = field, to: Any = to) -> ModelManifest:
            found = honest(desk, evidence, logits)
            return replace(found, **{field: to(getattr(found, field)) if callable(to) else to})

        with monkeypatch.context() as patched:
            patched.setattr(assembling, "describe", lying)
            if field != "scores":
                # Calibration is not compared item by item, so only the lab knows what the champion had.
                with pytest.raises(DigestDiffers, match="would be refused at evidence"):
                    lab.assemble("champion", tmp_path / f"refused-{number}")
            patched.setattr(assembling, "_checked", lambda bundle: bundle)
            lab.assemble("champion", tmp_path / f"lie-{number}")
    found = lab.verify().problems
    words = ("name is flawless", "model-manifest is", "lineage: fault")
    assert all(problem.what.startswith(word) for problem, word in zip(found, words, strict=True))


def test_evidence_that_is_older_than_what_there_was_is_found(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = assembling.gather(lab.desk, "champion")
    lab.review()
    assert assembling.gather(lab.desk, "champion").records["review"] == older.records["review"]
    lab.rollback("shadow", "to move something")
    smoke: RuntimeSmoke = next(s for _, s in lab.desk.all(RuntimeSmoke) if s.artifact == older.artifact)
    lab.desk.workspace.commit(replace(smoke, detail="loads and runs, once more"))
    with monkeypatch.context() as patched:
        patched.setattr(assembling, "gather", lambda *_: older)
        lab.assemble("champion", tmp_path / "older")
    found = lab.verify().problems
    assert len(found) == 1
    assert "evidence" in found[0].what


def test_a_registry_a_receipt_and_a_family_of_other_files_are_found_with_the_release_that_names_them(lab: Lab) -> None:
    release: BundleRelease = newest(lab, BundleRelease)
    registry: SelectorRegistry = newest(lab, SelectorRegistry)
    raised = replace(registry, model_byte_budget=1 << 40)
    found = told(lab, raised, replace(release, registry=digest(raised)))
    assert found is not None and found.reason == "registry.budget"
    receipt: AssemblyReceipt = newest(lab, AssemblyReceipt)
    other = replace(receipt, eval_case=EVIL)
    found = told(lab, other, replace(release, assembly_receipt=digest(other)))
    assert found is not None and found.reason == "bundle.field"
    assert newest(lab, AdapterFamilyReceipt).stack == newest(lab, ModulePlan).stack
