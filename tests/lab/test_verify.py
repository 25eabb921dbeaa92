"""How verify goes about it: everything is read in one pass, and many faults at once are all told, in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from lab_fixtures import Place, lab_files, rewrite
from studbook.workspace import ahead, store


def test_every_envelope_is_opened_once_and_every_file_is_hashed(
    lived_lab: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: Counter[str] = Counter()
    plain = store.unseal

    def count(data, authority, where=""):
        opened[str(where)] += 1
        return plain(data, authority, where)

    hashed: list[Path] = []
    hash_file = ahead.hash_file

    def note(path: Path, *wanted: Callable[[], bool]) -> tuple[str, int]:
        hashed.append(path)
        return hash_file(path, *wanted)

    monkeypatch.setattr(ahead, "hash_file", note)
    with lived_lab.open(writer=False) as lab:
        ledger = lab.desk.workspace.ledger
        envelopes = {str(lab.desk.workspace.record_path(e)) for e in ledger.entries}
        channels = {lab.desk.workspace.alias_path(name) for name in lab.desk.channels()}
        lab.desk.workspace._records.clear()
        monkeypatch.setattr(store, "unseal", count)
        found = lab.verify()
    assert found.ok
    assert set(opened) == envelopes
    # What decides which files to expect is read before the pass begins, and read again in it.
    assert max(opened.values()) <= 2
    assert sum(opened.values()) < 1.25 * len(envelopes)
    rest = {p for p in lab_files(lived_lab) if str(p) not in envelopes} - channels
    assert sorted(hashed) == sorted(rest - {ledger.path, ledger.checkpoint_path})
    assert found.files == len(envelopes) + len(hashed)
    assert found.size == sum(Path(p).stat().st_size for p in envelopes) + sum(p.stat().st_size for p in hashed)


def test_many_faults_at_once_are_all_told_in_the_order_of_their_paths(old_lab: Place) -> None:
    with old_lab.open(writer=False) as lab:
        workspace = lab.desk.workspace
        blobs = sorted({workspace.blob_path(b.sha256) for e in workspace.ledger.entries for b in e.blobs})
        records = [workspace.record_path(e) for e in workspace.ledger.entries if e.record_kind == "scorecard/1"]
        for path in (blobs[0], records[0]):
            rewrite(path, path.read_bytes()[:-1] + b"x")
        blobs[1].unlink()
        blobs[2].unlink()
        blobs[2].symlink_to(blobs[3])
        found = lab.verify()
    where = [problem.where for problem in found.problems]
    assert where == sorted(map(str, [blobs[0], blobs[1], blobs[2], records[0]]))
    assert all(problem.what for problem in found.problems)
