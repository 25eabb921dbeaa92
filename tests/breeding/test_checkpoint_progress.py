"""A worker tells how far it is as a share, so that whoever shows it may count bytes; and where it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from studbook.breeding.checkpoint_worker import PROGRESS, RESUMED, _Counter
from studbook.models.safetensors_writer import TensorSpec, plan_shards


def test_progress_is_a_share_of_the_childs_elements(tmp_path: Path) -> None:
    counter = _Counter(tmp_path, 128 << 20, ())
    counter.begin()
    assert not (tmp_path / RESUMED).exists(), "there was no earlier run"
    counter.add(1)
    assert not (tmp_path / PROGRESS).exists(), "nothing is written for every range"
    counter.add((32 << 20) - 1)
    assert (tmp_path / PROGRESS).read_text() == "250000"
    counter.add(96 << 20)
    assert (tmp_path / PROGRESS).read_text() == "1000000"


@pytest.mark.parametrize(
    ("kept", "told", "share"), [([0], "1 1 4", "250000"), ([0, 1, 3], "2 3 4", "750000"), ([2], "0 1 4", "250000")]
)
def test_finished_shards_are_counted_and_it_is_told_how_many_stand_at_the_beginning(
    tmp_path: Path, kept: list[int], told: str, share: str
) -> None:
    size = 32 << 20
    shards = plan_shards([TensorSpec(name, "f32", (size,)) for name in "abcd"], size * 4)
    counter = _Counter(tmp_path, 4 * size, shards)
    for place in kept:
        counter.keep(shards[place])
    counter.begin()
    counter.begin()
    assert (tmp_path / RESUMED).read_text() == told
    assert (tmp_path / PROGRESS).read_text() == share
