"""Reports on parents that say something else than the parents: each lie, well signed, is refused and named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from checkpoint_fixtures import write_llama
from lab_fixtures import CLUSTER, PARENTS, PERSON, Place, problems
from studbook.errors import DigestDiffers, StudbookError
from studbook.lab import Lab
from studbook.lab.replay import check_record
from studbook.lab.sources import inherited_data
from studbook.records import Check, CompatibilityReport, DataSource, Measure, SourceManifest, replace
from studbook.records.sources import TokenizerChange

OTHER = "0" * 64


@pytest.fixture(scope="module")
def home(prepared_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A lab in which models were compared, with rows and without, and checkpoints; only copy it."""
    folder = tmp_path_factory.mktemp("compared")
    place = prepared_lab.copy(folder)
    with place.open() as lab:
        lab.compare("base", PARENTS, CLUSTER)
        lab.compare("base", PARENTS[:1])
        # Approved by nobody to be bred from, but a model of the lab: it names no base, and does not pass.
        assert not lab.compare(PARENTS[0], PARENTS[1:]).passed
        write_llama(folder / "one", 0)
        lab.register(write_llama(folder / "two", 1, folder / "one"))
        lab.register(folder / "one")
        lab.compare("one", ["two"])
    return place


@pytest.fixture
def lab(home: Place, tmp_path: Path) -> Iterator[Lab]:
    with home.copy(tmp_path / "copy").open() as opened:
        yield opened


def report(lab: Lab, *, checkpoints: bool) -> CompatibilityReport:
    """The richest report on models, or the one on checkpoints."""
    names = {
        "architecture" in {c.name for c in r.checks}: r for _, r in reversed(list(lab.desk.all(CompatibilityReport)))
    }
    return names[checkpoints]


def told(lab: Lab, lie: CompatibilityReport) -> StudbookError | None:
    lab.desk.workspace.commit(lie)
    entry = lab.desk.workspace.ledger.entries[-1]
    try:
        check_record(lab.desk.at(entry.sequence), entry)
    except StudbookError as error:
        return error
    return None


def changed(record: CompatibilityReport, field: str, value: float) -> dict[str, Any]:
    first, *rest = record.pairs
    measure: Measure = getattr(first, field)
    return {"pairs": (msgspec.structs.replace(first, **{field: msgspec.structs.replace(measure, value=value)}), *rest)}


def test_every_true_report_holds(home: Place) -> None:
    assert problems(home) == []


def test_a_report_on_models_that_its_bytes_do_not_bear_out_is_refused_and_the_field_is_named(lab: Lab) -> None:
    true = report(lab, checkpoints=False)
    assert true.pairs
    assert true.anchor != OTHER
    first, *rest = true.checks
    change = TokenizerChange(
        parent=true.parents[0], kept=1, moved=0, dropped=0, added=0, text_bytes=0, base_tokens=0, parent_tokens=0,
        differing=0, failed=0, detail="",
    )  # fmt: skip
    lies: list[tuple[str, dict[str, Any]]] = [
        ("checks", {"checks": (msgspec.structs.replace(first, detail="all is well"), *rest)}),
        ("checks", {"checks": tuple(rest)}),
        ("checks", {"checks": (*true.checks, Check(name="quality", passed=True, detail="the best there is"))}),
        ("passed", {"passed": False}),
        ("pairs", {"pairs": ()}),
        ("pairs", changed(true, "cosine", 0.5)),
        ("pairs", changed(true, "sign_conflict", 0.0)),
        ("pairs", {"pairs": true.pairs * 2}),
        ("tokenizers", {"tokenizers": (change,)}),
        ("anchor", {"anchor": OTHER}),
        ("checks", {"base": true.parents[0], "parents": true.parents[1:]}),
    ]
    for field, fields in lies:
        found = told(lab, replace(true, **fields))
        assert isinstance(found, DigestDiffers), (field, fields)
        assert (found.reason, found.where) in {("report.field", f"report: {f}") for f in (field, "pairs")}, found


def test_rows_that_are_no_slice_of_registered_data_are_refused(lab: Lab) -> None:
    true = report(lab, checkpoints=False)
    data = {d: lab.desk.workspace.get(d, SourceManifest).source for d in inherited_data(lab.desk, [true.base])}
    slices = {f.sha256 for source in data.values() if isinstance(source, DataSource) for f in source.files}
    assert true.anchor in slices
    licence = next(m for _, m in lab.desk.all(SourceManifest) if m.name == "CC0-1.0")
    found = told(lab, replace(true, anchor=licence.artifact.sha256))
    assert isinstance(found, DigestDiffers)


def test_a_pass_over_a_check_that_failed_is_refused(lab: Lab) -> None:
    failed = next(r for _, r in lab.desk.all(CompatibilityReport) if not r.passed)
    checks = tuple(msgspec.structs.replace(c, passed=True) for c in failed.checks)
    for fields in ({"passed": True}, {"passed": True, "checks": checks}):
        found = told(lab, replace(failed, **fields))
        assert isinstance(found, DigestDiffers)
        assert found.reason == "report.field"


def test_a_report_on_checkpoints_that_its_files_do_not_bear_out_is_refused(lab: Lab) -> None:
    true = report(lab, checkpoints=True)
    first, *rest = true.checks
    for field, fields in (
        ("checks", {"checks": (msgspec.structs.replace(first, detail="all are Mamba"), *rest)}),
        ("passed", {"passed": not true.passed}),
        ("anchor", {"anchor": OTHER}),
    ):
        found = told(lab, replace(true, **fields))
        assert isinstance(found, DigestDiffers)
        assert found.where == f"report: {field}"


def test_verify_names_the_report_that_lies(lab: Lab) -> None:
    true = report(lab, checkpoints=True)
    lie = lab.desk.workspace.commit(replace(true, passed=not true.passed))
    assert [Path(p.where).stem for p in lab.verify().problems] == [lie]


def test_a_report_on_what_was_withdrawn_since_is_no_problem(lab: Lab) -> None:
    lab.withdraw("two", PERSON, "its producer asked")
    found = lab.verify()
    assert found.ok, found.problems
    assert any("compatibility-report" in gone.where for gone in found.absent)
