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
from hypothesis import given, settings
from hypothesis import strategies as st

from studbook.breeding.operators import Dare, Inputs, Operator, SignAwareMerge, operator_types
from studbook.breeding.operators.base import in_turn
from studbook.breeding.operators.compiled import products
from studbook.breeding.operators.run import stream
from studbook.errors import BytesLie, ParentsDoNotFit
from studbook.tensors import kernels, kernels_counting, kernels_cuts, reductions
from studbook.tensors.kernels_cuts import delta_cuts
from studbook.tensors.philox import Stream, philox4x32
from studbook.tensors.selection import Cut, count_of, top_k
from studbook.tensors.sinks import MemorySink
from studbook.tensors.sources import ArraySource
from studbook.tensors.stacks import Stack
from studbook.tensors.storage import RAW, narrow, non_finite, widen
from studbook.tensors.thresholds import CutStore

DIMS = {"tok_embeddings.weight": (37, 30), "layers.0.wq.weight": (3, 34), "norm.weight": (2,)}
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


def with_kernels() -> list[pytest.param]:
    """One case an operator that has a compiled form of some tensor, and the example with it."""
    found = []
    for kind in operator_types():
        for place, operator in enumerate(kind.examples(several(kind))):
            inputs = family(several(kind), ("f32",), 0)
            if operator.reference(inputs) is not inputs.base:
                continue
            surveys = operator.survey_model(inputs, in_turn)
            if any(operator.kernel(name, inputs, surveys[name]) for name in DIMS):
                found.append(pytest.param(operator, id=f"{operator.tag()}#{place}"))
    return found


def name_of(place: int) -> str:
    return hashlib.sha256(b"kernel %d" % place).hexdigest()


def family(parents: int, stored: tuple[str, ...], seed: int, dims: Mapping[str, tuple[int, ...]] = DIMS) -> Inputs:
    """A base and parents with ties, zeros of both signs and subnormals of their storage."""
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


@pytest.mark.parametrize(("stored", "wanted"), STORED)
@pytest.mark.parametrize("operator", with_kernels())
@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 2**32), chunk=st.sampled_from([1, 7, 64, 1021, 1 << 18]), threads=st.sampled_from([1, 2]))
def test_a_kernel_gives_the_bytes_of_rows(operator, stored, wanted, seed, chunk, threads):
    inputs = family(several(type(operator)), stored, seed)
    fast = child(operator, inputs, wanted, chunk=chunk if chunk > 1 else 97, threads=threads)
    assert fast == child(operator, inputs, wanted, compiled=False)


def test_the_operators_of_the_benchmark_have_kernels():
    tags = {case.values[0].tag() for case in with_kernels()}
    wanted = {"blend/1", "task-delta/1", "slerp/1", "dare/1", "sign-aware-merge/1", "mutation/1", "prune/1"}
    assert wanted | {"crossover/1", "quantise/1"} <= tags


@pytest.mark.parametrize("stored", ["bf16", "f16"])
def test_every_16_bit_number_is_widened_exactly(stored):
    raw = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16).view(RAW[stored])
    raw = raw[np.isfinite(widen(raw))]
    out = np.empty(raw.size, np.float32)
    Stack((raw,)).feed(kernels.convert, 0, 0, out)
    assert out.tobytes() == widen(raw).tobytes()


@pytest.mark.parametrize("stored", ["bf16", "f16", "f32"])
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32))
def test_any_f32_bits_are_rounded_as_storage_says(stored, seed):
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 1 << 32, 4096, dtype=np.uint32)
    # Half of them exactly between two neighbours of one of the 16-bit kinds, where ties go to even.
    bits[::4] = bits[::4] & np.uint32(0xFFFF0000) | np.uint32(0x8000)
    bits[1::4] = bits[1::4] & np.uint32(0xFFFFE000) | np.uint32(0x1000)
    f16_range = rng.integers(0x33000000, 0x47900000, 1024, dtype=np.uint32)
    values = np.concatenate([bits, f16_range, f16_range & np.uint32(0xFFFFF000)]).view(np.float32)
    out = np.empty(values.size, RAW[stored])
    Stack((values,)).feed(kernels.convert, 0, 0, out)
    assert out.tobytes() == narrow(values, stored).tobytes()


@settings(deadline=None)
@given(st.integers(0, 70), st.integers(0, 2**66), st.integers(0, 2**64 - 1))
def test_compiled_words_are_those_of_the_plain_generator(count, start, key):
    start %= 2**64 - 100
    found = Stream((key & 0xFFFFFFFF, key >> 32)).words(start, start + count)
    counters = [(i // 4 & 0xFFFFFFFF, i // 4 >> 32, 0, 0) for i in range(start, start + count)]
    blocks = philox4x32(np.array(counters, np.uint32).reshape(-1, 4), (key & 0xFFFFFFFF, key >> 32))
    assert found.tolist() == [int(blocks[i, (start + i) % 4]) for i in range(count)]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@settings(deadline=None)
@given(st.integers(0, 400), st.integers(0, 2**32))
def test_compiled_sums_follow_the_fixed_lanes(kind, size, seed):
    rng = np.random.default_rng(seed)
    left, right = (rng.normal(size=size) * 10.0 ** rng.integers(-20, 20, size)).astype(kind), rng.normal(size=size)
    wide = left.astype(np.float64)
    assert reductions.block_sum(left) == reductions._lanes(wide)
    assert reductions.block_squares(left) == reductions._lanes(wide * wide)
    assert reductions.block_dot(left, right) == reductions._lanes(wide * right)


@pytest.mark.parametrize("stored", ["bf16", "f16", "f32"])
@settings(deadline=None)
@given(st.integers(1, 300), st.data())
def test_a_value_that_is_not_finite_is_counted_and_placed(stored, size, data):
    values = np.linspace(-3, 3, size, dtype=np.float32)
    places = data.draw(st.sets(st.integers(0, size - 1), max_size=4))
    values[sorted(places)] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    assert non_finite(narrow(values, stored)) == (len(places), min(places, default=-1))


def test_products_of_sources_are_the_contracts_inner_products():
    inputs = family(3, ("bf16", "f32"), 5, {"w": (3, 130_001)})
    table = products("w", (inputs.base, *inputs.parents))
    flats = [source.flat("w") for source in (inputs.base, *inputs.parents)]
    assert table == [[reductions.dot(x, y) for y in flats] for x in flats]


# -- cuts ------------------------------------------------------------------------------------------------------------


def plain_cuts(inputs: Inputs, name: str, k: int) -> tuple[Cut, ...]:
    return tuple(plain_cut(parent.flat(name) - inputs.base.flat(name), k) for parent in inputs.parents)


def plain_cut(values: np.ndarray, k: int) -> Cut:
    return top_k(lambda: (values,), k, values.size)


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_cuts_found_together_are_those_found_one_by_one(data):
    size = data.draw(st.sampled_from([1, 2, 50, 32_768, 32_769, 300_000]))
    stored = data.draw(st.sampled_from([("bf16",), ("f32",), ("f16", "bf16")]))
    inputs = family(data.draw(st.integers(1, 5)), stored, data.draw(st.integers(0, 99)), {"w": (size,)})
    k = data.draw(st.integers(0, size) | st.sampled_from([0, 1, size - 1, size, size // 2]))
    assert delta_cuts(inputs.base, inputs.parents, "w", k) == plain_cuts(inputs, "w", k)


@pytest.mark.parametrize("held", [1, 2000, 40_000])
def test_cuts_are_exact_where_a_bracket_holds_too_many(monkeypatch, held):
    monkeypatch.setattr(kernels_cuts, "HELD", held)
    inputs = family(2, ("bf16",), 1, {"w": (200_000,)})
    for k in (1, 3000, 100_000, 199_000):
        assert delta_cuts(inputs.base, inputs.parents, "w", k) == plain_cuts(inputs, "w", k)


def test_cuts_are_exact_where_the_sample_misleads():
    # What is sampled is large; what is not is small, so the bracket lies above the cut.
    values = np.full(1_000_000, 1e-3, np.float32)
    for i in range(kernels_cuts.STRETCHES):
        start = (values.size - kernels_cuts.STRETCH) * i // (kernels_cuts.STRETCHES - 1)
        values[start : start + kernels_cuts.STRETCH] = 1.0
    sources = [ArraySource(name_of(i), {"w": v}) for i, v in enumerate((np.zeros_like(values), values))]
    inputs = Inputs(sources[0], (sources[1],))
    assert delta_cuts(inputs.base, inputs.parents, "w", 500_000) == plain_cuts(inputs, "w", 500_000)


MERGE = SignAwareMerge(density=0.3, weights=(1.0, 2.0, 0.5), scale=0.7, skip=("*norm*",))


def test_cached_cuts_change_no_byte_and_are_used(tmp_path, monkeypatch):
    inputs = family(3, ("bf16",), 2)
    plain = child(MERGE, inputs, "bf16")
    assert child(MERGE, replace(inputs, cuts=CutStore(tmp_path / "cuts")), "bf16") == plain
    assert len(list((tmp_path / "cuts").iterdir())) == 3
    monkeypatch.setattr("studbook.breeding.operators.sign_aware_merge.delta_cuts", None)
    assert child(MERGE, replace(inputs, cuts=CutStore(tmp_path / "cuts")), "bf16") == plain


@pytest.mark.parametrize("damage", ["cut", "digest", "rules", "empty", "number", "text"])
def test_a_damaged_or_foreign_cache_is_found_again(tmp_path, damage):
    inputs = family(1, ("bf16",), 3)
    store, pair = CutStore(tmp_path), (name_of(1), name_of(0))
    store.keep(*pair, "w", 5, Cut(7, 9))
    store.save()
    assert CutStore(tmp_path).find(*pair, "w", 5) == Cut(7, 9)
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    changed = {
        "cut": data[:-9],
        "digest": data.replace(b"[7,9]", b"[8,9]"),
        "rules": data.replace(b"selection/1", b"selection/2"),
        "empty": b"",
        "number": json.dumps({**json.loads(data), "cuts": {"w": {"5": [-1, 9]}}}, separators=(",", ":")).encode(),
        "text": b"\xff" * 90,
    }[damage]
    path.chmod(0o644)
    path.write_bytes(changed)
    assert changed != data
    again = CutStore(tmp_path)
    assert again.find(*pair, "w", 5) is None
    assert inputs.parents[0].sha256 == pair[0]
    again.keep(*pair, "w", 5, Cut(7, 9))
    again.save()
    assert path.read_bytes() == data


def test_a_cache_that_lies_under_a_true_digest_is_caught_and_removed(tmp_path):
    inputs = family(3, ("bf16",), 4)
    name = "tok_embeddings.weight"
    store = CutStore(tmp_path)
    k = count_of(MERGE.density, inputs.size(name))
    store.keep(name_of(2), name_of(0), name, k, Cut(0x3DCCCCCD, 500))
    store.save()
    lying = replace(inputs, cuts=CutStore(tmp_path))
    with pytest.raises(BytesLie, match="parent 1") as caught:
        child(MERGE, lying, "bf16")
    assert caught.value.reason == "cuts.count"
    assert name in str(caught.value)
    assert child(MERGE, replace(inputs, cuts=CutStore(tmp_path)), "bf16") == child(MERGE, inputs, "bf16")


def test_a_store_that_cannot_be_written_is_no_reason_to_fail(tmp_path):
    (tmp_path / "cuts").write_text("a file where the folder should be")
    inputs = family(3, ("bf16",), 2)
    stored = replace(inputs, cuts=CutStore(tmp_path / "cuts"))
    assert child(MERGE, stored, "bf16") == child(MERGE, inputs, "bf16")


# -- machine code ----------------------------------------------------------------------------------------------------


def test_a_child_that_overflows_its_storage_is_refused_by_the_compiled_run():
    big = {"w": np.full(40, 60_000, np.float32)}
    sources = [ArraySource(name_of(0), {"w": -big["w"]}), ArraySource(name_of(1), big)]
    operator = Dare(keep=1.0, scales=(1.5,), seed=0, skip=())
    with pytest.raises(ParentsDoNotFit, match=r"child of dare/1: w from element 0: 40 of 40"):
        child(operator, Inputs(sources[0], (sources[1],)), "f16")


def test_a_compiled_function_calls_nothing_compiled_in_another_module():
    checked = 0
    for module in (kernels, kernels_counting):
        for value in vars(module).values():
            if getattr(value, "py_func", None) is None or value.py_func.__module__ != module.__name__:
                continue
            for called in value.py_func.__code__.co_names:
                found = getattr(module, called, None)
                home = getattr(getattr(found, "py_func", found), "__module__", module.__name__)
                assert home in (module.__name__, "numpy", "builtins") or home.startswith("numba."), (value, called)
            checked += 1
    assert checked > 15


ELSEWHERE = """
import hashlib, json, re, sys
if sys.argv[1] == "without":
    sys.modules["numba"] = None
import numpy as np
from studbook.breeding.operators import Blend, Dare, Inputs, SignAwareMerge
from studbook.breeding.operators.run import stream
from studbook.tensors import kernels
from studbook.tensors.philox import stream_for
from studbook.tensors.sinks import MemorySink
from studbook.tensors.sources import ArraySource
from studbook.tensors.storage import narrow

def model(place):
    values = stream_for(0, bytes(32), "w").noise(0, 40_007)
    values = values + stream_for(place, bytes(32), "w").noise(0, 40_007) * np.float32(0.05 * place)
    return ArraySource(hashlib.sha256(b"%d" % place).hexdigest(), {"w": narrow(values, "bf16")})

inputs = Inputs(model(0), (model(1), model(2)))
digests = []
for operator in (
    Blend(weights=(0.3, 0.7)),
    Dare(keep=0.4, scales=(0.3, 0.7), seed=1, skip=()),
    SignAwareMerge(density=0.2, weights=(1.0, 2.0), scale=1.0, skip=()),
):
    sink = MemorySink({"w": (40_007,)}, "bf16")
    stream(operator, inputs, sink, chunk=9999)
    digests.append(hashlib.sha256(sink.tensors["w"].tobytes()).hexdigest())
code = ""
if kernels.COMPILED:
    code = "".join(kernels.weighted_sum.inspect_asm().values()) + "".join(kernels.elect.inspect_asm().values())
fused = len(re.findall(r"\\bv?fn?m(?:add|sub)|\\bfml[as]\\b", code))
wide = len(re.findall(r"%[yz]mm", code))
packed = len(re.findall(r"\\bv?(?:mul|add|div)ps\\b|\\bf(?:mul|add|div)\\s+v", code))
json.dump([digests, kernels.COMPILED, fused, wide, packed], sys.stdout)
"""


def elsewhere(folder, how: str, **environment: str) -> list:
    (folder / how).mkdir()
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", ELSEWHERE, how],
        env={**os.environ, "NUMBA_CACHE_DIR": str(folder / how), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "not a recognized processor" not in run.stderr
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    return elsewhere(tmp_path_factory.mktemp("native"), "native")


def test_machine_code_is_vectorised_and_never_fused(native):
    _, compiled, fused, _, packed = native
    assert compiled
    assert fused == 0
    assert packed > 10


def test_without_numba_the_bytes_are_the_same(native, tmp_path):
    digests, compiled, *_ = elsewhere(tmp_path, "without")
    assert not compiled
    assert digests == native[0]


def test_the_instruction_set_the_code_is_compiled_for_never_shows_in_the_bytes(native, tmp_path):
    haswell = elsewhere(tmp_path, "haswell", NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES="+avx2,+avx,+fma,+bmi2")
    generic = elsewhere(tmp_path, "generic", NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")
    assert haswell[0] == generic[0] == native[0]
    assert haswell[2] == generic[2] == 0
    # The test compares something: wide registers are used in one and not in the other.
    assert haswell[3] > 0
    assert generic[3] == 0


def test_code_that_cannot_be_cached_is_compiled_in_memory():
    # A function without a file has no folder for its cache, like one in a folder that cannot be written to.
    found: dict[str, object] = {}
    exec("def doubled(x):\n    return x + x\n", found)
    double = kernels.compiled(found["doubled"])
    assert double(21) == 42
    assert double.nopython_signatures
