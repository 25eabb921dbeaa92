from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_fixtures import Door
from studbook.adapters.reader import parse_adapter
from studbook.adapters.stack import Stack
from studbook.errors import AdapterRefused, OutOfOrder, OverBudget, SlmRefused, TokenizerRefused, UsageError
from studbook.models.engine import Engine
from studbook.models.engine.compiled import compiled
from studbook.models.forward import Forward, forward64
from studbook.models.sampling import Sampler, Sampling
from studbook.models.shape import SlmShape
from studbook.models.slm import parse_slm, read_slm, write_slm
from studbook.models.tokenizers import BOS, EOS, ByteTokenizer

ROOT = Path(__file__).resolve().parents[2]
FOUNDERS = sorted((ROOT / "examples" / "founders").glob("*/*.slm"))
MakeShape = Callable[..., SlmShape]
MakeTensors = Callable[..., dict[str, np.ndarray]]
SHAPES: list[dict[str, Any]] = [
    {},
    {"tied": False, "kv_head_count": 4},
    {"kv_head_count": 1, "layer_count": 3, "rope_theta": 100.0},
    {"head_count": 2, "kv_head_count": 1, "head_dim": 8, "layer_count": 1, "ffn_size": 6},
    # Rows that no vector of four divides, in the stream, in a head and in the feed-forward layer.
    {"hidden_size": 18, "head_count": 3, "kv_head_count": 3, "head_dim": 6, "ffn_size": 10},
    {"hidden_size": 12, "head_count": 2, "kv_head_count": 1, "head_dim": 6},
    {"hidden_size": 96, "head_count": 2, "kv_head_count": 1, "head_dim": 48, "ffn_size": 70, "max_context": 128},
]
DTYPES = ["f32", "q8_0", "q4_0"]
# Of the largest logit, as for the pass in numpy; of a whole answer's log-likelihood, between the two.
LOGITS = 2e-5
LOGLIK = 2e-6


@pytest.fixture
def make_file(make_shape: MakeShape, make_tensors: MakeTensors) -> Callable[..., bytes]:
    """The bytes of a small model with random weights."""

    def make(changes: dict[str, Any] | None = None, dtype: str = "f32", seed: int = 4, **tensors: np.ndarray) -> bytes:
        shape = make_shape(**(changes or {}))
        size = 2 / shape.hidden_size**0.5
        return write_slm(shape, ByteTokenizer(), make_tensors(shape, seed, size) | tensors, dtype)

    return make


@pytest.fixture(scope="module")
def cases_tool() -> ModuleType:
    """The tool that writes the shared table of packages, for its recipes of models."""
    spec = importlib.util.spec_from_file_location("adapter_cases", ROOT / "tools" / "adapter_cases.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def founder() -> Iterator[Engine]:
    with Engine((ROOT / "examples/founders/base/base.slm").read_bytes()) as engine:
        yield engine


def some_ids(count: int, seed: int = 0) -> list[int]:
    return [BOS, *np.random.default_rng(seed).integers(0, 260, count - 1).tolist()]


def test_the_engine_asks_for_a_memory_and_nothing_else() -> None:
    (memory,) = compiled(fuel=False, checked=False).module.imports
    assert (memory.module, memory.name) == ("env", "memory")


@pytest.mark.parametrize("changes", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_logits_equal_the_float64_reference(
    make_file: Callable[..., bytes], changes: dict[str, Any], dtype: str
) -> None:
    data = make_file(changes, dtype)
    ids = some_ids(32)
    expected = forward64(parse_slm(data), ids)
    with Engine(data) as engine, engine.session(32) as session:
        logits = session.feed(ids, every=True)
    assert np.abs(logits - expected).max() < LOGITS * np.abs(expected).max()


@pytest.mark.parametrize("changes", SHAPES)
def test_any_split_of_a_text_gives_the_same_bits(make_file: Callable[..., bytes], changes: dict[str, Any]) -> None:
    # Beyond one block of 32 tokens, with an odd rest, and too few for a block's panels.
    data = make_file({"max_context": 128} | changes | {"max_context": 128})
    ids = some_ids(75)
    with Engine(data) as engine, engine.session(75) as session:
        whole = session.feed(ids, every=True)
        for ends in (range(1, 76), (3, 4, 40, 73, 75), (33, 66, 70, 75)):
            session.reset()
            starts = [0, *ends]
            parts = [session.feed(ids[a:b], every=True) for a, b in zip(starts, ends, strict=False)]
            assert np.concatenate(parts).tobytes() == whole.tobytes()
        session.reset()
        assert session.feed(ids).tobytes() == whole[-1].tobytes()
        assert session.length == 75


@pytest.mark.parametrize("changes", SHAPES)
def test_scoring_feeds_the_same_bits(make_file: Callable[..., bytes], changes: dict[str, Any]) -> None:
    data = make_file(changes | {"max_context": 128})
    ids = some_ids(70, seed=2)
    with Engine(data) as engine:
        with engine.session(70) as session:
            logits = session.feed(ids, every=True).astype(np.float64)
        for prompt in (1, 20, 37, 69):
            answer = ids[prompt:]
            whole = engine.score([(ids[:prompt], answer)])
            # A sum of the same numbers in the same order: equal in its last bit.
            each = engine.score([(ids[:at], [ids[at]]) for at in range(prompt, 70)])
            assert whole.loglik[0] == sum(each.loglik.tolist())
            assert whole.exact[0] == all(each.exact)
            rows = logits[prompt - 1 : 69]
            rows = rows - rows.max(axis=1, keepdims=True)
            chances = np.exp(rows) / np.exp(rows).sum(axis=1, keepdims=True)
            right = chances[np.arange(len(answer)), answer]
            assert whole.loglik[0] == pytest.approx(np.log(right).sum(), rel=1e-13)
            assert whole.brier[0] == pytest.approx(np.mean(1 - 2 * right + (chances**2).sum(axis=1)), rel=1e-12)
            assert (whole.fed[0], whole.tokens[0], whole.calls[0], whole.finite[0]) == (69, len(answer), 1, True)


@pytest.mark.parametrize("path", FOUNDERS, ids=lambda path: path.stem)
@pytest.mark.parametrize("dtype", DTYPES)
def test_founders_write_and_score_as_in_numpy(path: Path, dtype: str) -> None:
    slm = read_slm(path)
    data = write_slm(slm.shape, slm.tokenizer, {name: slm.dense(name) for name in slm.tensors}, dtype)
    forward = Forward(parse_slm(data))
    texts = ("rev ab>", "srt cab>", "cap dog>", "rot abc>", "brk (a)>", "", "hello world", "dup x>", "odd 135>")
    with Engine(data) as engine:
        prompts = [engine.encode(text, eos=False) for text in texts]
        written = engine.decode(prompts, 20)
        assert written == forward.decode(prompts, 20)
        pairs = list(zip(prompts, written.ids, strict=True))
        pairs += [(prompt, engine.encode("no", bos=False)) for prompt in prompts]
        found, expected = engine.score(pairs), forward.score(pairs)
        assert found.exact.tolist() == expected.exact.tolist()
        assert np.abs(found.loglik - expected.loglik).max() <= LOGLIK * np.abs(expected.loglik).max()
        assert np.abs(found.brier - expected.brier).max() <= LOGLIK
        assert engine.logit_digest() == engine.logit_digest(63)
        assert engine.facts.sha256 == parse_slm(data).sha256


def test_the_logit_digest_is_over_the_logits_of_stated_tokens(make_file: Callable[..., bytes]) -> None:
    data = make_file({"max_context": 50})
    state, ids = 1, []
    for _ in range(49):
        state ^= state << 13 & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 7
        state ^= state << 17 & 0xFFFFFFFFFFFFFFFF
        ids.append((state >> 11) % 260)
    with Engine(data) as engine, engine.session(49) as session:
        logits = session.feed(ids, every=True)
        assert engine.logit_digest() == hashlib.sha256(logits.tobytes()).hexdigest()
        assert engine.logit_digest(7) == hashlib.sha256(logits[:7].tobytes()).hexdigest()
        with pytest.raises(UsageError) as refused:
            engine.logit_digest(51)
    assert refused.value.reason == "engine.context"
    with Engine(make_file({"max_context": 1})) as engine:
        assert engine.logit_digest() == engine.logit_digest(1)


def test_checked_and_unchecked_memory_and_fuel_give_the_same_bits(
    make_file: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_file({"max_context": 128})
    digests, burnt = set(), set()
    for checked in (False, True):
        monkeypatch.setattr("studbook.models.engine.instance.confined", lambda checked=checked: checked)
        for fuel in (False, True):
            with Engine(data, fuel=fuel) as engine:
                digests.add(engine.logit_digest())
                engine.generate([some_ids(5)], 20)
                burnt |= {engine.fuel_used} if fuel else set()
    assert len(digests) == 1
    assert len(burnt) == 1


def test_fuel_counts_what_is_done_and_nothing_else(make_file: Callable[..., bytes]) -> None:
    data, pair = make_file(), (some_ids(6), [97, EOS])
    runs = []
    for _ in range(2):
        with Engine(data, fuel=True) as engine:
            assert engine.fuel_used == 0
            engine.score([pair])
            first = engine.fuel_used
            engine.score([pair, (some_ids(12), [97, EOS])])
            runs.append((first, engine.fuel_used))
    assert runs[0] == runs[1]
    assert 0 < 2 * runs[0][0] < runs[0][1]
    with Engine(data) as engine, pytest.raises(UsageError) as refused:
        engine.fuel_used  # noqa: B018
    assert refused.value.reason == "engine.fuel"


@given(
    st.lists(st.floats(-30, 30, width=32), min_size=3, max_size=40),
    st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    st.sampled_from([1, 2, 7, 50, 260, 1024]),
    st.sampled_from([0.1, 0.5, 0.9, 1.0]),
    st.integers(0, 2**64 - 1),
)
@settings(max_examples=150, deadline=None)
def test_picks_are_those_of_the_sampler_in_python(
    door: Door, some: list[float], temperature: float, top_k: int, top_p: float, seed: int
) -> None:
    logits = np.resize(np.array(some, dtype=np.float32), 260)  # ties everywhere
    assert picked(door, logits, temperature, top_k, top_p, seed) == python_picks(
        logits, temperature, top_k, top_p, seed
    )


@given(st.integers(0, 2**32), st.sampled_from([0.7, 1.0, 4.0]), st.sampled_from([3, 40, 1024]), st.floats(0.05, 1.0))
@settings(max_examples=100, deadline=None)
def test_picks_among_random_logits_are_those_of_the_sampler(
    door: Door, seed: int, temperature: float, top_k: int, top_p: float
) -> None:
    logits = np.random.default_rng(seed).standard_normal(260).astype(np.float32) * 3
    assert picked(door, logits, temperature, top_k, top_p, seed) == python_picks(
        logits, temperature, top_k, top_p, seed
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("many", [1, 259, 260])
def test_picks_without_a_finite_mass_are_greedy(door: Door, bad: float, many: int) -> None:
    logits = np.linspace(-1, 1, 260, dtype=np.float32)
    logits[5 : 5 + many] = bad
    for top_k in (1, 10, 260):
        assert picked(door, logits, 1.0, top_k, 1.0, 9) == python_picks(logits, 1.0, top_k, 1.0, 9)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [
        (-1.0, 1, 1.0),
        (np.nan, 1, 1.0),
        (np.inf, 1, 1.0),
        (1.0, 0, 1.0),
        (1.0, 1025, 1.0),
        (1.0, 1, 0.0),
        (1.0, 1, np.nan),
    ],
)
def test_sampling_settings_out_of_range_are_refused(door: Door, temperature: float, top_k: int, top_p: float) -> None:
    logits, state = door.put(bytes(4 * 260)), door.put(struct.pack("<Q", 1))
    assert door.call("pick", logits, temperature, top_k, top_p, state) == -1
    assert door.reason() == "engine.sampling"


@pytest.fixture(scope="module")
def door() -> Door:
    """The engine as a bare host sees it, with a founder loaded."""
    door = Door()
    assert door.load((ROOT / "examples/founders/base/base.slm").read_bytes()) == ""
    return door


def picked(door: Door, logits: np.ndarray, temperature: float, top_k: int, top_p: float, seed: int) -> list[int]:
    block, state = door.put(logits.tobytes()), door.put(struct.pack("<Q", seed))
    found = [door.call("pick", block, temperature, top_k, top_p, state) for _ in range(3)]
    door.call("free", block)
    door.call("free", state)
    return found


def python_picks(logits: np.ndarray, temperature: float, top_k: int, top_p: float, seed: int) -> list[int]:
    sampler = Sampler(Sampling(temperature, top_k, top_p, seed))
    return [sampler.pick(logits) for _ in range(3)]


def test_drawn_texts_are_those_of_the_pass_in_numpy(founder: Engine) -> None:
    forward = Forward(read_slm(ROOT / "examples/founders/base/base.slm"))
    prompts = [some_ids(n, seed=n) for n in (1, 4, 9)]
    for sampling in (Sampling(1.0, 40, 0.95, 3), Sampling(0.5, 1024, 1.0, 0), Sampling(3.0, 5, 0.5, 2**64 - 1)):
        assert founder.decode(prompts, 30, sampling) == forward.decode(prompts, 30, sampling)


def test_a_model_that_overflows_is_reported_and_never_raises(make_file: Callable[..., bytes]) -> None:
    huge = np.full((16, 16), 3e38, dtype=np.float32)
    data = make_file(**{"layers.0.wv.weight": huge[:8], "layers.0.wo.weight": huge})
    with Engine(data) as engine:
        scores = engine.score([([BOS, 97], [98, EOS]), ([BOS], [EOS])])
        assert not scores.finite.any()
        assert not scores.exact.any()
        assert (scores.loglik == -np.inf).all()
        assert (scores.brier == 2).all()
        for sampling in (Sampling(), Sampling(1.0, 5, 0.9, 3)):
            written = engine.decode([[BOS, 97], [BOS]], 3, sampling)
            assert written.finite == [False, False]
            assert all(len(ids) == 3 for ids in written.ids)
        with engine.session(4) as session:
            assert not np.isfinite(session.feed([BOS])).all()
        with pytest.raises(UsageError) as refused:
            engine.logit_digest()
    assert refused.value.reason == "engine.non-finite"


def test_one_token_that_overflows_spoils_no_other_sequence(make_shape: MakeShape, make_tensors: MakeTensors) -> None:
    shape = make_shape(tied=False)
    tensors = make_tensors(shape)
    embedding, values = tensors["tok_embeddings.weight"].copy(), tensors["layers.0.wv.weight"].copy()
    embedding[:, 3] = 0
    embedding[200] = np.eye(16, dtype=np.float32)[3]
    values[:, 3] = 3e38
    changed = tensors | {"tok_embeddings.weight": embedding, "layers.0.wv.weight": values}
    with Engine(write_slm(shape, ByteTokenizer(), changed)) as engine:
        scores = engine.score([([BOS, 97], [99, EOS]), ([BOS, 200], [99, EOS]), ([BOS, 97], [99, EOS])])
    assert scores.finite.tolist() == [True, False, True]
    assert scores.loglik[0] == scores.loglik[2]


def test_sessions_stand_beside_each_other(founder: Engine) -> None:
    first, second = some_ids(20), some_ids(20, seed=1)
    with founder.session(20) as one, founder.session(20) as other:
        alone = [one.feed(first), other.feed(second)]
        one.reset()
        other.reset()
        for at in range(0, 20, 4):
            together = [one.feed(first[at : at + 4]), other.feed(second[at : at + 4])]
        founder.score([(first, [EOS])])
        assert [row.tobytes() for row in together] == [row.tobytes() for row in alone]
        assert (one.length, other.length) == (20, 20)


def test_what_cannot_be_fed_is_refused_and_nothing_is_fed(founder: Engine) -> None:
    with founder.session(8) as session:
        session.feed([BOS])
        for ids, reason in (
            ([], "engine.context"),
            ([1] * 8, "engine.context"),
            ([1, 260], "engine.id"),
            ([-1], "engine.id"),
        ):
            with pytest.raises(UsageError) as refused:
                session.feed(ids)
            assert refused.value.reason == reason
            assert session.length == 1
        assert session.feed([2] * 7).shape == (260,)
    with pytest.raises(UsageError):
        session.feed([1])
    for positions in (0, 65):
        with pytest.raises(UsageError) as refused:
            founder.session(positions)
        assert refused.value.reason == "engine.context"


def test_64_sessions_are_the_most(founder: Engine) -> None:
    sessions = [founder.session(1) for _ in range(64)]
    with pytest.raises(UsageError) as refused:
        founder.session(1)
    assert refused.value.reason == "engine.session"
    for session in sessions:
        session.close()
    founder.session(1).close()


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (([], [97]), "forward.empty"),
        (([BOS], []), "forward.empty"),
        (([BOS, 260], [97]), "forward.id"),
        (([BOS], [-1]), "forward.id"),
        (([BOS] * 62, [97] * 4), "forward.context"),
    ],
)
def test_sequences_that_cannot_be_scored_are_refused(founder: Engine, pair: Any, reason: str) -> None:
    with pytest.raises(UsageError) as refused:
        founder.score([([BOS], [EOS]), pair])
    assert (refused.value.reason, refused.value.where) == (reason, "sequence 1")


def test_prompts_that_cannot_be_continued_are_refused(founder: Engine) -> None:
    for prompts, limit, reason in (
        ([[]], 1, "forward.empty"),
        ([[300]], 1, "forward.id"),
        ([[BOS] * 65], 1, "forward.context"),
        ([[BOS]], 0, "forward.tokens"),
    ):
        with pytest.raises(UsageError) as refused:
            founder.generate(prompts, limit)
        assert refused.value.reason == reason


def test_writing_ends_at_stop_limit_or_context(founder: Engine) -> None:
    forward = Forward(read_slm(ROOT / "examples/founders/base/base.slm"))
    prompts = [some_ids(n, seed=n) for n in (64, 60, 1)]
    for stop in (EOS, 259, forward.generate([prompts[2]], 5)[0][2]):
        assert founder.generate(prompts, 500, stop=stop) == forward.generate(prompts, 500, stop=stop)
    assert founder.generate([], 5) == []
    assert len(founder.score([]).loglik) == 0


def test_text_goes_to_ids_and_back(founder: Engine) -> None:
    tokenizer = ByteTokenizer()
    for text in ("", "plain", "ünïcödé \N{SNOWMAN}", "a" * 70_000):
        for bos, eos in ((True, True), (True, False), (False, False)):
            assert founder.encode(text, bos=bos, eos=eos) == tokenizer.encode(text, bos=bos, eos=eos)
    assert founder.decode_text(tokenizer.encode("ünïcödé")) == "ünïcödé"
    for ids, reason in (
        ([0xC3], "tokenizer.decode.utf8"),
        ([260], "tokenizer.decode.id"),
        ([97] * 65_537, "tokenizer.decode.limit"),
    ):
        with pytest.raises(TokenizerRefused) as refused:
            founder.decode_text(ids)
        assert refused.value.reason == reason
    with pytest.raises(TokenizerRefused) as refused:
        founder.encode("\ud800")
    assert refused.value.reason == "tokenizer.encode.text"


def test_a_file_that_breaks_a_rule_is_refused_by_the_engine(make_file: Callable[..., bytes]) -> None:
    data = bytearray(make_file())
    data[-1] ^= 1
    with pytest.raises(SlmRefused) as refused:
        Engine(bytes(data), where="a.slm")
    assert (refused.value.reason, refused.value.where) == ("slm.checksum", "a.slm")


def test_too_little_memory_is_over_budget_and_the_model_keeps_answering(make_file: Callable[..., bytes]) -> None:
    data = make_file({"max_context": 4096, "layer_count": 4})
    # The engine's own pages; the file in them; its decoded weights beside it.
    large = make_file({"vocab_size": 260, "ffn_size": 4000}, "q8_0")
    for file, limit in ((data, 0), (data, 1 << 16), (large, 448 << 10), (large, 1 << 20)):
        with pytest.raises(OverBudget) as over:
            Engine(file, memory_limit=limit)
        assert over.value.reason == "engine.memory"
    with Engine(data, memory_limit=1 << 20) as engine:
        before = engine.logit_digest(20)
        for asked in (4096, 3500):
            with pytest.raises(OverBudget):
                engine.session(asked)
        with pytest.raises(OverBudget):
            engine.score([(some_ids(4000), [EOS])])
        with pytest.raises(OverBudget):
            engine.generate([some_ids(4000)], 3)
        with pytest.raises(OverBudget):
            engine.logit_digest()
        assert engine.memory_bytes <= 1 << 20
        assert engine.logit_digest(20) == before
        assert engine.score([(some_ids(4), [EOS])]).finite.all()


def test_a_context_as_long_as_a_file_may_claim_costs_nothing(make_file: Callable[..., bytes]) -> None:
    with Engine(make_file({"max_context": 2**32 - 1}), memory_limit=4 << 20) as engine:
        assert len(engine.generate([[BOS, 97]], 3, stop=259)[0]) <= 3
        with pytest.raises(OverBudget):
            engine.logit_digest()
        with pytest.raises(OverBudget):
            engine.session(2**32 - 1)
        assert engine.score([([BOS], [EOS])]).finite.all()


def test_what_was_given_back_is_used_again(founder: Engine) -> None:
    pairs = [(some_ids(n % 40 + 1), [97, EOS]) for n in range(200)]
    founder.score(pairs)
    founder.decode([prompt for prompt, _ in pairs], 4)
    before = founder.memory_bytes
    for _ in range(3):
        founder.score(pairs)
        founder.decode([prompt for prompt, _ in pairs], 4)
    assert founder.memory_bytes == before


def test_a_closed_engine_says_so(make_file: Callable[..., bytes]) -> None:
    engine = Engine(make_file())
    session = engine.session(3)
    engine.close()
    engine.close()
    session.close()
    for act in (engine.logit_digest, lambda: engine.score([([BOS], [EOS])]), lambda: session.feed([1])):
        with pytest.raises(OutOfOrder):
            act()


@pytest.fixture(scope="module")
def shelf() -> dict[str, Any]:
    """The shared table of packages: recipes of models and packages in base64."""
    table: dict[str, Any] = json.loads((ROOT / "tests" / "adapters" / "cases.json").read_text(encoding="utf-8"))
    return {name: base64.b64decode(data) for name, data in table["packages"].items()}


@pytest.mark.parametrize("dtype", DTYPES)
def test_packages_change_what_is_computed_and_come_off_without_a_trace(
    shelf: dict[str, bytes], cases_tool: ModuleType, dtype: str
) -> None:
    slm, f32 = cases_tool.MODELS[dtype], cases_tool.MODELS["f32"]
    stack = Stack(slm, {slm.sha256: f32.sha256})
    names = ("sparse", "low-rank-3", "dense-three-tensors")
    with Engine(cases_tool.build_model(cases_tool.RECIPES[dtype]), fuel=True) as engine, engine.session(10) as session:
        engine.accept(f32.sha256)
        bare = engine.logit_digest()
        session.feed([BOS, 97])
        assert engine.apply(*(shelf[name] for name in names)) == stack.apply(*(parse_adapter(shelf[n]) for n in names))
        assert session.length == 0
        expected = forward64(stack.model(), [BOS, 97, 98])
        logits = session.feed([BOS, 97, 98], every=True)
        assert np.abs(logits - expected).max() < LOGITS * np.abs(expected).max()
        fused = engine.logit_digest()
        assert fused != bare
        assert engine.detach() == stack.detach()
        assert session.length == 0
        assert engine.logit_digest() == bare
        for name in names:
            engine.apply(shelf[name])
        assert engine.logit_digest() == fused


def test_a_package_that_is_refused_changes_nothing(shelf: dict[str, bytes], cases_tool: ModuleType) -> None:
    with Engine(cases_tool.build_model(cases_tool.RECIPES["f32"])) as engine, engine.session(10) as session:
        engine.apply(shelf["dense"])
        before, logits = engine.diagnostics(), session.feed([BOS, 97])
        broken = shelf["sparse"][:-1] + b"\1"
        for packages in ((broken,), (shelf["sparse"], broken), (shelf["low-rank-3"], b"")):
            with pytest.raises(AdapterRefused):
                engine.apply(*packages)
            assert engine.diagnostics() == before
            assert session.length == 2
        session.reset()
        assert session.feed([BOS, 97]).tobytes() == logits.tobytes()


def test_a_closed_session_reaches_no_other_one(founder: Engine) -> None:
    gone = founder.session(4)
    gone.close()
    gone.close()
    # The engine gives the number of the one to the other.
    with founder.session(4) as other:
        with pytest.raises(UsageError) as caught:
            gone.feed([1])
        assert caught.value.reason == "engine.session"
        assert (gone.length, other.length) == (0, 0)
        gone.close()
        other.feed([1])
        assert other.length == 1


@pytest.mark.parametrize("number", [1 << 32, (1 << 32) + 4, 1 << 70, -(1 << 32) + 4])
def test_numbers_of_more_bits_than_the_engine_takes_are_refused(founder: Engine, number: int) -> None:
    for asks in (founder.logit_digest, founder.session):
        with pytest.raises(UsageError) as caught:
            asks(number)
        assert caught.value.reason == "engine.number"


@pytest.mark.parametrize("digest", ["", "0", "zz" * 32, "00" * 31, "00" * 33, "A" * 64, "0" * 63 + "\n"])
def test_only_a_digest_names_a_base(founder: Engine, digest: str) -> None:
    with pytest.raises(UsageError) as caught:
        founder.accept(digest)
    assert caught.value.reason == "engine.digest"
