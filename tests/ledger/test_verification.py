"""What verify says of the witness."""

from __future__ import annotations

import shutil

from lab_fixtures import Place, problems, run_cli
from studbook.ledger import default_witness
from studbook.records import replace


def test_verify_names_the_witness_of_a_lab_that_was_restored_from_an_old_copy(young: Place) -> None:
    backup = young.path.with_name("backup")
    shutil.copytree(young.path, backup)
    with young.open() as lab:
        lab.desk.workspace.commit(replace(lab.desk.policy[1], policy_version=2, notes="lost with the restore"))
    assert problems(young) == []
    shutil.rmtree(young.path)
    backup.rename(young.path)
    assert problems(young) == [str(default_witness(young.path) / "checkpoint")]
    ended = run_cli(young, "verify")
    assert ended.returncode != 0
    assert "the witness saw 3 entries, and the lab has 2" in ended.stdout


def test_verify_tells_how_much_a_witness_saw_or_that_there_is_none(young: Place) -> None:
    assert "a witness saw 2 entries" in run_cli(young, "verify").stdout
    shutil.rmtree(default_witness(young.path))
    ended = run_cli(young, "verify")
    assert ended.returncode == 0
    assert "no witness" in ended.stdout
