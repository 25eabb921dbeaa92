"""Files that are large on purpose: a million tensors, a million files, a terabyte of nothing. All are bounded in memory.

A bound in time would fail on a slow machine; instead, twice the input must not cost four times the work, counted in
calls of the interpreter.
"""

from __future__ import annotations

import io
import json
import struct
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz import seeds
from studbook import files
from studbook.errors import BytesLie, OverBudget, StudbookError
from studbook.models.checkpoint import open_checkpoint
from studbook.models.checkpoint_checks import check_carried
from studbook.models.checkpoint_folder import FileEntry, list_folder, listing_bytes, parse_listing
from studbook.models.keyvalue import MAX_MANIFEST_BYTES, parse_manifest
from studbook.models.peft import read_peft
from studbook.models.safetensors import open_safetensors
from studbook.models.safetensors_header import HEADER_CAP, parse_header
from studbook.models.slm import read_slm
from studbook.models.strict_json import read_object
from studbook.models.trained_source import read_trained_source
from studbook.models.vocabulary import parse_tokenizer_json
from studbook.records.doors import MAX_RECORD_BYTES, decode_json

TERABYTE = 1 << 40
MILLION = 1_000_000


def peak_of(work: Callable[[], object]) -> int:
    """Most bytes held while something runs, whether it is refused or not."""
    tracemalloc.start()
    try:
        work()
    except StudbookError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


def calls_of(work: Callable[[], object]) -> int:
    """How many functions are called while something runs."""
    count = 0

    def tell(_frame: object, what: str, _argument: object) -> None:
        nonlocal count
        count += what in ("call", "c_call")

    sys.setprofile(tell)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def tensors_json(count: int) -> bytes:
    """The header of so many tensors of one byte each."""
    room = io.BytesIO()
    room.write(b"{")
    for n in range(count):
        room.write(b'%s"t%d":{"dtype":"U8","shape":[1],"data_offsets":[%d,%d]}' % (b"," * (n > 0), n, n, n + 1))
    room.write(b"}")
    return room.getvalue()


def test_a_header_of_a_million_tensors_is_longer_than_any_header_and_is_not_read(tmp_path: Path) -> None:
    length = MILLION * len(b'"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},')
    assert length > HEADER_CAP
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", length))
        file.truncate(8 + length + MILLION)
    with pytest.raises(BytesLie) as refused:
        open_safetensors(path)
    assert refused.value.reason == "safetensors.header-length.cap"
    assert peak_of(lambda: open_safetensors(path)) < 1 << 20


def test_the_longest_header_that_is_read_costs_a_few_times_its_length() -> None:
    count = 30_000
    data = tensors_json(count)
    found, _ = parse_header(data, count, "model.safetensors")
    assert len(found) == count
    del found
    assert peak_of(lambda: parse_header(data, count, "model.safetensors")) < 12 * len(data)


@pytest.mark.parametrize("what", ["tensors", "listed files", "manifest lines", "tokens"])
def test_twice_as_much_costs_twice_as_much(what: str) -> None:
    def work(count: int) -> Callable[[], object]:
        if what == "tensors":
            header = tensors_json(count)
            return lambda: parse_header(header, count, "model.safetensors")
        if what == "listed files":
            listing = listing_of(count)
            return lambda: parse_listing(listing)
        if what == "tokens":
            document = {"model": {"type": "WordLevel", "vocab": {f"t{n}": n for n in range(count)}}}
            text = json.dumps(document).encode()
            return lambda: parse_tokenizer_json(text, count, "model")
        lines = b"".join(b"key.%d=value\n" % n for n in range(count))
        return lambda: parse_manifest(lines)

    one, two = (calls_of(work(count)) for count in (2_000, 4_000))
    assert two < 2.5 * one


def listing_of(count: int) -> bytes:
    entries = (FileEntry(path=f"f{n:07d}.safetensors", sha256=seeds.SHA, size=n) for n in range(count))
    return listing_bytes({entry.path: entry for entry in entries})


def test_a_listing_of_a_million_files_is_longer_than_any_record_and_is_not_decoded() -> None:
    one = len(listing_of(2)) - len(listing_of(1))
    room = bytes(MILLION * one)
    assert len(room) > MAX_RECORD_BYTES
    with pytest.raises(BytesLie) as refused:
        parse_listing(room)
    assert refused.value.reason == "record.size"
    assert peak_of(lambda: parse_listing(room)) < 1 << 16


def test_a_folder_of_many_strange_files_is_listed_in_little_memory(tmp_path: Path) -> None:
    for name, data in seeds.checkpoint_files().items():
        (tmp_path / name).write_bytes(data)
    for n in range(3_000):
        (tmp_path / f"strange-{n}.txt").symlink_to("nowhere")
    assert set(list_folder(tmp_path)) == set(seeds.checkpoint_files())
    assert peak_of(lambda: list_folder(tmp_path)) < 3_000 * 2_000


SPARSE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a container": ("model.slm", read_slm),
    "a manifest": ("source.manifest", read_trained_source),
    "weights": ("model.safetensors", open_safetensors),
    "a config": ("config.json", lambda path: check_carried({"config.json": path})),
    "a tokenizer": ("tokenizer.json", lambda path: check_carried(whole(path))),
    "an index": ("model.safetensors.index.json", lambda path: open_checkpoint(whole(path))),
    "a config of an adapter": ("adapter_config.json", lambda path: read_peft(lora(path))),
    "weights of an adapter": ("adapter_model.safetensors", lambda path: read_peft(lora(path))),
}


def whole(path: Path) -> dict[str, Path]:
    return filled(path, seeds.checkpoint_files())


def lora(path: Path) -> dict[str, Path]:
    return filled(path, seeds.lora_files())


def filled(path: Path, content: dict[str, bytes]) -> dict[str, Path]:
    for name, data in content.items():
        if name != path.name:
            (path.parent / name).write_bytes(data)
    return {name: path.parent / name for name in content}


@pytest.mark.parametrize("what", SPARSE)
def test_a_terabyte_of_holes_is_refused_before_it_is_read(what: str, tmp_path: Path) -> None:
    name, read = SPARSE[what]
    path = tmp_path / name
    with path.open("wb") as file:
        try:
            file.truncate(TERABYTE)
        except OSError:
            file.truncate(1 << 36)  # the most that this file system lets a file be
    with pytest.raises((BytesLie, OverBudget)):
        read(path)
    assert peak_of(lambda: read(path)) < 1 << 20


@pytest.mark.parametrize("limit", [1 << 20, 1 << 28, 1 << 40])
def test_a_small_file_costs_what_it_holds_whatever_it_might_have_held(limit: int, tmp_path: Path) -> None:
    path = tmp_path / "small"
    path.write_bytes(b"x" * 1000)
    assert files.read_file(path, limit) == b"x" * 1000
    assert peak_of(lambda: files.read_file(path, limit)) < 1 << 18


@pytest.mark.parametrize("data", [b"[" + b"[]," * 200_000 + b"[]]", b'{"a":' + b'"x",' * 9 + b"1}", b"[" * 200_000])
def test_json_costs_a_small_multiple_of_its_length(data: bytes) -> None:
    for read in (
        lambda: decode_json(data),
        lambda: read_object(data, "file", "checkpoint.config"),
        lambda: parse_tokenizer_json(data, 9, "model"),
    ):
        assert peak_of(read) < 64 * len(data) + (1 << 20)


def test_a_manifest_of_the_most_bytes_is_read_in_a_few_times_its_length() -> None:
    lines = MAX_MANIFEST_BYTES // len(b"key.1000000=v\n")
    data = b"".join(b"key.%07d=v\n" % n for n in range(lines))[:MAX_MANIFEST_BYTES]
    data = data[: data.rindex(b"\n") + 1]
    assert peak_of(lambda: parse_manifest(data)) < 24 * len(data)
