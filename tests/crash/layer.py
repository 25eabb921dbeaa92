"""A disk that forgets: what a power cut may leave of everything that was written below a folder.

`Recorder` watches a folder while the program runs: before and after every call that renames, removes, makes or syncs,
the folder is compared with what it was, so it does not matter who wrote and how (this process, a worker, a library).
`Log.states` then gives the contents that a power cut at a moment may leave. The rules are those of POSIX, and no file
system's favours: bytes of a file are safe after an fsync of the file, names in a folder after an fsync of the folder;
what is not safe is there, or missing, or garbage of the same or of half the length, each piece by itself and in any
order. A rename is one step: it is safe once its target folder is. (Pillai et al., OSDI 2014, "All File Systems Are Not
Created Equal", calls the same rules an abstract persistence model.)
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from studbook import files

__all__ = [
    "Data",
    "Done",
    "Link",
    "Log",
    "Move",
    "Recorder",
    "State",
    "Sync",
    "Unlink",
    "fingerprint",
    "moments",
    "write_state",
]

_CALLS = (
    "fsync",
    "fdatasync",
    "rename",
    "replace",
    "unlink",
    "remove",
    "rmdir",
    "mkdir",
    "ftruncate",
    "truncate",
    "link",
)
_LOST, _KEPT, _ZEROED, _TORN, _TAIL = "lost", "kept", "zeroed", "torn", "tail"


class Link(NamedTuple):
    """A name for a file or folder appeared."""

    parent: int
    name: str
    node: int


class Unlink(NamedTuple):
    """A name went."""

    parent: int
    name: str
    node: int


class Move(NamedTuple):
    """A name became another one, in one step."""

    old_parent: int
    old_name: str
    parent: int
    name: str
    node: int


class Data(NamedTuple):
    """A file's content became another one."""

    node: int
    content: bytes


class Sync(NamedTuple):
    """A file's bytes, or a folder's names, are safe."""

    node: int


class Done(NamedTuple):
    """Something was acknowledged."""

    what: str


Event = Link | Unlink | Move | Data | Sync | Done
# Relative path -> content and mode; folders end with a slash.
State = dict[str, tuple[bytes, int]]


@dataclass
class Log:
    """What happened below a folder.

    Attributes:
        events: In order.
        folders: Numbers of the nodes that are folders.
        modes: Permissions of files and folders; a change of them counts as safe at once.
        links: Numbers of the nodes that are symbolic links, with their targets: what a link says is there with its name.
    """

    events: list[Event] = field(default_factory=list)
    folders: set[int] = field(default_factory=lambda: {0})
    modes: dict[int, int] = field(default_factory=dict)
    links: dict[int, bytes] = field(default_factory=dict)

    def done(self, until: int) -> list[str]:
        """What was acknowledged in the first events."""
        return [event.what for event in self.events[:until] if isinstance(event, Done)]

    def states(self, until: int, random: Random, samples: int = 0) -> Iterator[tuple[str, State]]:
        """What a power cut after the first ``until`` events may leave, and in words why.

        Args:
            until: How many events there were.
            random: Chooses mixtures.
            samples: How many mixtures of what is not safe, besides each piece lost or kept by itself.
        """
        pending = self._pending(until)
        names = [i for i in pending if not isinstance(self.events[i], Data)]
        data = [i for i in pending if isinstance(self.events[i], Data)]
        yield "everything there", self._apply(until, {})
        yield "only what was safe", self._apply(until, dict.fromkeys(pending, _LOST))
        for how in (_LOST, _ZEROED, _TORN, _TAIL) if data else ():
            yield f"names there, bytes {how}", self._apply(until, dict.fromkeys(data, how))
        if names and data:
            yield "bytes there, names lost", self._apply(until, dict.fromkeys(names, _LOST))
        for one in pending if len(pending) > 1 else ():
            yield f"lost: {self._words(one)}", self._apply(until, {one: _LOST})
            yield f"only: {self._words(one)}", self._apply(until, {i: _LOST for i in pending if i != one})
        for _ in range(samples if len(pending) > 2 else 0):
            ways = {i: random.choice((_KEPT, _LOST)) for i in names}
            ways |= {i: random.choice((_KEPT, _LOST, _ZEROED, _TORN, _TAIL)) for i in data}
            yield f"a mixture of {len(pending)}", self._apply(until, ways)

    def _words(self, index: int) -> str:
        event = self.events[index]
        return f"{type(event).__name__} {getattr(event, 'name', '')}".strip()

    def _pending(self, until: int) -> list[int]:
        synced: set[int] = set()
        found = []
        for index in range(until - 1, -1, -1):
            event = self.events[index]
            if isinstance(event, Sync):
                synced.add(event.node)
            elif not isinstance(event, Done):
                safe = event.node if isinstance(event, Data) else event.parent
                if safe not in synced:
                    found.append(index)
        return found[::-1]

    def _apply(self, until: int, ways: dict[int, str]) -> State:
        """The tree after some events, of which some went another way."""
        entries: dict[int, dict[str, int]] = {}
        content: dict[int, bytes] = {}
        for index, event in enumerate(self.events[:until]):
            way = ways.get(index, _KEPT)
            if isinstance(event, Data):
                content[event.node] = _left(content.get(event.node, b""), event.content, way)
            elif isinstance(event, Sync | Done) or way == _LOST:
                continue
            elif isinstance(event, Link):
                entries.setdefault(event.parent, {})[event.name] = event.node
            else:
                parent, name = (event.old_parent, event.old_name) if isinstance(event, Move) else event[:2]
                if entries.get(parent, {}).get(name) == event.node:
                    del entries[parent][name]
                if isinstance(event, Move):
                    entries.setdefault(event.parent, {})[event.name] = event.node
        state: State = {}
        self._collect(0, "", entries, content, state)
        return state

    def _collect(
        self, node: int, path: str, entries: dict[int, dict[str, int]], content: dict[int, bytes], state: State
    ) -> None:
        for name, child in entries.get(node, {}).items():
            if child in self.folders:
                state[f"{path}{name}/"] = b"", self.modes[child]
                self._collect(child, f"{path}{name}/", entries, content, state)
            else:
                state[path + name] = self.links.get(child, content.get(child, b"")), self.modes[child]


def _left(before: bytes, after: bytes, way: str) -> bytes:
    """A file's content after a write that went some way; bytes that did not change stay."""
    if way == _KEPT:
        return after
    if way == _LOST:
        return before
    same = next(
        (i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after))
    )
    if way == _ZEROED:
        return after[:same] + bytes(len(after) - same)
    middle = same + (len(after) - same) // 2
    if way == _TORN:
        return after[:middle]
    return after[:same] + bytes(middle - same) + after[middle:]


class Recorder:
    """Watches a folder from ``with`` to the end of it.

    Args:
        folder: The folder; what lies there at the beginning is safe.

    Attributes:
        log: What happened.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, Log()
        # What the folder was when it was last looked at: inode -> number, place -> number, and what tells a change.
        self._nodes: dict[int, int] = {folder.stat().st_ino: 0}
        self._places: dict[tuple[int, str], int] = {}
        self._seen: dict[int, tuple[int, int]] = {}
        self._content: dict[int, bytes] = {}
        self._count = 1
        self._plain: dict[str, Callable[..., Any]] = {}
        self._look()
        self.log.events += [Sync(node) for node in range(self._count)]

    def __enter__(self) -> Recorder:
        for name in _CALLS:
            self._plain[name] = getattr(os, name)
            setattr(os, name, self._watched(name))
        self._boundary = files.boundary
        files.boundary = lambda _step: self._look()
        return self

    def __exit__(self, *_: object) -> None:
        files.boundary = self._boundary
        for name, plain in self._plain.items():
            setattr(os, name, plain)
        self._look()

    def done(self, what: str) -> None:
        """Write down that something was acknowledged."""
        self._look()
        self.log.events.append(Done(what))

    def _watched(self, name: str) -> Callable[..., Any]:
        plain = self._plain[name]

        def call(*arguments: Any, **named: Any) -> Any:
            self._look()
            result = plain(*arguments, **named)
            if name in ("fsync", "fdatasync"):
                inode = os.fstat(arguments[0]).st_ino
                if inode in self._nodes:
                    self.log.events.append(Sync(self._nodes[inode]))
            self._look()
            return result

        return call

    def _look(self) -> None:
        """Compare the folder with what it was, and write down what changed."""
        found: dict[tuple[int, str], int] = {}
        fresh: list[tuple[int, Path]] = []
        self._walk(self.folder, 0, found, fresh)
        self._places, before = found, self._places
        gone = {place: node for place, node in before.items() if place not in found}
        # What another one was moved or linked over went in that one step.
        for place, node in found.items():
            if before.get(place) == node:
                continue
            old = next((place for place, was in gone.items() if was == node), None)
            if old is None:
                self.log.events.append(Link(*place, node))
            else:
                del gone[old]
                self.log.events.append(Move(*old, *place, node))
        self.log.events += [Unlink(*place, node) for place, node in gone.items()]
        self._forget(set(before.values()) - set(found.values()))
        for node, path in fresh:
            data = path.read_bytes()
            if self._content.get(node, b"") != data:
                self.log.events.append(Data(node, data))
                self._content[node] = data

    def _forget(self, nodes: set[int]) -> None:
        if nodes:
            self._nodes = {inode: node for inode, node in self._nodes.items() if node not in nodes}

    def _walk(
        self,
        folder: Path,
        parent: int,
        found: dict[tuple[int, str], int],
        fresh: list[tuple[int, Path]],
    ) -> None:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                status = entry.stat(follow_symlinks=False)
                link = stat.S_ISLNK(status.st_mode)
                if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) or link):
                    continue
                node = self._nodes.get(status.st_ino)
                if node is None:
                    node = self._nodes[status.st_ino] = self._count
                    self._count += 1
                found[parent, entry.name] = node
                self.log.modes[node] = status.st_mode if link else stat.S_IMODE(status.st_mode)
                if link:
                    self.log.links[node] = os.fsencode(Path(entry.path).readlink())
                elif stat.S_ISDIR(status.st_mode):
                    self.log.folders.add(node)
                    self._walk(Path(entry.path), node, found, fresh)
                elif self._seen.get(node) != (mark := (status.st_size, status.st_mtime_ns)):
                    self._seen[node] = mark
                    fresh.append((node, Path(entry.path)))


def write_state(state: State, folder: Path, pool: Path) -> None:
    """Lay a state out on the real disk; read-only files are links into a pool, so that many states cost little."""
    folder.mkdir()
    for path, (content, mode) in state.items():
        target = folder / path
        if path.endswith("/"):
            target.mkdir()
            target.chmod(mode)
            continue
        if stat.S_ISLNK(mode):
            target.symlink_to(os.fsdecode(content))
            continue
        if mode & 0o222:
            target.write_bytes(content)
            target.chmod(mode)
            continue
        kept = pool / f"{hashlib.sha256(content).hexdigest()}-{mode:o}"
        if not kept.exists():
            kept.write_bytes(content)
            kept.chmod(mode)
        os.link(kept, target)


def fingerprint(state: State) -> str:
    """Equal for equal states."""
    hasher = hashlib.sha256()
    for path in sorted(state):
        content, mode = state[path]
        hasher.update(f"{path}\0{mode}\0{len(content)}\0".encode() + content)
    return hasher.hexdigest()


def moments(log: Log, start: int, every: Sequence[type] = (Link, Unlink, Move, Data, Sync, Done)) -> list[int]:
    """Every number of events after which the power may go."""
    return [index + 1 for index in range(start, len(log.events)) if isinstance(log.events[index], tuple(every))]
