"""Templates, receipts and manifests that tell something else than their bytes: each lie, well signed, is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from checkpoint_fixtures import write_llama
from lab_fixtures import CLUSTER, PERSON, Place, founder, problems
from studbook.breeding.recipes import recipe_sha256
from studbook.errors import DigestDiffers, OutOfOrder, OutsideAllowlist, RecordRefused, StudbookError
from studbook.lab import Lab
from studbook.lab.breeding import reproduce_manifest
from studbook.lab.replay import check_record
from studbook.records import (
    Blob,
    CandidateManifest,
    Check,
    CompatibilityReport,
    LineageTemplate,
    OperatorReceipt,
    digest,
    replace,
)

DARE = {"operator": "dare/1", "keep": 0.5, "scales": 0.3, "seed": 3, "skip": []}
OTHER = "0" * 64


class Chain(NamedTuple):
    """One candidate's records."""

    template: LineageTemplate
    receipt: OperatorReceipt
    manifest: CandidateManifest


def chain_of(lab: Lab, artifact: str) -> Chain:
    manifest = next(m for _, m in lab.desk.candidates() if m.artifact.sha256 == artifact)
    get = lab.desk.workspace.get
    return Chain(get(manifest.template, LineageTemplate), get(manifest.receipt, OperatorReceipt), manifest)


def told(
    lab: Lab,
    true: Chain,
    template: Mapping[str, Any] | None = None,
    receipt: Mapping[str, Any] | None = None,
    manifest: Mapping[str, Any] | None = None,
) -> StudbookError | None:
    """Sign and commit a chain with some fields changed, and what replaying its records says first."""
    first = len(lab.desk.workspace.ledger.entries)
    forged = replace(true.template, **(template or {}))
    lab.desk.workspace.commit(forged)
    made = replace(true.receipt, **{"template": digest(forged), **(receipt or {})})
    lab.desk.workspace.commit(made)
    links = {"template": digest(forged), "receipt": digest(made)}
    lab.desk.workspace.commit(replace(true.manifest, **(links | dict(manifest or {}))))
    for entry in lab.desk.workspace.ledger.entries[first:]:
        try:
            check_record(lab.desk.at(entry.sequence), entry)
        except StudbookError as error:
            return error
    return None


@pytest.fixture(scope="module")
def bred(prepared_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, str]:
    """The small lab with one candidate, and the candidate's digest; only copy it."""
    place = prepared_lab.copy(tmp_path_factory.mktemp("bred"))
    with place.open() as lab:
        return place, lab.breed(CLUSTER, DARE)


@pytest.fixture
def lab(bred: tuple[Place, str], tmp_path: Path) -> Iterator[Lab]:
    with bred[0].copy(tmp_path / "copy").open() as opened:
        yield opened


@pytest.fixture
def true(lab: Lab, bred: tuple[Place, str]) -> Chain:
    return chain_of(lab, bred[1])


def test_the_true_chain_is_accepted(lab: Lab, true: Chain) -> None:
    entries = [e for e in lab.desk.entries() if e.record_kind in (r.kind() for r in true)]
    assert len(entries) == 3
    for entry in entries:
        check_record(lab.desk.at(entry.sequence), entry)


def first_input(chain: Chain, **changes: Any) -> dict[str, Any]:
    first, *others = chain.receipt.inputs
    return {"inputs": (msgspec.structs.replace(first, **changes), *others)}


RECEIPT_LIES: dict[str, Any] = {
    "seed": lambda c: {"operator": {**c.receipt.operator, "seed": 4}},
    "operator version": lambda c: {"operator": {**c.receipt.operator, "operator": "dare/2"}},
    "unknown parameter": lambda c: {"operator": {**c.receipt.operator, "extra": 1}},
    "missing parameter": lambda c: {"operator": {k: v for k, v in c.receipt.operator.items() if k != "seed"}},
    "order of parents": lambda c: {"inputs": (c.receipt.inputs[0], *c.receipt.inputs[:0:-1])},
    "parent left out": lambda c: {"inputs": c.receipt.inputs[:-1]},
    "base as a parent": lambda c: first_input(c, role="parent"),
    "input changed meanwhile": lambda c: first_input(c, after=OTHER),
    "numeric contract": lambda c: {"numeric_contract": OTHER},
    "another output": lambda c: {"output": Blob(sha256=c.template.base, size=c.receipt.output.size)},
    "size of the output": lambda c: {"output": Blob(sha256=c.receipt.output.sha256, size=c.receipt.output.size + 1)},
    "measured change": lambda c: {"delta_norm": c.receipt.delta_norm / 2},
    "change above the declared bound": lambda c: {"delta_norm": c.template.expected.delta_norm * 2},
}


@pytest.mark.parametrize("lie", RECEIPT_LIES)
def test_a_receipt_that_lies_is_refused(lab: Lab, true: Chain, lie: str) -> None:
    found = told(lab, true, receipt=RECEIPT_LIES[lie](true))
    assert isinstance(found, DigestDiffers)
    assert found.where


def operator(chain: Chain, **changes: Any) -> dict[str, Any]:
    """Fields of a template whose operator, and the identity that follows from it, are changed alike."""
    fields = {**chain.template.operator, **changes}
    return {"operator": fields, "recipe_sha256": recipe_sha256(chain.template.base, chain.template.parents, fields)}


def expected(chain: Chain, **changes: Any) -> dict[str, Any]:
    return {"expected": msgspec.structs.replace(chain.template.expected, **changes)}


TEMPLATE_LIES: dict[str, tuple[type[StudbookError], Any]] = {
    "seed": (DigestDiffers, lambda c: {"operator": {**c.template.operator, "seed": 4}}),
    "order of parents": (DigestDiffers, lambda c: {"parents": c.template.parents[::-1]}),
    "another base": (DigestDiffers, lambda c: {"base": c.template.parents[0]}),
    "operator version": (OutsideAllowlist, lambda c: operator(c, operator="dare/2")),
    "unknown parameter": (RecordRefused, lambda c: operator(c, extra=1)),
    "parameter of another type": (RecordRefused, lambda c: operator(c, seed="3")),
    "parameter out of range": (OutsideAllowlist, lambda c: operator(c, keep=7.0)),
    "storage": (DigestDiffers, lambda c: expected(c, label="q8_0")),
    "size": (DigestDiffers, lambda c: expected(c, size_bytes=c.template.expected.size_bytes - 64)),
    "layout": (DigestDiffers, lambda c: expected(c, layout_sha256=OTHER)),
    "tokenizer": (DigestDiffers, lambda c: expected(c, tokenizer_sha256=OTHER)),
    "bound": (DigestDiffers, lambda c: expected(c, delta_norm=c.receipt.delta_norm / 2)),
    "relative bound": (DigestDiffers, lambda c: expected(c, relative_delta=c.template.expected.relative_delta / 2)),
}


@pytest.mark.parametrize("lie", TEMPLATE_LIES)
def test_a_template_that_lies_is_refused_although_receipt_and_manifest_follow_it(
    lab: Lab, true: Chain, lie: str
) -> None:
    error, change = TEMPLATE_LIES[lie]
    fields = change(true)
    follow = {"operator": fields["operator"]} if "operator" in fields else {}
    assert type(told(lab, true, template=fields, receipt=follow)) is error


MANIFEST_LIES: dict[str, Any] = {
    "artifact": lambda c: {"artifact": Blob(sha256=c.template.base, size=c.manifest.artifact.size)},
    "family": lambda c: {"family": "blend"},
    "name": lambda c: {"name": "dare-00000000"},
    "purpose": lambda c: {"purpose": "ablation"},
    "licence": lambda c: {"licence": "MIT"},
    "data": lambda c: {"data": ()},
    "fallback": lambda c: {"fallback": c.template.parents[0]},
    "checks": lambda c: {"checks": (Check(name="layout", passed=True, detail="as declared"),)},
}


@pytest.mark.parametrize("lie", MANIFEST_LIES)
def test_a_manifest_that_lies_is_refused_and_the_field_is_named(lab: Lab, true: Chain, lie: str) -> None:
    found = told(lab, true, manifest=MANIFEST_LIES[lie](true))
    assert isinstance(found, DigestDiffers)
    assert found.where == f"candidate: {lie}"
    assert found.reason == "candidate.field"


def test_a_template_under_a_policy_that_is_no_longer_in_force_is_refused(lab: Lab, true: Chain) -> None:
    _, policy = lab.desk.policy
    lab.desk.workspace.commit(replace(policy, policy_version=policy.policy_version + 1), owner=PERSON)
    found = told(lab, true, template={"purpose": "ablation"}, manifest={"purpose": "ablation"})
    assert found is not None
    assert found.where == "template: policy"


def test_a_report_that_did_not_pass_or_is_of_others_covers_no_template(lab: Lab, true: Chain) -> None:
    assert true.template.compatibility is not None
    report = lab.desk.workspace.get(true.template.compatibility, CompatibilityReport)
    for change in ({"passed": False}, {"parents": report.parents[:1]}, {"base": report.parents[0]}):
        forged = lab.desk.workspace.commit(replace(report, **change))
        found = told(lab, true, template={"compatibility": forged})
        assert found is not None
        assert found.where == "template: compatibility"


@pytest.mark.parametrize("place", ["base", "parent"])
def test_a_source_that_nobody_approved_is_found_as_base_and_as_parent(lab: Lab, true: Chain, place: str) -> None:
    lab.register(founder("ceiling"))
    stranger = lab.desk.find_model("ceiling")
    base = stranger if place == "base" else true.template.base
    parents = (*true.template.parents[:1], stranger) if place == "parent" else true.template.parents
    assert true.template.compatibility is not None
    report = lab.desk.workspace.get(true.template.compatibility, CompatibilityReport)
    cover = lab.desk.workspace.commit(replace(report, base=base, parents=parents))
    work = recipe_sha256(base, parents, true.template.operator)
    fields = {"base": base, "parents": parents, "compatibility": cover, "recipe_sha256": work}
    found = told(lab, true, template=fields)
    assert isinstance(found, OutOfOrder)
    assert "ceiling is registered but nobody approved it" in found.message


def test_verify_names_the_file_of_a_record_that_lies(bred: tuple[Place, str], tmp_path: Path) -> None:
    place = bred[0].copy(tmp_path / "lying")
    with place.open() as lab:
        true = chain_of(lab, bred[1])
        forged = lab.desk.workspace.commit(replace(true.receipt, operator={**true.receipt.operator, "seed": 4}))
    assert [Path(where).stem for where in problems(place)] == [forged]


def test_a_lie_that_template_and_receipt_share_is_found_by_breeding_again(lab: Lab, true: Chain) -> None:
    fields = operator(true, seed=4)
    assert told(lab, true, template=fields, receipt={"operator": fields["operator"]}) is None
    manifests = [m for _, m in lab.desk.candidates() if m.artifact == true.manifest.artifact]
    liar = next(m for m in manifests if lab.desk.workspace.get(m.template, LineageTemplate).operator["seed"] == 4)
    with pytest.raises(DigestDiffers, match="recomputing gave"):
        reproduce_manifest(lab.desk, liar)


# -- checkpoints -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, str]:
    """A lab with a merged checkpoint, and its digest; only copy it."""
    folder = tmp_path_factory.mktemp("merged")
    place = Place(folder / "lab", folder / "keys")
    write_llama(folder / "base", 0)
    write_llama(folder / "first", 1, folder / "base")
    write_llama(folder / "second", 2, folder / "base")
    Lab.init(place.path, PERSON, place.keys)
    with place.open() as lab:
        for name in ("base", "first", "second"):
            lab.register(folder / name)
            lab.approve(name, PERSON)
        return place, lab.breed(None, DARE, ["first", "second"], "base")


def recipe(chain: Chain, **changes: Any) -> dict[str, Any]:
    """Fields of a template whose checkpoint recipe, and the identity that follows from it, are changed alike."""
    fields = {**chain.template.operator, **changes}
    return {"operator": fields, "recipe_sha256": digest(fields)}


CHECKPOINT_LIES: dict[str, tuple[type[StudbookError], Any]] = {
    "recipe without its identity": (DigestDiffers, lambda c: {"operator": {**c.template.operator, "dtype": "f32"}}),
    "order of parents": (DigestDiffers, lambda c: recipe(c, parents=c.template.operator["parents"][::-1])),
    "unknown parameter": (RecordRefused, lambda c: recipe(c, colour="red")),
    "another recipe version": (RecordRefused, lambda c: recipe(c, recipe="checkpoint-recipe/2")),
    "dtype": (DigestDiffers, lambda c: {**recipe(c, dtype="f32"), **expected(c, label="f32")}),
    "size": (DigestDiffers, lambda c: expected(c, size_bytes=c.template.expected.size_bytes + 1)),
    "layout": (DigestDiffers, lambda c: expected(c, layout_sha256=OTHER)),
    "tokenizer": (DigestDiffers, lambda c: expected(c, tokenizer_sha256=OTHER)),
    "bound": (DigestDiffers, lambda c: expected(c, delta_norm=c.receipt.delta_norm / 2)),
}


@pytest.mark.parametrize("lie", CHECKPOINT_LIES)
def test_a_checkpoint_that_was_declared_otherwise_is_refused(
    merged: tuple[Place, str], tmp_path: Path, lie: str
) -> None:
    error, change = CHECKPOINT_LIES[lie]
    with merged[0].copy(tmp_path / "copy").open() as lab:
        true = chain_of(lab, merged[1])
        fields = change(true)
        follow = {"operator": fields["operator"]} if "operator" in fields else {}
        assert type(told(lab, true, template=fields, receipt=follow)) is error


def test_a_true_checkpoint_and_its_records_verify(merged: tuple[Place, str]) -> None:
    assert problems(merged[0]) == []
