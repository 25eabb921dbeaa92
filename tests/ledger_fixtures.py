"""One ledger of 200 entries that all tests here share, and a verifier that remembers which lines it has seen."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pytest

from lab_fixtures import Place
from studbook.lab import Lab
from studbook.ledger.chain import Chain, FindEnvelope, open_line
from studbook.ledger.note import audit_keys
from studbook.records import LedgerEntry, Policy, Root, replace
from studbook.seal import Authority, KeyRing, SigningKey
from studbook.workspace import Accession, Workspace

ENTRIES = 200


@lru_cache(maxsize=1 << 16)
def opened(line: bytes, root: Root, position: int) -> LedgerEntry:
    return open_line(line, Authority(root, (), position), "line")


def once(line: bytes, authority: Authority, _where: str) -> LedgerEntry:
    """`open_line`, which gives the same answer for the same line under the same authority, asked once."""
    assert not authority.revocations
    return opened(line, authority.root, authority.position)


class Long(NamedTuple):
    """A long ledger.

    Attributes:
        place: Its lab.
        data: The bytes of its file.
        lines: Its lines, without newlines.
        checkpoint: Its checkpoint.
        root: Its root of keys.
        key: Its audit key.
        find: Gives its root's envelope.
    """

    place: Place
    data: bytes
    lines: list[bytes]
    checkpoint: bytes
    root: Root
    key: SigningKey
    find: FindEnvelope

    def chain(self) -> Chain:
        """An empty chain."""
        return Chain("ledger", self.find, once)

    def prefix(self, count: int) -> Chain:
        """A chain of the first lines."""
        chain = self.chain()
        for line in self.lines[:count]:
            chain.accept(line)
        return chain


def find_in(place: Place) -> FindEnvelope:
    def find(entry: LedgerEntry) -> tuple[bytes, Path]:
        path = place.path / entry.record_zone / entry.record_kind.replace("/", "-") / f"{entry.record}.json"
        return path.read_bytes(), path

    return find


def key_of(place: Place, root: Root) -> SigningKey:
    return KeyRing(place.keys).held(audit_keys(root))[0]


@pytest.fixture
def young(tmp_path: Path) -> Place:
    """A new lab of two entries."""
    place = Place(tmp_path / "lab", tmp_path / "keys")
    Lab.init(place.path, "ann", place.keys)
    return place


@pytest.fixture(scope="session")
def long(tmp_path_factory: pytest.TempPathFactory) -> Long:
    folder = tmp_path_factory.mktemp("long")
    place = Place(folder / "lab", folder / "keys")
    Lab.init(place.path, "ann", place.keys)
    workspace = Workspace(place.path, KeyRing(place.keys), writer=True)
    _, policy = next(workspace.all(Policy))
    workspace.commit_all([Accession(replace(policy, notes=f"note {n}")) for n in range(ENTRIES - 2)])
    workspace.close()
    data = (place.path / "audit" / "ledger.jsonl").read_bytes()
    checkpoint = (place.path / "audit" / "checkpoint").read_bytes()
    root = workspace.root
    return Long(place, data, data[:-1].split(b"\n"), checkpoint, root, key_of(place, root), find_in(place))
