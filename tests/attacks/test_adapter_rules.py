"""Adapter packages that lie: every rule, rules in pairs, flipped bytes, noise, and what a lie may cost.

The single lies stand in the shared table ``tests/adapters/cases.json``; here they are counted, combined and made worse.
"""

from __future__ import annotations

import importlib.util
import json
import math
import struct
import tracemalloc
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studbook.adapters.changes import LowRank, Sparse
from studbook.adapters.layout import MAX_FILE_BYTES
from studbook.adapters.reader import Adapter, parse_adapter
from studbook.adapters.rules import FIT_RULES, FUSE_RULES, AdapterRule
from studbook.adapters.stack import Stack
from studbook.errors import AdapterRefused, BytesLie

ROOT = Path(__file__).resolve().parents[2]
CASES = json.loads((ROOT / "tests" / "adapters" / "cases.json").read_text(encoding="utf-8"))["cases"]
# Met only by a file too large for the table: below, and on disk in tests/adapters/test_stack.py.
ELSEWHERE = {AdapterRule.SIZE}
KINDS = ("dense", "sparse-two-tensors", "low-rank-3")


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("adapter_cases_for_attacks", ROOT / "tools" / "adapter_cases.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = load()


def assert_sound(adapter: Adapter) -> None:
    """What was accepted keeps every promise a reader makes."""
    assert adapter.changes
    for _, change in adapter.changes:
        arrays = [change.a, change.b] if isinstance(change, LowRank) else [change.values]
        assert all(np.isfinite(array).all() for array in arrays)
        assert math.isfinite(change.alpha)
        if isinstance(change, Sparse):
            assert (np.diff(change.indices.astype(np.int64)) > 0).all()
            assert int(change.indices[-1]) < math.prod(change.dims)


def test_the_table_leaves_no_rule_out() -> None:
    met = {AdapterRule(case["refused"]["rule"]) for case in CASES if "refused" in case}
    assert met | ELSEWHERE == set(AdapterRule)
    assert {
        case["refused"]["rule"] for case in CASES if "refused" in case and case["refused"]["stage"] == "read"
    }.isdisjoint(FIT_RULES | FUSE_RULES)


def test_bytes_that_are_too_many_are_refused_unread() -> None:
    with pytest.raises(AdapterRefused) as refused:
        parse_adapter(bytes(MAX_FILE_BYTES + 64))
    assert refused.value.reason == AdapterRule.SIZE


def test_every_rule_has_its_own_name() -> None:
    assert len({rule.value for rule in AdapterRule}) == len(AdapterRule)
    assert all(rule.startswith("adapter.") for rule in AdapterRule)


HEAD = {
    "version": 2, "header_length": 0, "flags": 1 << 31, "entry_count": 2, "tensor_count": 0, "parameter_count": 0,
    "reserved": 7, "meta_length": 2**32 - 1, "directory": 2**64 - 1, "data": 0, "magic": b"ALR1",
}  # fmt: skip
ENTRY = {
    "hash": 5, "code": 2, "rank": 3, "dims": (0, 2**32 - 1, 0, 1), "at": 2**63, "length": 2**64 - 1, "count": 2**32 - 1,
    "alpha": math.nan, "reserved": 2**64 - 1,
}  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(KINDS),
    st.lists(st.sampled_from(sorted(HEAD)), unique=True, max_size=2),
    st.lists(st.sampled_from(sorted(ENTRY)), unique=True, max_size=2),
)
def test_lies_in_pairs_are_one_typed_refusal(kind: str, head: list[str], entry: list[str]) -> None:
    first, *others = TOOL.GOOD[kind]
    lying = first.lying(**{key: ENTRY[key] for key in entry})
    data = TOOL.package(TOOL.F32, [lying, *others], **{key: HEAD[key] for key in head})
    if data == TOOL.PACKAGES[kind]:
        return
    try:
        adapter = parse_adapter(data, "lie.adp")
    except AdapterRefused as refused:
        assert refused.where.startswith("lie.adp")
        assert refused.reason in set(AdapterRule)
        return
    # A name no one knows, or a tensor count, is no lie before a model is there.
    assert_sound(adapter)
    with pytest.raises(AdapterRefused):
        Stack(TOOL.F32).apply(adapter)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(KINDS), st.data())
def test_any_flipped_byte_is_refused(kind: str, data: st.DataObject) -> None:
    broken = bytearray(TOOL.PACKAGES[kind])
    broken[data.draw(st.integers(0, len(broken) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(AdapterRefused):
        parse_adapter(bytes(broken))


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(KINDS), st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=4))
def test_flipped_bytes_under_a_right_checksum_are_refused_or_read_soundly(
    kind: str, flips: list[tuple[int, int]]
) -> None:
    broken = bytearray(TOOL.PACKAGES[kind])
    for at, flip in flips:
        broken[at % len(broken)] ^= flip
    model = TOOL.F32
    stack = Stack(model)
    untouched = stack.diagnostics()
    try:
        adapter = parse_adapter(TOOL.sealed(bytes(broken)))
        assert_sound(adapter)
        stack.apply(adapter)
    except AdapterRefused:
        assert stack.diagnostics() == untouched
        assert stack.model() is model
        return
    running = stack.model()
    assert all(np.isfinite(running.dense(name)).all() for name in running.tensors)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(KINDS), st.integers(0, 1024))
def test_any_shorter_file_is_refused(kind: str, length: int) -> None:
    whole = TOOL.PACKAGES[kind]
    with pytest.raises(AdapterRefused):
        parse_adapter(TOOL.sealed(whole[: length % len(whole)]))


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=600), st.booleans())
def test_noise_is_refused_by_type(noise: bytes, magic: bool) -> None:
    data = (TOOL.PACKAGES["dense"][:128] if magic else b"") + noise
    with pytest.raises(AdapterRefused):
        parse_adapter(TOOL.sealed(data + bytes(-len(data) % 64)))


@pytest.mark.parametrize(
    "meta",
    [
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b'{"base_sha256":1e400}',
        b'{"licence":"\\ud800"}',
        b"\xef\xbb\xbf{}",
        b'{"seed":9007199254740993}',
        b"\x00",
    ],
    ids=["nesting of lists", "nesting of objects", "1e400", "lone surrogate", "byte-order mark", "2^53 + 1", "NUL"],
)
def test_a_meta_block_that_is_a_trap_is_refused_by_type(meta: bytes) -> None:
    with pytest.raises(AdapterRefused) as refused:
        parse_adapter(TOOL.package(TOOL.F32, [TOOL.D], meta=meta))
    assert refused.value.reason == AdapterRule.META_JSON


def test_no_lie_makes_the_reader_allocate_more_than_the_file_is_worth() -> None:
    parse_adapter(TOOL.PACKAGES["dense"])
    cases: list[tuple[str, tuple[Any, ...]]] = list(TOOL.LIES.items())
    for name, (_, entries, lie) in cases:
        data = TOOL.package(TOOL.F32, entries, **lie)
        tracemalloc.start()
        try:
            with pytest.raises(BytesLie):
                parse_adapter(data)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 64 * len(data) + 100_000, name


def test_a_sparse_entry_for_a_huge_tensor_costs_nothing_before_the_model_refuses_it() -> None:
    entry = TOOL.sparse(TOOL.WQ, (0, 2**32 - 1), (1.0, 1.0)).lying(rank=4, dims=(2**32 - 1,) * 4)
    data = TOOL.package(TOOL.F32, [entry])
    stack = Stack(TOOL.F32)
    tracemalloc.start()
    try:
        with pytest.raises(AdapterRefused) as refused:
            stack.apply(parse_adapter(data))
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()
    assert refused.value.reason == AdapterRule.TENSOR_SHAPE


def test_a_checksum_that_is_right_does_not_make_up_for_an_index() -> None:
    # The checksum is no secret: whoever writes a hostile file also writes its checksum.
    data = bytearray(TOOL.PACKAGES["sparse"])
    struct.pack_into("<I", data, len(data) - 64, 2**31)
    with pytest.raises(AdapterRefused) as refused:
        parse_adapter(TOOL.sealed(bytes(data)))
    assert refused.value.reason == AdapterRule.INDEX_ORDER
