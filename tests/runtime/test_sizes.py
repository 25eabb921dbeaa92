from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime_fixtures import SHAPES, package_of, shape_of, tensors_of, words_of
from studbook.adapters.reader import parse_adapter
from studbook.errors import OverBudget, UsageError
from studbook.models.engine import MOST_LINES, Engine, begin, step
from studbook.models.sampling import Sampling
from studbook.models.shape import SlmShape
from studbook.models.slm import parse_slm, write_slm
from studbook.models.tokenizers import BOS, EOS, ByteTokenizer
from studbook.runtime.heap import Heap, block_bytes, engine_bytes_before
from studbook.runtime.sizes import Change, Use, change_of, kv_bytes, measure, model_of

DTYPES = ["f32", "q8_0", "q4_0"]
DRAWN = Sampling(temperature=1.0, top_k=40)


def lived(data: bytes, use: Use, packages: Sequence[bytes] = (), base: str = "", limit: int = 1 << 30) -> int:
    """Bytes of an engine that did all that the use allows."""
    with Engine(data, memory_limit=limit) as engine:
        if packages:
            engine.accept(base)
            engine.apply(*packages)
        engine.logit_digest(use.smoke)
        sessions = [engine.session(use.positions) for _ in range(use.sessions)]
        engine.encode("x" * use.text_bytes)
        engine.decode_text([BOS] * use.positions)
        for session in sessions:
            session.write_on([BOS], use.positions, DRAWN, EOS)
            session.reset()
        step([begin(session, [BOS], DRAWN) for session in sessions[:MOST_LINES]])
        return engine.memory_bytes


@pytest.mark.parametrize("changes", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("use", [Use(32, 1, 64, 31), Use(3, 4, 0, 31), Use(17, 2, 9_000, 5)])
def test_the_arithmetic_is_what_the_engine_takes(changes: dict[str, Any], dtype: str, use: Use) -> None:
    shape = shape_of(**changes)
    data = write_slm(shape, ByteTokenizer(), tensors_of(shape), dtype)
    sizes = measure(model_of(parse_slm(data)), use)
    assert lived(data, use) == sizes.total
    assert (sizes.decoded == 0) == (dtype == "f32")


@pytest.mark.parametrize("changes", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kinds", [("ADP1",), ("ASP1", "ALR1"), ("ALR1", "ADP1", "ALR1")])
def test_packages_on_top_are_counted_to_the_byte(changes: dict[str, Any], dtype: str, kinds: tuple[str, ...]) -> None:
    shape = shape_of(**changes)
    tensors = tensors_of(shape)
    base = parse_slm(write_slm(shape, ByteTokenizer(), tensors, "f32"))
    data = write_slm(shape, ByteTokenizer(), tensors, dtype)
    packages = [package_of(base, kind, seed) for seed, kind in enumerate(kinds)]
    stack = [change_of(parse_adapter(package), shape) for package in packages]
    use = Use(16, 2, 100, 31)
    sizes = measure(model_of(parse_slm(data)), use, stack)
    assert lived(data, use, packages, base.sha256) == sizes.total
    assert sizes.stack > 0


@pytest.mark.parametrize("order", ["ascending", "shuffled"])
def test_words_of_a_tokenizer_are_counted(order: str) -> None:
    tokenizer = words_of(200, shuffled=order == "shuffled")
    shape = shape_of(vocab_size=tokenizer.vocab_size)
    data = write_slm(shape, tokenizer, tensors_of(shape), "q8_0")
    use = Use(32, 1, 500, 31)
    assert lived(data, use) == measure(model_of(parse_slm(data)), use).total


@pytest.mark.parametrize("sessions", [1, 16, 32, 40])
def test_a_step_of_all_sessions_is_counted(sessions: int) -> None:
    tokenizer = words_of(600, shuffled=False)
    shape = shape_of(vocab_size=tokenizer.vocab_size)
    data = write_slm(shape, tokenizer, tensors_of(shape), "q8_0")
    use = Use(8, sessions, 0, 5)
    assert lived(data, use) == measure(model_of(parse_slm(data)), use).total


@settings(deadline=None, max_examples=40)
@given(
    hidden=st.sampled_from([(2, 2), (2, 6), (4, 16), (6, 10)]),
    layers=st.integers(1, 4),
    ffn=st.sampled_from([2, 24, 200]),
    context=st.integers(1, 400),
    tied=st.booleans(),
    dtype=st.sampled_from(DTYPES),
    sessions=st.integers(1, 5),
    text=st.integers(0, 3_000),
    part=st.floats(0, 1),
)
def test_any_shape_and_use(
    hidden: tuple[int, int],
    layers: int,
    ffn: int,
    context: int,
    tied: bool,
    dtype: str,
    sessions: int,
    text: int,
    part: float,
) -> None:
    heads, head = hidden
    shape = SlmShape(260, heads * head, layers, heads, heads // 2, head, ffn, context, 1e4, 1e-5, tied)
    data = write_slm(shape, ByteTokenizer(), tensors_of(shape), dtype)
    use = Use(max(1, int(context * part)), sessions, text, max(1, context - 1))
    sizes = measure(model_of(parse_slm(data)), use)
    assert lived(data, use) == sizes.total
    assert sizes.kv == sessions * block_bytes(kv_bytes(shape, use.positions))


def test_one_page_less_is_refused_by_the_engine() -> None:
    shape = shape_of()
    data = write_slm(shape, ByteTokenizer(), tensors_of(shape))
    use = Use(32, 3, 4_000, 31)
    total = measure(model_of(parse_slm(data)), use).total
    assert lived(data, use, limit=total) == total
    with pytest.raises(OverBudget):
        lived(data, use, limit=total - 1)


@pytest.mark.parametrize(
    "use", [Use(33, 1, 0, 31), Use(0, 1, 0, 31), Use(1, 65, 0, 31), Use(1, 1, 0, 33), Use(1, 1, -1, 1)]
)
def test_a_use_beyond_the_model_is_refused(use: Use) -> None:
    shape = shape_of()
    model = model_of(parse_slm(write_slm(shape, ByteTokenizer(), tensors_of(shape))))
    with pytest.raises(UsageError, match=r"positions|sessions"):
        measure(model, use)


def test_a_change_names_the_tensors_it_touches() -> None:
    shape = shape_of()
    base = parse_slm(write_slm(shape, ByteTokenizer(), tensors_of(shape)))
    package = package_of(base, "ADP1", 0)
    found = change_of(parse_adapter(package), shape)
    assert isinstance(found, Change)
    assert found.file_bytes == len(package)
    assert found.places == tuple(sorted(found.places))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 60_000)), max_size=40))
def test_the_heap_on_paper_is_the_heap_of_the_engine(steps: list[tuple[int, int]]) -> None:
    from studbook.models.engine.instance import Instance

    engine, heap = Instance(1 << 24, fuel=False, where=""), Heap()
    taken: list[tuple[int, int]] = []
    for what, size in steps:
        if what < 3 or not taken:
            taken.append((engine.take(size), heap.take(size)))
            assert taken[-1][0] - 64 == taken[-1][1]
        else:
            real, paper = taken.pop(size % len(taken))
            engine.give(real)
            heap.give(paper)
    assert engine.memory_bytes == heap.memory_bytes
    engine.close()


def test_what_the_engine_itself_takes_is_known() -> None:
    assert 0 < engine_bytes_before() < Heap().memory_bytes
    assert np.dtype("<f4").itemsize == 4
