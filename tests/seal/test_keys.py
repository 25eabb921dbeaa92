"""Key files: a folder a zone, private, opened only when needed, locked with a passphrase if wanted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from authority_fixtures import KEYS, ROOT, refused, revocation
from studbook.errors import NotAuthorised
from studbook.files import make_folder, read_file
from studbook.records import KeyGrant, OwnerKey, Owners, RevokedSubject, Root, SuitesLock, Zone, replace
from studbook.seal import Authority, KeyRing, SigningKey, read_passphrase
from studbook.seal import keys as keys_module

FOREIGN = KEYS["foreign"]


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return KeyRing(tmp_path / "keys")


def root_for(key: SigningKey, owner: str = "ann") -> Root:
    allowed = KeyGrant(key=key.public, owner=owner, holder="person", zone=Zone.POLICY, kinds=("suites-lock/1",))
    return replace(ROOT, keys=(allowed,))


def test_a_new_key_is_private_and_found_again(ring: KeyRing) -> None:
    key = ring.create("people/policy/policy")
    assert (ring.folder / "people" / "policy" / "policy.pem").stat().st_mode & 0o777 == 0o600
    assert ring.find(root_for(key), Zone.POLICY, SuitesLock.kind()).public == key.public
    with pytest.raises(NotAuthorised, match="exists already"):
        ring.create("people/policy/policy")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o666, 0o610])
def test_a_key_file_that_others_can_reach_is_refused(ring: KeyRing, mode: int) -> None:
    key = ring.create("people/policy/policy")
    path = ring.folder / "people" / "policy" / "policy.pem"
    path.chmod(mode)
    with pytest.raises(NotAuthorised) as caught:
        ring.find(root_for(key), Zone.POLICY, SuitesLock.kind())
    assert caught.value.where == str(path)
    assert caught.value.advice == f"chmod 600 {path}"


def test_a_key_file_that_is_a_link_is_refused(ring: KeyRing, tmp_path: Path) -> None:
    key = ring.create("people/policy/policy")
    path = ring.folder / "people" / "policy" / "policy.pem"
    path.rename(tmp_path / "away.pem")
    path.symlink_to(tmp_path / "away.pem")
    with pytest.raises(NotAuthorised):
        ring.find(root_for(key), Zone.POLICY, SuitesLock.kind())


def test_the_public_key_lies_beside_the_private_one(ring: KeyRing) -> None:
    key = ring.create("people/policy/policy")
    public = ring.folder / "people" / "policy" / "policy.pub"
    assert public.read_bytes() == f"{key.public}\n".encode()
    assert public.stat().st_mode & 0o777 == 0o444


def test_only_the_key_that_is_needed_is_opened(ring: KeyRing, monkeypatch: pytest.MonkeyPatch) -> None:
    ring.create("people/policy/policy")
    (ring.folder / "people" / "policy" / "policy.pem").chmod(0o644)
    needed = ring.create("process/audit/audit")
    ring.create("process/audit/zebra")
    opened: list[str] = []

    def watched(path: Path, limit: int) -> bytes:
        opened.append(path.name)
        return read_file(path, limit)

    monkeypatch.setattr(keys_module, "read_file", watched)
    assert ring.find(root_for(needed), Zone.POLICY, SuitesLock.kind()).public == needed.public
    assert [name for name in opened if name.endswith(".pem")] == ["audit.pem"]


def test_no_key_is_opened_for_what_nobody_may_sign(ring: KeyRing) -> None:
    key = ring.create("people/policy/policy")
    (ring.folder / "people" / "policy" / "policy.pem").write_bytes(b"not a key")
    with pytest.raises(NotAuthorised) as caught:
        ring.find(root_for(key), Zone.POLICY, "policy/1")
    assert caught.value.reason == "authority.key-missing"


@pytest.mark.parametrize("content", [None, b"", b"zz", b"a" * 64, b"A" * 64 + b"\n", b"\xff" * 65, b"a" * 9000])
def test_a_key_without_a_readable_public_file_is_opened_last(ring: KeyRing, content: bytes | None) -> None:
    key = ring.create("people/policy/policy")
    public = ring.folder / "people" / "policy" / "policy.pub"
    public.unlink()
    if content is not None:
        public.write_bytes(content)
    assert ring.find(root_for(key), Zone.POLICY, SuitesLock.kind()).public == key.public
    other = ring.create("process/audit/other")
    (ring.folder / "people" / "policy" / "policy.pem").chmod(0o644)
    assert ring.find(root_for(other), Zone.POLICY, SuitesLock.kind()).public == other.public


def test_a_key_that_is_not_what_its_public_file_says_is_refused(ring: KeyRing) -> None:
    key, other = ring.create("people/policy/policy"), ring.create("people/policy/zebra")
    (ring.folder / "people" / "policy" / "zebra.pub").unlink()
    (ring.folder / "people" / "policy" / "zebra.pub").write_text(f"{key.public}\n")
    (ring.folder / "people" / "policy" / "policy.pem").unlink()
    with pytest.raises(NotAuthorised, match="not the key that its public file says") as caught:
        ring.find(root_for(key), Zone.POLICY, SuitesLock.kind())
    assert caught.value.where == str(ring.folder / "people" / "policy" / "zebra.pem")
    assert other.public != key.public


def test_a_key_is_never_made_beside_the_public_half_of_another(ring: KeyRing) -> None:
    ring.create("people/policy/policy")
    (ring.folder / "people" / "policy" / "policy.pem").unlink()
    with pytest.raises(NotAuthorised, match="exists already"):
        ring.create("people/policy/policy")


def test_a_foreign_key_does_not_count(ring: KeyRing) -> None:
    ring.create("people/policy/policy")
    with pytest.raises(NotAuthorised) as caught:
        ring.find(root_for(FOREIGN), Zone.POLICY, SuitesLock.kind())
    assert caught.value.reason == "authority.key-missing"


def test_another_persons_key_does_not_count(ring: KeyRing) -> None:
    key = ring.create("people/policy/policy")
    with pytest.raises(NotAuthorised, match="of bob"):
        ring.find(root_for(key), Zone.POLICY, SuitesLock.kind(), "bob")


def test_a_file_that_is_no_ed25519_key_is_refused(ring: KeyRing) -> None:
    path = ring.folder / "people" / "policy" / "policy.pem"
    make_folder(path.parent, 0o700)
    other = generate_private_key(SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for content in (b"not a key", other):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(NotAuthorised) as caught:
            ring.find(root_for(FOREIGN), Zone.POLICY, SuitesLock.kind())
        assert caught.value.where == str(path)


# -- folders, links, passphrases, revoked keys ---------------------------------------------------------------------


@pytest.mark.parametrize("depth", ["people", "people/policy"])
@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o777])
def test_a_folder_of_keys_that_others_can_reach_is_refused(ring: KeyRing, depth: str, mode: int) -> None:
    key = ring.create("people/policy/policy")
    (ring.folder / depth).chmod(mode)
    with refused("authority.key-mode") as caught:
        ring.find(root_for(key), Zone.POLICY, SuitesLock.kind())
    assert caught.value.where == str(ring.folder / depth)
    assert caught.value.advice == f"chmod 700 {ring.folder / depth}"


def test_a_folder_of_keys_that_is_a_link_is_refused(ring: KeyRing, tmp_path: Path) -> None:
    key = ring.create("people/policy/policy")
    (ring.folder / "people" / "policy").rename(tmp_path / "away")
    (ring.folder / "people" / "policy").symlink_to(tmp_path / "away", target_is_directory=True)
    with refused("authority.key-link"):
        ring.find(root_for(key), Zone.POLICY, SuitesLock.kind())


def test_a_key_file_that_is_a_fifo_is_refused_and_not_waited_for(ring: KeyRing) -> None:
    key = ring.create("people/policy/policy")
    path = ring.folder / "people" / "policy" / "policy.pem"
    path.unlink()
    os.mkfifo(path, 0o600)
    with refused("authority.key-link"):
        ring.find(root_for(key), Zone.POLICY, SuitesLock.kind())


def test_new_folders_are_private_one_for_each_zone(ring: KeyRing) -> None:
    ring.create("people/policy/root")
    ring.create("process/audit/audit")
    folders = [p for p in ring.folder.rglob("*") if p.is_dir()]
    assert {p.relative_to(ring.folder).as_posix() for p in folders} == {
        "people", "people/policy", "process", "process/audit",
    }  # fmt: skip
    assert {p.stat().st_mode & 0o777 for p in folders} == {0o700}


def test_an_encrypted_key_is_opened_with_its_passphrase_which_is_asked_once(ring: KeyRing) -> None:
    key = ring.create("people/policy/policy", b"correct horse")
    asked: list[Path] = []

    def told(path: Path) -> bytes:
        asked.append(path)
        return b"correct horse"

    again = KeyRing(ring.folder, told)
    for _ in range(3):
        assert again.find(root_for(key), Zone.POLICY, SuitesLock.kind()).public == key.public
    assert asked == [ring.folder / "people" / "policy" / "policy.pem"]
    assert b"ENCRYPTED" in asked[0].read_bytes()


@pytest.mark.parametrize("word", [None, b"wrong", b"", b"correct horse "])
def test_an_encrypted_key_stays_closed_without_its_passphrase(ring: KeyRing, word: bytes | None) -> None:
    key = ring.create("people/policy/policy", b"correct horse")
    again = KeyRing(ring.folder, None if word is None else lambda _path: word)
    with refused("authority.passphrase") as caught:
        again.find(root_for(key), Zone.POLICY, SuitesLock.kind())
    assert caught.value.where.endswith("policy.pem")
    # A slip can be mended: the next try asks again.
    again.passphrase = lambda _path: b"correct horse"
    assert again.find(root_for(key), Zone.POLICY, SuitesLock.kind()).public == key.public


def test_nobody_is_asked_for_a_passphrase_of_a_key_that_is_not_needed(ring: KeyRing) -> None:
    ring.create("people/policy/locked", b"correct horse")
    needed = ring.create("people/policy/policy")

    def told(path: Path) -> bytes:
        raise AssertionError(path)

    ring.passphrase = told
    assert ring.find(root_for(needed), Zone.POLICY, SuitesLock.kind()).public == needed.public


def test_a_passphrase_file_holds_it_in_its_first_line(tmp_path: Path) -> None:
    path = tmp_path / "passphrase"
    for content in (b"correct horse", b"correct horse\n", b"correct horse\r\nnever mind\n"):
        path.write_bytes(content)
        path.chmod(0o600)
        assert read_passphrase(path) == b"correct horse"


def test_a_passphrase_file_that_is_empty_open_a_link_or_missing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "passphrase"
    with refused("authority.key-missing"):
        read_passphrase(path)
    path.write_bytes(b"\nsecond line\n")
    path.chmod(0o640)
    with refused("authority.key-mode"):
        read_passphrase(path)
    path.chmod(0o600)
    with refused("authority.passphrase"):
        read_passphrase(path)
    (tmp_path / "link").symlink_to(path)
    with refused("authority.key-link"):
        read_passphrase(tmp_path / "link")


def test_a_revoked_key_is_not_chosen_where_another_is_in_force(ring: KeyRing) -> None:
    stolen, kept = ring.create("people/policy/a"), ring.create("people/policy/b")
    root = replace(ROOT, keys=tuple(root_for(key).keys[0] for key in (stolen, kept)))
    gone = replace(revocation("foreign", 5), subject=subject_of(stolen))
    for position, wanted in ((4, stolen), (5, kept), (6, kept)):
        found = ring.find(Authority(root, (gone,), position), Zone.POLICY, SuitesLock.kind())
        assert found.public == wanted.public


def subject_of(key: SigningKey) -> RevokedSubject:
    return RevokedSubject(type="key", digest=key.public)


def test_a_root_is_signed_with_a_root_key_and_nothing_else_is(ring: KeyRing) -> None:
    key = ring.create("people/policy/root")
    root = replace(ROOT, owners=Owners(keys=(OwnerKey(key=key.public, owner="ann"),), threshold=1))
    assert ring.find(root, Zone.POLICY, Root.kind()).public == key.public
    assert ring.find(root, Zone.POLICY, Root.kind(), "ann").public == key.public
    for kind, owner in ((Root.kind(), "bob"), (SuitesLock.kind(), None)):
        with refused("authority.key-missing"):
            ring.find(root, Zone.POLICY, kind, owner)


def test_keys_have_names_in_the_ring(ring: KeyRing) -> None:
    key = ring.create("people/policy/root")
    assert ring.name_of(key.public) == "people/policy/root"
    assert ring.public_of("people/policy/root") == key.public
    assert ring.name_of(FOREIGN.public) is None
    assert ring.public_of("people/policy/none") is None
