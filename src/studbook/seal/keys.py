"""Key files: one Ed25519 key a file, a folder a zone, readable by its owner alone, opened only when it is needed."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Collection
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from studbook.errors import NotAuthorised, StudbookError
from studbook.files import make_folder, read_file, sync_folder, write_new
from studbook.records import Root, Zone
from studbook.seal.authority import Authority, keys_in_force

__all__ = ["KeyRing", "Passphrase", "SigningKey", "read_passphrase"]

# Asked for the passphrase of one encrypted key file.
Passphrase = Callable[[Path], bytes]
_KEY_BYTES = 4096
_PASSPHRASE_BYTES = 1024
_PUBLIC = ".pub"
# Holder, zone, name.
_FILES = "*/*/*.pem"
_ENCRYPTED = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"


class SigningKey:
    """An Ed25519 private key; its public bytes, in hex, are its name."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        raw = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.public = raw.hex()

    def sign(self, data: bytes) -> bytes:
        """The 64-byte signature of ``data``; deterministic (RFC 8032)."""
        return self._private.sign(data)


class KeyRing:
    """A folder of private keys, ``holder/zone/name.pem``; the public key lies beside each.

    A private key is opened only when it is the one that is needed: nobody else's is read on the way.

    Args:
        folder: Where the keys lie; never inside the lab.
        passphrase: Asked for the passphrase of an encrypted key file, once a file.
    """

    def __init__(self, folder: Path, passphrase: Passphrase | None = None) -> None:
        self.folder = folder
        self.passphrase = passphrase
        self._told: dict[Path, bytes] = {}
        # Where `held` saw a public key last; only for `find`, which looks again where one of them is gone.
        self._seen: dict[str, Path] = {}
        # Keys by the SHA-256 of their file: modes and bytes are looked at every time, PEM is parsed once.
        self._parsed: dict[bytes, SigningKey] = {}

    def create(self, name: str, passphrase: bytes | None = None) -> SigningKey:
        """Make a new key file (PKCS 8, PEM, mode 0600) and its public key (64 hex digits and a newline, mode 0444).

        Args:
            name: Path inside the ring: holder, zone and name, such as ``people/policy/root``.
            passphrase: The file is encrypted with it, if given and not empty.

        Raises:
            NotAuthorised: if a key of that name exists.
        """
        path = self.folder / f"{name}.pem"
        if path.exists() or path.with_suffix(_PUBLIC).exists():
            raise NotAuthorised(
                "this key exists already",
                where=path,
                advice="Choose another name, or another folder for the keys.",
                reason="authority.key-exists",
            )
        self._seen.clear()
        make_folder(path.parent, mode=0o700)
        private = Ed25519PrivateKey.generate()
        secret: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase:
            secret = serialization.BestAvailableEncryption(passphrase)
        encoding = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret
        key = SigningKey(private)
        write_new(path, private.private_bytes(*encoding), mode=0o600)
        write_new(path.with_suffix(_PUBLIC), f"{key.public}\n".encode())
        sync_folder(path.parent)
        return key

    def find(self, root: Root | Authority, zone: str, kind: str, owner: str | None = None) -> SigningKey:
        """The first key in the ring that the root lets sign this kind of record in this zone.

        Args:
            root: The root of keys in force, or the authority at a position; then no revoked key is chosen.
            zone: Zone of the record.
            kind: Kind of the record; a root is signed by a root key.
            owner: Only keys of this owner, if given.

        Raises:
            NotAuthorised: if there is none, its file or folder is open to others, it cannot be decrypted, or it is not
                the key that its public file says.
        """
        grants = root.keys if isinstance(root, Root) else keys_in_force(root.root, root.revocations, root.position)
        root = root if isinstance(root, Root) else root.root
        allowed = {g.key for g in grants if g.zone == zone and kind in g.kinds and owner in (None, g.owner)}
        if (zone, kind) == (Zone.POLICY, Root.kind()):
            allowed |= {k.key for k in root.owners.keys if owner in (None, k.owner)}
        seen = sorted((self._seen[key], key) for key in allowed if key in self._seen)
        if seen and seen[0][0].is_file() and self._public(seen[0][0]) == seen[0][1]:
            return self._load(*seen[0])
        found = self.held(allowed, most=1)
        if found:
            return found[0]
        holder = f" of {owner}" if owner else ""
        raise NotAuthorised(
            f"no key{holder} here may sign {kind} in zone {zone}",
            where=self.folder,
            advice="Name the folder that holds the key with --keys, or ask its owner to do this step.",
            reason="authority.key-missing",
        )

    def held(self, keys: Collection[str], most: int = 1 << 20) -> list[SigningKey]:
        """The private keys in this ring of some public keys, in the order of their paths.

        Args:
            keys: Public keys, 64 hex digits each.
            most: Stop when that many are found, so that no file is opened without need.

        Raises:
            NotAuthorised: as `find`, except that finding none is no error.
        """
        public = {path: self._public(path) for path in sorted(self.folder.glob(_FILES))} if keys else {}
        self._seen |= {name: path for path, name in reversed(public.items()) if name}
        known = [(path, name) for path, name in public.items() if name in keys][:most]
        found = [self._load(path, name) for path, name in known]
        # A key without its public file has to be opened to know whose it is; last, so that it is rarely done.
        for path in [path for path, name in public.items() if name is None]:
            if len(found) < most and (key := self._load(path)).public in keys:
                found.append(key)
        return found

    def name_of(self, key: str) -> str | None:
        """Path inside the ring, such as ``people/policy/root``, of a public key (64 hex digits) that lies here."""
        for path in sorted(self.folder.glob(_FILES)):
            if self._public(path) == key:
                return path.relative_to(self.folder).with_suffix("").as_posix()
        return None

    def public_of(self, name: str) -> str | None:
        """The public key, 64 hex digits, in the public file of a path inside the ring; None if there is none."""
        return self._public(self.folder / f"{name}.pem")

    def _public(self, path: Path) -> str | None:
        try:
            text = read_file(path.with_suffix(_PUBLIC), _KEY_BYTES).decode("ascii", "replace")
        except StudbookError:
            return None
        return text[:-1] if re.fullmatch(r"[0-9a-f]{64}\n", text) else None

    def _load(self, path: Path, public: str | None = None) -> SigningKey:
        for folder in path.parents[: len(path.relative_to(self.folder).parts) - 1]:
            _check_private(folder, stat.S_ISDIR, "the folder of keys", "700")
        _check_private(path, stat.S_ISREG, "the key file", "600")
        data = read_file(path, _KEY_BYTES)
        key = self._parsed.get(name := sha256(data).digest()) or self._parse(path, data)
        self._parsed[name] = key
        if public not in (None, key.public):
            advice = f"Restore the key, or delete {path.with_suffix(_PUBLIC)} if the key is the right one."
            text = "is not the key that its public file says"
            raise NotAuthorised(text, where=path, advice=advice, reason="authority.key-public")
        return key

    def _parse(self, path: Path, data: bytes) -> SigningKey:
        secret = self._secret(path) if data.startswith(_ENCRYPTED) else None
        try:
            private = serialization.load_pem_private_key(data, password=secret)
        except (ValueError, TypeError) as error:
            self._told.pop(path, None)
            if secret is not None:
                raise _locked(path, "cannot be decrypted with this passphrase") from error
            raise NotAuthorised("not a private key in PEM form", where=path, reason="authority.key-form") from error
        if not isinstance(private, Ed25519PrivateKey):
            raise NotAuthorised("not an Ed25519 key", where=path, reason="authority.key-form")
        return SigningKey(private)

    def _secret(self, path: Path) -> bytes:
        if path not in self._told:
            if self.passphrase is None:
                raise _locked(path, "is encrypted, and no passphrase was given")
            self._told[path] = self.passphrase(path)
        return self._told[path]


def read_passphrase(path: Path) -> bytes:
    """The passphrase in a file: its first line, without the end of line.

    Raises:
        NotAuthorised: if the file is open to others, a link, or its first line is empty.
    """
    _check_private(path, stat.S_ISREG, "the passphrase file", "600")
    line = read_file(path, _PASSPHRASE_BYTES).partition(b"\n")[0].rstrip(b"\r")
    if not line:
        raise _locked(path, "holds no passphrase in its first line")
    return line


def _check_private(path: Path, kind: Callable[[int], bool], what: str, wanted: str) -> None:
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        advice = "Name a file that is there."
        text = f"{what} is not there"
        raise NotAuthorised(text, where=path, advice=advice, reason="authority.key-missing") from error
    if not kind(mode):
        text, advice = f"{what} is a link, or something else", "Put the thing itself there, not a link to it."
        raise NotAuthorised(text, where=path, advice=advice, reason="authority.key-link")
    if mode & 0o077:
        advice = f"chmod {wanted} {path}"
        raise NotAuthorised(f"{what} is open to others", where=path, advice=advice, reason="authority.key-mode")


def _locked(path: Path, text: str) -> NotAuthorised:
    advice = "Type its passphrase, or name the file that holds it with --passphrase-file."
    return NotAuthorised(text, where=path, advice=advice, reason="authority.passphrase")
