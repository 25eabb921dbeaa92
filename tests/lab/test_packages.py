"""Packages in the lab: made of what was admitted or approved, installed in one step, lived through, and verified."""

from __future__ import annotations

import hashlib
from datetime import date

import pytest

from lab_fixtures import BLEND, PERSON, Place, founder, problems, run_cli
from package_fixtures import install_specialists
from studbook.errors import NotAuthorised, OutOfOrder, OutsideAllowlist, OverBudget, StudbookError, UsageError
from studbook.lab import Lab
from studbook.lab.keys import Keys
from studbook.lab.package_host import contents, finish_packages, folder_of, host_files
from studbook.lab.package_life import check_event, move, usable
from studbook.lab.package_making import compose, order_of
from studbook.lab.packages import Terms, Wanted
from studbook.records import PackageEvent, RuntimeContract, SkillPackage

ROT = Wanted(version="1.0.0", clusters=("rot",))


def newest(lab: Lab) -> tuple[str, SkillPackage]:
    return list(lab.desk.all(SkillPackage))[-1]


def test_an_approved_source_becomes_a_package_and_is_installed_whole(packaged_lab: Place):
    with packaged_lab.open(writer=False) as lab:
        first = lab.packages.list()[0]
        assert (first.id, first.model, first.clusters, first.state, first.why_not) == (
            "rot",
            "cap-rot",
            ("rot",),
            "verified",
            "",
        )
        shown = lab.packages.show("rot")
        assert [event.after for event in shown.events] == ["installed", "verified"]
        assert {check.name for check in shown.events[1].checks} >= {"artifact", "base", "structure", "smoke"}
        assert shown.package.evidence.basis == "approval"
        folder = folder_of(lab.desk, shown.revision)
        assert sorted(p.name for p in folder.iterdir()) == ["contract.json", "model.slm", "package.json"]
        held = contents(lab.desk, shown.revision)
        assert hashlib.sha256(held.model).hexdigest() == shown.package.artifact.sha256
    assert problems(packaged_lab) == []


def test_what_a_package_says_it_takes_is_what_the_engine_takes(packaged_lab: Place):
    with packaged_lab.open(writer=False) as lab:
        _, package = newest(lab)
        model = lab.desk.model(package.artifact.sha256)
        takes = package.envelope
        assert takes.file_bytes.value == model.size
        assert takes.decoded_bytes.value == model.shape.decoded_bytes
        assert takes.kv_bytes_per_position.value == model.shape.kv_bytes(1)
        assert {m.basis for m in (takes.file_bytes, takes.decoded_bytes, takes.scratch_bytes)} == {"observed"}


def test_verify_composes_a_package_again(packaged_lab: Place):
    with packaged_lab.open(writer=False) as lab:
        digest, package = newest(lab)
        entry = lab.desk.workspace.entry(digest)
        assert entry is not None
        before = lab.desk.at(entry.sequence)
        assert compose(before, package.header, order_of(package), date.fromisoformat(entry.time[:10])) == package


def test_without_a_contract_nothing_is_installed(opened: Lab):
    opened.packages.make("rot", "cap-rot", ROT)
    with pytest.raises(OutOfOrder) as caught:
        opened.packages.install("rot")
    assert caught.value.reason == "package.contract"


def test_a_contract_takes_a_persons_key_and_rises_by_one(opened: Lab):
    with pytest.raises(NotAuthorised):
        opened.packages.contract("bob")
    opened.packages.contract(PERSON)
    opened.packages.contract(PERSON, Terms(permissions=("answer",), packages=1))
    found = [r for _, r in opened.desk.all(RuntimeContract)]
    assert [r.contract_version for r in found] == [1, 2]
    assert (found[1].permissions, found[1].maximum_packages, found[1].licences) == (("answer",), 1, found[0].licences)
    with pytest.raises(UsageError, match="no permission"):
        opened.packages.contract(PERSON, Terms(permissions=("fly",)))


def test_the_number_of_packages_is_the_contracts(opened: Lab):
    opened.packages.contract(PERSON, Terms(packages=1))
    for name, model in (("rot", "cap-rot"), ("odd", "dup-odd")):
        opened.packages.make(name, model, Wanted(version="1.0.0", clusters=(name,)))
    opened.packages.install("rot")
    with pytest.raises(OverBudget) as caught:
        opened.packages.install("odd")
    assert caught.value.reason == "package.count"
    opened.packages.retire("rot", "makes room")
    assert opened.packages.install("odd").state == "verified"


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        (Terms(permissions=("answer",)), "package.permissions"),
        (Terms(licences=("MIT",)), "package.licence"),
        (Terms(size=1000), "package.bytes"),
        (Terms(decoded=1000), "package.decoded-bytes"),
    ],
)
def test_what_the_contract_does_not_allow_leaves_nothing_behind(opened: Lab, terms: Terms, reason: str):
    opened.packages.contract(PERSON, terms)
    revision, _ = opened.packages.make("rot", "cap-rot", ROT)
    with pytest.raises(StudbookError) as caught:
        opened.packages.install("rot")
    assert caught.value.reason == reason
    assert not folder_of(opened.desk, revision).exists()
    assert not list(opened.desk.all(PackageEvent))


def test_a_package_answers_only_for_what_its_source_was_approved_for(new_lab: Place):
    with new_lab.open() as lab:
        lab.approve("cap-rot", PERSON, ["rot"], reason="for rot alone")
        with pytest.raises(OutOfOrder, match="approved for rot, and not for cap") as caught:
            lab.packages.make("cap", "cap-rot", Wanted(version="1.0.0", clusters=("cap",)))
        assert caught.value.reason == "package.basis"
        assert lab.packages.make("rot", "cap-rot", ROT)[1].clusters == ("rot",)
        with pytest.raises(UsageError, match="no frozen task suite"):
            lab.packages.make("other", "cap-rot", Wanted(version="1.0.0", clusters=("brk",)))


def test_a_registered_source_without_approval_is_no_package(new_lab: Place):
    with new_lab.open() as lab:
        lab.register(founder("rev-srt"))
        with pytest.raises(OutOfOrder) as caught:
            lab.packages.make("rev", "rev-srt", ROT)
        assert caught.value.reason == "package.basis"


def test_a_candidate_that_was_never_admitted_is_no_package(new_lab: Place):
    with new_lab.open() as lab:
        child = lab.breed("rot", BLEND)
        with pytest.raises((OutOfOrder, OutsideAllowlist)) as caught:
            lab.packages.make("child", child, ROT)
        assert caught.value.reason in ("package.basis", "package.offline")


def test_versions_rise(host: Place):
    with host.open() as lab:
        for version in ("1.0.0", "0.9.0", "1.0.0-rc.1"):
            with pytest.raises(UsageError) as caught:
                lab.packages.make("rot", "cap-rot", Wanted(version=version, clusters=("rot",)))
            assert caught.value.reason == "package.version"
        revision, package = lab.packages.make("rot", "cap-rot", Wanted(version="1.1.0", clusters=("rot",)))
        assert package.rollback == lab.packages.show("rot@1.0.0").revision
        assert lab.packages.install("rot").revision == revision
        assert [one.state for one in lab.packages.list()] == ["verified"] * 3
    assert problems(host) == []


def test_a_life_from_suspension_to_retirement(host: Place):
    with host.open() as lab:
        assert lab.packages.suspend("rot", "looked at").why_not == "is suspended"
        assert {u.package.id for u in usable(lab.desk)[0]} == {"odd"}
        assert lab.packages.resume("rot").state == "verified"
        revision = lab.packages.show("rot").revision
        move(lab.desk, revision, "resident", "taken up")
        move(lab.desk, revision, "active", "answers")
        with pytest.raises(OutOfOrder, match="is active and cannot become retired"):
            lab.packages.retire("rot")
        lab.packages.quarantine("rot", "says odd things")
        assert folder_of(lab.desk, revision).is_dir()
        lab.packages.retire("rot", "looked into")
        assert not folder_of(lab.desk, revision).exists()
        with pytest.raises(OutOfOrder, match="is retired and cannot become installed"):
            lab.packages.install("rot")
    assert problems(host) == []


def test_what_another_package_requires_is_not_retired(host: Place):
    with host.open() as lab:
        lab.packages.make("pair", "dup-odd", Wanted(version="1.0.0", clusters=("odd",), requires=("rot",)))
        lab.packages.install("pair")
        with pytest.raises(OutOfOrder) as caught:
            lab.packages.retire("rot")
        assert caught.value.reason == "package.required"
        lab.packages.retire("pair")
        assert lab.packages.retire("rot").state == "retired"


def test_a_missing_requirement_is_named_before_anything_is_copied(opened: Lab):
    opened.packages.contract(PERSON)
    revision, _ = opened.packages.make(
        "pair", "cap-rot", Wanted(version="1.0.0", clusters=("rot",), requires=("nobody",))
    )
    with pytest.raises(OutOfOrder) as caught:
        opened.packages.install("pair")
    assert caught.value.reason == "package.requires"
    assert not folder_of(opened.desk, revision).exists()


def test_a_revoked_model_is_kept_out_and_cannot_be_taken_up_again(host: Place):
    with host.open() as lab:
        lab.packages.suspend("rot")
        Keys(lab.desk).revoke("cap-rot", PERSON, "no longer wanted")
        assert set(usable(lab.desk)[1].values()) >= {"is suspended"}
        for act in (lambda: lab.packages.resume("rot"), lambda: lab.packages.make("more", "cap-rot", ROT)):
            with pytest.raises(OutOfOrder) as caught:
                act()
            assert caught.value.reason == "order.revoked"
        Keys(lab.desk).revoke("dup-odd", PERSON, "neither")
        assert "was revoked" in " ".join(usable(lab.desk)[1].values())
    assert problems(host) == []


def test_what_a_package_runs_is_not_withdrawn(host: Place):
    with host.open() as lab:
        with pytest.raises(OutOfOrder) as caught:
            lab.withdraw("cap-rot", PERSON, "taken back")
        assert caught.value.reason == "lab.deployed"
        lab.packages.retire("rot")
        assert lab.withdraw("cap-rot", PERSON, "taken back").signed.committed
        with pytest.raises(OutOfOrder):
            lab.packages.make("again", "cap-rot", ROT)


def test_a_backup_holds_what_is_installed_and_drops_what_is_retired(host: Place, tmp_path):
    copy = Place(tmp_path / "copy", host.keys)
    for count in (2, 1):
        with host.open(writer=False) as lab:
            lab.close()
        with Lab(host.path, host.keys, writer=False, still=True) as lab:
            lab.backup(copy.path)
        with Lab(copy.path, host.keys, writer=False, witness=tmp_path / "none") as lab:
            assert len({path.parent for path in host_files(lab.desk)}) == count
            assert lab.verify().problems == ()
        with host.open() as lab:
            lab.packages.retire(lab.packages.list()[0].id) if count == 2 else None


def test_verify_names_a_stranger_in_the_folder_and_a_file_that_was_changed(host: Place):
    with host.open(writer=False) as lab:
        folder = folder_of(lab.desk, lab.packages.show("rot").revision)
    (folder / "notes.txt").write_text("hello")
    model = folder / "model.slm"
    model.chmod(0o644)
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    assert sorted(problems(host)) == sorted([str(folder / "notes.txt"), str(model)])
    with host.open(writer=False) as lab, pytest.raises(StudbookError) as caught:
        contents(lab.desk, lab.packages.show("rot").revision)
    assert caught.value.reason == "package.bytes"


def test_a_strangers_folder_is_never_taken_away(host: Place):
    with host.open() as lab:
        above = folder_of(lab.desk, "x").parent
        for name in ("mine", "f" * 64):
            (above / name).mkdir()
            (above / name / "file").write_bytes(b"kept")
        finish_packages(lab.desk)
        assert (above / "mine" / "file").exists()
        assert (above / ("f" * 64) / "file").exists()


def test_an_event_that_entered_is_held_against_the_lab_of_then(packaged_lab: Place):
    with packaged_lab.open(writer=False) as lab:
        for digest, record in lab.desk.all(PackageEvent):
            entry = lab.desk.workspace.entry(digest)
            assert entry is not None
            check_event(lab.desk.at(entry.sequence), record)


def test_two_labs_give_the_same_packages(packaged_lab: Place, new_lab: Place):
    with new_lab.open() as lab:
        install_specialists(lab)
        again = lab.packages.list()
    with packaged_lab.open(writer=False) as lab:
        first = lab.packages.list()
    # Approvals are equal records; nothing of clock or keys is in a package.
    assert [one.revision for one in again] == [one.revision for one in first]


def test_the_command_line_makes_installs_lists_and_suspends(new_lab: Place):
    def said(*words: str) -> str:
        done = run_cli(new_lab, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    said("package", "contract", "--as", PERSON, "--permission", "answer", "--permission", "stream")
    assert "next: studbook package install rot" in said(
        "package", "make", "rot", "cap-rot", "--version", "1.0.0", "--for", "rot"
    )
    assert "is verified" in said("package", "install", "rot")
    assert "is suspended" in said("package", "suspend", "rot", "--reason", "looked at")
    assert "suspended" in said("package", "list")
    assert "installed -> verified" in said("package", "show", "rot@1.0.0")
    assert "is verified" in said("package", "resume", "rot")
    assert "is quarantined" in said("package", "quarantine", "rot")
    assert "is retired" in said("package", "retire", "rot")
