from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studbook.errors import UsageError
from studbook.models.decoder import Cache, Decoder
from studbook.models.forward import Forward, forward64
from studbook.models.sampling import Sampling
from studbook.models.shape import SlmShape
from studbook.models.slm import Slm, parse_slm, write_slm
from studbook.models.tokenizers import BOS, EOS, ByteTokenizer

MakeShape = Callable[..., SlmShape]
MakeModel = Callable[..., Slm]
SHAPES: list[dict[str, Any]] = [
    {},
    {"tied": False, "kv_head_count": 4},
    {"kv_head_count": 1, "layer_count": 3, "rope_theta": 100.0},
    {"head_count": 2, "kv_head_count": 1, "head_dim": 8, "layer_count": 1, "ffn_size": 7},
]


def random_pairs(count: int, seed: int = 0) -> list[tuple[list[int], list[int]]]:
    random = np.random.default_rng(seed)
    return [
        ([BOS, *random.integers(0, 256, random.integers(0, 9)).tolist()],
         [*random.integers(0, 256, random.integers(0, 5)).tolist(), EOS])
        for _ in range(count)
    ]  # fmt: skip


def log_softmax(row: np.ndarray) -> np.ndarray:
    return row - row.max() - np.log(np.exp(row - row.max()).sum())


@pytest.mark.parametrize("changes", SHAPES)
@pytest.mark.parametrize("dtype", ["f32", "q8_0"])
def test_logits_equal_the_float64_reference(
    make_shape: MakeShape, make_model: MakeModel, changes: dict[str, Any], dtype: str
) -> None:
    slm = make_model(make_shape(**changes), seed=4, dtype=dtype)
    ids = [BOS, 114, 101, 118, 32, 97, 98, 62, 98, 97]
    decoder = Decoder(slm)
    logits = decoder.logits(decoder.run(np.array([ids])))
    expected = forward64(slm, ids)
    assert logits.dtype == np.float32
    assert np.abs(logits - expected).max() < 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize("changes", SHAPES)
def test_scores_equal_the_float64_reference(
    make_shape: MakeShape, make_model: MakeModel, changes: dict[str, Any]
) -> None:
    slm = make_model(make_shape(**changes), seed=2)
    pairs = random_pairs(12)
    scores = Forward(slm).score(pairs)
    for index, (prompt, answer) in enumerate(pairs):
        rows = forward64(slm, [*prompt, *answer[:-1]])[-len(answer) :]
        logs = np.array([log_softmax(row) for row in rows])
        picked = logs[np.arange(len(answer)), answer]
        brier = np.mean([1 - 2 * np.exp(p) + np.exp(2 * row).sum() for p, row in zip(picked, logs, strict=True)])
        assert scores.loglik[index] == pytest.approx(picked.sum(), rel=1e-5, abs=1e-5)
        assert scores.brier[index] == pytest.approx(brier, rel=1e-4, abs=1e-6)
        assert scores.tokens[index] == len(answer)
        assert scores.fed[index] == len(prompt) + len(answer) - 1
        assert scores.finite[index]


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), changes=st.sampled_from(SHAPES), size=st.sampled_from([0.2, 0.6]))
def test_exact_is_what_greedy_decoding_would_have_written(seed: int, changes: dict[str, Any], size: float) -> None:
    fields: dict[str, Any] = {
        "vocab_size": 260, "hidden_size": 16, "layer_count": 2, "head_count": 4, "kv_head_count": 2, "head_dim": 4,
        "ffn_size": 24, "max_context": 32, "rope_theta": 1e4, "rms_norm_epsilon": 1e-5, "tied": True,
    } | changes  # fmt: skip
    shape = SlmShape(**fields)
    random = np.random.default_rng(seed)
    tensors = {spec.name: (random.standard_normal(spec.dims) * size).astype(np.float32) for spec in shape.tensors()}
    forward = Forward(parse_slm(write_slm(shape, ByteTokenizer(), tensors)))
    prompts = [prompt for prompt, _ in random_pairs(8, seed)]
    written = forward.generate(prompts, 6)
    right = list(zip(prompts, written, strict=True))
    wrong = [(p, [*w[:-1], (w[-1] + 1) % 260]) for p, w in right]
    longer = [(p, [*w, EOS]) for p, w in right if w[-1] != EOS]
    scores = forward.score([*right, *wrong, *longer])
    assert scores.exact[: len(right)].all()
    assert not scores.exact[len(right) : 2 * len(right)].any()
    expected = [
        len(g) > len(w) and g[len(w)] == EOS for (p, w) in right if w[-1] != EOS for g in forward.generate([p], 7)
    ]
    assert scores.exact[2 * len(right) :].tolist() == expected


def test_a_model_that_says_the_answer_is_exact_up_to_its_end(make_shape: MakeShape, make_model: MakeModel) -> None:
    # With the residual stream held by the embedding, the output repeats the last token it saw.
    shape = make_shape(hidden_size=260, head_count=2, kv_head_count=1, head_dim=130, layer_count=1)
    tensors = {spec.name: np.zeros(spec.dims, dtype=np.float32) for spec in shape.tensors()}
    tensors |= {"tok_embeddings.weight": np.eye(260, dtype=np.float32), "norm.weight": np.ones(260, dtype=np.float32)}
    forward = Forward(parse_slm(write_slm(shape, ByteTokenizer(), tensors)))
    scores = forward.score([([BOS, 97], [97, 97]), ([BOS, 97], [97, EOS]), ([BOS, EOS], [EOS])])
    assert scores.exact.tolist() == [True, False, True]
    assert forward.generate([[BOS, EOS], [BOS, 97]], 4) == [[EOS], [97, 97, 97, 97]]


def test_ties_go_to_the_lowest_id(make_shape: MakeShape) -> None:
    shape = make_shape()
    zeros = {spec.name: np.zeros(spec.dims, dtype=np.float32) for spec in shape.tensors()}
    forward = Forward(parse_slm(write_slm(shape, ByteTokenizer(), zeros)))
    scores = forward.score([([BOS], [0]), ([BOS], [1])])
    assert scores.exact.tolist() == [True, False]
    assert scores.loglik.tolist() == pytest.approx([-np.log(260)] * 2)
    assert scores.brier.tolist() == pytest.approx([1 - 2 / 260 + 1 / 260] * 2)
    assert forward.generate([[BOS]], 3) == [[0, 0, 0]]


@pytest.mark.parametrize("changes", SHAPES)
def test_decoding_with_a_cache_equals_the_full_pass(
    make_shape: MakeShape, make_model: MakeModel, changes: dict[str, Any]
) -> None:
    slm = make_model(make_shape(**changes), seed=9)
    decoder = Decoder(slm)
    ids = np.random.default_rng(5).integers(0, 260, (3, 12))
    full = decoder.logits(decoder.run(ids)).reshape(3, 12, -1)
    cache = Cache(slm, 3, 12)
    pieces = [decoder.run(ids[:, a:b], cache=cache) for a, b in ((0, 5), (5, 6), (6, 9), (9, 10), (10, 11), (11, 12))]
    stepped = np.concatenate([decoder.logits(x).reshape(3, -1, 260) for x in pieces], axis=1)
    assert cache.length == 12
    assert np.abs(stepped - full).max() < 1e-4


def test_grouped_heads_equal_the_same_heads_written_out(
    make_shape: MakeShape, make_tensors: Callable[..., dict[str, np.ndarray]]
) -> None:
    grouped, full = make_shape(kv_head_count=2), make_shape(kv_head_count=4)
    tensors = make_tensors(grouped)
    expanded = dict(tensors)
    for layer in range(grouped.layer_count):
        for part in ("wk", "wv"):
            name = f"layers.{layer}.{part}.weight"
            heads = tensors[name].reshape(2, 4, 16)
            expanded[name] = np.ascontiguousarray(np.repeat(heads, 2, axis=0).reshape(16, 16))
    ids = np.arange(20).reshape(2, 10)
    first, second = (
        Decoder(parse_slm(write_slm(shape, ByteTokenizer(), values)))
        for shape, values in ((grouped, tensors), (full, expanded))
    )
    assert np.abs(first.logits(first.run(ids)) - second.logits(second.run(ids))).max() < 1e-5


def test_later_tokens_never_change_earlier_logits(make_shape: MakeShape, make_model: MakeModel) -> None:
    decoder = Decoder(make_model(make_shape()))
    ids = np.arange(8)[np.newaxis].copy()
    before = decoder.run(ids)[:7].copy()
    ids[0, 7] = 200
    assert (decoder.run(ids)[:7] == before).all()


def test_only_relative_positions_matter_to_attention(make_shape: MakeShape, make_model: MakeModel) -> None:
    # Shifting a whole sequence by a cached position that nobody may see is the same as not shifting it.
    slm = make_model(make_shape(layer_count=1))
    decoder = Decoder(slm)
    turns = decoder._turn(0, 12)
    assert np.allclose(turns[3:12] * np.conj(turns[:9]), turns[3], atol=1e-6)


def test_results_do_not_depend_on_the_order_or_size_of_the_input(make_shape: MakeShape, make_model: MakeModel) -> None:
    forward = Forward(make_model(make_shape()))
    pairs = random_pairs(40, seed=3)
    whole = forward.score(pairs)
    order = np.random.default_rng(1).permutation(40)
    shuffled = forward.score([pairs[i] for i in order])
    assert np.allclose(whole.loglik[order], shuffled.loglik, rtol=1e-5)
    assert (whole.exact[order] == shuffled.exact).all()
    assert np.allclose(whole.loglik, forward.score(pairs, batch=3).loglik, rtol=1e-5)


def test_equal_input_gives_equal_bits(make_shape: MakeShape, make_model: MakeModel) -> None:
    pairs = random_pairs(50, seed=8)
    first, second = (Forward(make_model(make_shape())).score(pairs) for _ in range(2))
    assert first.loglik.tobytes() == second.loglik.tobytes()
    assert first.brier.tobytes() == second.brier.tobytes()


BITS = """
import hashlib
import numpy as np
from studbook.models.forward import Forward
from studbook.models.shape import SlmShape
from studbook.models.slm import parse_slm, write_slm
from studbook.models.tokenizers import ByteTokenizer
shape = SlmShape(260, 64, 2, 4, 2, 16, 96, 64, 1e4, 1e-5, True)
random = np.random.default_rng(0)
tensors = {s.name: random.standard_normal(s.dims, dtype=np.float32) / 4 for s in shape.tensors()}
forward = Forward(parse_slm(write_slm(shape, ByteTokenizer(), tensors)))
pairs = [([256, *random.integers(0, 256, n % 17)], [*random.integers(0, 256, n % 5), 257]) for n in range(600)]
scores = forward.score(pairs)
print(hashlib.sha256(scores.loglik.tobytes() + scores.brier.tobytes()).hexdigest())
"""


def test_bits_do_not_depend_on_threads_or_hash_seed() -> None:
    digests = set()
    for threads, seed in (("1", "0"), ("2", "77")):
        environment = os.environ | {"OPENBLAS_NUM_THREADS": threads, "PYTHONHASHSEED": seed}
        result = subprocess.run(
            [sys.executable, "-c", BITS], capture_output=True, text=True, check=True, env=environment
        )
        digests.add(result.stdout)
    assert len(digests) == 1


def test_a_model_that_overflows_is_reported_and_never_raises(make_shape: MakeShape, make_model: MakeModel) -> None:
    huge = np.full((16, 16), 3e38, dtype=np.float32)
    slm = make_model(make_shape(), **{"layers.0.wv.weight": huge[:8], "layers.0.wo.weight": huge})
    forward = Forward(slm)
    scores = forward.score([([BOS, 97], [98, EOS]), ([BOS], [EOS])])
    assert not scores.finite.any()
    assert not scores.exact.any()
    assert (scores.loglik == -np.inf).all()
    assert (scores.brier == 2).all()
    for sampling in (Sampling(), Sampling(1.0, 5, 0.9, 3)):
        written = forward.decode([[BOS, 97], [BOS]], 3, sampling)
        assert written.finite == [False, False]
        assert all(len(ids) == 3 for ids in written.ids)


def test_one_token_that_overflows_spoils_no_other_sequence(
    make_shape: MakeShape, make_tensors: Callable[..., dict[str, np.ndarray]]
) -> None:
    tensors = make_tensors(make_shape(tied=False))
    embedding = tensors["tok_embeddings.weight"].copy()
    # Token 200 alone points along one direction, which the values of the first layer blow up.
    embedding[:, 3] = 0
    embedding[200] = np.eye(16, dtype=np.float32)[3]
    values = tensors["layers.0.wv.weight"].copy()
    values[:, 3] = 3e38
    sick = tensors | {"tok_embeddings.weight": embedding, "layers.0.wv.weight": values}
    well = tensors | {"tok_embeddings.weight": embedding}
    pairs = [([BOS, 97, 98], [99, EOS]), ([BOS, 200, 98], [99, EOS]), ([BOS, 98, 97], [99, EOS])]
    scores, clean = (
        Forward(parse_slm(write_slm(make_shape(tied=False), ByteTokenizer(), values))).score(pairs)
        for values in (sick, well)
    )
    assert scores.finite.tolist() == [True, False, True]
    assert clean.finite.all()
    assert scores.loglik[[0, 2]].tolist() == clean.loglik[[0, 2]].tolist()


def test_sampling_is_seeded_and_every_prompt_has_its_own_stream(make_shape: MakeShape, make_model: MakeModel) -> None:
    forward = Forward(make_model(make_shape(), size=0.1))
    prompts = [[BOS, 97], [BOS, 98, 99], [BOS, 97]]
    hot = Sampling(2.0, 50, 1.0, 11)
    first = forward.generate(prompts, 8, hot)
    assert first == forward.generate(prompts, 8, hot)
    assert first[0] == first[2]
    assert [first[1]] == forward.generate([prompts[1]], 8, hot)
    assert first != forward.generate(prompts, 8, Sampling(2.0, 50, 1.0, 12))
    assert forward.generate(prompts, 8, Sampling(2.0, 1, 1.0, 5)) == forward.generate(prompts, 8)


def test_writing_ends_at_stop_limit_or_context(make_shape: MakeShape, make_model: MakeModel) -> None:
    forward = Forward(make_model(make_shape(max_context=6)))
    (written,) = forward.generate([[BOS, 97, 98, 99]], 50, stop=259)
    assert len(written) == 3 or written[-1] == 259
    (full,) = forward.generate([[BOS, 1, 2, 3, 4, 5]], 50, stop=259)
    assert len(full) == 1
    stop = written[1]
    assert forward.generate([[BOS, 97, 98, 99]], 50, stop=stop) == [written[: written.index(stop) + 1]]


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (([], [97]), "forward.empty"),
        (([BOS], []), "forward.empty"),
        (([BOS, 260], [97]), "forward.id"),
        (([BOS], [-1]), "forward.id"),
        (([BOS] * 30, [97] * 4), "forward.context"),
    ],
)
def test_sequences_that_cannot_be_fed_are_refused(
    make_shape: MakeShape, make_model: MakeModel, pair: tuple[list[int], list[int]], reason: str
) -> None:
    forward = Forward(make_model(make_shape()))
    with pytest.raises(UsageError) as refused:
        forward.score([([BOS], [EOS]), pair])
    assert refused.value.reason == reason
    assert refused.value.where == "sequence 1"


def test_prompts_that_cannot_be_continued_are_refused(make_shape: MakeShape, make_model: MakeModel) -> None:
    forward = Forward(make_model(make_shape()))
    for prompts, limit, reason in (
        ([[]], 1, "forward.empty"),
        ([[300]], 1, "forward.id"),
        ([[BOS] * 33], 1, "forward.context"),
        ([[BOS]], 0, "forward.tokens"),
    ):
        with pytest.raises(UsageError) as refused:
            forward.generate(prompts, limit)
        assert refused.value.reason == reason


def test_nothing_to_do_is_done_at_once(make_shape: MakeShape, make_model: MakeModel) -> None:
    forward = Forward(make_model(make_shape()))
    assert len(forward.score([]).loglik) == 0
    assert forward.generate([], 5) == []


def test_a_context_as_long_as_a_file_may_claim_costs_nothing(make_shape: MakeShape, make_model: MakeModel) -> None:
    forward = Forward(make_model(make_shape(max_context=2**32 - 1)))
    assert len(forward.generate([[BOS, 97]], 3, stop=259)[0]) <= 3
    assert forward.score([([BOS], [EOS])]).finite.all()
