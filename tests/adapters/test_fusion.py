"""Fusion against plain Python floats, bit for bit, in any pieces, compiled or not, for every storage."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from studbook.adapters import fusion
from studbook.adapters.changes import Change, Dense, LowRank, Sparse
from studbook.adapters.fusion import fuse, fused_tensor, product, product_reference, wide_values
from studbook.models.stored import Dtype, StoredTensor, store

ordinary = st.floats(-4.0, 4.0, width=32)
strange = st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 1.17e-38, -3e-39, 1e-20, 3e4, -6e18, 3e38]).map(np.float32)
values = ordinary | strange


@st.composite
def tensors(draw: st.DrawFn) -> StoredTensor:
    """A small tensor in any storage."""
    dtype = draw(st.sampled_from(list(Dtype)))
    dims = (draw(st.integers(1, 5)), draw(st.integers(1, 4)) * 2)
    array = draw(hnp.arrays(np.float32, dims, elements=values if dtype is Dtype.F32 else ordinary))
    return store(array, dtype)


@st.composite
def changes(draw: st.DrawFn, dims: tuple[int, ...]) -> Change:
    """A change of any kind for these dimensions."""
    kind = draw(st.sampled_from([Dense, Sparse, LowRank]))
    if kind is Dense:
        return Dense(draw(hnp.arrays(np.float32, dims, elements=values)))
    size = dims[0] * dims[1]
    if kind is Sparse:
        indices = sorted(draw(st.sets(st.integers(0, size - 1), min_size=1)))
        deltas = draw(hnp.arrays(np.float32, len(indices), elements=values))
        return Sparse(dims, np.array(indices, np.uint32), deltas)
    rank = draw(st.integers(1, min(dims)))
    a = draw(hnp.arrays(np.float32, (rank, dims[1]), elements=values))
    b = draw(hnp.arrays(np.float32, (dims[0], rank), elements=values))
    return LowRank(a, b, float(np.float32(draw(st.floats(-64.0, 64.0, width=32)))))


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_every_element_is_what_plain_floats_make_of_it_in_any_pieces(
    cases_tool: ModuleType, data: st.DataObject
) -> None:
    tensor = data.draw(tensors())
    change = data.draw(changes(tensor.dims))
    rows, columns = tensor.dims
    codes = tensor.codes.tolist() if tensor.dtype is not Dtype.F32 else None
    plain = [float(v) for v in tensor.values] if codes is None else [
        float(codes[i][j]) * float(tensor.scales[i] if tensor.dtype is Dtype.Q8_0 else tensor.scales[i, j // tensor.block])
        for i in range(rows) for j in range(columns)
    ]  # fmt: skip
    wanted = cases_tool.fused(plain, change.code, change.dims, change.payload(), change.count, change.alpha)
    start = data.draw(st.integers(0, rows * columns))
    stop = data.draw(st.integers(start, rows * columns))
    with np.errstate(over="ignore"):
        expected = np.array(wanted, np.float64).astype(np.float32)
    whole = fused_tensor(change, lambda s, e: wide_values(tensor, s, e), rows * columns)
    assert whole.tobytes() == expected.tobytes()
    assert fuse(change, wide_values(tensor, start, stop), start).tobytes() == expected[start:stop].tobytes()


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_the_compiled_product_has_the_bits_of_the_plain_one(data: st.DataObject) -> None:
    rows, rank, columns = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 7)))
    a = data.draw(hnp.arrays(np.float32, (rank, columns), elements=values))
    b = data.draw(hnp.arrays(np.float32, (rows, rank), elements=values))
    start = data.draw(st.integers(0, rows * columns))
    size = data.draw(st.integers(0, rows * columns - start))
    assert product(a, b, start, size).tobytes() == product_reference(a, b, start, size).tobytes()


def test_a_tensor_of_several_chunks_is_fused_like_one_piece() -> None:
    random = np.random.default_rng(5)
    dims = (700, 900)
    a, b = (random.standard_normal(d).astype(np.float32) for d in ((3, dims[1]), (dims[0], 3)))
    tensor = store(random.standard_normal(dims).astype(np.float32), Dtype.Q4_0)
    change = LowRank(a, b, 0.7)
    size = dims[0] * dims[1]
    whole = fused_tensor(change, lambda s, e: wide_values(tensor, s, e), size)
    assert size > 2 * fusion._CHUNK
    assert whole.tobytes() == fuse(change, wide_values(tensor, 0, size), 0).tobytes()
    assert not whole.flags.writeable


def test_an_element_that_is_not_listed_keeps_the_bits_of_its_zero() -> None:
    tensor = store(np.array([[-0.0, -0.0, 1.0, 0.0]], np.float32), Dtype.F32)
    change = Sparse((1, 4), np.array([1], np.uint32), np.array([0.0], np.float32))
    out = fuse(change, wide_values(tensor, 0, 4), 0)
    assert np.signbit(out).tolist() == [True, False, False, False]


def test_a_quantised_value_is_not_rounded_before_the_delta_is_added() -> None:
    # q * scale = 1 + 2^-23 - tiny has no place in f32; added to -1 the difference survives in f64 only.
    scale = np.array([(1 + 2.0**-22) / 3], np.float32)
    tensor = StoredTensor(Dtype.Q8_0, (1, 2), np.array([3, 1], np.int8).tobytes(), scale.tobytes(), 2)
    exact = 3.0 * float(scale[0])
    assert exact != float(np.float32(exact))
    out = fuse(Dense(np.array([[-1.0, 0.0]], np.float32)), wide_values(tensor, 0, 2), 0)
    assert float(out[0]) == float(np.float32(exact - 1.0)) != float(np.float32(exact)) - 1.0


CODE = """
import sys
sys.modules["numba"] = None
import numpy as np
from studbook.adapters.fusion import _fast, product
assert _fast is None
a = (np.arange(15, dtype=np.float32).reshape(3, 5) - 7) / np.float32(9)
b = (np.arange(12, dtype=np.float32).reshape(4, 3) - 5) / np.float32(11)
print(product(a, b, 3, 14).tobytes().hex())
"""


def test_without_a_compiler_the_product_is_the_same() -> None:
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    a = (np.arange(15, dtype=np.float32).reshape(3, 5) - 7) / np.float32(9)
    b = (np.arange(12, dtype=np.float32).reshape(4, 3) - 5) / np.float32(11)
    assert result.stdout.strip() == product(a, b, 3, 14).tobytes().hex()


def test_where_no_folder_can_be_written_the_kernel_is_compiled_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    real = pytest.importorskip("numba").njit

    def stubborn(**options: bool) -> object:
        if options.get("cache"):
            raise RuntimeError("no locator available")
        return real(**options)

    monkeypatch.setattr(fusion, "njit", stubborn)
    monkeypatch.setattr(fusion, "_fast", fusion._compiled())
    a, b = np.ones((2, 3), np.float32), np.ones((2, 2), np.float32)
    assert product(a, b, 0, 6).tobytes() == product_reference(a, b, 0, 6).tobytes()
