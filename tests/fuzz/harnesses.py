"""Every reader of foreign bytes as a function of bytes, and what must hold whatever the bytes are.

A reader may refuse with a `StudbookError`; what it accepts must come back when it is written again. It never takes more
memory than a small multiple of the input. The table `HARNESSES` is run by coverage (`tools/fuzz.py`) and by mutation
(`test_mutations.py`).
"""

from __future__ import annotations

import atexit
import json
import re
import shutil
import struct
import tempfile
import tracemalloc
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from engine_fixtures import Door
from fuzz import publications, seeds
from studbook.adapters.reader import parse_adapter
from studbook.breeding.recipes import check_recipe
from studbook.cli.session import recipes_of
from studbook.errors import StudbookError
from studbook.evaluation.contamination import parse_rows
from studbook.evaluation.suites import parse_items, read_suite_folder
from studbook.exchange import translate_mergekit
from studbook.exchange.lm_eval_task import read_task, suite_files
from studbook.lab.experiments import read_plan
from studbook.lab.founding import read_policy
from studbook.ledger.note import read_checkpoint, read_note
from studbook.ledger.proofs import read_consistency, read_inclusion, write_consistency, write_inclusion
from studbook.models.bpe import parse_tokenizer
from studbook.models.checkpoint import open_checkpoint
from studbook.models.checkpoint_checks import check_carried
from studbook.models.checkpoint_folder import FileEntry, list_folder, listing_bytes, parse_listing
from studbook.models.checksum import checksum64
from studbook.models.keyvalue import format_manifest, parse_manifest
from studbook.models.peft import read_peft
from studbook.models.peft_config import read_config
from studbook.models.provenance import parse_provenance
from studbook.models.safetensors import open_safetensors
from studbook.models.safetensors_header import parse_header
from studbook.models.slm import assemble_slm, parse_slm
from studbook.models.strict_json import read_object
from studbook.models.trained_source import parse_trained_source
from studbook.models.vocabulary import parse_tokenizer_json
from studbook.records import canonical, decode_json, read_plain_json, read_record, write_record
from studbook.seal.envelope import check_signatures, open_envelope, peek
from studbook.seal.statement import read_statement

__all__ = ["HARNESSES", "Finding", "Harness", "check", "mutable", "replay"]

# What a reader may take: so many bytes for every byte of input, and so many besides.
FACTOR, FLOOR = 256, 4 << 20
MESSAGE = 4096
_REASON = re.compile(r"[a-z][a-z0-9_.-]*\Z")


class Finding(AssertionError):
    """A reader did what no reader may do."""


class Harness(NamedTuple):
    """One reader.

    Attributes:
        corpus: Good inputs.
        read: Reads one input; may raise a StudbookError and nothing else.
        words: Pieces of the format that chance would not find.
        json: Where JSON begins in an input; None if it is none.
    """

    corpus: Callable[[], list[bytes]]
    read: Callable[[bytes], None]
    words: tuple[bytes, ...] = ()
    json: int | None = None


def check(name: str, data: bytes, *, memory: bool = True) -> None:
    """Give one input to one reader and hold its answer against what is allowed.

    Raises:
        Finding: for any other error, an error without its parts, or too much memory.
    """
    if memory:
        tracemalloc.start()
    try:
        HARNESSES[name].read(data)
    except StudbookError as refused:
        _check_refusal(refused)
    finally:
        peak = tracemalloc.get_traced_memory()[1] if memory else 0
        if memory:
            tracemalloc.stop()
    if peak > FLOOR + FACTOR * len(data):
        raise Finding(f"{name} took {peak} bytes for an input of {len(data)}")


def replay(name: str, data: bytes) -> None:
    """The same for an input that is kept in ``regressions``."""
    check(name, data)


def mutable(name: str) -> list[bytes]:
    """The corpus of one reader; every input in it is accepted, or the harness tests nothing."""
    inputs = _corpus(name)
    for data in inputs:
        HARNESSES[name].read(data)
    return inputs


@cache
def _corpus(name: str) -> list[bytes]:
    return HARNESSES[name].corpus()


def _check_refusal(refused: StudbookError) -> None:
    if not refused.message or not refused.advice or not _REASON.match(refused.reason):
        raise Finding(f"{refused!r} lacks message, advice or reason {refused.reason!r}") from refused
    if len(str(refused)) + len(refused.advice) > MESSAGE:
        raise Finding(f"a refusal of {len(str(refused))} characters") from refused


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise Finding(what)


# Containers and packages. A change of bytes ends at the checksum, so the sum is made right and the bytes read again.


def _sealed(data: bytes, at: int) -> bytes:
    room = bytearray(data + bytes(-len(data) % 64))
    if len(room) >= at + 8:
        struct.pack_into("<Q", room, at, checksum64(bytes(room), at))
    return bytes(room)


def _slm(data: bytes) -> None:
    found = parse_slm(_sealed(data, 100), "file.slm")
    _require(all(np.isfinite(found.dense(name)).all() for name in found.tensors), "a value is not finite")
    again = parse_slm(assemble_slm(found.shape, found.tokenizer, found.tensors))
    same = all((again.dense(name) == found.dense(name)).all() for name in found.tensors)
    _require(same and again.shape == found.shape, "written again it is another model")
    _section(found.tokenizer.section())


def _adapter(data: bytes) -> None:
    found = parse_adapter(_sealed(data, 120), "file.adp")
    _require(found.meta.to_bytes() == data[128 : 128 + found.head.meta_length], "the meta block has two spellings")
    for _, change in found.changes:
        _require(bool(np.isfinite(np.frombuffer(change.payload()[-4:], "<f4")).all()), "a value is not finite")


def _section(data: bytes) -> None:
    found = parse_tokenizer(data, "tokenizer")
    _require(found.section() == data, "the section has two spellings")
    for text in ("", "abc ab \u00e4\n", "\x00"):
        _require(found.decode(found.encode(text)) == text, "a text does not come back")


# The engine reads the same files, and what it says has to be what Python says.


@cache
def _engine() -> Door:
    """With memory for a multiple of the longest input; a reader that took more would come to another verdict."""
    door = Door(pages=128)
    atexit.register(door.store.close)
    return door


def _agreed(ask: Callable[[Door, bytes], str], read: Callable[[bytes], object], data: bytes) -> None:
    said = ask(_engine(), data)
    try:
        read(data)
    except StudbookError as refused:
        _require(said == refused.reason, f"the engine says {said!r}, Python {refused.reason!r}")
        raise
    _require(not said, f"the engine says {said!r}, Python nothing")


def _engine_slm(data: bytes) -> None:
    _agreed(Door.check_model, parse_slm, _sealed(data, 100))


def _engine_adapter(data: bytes) -> None:
    _agreed(Door.check_adapter, parse_adapter, _sealed(data, 120))


def _engine_section(data: bytes) -> None:
    """A section in a container, then texts by it, the input among them."""
    _agreed(Door.load, parse_slm, seeds.container_around(data))
    found = parse_tokenizer(data)
    for text in ("", "abc ab \u00e4\n", data.decode("utf-8", "replace")):
        ids = found.encode(text)
        _require(_engine().encode(text.encode()) == ids, "a text has other ids")
        _require(_engine().decode(ids) == text.encode(), "a text does not come back")


# Safetensors, and folders that hold them.


def _header(data: bytes) -> None:
    room = int.from_bytes(data[:2], "little")
    found, _ = parse_header(data[2:], room, "file.safetensors")
    _require(sum(entry.stop - entry.start for entry in found.values()) == room, "the tensors do not cover the data")


@cache
def _scratch() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="studbook-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _tensors(data: bytes) -> None:
    path = _scratch() / "file.safetensors"
    path.write_bytes(data)
    with open_safetensors(path) as file:
        for name in file.entries:
            file.read_bytes(name)
        file.sha256()


def _folder(files: Callable[[], Mapping[str, bytes]], data: bytes) -> Path:
    """A good folder in which one file was replaced by the input; its first byte says which."""
    folder, good = _scratch() / files.__name__, _good(files)
    if not folder.exists():
        folder.mkdir()
        for name, content in good.items():
            (folder / name).write_bytes(content)
    chosen = list(good)[data[0] % len(good)] if data else next(iter(good))
    (folder / chosen).write_bytes(data[1:])
    _restore.append((folder / chosen, good[chosen]))
    return folder


_restore: list[tuple[Path, bytes]] = []


@cache
def _good(files: Callable[[], Mapping[str, bytes]]) -> Mapping[str, bytes]:
    return files()


def _restored(read: Callable[[bytes], None], data: bytes) -> None:
    try:
        read(data)
    finally:
        while _restore:
            path, content = _restore.pop()
            path.write_bytes(content)


def _checkpoint(data: bytes) -> None:
    files = list_folder(_folder(seeds.checkpoint_files, data))
    check_carried(files)
    found = open_checkpoint(files)
    parse_listing(found.manifest)
    found.count_non_finite()


def _lora(data: bytes) -> None:
    found = read_peft(list_folder(_folder(seeds.lora_files, data)))
    for name in found.names:
        left, right, scale = found.factors(name)
        _require(bool(np.isfinite(left).all() and np.isfinite(right).all() and np.isfinite(scale)), "not finite")


# Text.


def _record(data: bytes) -> None:
    found = read_record(data, "record.json")
    _require(write_record(found) == data, "the record has two spellings")


def _recanonical(data: bytes) -> None:
    """The door behind the canonical form, which chance hardly ever meets: any JSON, written canonically first."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    _record(canonical(value))


def _statement(data: bytes) -> None:
    found = read_statement(data, "statement")
    written = write_record(found.record)
    _require(written in data, "the statement holds another record")


def _envelope(data: bytes) -> None:
    found = open_envelope(data, "envelope")
    peek(data, "envelope")
    check_signatures(found, "envelope")


def _canonical(data: bytes) -> None:
    _require(canonical(decode_json(data, "meta")) == data, "the text has two spellings")


def _plain(data: bytes) -> None:
    canonical(read_plain_json(data, "policy.json"))


def _object(data: bytes) -> None:
    found = read_object(data, "config.json", "checkpoint.config")
    _require(read_object(json.dumps(found).encode(), "", "again") == found, "written again it is another object")


def _policy(data: bytes) -> None:
    path = _scratch() / "policy.json"
    path.write_bytes(data)
    read_policy(path, "ann")


def _layers(_name: str) -> list[str]:
    return [f"model.layers.{i}.mlp.up_proj.weight" for i in range(4)] + ["model.embed_tokens.weight"]


def _recipe(data: bytes) -> None:
    found = translate_mergekit(data.decode("utf-8", "replace"), "merge.yml", _layers)
    canonical(found.recipe)


def _manifest(data: bytes) -> None:
    _require(format_manifest(parse_manifest(data, "file.manifest")) == data, "the manifest has two spellings")


def _sidecar(data: bytes) -> None:
    found = parse_provenance(data, "model.slm.manifest")
    _require(found.encode() == data and found.claimed_rung is not None, "the sidecar has two spellings")


def _source(data: bytes) -> None:
    found = parse_trained_source(data, "source.manifest")
    paths = [found.tokenizer.path, *(entry.path for entry in found.tensors.values())]
    _require(all(".." not in p.split("/") and not p.startswith("/") for p in paths), "a path leads outside")


def _experiment(data: bytes) -> None:
    path = _scratch() / "experiment.json"
    path.write_bytes(data)
    found = read_plan(path)
    canonical(msgspec.to_builtins(found))


def _recipes(data: bytes) -> None:
    path = _scratch() / "recipes.json"
    path.write_bytes(data)
    for recipe in recipes_of(str(path)):
        found = check_recipe(recipe)
        again = check_recipe(msgspec.to_builtins(found))
        _require(again == found, "a recipe read again is another")


def _task(data: bytes) -> None:
    task = read_task(_folder(seeds.task_files, data) / "task.yaml")
    files = suite_files(task, name="task", role="development", cluster="c", licence="CC0-1.0")
    found = parse_items(files["items.jsonl"], "items.jsonl")
    _require(len(found) == len(task.questions), "a question is lost")


def _suite(data: bytes) -> None:
    """A suite folder around any items: the first byte says of which scorer."""
    kinds = sorted(seeds.ruled())
    scorer, items = kinds[data[0] % len(kinds)] if data else kinds[0], data[1:]
    folder = _scratch() / "suite"
    folder.mkdir(exist_ok=True)
    (folder / "items.jsonl").write_bytes(items)
    (folder / "suite.manifest").write_bytes(seeds.suite_manifest(scorer, items))
    found = read_suite_folder(folder)
    _require(b"".join(canonical(item) + b"\n" for item in found.items) == items, "the items have two spellings")


def _listing(data: bytes) -> None:
    found = parse_listing(data, "files.json")
    _require(listing_bytes({f.path: f for f in found}) == data, "the listing has two spellings")
    _require(all(isinstance(f, FileEntry) and ".." not in f.path.split("/") for f in found), "a path leads outside")


def _vocabulary(data: bytes) -> None:
    found = parse_tokenizer_json(data, 1 << 20, "model", "tokenizer.json")
    _require(len(found.ids) <= found.size and found.last < found.size, "an id is beyond the rows")


def _note(data: bytes) -> None:
    found, note = read_checkpoint(data, "checkpoint")
    _require(note == read_note(data) and note.text.encode() in data, "the note holds another text")
    _require(found.size >= 0 and len(found.root) == 32, "the checkpoint is of no tree")


def _proof(data: bytes) -> None:
    known = data.startswith(seeds.INCLUSION)
    found = (read_inclusion if known else read_consistency)(data, "proof")
    again = (write_inclusion if known else write_consistency)(found.number, found.hashes, found.checkpoint)
    _require(again == data, "the proof has two spellings")


# What `pull` reads.


def _publication(data: bytes) -> None:
    _require(publications.read_broken(data) == publications.true(), "a broken publication offers something else")


def _state(data: bytes) -> None:
    _require(publications.read_state(data) == data, "what was seen has two spellings")


_JSON = (
    b"NaN",
    b"1e400",
    b"9007199254740993",
    b'"\\ud800"',
    b"\xef\xbb\xbf",
    b"[" * 64,
    b'{"a":' * 64,
    b"null",
    b"1e5",
)
_YAML = (
    b"!!python/object:",
    b"&a ",
    b"*a",
    b"<<: ",
    b"---\n",
    b"? ",
    b"slices:",
    b"filter: ",
    b"value: ",
    b"1e5",
    b"\\U",
)
HARNESSES: dict[str, Harness] = {
    "slm": Harness(seeds.containers, _slm, (b"BPE1", b"BTOK")),
    "adapter": Harness(seeds.packages, _adapter, (b"ADP1", b"ASP1", b"ALR1")),
    "tokenizer-section": Harness(seeds.sections, _section, (b"BPE1", b"BTOK")),
    "engine-slm": Harness(seeds.containers, _engine_slm, (b"BPE1", b"BTOK")),
    "engine-adapter": Harness(seeds.packages, _engine_adapter, (b"ADP1", b"ASP1", b"ALR1", *_JSON)),
    "engine-section": Harness(seeds.sections, _engine_section, (b"BPE1", b"BTOK")),
    "safetensors-header": Harness(seeds.tensor_headers, _header, (*_JSON, b'"__metadata__":', b'"data_offsets":'), 2),
    "safetensors-file": Harness(seeds.tensor_files, _tensors),
    "checkpoint-folder": Harness(
        lambda: seeds.pieces(seeds.checkpoint_files()), partial(_restored, _checkpoint), _JSON, 1
    ),
    "peft-folder": Harness(lambda: seeds.pieces(seeds.lora_files()), partial(_restored, _lora), _JSON, 1),
    "peft-config": Harness(seeds.lora_configs, lambda data: _void(read_config(data, "adapter_config.json")), _JSON, 0),
    "tokenizer-json": Harness(seeds.vocabularies, _vocabulary, (*_JSON, b'"Unigram"', b'"WordLevel"', b'"merges":'), 0),
    "config-json": Harness(seeds.lora_configs, _object, _JSON, 0),
    "record": Harness(seeds.record_bytes, _record, _JSON, 0),
    "record-fields": Harness(seeds.record_bytes, _recanonical, _JSON, 0),
    "statement": Harness(seeds.statements, _statement, _JSON, 0),
    "envelope": Harness(seeds.envelopes, _envelope),
    "checkpoint-note": Harness(seeds.notes, _note, ("\u2014 ".encode(), b"\n\n", b"AAAA")),
    "ledger-proof": Harness(seeds.proofs, _proof, (seeds.INCLUSION, b"old ", b"index ", b"\n\n")),
    "listing": Harness(seeds.listings, _listing, (*_JSON, b"../", b"\\u0000"), 0),
    "canonical-json": Harness(seeds.rows_json, _canonical, _JSON, 0),
    "plain-json": Harness(seeds.policies, _plain, _JSON, 0),
    "policy": Harness(seeds.policies, _policy, _JSON, 0),
    "publication": Harness(publications.whole, _publication, (*_JSON, "\u2014 ".encode()), 1),
    "publication-signed": Harness(publications.signed, lambda data: _void(publications.read_signed(data)), _JSON, 0),
    "pull-state": Harness(publications.states, _state, (*_JSON, "\\n\u2014 ".encode()), 0),
    "mergekit": Harness(seeds.recipes, _recipe, _YAML),
    "manifest": Harness(seeds.sidecars, _manifest, (b"\xef\xbb\xbf", b"\r\n", "\u202e".encode())),
    "sidecar": Harness(seeds.sidecars, _sidecar),
    "trained-source": Harness(seeds.sources, _source, (b"../", b"9" * 19, b"e400")),
    "experiment": Harness(seeds.experiments, _experiment, (*_JSON, b'"factors":', b'"seeds":'), 0),
    "recipes": Harness(seeds.operators, _recipes, (*_JSON, b'"operator":', b'"inner":', b'"uniform"'), 0),
    "lm-eval-task": Harness(
        lambda: seeds.pieces(seeds.task_files()),
        partial(_restored, _task),
        (*_YAML, *_JSON, b"{{q}}", b"\\0", b"!function "),
    ),
    "suite-folder": Harness(seeds.suite_folders, _suite, (*_JSON, b'"$ref":', b'"pattern":', b"(?", b"{9999999}")),
    "suite-items": Harness(seeds.suites, lambda data: _void(parse_items(data, "items.jsonl")), _JSON, 0),
    "training-rows": Harness(seeds.rows, lambda data: _void(parse_rows(data, "data.jsonl")), _JSON, 0),
}


def _void(_value: Any) -> None:
    return None
