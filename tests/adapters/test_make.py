"""Packages made from models and factors: what they hold, and that a model with one on it does what it should."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studbook.adapters.changes import Change, Dense, LowRank, Sparse
from studbook.adapters.make import adjacent_pairs, dense_delta, from_peft, low_rank, random_delta, top_delta
from studbook.adapters.meta import retention_text
from studbook.adapters.reader import Adapter, parse_adapter
from studbook.adapters.stack import Stack
from studbook.adapters.writer import write_adapter
from studbook.errors import AdapterRefused, ParentsDoNotFit, UsageError
from studbook.models.shape import SlmShape
from studbook.models.slm import Slm, parse_slm, write_slm
from studbook.models.tokenizers import ByteTokenizer
from studbook.tensors.philox import stream_for

SHAPE = SlmShape(260, 8, 1, 2, 1, 4, 12, 16, 10000.0, 1e-5, True)
WQ, NORM = "layers.0.wq.weight", "norm.weight"
DIGESTS = {"adapter_sha256": "ab" * 32}


def model(seed: int = 0, dtype: str = "f32", shape: SlmShape = SHAPE, **changes: np.ndarray) -> Slm:
    random = np.random.default_rng(seed)
    tensors = {spec.name: random.standard_normal(spec.dims).astype(np.float32) for spec in shape.tensors()}
    return parse_slm(write_slm(shape, ByteTokenizer(), tensors | changes, dtype))


BASE, TUNED = model(), model(1)


def delta(name: str, tuned: Slm = TUNED) -> np.ndarray:
    return (tuned.dense(name) - BASE.dense(name)).reshape(-1)


def by_name(adapter: Adapter) -> dict[str, Change]:
    names = {spec.name_hash: spec.name for spec in SHAPE.tensors()}
    return {names[name_hash]: change for name_hash, change in adapter.changes}


def test_a_dense_package_brings_the_base_to_the_tuned_model_and_back() -> None:
    adapter = parse_adapter(dense_delta(BASE, TUNED, licence="CC0-1.0"))
    assert (adapter.head.magic, adapter.meta.base_sha256, adapter.meta.licence) == ("ADP1", BASE.sha256, "CC0-1.0")
    assert (adapter.meta.kind, adapter.meta.digests) == ("task-delta", {"tuned_sha256": TUNED.sha256})
    stack = Stack(BASE)
    stack.apply(adapter)
    for name in BASE.tensors:
        # One rounding in the delta and one in the sum.
        size = np.abs(BASE.dense(name)) + np.abs(TUNED.dense(name))
        assert (np.abs(stack.model().dense(name) - TUNED.dense(name)) <= 2.0**-23 * size).all()
    stack.detach()
    assert stack.model() is BASE


def test_a_tensor_in_which_nothing_changed_has_no_entry() -> None:
    tuned = model(**{NORM: BASE.dense(NORM) + np.float32(1)})
    assert list(by_name(parse_adapter(dense_delta(BASE, tuned, licence="MIT")))) == [NORM]
    with pytest.raises(UsageError) as refused:
        dense_delta(BASE, BASE, licence="MIT")
    assert refused.value.reason == "adapter.make.empty"


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 1000), st.sampled_from(["tensor", "global"]))
def test_the_largest_deltas_are_kept_and_exactly_as_many_as_asked_for(thousandths: int, scope: Any) -> None:
    share = thousandths / 1000
    every = np.concatenate([delta(name) for name in BASE.tensors])
    try:
        adapter = parse_adapter(top_delta(BASE, TUNED, licence="MIT", retention=share, scope=scope))
    except UsageError:
        assert Fraction(thousandths, 1000) * SHAPE.parameter_count < 1
        return
    found, kept = by_name(adapter), 0
    for name in BASE.tensors:
        change = found.get(name)
        count = change.count if change else 0
        kept += count
        if scope == "tensor":
            assert count == thousandths * delta(name).size // 1000
        if isinstance(change, Sparse):
            assert change.values.tobytes() == delta(name)[change.indices].tobytes()
            rest = np.delete(np.abs(delta(name)), change.indices)
            assert not rest.size or rest.max() <= np.abs(change.values).min() or scope == "global"
    if scope == "global":
        assert kept == thousandths * every.size // 1000
        smallest = min(float(np.abs(c.values).min()) for c in found.values() if isinstance(c, Sparse))
        assert np.sort(np.abs(every))[-kept] == np.float32(smallest)
    assert adapter.meta.retention == retention_text(kept, SHAPE.parameter_count)
    assert adapter.meta.mask is not None
    assert adapter.meta.mask.rule == f"top/{scope}/{np.format_float_positional(share, trim='-')}"
    assert adapter.meta.mask.seed is None


def test_of_equal_deltas_the_first_ones_are_kept() -> None:
    tuned = model(**{WQ: BASE.dense(WQ) * 0, NORM: BASE.dense(NORM)})
    base = model(**{WQ: np.ones((8, 8), np.float32)})
    change = by_name(parse_adapter(top_delta(base, tuned, licence="MIT", retention=0.25)))[WQ]
    assert isinstance(change, Sparse)
    assert change.indices.tolist() == list(range(16))


@pytest.mark.parametrize("rescale", [False, True])
def test_a_random_mask_is_the_keyed_stream_and_the_package_says_which(rescale: bool) -> None:
    adapter = parse_adapter(random_delta(BASE, TUNED, licence="MIT", keep=0.3, seed=9, rescale=rescale))
    factor = np.float32(1 / 0.3) if rescale else np.float32(1)
    hasher = hashlib.sha256()
    for name, change in by_name(adapter).items():
        assert isinstance(change, Sparse)
        kept = stream_for(9, bytes.fromhex(TUNED.sha256), name).keep_mask(0, delta(name).size, 0.3)
        assert change.indices.tolist() == np.flatnonzero(kept).tolist()
        assert change.values.tobytes() == (delta(name)[kept] * factor).tobytes()
        hasher.update(change.indices.tobytes())
    mask = adapter.meta.mask
    assert mask is not None
    assert (mask.seed, mask.sha256) == (9, hasher.hexdigest())
    assert mask.rule == ("random-rescaled/0.3" if rescale else "random/0.3")


def test_a_package_made_for_the_f32_model_fits_the_builds_that_a_receipt_names() -> None:
    adapter, small = parse_adapter(dense_delta(BASE, TUNED, licence="MIT")), model(dtype="q8_0")
    with pytest.raises(AdapterRefused):
        Stack(small).apply(adapter)
    assert Stack(small, {small.sha256: BASE.sha256}).apply(adapter).applied == (adapter.sha256,)
    with pytest.raises(AdapterRefused):
        Stack(small, {small.sha256: TUNED.sha256}).apply(adapter)


def test_a_base_that_is_not_f32_or_a_model_of_another_shape_is_refused() -> None:
    wider = SlmShape(260, 8, 1, 2, 1, 4, 14, 16, 10000.0, 1e-5, True)
    heads = SlmShape(260, 8, 1, 4, 2, 2, 12, 16, 10000.0, 1e-5, True)
    longer = SlmShape(260, 8, 1, 2, 1, 4, 12, 32, 10000.0, 1e-5, True)
    for base, tuned in ((model(dtype="q8_0"), TUNED), (BASE, model(shape=wider)), (BASE, model(shape=heads))):
        for make in (
            lambda b, t: dense_delta(b, t, licence="MIT"),
            lambda b, t: top_delta(b, t, licence="MIT", retention=0.5),
            lambda b, t: random_delta(b, t, licence="MIT", keep=0.5, seed=1),
        ):
            with pytest.raises(ParentsDoNotFit):
                make(base, tuned)
    assert dense_delta(BASE, model(1, shape=longer), licence="MIT")


@pytest.mark.parametrize(
    "change", [{"keep": 0.0}, {"keep": 1.5}, {"keep": float("nan")}, {"seed": -1}, {"seed": 2**53}], ids=str
)
def test_numbers_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        random_delta(BASE, TUNED, **({"licence": "MIT", "keep": 0.5, "seed": 1} | change))


@pytest.mark.parametrize(
    "change", [{"retention": -0.1}, {"retention": 2.0}, {"retention": 1e-9}, {"scope": "row"}], ids=str
)
def test_a_share_or_scope_that_is_none_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        top_delta(BASE, TUNED, **({"licence": "MIT", "retention": 0.5} | change))


def factors(rank: int, dims: tuple[int, int], seed: int = 3) -> LowRank:
    random = np.random.default_rng(seed)
    a, b = random.standard_normal((rank, dims[1])), random.standard_normal((dims[0], rank))
    return LowRank(a.astype(np.float32), b.astype(np.float32), 4.0)


def test_a_low_rank_package_adds_the_scaled_product() -> None:
    change = factors(2, (8, 8))
    adapter = parse_adapter(low_rank(BASE, {WQ: change}, licence="MIT", kind="trained", digests=DIGESTS))
    stack = Stack(BASE)
    stack.apply(adapter)
    wanted = BASE.dense(WQ).astype(np.float64) + 2.0 * (change.b.astype(np.float64) @ change.a.astype(np.float64))
    np.testing.assert_allclose(stack.model().dense(WQ), wanted, rtol=2.0**-22, atol=1e-6)


def test_a_peft_checkpoint_is_renamed_and_its_rotary_rows_are_moved() -> None:
    change, foreign = factors(2, (8, 8)), "model.layers.0.self_attn.q_proj.weight"
    order = adjacent_pairs(2, 4)
    data = from_peft(BASE, {foreign: change}, {foreign: WQ}, licence="MIT", digests=DIGESTS, rows={WQ: order})
    adapter = parse_adapter(data)
    found = by_name(adapter)[WQ]
    assert isinstance(found, LowRank)
    assert (adapter.meta.kind, adapter.meta.digests) == ("peft", DIGESTS)
    assert found.a.tobytes() == change.a.tobytes()
    assert found.b.tobytes() == change.b[[0, 2, 1, 3, 4, 6, 5, 7]].tobytes()


def test_attention_scores_are_the_same_in_both_rotary_conventions() -> None:
    heads, dim, random = 3, 8, np.random.default_rng(2)
    query, key = random.standard_normal((2, heads * dim))
    rates = 10000.0 ** (-np.arange(0, dim, 2) / dim)

    def half_split(vector: np.ndarray, position: int) -> np.ndarray:
        x = vector.reshape(heads, dim)
        turned = np.concatenate([-x[:, dim // 2 :], x[:, : dim // 2]], axis=1)
        angle = np.tile(position * rates, 2)
        return x * np.cos(angle) + turned * np.sin(angle)

    def adjacent(vector: np.ndarray, position: int) -> np.ndarray:
        x = vector.reshape(heads, dim // 2, 2)
        return np.stack([
            x[..., 0] * np.cos(position * rates) - x[..., 1] * np.sin(position * rates),
            x[..., 0] * np.sin(position * rates) + x[..., 1] * np.cos(position * rates),
        ], axis=-1).reshape(heads, dim)  # fmt: skip

    order = adjacent_pairs(heads, dim)
    theirs = (half_split(query, 5) * half_split(key, 2)).sum(axis=1)
    ours = (adjacent(query[order], 5) * adjacent(key[order], 2)).sum(axis=1)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert not np.allclose((adjacent(query, 5) * adjacent(key, 2)).sum(axis=1), theirs)


def test_a_peft_tensor_without_a_place_or_with_a_wrong_order_is_refused() -> None:
    change, names = factors(2, (8, 8)), {"q": WQ, "k": WQ}
    with pytest.raises(ParentsDoNotFit) as refused:
        from_peft(BASE, {"v": change}, names, licence="MIT", digests=DIGESTS)
    assert refused.value.where == "v"
    for given_, rows in (({"q": change, "k": change}, {}), ({"q": change}, {WQ: np.zeros(8, np.int64)})):
        with pytest.raises(UsageError):
            from_peft(BASE, given_, names, licence="MIT", digests=DIGESTS, rows=rows)


def write(changes: dict[str, Change], **fields: Any) -> bytes:
    known: dict[str, Any] = {"base_sha256": BASE.sha256, "licence": "MIT", "kind": "trained", "digests": DIGESTS}
    return write_adapter(SHAPE, BASE.tokenizer_sha256, changes, **(known | fields))


F, U = np.float32, np.uint32
WRONG: dict[str, dict[str, Change]] = {
    "nothing": {},
    "two kinds": {WQ: factors(1, (8, 8)), NORM: Dense(np.ones(8, F))},
    "unknown tensor": {"output.weight": Dense(np.ones((260, 8), F))},
    "another shape": {WQ: Dense(np.ones((8, 9), F))},
    "doubles": {NORM: Dense(np.ones(8))},  # type: ignore[arg-type]
    "signed indices": {NORM: Sparse((8,), np.array([1], np.int32), np.ones(1, F))},  # type: ignore[arg-type]
    "fewer values than indices": {NORM: Sparse((8,), np.array([1, 2], U), np.ones(1, F))},
    "factors of two ranks": {WQ: LowRank(np.ones((2, 8), F), np.ones((8, 3), F), 1.0)},
}


@pytest.mark.parametrize("name", WRONG)
def test_changes_that_make_no_package_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        write(WRONG[name], rule="by-hand")


@pytest.mark.parametrize(
    "fields",
    [
        {"licence": "not a licence"},
        {"kind": "found"},
        {"digests": {}},
        {"base_sha256": "0"},
        {"digests": {"kind": "a" * 64}},
    ],
    ids=str,
)
def test_a_meta_block_that_would_not_be_read_is_not_written(fields: dict[str, Any]) -> None:
    with pytest.raises(AdapterRefused):
        write({NORM: Dense(np.ones(8, F))}, **fields)


def test_values_that_would_not_be_read_are_not_written() -> None:
    for bad in (
        Dense(np.full(8, np.nan, F)),
        Sparse((8,), np.array([1, 1], U), np.ones(2, F)),
        Sparse((8,), U([]), F([])),
    ):
        with pytest.raises(AdapterRefused):
            write({NORM: bad}, rule="by-hand")
    with pytest.raises(AdapterRefused):
        write({WQ: LowRank(np.ones((9, 8), F), np.ones((8, 9), F), 1.0)})


def test_the_writer_and_packing_by_hand_give_the_same_bytes(cases_tool: ModuleType) -> None:
    f32 = cases_tool.MODELS["f32"]
    names = {spec.name_hash: spec.name for spec in f32.shape.tensors()}
    for name, data in cases_tool.PACKAGES.items():
        if name == "gap":
            continue
        adapter = parse_adapter(data)
        meta, mask = adapter.meta, adapter.meta.mask
        again = write_adapter(
            f32.shape, f32.tokenizer_sha256, {names[h]: change for h, change in reversed(adapter.changes)},
            base_sha256=meta.base_sha256, licence=meta.licence, kind=meta.kind, digests=meta.digests,
            rule=mask.rule if mask else "", seed=mask.seed if mask else None,
        )  # fmt: skip
        assert again == data, name


@given(st.integers(1, 2**40).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_retention_is_the_share_to_nine_places(pair: tuple[int, int]) -> None:
    kept, total = pair
    text = retention_text(kept, total)
    assert abs(Fraction(text) - Fraction(kept, total)) <= Fraction(1, 2 * 10**9)
    assert text in ("0", "1") or (text.startswith("0.") and not text.endswith("0") and len(text) <= 11)
