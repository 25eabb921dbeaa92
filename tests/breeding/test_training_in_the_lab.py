"""A lab that trains: the worker sees the declared slices alone, the receipt says so, and reproduce gives the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import structs, to_builtins

pytest.importorskip("torch")

from lab_fixtures import CLUSTER, Place, founder, problems
from studbook.adapters.reader import parse_adapter
from studbook.breeding.operators import AdapterFuse
from studbook.breeding.operators.run import compute
from studbook.breeding.recipes import check_recipe
from studbook.breeding.sources import as_inputs
from studbook.breeding.trained_worker import PACKAGE
from studbook.breeding.worker import OUTPUT
from studbook.environment import training_environment
from studbook.errors import DigestDiffers, OutsideAllowlist
from studbook.lab import Lab
from studbook.lab.recipe_sources import Given, gather_recipes
from studbook.lab.rederive import check_receipt_record
from studbook.models.slm import read_slm
from studbook.policy import check_operator
from studbook.records import CandidateManifest, FailureCluster, LineageTemplate, OperatorReceipt

pytestmark = pytest.mark.train
COMMON: dict[str, Any] = {
    "steps": 3,
    "rate": 1e-3,
    "batch": 8,
    "seed": 1,
    "reach": 0.5,
    "rehearsal": 0.5,
    "data": "cluster",
    "rehearsed": "others",
}
TUNE = {"operator": "fine-tune/1", **COMMON}
TEACH = {"operator": "distil/1", **COMMON, "imitation": 0.5, "temperature": 2.0}
ADAPT = {
    "operator": "adapter-train/1",
    **COMMON,
    "rank": 4,
    "alpha": 8.0,
    "targets": ["layers.*.w?.weight"],
    "licence": "CC0-1.0",
}


@pytest.fixture(scope="module")
def trained(prepared_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, dict[str, str]]]:
    """A lab in which each operator trained once, and the candidates' digests by family."""
    place = prepared_lab.copy(tmp_path_factory.mktemp("trained"))
    with place.open() as lab:
        bred = {recipe["operator"].split("/")[0]: lab.breed(CLUSTER, recipe) for recipe in (TUNE, TEACH, ADAPT)}
    yield place, bred


def papers(lab: Lab, artifact: str) -> tuple[CandidateManifest, OperatorReceipt, LineageTemplate]:
    manifest = next(m for _, m in lab.desk.candidates() if m.artifact.sha256 == artifact)
    return (
        manifest,
        lab.desk.workspace.get(manifest.receipt, OperatorReceipt),
        lab.desk.workspace.get(manifest.template, LineageTemplate),
    )


def test_a_receipt_holds_slices_seed_and_steps_and_is_bound_to_its_environment(trained):
    place, bred = trained
    with place.open(writer=False) as lab:
        for artifact in bred.values():
            manifest, receipt, template = papers(lab, artifact)
            cluster = lab.desk.workspace.get(template.cluster, FailureCluster)
            assert receipt.operator["data"] == [cluster.training_slice]
            assert len(receipt.operator["rehearsed"]) == 6
            assert (receipt.operator["seed"], receipt.operator["steps"]) == (1, 3)
            assert receipt.reproducibility == "environment-bound"
            assert receipt.header.environment == training_environment()
            assert cluster.data in manifest.data
            assert "exact on the recorded environment only" in manifest.trade_offs[0]
            assert all(check.passed for check in manifest.checks)
            assert "seccomp" in receipt.isolation


def test_a_receipt_that_calls_trained_bytes_exact_is_refused(trained):
    place, bred = trained
    with place.open(writer=False) as lab:
        _, receipt, _ = papers(lab, bred["fine-tune"])
        check_receipt_record(lab.desk, receipt)
        with pytest.raises(DigestDiffers) as caught:
            check_receipt_record(lab.desk, structs.replace(receipt, reproducibility="exact"))
    assert (caught.value.reason, caught.value.where) == ("receipt.field", "receipt: reproducibility")


def test_reproduce_gives_the_same_bytes_in_the_same_environment(trained, tmp_path):
    place, bred = trained
    with place.open(writer=False) as lab:
        for family, artifact in bred.items():
            assert lab.reproduce(artifact, tmp_path / family) == artifact


def test_verify_derives_every_trained_candidate_again_and_finds_nothing(trained):
    assert problems(trained[0]) == []


def test_a_trained_package_fused_over_its_model_is_the_child(trained, tmp_path):
    place, bred = trained
    with place.open(writer=False) as lab:
        lab.reproduce(bred["adapter-train"], tmp_path / "again")
    child = read_slm(tmp_path / "again" / OUTPUT)
    package = parse_adapter((tmp_path / "again" / PACKAGE).read_bytes())
    base = read_slm(founder("base") / "base.slm")
    assert package.meta.base_sha256 == base.sha256
    assert package.meta.kind == "trained"
    fused = compute(AdapterFuse(), as_inputs(base, [base, package]))
    assert all(fused[name].tobytes() == child.dense(name).tobytes() for name in fused)
    changed = [name for name in fused if fused[name].tobytes() != base.dense(name).tobytes()]
    assert changed
    assert all(name.startswith("layers.") and "norm" not in name for name in changed)


def test_a_package_states_the_licence_it_inherits_and_no_other(opened: Lab):
    with pytest.raises(OutsideAllowlist) as caught:
        opened.breed(CLUSTER, ADAPT | {"licence": "MIT"})
    assert caught.value.reason == "training.licence"
    assert "CC0-1.0" in caught.value.advice


def test_a_generation_inherits_its_parents_training_with_one_number_changed(trained):
    place, bred = trained
    with place.open(writer=False) as lab:
        given = Given(lab.desk, CLUSTER, (bred["fine-tune"], bred["distil"]), 0, 41)
        found = gather_recipes(given, ("inherit",)).operators
        assert found == gather_recipes(given, ("inherit",)).operators
        assert found != gather_recipes(given._replace(seed=42), ("inherit",)).operators
        for child, parent in zip(found, (TUNE, TEACH), strict=True):
            changed = {field for field in parent if child[field] != parent[field]}
            assert len(changed - {"seed"}) <= 1
            assert changed
            assert (child["data"], child["rehearsed"]) == ("cluster", "others")
            check_operator(lab.desk.policy[1], to_builtins(check_recipe(child)))
