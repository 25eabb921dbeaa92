"""Every file that holds JSON, against everything JSON can be made to say: twice, too large, too deep, or nothing at all.

What a lie is to one reader may be plain text to another, so the table says per reader what is refused and what is read.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz import seeds
from studbook.adapters.meta import parse_meta
from studbook.errors import BytesLie, StudbookError
from studbook.evaluation.contamination import parse_rows
from studbook.evaluation.suites import parse_items
from studbook.lab.founding import read_policy
from studbook.models.checkpoint import open_checkpoint
from studbook.models.checkpoint_checks import check_carried
from studbook.models.checkpoint_folder import list_folder, parse_listing
from studbook.models.peft_config import read_config
from studbook.models.safetensors import open_safetensors
from studbook.models.vocabulary import parse_tokenizer_json
from studbook.records import decode_json, read_record
from studbook.seal.envelope import open_envelope
from studbook.seal.statement import read_statement

DEEP = 100_000


def header(folder: Path, data: bytes) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(data)) + data)
    open_safetensors(path)


def in_folder(name: str) -> Callable[[Path, bytes], None]:
    def read(folder: Path, data: bytes) -> None:
        for path, content in seeds.checkpoint_files().items():
            (folder / path).write_bytes(content)
        (folder / name).write_bytes(data)
        files = list_folder(folder)
        check_carried(files)
        open_checkpoint(files)

    return read


def policy(folder: Path, data: bytes) -> None:
    (folder / "policy.json").write_bytes(data)
    read_policy(folder / "policy.json", "ann")


READERS: dict[str, Callable[[Path, bytes], object]] = {
    "record": lambda _, data: read_record(data, "file"),
    "canonical values": lambda _, data: decode_json(data, "file"),
    "statement": lambda _, data: read_statement(data, "file"),
    "envelope": lambda _, data: open_envelope(data, "file"),
    "listing": lambda _, data: parse_listing(data, "file"),
    "adapter meta": lambda _, data: parse_meta(data, "ADP1", "file"),
    "suite items": lambda _, data: parse_items(data + b"\n", "file"),
    "training rows": lambda _, data: parse_rows(data, "file"),
    "peft config": lambda _, data: read_config(data, "file"),
    "tokenizer.json": lambda _, data: parse_tokenizer_json(data, 1 << 20, "model", "file"),
    "safetensors header": header,
    "policy": policy,
    **{name: in_folder(name) for name in (
        "config.json", "model.safetensors.index.json", "tokenizer_config.json", "generation_config.json",
        "special_tokens_map.json", "added_tokens.json", "vocab.json",
    )},
}  # fmt: skip
LIES: dict[str, bytes] = {
    "a key that stands twice": b'{"a":1,"a":1}',
    "a key that stands twice, spelt in two ways": b'{"a":1,"\\u0061":1}',
    "NaN": b'{"a":NaN}',
    "infinity": b'{"a":-Infinity}',
    "a number beyond f64": b'{"a":1e400}',
    "an integer of ten thousand digits": b'{"a":1' + b"0" * 10_000 + b"}",
    "half of a surrogate pair": b'{"a":"\\ud800"}',
    "half of a surrogate pair as a key": b'{"\\udfff":1}',
    "a byte-order mark": b'\xef\xbb\xbf{"a":1}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "UTF-8 of a surrogate": b'{"a":"\xed\xa0\x80"}',
    "an overlong letter": b'{"a":"\xc1\xa1"}',
    "a comment": b'{"a":1}//',
    "a comma behind the last": b'{"a":1,}',
    "a control character in a text": b'{"a":"\x01"}',
    "single quotes": b"{'a':1}",
    "a zero byte at the end": b'{"a":1}\0',
    "two documents": b'{"a":1}{"a":1}',
    "half a document": b'{"a":',
    "nothing": b"",
    "no object": b"[1]",
    "null": b"null",
    "arrays in arrays, 100,000 deep": b"[" * DEEP + b"]" * DEEP,
    "objects in objects, 100,000 deep": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "arrays in arrays that never end": b"[" * DEEP,
}
# Plain JSON of any value is what this reader is for.
READ = {("canonical values", "no object"), ("canonical values", "null"), ("training rows", "nothing")}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("reader", READERS)
def test_json_that_lies_is_refused_by_type_with_its_file(reader: str, lie: str, tmp_path: Path) -> None:
    if (reader, lie) in READ:
        READERS[reader](tmp_path, LIES[lie])
        return
    with pytest.raises(StudbookError) as refused:
        READERS[reader](tmp_path, LIES[lie])
    assert isinstance(refused.value, BytesLie) or reader == "peft config", refused.value
    assert "." in refused.value.reason or reader == "policy", refused.value.reason
    assert refused.value.where or reader == "adapter meta"
    assert len(str(refused.value)) < 4096, "a refusal is read by people"


@pytest.mark.parametrize("reader", ["record", "canonical values", "listing", "adapter meta", "statement"])
def test_an_integer_that_f64_cannot_hold_is_refused_where_bytes_are_canonical(reader: str, tmp_path: Path) -> None:
    with pytest.raises(BytesLie):
        READERS[reader](tmp_path, b'{"a":9007199254740993}')


def test_the_same_value_in_another_spelling_is_refused_by_every_canonical_reader() -> None:
    for good, read in ((seeds.record_bytes()[0], read_record), (seeds.listings()[0], parse_listing)):
        read(good)
        value = json.loads(good)
        for other in (
            json.dumps(value).encode(),
            json.dumps(value, sort_keys=True, indent=1).encode(),
            good + b"\n",
            b" " + good,
            good.replace(b"/", b"\\/"),
            good.replace(b"a", b"\\u0061", 1),
        ):
            assert json.loads(other) == value
            with pytest.raises(BytesLie):
                read(other)
