"""Where a lab's witness lies is the owner's choice, and a new one begins where there is none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lab_fixtures import PERSON, Place, run_cli, small_policy
from studbook.errors import UsageError
from studbook.lab import Lab


def test_a_lab_is_made_and_opened_with_a_witness_elsewhere(tmp_path: Path) -> None:
    path, keys, witness = tmp_path / "lab", tmp_path / "keys", tmp_path / "far" / "witness"
    Lab.init(path, PERSON, keys, small_policy(tmp_path), witness)
    assert (witness / "checkpoint").is_file()
    assert not (tmp_path / "lab.witness").exists()
    with Lab(path, keys, writer=False, witness=witness) as lab:
        assert lab.verify().witnessed == len(lab.desk.entries())
    with Lab(path, keys, writer=False) as lab:
        assert lab.verify().witnessed is None


def test_a_witness_inside_the_lab_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    path = tmp_path / "lab"
    with pytest.raises(UsageError, match="inside the lab"):
        Lab.init(path, PERSON, None, small_policy(tmp_path), path / "witness")
    assert not path.exists()
    assert not (tmp_path / "lab.keys").exists()


def test_a_new_witness_is_appointed_once(new_lab: Place) -> None:
    shutil.rmtree(new_lab.path.with_name("lab.witness"), ignore_errors=True)
    done = run_cli(new_lab, "witness")
    assert done.returncode == 0, done.stderr
    assert "the witness saw" in done.stdout
    again = run_cli(new_lab, "witness")
    assert again.returncode == 2
    assert "saw already" in again.stderr
    other = new_lab.path.with_name("other")
    done = run_cli(new_lab, "--witness", str(other), "witness")
    assert done.returncode == 0, done.stderr
    assert (other / "checkpoint").is_file()
