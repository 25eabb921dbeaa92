from __future__ import annotations

from pathlib import Path

import pytest

from studbook.environment import memory_bytes


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_a_control_group_that_grants_less_counts(tmp_path: Path, name: str) -> None:
    machine = memory_bytes(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    for text, wanted in (("max\n", machine), (f"{1 << 62}\n", machine), ("67108864\n", 64 << 20)):
        (tmp_path / name).write_text(text)
        assert memory_bytes(tmp_path) == wanted
    assert machine > 64 << 20
