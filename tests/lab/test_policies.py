"""The policy as people handle it: shown, edited, compared in words, signed as the next version."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab_fixtures import PERSON, Place, problems
from release_fixtures import edited, refused
from studbook.cli import main
from studbook.errors import NotAuthorised, OutsideAllowlist, RecordRefused, StudbookError, UsageError
from studbook.lab import Lab
from studbook.lab.doctor import isolation
from studbook.lab.policies import editable, policy_from
from studbook.policy import default_policy, record_changes
from studbook.records import Header, Policy, replace

HEADER = Header(source="studbook", version="1", environment="test", owner="ann")
POLICY = default_policy(HEADER)
Fields = dict[str, Any]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A new lab of ann's, without anything in it."""
    place = Place(tmp_path / "lab", tmp_path / "keys")
    Lab.init(place.path, PERSON, place.keys)
    return place


def words(before: Policy, after: Policy) -> list[str]:
    return [f"{c.field}: {c.what}" for c in record_changes(before, after)]


def changed(**changes: Any) -> Policy:
    """The default policy with fields of its JSON changed."""
    return policy_from(json.dumps(editable(POLICY) | changes).encode(), HEADER, "test")


def grants(edit: Callable[[list[Fields]], object]) -> Policy:
    found: list[Fields] = editable(POLICY)["operators"]
    edit(found)
    return changed(operators=found)


# -- shown and read ----------------------------------------------------------------------------------------------


def test_what_is_shown_is_what_can_be_signed(place: Place, tmp_path: Path) -> None:
    path = tmp_path / "next.json"
    with place.open() as lab:
        fields = lab.policies.show(path)
        assert json.loads(path.read_text()) == fields
        assert "header" not in fields and "kind" not in fields
        assert policy_from(path.read_bytes(), lab.desk.policy[1].header, path) == lab.desk.policy[1]
        with refused("usage.file"):
            lab.policies.show(path)


def test_the_next_policy_is_in_force_once_it_is_signed(place: Place, tmp_path: Path) -> None:
    with place.open() as lab:
        for version in (2, 3):
            signed = lab.policies.sign(edited(lab, tmp_path, {"notes": f"version {version}"}), PERSON)
            assert signed.committed and signed.digest == lab.desk.policy[0]
            assert lab.desk.policy[1].notes == f"version {version}"
        assert [c.field for c in lab.policies.diff("1", "current")] == ["policy_version", "notes"]
        assert lab.policies.diff("3", "current") == ()
    assert problems(place) == []


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (lambda f: f.pop("recompute"), "recompute"),
        (lambda f: f["budget"].pop("depth"), "depth"),
        (lambda f: f.update(colour="red"), "colour"),
        (lambda f: f["budget"].update(depth=0), "depth"),
        (lambda f: f["budget"].update(depth=1.5), "depth"),
        (lambda f: f.update(recompute="maybe"), "recompute"),
        (lambda f: f.update(header={}), "header"),
        (lambda f: f.update(kind="root/1"), "kind"),
        (lambda f: f["stages"][1].update(hold_hours=-1), "hold_hours"),
        (lambda f: f["stages"][1].update(approvals="two"), "approvals"),
        (lambda f: f["stages"].append("champion"), "stages"),
        (lambda f: f.update(policy_version=2**53), "policy_version"),
        (lambda f: f["budget"].update(worker_seconds=2**60), "exceeds"),
    ],
)
def test_a_file_that_is_no_whole_policy_is_refused_and_the_field_is_named(
    place: Place, tmp_path: Path, edit: Callable[[Fields], object], what: str
) -> None:
    with place.open() as lab:
        path = edited(lab, tmp_path, {})
        fields = json.loads(path.read_text())
        edit(fields)
        path.write_text(json.dumps(fields))
        with pytest.raises(StudbookError) as caught:
            lab.policies.sign(path, PERSON)
        assert isinstance(caught.value, RecordRefused) and caught.value.reason == "policy.file"
        assert what in caught.value.message
        assert caught.value.where == str(path) and caught.value.advice
        assert len(lab.desk.entries()) == 2


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"name": NaN}', '{"name":"a","name":"b"}'])
def test_a_file_that_is_no_json_object_is_refused(place: Place, tmp_path: Path, text: str) -> None:
    path = tmp_path / "policy.json"
    path.write_text(text)
    with place.open() as lab, pytest.raises(RecordRefused) as caught:
        lab.policies.sign(path, PERSON)
    assert caught.value.where == str(path)


def test_a_policy_under_which_no_round_could_run_is_not_signed(place: Place, tmp_path: Path) -> None:
    with place.open() as lab:
        for changes in ({"operators": []}, {"recipes": [{"operator": "slerp/2"}]}, {"stages": []}):
            with pytest.raises(StudbookError) as caught:
                lab.policies.sign(edited(lab, tmp_path, changes), PERSON)
            assert isinstance(caught.value, OutsideAllowlist | RecordRefused)
        assert lab.desk.policy[1].policy_version == 1


@pytest.mark.parametrize(
    ("group", "field", "value"),
    [
        ("budget", "evaluations", 0),
        ("gates", "sealed_openings", 0),
        ("gates", "alpha", 1e-18),
        ("reserve", "minimum_bytes", 256 << 20),
        ("reserve", "capacity_bytes", 1),
    ],
)
def test_a_limit_that_leaves_nothing_to_do_is_refused_by_name(
    place: Place, tmp_path: Path, group: str, field: str, value: float
) -> None:
    with place.open() as lab:
        changes = {group: lab.policies.show()[group] | {field: value}}
        with refused("policy.field") as caught:
            lab.policies.sign(edited(lab, tmp_path, changes), PERSON)
        named = "minimum_bytes" if group == "reserve" else field
        assert caught.value.where == f"policy: {group}.{named}"
        assert lab.desk.policy[1].policy_version == 1


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"minimum_isolation": []}, "minimum_isolation", "demands nothing"),
        ({"minimum_isolation": ["own-process", "seccmop"]}, "minimum_isolation", "names seccmop, which no worker"),
        ({"utility": {"risk": -1.0}}, "utility.risk", "below 0"),
        ({"utility": {"switching_threshold": -0.1}}, "utility.switching_threshold", "below 0"),
        ({"reserve": {"accounts": [{"account": "attention", "capacity": 2, "minimum": 1}]}},
         "reserve.accounts: attention", "leaves 1 acts"),
    ],
)  # fmt: skip
def test_a_policy_that_demands_nothing_or_what_cannot_be_is_refused_by_name(
    place: Place, tmp_path: Path, changes: Fields, field: str, words: str
) -> None:
    with place.open() as lab:
        held = lab.policies.show()
        merged = {k: held[k] | v if isinstance(v, dict) else v for k, v in changes.items()}
        with refused("policy.field") as caught:
            lab.policies.sign(edited(lab, tmp_path, merged), PERSON)
        assert caught.value.where == f"policy: {field}" and words in caught.value.message
        assert lab.desk.policy[1].policy_version == 1


def test_every_measure_that_a_worker_reaches_here_may_be_demanded(place: Place, tmp_path: Path) -> None:
    reached = isolation()[0]
    assert reached
    with place.open() as lab:
        lab.policies.sign(edited(lab, tmp_path, {"minimum_isolation": list(reached)}), PERSON)
        assert lab.desk.policy[1].minimum_isolation == reached


def test_a_protected_cluster_that_no_suite_judges_is_refused_once_suites_are_frozen(
    place: Place, opened: Lab, tmp_path: Path
) -> None:
    wanted = {"protected": ["rot", "ghost"]}
    with place.open() as lab:
        # Nothing is frozen yet, so nobody can say that there will be none.
        assert lab.policies.sign(edited(lab, tmp_path, wanted), PERSON).committed
    with refused("policy.unreachable") as caught:
        opened.policies.sign(edited(opened, tmp_path, wanted), PERSON)
    assert "no frozen development suite has the label ghost" in caught.value.message


def stages(shadow: int, champion: int) -> Fields:
    rows = {"shadow": shadow, "champion": champion}
    return {"stages": [{"stage": s, "approvals": n, "hold_hours": 0} for s, n in rows.items()]}


def test_more_approvals_than_owners_with_a_key_for_them_are_refused(place: Place, tmp_path: Path) -> None:
    with place.open() as lab:
        for stage, wanted in (("shadow", (2, 1)), ("champion", (1, 2))):
            with refused("policy.unreachable") as caught:
                lab.policies.sign(edited(lab, tmp_path, stages(*wanted)), PERSON)
            assert f"stages: {stage}" in caught.value.where and "2 distinct owners, and 1" in caught.value.message
        # Bob can promote, so that champion is in reach; only who approves is counted before shadow.
        lab.keys.new("bob", ["champion-promotion/1"], PERSON)
        with refused("policy.unreachable"):
            lab.policies.sign(edited(lab, tmp_path, stages(2, 2)), PERSON)
        assert lab.policies.sign(edited(lab, tmp_path, stages(1, 2)), PERSON).committed
        lab.keys.new("bob", ["stage-approval/1"], PERSON)
        assert lab.policies.sign(edited(lab, tmp_path, stages(2, 2)), PERSON).committed
        with refused("policy.unreachable"):
            lab.policies.sign(edited(lab, tmp_path, stages(2, 3)), PERSON)


def test_a_lab_begins_with_version_1_of_its_policy(tmp_path: Path) -> None:
    with refused("policy.skip"):
        Lab.init(tmp_path / "lab", PERSON, tmp_path / "keys", changed(policy_version=2))
    assert not (tmp_path / "lab").exists() and not (tmp_path / "keys").exists()


def test_after_every_policy_was_void_the_next_one_is_signed(place: Place, tmp_path: Path) -> None:
    with place.open() as lab:
        path = edited(lab, tmp_path, {"notes": "signed by a thief"})
        lab.policies.sign(path, PERSON)
        stolen = lab.desk.workspace.keys.public_of("people/policy/policy")
        lab.keys.rotate(PERSON, stolen)
        lab.keys.revoke(stolen, PERSON, "taken on the first day", since=1)
        with refused("order.policy"):
            lab.policies.show()
        fields = json.loads(path.read_text()) | {"notes": "ours again"}
        for version, reason in ((1, "replay"), (2, "same"), (4, "skip")):
            path.write_text(json.dumps(fields | {"policy_version": version}))
            with refused(f"policy.{reason}"):
                lab.policies.sign(path, PERSON)
        path.write_text(json.dumps(fields | {"policy_version": 3}))
        assert lab.policies.sign(path, PERSON).committed
        assert lab.desk.policy[1].notes == "ours again"
        assert lab.policies.sign(edited(lab, tmp_path, {}), PERSON).committed
    assert problems(place) == []
    with place.open(writer=False) as lab:
        assert [Path(v.where).parent.name for v in lab.verify().void] == ["policy-1", "policy-1"]


@pytest.mark.parametrize("field", ["operators", "licences"])
def test_a_second_entry_of_one_name_cannot_hide_behind_the_one_that_is_shown(
    place: Place, tmp_path: Path, field: str
) -> None:
    with place.open() as lab:
        rows = lab.policies.show()[field]
        lax = {**rows[1], "bounds": {}} if field == "operators" else rows[1]
        with refused("policy.field") as caught:
            lab.policies.sign(edited(lab, tmp_path, {field: [lax, *rows]}), PERSON)
        assert caught.value.where == f"policy: {field}" and "twice" in caught.value.message


def test_a_bound_on_what_is_no_parameter_is_refused_by_name(place: Place, tmp_path: Path) -> None:
    with place.open() as lab:
        rows = lab.policies.show()["operators"]
        for row in rows:
            if row["operator"] == "dare/1":
                row["bounds"] = {"kep": [0.5, 1.0]}
        with refused("policy.field") as caught:
            lab.policies.sign(edited(lab, tmp_path, {"operators": rows}), PERSON)
        assert "dare/1" in caught.value.where and "kep" in caught.value.message and "keep" in caught.value.advice


def test_without_the_policy_key_nothing_is_signed(place: Place, tmp_path: Path) -> None:
    shutil.move(place.keys / "people", tmp_path / "in-a-safe")
    with place.open() as lab:
        with refused("authority.key-missing"):
            lab.policies.sign(edited(lab, tmp_path, {}), PERSON)
        with pytest.raises(NotAuthorised, match="of mallory"):
            lab.policies.sign(edited(lab, tmp_path, {}), "mallory")
        assert len(lab.desk.entries()) == 2


@pytest.mark.parametrize("name", ["9", "0", "nowhere.json"])
def test_a_policy_that_is_not_there_is_not_compared(place: Place, name: str) -> None:
    with place.open(writer=False) as lab, pytest.raises(UsageError):
        lab.policies.diff(name, "current")


# -- in words ----------------------------------------------------------------------------------------------------


def test_equal_policies_differ_in_nothing_whoever_wrote_them_down() -> None:
    other = replace(POLICY, header=replace_owner("bob"))
    assert words(POLICY, other) == []


def replace_owner(owner: str) -> Header:
    return Header(source="studbook", version="2", environment="other", owner=owner)


def test_a_changed_number_is_told_with_its_old_and_new_value() -> None:
    after = changed(budget=editable(POLICY)["budget"] | {"depth": 3}, recompute="receipt")
    assert words(POLICY, after) == ["budget.depth: was 64, is 3", "recompute: was full, is receipt"]


def test_operators_are_told_by_tag_and_their_order_means_nothing() -> None:
    assert words(POLICY, grants(lambda found: found.reverse())) == []

    def edit(found: list[Fields]) -> None:
        by_tag = {g["operator"]: g for g in found}
        found.remove(by_tag["soup/1"])
        by_tag["dare/1"]["bounds"]["keep"] = [0.2, 1.0]
        by_tag["blend/1"]["status"] = "routed"
        by_tag["slerp/1"]["bounds"].pop("t")
        found.append({"operator": "soup/2", "status": "offline", "admitted": [], "bounds": {}})

    assert words(POLICY, grants(edit)) == [
        "operators.blend/1.status: was offline, is routed",
        "operators.dare/1.bounds.keep: was 0.05..1, is 0.2..1",
        "operators.slerp/1.bounds.t: was 0..1, is gone",
        'operators.soup/1: was {"status": "offline", "admitted": [], "bounds": {}}, is gone',
        'operators.soup/2: is new: {"status": "offline", "admitted": [], "bounds": {}}',
    ]


def test_licences_stages_clusters_and_recipes_are_told_one_by_one() -> None:
    licences = editable(POLICY)["licences"]
    licences[0]["combines_with"].remove("MIT")
    stages = editable(POLICY)["stages"]
    stages[1] |= {"approvals": 2, "hold_hours": 24}
    recipes = editable(POLICY)["recipes"]
    found = words(POLICY, changed(licences=licences, stages=stages, protected=["rot"], recipes=recipes[::-1]))
    assert found[0].startswith("recipes: has another order")
    assert found[1:] == [
        "licences.CC0-1.0.combines_with: no longer has MIT",
        "stages.champion.approvals: was 1, is 2",
        "stages.champion.hold_hours: was 0, is 24",
        "protected: has rot now",
    ]


# -- on the command line -----------------------------------------------------------------------------------------


def test_a_policy_is_shown_edited_compared_and_signed_on_the_command_line(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(*words: str) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["--lab", str(place.path), "--keys", str(place.keys), "policy", *words])
        return ended.value.code, *capsys.readouterr()

    path = tmp_path / "next.json"
    assert call("show", "-o", str(path))[0] == 0
    fields = json.loads(path.read_text())
    assert json.loads(call("show")[1]) == fields
    path.write_text(json.dumps(fields | {"policy_version": 2, "recompute": "receipt"}))
    told = call("diff", "current", str(path))[1]
    assert told.splitlines() == ["policy_version: was 1, is 2", "recompute: was full, is receipt"]
    assert "is in the ledger" in call("sign", str(path), "--as", PERSON)[1]
    code, _, refusal = call("sign", str(path), "--as", PERSON)
    assert code == 8 and "policy_version" in refusal and "what to do" in refusal
    assert call("diff", "2", "current")[1].strip() == "no difference"
