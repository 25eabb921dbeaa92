"""What holds of operators that train before anything is trained, and of what they make of it afterwards; no torch here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from msgspec import structs, to_builtins

from lab_fixtures import CLUSTER
from studbook.breeding.operators import Inputs, Trained, decode_operator, trained_types
from studbook.breeding.operators.run import compute
from studbook.breeding.produce import delta_norm
from studbook.breeding.recipes import check_recipe, expand, wants_one_parent
from studbook.breeding.recompute import check_environment
from studbook.environment import has_torch, training_environment
from studbook.errors import OutOfOrder, OutsideAllowlist, UsageError
from studbook.lab import Lab
from studbook.policy import check_operator
from studbook.records import Blob, OperatorReceipt
from studbook.tensors.sources import ArraySource

SHAPES = {"tok_embeddings.weight": (30, 12), "layers.0.wq.weight": (12, 12), "norm.weight": (12,)}
FINE_TUNE: dict[str, Any] = {
    "operator": "fine-tune/1",
    "steps": 3,
    "rate": 1e-3,
    "batch": 8,
    "seed": 1,
    "reach": 0.5,
    "rehearsal": 0.5,
    "data": "cluster",
    "rehearsed": "others",
}
EXAMPLES = [pytest.param(e, id=f"{k.tag()}#{i}") for k in trained_types() for i, e in enumerate(k.examples(2))]
examples = pytest.mark.parametrize("operator", EXAMPLES)


def source(place: int, scale: float, start: ArraySource | None = None) -> ArraySource:
    rng = np.random.default_rng(place)
    tensors = {n: (rng.normal(size=d) * scale).astype(np.float32) for n, d in SHAPES.items()}
    if start is not None:
        tensors = {n: start.read(n, 0, v.size).reshape(v.shape) + v for n, v in tensors.items()}
    return ArraySource(f"{place:064x}", tensors)


def trained(scale: float) -> Inputs:
    base = source(0, 1.0)
    parent = source(1, 0.1, base)
    return Inputs(base=base, parents=(parent,), learned=source(2, scale, parent))


def moved(operator: Trained, inputs: Inputs) -> float:
    child = ArraySource("3" * 64, dict(compute(operator, inputs)))
    return delta_norm(operator.start(inputs), child)


@examples
def test_a_record_reads_back_as_itself(operator):
    assert decode_operator(to_builtins(operator, builtin_types=())) == operator


@examples
def test_a_learned_change_within_reach_is_the_child_byte_for_byte(operator):
    inputs = trained(0.001)
    child = compute(operator, inputs, chunk=7)
    assert all(child[n].tobytes() == inputs.learned.read(n, 0, child[n].size).tobytes() for n in child)


@examples
def test_a_learned_change_beyond_reach_is_made_shorter_and_stays_within_the_bound(operator):
    inputs = trained(3.0)
    operator = structs.replace(operator, reach=0.25)
    size = delta_norm(
        operator.start(inputs), ArraySource("4" * 64, {n: np.zeros(d, np.float32) for n, d in SHAPES.items()})
    )
    assert moved(operator, inputs) == pytest.approx(0.25 * size, rel=1e-4)
    child = ArraySource("3" * 64, dict(compute(operator, inputs)))
    assert delta_norm(inputs.base, child) <= operator.delta_bound(inputs)
    for chunk, threads in ((1, 1), (13, 2), (1 << 20, 3)):
        again = compute(operator, inputs, chunk=chunk, threads=threads)
        assert all(again[n].tobytes() == child.read(n, 0, again[n].size).tobytes() for n in again)


@examples
def test_without_its_own_worker_there_is_nothing_to_compute(operator):
    with pytest.raises(OutOfOrder) as caught:
        compute(operator, replace(trained(0.1), learned=None))
    assert caught.value.reason == "training.worker"


@examples
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"data": ()}, "data"),
        ({"data": ("1" * 64, "1" * 64)}, "rehearsed"),
        ({"rehearsed": ("1" * 64,), "rehearsal": 0.5}, "rehearsed"),
        ({"rehearsed": (), "rehearsal": 0.5}, "rehearsed"),
        ({"rehearsed": ("2" * 64,), "rehearsal": 0.0}, "rehearsed"),
    ],
)
def test_slices_that_contradict_the_recipe_are_refused_with_their_field(operator, changes, field):
    with pytest.raises(OutsideAllowlist) as caught:
        structs.replace(operator, **changes).validate()
    assert (caught.value.reason, caught.value.where) == ("operator.slices", f"{operator.tag()}: {field}")


def test_a_recipe_names_its_slices_by_what_the_cluster_gives():
    own, others = ("a" * 64,), ("b" * 64, "c" * 64)
    operator = expand(FINE_TUNE, 1, (own, others))
    assert (operator.data, operator.rehearsed) == (own, others)
    assert check_recipe(FINE_TUNE).tag() == "fine-tune/1"
    assert wants_one_parent(FINE_TUNE)


def test_the_policy_bounds_the_budget_of_training(opened: Lab):
    _, policy = opened.desk.policy
    check_operator(policy, to_builtins(check_recipe(FINE_TUNE)))
    for field, value in (("steps", 50_000), ("rate", 0.5), ("reach", 3.0), ("batch", 1024)):
        with pytest.raises(OutsideAllowlist):
            check_operator(policy, to_builtins(check_recipe(FINE_TUNE | {field: value})))


def test_rows_that_the_cluster_does_not_give_are_refused_before_anything_runs(opened: Lab):
    for field in ("data", "rehearsed"):
        with pytest.raises(OutsideAllowlist) as caught:
            opened.breed(CLUSTER, FINE_TUNE | {field: ["d" * 64]})
        assert (caught.value.reason, caught.value.where) == ("training.slice", f"fine-tune/1: {field}")
    assert not list(opened.desk.all(OperatorReceipt))


@pytest.mark.skipif(has_torch(), reason="torch is installed here")
def test_without_torch_training_is_refused_with_the_way_to_get_it(opened: Lab):
    with pytest.raises(UsageError) as caught:
        opened.breed(CLUSTER, FINE_TUNE)
    assert caught.value.reason == "usage.extra"
    assert "studbook[train]" in caught.value.advice


def test_what_is_bound_to_another_environment_is_not_recomputed_here(opened: Lab):
    receipt = structs.replace(
        OperatorReceipt(
            header=opened.desk.header,
            template="0" * 64,
            operator={},
            inputs=(),
            numeric_contract="0" * 64,
            isolation=(),
            output=Blob(sha256="0" * 64, size=1),
            delta_norm=0.0,
            reproducibility="environment-bound",
        ),
        header=structs.replace(opened.desk.header, environment="another-machine torch-1.0"),
    )
    with pytest.raises(OutOfOrder) as caught:
        check_environment(receipt)
    assert caught.value.reason == "training.environment"
    assert "torch-1.0" in caught.value.message
    assert training_environment() in caught.value.message
    check_environment(structs.replace(receipt, reproducibility="exact"))
