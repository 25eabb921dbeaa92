from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studbook.errors import UsageError
from studbook.tensors.philox import BATCH, Stream, keep_threshold, philox4x32, stream_for

KNOWN_ANSWERS = [  # Random123 1.09, tests/kat_vectors, philox4x32 10
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
words32 = st.integers(0, 2**32 - 1)
digests = st.binary(min_size=32, max_size=32)


def numbers(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def scalar_philox(counter: list[int], key: list[int]) -> list[int]:
    """The generator once more, one block at a time on Python integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        left, right = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [right >> 32 ^ c[1] ^ k[0], right % 2**32, left >> 32 ^ c[3] ^ k[1], left % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_the_published_known_answers_come_out(counter, key, answer):
    k0, k1 = numbers(key)
    assert philox4x32(np.array([numbers(counter)], np.uint32), (k0, k1))[0].tolist() == numbers(answer)


@settings(deadline=None)
@given(st.lists(st.tuples(words32, words32, words32, words32), min_size=1, max_size=5), words32, words32)
def test_the_vectorised_generator_agrees_with_one_on_integers(counters, k0, k1):
    found = philox4x32(np.array(counters, np.uint32), (k0, k1))
    assert found.tolist() == [scalar_philox(list(c), [k0, k1]) for c in counters]


@settings(deadline=None)
@given(st.integers(0, 2**64 - 1), digests, st.text(max_size=20).filter(lambda t: t.isprintable()))
def test_the_key_is_the_documented_hash(seed, parent, name):
    message = b"studbook/philox/1" + b"\0" + struct.pack("<Q", seed) + parent + name.encode("utf-8")
    assert stream_for(seed, parent, name).key == struct.unpack("<II", hashlib.sha256(message).digest()[:8])


@settings(deadline=None)
@given(st.integers(0, 2**64 - 60), st.integers(0, 50))
def test_an_element_takes_its_own_word_however_far_out(start, count):
    stream = stream_for(5, bytes(32), "layers.0.wq.weight")
    expected = [
        scalar_philox([(i // 4) % 2**32, (i // 4) >> 32, 0, 0], list(stream.key))[i % 4]
        for i in range(start, start + count)
    ]
    assert stream.words(start, start + count).tolist() == expected


def test_words_do_not_depend_on_where_a_range_is_cut():
    stream = stream_for(1, bytes(range(32)), "a")
    size = 4 * BATCH + 37
    whole = stream.words(0, size)
    for cut in (1, 3, 4, 17, 4 * BATCH - 1, 4 * BATCH, 4 * BATCH + 1):
        assert np.array_equal(np.concatenate([stream.words(0, cut), stream.words(cut, size)]), whole)


def test_seed_parent_and_name_each_give_another_stream():
    keys = {
        stream_for(seed, bytes([parent]) * 32, name).key for seed in (0, 1) for parent in (0, 1) for name in ("a", "b")
    }
    assert len(keys) == 8


@pytest.mark.parametrize(("seed", "parent"), [(-1, bytes(32)), (2**64, bytes(32)), (0, bytes(31)), (0, bytes(33))])
def test_a_key_of_the_wrong_size_is_refused(seed, parent):
    with pytest.raises(UsageError):
        stream_for(seed, parent, "a")


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 2), (0, 2**64 + 1)])
def test_a_range_outside_the_stream_is_refused(start, stop):
    with pytest.raises(UsageError):
        Stream((1, 2)).words(start, stop)


@pytest.mark.parametrize(
    ("p", "threshold"),
    [(0.0, 0), (1.0, 2**32), (0.5, 2**31), (2.0**-32, 1), (2.0**-33, 0), (1.5 * 2.0**-32, 2), (2.5 * 2.0**-32, 2)],
)
def test_the_keep_threshold_rounds_to_even(p, threshold):
    assert keep_threshold(p) == threshold


@settings(deadline=None)
@given(st.floats(0.0, 1.0), st.integers(0, 1000))
def test_an_element_is_kept_iff_its_word_is_below_the_threshold(p, start):
    stream = Stream((start, 9))
    kept = stream.keep_mask(start, start + 40, p)
    assert kept.tolist() == [int(word) < round(p * 2**32) for word in stream.words(start, start + 40)]


def test_probability_one_keeps_everything_and_zero_nothing():
    stream = Stream((3, 4))
    assert stream.keep_mask(0, 4096, 1.0).all()
    assert not stream.keep_mask(0, 4096, 0.0).any()


def test_a_larger_probability_keeps_a_superset():
    stream = Stream((3, 4))
    assert not (stream.keep_mask(0, 4096, 0.3) & ~stream.keep_mask(0, 4096, 0.4)).any()


def test_the_share_kept_is_near_the_probability():
    kept = stream_for(1, bytes(32), "a").keep_mask(0, 1 << 16, 0.3).mean()
    assert abs(kept - 0.3) < 5 * (0.3 * 0.7 / 2**16) ** 0.5


def test_noise_is_the_top_24_bits_centred_and_exact():
    stream = stream_for(1, bytes(32), "a")
    noise = stream.noise(3, 1 << 16)
    expected = [(int(word) // 256 - 2**23) / 2**23 for word in stream.words(3, 1 << 16)]
    assert noise.dtype == np.float32
    assert noise.astype(np.float64).tolist() == expected
    assert noise.min() >= -1.0
    assert noise.max() < 1.0
    assert abs(float(noise.mean())) < 5 / (3 * 2**16) ** 0.5


@settings(deadline=None)
@given(st.integers(1, 16), st.integers(0, 999))
def test_a_choice_is_the_scaled_high_word(options, start):
    stream = Stream((7, start))
    found = stream.choices(start, start + 30, options).tolist()
    assert found == [int(word) * options // 2**32 for word in stream.words(start, start + 30)]
    assert all(0 <= choice < options for choice in found)
