from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from studbook.errors import OutOfOrder, OverBudget, UsageError
from studbook.models.engine import MOST_LINES, Engine, begin, step
from studbook.models.sampling import GREEDY, Sampling
from studbook.models.slm_writer import write_slm
from studbook.models.tokenizers import BOS, PAD, ByteTokenizer

NEW = 9
WAYS = [GREEDY, Sampling(0.8, 50, 0.9, 7), Sampling(1.7, 260, 1.0, 2**64 - 1)]


@pytest.fixture
def make_engine(make_shape: Callable[..., Any], make_tensors: Callable[..., Any]) -> Callable[..., Engine]:
    """An engine with a small model of random weights."""

    def make(memory_limit: int = 1 << 30, **tensors: np.ndarray) -> Engine:
        shape = make_shape(max_context=1024, tied=False)
        values = make_tensors(shape, 4, 2 / shape.hidden_size**0.5) | tensors
        return Engine(write_slm(shape, ByteTokenizer(), values, "f32"), memory_limit=memory_limit)

    return make


def prompts(count: int) -> list[list[int]]:
    random = np.random.default_rng(3)
    return [[BOS, *random.integers(0, 256, 1 + i % 11).tolist()] for i in range(count)]


@pytest.mark.parametrize("count", [1, 3, 4, 7, MOST_LINES])
def test_texts_written_side_by_side_are_those_written_alone(make_engine: Callable[..., Engine], count: int) -> None:
    with make_engine() as engine:
        asked = prompts(count)
        ways = [WAYS[i % len(WAYS)] for i in range(count)]
        lines = [begin(engine.session(32), ids, way) for ids, way in zip(asked, ways, strict=True)]
        written: list[list[int]] = [[] for _ in lines]
        for _ in range(NEW):
            step(lines)
            for text, line in zip(written, lines, strict=True):
                text.append(line.token)
        alone = [engine.decode([ids], NEW, way, stop=PAD).ids[0] for ids, way in zip(asked, ways, strict=True)]
        assert [text[: len(other)] for text, other in zip(written, alone, strict=True)] == alone
        assert {len(text) for text in alone} == {NEW}
        assert all(line.finite for line in lines)


def test_a_line_may_come_and_go_while_others_are_written(make_engine: Callable[..., Engine]) -> None:
    with make_engine() as engine:
        first, second = prompts(2)
        line = begin(engine.session(40), first, GREEDY)
        text = []
        for turn in range(NEW):
            beside = [begin(engine.session(40), second, GREEDY)] if turn % 2 else []
            step([line, *beside])
            text.append(line.token)
            for other in beside:
                other.session.close()
        assert text == engine.decode([first], NEW, stop=PAD).ids[0]


def test_a_step_that_is_refused_moves_nothing(make_engine: Callable[..., Engine]) -> None:
    with make_engine() as engine:
        full, roomy = begin(engine.session(1), [BOS, 65], GREEDY), begin(engine.session(9), [BOS, 65], GREEDY)
        before = [(line.token, line.session.length) for line in (full, roomy)]
        with pytest.raises(UsageError, match="room"):
            step([roomy, full])
        assert [(line.token, line.session.length) for line in (full, roomy)] == before
        with pytest.raises(UsageError, match="session"):
            step([roomy, roomy])
        step([roomy])
        assert roomy.session.length == 2


def test_lines_of_two_engines_none_or_too_many_are_refused(make_engine: Callable[..., Engine]) -> None:
    with make_engine() as one, make_engine() as other:
        lines = [begin(engine.session(4), [BOS], GREEDY) for engine in (one, other)]
        with pytest.raises(UsageError, match="2 engines"):
            step(lines)
        with pytest.raises(UsageError, match="0 engines"):
            step([])
        with pytest.raises(UsageError, match="33 lines"):
            step(lines[:1] * (MOST_LINES + 1))
        with pytest.raises(UsageError, match="no token"):
            begin(one.session(4), [], GREEDY)
        with pytest.raises(UsageError, match="vocabulary"):
            begin(one.session(4), [260, 65], GREEDY)
        with pytest.raises(UsageError, match="vocabulary"):
            step([begin(one.session(4), [65, 260], GREEDY)])


def test_logits_that_are_not_finite_are_told_of_their_line_alone(make_engine: Callable[..., Engine]) -> None:
    # A value times this is infinite, unless it is very small.
    gain = np.full(16, 3e38, np.float32)
    embedding = np.full((260, 16), 1e-30, np.float32)
    embedding[65] = 1
    with make_engine(**{"tok_embeddings.weight": embedding, "norm.weight": gain}) as engine:
        sound, broken = begin(engine.session(9), [BOS, 66], GREEDY), begin(engine.session(9), [BOS, 66], GREEDY)
        assert sound.finite
        broken.token = 65
        step([sound, broken])
        assert [sound.finite, broken.finite] == [True, False]
        broken.token = 66
        step([broken])
        assert not broken.finite, "what was broken stays told"


def test_a_closed_engine_writes_no_more(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine()
    line = begin(engine.session(9), [BOS], GREEDY)
    engine.close()
    with pytest.raises(OutOfOrder):
        step([line])


def test_a_step_without_room_to_draw_moves_nothing_and_goes_on_when_there_is(
    make_engine: Callable[..., Engine],
) -> None:
    with make_engine(2 << 20) as engine:
        lines = [begin(engine.session(8), [BOS, 65 + i], Sampling(1.0, 260)) for i in range(4)]
        taken = []
        with pytest.raises(OverBudget):
            while True:
                taken.append(engine.session(1024))
        before = [line.token for line in lines]
        with pytest.raises(OverBudget):
            step(lines)
        assert [(line.token, line.session.length) for line in lines] == [(token, 1) for token in before]
        taken[0].close()
        step(lines)
        assert [line.session.length for line in lines] == [2] * 4
