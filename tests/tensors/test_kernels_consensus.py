from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from studbook.breeding.operators import (
    Breadcrumbs,
    CrossoverSplit,
    DareTies,
    Della,
    FederatedUpdate,
    Inputs,
    Operator,
    SparseTaskDelta,
    Ties,
    operator_types,
)
from studbook.breeding.operators.base import in_turn
from studbook.breeding.operators.bounds import gram, wide_delta
from studbook.breeding.operators.della import _ranks
from studbook.breeding.operators.model_stock import _plain_row_tables
from studbook.breeding.operators.run import stream
from studbook.breeding.operators.tiled import TILE, change_table, row_change_tables
from studbook.breeding.operators.weighted import table_of_changes
from studbook.errors import BytesLie
from studbook.tensors import kernels_consensus, kernels_tables
from studbook.tensors.philox import stream_for
from studbook.tensors.reductions import dot
from studbook.tensors.selection import Cut, count_of
from studbook.tensors.sinks import MemorySink
from studbook.tensors.sources import ArraySource
from studbook.tensors.storage import narrow
from studbook.tensors.thresholds import CutStore

COMPILED_HERE = (
    "breadcrumbs/1",
    "crossover-split/1",
    "dare-norm-matched/1",
    "dare-ties/1",
    "della/1",
    "dequantise/1",
    "federated-update/1",
    "linear-sum/1",
    "model-stock/1",
    "multislerp/1",
    "nearswap/1",
    "soup/1",
    "sparse-task-delta/1",
    "ties/1",
)
DIMS = {"tok_embeddings.weight": (37, 30), "layers.0.wq.weight": (3, 134), "norm.weight": (2,), "one.weight": (5, 1)}
# How base and parents are stored (the last entry goes on), and the child.
STORED = [
    pytest.param(("bf16",), "bf16", id="bf16"),
    pytest.param(("f16",), "f16", id="f16"),
    pytest.param(("f32",), "f32", id="f32"),
    pytest.param(("f32", "f16", "bf16"), "bf16", id="mixed"),
]


def several(kind: type[Operator]) -> int:
    fewest, most = kind.parents_needed
    return max(fewest, min(3, most))


CASES = [
    pytest.param(operator, id=f"{operator.tag()}#{place}")
    for kind in operator_types()
    if kind.tag() in COMPILED_HERE
    for place, operator in enumerate(kind.examples(several(kind)))
]


def name_of(place: int) -> str:
    return hashlib.sha256(b"consensus %d" % place).hexdigest()


def family(parents: int, stored: tuple[str, ...], seed: int, dims: Mapping[str, tuple[int, ...]] = DIMS) -> Inputs:
    """A base and parents with ties, zeros of both signs, subnormals, and elements that no parent changed."""
    rng = np.random.default_rng(seed)
    base = {name: np.round(rng.normal(size=shape), 2).astype(np.float32) for name, shape in dims.items()}
    sources = []
    for place in range(parents + 1):
        kept = stored[min(place, len(stored) - 1)]
        tensors = {}
        for name, values in base.items():
            change = np.round(rng.normal(size=values.shape) * 0.1, 2) * (rng.random(values.shape) < 0.8) * (place > 0)
            values = (values + change).astype(np.float32)
            values[rng.random(values.shape) < 0.03] = -0.0
            values[rng.random(values.shape) < 0.03] = 0.0
            values[rng.random(values.shape) < 0.03] = 1e-39 if kept != "f16" else -3e-7
            tensors[name] = narrow(values.reshape(-1), kept).reshape(values.shape)
        sources.append(ArraySource(name_of(place), tensors))
    return Inputs(base=sources[0], parents=tuple(sources[1:]))


def child(operator: Operator, inputs: Inputs, stored: str, **how: object) -> dict[str, bytes]:
    sink = MemorySink({name: inputs.base.dims(name) for name in inputs.names}, stored)
    stream(operator, inputs, sink, **how)
    return {name: raw.tobytes() for name, raw in sink.tensors.items()}


# -- the same bytes --------------------------------------------------------------------------------------------------


def test_every_tensor_of_every_one_of_these_operators_has_a_kernel():
    assert {case.values[0].tag() for case in CASES} == set(COMPILED_HERE)
    for case in CASES:
        operator = case.values[0]
        inputs = family(several(type(operator)), ("f32",), 0)
        surveys = operator.survey_model(inputs, in_turn)
        assert all(operator.kernel(name, inputs, surveys[name]) for name in DIMS), operator


@pytest.mark.parametrize(("stored", "wanted"), STORED)
@pytest.mark.parametrize("operator", CASES)
@settings(deadline=None, max_examples=4)
@given(seed=st.integers(0, 2**32), chunk=st.sampled_from([7, 64, 1021, 1 << 18]), threads=st.sampled_from([1, 2]))
def test_a_kernel_gives_the_bytes_of_rows(operator, stored, wanted, seed, chunk, threads):
    inputs = family(several(type(operator)), stored, seed)
    fast = child(operator, inputs, wanted, chunk=chunk, threads=threads)
    assert fast == child(operator, inputs, wanted, compiled=False)


@pytest.mark.parametrize("operator", CASES)
def test_tensors_of_several_tiles_and_blocks_are_no_exception(operator):
    inputs = family(several(type(operator)), ("bf16",), 8, {"a": (2, TILE - 1), "b": (70, 1001)})
    fast = child(operator, inputs, "bf16", chunk=TILE + 5, threads=2)
    assert fast == child(operator, inputs, "bf16", compiled=False)


weight = st.sampled_from([0.0, 0.3, 1.0, 1000.0]) | st.floats(0.0, 2.0)
share = st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0.0, 1.0)


@st.composite
def merges(draw) -> Operator:
    """A merge of three parents with any settings, parents of different densities among them."""

    def three(each):
        return tuple(draw(each) for _ in range(3))

    elect, normalize = draw(st.booleans()), draw(st.booleans())
    signed = weight if normalize else weight | weight.map(lambda w: -w)
    common = {"weights": three(signed), "normalize": normalize, "skip": (), "scale": draw(st.floats(-4.0, 4.0))}
    drawn = {"densities": three(share), "rescale": draw(st.booleans()), "seed": draw(st.integers(0, 99))}
    middle = st.floats(0.2, 0.8)
    return draw(
        st.sampled_from(
            [
                Ties(densities=three(share), **common),
                Breadcrumbs(densities=three(share), gammas=three(share), elect=elect, **common),
                DareTies(**drawn, **common),
                Della(**{**drawn, "densities": three(middle)}, epsilons=(0.0, 0.1, 0.19), elect=elect, **common),
                SparseTaskDelta(densities=three(share), scales=three(st.floats(-4.0, 4.0)), skip=()),
            ]
        )
    )


@settings(deadline=None, max_examples=60)
@given(merge=merges(), seed=st.integers(0, 2**32), chunk=st.sampled_from([50, 129, 1000]))
@example(
    merge=DareTies(
        weights=(0.5,) * 3, normalize=False, scale=1.0, skip=(), densities=(0.5, 0.5, 1e-72), rescale=True, seed=0
    ),
    seed=0,
    chunk=50,
)
def test_whatever_a_merge_is_set_to_its_kernel_gives_the_bytes_of_rows(merge, seed, chunk):
    inputs = family(3, ("bf16",), seed)
    assert child(merge, inputs, "f32", chunk=chunk) == child(merge, inputs, "f32", compiled=False)


@pytest.mark.parametrize("scale", [1.0, -2.0])
@pytest.mark.parametrize("normalize", [True, False])
def test_votes_that_tie_elect_plus_in_the_kernel_too(scale, normalize):
    base = np.array([0.0, -0.0, 1.0, 2.0], np.float32)
    changes = np.array([[0.5, -0.5, 0.25, 0.0], [-0.5, 0.5, -0.25, -0.0]], np.float32)
    sources = [ArraySource(name_of(i), {"w": base + c}) for i, c in enumerate(np.vstack([0 * base, changes]))]
    merge = Ties(densities=(1.0, 1.0), weights=(1.0, 1.0), normalize=normalize, scale=scale, skip=())
    found = child(merge, Inputs(sources[0], tuple(sources[1:])), "f32")["w"]
    wanted = base + np.float32(scale) * np.array([0.5, 0.5, 0.25, 0.0], np.float32)
    wanted[3] = base[3]
    assert found == wanted.tobytes()


def test_a_parent_whose_factor_is_zero_is_not_read_by_the_kernel():
    inputs = family(3, ("f32",), 1)
    far = ArraySource(name_of(9), {n: inputs.base.read(n, 0, inputs.size(n)).reshape(d) + 1e3 for n, d in DIMS.items()})
    parents = (inputs.parents[0], far, inputs.parents[1])
    operator = FederatedUpdate(weights=(1.0, 1.0, 1.0), clip=1e60, limit=1e3, scale=1.0, skip=())
    given_ = Inputs(inputs.base, parents)
    surveys = operator.survey_model(given_, in_turn)
    kernel = operator.kernel("norm.weight", given_, surveys["norm.weight"])
    assert kernel is not None
    assert kernel.reads == (inputs.base, *inputs.parents[:2])
    assert child(operator, given_, "f32") == child(operator, given_, "f32", compiled=False)


def test_a_split_reads_only_the_parents_it_copies_from():
    inputs = family(3, ("f32",), 1, {"a": (10,), "b": (10,), "c": (10,)})
    operator = CrossoverSplit(points=(0.5, 0.5))
    surveys = operator.survey_model(inputs, in_turn)
    found = [operator.kernel(name, inputs, surveys[name]) for name in inputs.names]
    first, _, third = inputs.parents
    assert [kernel.reads for kernel in found if kernel] == [(first,), (first, third), (third,)]


# -- ranks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [1, 2, 63, kernels_consensus.SHORT, kernels_consensus.SHORT + 1, 3000])
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(["any", "ties", "zeros", "subnormal"]))
def test_ranks_are_those_of_a_stable_sort_with_the_lowest_index_first(columns, seed, kind):
    rng = np.random.default_rng(seed)
    size = columns * 3
    row = {
        "any": rng.integers(0, 1 << 32, size, dtype=np.uint32).view(np.float32),
        "ties": rng.integers(-2, 3, size).astype(np.float32),
        "zeros": np.where(rng.random(size) < 0.5, 0.0, -0.0).astype(np.float32),
        "subnormal": rng.integers(0, 9, size, dtype=np.uint32).view(np.float32),
    }[kind]
    row = np.where(np.isfinite(row), row, np.float32(1))
    # Of a word and a limit of one's own rank only the word below it keeps; the factor shows the rank itself.
    ranks = _ranks(row, columns)
    limits = np.arange(columns, dtype=np.uint64) % 2
    factors = np.float32(2.0) ** -(np.arange(columns, dtype=np.float32) % 8)
    found = row.copy()
    with np.errstate(all="ignore"):
        kernels_consensus.drop_ranked(found, columns, np.zeros(size, np.uint32), limits, factors)
        wanted = np.where(limits[ranks] > 0, row * factors[ranks], np.float32(0))
    assert found.tobytes() == wanted.tobytes()


# -- sums ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 15, 1040, 65_536, 65_537, 140_001])
def test_tables_of_changes_are_the_contracts_inner_products(size):
    inputs = family(3, ("bf16", "f32"), 5, {"w": (size,)})
    assert change_table(inputs, ("w",)) == table_of_changes("w", inputs)
    twice = gram(inputs, ("w", "w"), lambda k, n, s, e: wide_delta(inputs, k, n, s, e), 3)
    assert change_table(inputs, ("w", "w")) == twice
    base = inputs.base.flat("w").astype(np.float64)
    wide = [parent.flat("w").astype(np.float64) - base for parent in inputs.parents]
    assert change_table(inputs, ("w",)) == [[dot(x, y) for y in wide] for x in wide]
    diagonal = change_table(inputs, ("w",), pairs=False)
    assert [diagonal[k][k] for k in range(3)] == [dot(x, x) for x in wide]


@pytest.mark.parametrize("dims", [(1, 1), (7, 33), (900, 600), (2, 65_536), (3, 70_001)])
def test_tables_of_rows_are_those_of_the_plain_form(dims):
    inputs = family(3, ("f16",), 6, {"w": dims})
    fast, plain = (
        np.concatenate([table.reshape(3, 3, -1) for table in tables("w", inputs)], axis=2)
        for tables in (row_change_tables, _plain_row_tables)
    )
    assert fast.tobytes() == plain.tobytes()


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(0, 2**32), st.integers(1, 2**32))
def test_squares_of_what_is_kept_follow_the_fixed_lanes(size, seed, limit):
    rng = np.random.default_rng(seed)
    base, row = rng.normal(size=(2, size)).astype(np.float32)
    words = stream_for(seed, bytes(32), "w").words(0, size)
    change = row - base
    kept = np.where(words.astype(np.uint64) < limit, change, np.float32(0))
    assert kernels_tables.squares(base, row, words, np.uint32(limit - 1)) == (dot(change, change), dot(kept, kept))


# -- bounds ----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(merge=merges(), seed=st.integers(0, 2**32))
def test_the_compiled_form_of_a_bound_is_the_same_number(merge, seed):
    inputs = family(3, ("bf16",), seed, {"a": (66_001,), "b": (7, 9)})
    fast = merge.delta_bound(inputs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("studbook.breeding.operators.consensus.COMPILED", False)
        assert fast == merge.delta_bound(inputs)


# -- cuts from a cache -----------------------------------------------------------------------------------------------

THREE = (1.0, 2.0, 0.5)
CACHED = [
    Ties(densities=(0.3, 0.3, 0.6), weights=THREE, normalize=True, scale=0.7, skip=("*norm*",)),
    SparseTaskDelta(densities=(0.3, 0.3, 0.6), scales=THREE, skip=("*norm*",)),
    Breadcrumbs(
        densities=(0.3, 0.3, 0.6),
        gammas=(0.1, 0.1, 0.2),
        weights=THREE,
        elect=True,
        normalize=True,
        scale=0.7,
        skip=("*norm*",),
    ),
]
cached = pytest.mark.parametrize("merge", CACHED, ids=lambda merge: merge.tag())


@cached
def test_cached_cuts_change_no_byte_and_are_used(tmp_path, monkeypatch, merge):
    inputs = family(3, ("bf16",), 2)
    plain = child(merge, inputs, "bf16")
    assert child(merge, replace(inputs, cuts=CutStore(tmp_path / "cuts")), "bf16") == plain
    assert len(list((tmp_path / "cuts").iterdir())) == 3
    monkeypatch.setattr("studbook.breeding.operators.cuts.delta_cuts", None)
    assert child(merge, replace(inputs, cuts=CutStore(tmp_path / "cuts")), "bf16") == plain
    with pytest.raises(TypeError):
        child(merge, inputs, "bf16")


@cached
@pytest.mark.parametrize("parent", [0, 2])
def test_a_cache_that_lies_is_caught_removed_and_named(tmp_path, merge, parent):
    inputs = family(3, ("bf16",), 4)
    name = "tok_embeddings.weight"
    k = count_of(merge.densities[parent], inputs.size(name))
    if isinstance(merge, Breadcrumbs):
        k += count_of(merge.gammas[parent], inputs.size(name))
    store = CutStore(tmp_path)
    store.keep(name_of(parent + 1), name_of(0), name, k, Cut(0x3DCCCCCD, 500))
    store.save()
    with pytest.raises(BytesLie, match=f"parent {parent}") as caught:
        child(merge, replace(inputs, cuts=CutStore(tmp_path)), "bf16")
    assert caught.value.reason == "cuts.count"
    assert name in str(caught.value)
    assert child(merge, replace(inputs, cuts=CutStore(tmp_path)), "bf16") == child(merge, inputs, "bf16")


def test_a_parent_named_twice_has_one_cut_and_two_votes():
    inputs = family(1, ("f32",), 3)
    twice = Inputs(inputs.base, inputs.parents * 2)
    merge = Ties(densities=(0.3, 0.3), weights=(1.0, 1.0), normalize=True, scale=1.0, skip=())
    once = Ties(densities=(0.3,), weights=(1.0,), normalize=True, scale=1.0, skip=())
    assert child(merge, twice, "f32") == child(once, inputs, "f32")


# -- machine code ----------------------------------------------------------------------------------------------------


def test_a_compiled_function_calls_nothing_compiled_in_another_module():
    checked = 0
    for module in (kernels_consensus, kernels_tables):
        for value in vars(module).values():
            if getattr(value, "py_func", None) is None or value.py_func.__module__ != module.__name__:
                continue
            for called in value.py_func.__code__.co_names:
                found = getattr(module, called, None)
                home = getattr(getattr(found, "py_func", found), "__module__", module.__name__)
                assert home in (module.__name__, "numpy", "builtins"), (value, called)
            checked += 1
    assert checked > 18


ELSEWHERE = """
import hashlib, json, re, sys
if sys.argv[1] == "without":
    sys.modules["numba"] = None
import numpy as np
from studbook.breeding.operators import Inputs, operator_types
from studbook.breeding.operators.run import stream
from studbook.tensors import kernels, kernels_consensus
from studbook.tensors.philox import stream_for
from studbook.tensors.sinks import MemorySink
from studbook.tensors.sources import ArraySource
from studbook.tensors.storage import narrow

DIMS = (57, 211)

def model(place):
    size = DIMS[0] * DIMS[1]
    values = stream_for(0, bytes(32), "w").noise(0, size)
    values = values + stream_for(place, bytes(32), "w").noise(0, size) * np.float32(0.05 * place)
    return ArraySource(hashlib.sha256(b"%d" % place).hexdigest(), {"w": narrow(values, "bf16").reshape(DIMS)})

models = [model(place) for place in range(4)]
digests = {}
for kind in operator_types():
    if kind.tag() in sys.argv[2:]:
        count = max(kind.parents_needed[0], min(3, kind.parents_needed[1]))
        for place, operator in enumerate(kind.examples(count)):
            sink = MemorySink({"w": DIMS}, "bf16")
            stream(operator, Inputs(models[0], tuple(models[1 : 1 + count])), sink, chunk=4001)
            digests[f"{kind.tag()}#{place}"] = hashlib.sha256(sink.tensors["w"].tobytes()).hexdigest()
code = ""
if sys.argv[1] == "fresh":
    for function in (kernels_consensus.vote, kernels_consensus.keep_largest):
        code += "".join(function.inspect_asm().values())
fused = len(re.findall(r"\\bv?fn?m(?:add|sub)|\\bfml[as]\\b", code))
packed = len(re.findall(r"\\bv?(?:mul|add|div)p[sd]\\b|\\bf(?:mul|add|div)\\s+v", code))
json.dump([digests, kernels.COMPILED, fused, packed], sys.stdout)
"""


def elsewhere(how: str, *tags: str, **environment: str) -> list:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", ELSEWHERE, how, *tags],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def native():
    return elsewhere("native", *COMPILED_HERE)


def test_without_numba_the_bytes_are_the_same(native):
    digests, compiled, *_ = elsewhere("without", *COMPILED_HERE)
    assert native[1]
    assert not compiled
    assert digests == native[0]
    assert len(digests) == len(CASES)


def test_machine_code_is_vectorised_and_never_fused_where_it_could_be(native, tmp_path):
    features = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+avx,+fma,+bmi2"}
    digests, _, fused, packed = elsewhere("fresh", "ties/1", NUMBA_CACHE_DIR=str(tmp_path), **features)
    assert fused == 0
    assert packed > 10
    assert digests.items() <= native[0].items()
    assert len(digests) == 3
