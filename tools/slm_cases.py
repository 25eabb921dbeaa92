"""Write the shared table of container cases; with ``--check`` only say whether it is up to date.

    python tools/slm_cases.py [--check] [--folder tests/models]

``slm_cases.json`` is data for any host: small containers in base64, and for every case how its file is put together from
pieces of one of them, and either the rule that refuses it or the digests of what is read. Containers are packed here field
by field, so the table is a second opinion on `studbook.models.slm` and not an echo of it. Exit code 1 means stale.
"""

from __future__ import annotations

import argparse
import base64
import copy
import hashlib
import json
import math
import re
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from studbook.models.checksum import fnv1a64, mix_reference

__all__ = ["File", "Lie", "assembled", "document", "joined", "made", "main", "model_file", "pieces", "text"]

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "models"
START, MASK = 0xCBF29CE484222325, (1 << 64) - 1
HEADER, CHECKSUM_AT, GRID = 108, 100, 64
F32, Q8_0, Q4_0 = 1, 2, 3
HUGE = (1 << 64) - 64
NAN, INF, LARGEST = math.nan, math.inf, float.fromhex("0x1.fffffep127")
# Beside every lie in the table stand pairs of it with so many of the lies that are met after it.
PAIRED = 6
RUN = re.compile(rb"(.)\1{255,}", re.DOTALL)
EXPLAINED = {
    "case": "a file is the pieces one after the other: [from, to] copies bytes from..to-1 of the base (a container in "
    "base64), text is base64, [text, times] is base64 repeated. refused: the first rule that a reader names. Otherwise "
    "read: digests of the file, of its tokenizer section and of its layout, and the number of elements of all tensors.",
}
Edit = Callable[["File"], object]


def main(arguments: list[str] | None = None) -> int:
    """Write or check the table; returns the exit code."""
    parser = argparse.ArgumentParser(description="Write tests/models/slm_cases.json.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the table is stale")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args(arguments)
    path = options.folder / "slm_cases.json"
    found = text()
    if path.is_file() and path.read_text(encoding="utf-8") == found:
        return 0
    print(f"{'stale' if options.check else 'wrote'}: {path}")
    if not options.check:
        path.write_text(found, encoding="utf-8")
    return 1 if options.check else 0


# -- containers, field by field --------------------------------------------------------------------------------------


@dataclass
class File:
    """A container before it is packed.

    Attributes:
        head: Header fields by name; what stands here wins over what the layout gives.
        section: Fields, ``words``, ``merges`` and ``tail`` of the tokenizer section, or its ``raw`` bytes.
        entries: One dictionary a tensor: name, dtype, dims, payload, scales, block, and fields that lie.
        extension: Bytes of the header after byte 108.
        order: The places of the entries in the directory.
        gap: Zero bytes after the directory.
        stray: A byte after the tokenizer section, in its padding.
        last: The last byte, in the padding of the last tensor.
        cut: Length to which the packed file is cut before the checksum; below zero from the end.
        tail: Bytes added at the end before the checksum.
        checksum: What stands in its place; None for the true one.
    """

    head: dict[str, Any]
    section: dict[str, Any]
    entries: list[dict[str, Any]]
    extension: bytes = b""
    order: list[int] | None = None
    gap: int = 0
    stray: int = 0
    last: int = 0
    cut: int | None = None
    tail: bytes = b""
    checksum: int | None = None


_HEAD = (
    "magic", "version", "length", "model_type", "flags", "vocab", "special", "hidden", "layers", "heads", "kv_heads",
    "head_dim", "ffn", "context", "theta", "epsilon", "tokenizer_at", "tokenizer_length", "directory", "count", "data",
)  # fmt: skip


def assembled(file: File) -> bytes:
    """The bytes of a container, with everything true that does not lie on purpose."""
    length, section = HEADER + len(file.extension), section_bytes(**file.section)
    directory = align(length + len(section) + bool(file.stray))
    data = align(directory + GRID * len(file.entries)) + file.gap
    rows, blocks = _rows(file.entries, data)
    truth = {
        "magic": b"SLM1", "version": 1, "length": length, "model_type": 1, "special": 4, "tokenizer_at": length,
        "tokenizer_length": len(section), "directory": directory, "count": len(file.entries), "data": data,
    }  # fmt: skip
    fields = [(truth | file.head)[name] for name in _HEAD]
    out = bytearray(
        struct.pack("<4s13I2f3QI2Q", *fields, 0) + file.extension + section + bytes([file.stray] * bool(file.stray))
    )
    out = out.ljust(directory, b"\0") + b"".join(rows[i] for i in file.order or range(len(rows)))
    out = out.ljust(data, b"\0") + blocks
    out[-1] |= file.last
    return sealed(bytes(out)[: file.cut] + file.tail, file.checksum)


def _rows(entries: Sequence[dict[str, Any]], end: int) -> tuple[list[bytes], bytes]:
    rows, blocks, data = [], b"", end
    for entry in entries:
        end += entry.get("gap", 0)
        scale_at = align(end + len(entry["payload"]))
        scales = entry["scales"]
        truth: dict[str, Any] = {
            "hash": fnv1a64(entry["name"]), "rank": len(entry["dims"]), "at": end, "length": len(entry["payload"]),
            "scale_at": scale_at if scales else 0, "reserved": 0,
        }  # fmt: skip
        e = truth | entry
        dims = (*e["dims"], 0, 0, 0)[:4]
        rows.append(
            struct.pack(
                "<Q6I3Q2I", e["hash"], e["dtype"], e["rank"], *dims, e["at"], e["length"], e["scale_at"], e["block"],
                e["reserved"],
            )
        )  # fmt: skip
        blocks = blocks.ljust(end - data, b"\0") + entry["payload"]
        if scales:
            blocks = blocks.ljust(scale_at - data, b"\0") + scales
        end = align(data + len(blocks))
    return rows, blocks.ljust(end - data, b"\0")


def sealed(data: bytes, checksum: int | None) -> bytes:
    """The same with its checksum, by the plain form of the rule."""
    if len(data) < HEADER or len(data) > 1 << 24:
        return data
    zeroed = data[:CHECKSUM_AT] + bytes(8) + data[HEADER:]
    stated = (mix_reference(START, zeroed, 0) or 1) if checksum is None else checksum
    return data[:CHECKSUM_AT] + struct.pack("<Q", stated) + data[HEADER:]


def align(offset: int) -> int:
    """The next multiple of 64."""
    return -(-offset // GRID) * GRID


def draws(seed: int) -> Iterator[int]:
    """Numbers of 24 bits from XorShift64."""
    state = seed
    while True:
        state ^= state << 13 & MASK
        state ^= state >> 7
        state ^= state << 17 & MASK
        yield state >> 40


def tensor(name: str, dims: tuple[int, ...], dtype: int, stream: Iterator[int], block: int = 0) -> dict[str, Any]:
    """A tensor of drawn values, or of drawn codes and scales."""
    elements, rows = math.prod(dims), math.prod(dims[:-1])
    if dtype == F32:
        values = [(next(stream) - (1 << 23)) * 2.0**-24 for _ in range(elements)]
        return {"name": name, "dtype": dtype, "dims": dims, "payload": floats(*values), "scales": b"", "block": 0}
    block = dims[-1] if dtype == Q8_0 else block
    groups = rows if dtype == Q8_0 else elements // block
    codes = bytes(next(stream) & 255 for _ in range(elements if dtype == Q8_0 else elements // 2))
    scales = floats(*((next(stream) + 1) * 2.0**-30 for _ in range(groups)))
    return {"name": name, "dtype": dtype, "dims": dims, "payload": codes, "scales": scales, "block": block}


def floats(*values: float) -> bytes:
    """Little-endian f32 values."""
    return struct.pack(f"<{len(values)}f", *values)


def word(token: int, content: bytes, length: int | None = None) -> bytes:
    """One token record."""
    return struct.pack("<2I", token, len(content) if length is None else length) + content


def section_bytes(**parts: Any) -> bytes:
    """A tokenizer section: ``BPE1`` where there is a list of words, ``BTOK`` elsewhere."""
    if "raw" in parts:
        return bytes(parts["raw"])
    words, merges = parts.get("words"), parts.get("merges", ())
    count = len(words or ())
    fields = {"magic": b"BTOK" if words is None else b"BPE1", "version": 1, "vocab": 260 + count, "bos": 256, "eos": 257,
              "pad": 258, "unk": 259}  # fmt: skip
    if words is not None:
        fields |= {"tokens": count, "merge_count": len(merges)}
    values = [parts.get(name, value) for name, value in fields.items()]
    records = [*(words or ()), *(struct.pack("<4I", *merge) for merge in merges), parts.get("tail", b"")]
    return struct.pack(f"<4s{len(values) - 1}I", *values) + b"".join(records)


def pairs() -> dict[str, Any]:
    """A ``BPE1`` section of three words."""
    return {
        "words": [word(260, b"th"), word(261, b"the"), word(262, b"he")],
        "merges": [(116, 104, 260, 0), (260, 101, 261, 1), (104, 101, 262, 7)],
    }


def model_file(vocab: int, section: dict[str, Any], dtypes: Sequence[tuple[int, int]], **head: Any) -> File:
    """A small model: dtype and block of its tensors in turn, and header fields that differ."""
    shape: dict[str, Any] = {
        "vocab": vocab, "hidden": 4, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 2, "ffn": 4, "context": 8,
        "theta": 10000.0, "epsilon": 1e-5, "flags": 1,
    } | head  # fmt: skip
    h, f, kv = shape["hidden"], shape["ffn"], shape["kv_heads"] * shape["head_dim"]
    layer = {"attn_norm": (h,), "wq": (h, h), "wk": (kv, h), "wv": (kv, h), "wo": (h, h), "ffn_norm": (h,), "w1": (f, h),
             "w3": (f, h), "w2": (h, f)}  # fmt: skip
    names: dict[str, tuple[int, ...]] = {"tok_embeddings.weight": (vocab, h)}
    for n in range(shape["layers"]):
        names |= {f"layers.{n}.{part}.weight": dims for part, dims in layer.items()}
    names["norm.weight"] = (h,)
    if not shape["flags"]:
        names["output.weight"] = (vocab, h)
    stream = draws(7)
    kinds = [dtypes[i % len(dtypes)] for i in range(len(names))]
    tensors = [
        tensor(name, dims, dtype, stream, block)
        for (name, dims), (dtype, block) in zip(names.items(), kinds, strict=True)
    ]
    return File(shape, section, tensors)


BASES: dict[str, File] = {
    # Entries 0, 4 and 8 are q8_0, 1, 5 and 9 f32, the others q4_0; data begin at 960.
    "mixed": model_file(263, pairs(), [(Q8_0, 0), (F32, 0), (Q4_0, 4), (Q4_0, 2)]),
    "f32": model_file(260, {}, [(F32, 0)]),
    "untied": model_file(260, {}, [(Q8_0, 0)], flags=0, layers=2, heads=1, head_dim=4),
}


# -- lies -------------------------------------------------------------------------------------------------------------


class Lie(NamedTuple):
    """One rule broken.

    Attributes:
        rule: Its name.
        places: What is edited; two lies about one place do not go together.
        edit: The edit.
        base: What is edited.
    """

    rule: str
    places: frozenset[str]
    edit: Edit
    base: str = "mixed"


def of(index: int, **fields: Any) -> Edit:
    """Fields of an entry."""
    return lambda file: file.entries[index].update(fields)


def set_to(**fields: Any) -> Edit:
    """Attributes of the file."""

    def edit(file: File) -> None:
        for name, value in fields.items():
            setattr(file, name, value)

    return edit


def replaced(part: str, index: int, value: Any) -> Edit:
    """A word or a merge of the tokenizer section."""

    def edit(file: File) -> None:
        file.section[part][index] = value

    return edit


def all_of(*edits: Edit) -> Edit:
    """One edit after the other."""
    return lambda file: [edit(file) for edit in edits]


def head(rule: str, **fields: Any) -> Lie:
    """A header that lies."""
    return Lie(f"slm.{rule}", frozenset(fields), lambda file: file.head.update(fields))


def entry(index: int, rule: str, base: str = "mixed", **fields: Any) -> Lie:
    """An entry of the directory that lies, or whose payload or scales are others."""
    return Lie(f"slm.{rule}", frozenset(f"entry-{index}-{name}" for name in fields), of(index, **fields), base)


def whole(rule: str, **fields: Any) -> Lie:
    """A file of another length, with another checksum or with a byte in its padding."""
    return Lie(f"slm.{rule}", frozenset("size" if n in ("cut", "tail") else n for n in fields), set_to(**fields))


def poked(index: int, rule: str, part: str, value: bytes, at: int = 0) -> Lie:
    """A tensor with other bytes somewhere in its payload or scales."""
    old = BASES["mixed"].entries[index][part]
    return entry(index, rule, **{part: old[:at] + value + old[at + len(value) :]})


def told(rule: str, base: str = "mixed", **fields: Any) -> Lie:
    """A tokenizer section whose fields lie."""
    return Lie(f"tokenizer.{rule}", frozenset(f"section-{k}" for k in fields), lambda f: f.section.update(fields), base)


def record(rule: str, part: str, index: int, value: Any) -> Lie:
    """A tokenizer section with another word or merge."""
    return Lie(f"tokenizer.{rule}", frozenset({f"section-{part}-{index}"}), replaced(part, index, value))


SECTION = section_bytes(**pairs())
OUTPUT, WQ = fnv1a64("output.weight"), fnv1a64("layers.0.wq.weight")
# One long word as the output of 2,049 merges, each of another word "a" and one that has the rest.
LONG = section_bytes(
    words=[word(260, b"a" * 65_536), word(261, b"a" * 65_535), *(word(262 + i, b"a") for i in range(2049))],
    merges=[(262 + i, 261, 260, i) for i in range(2049)],
)
TOP = 2**32 - 1
CODES, SCALES = (BASES["mixed"].entries[0][part] for part in ("payload", "scales"))
LOW = b"\x80" * 1052, b"\x88" * 8
HIGH = b"\x7f" * 1052, b"\x77" * 8
# Every rule broken by itself, in the order in which a reader comes to them: what is met first refuses the file.
LIES: dict[str, Lie] = {
    "longer-than-any-file": whole("size", cut=64, tail=bytes(134_217_728)),
    "empty": whole("short", cut=0),
    "shorter-than-a-header": whole("short", cut=64),
    "cut-by-a-byte": whole("file-alignment", cut=-1),
    "longer-by-a-byte": whole("file-alignment", tail=b"\0"),
    "another-magic": head("magic", magic=b"SLM2"),
    "version-2": head("version", version=2),
    "version-0": head("version", version=0),
    "header-of-107": head("header-length", length=107),
    "header-longer-than-the-file": head("header-length", length=TOP),
    "model-type-2": head("model-type", model_type=2),
    "unknown-flag": head("flags", flags=3),
    "vocabulary-of-259": head("vocab", vocab=259),
    "three-special-tokens": head("special-tokens", special=3),
    "five-special-tokens": head("special-tokens", special=5),
    "hidden-0": head("hidden", hidden=0),
    "no-layers": head("layers", layers=0),
    "no-heads": head("heads", heads=0),
    "no-key-heads": head("kv-heads", kv_heads=0),
    "head-dim-0": head("head-dim", head_dim=0),
    "ffn-0": head("ffn", ffn=0),
    "no-context": head("context", context=0),
    "more-key-heads-than-heads": head("kv-heads.too-many", kv_heads=3),
    "key-heads-that-do-not-divide": head("kv-heads.divide", kv_heads=2, heads=3),
    "odd-head-dim": head("head-dim.odd", head_dim=3),
    "heads-that-do-not-fill-the-width": head("head-dim.product", head_dim=4),
    "heads-whose-product-wraps-round": head("head-dim.product", heads=2**31 + 2),
    "theta-nan": head("rope-theta", theta=NAN),
    "theta-infinite": head("rope-theta", theta=INF),
    "theta-0": head("rope-theta", theta=0.0),
    "theta-negative": head("rope-theta", theta=-1.0),
    "epsilon-nan": head("epsilon", epsilon=NAN),
    "epsilon-infinite": head("epsilon", epsilon=-INF),
    "epsilon-minus-0": head("epsilon", epsilon=-0.0),
    "section-beyond-the-end": head("tokenizer-range", tokenizer_length=10**6),
    "section-wraps-round": head("tokenizer-range", tokenizer_at=2**64 - 1, tokenizer_length=109),
    "directory-off-the-grid": head("directory-alignment", directory=260),
    "directory-beyond-the-end": head("directory-range", directory=2**20),
    "directory-wraps-round": head("directory-range", directory=HUGE),
    "four-billion-tensors": head("directory-range", count=TOP),
    "data-off-the-grid": head("data-alignment", data=1000),
    "data-beyond-the-end": head("data-range", data=2**20),
    "data-at-the-last-offset": head("data-range", data=HUGE),
    "a-tensor-too-many": head("tensor-count", count=12),
    "a-tensor-too-few": head("tensor-count", count=10),
    "two-layers-stated": head("tensor-count", layers=2),
    "four-billion-layers": head("tensor-count", layers=TOP),
    "section-in-the-header": head("overlap", tokenizer_at=107),
    "empty-section-in-the-header": head("overlap", tokenizer_at=50, tokenizer_length=0),
    "section-before-the-header": head("order", tokenizer_at=0, tokenizer_length=0),
    "section-after-the-directory": head("order", tokenizer_at=1024),
    "directory-in-the-section": head("overlap", directory=192),
    "data-in-the-directory": head("overlap", data=320),
    "data-where-the-directory-begins": head("overlap", data=256),
    "data-before-the-directory": head("order", data=64),
    "checksum-of-zero": whole("checksum.zero", checksum=0),
    "another-checksum": whole("checksum", checksum=1),
    "dtype-0": entry(0, "tensor.dtype", dtype=0),
    "dtype-4": entry(0, "tensor.dtype", dtype=4),
    "rank-0": entry(0, "tensor.rank", rank=0),
    "rank-5": entry(0, "tensor.rank", rank=5),
    "a-dimension-of-zero": entry(0, "tensor.dims-zero", dims=(263, 0)),
    "a-third-dimension": entry(0, "tensor.dims-unused", dims=(263, 4, 1), rank=2),
    "entry-reserved-in-use": entry(0, "tensor.reserved", reserved=1),
    "block-of-another-row": entry(0, "tensor.block-q8_0", block=2),
    "payload-short-by-one": entry(0, "payload.length", length=1051),
    "codes-that-wrap-round": entry(0, "payload.length", dims=(2**16,) * 4, block=2**16, length=0),
    "payload-off-the-grid": entry(0, "payload.alignment", at=1000),
    "payload-beyond-the-end": entry(0, "payload.range", at=2**20),
    "payload-wraps-round": entry(0, "payload.range", at=HUGE),
    "codes-to-the-last-offset": entry(0, "payload.range", dims=(TOP, 641, 6700417), block=6700417, length=2**64 - 1),
    "payload-in-the-directory": entry(0, "payload.before-data", at=448),
    "scales-off-the-grid": entry(0, "scale.alignment", scale_at=2052),
    "scales-beyond-the-end": entry(0, "scale.range", scale_at=2**20),
    "scales-wrap-round": entry(0, "scale.range", scale_at=HUGE),
    "scales-in-the-directory": entry(0, "scale.before-data", scale_at=448),
    "f32-with-a-block": entry(1, "tensor.block-f32", block=4),
    "f32-with-scales": entry(1, "scale.offset-f32", scale_at=4096),
    "four-huge-dimensions": entry(1, "payload.length", dims=(TOP,) * 4, length=4),
    "values-that-wrap-round": entry(1, "payload.length", dims=(2**31, 2**31, 4), length=0),
    "block-0": entry(2, "tensor.block-q4_0-odd", block=0),
    "block-odd": entry(2, "tensor.block-q4_0-odd", block=1),
    "block-that-does-not-divide": entry(2, "tensor.block-q4_0-divide", block=6),
    "nibbles-that-wrap-round": entry(2, "payload.length", dims=(2**31, 2**31, 8), block=8, length=2**64 - 1),
    "cut-by-a-block": whole("scale.range", cut=-64),
    "byte-after-the-section": whole("padding", stray=1),
    "scales-on-the-payload": entry(0, "overlap", scale_at=960),
    "two-payloads-in-one-place": entry(5, "overlap", at=3136),
    "byte-after-the-last-scales": whole("padding", last=1),
    "longer-by-zeros": whole("trailing", tail=bytes(64)),
    "longer-by-ones": whole("trailing", tail=b"\1" * 64),
    "section-of-nothing": told("magic", raw=b""),
    "section-of-another-kind": told("magic", magic=b"BPE2"),
    "section-shorter-than-its-head": told("length", raw=SECTION[:35]),
    "section-version-2": told("version", version=2),
    "section-vocabulary-of-259": told("vocab", vocab=259),
    "another-begin": told("special", bos=0),
    "another-unknown": told("special", unk=260),
    "a-token-too-many": told("token.count", tokens=4),
    "an-id-too-many": told("token.count", vocab=264),
    "two-billion-tokens": told("length", tokens=2**31, vocab=260 + 2**31),
    "token-of-a-special-id": record("token.range", "words", 0, word(259, b"th")),
    "token-beyond-the-vocabulary": record("token.range", "words", 0, word(263, b"th")),
    "token-of-no-bytes": record("token.empty", "words", 0, word(260, b"")),
    "token-to-the-end-of-everything": record("token.length", "words", 0, word(260, b"th", TOP)),
    "token-longer-than-any-text": record("token.long", "words", 0, word(260, b"a" * 65_537)),
    "one-token-twice": record("token.duplicate", "words", 1, word(260, b"the")),
    "section-ends-inside-a-record": told("token.length", raw=SECTION[:36] + word(260, b"t" * 20) + word(261, b"the")),
    "a-merge-too-many": told("merge.length", merge_count=4),
    "section-cut-by-a-byte": told("merge.length", raw=SECTION[:-1]),
    "a-merge-unstated": told("trailing", merge_count=2),
    "byte-after-the-merges": told("trailing", tail=b"\0"),
    "merge-of-a-special-id": record("merge.range", "merges", 1, (256, 101, 261, 1)),
    "merge-with-nothing": record("merge.range", "merges", 1, (260, 263, 261, 1)),
    "merge-to-nothing": record("merge.output", "merges", 1, (260, 101, 263, 1)),
    "merge-to-a-byte": record("merge.output", "merges", 1, (260, 101, 101, 1)),
    "merges-of-too-many-bytes": told("merge.long", raw=LONG),
    "merge-of-other-bytes": record("merge.bytes", "merges", 1, (101, 260, 261, 1)),
    "merge-of-fewer-bytes": record("merge.bytes", "merges", 1, (260, 101, 260, 1)),
    "one-pair-twice": record("merge.duplicate-pair", "merges", 2, (116, 104, 260, 7)),
    "one-rank-twice": record("merge.duplicate-rank", "merges", 2, (104, 101, 262, 1)),
    "bytes-section-cut": told("length", "f32", raw=section_bytes()[:-1]),
    "bytes-section-and-more": told("trailing", "f32", raw=section_bytes() + b"\0"),
    "bytes-section-version-0": told("version", "f32", version=0),
    "bytes-section-vocabulary-of-259": told("vocab", "f32", vocab=259),
    "bytes-section-another-end": told("special", "f32", eos=256),
    "bytes-section-vocabulary-of-261": told("vocab", "f32", vocab=261),
    "vocabulary-of-another-section": head("vocab.tokenizer", vocab=264),
    "a-tensor-nobody-knows": entry(4, "tensor.unknown", hash=1),
    "an-output-nobody-knows": entry(12, "tensor.unknown", "untied", hash=0),
    "one-tensor-twice": entry(9, "tensor.duplicate", hash=WQ),
    "two-outputs-beside-a-tied-embedding": Lie(
        "slm.tensor.duplicate",
        frozenset({"entry-8-hash", "entry-10-hash"}),
        all_of(of(8, hash=OUTPUT), of(10, hash=OUTPUT)),
    ),
    "an-output-beside-a-tied-embedding": entry(10, "tensor.missing", hash=OUTPUT),
    "a-vector-as-a-matrix": entry(1, "tensor.shape", dims=(4, 1)),
    "rows-and-columns-swapped": entry(3, "tensor.shape", dims=(4, 2)),
    "scale-nan": poked(0, "scale.non-finite", "scales", floats(NAN), 4),
    "scale-infinite": poked(0, "scale.non-finite", "scales", floats(INF), 1048),
    "scale-0": poked(0, "scale.non-positive", "scales", floats(0.0), 8),
    "scale-minus-0": poked(0, "scale.non-positive", "scales", floats(-0.0), 8),
    "scale-negative": poked(0, "scale.non-positive", "scales", floats(-1.0), 1048),
    "code-times-scale-infinite": entry(
        0, "product.non-finite", payload=b"\x80" + CODES[1:], scales=floats(LARGEST / 127) + SCALES[4:]
    ),
    "value-nan": poked(1, "payload.non-finite", "payload", floats(NAN), 12),
    "value-infinite": poked(1, "payload.non-finite", "payload", floats(-INF)),
    "nibble-scale-nan": poked(2, "scale.non-finite", "scales", floats(NAN), 12),
    "nibble-scale-negative": poked(2, "scale.non-positive", "scales", floats(-1.0)),
    "nibble-times-scale-infinite": entry(
        2, "product.non-finite", payload=b"\0" * 7 + b"\x8f", scales=floats(1, 1, 1, LARGEST / 7)
    ),
    "last-value-nan": poked(9, "payload.non-finite", "payload", floats(NAN), 60),
}
# What is unusual and yet within the rules: id -> base and edit.
GOOD: dict[str, tuple[str, Edit]] = {
    **{f"{name}-as-it-is": (name, all_of()) for name in BASES},
    "directory-in-another-order": ("mixed", set_to(order=list(range(11))[::-1])),
    "zeros-after-the-directory": ("mixed", set_to(gap=128)),
    "zeros-between-payloads": ("mixed", of(5, gap=64)),
    "a-longer-header": ("mixed", set_to(extension=b"bytes that nobody reads")),
    "the-lowest-codes": ("mixed", all_of(of(0, payload=LOW[0]), of(2, payload=LOW[1]))),
    "the-largest-scales": (
        "mixed",
        all_of(
            of(0, payload=LOW[0], scales=floats(LARGEST / 128) * 263),
            of(2, payload=LOW[1], scales=floats(LARGEST / 8) * 4),
        ),
    ),
    "scales-that-only-the-lowest-code-overflows": (
        "mixed",
        all_of(
            of(0, payload=HIGH[0], scales=floats(LARGEST / 127.5) * 263),
            of(2, payload=HIGH[1], scales=floats(LARGEST / 7.5) * 4),
        ),
    ),
    "the-smallest-scales": ("mixed", of(0, scales=floats(2.0**-149) * 263)),
    "values-at-the-edges": ("mixed", of(1, payload=floats(-0.0, 2.0**-149, LARGEST, -LARGEST))),
    "tokens-in-another-order": ("mixed", lambda file: file.section["words"].reverse()),
    "two-tokens-of-the-same-bytes": (
        "mixed",
        all_of(replaced("words", 2, word(262, b"th")), replaced("merges", 2, (262, 101, 261, 7))),
    ),
    "the-highest-rank": ("mixed", replaced("merges", 0, (116, 104, 260, TOP))),
    "two-ways-to-one-token": ("mixed", replaced("merges", 1, (116, 262, 261, 9))),
    "no-merges": ("mixed", lambda file: file.section.update(merges=[])),
    "pairs-without-words": ("f32", lambda file: file.section.update(words=[])),
}


# -- the table --------------------------------------------------------------------------------------------------------


def made(base: str, *edits: Edit) -> bytes:
    """The file of some edits of a base."""
    file = copy.deepcopy(BASES[base])
    for edit in edits:
        edit(file)
    return assembled(file)


def _pairs() -> Iterator[tuple[str, str]]:
    """Lies that go together, the one that is met first before the other; a raw section leaves no room for another lie."""
    ids = list(LIES)
    for place, one in enumerate(ids):
        later = [
            other for other in ids[place + 1 :]
            if LIES[one].rule not in ("slm.size", LIES[other].rule) and LIES[one].base == LIES[other].base
            and not LIES[one].places & LIES[other].places and "raw" not in "".join(LIES[one].places | LIES[other].places)
        ]  # fmt: skip
        yield from ((one, other) for other in later[:: max(1, len(later) // PAIRED)][:PAIRED])


def document() -> dict[str, Any]:
    """The table as plain JSON values."""
    bases = {name: assembled(file) for name, file in BASES.items()}
    cases = [_read(name, base, made(base, edit), bases[base]) for name, (base, edit) in GOOD.items()]
    for name, lie in LIES.items():
        cases.append(_refused(name, lie, made(lie.base, lie.edit), bases[lie.base]))
    for one, other in _pairs():
        first = LIES[one]
        data = made(first.base, first.edit, LIES[other].edit)
        cases.append(_refused(f"{one}+{other}", first, data, bases[first.base]))
    return {
        "explained": EXPLAINED,
        "bases": {name: base64.b64encode(data).decode() for name, data in bases.items()},
        "cases": cases,
    }


def _refused(name: str, lie: Lie, data: bytes, base: bytes) -> dict[str, Any]:
    return {"id": name, "base": lie.base, "pieces": pieces(data, base), "refused": lie.rule}


def _read(name: str, base: str, data: bytes, whole_base: bytes) -> dict[str, Any]:
    file = copy.deepcopy(BASES[base])
    GOOD[name][1](file)
    layout = [
        struct.pack("<QI4I", fnv1a64(e["name"]), len(e["dims"]), *(*e["dims"], 0, 0, 0)[:4]) for e in file.entries
    ]
    facts = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "tokenizer_sha256": hashlib.sha256(section_bytes(**file.section)).hexdigest(),
        "layout_sha256": hashlib.sha256(b"".join(layout)).hexdigest(),
        "parameter_count": sum(math.prod(e["dims"]) for e in file.entries),
    }
    return {"id": name, "base": base, "pieces": pieces(data, whole_base), "read": facts}


def pieces(data: bytes, base: bytes) -> list[Any]:
    """A file as pieces of a base and of its own; block by block, as nearly everything stands on the grid."""
    body = data.rstrip(b"\0")
    zeros = len(data) - len(body)
    if zeros > len(base):
        return [*pieces(body, base), [base64.b64encode(b"\0").decode(), zeros]]
    known = {base[at : at + GRID]: at for at in range(len(base) - GRID, -1, -GRID)}
    found: list[Any] = []
    own = b""
    for at in range(0, len(data), GRID):
        block = data[at : at + GRID]
        here = at if base[at : at + GRID] == block else known.get(block)
        if here is None or len(block) < GRID or not any(block):
            own += block
            continue
        found += _own(own)
        own = b""
        if found and isinstance(found[-1], list) and found[-1][1] == here:
            found[-1][1] += GRID
        else:
            found.append([here, here + GRID])
    return found + _own(own)


def _own(data: bytes) -> list[Any]:
    """Bytes as base64, long runs of one byte as such."""
    found: list[Any] = []
    at = 0
    for run in RUN.finditer(data):
        found += _text(data[at : run.start()])
        found.append([base64.b64encode(run[1]).decode(), len(run[0])])
        at = run.end()
    return found + _text(data[at:])


def _text(data: bytes) -> list[str]:
    return [base64.b64encode(data).decode()] if data else []


def joined(parts: Sequence[Any], base: bytes) -> bytes:
    """The file of a case."""
    out = []
    for part in parts:
        if isinstance(part, str):
            out.append(base64.b64decode(part, validate=True))
        elif isinstance(part[0], str):
            out.append(base64.b64decode(part[0], validate=True) * part[1])
        else:
            out.append(base[part[0] : part[1]])
    return b"".join(out)


def text() -> str:
    """The table as it stands in the file: one line a base and case."""
    parts = []
    for key, value in document().items():
        lines = [json.dumps(v) if isinstance(value, list) else f"{json.dumps(k)}: {json.dumps(v)}"
                 for k, v in (enumerate(value) if isinstance(value, list) else value.items())]  # fmt: skip
        edges = "[]" if isinstance(value, list) else "{}"
        parts.append(f'"{key}": {edges[0]}\n' + ",\n".join(lines) + f"\n{edges[1]}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    sys.exit(main())
