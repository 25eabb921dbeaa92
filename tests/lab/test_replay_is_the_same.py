"""Deciding again from the records gives the same bytes, whatever seed the process hashes strings with."""

from __future__ import annotations

import os
import subprocess
import sys

from lab_fixtures import Place
from studbook.lab.replay import replay
from studbook.records import ViabilityDecision, canonical

SEEDS = ("0", "1", "2", "3", "7", "42", "1234", "4294967295")
SCRIPT = """
import sys
from hashlib import sha256
from studbook.lab.desk import Desk
from studbook.lab.replay import replay
from studbook.records import ViabilityDecision, canonical
from pathlib import Path
desk = Desk(Path(sys.argv[1]), Path(sys.argv[2]), writer=False)
for digest, record in desk.all(ViabilityDecision):
    print(sha256(canonical(replay(desk.at(desk.workspace.entry(digest).sequence), record))).hexdigest())
"""


def test_replaying_a_decision_gives_equal_bytes_under_eight_hash_seeds(lived_lab: Place) -> None:
    command = [sys.executable, "-c", SCRIPT, str(lived_lab.path), str(lived_lab.keys)]
    runs = []
    for start in range(0, len(SEEDS), 2):
        pair = [
            subprocess.Popen(command, env={**os.environ, "PYTHONHASHSEED": seed}, stdout=subprocess.PIPE)
            for seed in SEEDS[start : start + 2]
        ]
        runs += [process.communicate(timeout=120)[0] for process in pair]
        assert all(process.returncode == 0 for process in pair)
    assert len(set(runs)) == 1
    assert len(runs[0].split()) == 2


def test_every_number_of_a_decision_names_the_scorecard_it_came_from(lived_lab: Place) -> None:
    with lived_lab.open(writer=False) as lab:
        for digest, record in lab.desk.all(ViabilityDecision):
            entry = lab.desk.workspace.entry(digest)
            assert entry is not None
            assert canonical(replay(lab.desk.at(entry.sequence), record)) == canonical(record)
            other = dict(zip(record.parents, record.parent_cards, strict=True)) | {
                record.champion: record.champion_cards[1]
            }
            for standing in record.standings:
                for row in standing.comparisons:
                    assert row.scorecards == (standing.selection, other[row.against])
                assert {t.scorecard for t in standing.utility} <= {standing.selection}
            assert any(standing.comparisons for standing in record.standings)
