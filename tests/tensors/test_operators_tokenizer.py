from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studbook.breeding.operators.inputs import Inputs
from studbook.breeding.operators.run import compute
from studbook.breeding.operators.tokenizer_extend import TokenizerExtend
from studbook.breeding.operators.tokenizer_prune import TokenizerPrune
from studbook.errors import OutsideAllowlist, ParentsDoNotFit, TokenizerRefused, UsageError
from studbook.models.bpe import BpeTokenizer
from studbook.models.shape import SlmShape
from studbook.models.slm import parse_slm
from studbook.models.slm_writer import write_slm
from studbook.models.tokenizer_report import compare_tokenizers
from studbook.models.tokenizers import FIRST_WORD, ByteTokenizer
from studbook.records.doors import canonical, decode_json
from studbook.tensors.sources import ArraySource

F32 = np.float32
T, H, E, X = b"thex"
# th, the, he, hex; "the" outranks "he", and "hex" is made of "he".
TOKENIZER = BpeTokenizer.build(
    (b"th", b"the", b"he", b"hex"),
    ((T, H, 260, 0), (260, E, 261, 1), (H, E, 262, 7), (262, X, 263, 9)),
)
EMBEDDING, HEAD = "tok_embeddings.weight", "output.weight"


def shape_of(tokenizer: Any, tied: bool = True) -> SlmShape:
    return SlmShape(tokenizer.vocab_size, 8, 1, 2, 1, 4, 12, 32, 10000.0, 1e-5, tied)


def model(shape: SlmShape, seed: int = 0) -> ArraySource:
    rng = np.random.default_rng(seed)
    tensors = {spec.name: rng.normal(size=spec.dims).astype(F32) for spec in shape.tensors()}
    return ArraySource(hashlib.sha256(b"model %d" % seed).hexdigest(), tensors)


def own(source: ArraySource) -> Inputs:
    return Inputs(base=source, parents=(source,))


def table(source: Any, name: str = EMBEDDING) -> np.ndarray:
    return source.flat(name).reshape(source.dims(name))


@st.composite
def tokenizers(draw: st.DrawFn) -> BpeTokenizer:
    """Merges of a small alphabet in shuffled rank and file order; every word is reachable."""
    words: list[bytes] = []
    pairs: list[tuple[int, int]] = []
    for _ in range(draw(st.integers(0, 7))):
        alphabet = [*b"abc", *range(FIRST_WORD, FIRST_WORD + len(words))]
        left, right = draw(st.sampled_from(alphabet)), draw(st.sampled_from(alphabet))
        word = b"".join(bytes((p,)) if p < 256 else words[p - FIRST_WORD] for p in (left, right))
        if word not in words and len(word) < 40:
            words.append(word)
            pairs.append((left, right))
    ranks = draw(st.permutations(range(0, 3 * len(pairs), 3)))
    merges = [(*pair, FIRST_WORD + k, ranks[k]) for k, pair in enumerate(pairs)]
    return BpeTokenizer.build(words, draw(st.permutations(merges)))


texts = st.text(max_size=40) | st.text("abc", max_size=40)
ALL = settings(deadline=None, max_examples=120)


# -- tokenizers ------------------------------------------------------------------------------------------------------


@ALL
@given(tokenizers(), texts, st.data())
def test_every_text_comes_back_under_a_pruned_tokenizer(tokenizer, text, data):
    child, kept = tokenizer.pruned(data.draw(st.integers(0, len(tokenizer.merges))))
    assert child.decode(child.encode(text)) == text
    assert [child.words[k] for k in range(len(kept))] == [tokenizer.words[old - FIRST_WORD] for old in kept]


@ALL
@given(tokenizers(), texts)
def test_pruning_to_all_merges_is_the_identity(tokenizer, text):
    child, kept = tokenizer.pruned(len(tokenizer.merges))
    assert child.section() == tokenizer.section()
    assert kept == tuple(range(FIRST_WORD, tokenizer.vocab_size))
    assert child.encode(text) == tokenizer.encode(text)


@ALL
@given(tokenizers(), texts)
def test_pruning_to_no_merge_leaves_bytes(tokenizer, text):
    child, kept = tokenizer.pruned(0)
    assert (child.vocab_size, kept) == (FIRST_WORD, ())
    assert child.encode(text) == ByteTokenizer().encode(text)


@ALL
@given(tokenizers(), st.data())
def test_a_pruned_tokenizer_encodes_as_one_whose_late_merges_never_fire(tokenizer, data):
    count = data.draw(st.integers(0, len(tokenizer.merges)))
    text = data.draw(st.text("abc", max_size=30))
    child, kept = tokenizer.pruned(count)
    first = sorted(tokenizer.merges, key=lambda merge: merge.rank)[:count]
    slow = BpeTokenizer.build(tokenizer.words, first)
    place = {old: FIRST_WORD + new for new, old in enumerate(kept)}
    assert child.encode(text) == [place.get(token, token) for token in slow.encode(text)]
    assert set(slow.encode(text)) - set(range(FIRST_WORD)) <= set(kept)


def test_a_word_whose_parts_are_gone_is_gone_too():
    late = BpeTokenizer.build((b"ab", b"abc"), ((ord("a"), ord("b"), 260, 5), (260, ord("c"), 261, 1)))
    child, kept = late.pruned(1)
    assert (child.words, child.merges, kept) == ((), (), ())


def test_a_word_that_another_merge_still_makes_stays():
    merges = (
        (ord("a"), ord("b"), 260, 0),
        (260, ord("c"), 261, 1),
        (ord("b"), ord("c"), 262, 2),
        (ord("a"), 262, 261, 3),
    )
    child, kept = BpeTokenizer.build((b"ab", b"abc", b"bc"), merges).pruned(2)
    assert kept == (260, 261)
    assert child.words == (b"ab", b"abc")


@ALL
@given(tokenizers(), tokenizers(), texts)
def test_extending_keeps_every_text_and_pruning_again_gives_the_first_bytes(tokenizer, other, text):
    known = {word: FIRST_WORD + k for k, word in enumerate(tokenizer.words)} | {bytes((b,)): b for b in range(256)}
    pairs = []
    for merge in other.merges:
        left, right = (bytes((p,)) if p < 256 else other.words[p - FIRST_WORD] for p in merge[:2])
        if left in known and right in known and left + right not in known:
            pairs.append((known[left], known[right]))
            known[left + right] = len(tokenizer.words) + FIRST_WORD + len(pairs) - 1
    try:
        child = tokenizer.extended(pairs)
    except TokenizerRefused as error:  # a pair of the parent that makes the word by another cut
        assert error.reason == "tokenizer.merge.duplicate-pair"
        return
    assert child.vocab_size == tokenizer.vocab_size + len(pairs)
    assert child.decode(child.encode(text)) == text
    assert child.pruned(len(tokenizer.merges))[0].section() == tokenizer.section()
    assert len(child.encode(text)) <= len(tokenizer.encode(text))


@pytest.mark.parametrize("count", [-1, 5])
def test_keeping_more_merges_than_there_are_is_refused(count):
    with pytest.raises(UsageError, match="of 4 merges"):
        TOKENIZER.pruned(count)


def test_pairs_that_make_no_new_word_are_refused():
    with pytest.raises(UsageError, match="is a word already"):
        TOKENIZER.extended([(T, 262)])
    with pytest.raises(TokenizerRefused, match="neither a byte nor a token"):
        TOKENIZER.extended([(T, 264)])
    with pytest.raises(TokenizerRefused, match="neither a byte nor a token"):
        TOKENIZER.extended([(T, 256)])
    full = BpeTokenizer.build((b"ab",), ((ord("a"), ord("b"), 260, 2**32 - 1),))
    with pytest.raises(UsageError, match="no rank is left"):
        full.extended([(ord("c"), ord("d"))])


def test_words_that_double_without_end_are_refused_before_memory_is_taken():
    doubling = [(97, 97), *((260 + k, 260 + k) for k in range(60))]
    with pytest.raises(UsageError, match="more than fits"):
        ByteTokenizerLike().extended(doubling)


def ByteTokenizerLike() -> BpeTokenizer:
    return BpeTokenizer.build((), ())


# -- operators -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_pruning_copies_exactly_the_rows_of_the_tokens_that_are_left(tied):
    shape = shape_of(TOKENIZER, tied)
    parent = model(shape)
    operator = TokenizerPrune.of(TOKENIZER, 3)
    assert operator == TokenizerPrune(merges=3, words=4, first=(0,), last=(2,))
    child = compute(operator, own(parent))
    kept = [*range(260), 260, 261, 262]
    for name in [EMBEDDING] + [HEAD] * (not tied):
        assert child[name].tobytes() == table(parent, name)[kept].tobytes()
    for name in set(child) - {EMBEDDING, HEAD}:
        assert child[name].tobytes() == parent.flat(name).tobytes()
    assert tuple(child) == parent.names
    assert operator.delta_bound(own(parent)) == 0.0


def test_a_pruned_word_in_the_middle_leaves_two_runs():
    tokenizer = BpeTokenizer.build((b"ab", b"cd", b"ef"), ((97, 98, 260, 0), (99, 100, 261, 2), (101, 102, 262, 1)))
    operator = TokenizerPrune.of(tokenizer, 2)
    assert (operator.first, operator.last) == ((0, 2), (0, 2))
    parent = model(shape_of(tokenizer))
    assert compute(operator, own(parent))[EMBEDDING].tobytes() == table(parent)[[*range(261), 262]].tobytes()


@pytest.mark.parametrize("tied", [True, False])
def test_a_new_token_starts_as_the_mean_of_its_parts(tied):
    parent = model(shape_of(TOKENIZER, tied))
    operator = TokenizerExtend.of([(263, T), (264, 261)])
    child = compute(operator, own(parent))
    for name in [EMBEDDING] + [HEAD] * (not tied):
        rows = table(parent, name)
        first = (rows[263] + rows[T]) / F32(2)
        second = (first + rows[261]) / F32(2)
        assert child[name].tobytes() == np.concatenate([rows, first[None], second[None]]).tobytes()
    assert operator.delta_bound(own(parent)) == 0.0


def test_extending_and_pruning_again_gives_the_first_model_back():
    shape, parent = shape_of(TOKENIZER, False), model(shape_of(TOKENIZER, False))
    extend = TokenizerExtend.of([(263, T), (264, 261)])
    grown = ArraySource(hashlib.sha256(b"grown").hexdigest(), compute(extend, own(parent)))
    bigger, longer = extend.remake(shape, TOKENIZER)
    assert isinstance(longer, BpeTokenizer)
    prune = TokenizerPrune.of(longer, len(TOKENIZER.merges))
    back = compute(prune, own(grown))
    assert {n: a.tobytes() for n, a in back.items()} == {n: parent.flat(n).tobytes() for n in parent.names}
    again, tokenizer = prune.remake(bigger, longer)
    assert (again, tokenizer.section()) == (shape, TOKENIZER.section())


@pytest.mark.parametrize("operator", [TokenizerPrune.of(TOKENIZER, 2), TokenizerExtend.of([(263, T), (264, 261)])])
@pytest.mark.parametrize("dtype", ["f32", "q8_0"])
def test_a_child_can_be_written_read_and_run(operator, dtype):
    shape = shape_of(TOKENIZER)
    child = compute(operator, own(model(shape)))
    smaller, tokenizer = operator.remake(shape, TOKENIZER)
    assert {spec.name: spec.dims for spec in smaller.tensors()} == {n: a.shape for n, a in child.items()}
    read = parse_slm(write_slm(smaller, tokenizer, child, dtype))
    assert read.tokenizer.section() == tokenizer.section()
    assert read.shape.vocab_size == operator.plan(shape.vocab_size).rows
    assert max(read.tokenizer.encode("the hexthe")) < read.shape.vocab_size


@pytest.mark.parametrize("operator", [TokenizerPrune.of(TOKENIZER, 2), TokenizerExtend.of([(263, T), (264, 261)])])
@pytest.mark.parametrize(("chunk", "threads"), [(1, 1), (13, 3), (1 << 20, 2)])
def test_chunks_and_threads_never_show_in_the_bytes(operator, chunk, threads):
    inputs = own(model(shape_of(TOKENIZER, False)))
    if chunk == 1:
        inputs = own(ArraySource(inputs.base.sha256, {EMBEDDING: table(inputs.base)[:, :2]}))
    found = compute(operator, inputs, chunk=chunk, threads=threads)
    assert {n: a.tobytes() for n, a in found.items()} == {n: a.tobytes() for n, a in compute(operator, inputs).items()}


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 50), st.sampled_from([1e-40, 1e-3, 1.0, 1e30]))
def test_the_child_of_another_parent_stays_within_the_bound_from_the_gathered_base(seed, size):
    shape = shape_of(TOKENIZER)
    base = model(shape, seed)
    tuned = {n: (table(base, n) + table(model(shape, seed + 1), n) * F32(size)).astype(F32) for n in base.names}
    inputs = Inputs(base=base, parents=(ArraySource(hashlib.sha256(b"t").hexdigest(), tuned),))
    for operator in (TokenizerPrune.of(TOKENIZER, 1), TokenizerExtend.of([(263, T), (264, 261)])):
        child, start = compute(operator, inputs), operator.reference(inputs)
        moved = sum(float(((child[n].astype(float) - table(start, n)) ** 2).sum()) for n in child) ** 0.5
        assert moved <= operator.delta_bound(inputs)
        assert operator.delta_bound(inputs) <= moved * (1 + 1e-6) + 1e-300


def test_a_record_survives_and_keeps_its_meaning():
    for operator in (TokenizerPrune.of(TOKENIZER, 3), TokenizerExtend.of([(263, T)])):
        record = decode_json(canonical(operator))
        assert record["operator"] == operator.tag()
        assert record.keys() == {"operator", *operator.__struct_fields__}


# -- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", [TokenizerPrune.of(TOKENIZER, 2), TokenizerExtend.of([(263, T)])])
def test_a_byte_tokenizer_is_refused_with_advice(operator):
    with pytest.raises(ParentsDoNotFit) as caught:
        operator.remake(shape_of(ByteTokenizer()), ByteTokenizer())
    assert "BPE1" in caught.value.advice


def test_a_record_of_another_tokenizer_is_refused():
    shape = shape_of(TOKENIZER)
    operator = TokenizerPrune.of(TOKENIZER, 2)
    other = BpeTokenizer.build(TOKENIZER.words, [(*m[:3], -m[3] + 9) for m in TOKENIZER.merges])
    fewer = BpeTokenizer.build(TOKENIZER.words[:2], TOKENIZER.merges[:2])
    for tokenizer, within in ((other, shape), (fewer, shape_of(fewer)), (TOKENIZER, shape_of(fewer))):
        with pytest.raises(ParentsDoNotFit) as caught:
            operator.remake(within, tokenizer)
        assert caught.value.reason == "parents.vocabulary"
    for pairs in ([(T, 262)], [(T, H)], [(T, 265)]):
        with pytest.raises(ParentsDoNotFit):
            TokenizerExtend.of(pairs).remake(shape, TOKENIZER)
    with pytest.raises(ParentsDoNotFit):
        TokenizerPrune(merges=9, words=4, first=(0,), last=(3,)).remake(shape, TOKENIZER)


def test_a_model_without_the_rows_is_refused_before_any_work():
    parent = own(model(shape_of(TOKENIZER)))
    bare = own(ArraySource(parent.base.sha256, {"norm.weight": np.ones(3, F32)}))
    uneven = {EMBEDDING: np.ones((264, 2), F32), HEAD: np.ones((263, 2), F32)}
    for operator, inputs in (
        (TokenizerPrune(merges=0, words=264, first=(), last=()), parent),
        (TokenizerExtend.of([(264, T)]), parent),
        (TokenizerExtend.of([(1, 2)]), bare),
        (TokenizerPrune(merges=0, words=1, first=(), last=()), own(ArraySource(parent.base.sha256, uneven))),
    ):
        for act in (compute, type(operator).delta_bound):
            with pytest.raises(ParentsDoNotFit) as caught:
                act(operator, inputs)
            assert caught.value.reason == "parents.vocabulary"


@pytest.mark.parametrize(
    ("first", "last"), [((1,), (0,)), ((0, 0), (0, 1)), ((0, 1), (1, 2)), ((2,), (4,)), ((0, 3), (1, 4))]
)
def test_runs_that_do_not_ascend_within_the_words_are_refused(first, last):
    with pytest.raises(OutsideAllowlist):
        TokenizerPrune(merges=0, words=4, first=first, last=last).validate()


def test_lists_of_other_lengths_special_parts_and_double_pairs_are_refused():
    with pytest.raises(ParentsDoNotFit, match="last"):
        TokenizerPrune(merges=0, words=4, first=(0,), last=()).validate()
    with pytest.raises(ParentsDoNotFit, match="right"):
        TokenizerExtend(left=(0,), right=()).validate()
    for pairs in ([(256, 0)], [(0, 259)], [(0, 1), (0, 1)]):
        with pytest.raises(OutsideAllowlist):
            TokenizerExtend.of(pairs).validate()
    with pytest.raises(OutsideAllowlist, match=r"left\[0\]"):
        TokenizerExtend.of([(-1, 0)]).validate()


def test_a_mean_that_overflows_is_refused_by_tensor():
    huge = ArraySource(hashlib.sha256(b"huge").hexdigest(), {EMBEDDING: np.full((264, 2), 3e38, F32)})
    with pytest.raises(ParentsDoNotFit, match=EMBEDDING):
        compute(TokenizerExtend.of([(1, 2)]), own(huge))
    with pytest.raises(ParentsDoNotFit):
        TokenizerExtend.of([(1, 2)]).delta_bound(own(huge))


# -- the report ------------------------------------------------------------------------------------------------------


def test_a_report_counts_ids_tokens_and_texts():
    child, _ = TOKENIZER.pruned(2)
    report = compare_tokenizers(TOKENIZER, child, ["the", "hex", "é"])
    assert report.dropped == (262, 263)
    assert report.added == ()
    assert len(report.kept) == 262
    assert (report.text_bytes, report.parent_tokens, report.child_tokens) == (8, 1 + 1 + 2, 1 + 3 + 2)
    assert report.differing == (1,)
    assert report.failed == ()
    assert report.first_difference == "hex"
    assert report.parent_tokens_per_byte == 0.5
    assert report.child_tokens_per_byte == 0.75
    assert "2 dropped" in report.lines()[0]
    assert "'hex'" in report.lines()[2]


def test_a_report_follows_tokens_whose_id_moved_and_added_ones():
    child, _ = BpeTokenizer.build((b"ab", b"cd"), ((97, 98, 260, 1), (99, 100, 261, 0))).pruned(1)
    parent = BpeTokenizer.build((b"ab", b"cd"), ((97, 98, 260, 1), (99, 100, 261, 0)))
    report = compare_tokenizers(parent, child, ["cd"])
    assert report.moved == ((261, 260),)
    assert report.differing == ()
    back = compare_tokenizers(child, parent, [])
    assert (back.added, back.dropped, back.parent_tokens_per_byte) == ((260,), (), 0.0)


def test_a_text_that_is_too_long_to_decode_does_not_come_back():
    report = compare_tokenizers(ByteTokenizer(), TOKENIZER, ["a", "x" * 65_537])
    assert report.failed == (1,)
    assert "number 1" in report.lines()[-1]
    with pytest.raises(TokenizerRefused):
        compare_tokenizers(ByteTokenizer(), TOKENIZER, ["\ud800"])


@ALL
@given(tokenizers(), st.lists(texts, max_size=4), st.data())
def test_pruning_never_loses_a_text_and_never_makes_fewer_tokens_of_no_merge(tokenizer, rows, data):
    child, _ = tokenizer.pruned(data.draw(st.integers(0, len(tokenizer.merges))))
    report = compare_tokenizers(tokenizer, child, rows)
    assert report.failed == ()
    assert report.added == ()
    assert len(report.kept) + len(report.dropped) == tokenizer.vocab_size
    assert report.text_bytes >= max(report.parent_tokens, report.child_tokens)
