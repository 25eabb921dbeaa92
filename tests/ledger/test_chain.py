"""A ledger of 200 entries, damaged in every place: whatever is not exactly what was acknowledged is refused.

The whole is verified here without files. What a crash may leave behind the checkpoint is cut off by a writer, so what
must be refused is the bytes together with their checkpoint, as `Ledger.load` takes them.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ledger_fixtures import ENTRIES, Long
from studbook.errors import DigestDiffers, RecordRefused, StudbookError
from studbook.ledger.chain import NOTHING, Chain
from studbook.ledger.note import write_checkpoint
from studbook.records import replace
from studbook.seal import seal

TAIL = 2


def verify(chain: Chain, data: bytes, checkpoint: bytes) -> Chain:
    """The lines of some bytes, then the checkpoint: what `Ledger.load` does with what it has read."""
    whole, newline, _torn = data.rpartition(b"\n")
    for line in whole.split(b"\n") if newline else []:
        chain.accept(line)
    chain.open_checkpoint(checkpoint, "checkpoint")
    return chain


def refused(chain: Chain, data: bytes, checkpoint: bytes) -> str:
    with pytest.raises(StudbookError) as caught:
        verify(chain, data, checkpoint)
    return caught.value.reason


def joined(lines: Sequence[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def test_the_untouched_ledger_is_whole(long: Long) -> None:
    chain = verify(long.chain(), long.data, long.checkpoint)
    assert len(chain.entries) == chain.tree.size == ENTRIES
    assert chain.entries[0].previous == NOTHING
    assert chain.length == len(long.data)


def test_truncation_at_every_entry_is_refused(long: Long) -> None:
    for count in range(1, ENTRIES):
        chain = long.prefix(count)
        with pytest.raises(DigestDiffers) as caught:
            chain.open_checkpoint(long.checkpoint, "checkpoint")
        assert caught.value.reason == "ledger.truncated"
        assert "backup" in caught.value.advice
    assert refused(long.chain(), b"", long.checkpoint) == "bytes"


def test_truncation_at_every_byte_of_the_last_two_lines_is_refused(long: Long) -> None:
    chain, kept = long.prefix(ENTRIES - TAIL), joined(long.lines[:-TAIL])
    tail = long.data[len(kept) :]
    for length in range(len(tail)):
        assert refused(chain, tail[:length], long.checkpoint) == "ledger.truncated"
        chain.cut(ENTRIES - TAIL)


def test_every_flipped_byte_of_the_tail_is_refused(long: Long) -> None:
    chain, kept = long.prefix(ENTRIES - TAIL), joined(long.lines[:-TAIL])
    for position in range(len(kept), len(long.data)):
        tail = bytearray(long.data[len(kept) :])
        tail[position - len(kept)] ^= 1 << position % 8
        refused(chain, bytes(tail), long.checkpoint)
        chain.cut(ENTRIES - TAIL)


def test_every_swapped_pair_of_neighbours_is_refused(long: Long) -> None:
    chain = long.prefix(1)
    for number in range(1, ENTRIES - 1):
        swapped = joined([long.lines[number + 1], long.lines[number]])
        assert refused(chain, swapped, long.checkpoint) == "ledger.chain"
        chain.accept(long.lines[number])
    assert refused(long.chain(), joined([long.lines[1], long.lines[0]]), long.checkpoint)


def test_every_doubled_line_is_refused(long: Long) -> None:
    chain = long.prefix(1)
    for number in range(1, ENTRIES):
        chain.accept(long.lines[number])
        with pytest.raises(DigestDiffers) as caught:
            chain.accept(long.lines[number])
        assert caught.value.reason == "ledger.chain"


def test_every_dropped_line_is_refused(long: Long) -> None:
    chain = long.prefix(1)
    for number in range(1, ENTRIES - 1):
        with pytest.raises(DigestDiffers) as caught:
            chain.accept(long.lines[number + 1])
        assert caught.value.reason == "ledger.chain"
        chain.accept(long.lines[number])


def test_every_sequence_written_twice_by_the_audit_key_itself_is_refused(long: Long) -> None:
    """Two lines of one number: the second names the first, and still says a number that was used."""
    chain = long.prefix(1)
    for number in range(1, ENTRIES):
        chain.accept(long.lines[number])
        again = seal(replace(chain.entries[-1], previous=chain.head), long.key)
        with pytest.raises(DigestDiffers) as caught:
            chain.accept(again)
        assert caught.value.reason == "ledger.chain"


def test_a_fork_at_every_entry_is_refused_even_if_the_audit_key_signed_it(long: Long) -> None:
    """From some entry on another history, chained and signed as it should be; only the checkpoint knows better."""
    chain = long.prefix(ENTRIES)
    entries, roots = list(chain.entries), [chain.tree.root(size) for size in range(ENTRIES + 1)]
    for number in range(ENTRIES - 1, 0, -1):
        chain.cut(number)
        chain.accept(seal(replace(entries[number], host="elsewhere"), long.key))
        acknowledged = write_checkpoint(chain.origin, number + 1, roots[number + 1], long.key)
        with pytest.raises(DigestDiffers) as caught:
            chain.open_checkpoint(acknowledged, "checkpoint")
        assert caught.value.reason == "ledger.root"


def test_a_line_of_another_kind_of_record_is_refused(long: Long) -> None:
    chain = long.prefix(3)
    envelope, _ = long.find(chain.entries[0])
    with pytest.raises(StudbookError):
        chain.accept(envelope)
    with pytest.raises(RecordRefused):
        long.chain().accept(envelope)
    assert len(chain.entries) == 3
    chain.accept(long.lines[3])


def test_cutting_and_going_on_gives_the_same_ledger(long: Long) -> None:
    chain = long.prefix(ENTRIES)
    whole = (chain.head, chain.length, chain.tree.root())
    for count in (1, 2, 64, 100, 199):
        chain.cut(count)
        assert len(chain.entries) == chain.tree.size == count
        for line in long.lines[count:]:
            chain.accept(line)
        assert (chain.head, chain.length, chain.tree.root()) == whole


@pytest.mark.proof
def test_every_flipped_byte_of_the_whole_ledger_is_refused(long: Long) -> None:
    chain = long.prefix(1)
    for number in range(1, ENTRIES):
        line = long.lines[number]
        for position in range(len(line)):
            data = bytearray(line)
            data[position] ^= 1 << (number + position) % 8
            refused(chain, bytes(data) + b"\n", long.checkpoint)
            chain.cut(number)
        chain.accept(line)


@pytest.mark.proof
def test_every_truncation_to_a_byte_is_refused(long: Long) -> None:
    chain, start = long.prefix(1), len(long.lines[0]) + 1
    for number in range(1, ENTRIES):
        line = long.lines[number]
        for length in range(len(line) + 1):
            assert refused(chain, line[:length], long.checkpoint) == "ledger.truncated"
        start += len(line) + 1
        chain.accept(line)
    assert start == len(long.data)
