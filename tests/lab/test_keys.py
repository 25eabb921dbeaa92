"""Changing who may sign what: with one owner, with two, and after a key was lost, has ended, or was stolen."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from lab_fixtures import CLUSTER, Place, problems, rewrite, shipped_items, write_suite
from studbook import workspace as workspace_module
from studbook.errors import DigestDiffers, NotAuthorised, OutOfOrder, StudbookError, UsageError
from studbook.lab import Lab, founding
from studbook.lab.keys import Keys
from studbook.lab.pending import Signed, approve_pending, waiting
from studbook.records import Policy, Root, SuitesLock, Zone, digest, replace
from studbook.seal import KeyRing, SigningKey

ROOT_KEY = "people/policy/root"


class House(NamedTuple):
    """A lab, opened."""

    place: Place
    lab: Lab

    @property
    def keys(self) -> Keys:
        return Keys(self.lab.desk)

    @property
    def root(self) -> Root:
        return self.lab.desk.workspace.root

    @property
    def position(self) -> int:
        return len(self.lab.desk.entries())

    def policy(self, notes: str) -> str:
        """Commit the next policy."""
        newest = self.lab.desk.policy[1]
        return self.lab.desk.workspace.commit(replace(newest, policy_version=newest.policy_version + 1, notes=notes))

    def lock(self, version: int) -> str:
        """Commit a lock on no suite."""
        return self.lab.desk.workspace.commit(SuitesLock(header=self.lab.desk.header, lock_version=version, suites=()))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A new lab of ann's, without anything in it."""
    place = Place(tmp_path / "lab", tmp_path / "keys")
    Lab.init(place.path, "ann", place.keys)
    return place


@pytest.fixture
def house(place: Place) -> Iterator[House]:
    with place.open() as lab:
        yield House(place, lab)


@pytest.fixture
def two(house: House, tmp_path: Path) -> House:
    """The same lab after bob became its second owner, with his keys in a ring of his own; a root takes both."""
    bob = KeyRing(tmp_path / "bob")
    assert house.keys.rotate("ann", "process/evaluation/evaluation", owner="bob").committed
    assert house.keys.new("bob", ["root/1"], "ann", bob.create(ROOT_KEY).public).committed
    signed = house.keys.rotate("ann", needs={"root/1": 2})
    assert not signed.committed
    settled = by_bob(house, tmp_path, signed)
    assert settled.committed
    return house


def by_bob(house: House, tmp_path: Path, signed: Signed) -> Signed:
    """Bob signs with his own ring, which holds no audit key; then ann, who has one, has it committed."""
    desk, ring = house.lab.desk, house.lab.desk.workspace.keys
    desk.workspace.keys = KeyRing(tmp_path / "bob")
    try:
        with pytest.raises(NotAuthorised, match="ledger-entry/1"):
            approve_pending(desk, signed.digest[:8], "bob")
    finally:
        desk.workspace.keys = ring
    return approve_pending(desk, signed.digest, "ann")


def refused(reason: str) -> pytest.RaisesExc[StudbookError]:
    return pytest.raises(StudbookError, check=lambda error: error.reason == reason and bool(error.advice))


# -- one owner ---------------------------------------------------------------------------------------------------


def test_a_root_is_renewed_by_its_owner_alone(house: House) -> None:
    before = house.root
    signed = house.keys.rotate("ann", until="2039-05-31")
    assert signed.committed and signed.waiting == ""
    assert (house.root.root_version, house.root.expires) == (2, "2039-05-31")
    assert replace(house.root, root_version=1, expires=before.expires) == before
    house.policy("after the rotation")
    house.lab.close()
    assert problems(house.place) == []
    with house.place.open(writer=False) as lab:
        assert lab.desk.workspace.root.root_version == 2


@pytest.mark.parametrize(
    "name", ["process/audit/audit", "process/candidate/candidate", "people/policy/policy", ROOT_KEY]
)
def test_a_replaced_key_signs_no_more_and_the_new_one_does(house: House, name: str) -> None:
    ring = house.lab.desk.workspace.keys
    old = ring.public_of(name)
    assert old is not None
    assert house.keys.rotate("ann", name).committed
    assert ring.name_of(old) == name
    assert old not in {k.key for k in house.root.owners.keys} | {g.key for g in house.root.keys}
    assert ring.public_of(f"{name}-2") is not None
    (ring.folder / f"{name}.pem").unlink()
    house.policy("signed and chained by the keys of the second root")
    assert house.keys.rotate("ann").committed
    house.lab.close()
    assert problems(house.place) == []


def test_a_key_of_somebody_new_is_listed_for_the_kinds_it_was_made_for(house: House) -> None:
    signed = house.keys.new("bob", ["champion-promotion/1"], "ann")
    assert signed.committed
    grant = next(g for g in house.root.keys if g.owner == "bob")
    assert (grant.zone, grant.kinds, grant.holder) == (Zone.RELEASE, ("champion-promotion/1",), "person")
    assert house.lab.desk.workspace.keys.public_of("people/release/bob-2") == grant.key


def test_a_new_key_can_be_locked_with_a_passphrase(house: House) -> None:
    house.keys.rotate("ann", "people/policy/policy", passphrase=b"correct horse")
    with refused("authority.passphrase"):
        house.policy("nobody typed it")
    house.lab.desk.workspace.keys.passphrase = lambda _path: b"correct horse"
    house.policy("somebody typed it")


@pytest.mark.parametrize("kinds", [[], ["policy/1", "scorecard/1"], ["nonsense/1"], ["root/1", "policy/1"]])
def test_a_key_for_no_zone_or_two_is_refused_before_it_is_made(house: House, kinds: list[str]) -> None:
    before = sorted(house.place.keys.rglob("*"))
    with pytest.raises(UsageError):
        house.keys.new("bob", kinds, "ann")
    assert sorted(house.place.keys.rglob("*")) == before


def test_a_root_that_would_break_a_rule_makes_no_key_file(house: House) -> None:
    before = sorted(house.place.keys.rglob("*"))
    with refused("authority.separation"):
        house.keys.new("bob", ["root/1"], "ann")
    with refused("authority.owner-twins"):
        house.keys.new("Ann", ["policy/1"], "ann")
    with refused("authority.threshold-unreachable"):
        house.keys.rotate("ann", needs={"policy/1": 2})
    assert sorted(house.place.keys.rglob("*")) == before
    assert house.root.root_version == 1


@pytest.mark.parametrize("person", ["bob", "Ann"])
def test_who_holds_no_root_key_here_changes_nothing(house: House, person: str) -> None:
    count = house.position
    with refused("authority.key-missing"):
        house.keys.rotate(person)
    with refused("authority.key-missing"):
        house.keys.new("bob", ["policy/1"], person)
    assert house.position == count


@pytest.mark.parametrize("key", ["process/nobody/none", "00000000", "../keys/people/policy/root", "a b"])
def test_a_key_that_is_not_listed_cannot_be_replaced(house: House, key: str) -> None:
    with pytest.raises(UsageError):
        house.keys.rotate("ann", key)


@pytest.mark.parametrize("until", ["2020-01-01", "tomorrow", "20390531", "2039-02-30"])
def test_a_root_that_ends_before_it_begins_is_refused(house: House, until: str) -> None:
    with pytest.raises(StudbookError):
        house.keys.rotate("ann", until=until)
    assert house.root.root_version == 1


def test_a_ring_that_remembers_a_key_does_not_outlive_its_file(house: House) -> None:
    ring, root = house.lab.desk.workspace.keys, house.root
    first = ring.find(root, Zone.POLICY, Policy.kind())
    assert ring.find(root, Zone.POLICY, Policy.kind()).public == first.public
    moved = ring.folder / "people" / "policy" / "policy.pem"
    moved.rename(moved.with_name("another.pem"))
    moved.with_suffix(".pub").rename(moved.with_name("another.pub"))
    assert ring.find(root, Zone.POLICY, Policy.kind()).public == first.public
    moved.with_name("another.pem").unlink()
    with refused("authority.key-missing"):
        ring.find(root, Zone.POLICY, Policy.kind())


# -- two owners --------------------------------------------------------------------------------------------------


def test_a_lock_of_suites_that_takes_two_waits_for_the_second_and_is_not_put_over_a_newer_one(
    two: House, tmp_path: Path
) -> None:
    lab, bob = two.lab, KeyRing(tmp_path / "bob")
    public = bob.create("people/policy/suites").public
    assert by_bob(two, tmp_path, two.keys.new("bob", ["suites-lock/1"], "ann", public)).committed
    assert by_bob(two, tmp_path, two.keys.rotate("ann", needs={"suites-lock/1": 2})).committed
    items = shipped_items("development", CLUSTER)
    folders = [write_suite(tmp_path / n, items, name=n, role="development") for n in ("one", "two")]
    for folder in folders:
        assert len(lab.suites.freeze([folder], "ann")) == 1
        with pytest.raises(OutOfOrder, match="no suite is frozen"):
            _ = lab.desk.suites_lock
    first, second = waiting(lab.desk)
    kept = waiting(lab.desk)[second].read_bytes()
    desk, ring = lab.desk, lab.desk.workspace.keys
    desk.workspace.keys = bob
    with pytest.raises(NotAuthorised, match="ledger-entry/1"):
        approve_pending(desk, first, "bob")
    desk.workspace.keys = ring
    assert approve_pending(desk, first, "ann").committed
    assert lab.desk.suites_lock[1].lock_version == 1
    assert waiting(lab.desk) == {}
    # The other one wanted to be the first as well: it comes too late, whoever keeps a copy of it.
    path = desk.workspace.pending / f"{second}.json"
    path.write_bytes(kept)
    desk.workspace.keys = bob
    with refused("order.lock-overtaken"):
        approve_pending(desk, second, "bob")
    desk.workspace.keys = ring
    path.unlink()
    assert lab.verify().ok


def test_a_root_that_takes_two_waits_for_the_second_and_changes_nothing_meanwhile(two: House, tmp_path: Path) -> None:
    version = two.root.root_version
    signed = two.keys.rotate("ann", needs={"policy/1": 1})
    assert "1 of 2" in signed.waiting
    assert two.root.root_version == version
    path = two.place.path / "policy" / "pending" / f"{signed.digest}.json"
    assert waiting(two.lab.desk) == {signed.digest: path}
    assert approve_pending(two.lab.desk, signed.digest, "ann").committed is False
    assert by_bob(two, tmp_path, signed).committed
    assert two.root.root_version == version + 1
    assert waiting(two.lab.desk) == {}
    two.lab.close()
    assert problems(two.place) == []


def test_what_waits_is_no_problem_of_the_lab(two: House) -> None:
    two.keys.rotate("ann")
    two.lab.close()
    assert problems(two.place) == []


def test_what_lies_among_the_waiting_and_is_no_record_is_named_and_stops_nobody(two: House, tmp_path: Path) -> None:
    signed = two.keys.rotate("ann", needs={"policy/1": 1})
    folder = two.lab.desk.workspace.pending
    for name, data in (("aa" * 32, b"garbage"), ("bb" * 32, (folder / f"{signed.digest}.json").read_bytes())):
        (folder / f"{name}.json").write_bytes(data)
    assert sorted(Path(p.where).stem for p in two.lab.verify().problems) == ["aa" * 32, "bb" * 32]
    true, path = (folder / f"{signed.digest}.json").read_bytes(), folder / f"{signed.digest}.json"
    at = true.index(b'"sig":"') + 20
    rewrite(path, true[:at] + (b"A" if true[at : at + 1] != b"A" else b"B") + true[at + 1 :])
    assert str(path) in [p.where for p in two.lab.verify().problems]
    rewrite(path, true)
    version = two.root.root_version
    assert by_bob(two, tmp_path, signed).committed
    assert two.root.root_version == version + 1


def test_a_waiting_record_is_signed_as_it_is_or_not_at_all(two: House) -> None:
    signed = two.keys.rotate("ann", needs={"policy/1": 1})
    for more in ({"clusters": ["champion"]}, {"until": "2030-01-01"}, {"reason": "only the candidate"}):
        with pytest.raises(UsageError, match="names a record that waits"):
            two.lab.approve(signed.digest, "bob", **more)  # type: ignore[arg-type]


def test_a_waiting_root_falls_with_the_root_it_wanted_to_follow(two: House, tmp_path: Path) -> None:
    overtaken, taken = two.keys.rotate("ann", until="2041-01-01"), two.keys.rotate("ann", until="2042-01-01")
    assert len(waiting(two.lab.desk)) == 2
    assert by_bob(two, tmp_path, taken).committed
    with pytest.raises(UsageError, match="waits"):
        approve_pending(two.lab.desk, overtaken.digest, "ann")


def test_a_waiting_record_that_was_changed_is_refused(two: House) -> None:
    first, second = two.keys.rotate("ann", until="2041-01-01"), two.keys.rotate("ann", until="2042-01-01")
    paths = waiting(two.lab.desk)
    rewrite(paths[first.digest], paths[second.digest].read_bytes())
    with pytest.raises(DigestDiffers, match="another record"):
        approve_pending(two.lab.desk, first.digest, "ann")
    rewrite(paths[second.digest], paths[second.digest].read_bytes()[:-2])
    with refused("record.decode"):
        approve_pending(two.lab.desk, second.digest, "ann")


@pytest.mark.parametrize("name", ["", "0" * 64, "../pending/x", "zz"])
def test_what_does_not_wait_cannot_be_signed(two: House, name: str) -> None:
    two.keys.rotate("ann")
    with pytest.raises(UsageError, match="waits"):
        approve_pending(two.lab.desk, name, "ann")


def test_a_revocation_can_take_two_owners_as_well(two: House, tmp_path: Path) -> None:
    bob = KeyRing(tmp_path / "bob").create("people/policy/policy").public
    signed = two.keys.new("bob", ["revocation/1"], "ann", bob)
    assert by_bob(two, tmp_path, signed).committed
    assert by_bob(two, tmp_path, two.keys.rotate("ann", needs={"revocation/1": 2})).committed
    old = two.lab.desk.workspace.keys.public_of("process/candidate/candidate")
    assert old is not None
    assert by_bob(two, tmp_path, two.keys.rotate("ann", "process/candidate/candidate")).committed
    signed = two.keys.revoke(old, "ann", "laptop stolen")
    assert "1 of 2" in signed.waiting
    assert by_bob(two, tmp_path, signed).committed
    two.lab.close()
    assert problems(two.place) == []


# -- lost, ended, stolen -----------------------------------------------------------------------------------------


def test_a_lost_root_key_is_replaced_by_the_owner_who_remains(house: House, tmp_path: Path) -> None:
    bob = KeyRing(tmp_path / "bob")
    house.keys.rotate("ann", "process/evaluation/evaluation", owner="bob")
    house.keys.new("bob", ["root/1"], "ann", bob.create(ROOT_KEY).public)
    lost = house.lab.desk.workspace.keys.public_of(ROOT_KEY)
    assert lost is not None
    # Ann's file is gone; bob's ring is what is left, and the process keys lie where they were.
    (house.place.keys / f"{ROOT_KEY}.pem").rename(house.place.keys / f"{ROOT_KEY}-bob.pem")
    (house.place.keys / f"{ROOT_KEY}.pub").unlink()
    rewrite(house.place.keys / f"{ROOT_KEY}-bob.pem", (tmp_path / "bob" / f"{ROOT_KEY}.pem").read_bytes())
    (house.place.keys / f"{ROOT_KEY}-bob.pem").chmod(0o600)
    fresh = KeyRing(tmp_path / "ann-again").create(ROOT_KEY).public
    signed = house.keys.recover(lost[:12], "bob", public=fresh)
    assert signed.committed
    assert {k.key: k.owner for k in house.root.owners.keys}[fresh] == "ann"
    assert lost not in {k.key for k in house.root.owners.keys}
    house.lab.close()
    assert problems(house.place) == []


def test_a_lost_root_key_can_be_dropped(two: House, tmp_path: Path) -> None:
    lost = KeyRing(tmp_path / "bob").public_of(ROOT_KEY)
    assert lost is not None
    assert by_bob(two, tmp_path, two.keys.rotate("ann", needs={"root/1": 1})).committed
    assert two.keys.recover(lost, "ann", drop=True).committed
    assert [k.owner for k in two.root.owners.keys] == ["ann"]


def test_without_enough_owners_a_lost_root_key_cannot_be_replaced(house: House) -> None:
    lost = house.lab.desk.workspace.keys.public_of(ROOT_KEY)
    assert lost is not None
    with refused("authority.beyond-recovery"):
        house.keys.recover(lost, "ann")


def test_a_key_that_is_no_root_key_needs_no_recovery(house: House) -> None:
    with pytest.raises(UsageError, match="not a root key"):
        house.keys.recover("process/audit/audit", "ann")


class Later(datetime):
    """A clock two years and a day ahead."""

    @classmethod
    def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
        return datetime.now(UTC) + founding.LIFETIME + timedelta(days=1)


def test_after_the_root_has_ended_nothing_enters_until_its_owner_signs_the_next(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = house.position
    monkeypatch.setattr(workspace_module, "datetime", Later)
    with refused("authority.expired"):
        house.policy("too late")
    assert house.position == count
    assert house.keys.rotate("ann", until="2044-01-01").committed
    house.policy("in time again")
    house.lab.close()
    assert problems(house.place) == []


def test_what_a_stolen_key_signed_counts_up_to_the_theft_only(house: House) -> None:
    ring = house.lab.desk.workspace.keys
    stolen = ring.public_of("people/policy/policy")
    assert stolen is not None
    before = house.lock(1)
    theft = house.position
    forged = house.lock(2)
    with refused("authority.revocation-last"):
        house.keys.revoke("people/policy/policy", "ann", "stolen")
    assert house.keys.rotate("ann", "people/policy/policy").committed
    assert house.keys.revoke(stolen, "ann", "stolen from a desk", since=theft).committed
    after = house.lock(3)
    house.lab.close()
    with house.place.open(writer=False) as lab:
        work = lab.desk.workspace
        for good in (before, after):
            assert work.get(good, SuitesLock)
        with refused("authority.revoked"):
            work.get(forged, SuitesLock)
        assert [d for d, _ in lab.desk.all(SuitesLock)] == [before, after]
        assert lab.desk.suites_lock[0] == after
        assert [Path(v.where).stem for v in lab.verify().void] == [forged]
    assert problems(house.place) == []


def test_a_stolen_audit_key_is_replaced_and_then_revoked_from_here_on(house: House) -> None:
    ring = house.lab.desk.workspace.keys
    stolen = ring.public_of("process/audit/audit")
    assert stolen is not None
    house.keys.rotate("ann", "process/audit/audit")
    assert house.keys.revoke(stolen, "ann", "stolen").committed
    house.policy("chained by the new key")
    house.lab.close()
    assert problems(house.place) == []


def test_no_key_is_revoked_from_a_position_that_is_still_to_come(house: House) -> None:
    old = house.place.keys / "process" / "candidate" / "candidate.pub"
    assert house.keys.rotate("ann", "process/candidate/candidate").committed
    key, here = old.read_text().strip(), house.position
    for since in (here + 1, 1_000_000, 99999999999999999999):
        with pytest.raises(UsageError) as caught:
            house.keys.revoke(key, "ann", "stolen", since)
        assert caught.value.where == "--since"
    assert house.position == here
    assert house.keys.revoke(key, "ann", "stolen", here).committed


def test_a_position_means_something_for_keys_alone(house: House) -> None:
    with pytest.raises(UsageError, match="only a key"):
        house.keys.revoke(house.lab.desk.policy[0], "ann", "wrong", 1)


def test_a_waiting_revocation_of_an_audit_key_stands_although_others_write_on(two: House, tmp_path: Path) -> None:
    bob = KeyRing(tmp_path / "bob")
    public = bob.create("people/policy/revocation").public
    assert by_bob(two, tmp_path, two.keys.new("bob", ["revocation/1"], "ann", public)).committed
    assert by_bob(two, tmp_path, two.keys.rotate("ann", needs={"revocation/1": 2})).committed
    old = two.lab.desk.workspace.keys.public_of("process/audit/audit")
    assert old
    assert by_bob(two, tmp_path, two.keys.rotate("ann", "process/audit/audit")).committed
    signed = two.keys.revoke(old, "ann", "stolen", two.position + 5)
    assert not signed.committed
    for number in range(3):
        two.policy(f"meanwhile {number}")
    assert by_bob(two, tmp_path, signed).committed
    assert two.lab.verify().ok


def test_a_root_key_is_never_revoked_by_a_policy_key(house: House) -> None:
    with refused("authority.revocation-root"):
        house.keys.revoke(ROOT_KEY, "ann", "a policy key was stolen")


def test_a_record_and_an_unknown_thing_are_told_apart_when_revoked(house: House) -> None:
    policy = next(d for d, _ in house.lab.desk.all(Policy))
    signed = house.keys.revoke(policy, "ann", "superseded")
    assert signed.committed and signed.record.references() == (policy,)
    with pytest.raises(UsageError):
        house.keys.revoke("nothing-of-that-name", "ann", "")


def test_the_public_half_handed_over_has_to_be_a_key(house: House) -> None:
    for public in ("", "ab", "Z" * 64):
        with pytest.raises(UsageError, match="64 hex digits"):
            house.keys.new("bob", ["policy/1"], "ann", public)
    with refused("authority.key-weak"):
        house.keys.new("bob", ["policy/1"], "ann", "01" + "00" * 31)
    assert isinstance(house.lab.desk.workspace.keys.find(house.root, Zone.POLICY, "policy/1"), SigningKey)
    assert digest(house.root) == house.lab.desk.entries()[0].record
