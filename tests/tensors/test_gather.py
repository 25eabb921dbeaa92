from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studbook.errors import ParentsDoNotFit, UsageError
from studbook.tensors.gather import NEW, OWN, Gathered, RowPlan
from studbook.tensors.reductions import total
from studbook.tensors.sources import ArraySource
from studbook.tensors.storage import RAW, narrow, widen

NAME = "embed.weight"
F32 = np.float32


def source(rows: int = 7, columns: int = 5, storage: Any = "f32", seed: int = 0) -> ArraySource:
    values = np.random.default_rng(seed).normal(size=(rows, columns)).astype(F32)
    values[0, 0] = -0.0
    tensors = {"norm.weight": np.ones(3, F32), NAME: narrow(values, storage)}
    return ArraySource(hashlib.sha256(b"gather %d" % seed).hexdigest(), tensors)


def table(view: Any, name: str = NAME) -> np.ndarray:
    return view.flat(name).reshape(view.dims(name))


def plan(*rows: int, **fields: Any) -> RowPlan:
    return RowPlan(np.array(rows, np.int64), **fields)


@pytest.mark.parametrize("storage", ["f32", "f16", "bf16"])
def test_rows_are_copied_bit_for_bit_in_the_planned_order(storage):
    model = source(storage=storage)
    view = Gathered(model, {NAME: plan(6, 0, 0, 3, 4, 5, 1)})
    assert view.dims(NAME) == (7, 5)
    assert view.names == model.names
    assert view.storage(NAME) == storage
    raw = np.empty(35, RAW[storage])
    view.fill(NAME, 0, raw)
    whole = np.empty(35, RAW[storage])
    model.fill(NAME, 0, whole)
    assert raw.tobytes() == whole.reshape(7, 5)[[6, 0, 0, 3, 4, 5, 1]].tobytes()


def test_tensors_without_a_plan_pass_through():
    view = Gathered(source(), {NAME: plan(1)})
    assert view.flat("norm.weight").tobytes() == source().flat("norm.weight").tobytes()
    assert view.dims("norm.weight") == (3,)


def test_new_rows_are_zeros_or_one_vector_or_the_mean_of_the_named_rows():
    model = source()
    rows = table(model)
    assert (table(Gathered(model, {NAME: plan(2, NEW)}))[1] == 0).all()
    vector = np.arange(5, dtype=F32)
    assert (table(Gathered(model, {NAME: plan(NEW, 2, vector=vector)}))[0] == vector).all()
    mean = table(Gathered(model, {NAME: plan(2, NEW, means={1: ((0, 3), (0, 5), (0, 6))})}))[1]
    assert mean.tobytes() == (((rows[3] + rows[5]) + rows[6]) / F32(3)).tobytes()


def test_a_mean_is_rounded_once_to_the_storage():
    model = source(storage="bf16")
    rows = table(model)
    view = Gathered(model, {NAME: plan(NEW, means={0: ((0, 1), (0, 2), (0, 3))})})
    exact = ((rows[1] + rows[2]) + rows[3]) / F32(3)
    assert table(view)[0].tobytes() == widen(narrow(exact, "bf16")).tobytes()
    wide = Gathered(model, {NAME: plan(NEW, means={0: ((0, 1), (0, 2), (0, 3))}, storage="f32")})
    assert table(wide)[0].tobytes() == exact.tobytes()
    assert table(wide)[0].tobytes() != table(view)[0].tobytes()


def test_a_new_row_can_be_made_of_new_rows_before_it():
    model = source()
    rows = table(model)
    means = {2: ((OWN, 0), (OWN, 1)), 3: ((OWN, 2), (OWN, 0))}
    found = table(Gathered(model, {NAME: plan(4, 5, NEW, NEW, means=means)}))
    third = (rows[4] + rows[5]) / F32(2)
    assert found[2].tobytes() == third.tobytes()
    assert found[3].tobytes() == ((third + rows[4]) / F32(2)).tobytes()


def test_a_long_chain_of_new_rows_is_no_deep_recursion():
    count = 3000
    means = {k + 1: ((OWN, k), (OWN, 0)) for k in range(count)}
    model = ArraySource(source().sha256, {NAME: np.full((1, 2), 8, F32)})
    view = Gathered(model, {NAME: plan(0, *[NEW] * count, means=means)})
    assert (view.read(NAME, 2 * count, 2 * count + 2) == 8).all()


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 40])
def test_the_average_of_the_leading_rows_sums_each_column_as_the_contract_sums_a_tensor(rows):
    model = source(rows=rows)
    view = Gathered(model, {NAME: plan(*range(rows), NEW, NEW, average=rows)})
    expected = [F32(total(np.ascontiguousarray(column)) / rows) for column in table(model).T]
    assert table(view)[rows].tolist() == expected
    assert table(view)[rows + 1].tolist() == expected


def test_rows_come_from_donors_and_mixed_storages_are_widened():
    model, donor = source(storage="bf16"), source(rows=9, seed=1)
    view = Gathered(model, {NAME: RowPlan(np.array([1, 8, 2]), np.array([0, 1, 1]))}, [donor])
    assert view.storage(NAME) == "f32"
    assert (table(view) == np.stack([table(model)[1], table(donor)[8], table(donor)[2]])).all()
    only = Gathered(model, {NAME: RowPlan(np.array([1, 2]), np.array([0, 0]))}, [donor])
    assert only.storage(NAME) == "bf16"


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_any_range_equals_that_part_of_the_whole(data):
    columns = data.draw(st.integers(1, 4))
    model, donor = (
        source(columns=columns, storage=data.draw(st.sampled_from(["f32", "bf16"]))),
        source(9, columns, seed=1),
    )
    index = np.array(data.draw(st.lists(st.integers(-1, 6), min_size=1, max_size=12)), np.int64)
    origin = np.array([data.draw(st.integers(0, 1)) for _ in index], np.int64)
    means = {
        row: ((1, 8), (0, row % 7), *([(OWN, 0)] if row and index[0] != NEW else []))
        for row in np.flatnonzero(index == NEW).tolist()
        if data.draw(st.booleans())
    }
    view = Gathered(model, {NAME: RowPlan(index, origin, means)}, [donor])
    expected = np.zeros((index.size, columns), F32)
    sources = [table(model), table(donor)]
    for row, (place, k) in enumerate(zip(index, origin, strict=True)):
        if place != NEW:
            expected[row] = sources[k][place]
        elif row in means:
            for k2, part in means[row]:
                expected[row] += expected[part] if k2 == OWN else sources[k2][part]
            expected[row] /= F32(len(means[row]))
    expected = widen(narrow(expected, view.storage(NAME)))
    start = data.draw(st.integers(0, expected.size))
    stop = data.draw(st.integers(start, expected.size))
    assert view.read(NAME, start, stop).tobytes() == expected.reshape(-1)[start:stop].tobytes()


def test_threads_read_the_same_bytes():
    means = {k + 7: ((OWN, k), (OWN, k + 1)) for k in range(40)}
    view = Gathered(source(), {NAME: plan(*range(7), *[NEW] * 40, NEW, means=means, average=7)})
    with ThreadPoolExecutor(8) as pool:
        found = {part.tobytes() for part in pool.map(lambda _: view.flat(NAME), range(32))}
    assert found == {
        Gathered(source(), {NAME: plan(*range(7), *[NEW] * 40, NEW, means=means, average=7)}).flat(NAME).tobytes()
    }


def test_the_digest_names_the_sources_and_every_part_of_the_plan():
    donor = source(seed=1)
    vector = np.ones(5, F32)
    plans = [
        plan(0, 1),
        plan(1, 0),
        plan(0, NEW),
        plan(0, NEW, vector=vector),
        plan(0, NEW, vector=vector * 2),
        plan(0, NEW, average=1),
        plan(0, NEW, means={1: ((0, 0),)}),
        plan(0, NEW, means={1: ((0, 1),)}),
        plan(0, NEW, means={1: ((0, 0), (0, 0))}),
        plan(0, 1, storage="bf16"),
        RowPlan(np.array([0, 1]), np.array([0, 1])),
    ]
    views = [Gathered(source(), {NAME: p}, [donor]) for p in plans]
    views += [Gathered(source(), {NAME: plans[0]}), Gathered(source(), {"norm.weight": plan(0, 1)})]
    digests = [view.sha256 for view in views]
    assert len(set(digests)) == len(digests)
    assert all(len(d) == 64 for d in digests)
    assert Gathered(source(), {NAME: plan(0, 1)}, [donor]).sha256 == digests[0]


@pytest.mark.parametrize(
    "bad",
    [
        plan(7),
        plan(-2),
        plan(),
        RowPlan(np.array([0], np.int32)),  # type: ignore[arg-type]
        RowPlan(np.array([0]), np.array([1])),
        RowPlan(np.array([0]), np.array([0, 0])),
        plan(0, NEW, vector=np.zeros(4, F32)),
        plan(0, NEW, vector=np.zeros(5)),
        plan(0, average=2),
        plan(0, NEW, average=2),
        plan(0, means={0: ((0, 0),)}),
        plan(0, NEW, means={1: ()}),
        plan(0, NEW, means={2: ((0, 0),)}),
        plan(0, NEW, means={1: ((0, 7),)}),
        plan(0, NEW, means={1: ((1, 0),)}),
        plan(0, NEW, means={1: ((OWN, 1),)}),
        plan(NEW, NEW, means={1: ((OWN, 0),)}),
    ],
)
def test_a_plan_that_names_what_is_not_there_is_refused(bad):
    with pytest.raises(UsageError) as caught:
        Gathered(source(), {NAME: bad})
    assert caught.value.reason == "gather.plan"
    assert NAME in str(caught.value)


def test_sources_that_do_not_fit_are_refused():
    cases = {
        "gather.tensor": source().sha256,
        "gather.shape": source().sha256,
        "gather.digest": "me",
    }
    tensors = {"gather.tensor": {"x": np.ones((7, 5), F32)}, "gather.shape": {NAME: np.ones((7, 4), F32)}}
    for reason, digest in cases.items():
        donor = ArraySource(digest, tensors.get(reason, {NAME: np.ones((7, 5), F32)}))
        with pytest.raises(ParentsDoNotFit) as caught:
            Gathered(source(), {NAME: plan(0)}, [donor])
        assert caught.value.reason == reason
    with pytest.raises(ParentsDoNotFit):
        Gathered(source(), {"absent": plan(0)})


def test_a_plan_knows_whether_it_changes_anything():
    assert plan(0, 1, 2).same(3)
    assert not plan(0, 1).same(3)
    assert not plan(0, 2, 1).same(3)
    assert not plan(0, 1, 2, storage="f32").same(3)
    assert not RowPlan(np.arange(3), np.array([0, 1, 0])).same(3)
    assert RowPlan(np.arange(3), np.zeros(3, np.int64)).same(3)
