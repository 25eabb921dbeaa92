from __future__ import annotations

import hashlib

import pytest

from studbook.errors import OutOfOrder, ParentsDoNotFit, RecordRefused
from studbook.models.tokenizers import ByteTokenizer
from studbook.training.rows import Row, Slices, batches, encode, parse_slice, read_slices

TOKENIZER = ByteTokenizer()
LINE = b'{"expected":"ba","prompt":"rev ab>"}\n'


def encoded(*texts: str):
    return encode([Row(prompt=f"{text}>", expected=text) for text in texts], TOKENIZER, 64)


def drawn(slices: Slices, **changes):
    return batches(slices, **{"steps": 50, "batch": 20, "rehearsal": 0.3, "seed": 5} | changes)


def test_a_row_is_begin_prompt_answer_end_and_knows_where_its_answer_starts():
    (row,) = encode(parse_slice(LINE), TOKENIZER, 64)
    assert TOKENIZER.decode(row.ids[: row.start]) == "rev ab>"
    assert TOKENIZER.decode(row.ids[row.start :]) == "ba"
    assert (row.ids[0], row.ids[-1]) == (256, 257)


def test_a_row_may_fill_the_context_and_not_more():
    rows = [Row(prompt="abc>", expected="abc")]
    assert len(encode(rows, TOKENIZER, 8)[0].ids) == 9
    with pytest.raises(ParentsDoNotFit) as caught:
        encode(rows, TOKENIZER, 7, "slice x")
    assert (caught.value.reason, caught.value.where) == ("training.context", "slice x: line 1")


@pytest.mark.parametrize("data", [b'{"prompt":"a"}\n', b'{"expected":"b","more":1,"prompt":"a"}\n', b"no row\n"])
def test_a_line_that_is_no_row_is_refused_with_its_number(data):
    with pytest.raises(RecordRefused) as caught:
        parse_slice(LINE + data, "slice x")
    assert "line 2" in caught.value.where


def test_a_slice_without_rows_is_refused():
    with pytest.raises(OutOfOrder) as caught:
        parse_slice(b"\n")
    assert caught.value.reason == "training.empty"


def test_equal_arguments_draw_equal_batches_and_another_seed_others():
    slices = Slices((encoded("ab", "cd", "ef"),), (encoded("xy", "zw"),))
    assert drawn(slices) == drawn(slices)
    assert drawn(slices) != drawn(slices, seed=6)
    assert [len(b) for b in drawn(slices)] == [20] * 50


def test_the_share_of_rehearsed_rows_is_the_declared_one():
    slices = Slices((encoded("ab", "cd"),), (encoded("xy"), encoded("zw")))
    others = {row for pool in slices.rehearsed for row in pool}
    rows = [row for batch in drawn(slices) for row in batch]
    assert sum(row in others for row in rows) / len(rows) == pytest.approx(0.3, abs=0.05)
    assert not others & {row for batch in drawn(slices, rehearsal=0.0) for row in batch}
    assert set(rows) == {row for pools in slices for pool in pools for row in pool}


def test_slices_are_read_by_digest_and_nothing_else_is():
    digest = hashlib.sha256(LINE).hexdigest()
    found = read_slices({digest: LINE, "0" * 64: b"not asked for"}, [digest], [], TOKENIZER, 64)
    assert found == Slices((encode(parse_slice(LINE), TOKENIZER, 64),), ())
    for files in ({}, {digest: LINE + LINE}):
        with pytest.raises(OutOfOrder) as caught:
            read_slices(files, [digest], [], TOKENIZER, 64)
        assert caught.value.reason == "training.slice"
