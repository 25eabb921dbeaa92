"""Making a lab: keys apart by zone, and a policy that names only what differs."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from lab_fixtures import PERSON, Place, problems
from studbook.errors import NotAuthorised, RecordRefused, StudbookError
from studbook.lab import Lab
from studbook.lab.founding import LIFETIME, ROLES, ROOT_KEY, read_policy
from studbook.records import KINDS
from studbook.seal import PEOPLES_KINDS


def test_every_kind_of_record_has_exactly_one_key_in_its_own_zone() -> None:
    granted = [(kind, role.zone) for role in ROLES for kind in role.kinds]
    # Who may change the judge is never settled by founding: a key for it is made when somebody decides to.
    assert sorted(kind for kind, _ in granted) == sorted(KINDS.keys() - {"root/1", "evaluator-change/1"})
    assert all(KINDS[kind].zone == zone for kind, zone in granted)


def test_only_people_hold_policy_approval_and_promotion_keys(prepared_lab: Place) -> None:
    with prepared_lab.open(writer=False) as lab:
        keys = lab.desk.workspace.root.keys
    persons = {kind for key in keys if key.holder == "person" for kind in key.kinds}
    assert persons == (PEOPLES_KINDS & KINDS.keys()) - {"evaluator-change/1"}
    assert len({key.key for key in keys}) == len(keys)


def test_the_root_key_signs_nothing_but_roots(prepared_lab: Place) -> None:
    with prepared_lab.open(writer=False) as lab:
        root = lab.desk.workspace.root
    assert [key.owner for key in root.owners.keys] == [PERSON]
    assert root.owners.threshold == 1
    assert root.owners.keys[0].key not in {grant.key for grant in root.keys}
    assert not any("root/1" in grant.kinds for grant in root.keys)


def test_a_root_ends_within_two_years_and_not_before(prepared_lab: Place) -> None:
    with prepared_lab.open(writer=False) as lab:
        entered = date.fromisoformat(lab.desk.entries()[0].time[:10])
        assert date.fromisoformat(lab.desk.workspace.root.expires) - entered in (LIFETIME, LIFETIME - timedelta(days=1))
    assert timedelta(days=365) < LIFETIME <= timedelta(days=730)


def test_keys_and_their_folder_are_private(prepared_lab: Place) -> None:
    assert prepared_lab.keys.stat().st_mode & 0o077 == 0 or prepared_lab.keys.parent.stat().st_mode & 0o077 == 0
    files = list(prepared_lab.keys.glob("*/*/*.pem"))
    assert {f.relative_to(prepared_lab.keys).with_suffix("").as_posix() for f in files} == {
        ROOT_KEY,
        *(role.path for role in ROLES),
    }
    assert {f.stat().st_mode & 0o777 for f in files} == {0o600}
    assert {f.parent.stat().st_mode & 0o777 for f in files} == {0o700}


def test_every_key_lies_in_the_folder_of_its_zone(prepared_lab: Place) -> None:
    for role in ROLES:
        assert role.path.split("/")[1] == role.zone.value
    assert ROOT_KEY.split("/")[:2] == ["people", "policy"]


def test_keys_of_another_lab_are_never_written_over(tmp_path: Path) -> None:
    keys = Lab.init(tmp_path / "one", "ann", tmp_path / "keys")
    before = {p: p.read_bytes() for p in keys.rglob("*.pem")}
    with pytest.raises(NotAuthorised, match="exists already"):
        Lab.init(tmp_path / "two", "bob", keys)
    assert {p: p.read_bytes() for p in keys.rglob("*.pem")} == before
    assert not (tmp_path / "two").exists()
    assert problems(Place(tmp_path / "one", keys)) == []


def test_a_recipe_that_could_never_run_stops_the_founding(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps({"recipes": [{"operator": "blend/1"}]}))
    with pytest.raises(StudbookError, match="weights"):
        Lab.init(tmp_path / "lab", "ann", tmp_path / "keys", read_policy(path, "ann"))
    assert not (tmp_path / "lab").exists()
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"margin": 0.1}, "unknown field 'margin'"),
        ({"kind": "root/1"}, "unknown field 'kind'"),
        ({"gates": {"alpha": 0.9}}, "alpha"),
        ({"gates": {"alpha": "small"}}, "alpha"),
        ({"gates": {"colour": 1}}, "colour"),
        ({"stages": [{"stage": "stardom", "approvals": 0, "hold_hours": 0}]}, "stages"),
        ({"protected": "rot"}, "protected"),
        ({"name": "two words"}, "name"),
    ],
)
def test_a_policy_file_with_an_unknown_field_or_value_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(changes))
    with pytest.raises(RecordRefused, match=words) as caught:
        read_policy(path, "ann")
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", '{"name":"a"} x', '{"name": NaN}', '{"name":"a","name":"b"}', "[" * 9999]
)
def test_a_policy_file_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "policy.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecordRefused) as caught:
        read_policy(path, "ann")
    assert caught.value.where == str(path)


def test_a_policy_file_changes_only_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text("{}")
    plain = read_policy(path, "ann")
    path.write_text(json.dumps({"gates": {"finalists": 1}}))
    changed = read_policy(path, "ann")
    assert (changed.gates.finalists, changed.gates.alpha) == (1, plain.gates.alpha)
    assert changed.utility == plain.utility
