"""Who may ask: keys of clients, and which names the server answers to.

A key is 256 random bits, so its SHA-256 may lie in a file: one line a key, ``NAME SHA256``. Without a key file only this
machine can ask, and only under a name that means this machine: a page in a browser that was lured here has another.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from studbook.errors import NotAuthorised, UsageError
from studbook.files import read_file, replace_file

__all__ = ["Access", "is_loopback", "new_key"]

_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63}) ([0-9a-f]{64})")
_LIMIT: Final = 1 << 20
_PREFIX = "sb-"


class Access:
    """Whether a request may be answered.

    Args:
        host: The address the server listens at.
        keys: The file of keys; None for none.

    Raises:
        NotAuthorised: if the address can be reached from other machines and there is no key, or the file is not private.
        UsageError: if the file is not what it should be.
    """

    def __init__(self, host: str, keys: Path | None) -> None:
        self._keys = _read(keys) if keys is not None else {}
        if not self._keys and (keys is not None or not is_loopback(host)):
            advice = "Make a key: studbook server key FILE NAME, and name the file with --api-keys."
            raise NotAuthorised(f"{host} needs keys of clients, and there are none", reason="serve.keys", advice=advice)

    def check(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Look at the head of a request.

        Args:
            headers: Its fields, names in lower case.

        Raises:
            NotAuthorised: if it has no key that is listed; ``serve.key``.
            UsageError: if there are no keys and it asks for another machine than this; ``serve.host``.
        """
        if self._keys:
            return self._check_key([value for name, value in headers if name == b"authorization"])
        hosts = [value for name, value in headers if name == b"host"]
        if not all(is_loopback(_name(host)) for host in hosts):
            advice = "Ask for localhost; a server without keys answers to no other name."
            raise UsageError("asks for another machine", where="Host", reason="serve.host", advice=advice)
        return None

    def _check_key(self, given: Sequence[bytes]) -> None:
        scheme, _, key = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        digest = hashlib.sha256(key.strip()).hexdigest()
        # All of them are compared, so that time tells nothing.
        found = [hmac.compare_digest(digest, listed) for listed in self._keys.values()]
        if scheme.lower() != b"bearer" or not any(found):
            advice = "Send `Authorization: Bearer KEY` with a key of this server."
            raise NotAuthorised("the request has no key that is listed here", reason="serve.key", advice=advice)


def new_key(path: Path, name: str) -> str:
    """Make a key for a client and add it to the file; the key itself is returned and kept nowhere.

    Args:
        path: The file, new or not.
        name: Who the key is for.

    Raises:
        UsageError: if the name is none, or has a key.
    """
    held = _read(path) if path.exists() else {}
    line = f"{name} {'0' * 64}"
    if not _LINE.fullmatch(line) or name in held:
        advice = "Use letters, digits, dots, hyphens and underscores; take the old line out to replace a key."
        raise UsageError("has a key already" if name in held else "is no name for a key", where=name, advice=advice)
    key = _PREFIX + secrets.token_urlsafe(32)
    held[name] = hashlib.sha256(key.encode()).hexdigest()
    replace_file(path, "".join(f"{k} {v}\n" for k, v in held.items()).encode(), 0o600)
    return key


def is_loopback(host: str) -> bool:
    """Whether an address or name means this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _name(host: bytes) -> str:
    """The name in a ``Host`` field, without its port."""
    found = re.fullmatch(rb"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::[0-9]+)?", host.strip())
    return (found[1] or found[2]).decode("latin-1") if found else ""


def _read(path: Path) -> dict[str, str]:
    text = read_file(path, _LIMIT).decode("ascii", "replace")
    if path.stat().st_mode & 0o022:
        raise NotAuthorised("others may write to it", where=path, reason="serve.keys", advice=f"chmod 600 {path}")
    rows = [_LINE.fullmatch(line) for line in text.splitlines()]
    found: Mapping[str, str] = {row[1]: row[2] for row in rows if row}
    if len(found) != len(rows):
        advice = "One line a key: NAME SHA256; `studbook server key FILE NAME` writes them."
        raise UsageError("has a line that is no key, or a name twice", where=path, advice=advice, reason="serve.keys")
    return dict(found)
