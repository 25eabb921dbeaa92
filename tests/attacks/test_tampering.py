"""Whatever is changed in a lab's folder, opening or verifying it fails and names the file."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab_fixtures import Place, lab_files, problems, rewrite, run_cli
from studbook.ledger.merkle import Tree
from studbook.records import canonical, decode_json

SMALL = 1024


def named(path: Path, found: list[str]) -> bool:
    """Whether one of the problems is this file's."""
    return any(where == str(path) or where.startswith(f"{path}:") for where in found)


def positions(size: int, random_: random.Random) -> tuple[int, ...]:
    return tuple(dict.fromkeys((0, size - 1, size // 2, random_.randrange(size))))


def flip(path: Path, position: int) -> bytes:
    """Flip the lowest bit of one byte; returns what was there."""
    before = path.read_bytes()
    after = bytearray(before)
    after[position] ^= 1
    rewrite(path, bytes(after))
    return before


def opening_reads(place: Place) -> list[Path]:
    """Files that are read before anything else can be: ledger, checkpoint, root; and the ones that verify looks at last."""
    named_first = [p for p in lab_files(place) if p.parent.name in ("audit", "channels", "root-1")]
    moves = [p for p in lab_files(place) if p.parent.name in ("release-record-1", "champion-promotion-1")]
    return [*named_first, *moves[:2], place.path / "studbook.json"]


def test_an_untouched_lab_has_no_problems(lived_lab: Place) -> None:
    assert problems(lived_lab) == []


@pytest.mark.parametrize("where", ["first", "last", "middle", "random"])
def test_a_flipped_byte_in_every_stored_file_is_named(old_lab: Place, where: str) -> None:
    random_ = random.Random(where)
    spared = set(opening_reads(old_lab))
    files = [p for p in lab_files(old_lab) if p not in spared and "release" not in p.relative_to(old_lab.path).parts]
    assert len(files) > 80
    for path in files:
        size = path.stat().st_size
        flip(path, {"first": 0, "last": size - 1, "middle": size // 2, "random": random_.randrange(size)}[where])
    found = problems(old_lab)
    assert [str(p) for p in files if not named(p, found)] == []


def test_a_flipped_byte_in_a_file_that_opening_reads_is_named(old_lab: Place) -> None:
    random_ = random.Random(1)
    for path in opening_reads(old_lab):
        before = flip(path, random_.randrange(path.stat().st_size))
        assert named(path, problems(old_lab)), path
        rewrite(path, before)
    assert problems(old_lab) == []


@pytest.mark.proof
def test_every_flip_of_every_file_alone_is_named(old_lab: Place) -> None:
    random_ = random.Random(2)
    for path in lab_files(old_lab):
        for position in positions(path.stat().st_size, random_):
            before = flip(path, position)
            assert named(path, problems(old_lab)), (path, position)
            rewrite(path, before)


@pytest.mark.proof
def test_every_byte_of_every_small_file_counts(old_lab: Place) -> None:
    for path in [p for p in lab_files(old_lab) if p.stat().st_size <= SMALL or p.name == "checkpoint"]:
        for position in range(path.stat().st_size):
            before = flip(path, position)
            assert named(path, problems(old_lab)), (path, position)
            rewrite(path, before)


# -- recomputing what nobody signed ------------------------------------------------------------------------------


def ledger_of(place: Place) -> Path:
    return place.path / "audit" / "ledger.jsonl"


def opened_line(line: bytes) -> tuple[dict, dict]:
    envelope = json.loads(line)
    return envelope, json.loads(base64.b64decode(envelope["payload"]))


def closed_line(envelope: dict, statement: dict) -> bytes:
    """The line with its statement's own digest recomputed and its old signature kept."""
    predicate = statement["predicate"]
    statement["subject"][0]["digest"]["sha256"] = hashlib.sha256(canonical(predicate)).hexdigest()
    return canonical(envelope | {"payload": base64.b64encode(canonical(statement)).decode()})


def rechained(lines: list[bytes], change: Callable[[dict], None]) -> bytes:
    """Apply a change to every entry, then make sequence and ``previous`` fit again."""
    previous, result = "0" * 64, []
    for number, line in enumerate(lines):
        envelope, statement = opened_line(line)
        change(statement["predicate"])
        statement["predicate"] |= {"previous": previous, "sequence": number}
        result.append(closed_line(envelope, statement))
        previous = hashlib.sha256(result[-1]).hexdigest()
    return b"".join(line + b"\n" for line in result)


def checkpoint_for(place: Place, data: bytes) -> None:
    """Make the checkpoint say what the ledger now is, with its old signature."""
    path = place.path / "audit" / "checkpoint"
    origin, _size, _root, *signed = path.read_text().splitlines(keepends=True)
    tree = Tree(data.splitlines())
    root = base64.b64encode(tree.root()).decode()
    rewrite(path, "".join([origin, f"{len(data.splitlines())}\n", f"{root}\n", *signed]).encode())


def test_a_changed_file_renamed_to_its_new_digest_is_found_and_the_old_name_is_missed(old_lab: Place) -> None:
    for path in sorted(old_lab.path.glob("*/blobs/*")):
        before = flip(path, path.stat().st_size // 2)
        renamed = path.with_name(hashlib.sha256(path.read_bytes()).hexdigest())
        path.rename(renamed)
        break
    found = problems(old_lab)
    assert named(path, found)
    assert named(renamed, found)
    rewrite(renamed, before)


def test_a_changed_artifact_with_every_unsigned_digest_recomputed_names_the_ledger(old_lab: Place) -> None:
    path = sorted((old_lab.path / "registry" / "blobs").iterdir())[0]
    old = path.name
    flip(path, path.stat().st_size // 2)
    new = hashlib.sha256(path.read_bytes()).hexdigest()
    path.rename(path.with_name(new))
    ledger = ledger_of(old_lab)

    def swap_digest(entry: dict) -> None:
        for blob in entry["blobs"]:
            blob["sha256"] = new if blob["sha256"] == old else blob["sha256"]

    data = rechained(ledger.read_bytes().splitlines(), swap_digest)
    rewrite(ledger, data)
    checkpoint_for(old_lab, data)
    assert named(ledger, problems(old_lab))


def test_a_changed_record_with_every_unsigned_digest_recomputed_is_named(old_lab: Place) -> None:
    path = next((old_lab.path / "decisions" / "viability-decision-1").iterdir())
    envelope, statement = opened_line(path.read_bytes())
    statement["predicate"]["assumptions"] = ["none"]
    old, forged = path.stem, closed_line(envelope, statement)
    new = hashlib.sha256(canonical(statement["predicate"])).hexdigest()
    rewrite(path, forged)
    path.rename(path.with_name(f"{new}.json"))
    ledger = ledger_of(old_lab)

    def swap_record(entry: dict) -> None:
        if entry["record"] == old:
            entry["record"] = new
            entry["envelope"] = {"sha256": hashlib.sha256(forged).hexdigest(), "size": len(forged)}

    data = rechained(ledger.read_bytes().splitlines(), swap_record)
    rewrite(ledger, data)
    checkpoint_for(old_lab, data)
    assert named(ledger, problems(old_lab))


def test_a_root_with_another_key_and_every_unsigned_digest_recomputed_is_named(old_lab: Place) -> None:
    path = next((old_lab.path / "policy" / "root-1").iterdir())
    envelope, statement = opened_line(path.read_bytes())
    statement["predicate"]["keys"][0]["owner"] = "mallory"
    forged = closed_line(envelope, statement)
    new = path.with_name(hashlib.sha256(canonical(statement["predicate"])).hexdigest() + ".json")
    rewrite(path, forged)
    path.rename(new)

    def swap_root(entry: dict) -> None:
        if entry["sequence"] == 0:
            entry["record"] = new.stem
            entry["envelope"] = {"sha256": hashlib.sha256(forged).hexdigest(), "size": len(forged)}

    data = rechained(ledger_of(old_lab).read_bytes().splitlines(), swap_root)
    rewrite(ledger_of(old_lab), data)
    checkpoint_for(old_lab, data)
    assert named(new, problems(old_lab))


def test_an_entry_dropped_and_the_rest_chained_again_names_the_ledger(old_lab: Place) -> None:
    lines = ledger_of(old_lab).read_bytes().splitlines()
    data = rechained(lines[:5] + lines[6:], lambda _entry: None)
    rewrite(ledger_of(old_lab), data)
    checkpoint_for(old_lab, data)
    assert named(ledger_of(old_lab), problems(old_lab))


def test_a_shortened_ledger_with_a_fitting_unsigned_checkpoint_names_the_checkpoint(old_lab: Place) -> None:
    lines = ledger_of(old_lab).read_bytes().splitlines(keepends=True)
    data = b"".join(lines[:-3])
    rewrite(ledger_of(old_lab), data)
    checkpoint_for(old_lab, data)
    assert named(old_lab.path / "audit" / "checkpoint", problems(old_lab))


def test_a_marker_of_another_lab_is_named(old_lab: Place) -> None:
    marker = old_lab.path / "studbook.json"
    rewrite(marker, canonical(decode_json(marker.read_bytes()) | {"lab": "0" * 64}))
    assert named(marker, problems(old_lab))


@pytest.mark.parametrize("channel", ["champion", "shadow"])
def test_an_alias_pointed_at_another_stored_model_is_named(old_lab: Place, channel: str) -> None:
    alias = old_lab.path / "release" / "channels" / f"{channel}.json"
    said = decode_json(alias.read_bytes())
    other = next(p.name for p in (old_lab.path / "candidate" / "blobs").iterdir() if p.name != said["artifact"])
    rewrite(alias, canonical(said | {"artifact": other}))
    assert named(alias, problems(old_lab))


def test_a_lab_signed_again_by_a_stranger_differs_from_the_pinned_root(old_lab: Place, tmp_path: Path) -> None:
    other = old_lab.copy(tmp_path / "other")
    pin = other.keys / "root.sha256"
    rewrite(pin, b"0" * 64 + b"\n")
    assert named(pin, problems(other))


# -- delete, add, rename, swap ------------------------------------------------------------------------------------


def test_every_deleted_file_is_named(old_lab: Place, tmp_path: Path) -> None:
    spared = set(opening_reads(old_lab))
    files = [p for p in lab_files(old_lab) if p not in spared and "release" not in p.relative_to(old_lab.path).parts]
    for path in files:
        path.unlink()
    found = problems(old_lab)
    assert [str(p) for p in files if not named(p, found)] == []


def test_every_deleted_file_that_opening_reads_is_named(old_lab: Place) -> None:
    for path in opening_reads(old_lab):
        data = path.read_bytes()
        path.unlink()
        assert named(path, problems(old_lab)), path
        path.write_bytes(data)
    assert problems(old_lab) == []


def _file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[core]\n")


def _link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


ADDED: dict[str, tuple[str, Callable[[Path], None]]] = {
    "plain file": ("candidate/blobs/notes.txt", _file),
    "dotfile": ("evaluation/.hidden", _file),
    "file at the top": (".env", _file),
    "git folder": (".git/config", _file),
    "link to a file": ("registry/blobs/link", _link),
    "link to a folder": ("registry/away", lambda path: path.symlink_to("/tmp", target_is_directory=True)),
    "link to itself": ("audit/loop", _loop),
    "fifo": ("audit/pipe", os.mkfifo),
    "empty file": ("policy/empty", lambda path: path.touch()),
    "second ledger": ("audit/ledger.jsonl.bak", _file),
    "third channel": ("release/channels/canary.json", _file),
    "nested cache": ("candidate/cache/x", _file),
}


@pytest.mark.parametrize("what", ADDED)
def test_something_added_is_named(old_lab: Place, what: str) -> None:
    relative, make = ADDED[what]
    path = old_lab.path / relative
    make(path)
    assert problems(old_lab) == [str(path)]


def test_a_file_whose_name_drives_a_terminal_is_named_and_printed_harmlessly(old_lab: Place) -> None:
    path = old_lab.path / "audit" / "\x1b[2Jgone"
    path.touch()
    assert problems(old_lab) == [str(path).replace("\x1b", "\N{REPLACEMENT CHARACTER}")]
    ended = run_cli(old_lab, "verify")
    assert ended.returncode == 22
    assert "gone" in ended.stdout
    assert "\x1b" not in ended.stdout + ended.stderr


def test_an_empty_folder_changes_nothing(old_lab: Place) -> None:
    (old_lab.path / "candidate" / "empty").mkdir()
    assert problems(old_lab) == []


def test_whatever_lies_in_the_cache_changes_nothing(old_lab: Place) -> None:
    _file(old_lab.path / "cache" / "anything")
    assert problems(old_lab) == []


def test_a_cache_that_is_a_link_is_not_followed(old_lab: Place, tmp_path: Path) -> None:
    shutil.rmtree(old_lab.path / "cache", ignore_errors=True)
    (old_lab.path / "cache").symlink_to(tmp_path, target_is_directory=True)
    assert problems(old_lab) == [str(old_lab.path / "cache")]


@pytest.mark.parametrize("replacement", ["link", "fifo", "folder", "empty"])
def test_a_stored_model_replaced_by_something_else_is_named(old_lab: Place, replacement: str, tmp_path: Path) -> None:
    path = sorted((old_lab.path / "registry" / "blobs").iterdir())[0]
    path.rename(tmp_path / "same-bytes")
    make: dict[str, Callable[[], object]] = {
        "link": lambda: path.symlink_to(tmp_path / "same-bytes"),
        "fifo": lambda: os.mkfifo(path),
        "folder": lambda: path.mkdir(),
        "empty": lambda: path.touch(),
    }
    make[replacement]()
    assert named(path, problems(old_lab))


def pairs(place: Place) -> Iterator[tuple[Path, Path]]:
    """Two neighbours of every kind of file there are two of."""
    for folder in sorted({p.parent for p in lab_files(place)}):
        files = sorted(p for p in folder.iterdir() if p.is_file())
        if len(files) > 1:
            yield files[0], files[1]


def test_two_swapped_files_are_both_named(old_lab: Place) -> None:
    stored = [
        pair for pair in pairs(old_lab) if pair[0].parent.name not in ("audit", "channels", "champion-promotion-1")
    ]
    assert len(stored) > 10
    for first, second in stored:
        one, two = first.read_bytes(), second.read_bytes()
        rewrite(first, two)
        rewrite(second, one)
    found = problems(old_lab)
    assert [str(p) for pair in stored for p in pair if not named(p, found)] == []


@pytest.mark.parametrize("folder", ["audit", "release/channels", "release/champion-promotion-1"])
def test_two_swapped_files_that_opening_reads_are_named(old_lab: Place, folder: str) -> None:
    first, second = sorted((old_lab.path / folder).iterdir())[:2]
    one, two = first.read_bytes(), second.read_bytes()
    rewrite(first, two)
    rewrite(second, one)
    found = problems(old_lab)
    assert named(first, found) or named(second, found)


def test_a_renamed_file_is_missed_and_found(old_lab: Place) -> None:
    for path in sorted(old_lab.path.glob("evaluation/scorecard-1/*"))[:1]:
        renamed = path.with_name("f" * 64 + ".json")
        path.rename(renamed)
        assert set(problems(old_lab)) == {str(path), str(renamed)}


def test_a_record_moved_to_another_zone_is_missed_and_found(old_lab: Place) -> None:
    path = next((old_lab.path / "evaluation" / "scorecard-1").iterdir())
    moved = old_lab.path / "candidate" / path.name
    path.rename(moved)
    assert set(problems(old_lab)) == {str(path), str(moved)}


def test_an_older_copy_of_the_whole_audit_folder_leaves_files_that_nobody_recorded(
    old_lab: Place, prepared_lab: Place
) -> None:
    shutil.rmtree(old_lab.path / "audit")
    shutil.copytree(prepared_lab.path / "audit", old_lab.path / "audit")
    found = problems(old_lab)
    assert any("viability-decision-1" in where for where in found)
