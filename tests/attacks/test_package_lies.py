"""Lies about packages: other bytes, other versions, other people's permissions; told to the lab or written by hand.

By hand means: records with good signatures of the host's key, appended in good order. Only what they say is not so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lab_fixtures import PERSON, Place, founder, problems, rewrite, run_cli
from studbook.errors import NotAuthorised, OutOfOrder, RecordRefused, StudbookError
from studbook.lab import Lab
from studbook.lab.keys import Keys
from studbook.lab.package_host import contents, folder_of, put_away, stage
from studbook.lab.package_life import event_for, standing, usable
from studbook.lab.package_making import contract_in_force
from studbook.lab.packages import Terms, Wanted
from studbook.records import (
    Blob,
    Check,
    PackageEvent,
    RuntimeContract,
    SkillPackage,
    replace,
    write_record,
)
from studbook.seal import seal


def held(lab: Lab, name: str) -> tuple[str, SkillPackage]:
    """Revision and record of a package."""
    shown = lab.packages.show(name)
    return shown.revision, shown.package


@pytest.mark.parametrize("name", ["package.json", "contract.json", "model.slm"])
def test_a_file_of_an_installed_package_that_was_edited_is_never_handed_on(host: Place, name: str) -> None:
    with host.open(writer=False) as lab:
        revision, _ = held(lab, "rot")
        path = folder_of(lab.desk, revision) / name
    rewrite(path, path.read_bytes().replace(b"rot", b"odd", 1) + b" ")
    with host.open(writer=False) as lab, pytest.raises(StudbookError) as caught:
        contents(lab.desk, revision)
    assert (caught.value.reason, caught.value.where) == ("package.bytes", str(path))
    assert problems(host) == [str(path)]


def test_another_models_sound_bytes_are_never_handed_on(host: Place) -> None:
    with host.open(writer=False) as lab:
        mine, theirs = (folder_of(lab.desk, held(lab, name)[0]) / "model.slm" for name in ("rot", "odd"))
    rewrite(mine, theirs.read_bytes())
    with host.open(writer=False) as lab, pytest.raises(StudbookError) as caught:
        contents(lab.desk, held(lab, "rot")[0])
    assert caught.value.reason == "package.bytes"
    assert problems(host) == [str(mine)]


Lie = Callable[[SkillPackage, SkillPackage], dict[str, Any]]
LIES: dict[str, Lie] = {
    "another model": lambda own, other: {"artifact": other.artifact},
    "a size": lambda own, _: {"artifact": Blob(sha256=own.artifact.sha256, size=own.artifact.size - 1)},
    "more clusters": lambda own, _: {"clusters": ("cap", "rot"), "requires": ("nobody",)},
    "another base": lambda _, other: {"base": None},
    "another licence": lambda *_: {"licence": "MIT"},
    "less memory": lambda own, _: {
        "envelope": replace_measure(own, "decoded_bytes", 1.0),
    },
    "borrowed evidence": lambda _, other: {"evidence": other.evidence},
    "no way back": lambda *_: {"rollback": None, "package_version": "1.0.1"},
}


def replace_measure(package: SkillPackage, name: str, value: float) -> Any:
    """The envelope of a package with one number changed."""
    measure = getattr(package.envelope, name)
    return replace(package.envelope, **{name: replace(measure, value=value)})


@pytest.mark.parametrize("lie", LIES)
def test_a_well_signed_package_that_says_what_is_not_so_is_found_by_verify(host: Place, lie: str) -> None:
    with host.open() as lab:
        (_, own), (_, other) = held(lab, "rot"), held(lab, "odd")
        forged = lab.desk.workspace.commit(replace(own, **{"package_version": "2.0.0", **LIES[lie](own, other)}))
    assert any(forged in where for where in problems(host))


def test_an_older_version_never_comes_back_over_a_newer_one(host: Place) -> None:
    with host.open() as lab:
        _, own = held(lab, "rot")
        lab.packages.make("rot", "cap-rot", Wanted(version="1.5.0", clusters=("rot",)))
        lab.packages.install("rot")
        old = lab.desk.workspace.commit(replace(own, package_version="1.2.0"))
        with pytest.raises(OutOfOrder) as caught:
            lab.packages.install(old)
        assert caught.value.reason == "package.version"
        assert not folder_of(lab.desk, old).exists()
        lab.packages.retire("rot@1.5.0")
        with pytest.raises(OutOfOrder) as caught:
            lab.packages.install(old)
        assert caught.value.reason == "package.version"


def test_packages_that_require_each_other_are_refused_with_the_circle(host: Place) -> None:
    with host.open() as lab:
        lab.packages.make("pair", "dup-odd", Wanted(version="1.0.0", clusters=("odd",), requires=("rot",)))
        lab.packages.install("pair")
        made, _ = lab.packages.make("rot", "cap-rot", Wanted(version="2.0.0", clusters=("rot",), requires=("pair",)))
        with pytest.raises(OutOfOrder, match="rot -> pair -> rot") as caught:
            lab.packages.install("rot")
        assert caught.value.reason == "package.cycle"
        assert not folder_of(lab.desk, made).exists()


def test_a_permission_beyond_the_contract_is_refused_and_a_forged_event_is_found(host: Place) -> None:
    with host.open() as lab:
        lab.packages.contract(PERSON, Terms(permissions=("answer",)))
        made, _ = lab.packages.make("more", "cap-rot", Wanted(version="1.0.0", clusters=("rot",)))
        with pytest.raises(StudbookError) as caught:
            lab.packages.install("more")
        assert caught.value.reason == "package.permissions"
        # What was installed under the wider contract is not taken up any longer.
        assert all("stream" in why for why in usable(lab.desk)[1].values())
        agreed, _ = contract_in_force(lab.desk)
        put_away(lab.desk, stage(lab.desk, made), made)
        lab.desk.workspace.commit(event_for(lab.desk, made, "installed", agreed, "in place", None))
        row = Check(name="permissions", passed=True, detail="all of them")
        forged = event_for(lab.desk, made, "verified", agreed, "trust me", standing(lab.desk, made), (row,))
        lie = lab.desk.workspace.commit(forged)
    assert any(lie in where for where in problems(host))


def test_an_event_that_does_not_follow_moves_nothing_and_is_found(host: Place) -> None:
    with host.open() as lab:
        revision, _ = held(lab, "rot")
        life = standing(lab.desk, revision)
        agreed, _ = contract_in_force(lab.desk)
        skips = event_for(lab.desk, revision, "active", agreed, "at once", life)
        stale = replace(event_for(lab.desk, revision, "suspended", agreed, "late", life), previous=agreed)
        lies = [lab.desk.workspace.commit(record) for record in (skips, stale)]
        assert standing(lab.desk, revision) == life
    assert {lie for lie in lies for where in problems(host) if lie in where} == set(lies)


def test_a_package_of_a_revoked_parent_is_neither_made_nor_taken_up(host: Place) -> None:
    with host.open() as lab:
        Keys(lab.desk).revoke("base", PERSON, "was never ours")
        with pytest.raises(OutOfOrder):
            lab.packages.make("more", "base", Wanted(version="1.0.0", clusters=("rot",)))
        Keys(lab.desk).revoke("cap-rot", PERSON, "neither")
        able, out = usable(lab.desk)
        assert {u.package.id for u in able}.isdisjoint({"rot"})
        assert any("revoked" in why for why in out.values())
        with pytest.raises(OutOfOrder) as caught:
            lab.packages.make("more", "cap-rot", Wanted(version="1.0.0", clusters=("rot",)))
        assert caught.value.reason == "order.revoked"


def test_only_a_persons_key_agrees_to_a_contract(host: Place) -> None:
    with host.open() as lab:
        wider = replace(contract_in_force(lab.desk)[1], contract_version=2, maximum_packages=10_000)
        ring, now = lab.desk.workspace.keys, lab.desk.workspace.authority(SkillPackage.kind())
        process = ring.find(now, SkillPackage.zone, SkillPackage.kind())
        with pytest.raises(NotAuthorised):
            lab.desk.workspace.commit(wider, envelope=seal(wider, process))


def test_an_old_contract_put_back_by_hand_is_found(host: Place) -> None:
    with host.open() as lab:
        lab.packages.contract(PERSON, Terms(permissions=("answer",)))
        first = next(r for _, r in lab.desk.all(RuntimeContract))
        lie = lab.desk.workspace.commit(replace(first, reason="as it was"), owner=PERSON)
    assert any(lie in where for where in problems(host))


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a\x1b[31m", "=cmd()", "../../keys", "A"])
def test_a_name_that_is_no_id_is_refused_everywhere(host: Place, name: str) -> None:
    with host.open() as lab:
        _, own = held(lab, "rot")
        with pytest.raises(RecordRefused):
            write_record(replace(own, id=name))
        with pytest.raises(StudbookError):
            lab.packages.make(name, "cap-rot", Wanted(version="1.0.0", clusters=("rot",)))
    done = run_cli(host, "package", "install", name)
    assert done.returncode == 2
    assert "\x1b" not in done.stderr


def test_a_link_in_place_of_the_folder_of_packages_is_not_followed(host: Place, tmp_path: Any) -> None:
    above = host.path / "host" / "packages"
    elsewhere = tmp_path / "elsewhere"
    above.rename(elsewhere)
    above.symlink_to(elsewhere)
    with host.open():
        pass
    assert len(list(elsewhere.iterdir())) == 2
    assert problems(host) != []


def test_a_founder_that_nobody_approved_cannot_be_packaged_by_hand(host: Place) -> None:
    with host.open() as lab:
        lab.register(founder("brk"))
        _, own = held(lab, "rot")
        artifact = lab.desk.find_model("brk")
        size = lab.desk.workspace.blob_size(artifact)
        lie = lab.desk.workspace.commit(
            replace(own, id="brk", artifact=Blob(sha256=artifact, size=size), rollback=None)
        )
        with pytest.raises(OutOfOrder) as caught:
            lab.packages.install("brk")
        assert caught.value.reason == "package.basis"
        assert not [e for _, e in lab.desk.all(PackageEvent) if e.package == lie]
    assert any(lie in where for where in problems(host))
