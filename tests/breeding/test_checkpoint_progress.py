"""A worker tells how far it is as a share, so that whoever shows it may count bytes."""

from __future__ import annotations

from pathlib import Path

from studbook.breeding.checkpoint_worker import PROGRESS, _Counter


def test_progress_is_a_share_of_the_childs_elements(tmp_path: Path) -> None:
    counter = _Counter(tmp_path / PROGRESS, 128 << 20)
    counter.add(1)
    assert not (tmp_path / PROGRESS).exists(), "nothing is written for every range"
    counter.add((32 << 20) - 1)
    assert (tmp_path / PROGRESS).read_text() == "250000"
    counter.add(96 << 20)
    assert (tmp_path / PROGRESS).read_text() == "1000000"
