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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
    # As many elements as f32 in as many tensors: ffn 13 saves what one more key head's worth of rows would cost.
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
    shape = SlmShape(**{key: value for key, value in recipe.items() if key not in ("tokenizer", "dtype", "seed", "sha256")})
    stream, tensors = draws(recipe["seed"]), {}
    for spec in shape.tensors():
        values = [next(stream) + (len(spec.dims) == 1) for _ in range(spec.elements)]
        tensors[spec.name] = np.array(values, np.float32).reshape(spec.dims)
    tokenizer = ByteTokenizer() if recipe["tokenizer"] == "BTOK" else BpeTokenizer.build([], [])
    return write_slm(shape, tokenizer, tensors, recipe["dtype"])


@dataclass
class Entry:
    """One directory entry to be packed: a change of one tensor, with fields that may be overwritten by a lie."""

    name: str
    code: int
    dims: tuple[int, ...]
    payload: bytes
    count: int = 0
    alpha: float = 0.0
    lie: dict[str, Any] = field(default_factory=dict)


def package(model: Slm, entries: Sequence[Entry], **lie: Any) -> bytes:
    """A package of some entries for a model; ``lie`` overwrites header fields, ``meta`` and more before the checksum."""
    code = lie.get("code", entries[0].code)
    head: dict[str, Any] = {
        "magic": {1: b"ADP1", 2: b"ASP1", 3: b"ALR1"}[code], "version": 1, "header_length": 128,
        "flags": int(model.shape.tied), "tensor_count": model.shape.tensor_count, "entry_count": len(entries),
        "parameter_count": model.shape.parameter_count, "layout": bytes.fromhex(model.layout_sha256),
        "tokenizer": bytes.fromhex(model.tokenizer_sha256),
    }  # fmt: skip
    meta = lie.get("meta", json_bytes({**meta_of(model, entries, code), **lie.get("keys", {})}))
    directory = align(128 + len(meta))
    data = end = align(directory + 64 * len(entries))
    table, blocks = b"", b""
    for entry in entries:
        end += entry.lie.get("gap", 0)
        dims = (*entry.dims, 0, 0, 0)[:4]
        values = {"code": entry.code, "rank": len(entry.dims), "dims": dims, "at": end, "length": len(entry.payload)}
        values |= {"hash": fnv1a64(entry.name), "count": entry.count, "alpha": entry.alpha, "reserved": 0, **entry.lie}
        v = values
        table += struct.pack("<Q2I4I2QIfQ", v["hash"], v["code"], v["rank"], *v["dims"], v["at"], v["length"], v["count"],
                             v["alpha"], v["reserved"])  # fmt: skip
        blocks = blocks.ljust(end - data, b"\0") + entry.payload
        end = align(end + len(entry.payload))
    head |= {"meta_length": len(meta), "reserved": 0, "directory": directory, "data": data} | lie
    out = bytearray(struct.pack(
        "<4s5IQ32s32s2I3Q", *(head[key] for key in (
            "magic", "version", "header_length", "flags", "tensor_count", "entry_count", "parameter_count", "layout",
            "tokenizer", "meta_length", "reserved", "directory", "data")), 0))  # fmt: skip
    out += meta.ljust(directory - 128, b"\0") + table.ljust(data - directory, b"\0") + blocks.ljust(end - data, b"\0")
    for at, piece in lie.get("put", ()):
        out[at if at >= 0 else len(out) + at :][: len(piece)] = piece
        start = at if at >= 0 else len(out) + at
        out[start : start + len(piece)] = piece
    return sealed(bytes(out)[: lie.get("cut")] + lie.get("tail", b""))


def sealed(data: bytes) -> bytes:
    """The same with the right checksum, by the plain form of the rule."""
    if len(data) < 128:
        return data
    zeroed = data[:120] + bytes(8) + data[128:]
    return data[:120] + struct.pack("<Q", mix_reference(START, zeroed, 0) or 1) + data[128:]


def meta_of(model: Slm, entries: Sequence[Entry], code: int) -> dict[str, Any]:
    """The true meta block of a package for a model."""
    origin = hashlib.sha256(b"where the weights come from").hexdigest()
    kind = {1: "task-delta", 2: "task-delta", 3: "trained"}[code]
    meta: dict[str, Any] = {"base_sha256": BASE(), "licence": "CC0-1.0", "source": {"kind": kind, "tuned_sha256": origin}}
    if code == 2:
        indices = b"".join(entry.payload[: 4 * entry.count] for entry in entries)
        kept, total = sum(entry.count for entry in entries), model.shape.parameter_count
        share = f"{math.floor(kept * 10**9 / total + 0.5) / 10**9:.9f}".rstrip("0").rstrip(".")
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


def fused(values: Sequence[float], code: int, dims: Sequence[int], payload: bytes, count: int, alpha: float) -> list[float]:
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


def BASE() -> str:
    """Digest of the f32 model all packages are made for."""
    return MODELS["f32"].sha256


MODELS = {name: parse_slm(build_model(recipe)) for name, recipe in RECIPES.items()}
