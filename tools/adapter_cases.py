"""Write the shared table of adapter cases; with ``--check`` only say whether it is up to date.

    python tools/adapter_cases.py [--check] [--folder tests/adapters]

``cases.json`` is data for any host: recipes of small models, packages in base64, and for every case either the rule that
refuses it or the digests of what comes out. Packages are packed here field by field and fused values computed in plain
Python floats, so the table is a second opinion on `studbook.adapters` and not an echo of it. Exit code 1 means stale.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import math
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from studbook.models.bpe import BpeTokenizer
from studbook.models.checksum import fnv1a64, mix_reference
from studbook.models.shape import SlmShape
from studbook.models.slm import Slm, parse_slm, write_slm
from studbook.models.tokenizers import ByteTokenizer

__all__ = ["Entry", "build_model", "document", "fused", "main", "package", "text", "wide"]

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "adapters"
START, MASK = 0xCBF29CE484222325, (1 << 64) - 1
SHAPE = {
    "vocab_size": 260, "hidden_size": 8, "layer_count": 1, "head_count": 2, "kv_head_count": 1, "head_dim": 4,
    "ffn_size": 12, "max_context": 16, "rope_theta": 10000, "rms_norm_epsilon": 1e-05, "tied": True,
}  # fmt: skip
RECIPES: dict[str, dict[str, Any]] = {
    "f32": {**SHAPE, "tokenizer": "BTOK", "dtype": "f32", "seed": 7},
    "q8_0": {**SHAPE, "tokenizer": "BTOK", "dtype": "q8_0", "seed": 7},
    "q4_0": {**SHAPE, "tokenizer": "BTOK", "dtype": "q4_0", "seed": 7},
    "other-weights": {**SHAPE, "tokenizer": "BTOK", "dtype": "f32", "seed": 8},
    "other-tokenizer": {**SHAPE, "tokenizer": "BPE1", "dtype": "f32", "seed": 7},
    "untied": {**SHAPE, "tied": False, "tokenizer": "BTOK", "dtype": "f32", "seed": 7},
    "two-layers": {**SHAPE, "layer_count": 2, "tokenizer": "BTOK", "dtype": "f32", "seed": 7},
    "wider": {**SHAPE, "ffn_size": 14, "tokenizer": "BTOK", "dtype": "f32", "seed": 7},
}
EXPLAINED = {
    "recipe": "shape fields; tokenizer BTOK, or BPE1 without words and merges; dtype of every tensor; values in canonical "
    "tensor order, row-major, from XorShift64 (13, 7, 17) started with the seed: draw the next state s, then "
    "value = ((s >> 40) - 2^23) * 2^-24, and 1 + value for tensors of one dimension; exact in f32. Quantised by the rules "
    "of the container, written canonically; sha256 is the digest of the file.",
    "case": "apply the packages in order to the model, all or none. accepted: digest of a quantised build -> digest of the "
    "f32 model its verified receipt names. refused: which package (from 0), at which stage (read: the file alone; fit: "
    "against the model; fuse: fused values), by which rule; the model is then as before. Otherwise fused: SHA-256 of the "
    "little-endian f32 bytes of every fused tensor; state_sha256: SHA-256 over the raw digests, base first; after_detach: "
    "digest of the base file, which detaching gives back.",
}


def main(arguments: list[str] | None = None) -> int:
    """Write or check the table; returns the exit code."""
    parser = argparse.ArgumentParser(description="Write tests/adapters/cases.json.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the table is stale")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args(arguments)
    path = options.folder / "cases.json"
    if path.is_file() and path.read_text(encoding="utf-8") == text():
        return 0
    print(f"{'stale' if options.check else 'wrote'}: {path}")
    if not options.check:
        path.write_text(text(), encoding="utf-8")
    return 1 if options.check else 0


def draws(seed: int) -> Iterator[float]:
    """Multiples of 2^-24 in [-0.5, 0.5) from XorShift64."""
    state = seed
    while True:
        state ^= state << 13 & MASK
        state ^= state >> 7
        state ^= state << 17 & MASK
        yield ((state >> 40) - (1 << 23)) * 2.0**-24


def build_model(recipe: Mapping[str, Any]) -> bytes:
    """The file of a recipe."""
    shape = SlmShape(
        **{key: value for key, value in recipe.items() if key not in ("tokenizer", "dtype", "seed", "sha256")}
    )
    stream, tensors = draws(recipe["seed"]), {}
    for spec in shape.tensors():
        values = [next(stream) + (len(spec.dims) == 1) for _ in range(spec.elements)]
        tensors[spec.name] = np.array(values, np.float32).reshape(spec.dims)
    tokenizer = ByteTokenizer() if recipe["tokenizer"] == "BTOK" else BpeTokenizer.build([], [])
    return write_slm(shape, tokenizer, tensors, recipe["dtype"])


class Entry(NamedTuple):
    """One directory entry to be packed: what it does to one tensor, and fields overwritten by a lie."""

    name: str
    code: int
    dims: tuple[int, ...]
    payload: bytes
    amount: int = 0
    alpha: float = 0.0
    lie: Mapping[str, Any] = MappingProxyType({})

    def lying(self, **lie: Any) -> Entry:
        """The same with fields that do not tell the truth."""
        return self._replace(lie=lie)


def package(model: Slm, entries: Sequence[Entry], **lie: Any) -> bytes:
    """A package for a model.

    Args:
        model: Whose identity the header states.
        entries: What it holds.
        lie: Header fields that are overwritten; also ``meta`` (bytes), ``keys`` (of the meta block), ``put`` (offset and
            bytes, an offset below zero counts from the end), ``cut`` (a length) and ``tail`` (bytes), all before the
            checksum.
    """
    code = entries[0].code
    meta = lie.get("meta", json_bytes(meta_of(model, entries, code) | lie.get("keys", {})))
    directory = align(128 + len(meta))
    data = align(directory + 64 * len(entries))
    table, blocks = _places(entries, data)
    head: dict[str, Any] = {
        "magic": {1: b"ADP1", 2: b"ASP1", 3: b"ALR1"}[code], "version": 1, "header_length": 128,
        "flags": int(model.shape.tied), "tensor_count": model.shape.tensor_count, "entry_count": len(entries),
        "parameter_count": model.shape.parameter_count, "layout": bytes.fromhex(model.layout_sha256),
        "tokenizer": bytes.fromhex(model.tokenizer_sha256), "meta_length": len(meta), "reserved": 0,
        "directory": directory, "data": data,
    }  # fmt: skip
    fields = [lie.get(key, value) for key, value in head.items()]
    out = bytearray(struct.pack("<4s5IQ32s32s2I3Q", *fields, 0))
    out += meta.ljust(directory - 128, b"\0") + table.ljust(data - directory, b"\0") + blocks
    for at, piece in lie.get("put", ()):
        start = at % len(out)
        out[start : start + len(piece)] = piece
    return sealed(bytes(out)[: lie.get("cut")] + lie.get("tail", b""))


def _places(entries: Sequence[Entry], data: int) -> tuple[bytes, bytes]:
    table, blocks, end = b"", b"", data
    for entry in entries:
        end += entry.lie.get("gap", 0)
        truth: dict[str, Any] = {
            "hash": fnv1a64(entry.name), "code": entry.code, "rank": len(entry.dims),
            "dims": (*entry.dims, 0, 0, 0)[:4], "at": end, "length": len(entry.payload), "count": entry.amount,
            "alpha": entry.alpha, "reserved": 0,
        }  # fmt: skip
        h, code, rank, dims, *rest = (entry.lie.get(key, value) for key, value in truth.items())
        table += struct.pack("<Q6I2QIfQ", h, code, rank, *dims, *rest)
        blocks = blocks.ljust(end - data, b"\0") + entry.payload
        end = align(end + len(entry.payload))
    return table, blocks.ljust(end - data, b"\0")


def sealed(data: bytes) -> bytes:
    """The same with the right checksum, by the plain form of the rule."""
    if len(data) < 128:
        return data
    zeroed = data[:120] + bytes(8) + data[128:]
    return data[:120] + struct.pack("<Q", mix_reference(START, zeroed, 0) or 1) + data[128:]


def meta_of(model: Slm, entries: Sequence[Entry], code: int) -> dict[str, Any]:
    """The true meta block of a package for a model."""
    origin = hashlib.sha256(b"where the weights come from").hexdigest()
    source = {"kind": "trained" if code == 3 else "task-delta", "tuned_sha256": origin}
    meta: dict[str, Any] = {"base_sha256": MODELS["f32"].sha256, "licence": "CC0-1.0", "source": source}
    if code == 2:
        indices = b"".join(entry.payload[: 4 * entry.amount] for entry in entries)
        kept = sum(entry.amount for entry in entries)
        share = f"{kept / model.shape.parameter_count:.9f}".rstrip("0").rstrip(".")
        mask = {"rule": "by-hand", "seed": None, "sha256": hashlib.sha256(indices).hexdigest()}
        meta |= {"retention": share, "mask": mask}
    return meta


def json_bytes(value: Any) -> bytes:
    """Canonical JSON of what stands in a meta block: ASCII, sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def align(offset: int) -> int:
    """The next multiple of 64."""
    return -(-offset // 64) * 64


# -- fusion in plain floats ------------------------------------------------------------------------------------------


def f32(value: float) -> float:
    """Rounded to f32, ties to even; an overflow is infinite."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


def wide(model: Slm, name: str) -> list[float]:
    """Elements of a tensor before any rounding: values, or code * scale in double precision."""
    tensor = model.tensors[name]
    if tensor.dtype == "f32":
        return [float(v) for v in tensor.values]
    columns, scales = tensor.columns, tensor.scales.reshape(-1).tolist()
    per = columns if tensor.dtype == "q8_0" else tensor.block
    return [float(code) * scales[i // per] for i, code in enumerate(tensor.codes.reshape(-1).tolist())]


def fused(
    values: Sequence[float], code: int, dims: Sequence[int], payload: bytes, count: int, alpha: float
) -> list[float]:
    """What an entry makes of a tensor, one float operation at a time."""
    if code == 1:
        return [f32(w + d) for w, d in zip(values, floats(payload), strict=True)]
    if code == 2:
        out = [f32(w) for w in values]
        indices = struct.unpack(f"<{count}I", payload[: 4 * count])
        for i, d in zip(indices, floats(payload[4 * count :]), strict=True):
            out[i] = f32(values[i] + d)
        return out
    rows, columns = dims
    numbers = floats(payload)
    a, b = numbers[: count * columns], numbers[count * columns :]
    scale, out = f32(alpha) / count, []
    for row in range(rows):
        for column in range(columns):
            acc = b[row * count] * a[column]
            for k in range(1, count):
                acc = acc + b[row * count + k] * a[k * columns + column]
            out.append(f32(values[row * columns + column] + scale * acc))
    return out


def floats(data: bytes) -> tuple[float, ...]:
    """Little-endian f32 values."""
    return struct.unpack(f"<{len(data) // 4}f", data)


def packed(values: Sequence[float]) -> bytes:
    """The same the other way."""
    return struct.pack(f"<{len(values)}f", *values)


# -- the table -------------------------------------------------------------------------------------------------------


MODELS = {name: parse_slm(build_model(recipe)) for name, recipe in RECIPES.items()}
WQ, W2, NORM, EMBEDDING = "layers.0.wq.weight", "layers.0.w2.weight", "norm.weight", "tok_embeddings.weight"
DIMS = {WQ: (8, 8), W2: (8, 12), NORM: (8,), EMBEDDING: (260, 8)}
OUTPUT = fnv1a64("output.weight")
NAN, INF = math.nan, math.inf


def dense(name: str, seed: int, size: float = 0.125) -> Entry:
    """A dense change drawn from a seed."""
    stream = draws(seed)
    return Entry(name, 1, DIMS[name], packed([next(stream) * size for _ in range(math.prod(DIMS[name]))]))


def sparse(name: str, indices: Sequence[int], values: Sequence[float]) -> Entry:
    """A sparse change."""
    return Entry(name, 2, DIMS[name], struct.pack(f"<{len(indices)}I", *indices) + packed(values), len(indices))


def low_rank(name: str, rank: int, seed: int, alpha: float, size: float = 1.0) -> Entry:
    """A low-rank change drawn from a seed."""
    stream = draws(seed)
    values = [next(stream) * size for _ in range(rank * sum(DIMS[name]))]
    return Entry(name, 3, DIMS[name], packed(values), rank, alpha)


D, D2 = dense(WQ, 11), dense(NORM, 12)
S = sparse(WQ, (0, 5, 17, 63), (0.25, -0.5, 1e-3, 3.0))
L = low_rank(WQ, 3, 13, 6.5)
GOOD: dict[str, list[Entry]] = {
    "dense": [D],
    "dense-again": [dense(WQ, 19, 0.75)],
    "dense-three-tensors": [dense(EMBEDDING, 14, 0.01), D, D2],
    "dense-subnormal": [Entry(NORM, 1, (8,), packed([2.0**-149, -(2.0**-149), 2.0**-126, 0.0, -0.0, 1.0, -1.0, 0.5]))],
    "dense-cancels": [Entry(WQ, 1, (8, 8), packed([-f32(w) for w in wide(MODELS["f32"], WQ)]))],
    "dense-large": [Entry(NORM, 1, (8,), packed([3e38] * 8))],
    "sparse": [S],
    "sparse-last-row": [sparse(EMBEDDING, (0, 2078, 2079), (1e-4, 1e-5, -1e-6))],
    "sparse-two-tensors": [sparse(W2, (3, 95), (0.1, 0.2)), sparse(NORM, (7,), (-0.0,))],
    "low-rank-1": [low_rank(WQ, 1, 15, 1.0)],
    "low-rank-3": [L],
    "low-rank-full": [low_rank(WQ, 8, 16, 16.0)],
    "low-rank-wide": [low_rank(W2, 5, 17, -0.7)],
    "low-rank-embedding": [low_rank(EMBEDDING, 2, 18, 0.1)],
    "low-rank-alpha-zero": [L._replace(alpha=0.0)],
    "low-rank-large": [low_rank(WQ, 1, 15, 1.0, 1e25)],
    "gap": [D, D2.lying(gap=64)],
}
PACKAGES: dict[str, bytes] = {name: package(MODELS["f32"], entries) for name, entries in GOOD.items()}
# What applies: id -> model and the packages in order.
APPLIED: dict[str, tuple[str, list[str]]] = {
    **{f"f32-{name}": ("f32", [name]) for name in GOOD if name != "low-rank-large"},
    **{f"{kind}-{name}": (kind, [name]) for kind in ("q8_0", "q4_0")
       for name in ("dense-three-tensors", "sparse", "sparse-two-tensors", "low-rank-3", "low-rank-wide")},
    "stack-of-two": ("f32", ["dense", "low-rank-3"]),
    "stack-of-two-the-other-way": ("f32", ["low-rank-3", "dense"]),
    "stack-of-all-kinds-q8_0": ("q8_0", ["sparse", "low-rank-3", "dense-three-tensors"]),
    "stack-of-all-kinds-q4_0": ("q4_0", ["dense-three-tensors", "sparse-two-tensors", "low-rank-wide"]),
    "stack-with-one-twice": ("f32", ["dense-again", "dense-again"]),
    "stack-on-other-tensors": ("f32", ["sparse-last-row", "low-rank-wide"]),
}  # fmt: skip
META = meta_of(MODELS["f32"], [D], 1)
SPARSE_META = meta_of(MODELS["f32"], [S], 2)
BYTES = json_bytes(META)
UNSORTED = json.dumps(dict(reversed(META.items())), separators=(",", ":")).encode()
SPARSE_BYTES = json_bytes(SPARSE_META)
SOURCE, SPARSE_MASK = META["source"], SPARSE_META["mask"]


def indexed(*indices: int) -> list[Entry]:
    """A sparse change of ones at these indices."""
    return [sparse(WQ, indices, [1.0] * len(indices))]


def poked(entry: Entry, place: int, value: float) -> list[Entry]:
    """The entry with one f32 of its payload overwritten."""
    payload = entry.payload[: 4 * place] + packed([value]) + entry.payload[4 * place + 4 :]
    return [entry._replace(payload=payload)]


# A lie in the file: id -> rule, entries, what is overwritten. Sealed again, so that the rule that is meant is met.
LIES: dict[str, tuple[str, list[Entry], dict[str, Any]]] = {
    "empty": ("short", [D], {"cut": 0}),
    "shorter-than-a-header": ("short", [D], {"cut": 64}),
    "cut-by-a-byte": ("file-alignment", [D], {"cut": -1}),
    "longer-by-a-byte": ("file-alignment", [D], {"tail": b"\0"}),
    "cut-by-a-block": ("payload.range", [D], {"cut": -64}),
    "cut-in-the-directory": ("directory-range", [D, D2], {"cut": 384}),
    "longer-by-zeros": ("trailing", [D], {"tail": bytes(64)}),
    "longer-by-ones": ("trailing", [D], {"tail": b"\1" * 64}),
    "another-magic": ("magic", [D], {"magic": b"SLM1"}),
    "version-2": ("version", [D], {"version": 2}),
    "header-of-192": ("header-length", [D], {"header_length": 192}),
    "unknown-flag": ("flags", [D], {"flags": 3}),
    "no-entries": ("entry-count", [D], {"entry_count": 0}),
    "more-entries-than-tensors": ("entry-count", [D], {"entry_count": 12}),
    "fewer-entries-than-places": ("data-offset", [D, D2], {"entry_count": 1}),
    "four-billion-entries": ("data-offset", [D], {"entry_count": 2**32 - 1, "tensor_count": 2**32 - 1}),
    "no-parameters": ("parameter-count", [D], {"parameter_count": 0}),
    "reserved-in-use": ("reserved", [D], {"reserved": 1}),
    "meta-beyond-the-file": ("meta-length", [D], {"meta_length": 60_000}),
    "meta-of-four-gigabytes": ("meta-length", [D], {"meta_length": 2**32 - 1}),
    "directory-one-block-late": ("directory-offset", [D], {"directory": 448}),
    "directory-wraps-round": ("directory-offset", [D], {"directory": 2**64 - 64}),
    "data-off-the-grid": ("data-offset", [D], {"data": 449}),
    "meta-with-a-space": ("meta.json", [D], {"meta": BYTES.replace(b":", b": ", 1)}),
    "meta-key-twice": ("meta.json", [D], {"meta": BYTES[:-1] + b',"source":{}}'}),
    "meta-keys-unsorted": ("meta.json", [D], {"meta": UNSORTED}),
    "meta-with-nan": ("meta.json", [D], {"meta": BYTES.replace(b'"CC0-1.0"', b"NaN")}),
    "meta-not-utf-8": ("meta.json", [D], {"meta": BYTES.replace(b"CC0", b"CC\xff")}),
    "meta-empty": ("meta.json", [D], {"meta": b""}),
    "meta-is-a-list": ("meta.keys", [D], {"meta": b"[]"}),
    "meta-without-licence": ("meta.keys", [D], {"meta": json_bytes({k: v for k, v in META.items() if k != "licence"})}),
    "meta-with-another-key": ("meta.keys", [D], {"keys": {"note": "x"}}),
    "sparse-without-mask": ("meta.keys", [S], {"meta": BYTES}),
    "dense-with-mask": ("meta.keys", [D], {"keys": {"mask": SPARSE_MASK, "retention": "1"}}),
    "base-in-capitals": ("meta.base", [D], {"keys": {"base_sha256": "A" * 64}}),
    "licence-with-a-newline": ("meta.licence", [D], {"keys": {"licence": "CC0-1.0\n"}}),
    "source-of-another-kind": ("meta.source", [D], {"keys": {"source": SOURCE | {"kind": "found"}}}),
    "source-without-digests": ("meta.source", [D], {"keys": {"source": {"kind": "trained"}}}),
    "meta-with-a-fraction": ("meta.json", [S], {"keys": {"retention": 0.5}}),
    "meta-with-an-exponent": ("meta.json", [S], {"keys": {"retention": 1e30}}),
    "meta-with-2-to-the-53": ("meta.json", [S], {"keys": {"retention": 2**53}}),
    "meta-with-minus-zero": ("meta.json", [S], {"meta": SPARSE_BYTES.replace(b'"seed":null', b'"seed":-0')}),
    "meta-32-deep": ("meta.licence", [D], {"meta": BYTES.replace(b'"CC0-1.0"', b"[" * 31 + b"]" * 31)}),
    "meta-33-deep": ("meta.json", [D], {"meta": BYTES.replace(b'"CC0-1.0"', b"[" * 32 + b"]" * 32)}),
    "meta-60000-deep": ("meta.json", [D], {"meta": b"[" * 60_000}),
    "meta-with-an-escape-too-many": ("meta.json", [D], {"meta": BYTES.replace(b"CC0", b"CC\\u0030")}),
    "meta-with-half-a-pair": ("meta.json", [D], {"meta": BYTES.replace(b"CC0", b"CC\\ud800")}),
    "meta-with-an-overlong-character": ("meta.json", [D], {"meta": BYTES.replace(b"CC0", b"CC\xc0\x80")}),
    "meta-with-escapes-in-a-key": ("meta.keys", [D], {"meta": b'{"\\n":0,"\\u001f":0,"\\"":0,"a":true}'}),
    "meta-keys-in-order-of-utf-16": ("meta.keys", [D], {"meta": '{"\U00010000":0,"\ue000":0}'.encode()}),
    "meta-keys-in-order-of-utf-8": ("meta.json", [D], {"meta": '{"\ue000":0,"\U00010000":0}'.encode()}),
    "retention-as-a-number": ("meta.retention", [S], {"keys": {"retention": 1}}),
    "retention-with-zeros": ("meta.retention", [S], {"keys": {"retention": SPARSE_META["retention"] + "0"}}),
    "mask-seed-true": ("meta.mask", [S], {"keys": {"mask": SPARSE_MASK | {"seed": True}}}),
    "mask-without-rule": ("meta.mask", [S], {"keys": {"mask": {"seed": None, "sha256": SPARSE_MASK["sha256"]}}}),
    "dense-in-a-sparse-file": ("entry.kind", [D], {"magic": b"ASP1", "meta": json_bytes(SPARSE_META)}),
    "sparse-in-a-dense-file": ("entry.kind", [S], {"magic": b"ADP1", "meta": BYTES}),
    "kind-4": ("entry.kind", [D.lying(code=4)], {}),
    "rank-0": ("entry.rank", [D.lying(rank=0)], {}),
    "rank-5": ("entry.rank", [D.lying(rank=5)], {}),
    "a-dimension-of-zero": ("entry.dims-zero", [D.lying(dims=(8, 0, 0, 0))], {}),
    "a-third-dimension": ("entry.dims-unused", [D.lying(dims=(8, 8, 1, 0))], {}),
    "entry-reserved-in-use": ("entry.reserved", [D.lying(reserved=1)], {}),
    "factors-of-a-vector": ("entry.matrix", [L.lying(rank=1, dims=(8, 0, 0, 0))], {}),
    "dense-with-a-count": ("entry.count", [D.lying(count=64)], {}),
    "sparse-with-nothing": ("entry.count", [sparse(WQ, (), ())], {}),
    "sparse-with-more-than-all": ("entry.count", [S.lying(count=65)], {}),
    "rank-zero-factors": ("entry.count", [L.lying(count=0)], {}),
    "rank-above-the-matrix": ("entry.count", [L.lying(count=9)], {}),
    "alpha-nan": ("entry.alpha", [L._replace(alpha=NAN)], {}),
    "alpha-infinite": ("entry.alpha", [L._replace(alpha=-INF)], {}),
    "dense-with-alpha": ("entry.alpha", [D._replace(alpha=1.0)], {}),
    "one-tensor-twice": ("entry.duplicate", [D, D], {}),
    "sparse-count-below-its-bytes": ("payload.length", [S.lying(count=3)], {}),
    "rank-below-its-bytes": ("payload.length", [L.lying(count=2)], {}),
    "length-short-by-four": ("payload.length", [D.lying(length=252)], {}),
    "factors-of-the-transposed-shape": ("payload.length", [L.lying(dims=(8, 12, 0, 0))], {}),
    "four-huge-dimensions": ("payload.length", [D.lying(rank=4, dims=(2**32 - 1,) * 4)], {}),
    "payload-off-the-grid": ("payload.alignment", [D.lying(at=452)], {}),
    "payload-beyond-the-end": ("payload.range", [D.lying(at=4096)], {}),
    "payload-wraps-round": ("payload.range", [D.lying(at=2**64 - 64)], {}),
    "payload-in-the-directory": ("payload.before-data", [D.lying(at=384)], {}),
    "two-payloads-in-one-place": ("overlap", [D, D2.lying(at=512)], {}),
    "byte-after-the-meta-block": ("padding", [D], {"put": ((383, b"\1"),)}),
    "byte-after-the-payload": ("padding", [D2], {"put": ((-1, b"\1"),)}),
    "nan-in-a-dense-delta": ("payload.non-finite", poked(D, 63, NAN), {}),
    "nan-in-a-sparse-delta": ("payload.non-finite", poked(S, 5, NAN), {}),
    "infinity-in-a-factor": ("payload.non-finite", poked(L, 40, INF), {}),
    "index-out-of-range": ("index.range", indexed(1, 64), {}),
    "index-of-four-billion": ("index.range", indexed(2**32 - 1), {}),
    "indices-unsorted": ("index.order", indexed(5, 4), {}),
    "index-twice": ("index.order", indexed(4, 4), {}),
    "retention-of-a-half": ("retention", [S], {"keys": {"retention": "0.5"}}),
    "mask-of-another": ("mask", [S], {"keys": {"mask": SPARSE_MASK | {"sha256": "0" * 64}}}),
}  # fmt: skip
F32 = MODELS["f32"]
# A package that does not fit: id -> stage, rule, model it is applied to, packages in order. Values are bytes or a name.
MISFITS: dict[str, tuple[str, str, str, list[str | bytes]]] = {
    "tied-package-on-an-untied-model": ("fit", "model.flags", "untied", ["dense"]),
    "flags-of-an-untied-model": ("fit", "model.flags", "f32", [package(F32, [D], flags=0)]),
    "package-of-fewer-layers": ("fit", "model.tensor-count", "two-layers", ["dense"]),
    "one-tensor-too-many": ("fit", "model.tensor-count", "f32", [package(F32, [D], tensor_count=12)]),
    "package-of-another-width": ("fit", "model.parameter-count", "wider", ["dense"]),
    "one-parameter-too-few": ("fit", "model.parameter-count", "f32", [package(F32, [D], parameter_count=2583)]),
    "layout-of-another": ("fit", "model.layout", "f32", [package(F32, [D], layout=b"\1" * 32)]),
    "package-of-another-tokenizer": ("fit", "model.tokenizer", "other-tokenizer", ["dense"]),
    "tokenizer-of-another": ("fit", "model.tokenizer", "f32", [package(F32, [D], tokenizer=b"\1" * 32)]),
    "package-of-other-weights": ("fit", "model.base", "other-weights", ["dense"]),
    "base-of-another": ("fit", "model.base", "f32", [package(F32, [D], keys={"base_sha256": "1" * 64})]),
    "quantised-without-a-receipt": ("fit", "model.base", "q8_0", ["dense"]),
    "a-tensor-nobody-knows": ("fit", "tensor.unknown", "f32", [package(F32, [D.lying(hash=1)])]),
    "an-output-beside-a-tied-embedding": ("fit", "tensor.unknown", "f32", [package(F32, [D.lying(hash=OUTPUT)])]),
    "entries-out-of-order": ("fit", "tensor.order", "f32", [package(F32, [D2, D])]),
    "rows-and-columns-swapped": ("fit", "tensor.shape", "f32", [package(F32, [dense(W2, 5).lying(dims=(12, 8, 0, 0))])]),
    "a-matrix-for-a-vector": ("fit", "tensor.shape", "f32", [package(F32, [D.lying(hash=fnv1a64(NORM))])]),
    "misfit-on-top-of-a-good-one": ("fit", "tensor.order", "f32", ["sparse", package(F32, [D2, D])]),
    "low-rank-overflow": ("fuse", "fused.non-finite", "f32", ["low-rank-large"]),
    "stack-overflow": ("fuse", "fused.non-finite", "f32", ["dense-large", "dense-large"]),
}  # fmt: skip


def document() -> dict[str, Any]:
    """The table as plain JSON values."""
    packages = dict(PACKAGES)
    cases = [_applied(name, model, stack) for name, (model, stack) in APPLIED.items()]
    whole = PACKAGES["dense"]
    packages |= {"a-flipped-byte": whole[:-1] + b"\1", "a-checksum-of-zero": whole[:120] + bytes(8) + whole[128:]}
    packages |= {name: package(F32, entries, **lie) for name, (_, entries, lie) in LIES.items()}
    rules = {
        "a-flipped-byte": "checksum",
        "a-checksum-of-zero": "checksum.zero",
        **{n: lie[0] for n, lie in LIES.items()},
    }
    cases += [_refused(name, "f32", [name], "read", rule) for name, rule in rules.items()]
    for name, (stage, rule, model, stack) in MISFITS.items():
        for item in stack:
            packages[item if isinstance(item, str) else name] = PACKAGES[item] if isinstance(item, str) else item
        cases.append(_refused(name, model, [item if isinstance(item, str) else name for item in stack], stage, rule))
    lying = {MODELS["q8_0"].sha256: MODELS["other-weights"].sha256}
    cases.append(_refused("receipt-of-other-weights", "q8_0", ["dense"], "fit", "model.base") | {"accepted": lying})
    return {
        "explained": EXPLAINED,
        "models": {name: {**recipe, "sha256": MODELS[name].sha256} for name, recipe in RECIPES.items()},
        "packages": {name: base64.b64encode(data).decode() for name, data in packages.items()},
        "cases": cases,
    }


def _applied(name: str, model: str, stack: Sequence[str]) -> dict[str, Any]:
    slm, resident = MODELS[model], dict[str, list[float]]()
    for item in stack:
        for e in GOOD[item]:
            start = resident.get(e.name) or wide(slm, e.name)
            resident[e.name] = fused(start, e.code, e.dims, e.payload, e.amount, e.alpha)
    digests = [slm.sha256, *(hashlib.sha256(PACKAGES[item]).hexdigest() for item in stack)]
    return {
        "id": name, "model": model, "accepted": {} if model == "f32" else {slm.sha256: F32.sha256}, "packages": list(stack),
        "fused": {tensor: hashlib.sha256(packed(values)).hexdigest() for tensor, values in resident.items()},
        "state_sha256": hashlib.sha256(bytes.fromhex("".join(digests))).hexdigest(), "after_detach": slm.sha256,
    }  # fmt: skip


def _refused(name: str, model: str, stack: list[str], stage: str, rule: str) -> dict[str, Any]:
    refused = {"package": len(stack) - 1, "stage": stage, "rule": f"adapter.{rule}"}
    return {"id": name, "model": model, "accepted": {}, "packages": stack, "refused": refused}


def text() -> str:
    """The table as it stands in the file: one line a model, package and case."""
    parts = []
    for key, value in document().items():
        lines = [json.dumps(v) if isinstance(value, list) else f"{json.dumps(k)}: {json.dumps(v)}"
                 for k, v in (enumerate(value) if isinstance(value, list) else value.items())]  # fmt: skip
        edges = "[]" if isinstance(value, list) else "{}"
        parts.append(f'"{key}": {edges[0]}\n' + ",\n".join(lines) + f"\n{edges[1]}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    sys.exit(main())
