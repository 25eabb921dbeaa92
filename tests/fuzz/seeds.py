"""Good files of every kind, small, made by the project's own writers: where a fuzzer begins."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import inspect as types

from checkpoint_fixtures import CONFIG, safetensors_bytes, tokenizer_json
from studbook.adapters.changes import Change, Dense, LowRank, Sparse
from studbook.adapters.writer import write_adapter
from studbook.evaluation.items import items_sha256
from studbook.evaluation.scoring import KINDS as SCORERS
from studbook.evaluation.templates import example_items
from studbook.ledger.note import origin_of, write_checkpoint
from studbook.ledger.proofs import write_consistency, write_inclusion
from studbook.models.bpe import BpeTokenizer
from studbook.models.checkpoint_folder import FileEntry, listing_bytes
from studbook.models.shape import SlmShape
from studbook.models.slm import write_slm
from studbook.models.tokenizers import ByteTokenizer
from studbook.models.trained_files import trained_source_manifest
from studbook.records import KINDS, Record, canonical, write_record
from studbook.seal import SigningKey, seal
from studbook.seal.statement import write_statement

EXAMPLES = Path(__file__).parents[2] / "examples"
SHA = "a" * 64
INCLUSION = b"c2sp.org/tlog-proof@v1\n"
HIDDEN, FFN, ROWS = 4, 4, 8
# One text for every pattern that a field of a record has.
TEXTS = ("text", SHA, "2030-01-31", "2030-01-31T00:00:00.000000Z", "2030-01-31T00:00:00Z", "1", "10 -3", "1.0.0")


@cache
def shape() -> SlmShape:
    return SlmShape(260, 4, 1, 2, 1, 2, 4, 8, 10000.0, 1e-5, True)


@cache
def values(seed: int = 3) -> Mapping[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {spec.name: random.standard_normal(spec.dims).astype(np.float32) for spec in shape().tensors()}


@cache
def merging_tokenizer() -> BpeTokenizer:
    words = (b"ab", b"abc", b"\xc3\xa4")
    return BpeTokenizer.build(words, [(97, 98, 260, 0), (260, 99, 261, 1), (0xC3, 0xA4, 262, 7)])


def containers() -> list[bytes]:
    mixed = {name: "f32" if "norm" in name else "q4_0" for name in values()} | {"tok_embeddings.weight": "q8_0"}
    wide = SlmShape(263, 4, 1, 2, 1, 2, 4, 8, 10000.0, 1e-5, False)
    more = {spec.name: np.ones(spec.dims, np.float32) for spec in wide.tensors()}
    return [
        write_slm(shape(), ByteTokenizer(), values(), mixed),
        write_slm(wide, merging_tokenizer(), more, "q8_0"),
        write_slm(wide, merging_tokenizer(), more, "f32"),
    ]


def container_around(section: bytes) -> bytes:
    """A container with any tokenizer section; true beside it where its vocabulary is small."""
    vocab = min(max(int.from_bytes(section[8:12], "little"), 260), 600)
    model = SlmShape(vocab, 2, 1, 1, 1, 2, 2, 8, 10000.0, 1e-5, True)
    tensors = {spec.name: np.ones(spec.dims, np.float32) for spec in model.tensors()}
    raw: Any = SimpleNamespace(vocab_size=vocab, section=lambda: section)
    return write_slm(model, raw, tensors)


def packages() -> list[bytes]:
    name = "layers.0.wq.weight"
    dims = values()[name].shape
    rows, columns = dims
    changes: list[tuple[Change, str, int | None]] = [
        (Dense(values()[name]), "", None),
        (Sparse(dims, np.array([0, 3, 5], np.uint32), np.array([1, -1, 2], np.float32)), "top/tensor/0.1", None),
        (Sparse(dims, np.array([1], np.uint32), np.array([1], np.float32)), "random/0.1", 7),
        (LowRank(np.ones((2, columns), np.float32), np.ones((rows, 2), np.float32), 4.0), "", None),
    ]
    tokenizer = ByteTokenizer().sha256
    return [
        write_adapter(
            shape(), tokenizer, {name: change}, base_sha256=SHA, licence="CC0-1.0", kind="trained",
            digests={"data_sha256": SHA}, rule=rule, seed=seed,
        )
        for change, rule, seed in changes
    ]  # fmt: skip


def sections() -> list[bytes]:
    return [ByteTokenizer().section(), merging_tokenizer().section(), BpeTokenizer.build((), ()).section()]


def weights() -> dict[str, tuple[str, np.ndarray]]:
    return {
        "a.weight": ("F32", np.arange(8, dtype=np.float32).reshape(2, 4)),
        "b.weight": ("BF16", np.arange(4, dtype=np.uint16)),
        "c": ("I64", np.arange(1, dtype=np.int64)),
    }


def tensor_files() -> list[bytes]:
    return [safetensors_bytes(weights()), safetensors_bytes({"x": ("F16", np.ones((1, 1, 1), np.float16))})]


def tensor_headers() -> list[bytes]:
    found = []
    for data in tensor_files():
        (length,) = struct.unpack("<Q", data[:8])
        found.append((len(data) - 8 - length).to_bytes(2, "little") + data[8 : 8 + length])
    return found


@cache
def signer() -> SigningKey:
    """A key of a fixed secret: corpora are the same bytes on every machine."""
    return SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))


@cache
def records() -> tuple[Record, ...]:
    """One record of every kind, with one element in every list."""
    return tuple(msgspec.convert(smallest(types.type_info(kind)), kind) for kind in KINDS.values())


def smallest(info: types.Type) -> Any:
    """A plain value that a field of this type may hold."""
    match info:
        case types.Metadata(type=inner):
            return smallest(inner)
        case types.StructType(fields=fields, tag=tag, tag_field=tag_field):
            return ({tag_field: tag} if tag_field else {}) | {f.encode_name: smallest(f.type) for f in fields}
        case types.StrType(pattern=pattern):
            return next(text for text in TEXTS if pattern is None or re.search(pattern, text))
        case types.IntType(ge=ge, gt=gt):
            return ge if ge is not None else 0 if gt is None else gt + 1
        case types.FloatType(lt=lt, le=le):
            return min(0.5 if le is None else le, 0.5 if lt is None else lt / 2)
        case types.EnumType(cls=enum):
            return next(iter(enum)).value
        case types.LiteralType(values=literals):
            return literals[0]
        case types.VarTupleType(item_type=item):
            return [smallest(item)]
        case types.TupleType(item_types=items):
            return [smallest(item) for item in items]
        case types.AnyType():
            return 0
        case types.DictType(value_type=types.AnyType()):
            return {"key": [1, None, "text"]}
        case types.DictType(key_type=key, value_type=value):
            return {smallest(key): smallest(value)}
        case types.UnionType(types=choices):
            return smallest(choices[0])
        case types.BoolType():
            return True
        case types.NoneType():
            return None
    raise AssertionError(f"no value for {info}")


def record_bytes() -> list[bytes]:
    return [write_record(record) for record in records()]


def statements() -> list[bytes]:
    return [write_statement(record) for record in records()]


def envelopes() -> list[bytes]:
    other = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([1] * 32)))
    return [seal(records()[0], signer()), seal(records()[1], signer(), other)]


def notes() -> list[bytes]:
    return [write_checkpoint(origin_of(SHA), size, bytes([size] * 32), signer()) for size in (1, 200)]


def proofs() -> list[bytes]:
    path = [bytes([n] * 32) for n in range(3)]
    return [write_inclusion(5, path, notes()[1]), write_consistency(3, path, notes()[1])]


def recipes() -> list[bytes]:
    return [path.read_bytes() for path in sorted((EXAMPLES / "mergekit").glob("*.yml"))]


def sidecars() -> list[bytes]:
    return [
        b"source_kind=deterministic-smoke\nquality_claim=runtime-execution-smoke-only\n",
        b"source_kind=converted-trained\ntrained_quality_claim=not-claimed\nnote=a=b\n",
        b"source_kind=converted-trained\nquality_decision=accepted-for-assistant-quality\n",
    ]


def sources() -> list[bytes]:
    return [trained_source_manifest("small", shape(), ByteTokenizer(), values(), {"note": "kept"})]


def listings() -> list[bytes]:
    one = FileEntry(path="config.json", sha256=SHA, size=1)
    two = FileEntry(path="1_Pooling/config.json", sha256=SHA, size=2)
    return [listing_bytes({f.path: f for f in (one, two)}), listing_bytes({one.path: one})]


def vocabularies() -> list[bytes]:
    pieces = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.5]]}
    pairs = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"], "unk_token": None}
    word = {"type": "WordPiece", "vocab": {"[UNK]": 0, "##a": 1}, "unk_token": "[UNK]", "max_input_chars_per_word": 9}
    added = [{"id": 3, "content": "<s>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True}]  # fmt: skip
    files = [{"added_tokens": added, "normalizer": {"type": "NFC"}, "model": pairs}, {"model": pieces}, {"model": word}]
    return [tokenizer_json(ROWS), *(json.dumps(file).encode() for file in files)]


def lora_config() -> dict[str, object]:
    return {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_rslora": False, "rank_pattern": {"layers.0.q": 1},
            "alpha_pattern": {"^layers.0.q": 2.5}, "bias": "none", "init_lora_weights": True, "fan_in_fan_out": False,
            "base_model_name_or_path": "base", "target_modules": ["q"]}  # fmt: skip


def lora_configs() -> list[bytes]:
    return [json.dumps(lora_config()).encode(), b'{"peft_type":"LORA"}']


def lora_tensors() -> bytes:
    stem = "base_model.model.layers.0.v_proj"
    a, b = np.ones((2, 4), np.float32), np.ones((3, 2), np.float32)
    return safetensors_bytes({f"{stem}.lora_A.weight": ("F32", a), f"{stem}.lora_B.weight": ("F32", b)})


# The files of a folder in a fixed order; the first byte of an input says which of them it replaces.
def checkpoint_files() -> dict[str, bytes]:
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(weights(), "model.safetensors")}
    config = {**CONFIG, "hidden_size": HIDDEN, "intermediate_size": FFN, "vocab_size": ROWS}
    chat = [{"name": "default", "template": "{{ x }}"}]
    decoder = {"0": {"content": "t0", "special": True}}
    fields = {"tokenizer_class": "T", "chat_template": chat, "added_tokens_decoder": decoder}
    return {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": tensor_files()[0],
        "model.safetensors.index.json": json.dumps(index).encode(),
        "tokenizer.json": tokenizer_json(ROWS),
        "tokenizer_config.json": json.dumps(fields).encode(),
        "generation_config.json": b'{"eos_token_id": [1, 2], "pad_token_id": null}',
        "special_tokens_map.json": b'{"bos_token": "<s>"}',
        "added_tokens.json": b'{"<x>": 9}',
        "vocab.json": b'{"a": 0, "b": 1}',
        "vocab.txt": b"a\nb\n",
        "merges.txt": b"a b\n",
        "README.md": b"---\nlicense: mit\n---\n# Card\n",
    }


def lora_files() -> dict[str, bytes]:
    return {"adapter_config.json": lora_configs()[0], "adapter_model.safetensors": lora_tensors(), "README.md": b"x"}


def pieces(files: Mapping[str, bytes]) -> list[bytes]:
    """Every file of a folder behind its number."""
    return [bytes([number]) + data for number, data in enumerate(files.values())]


def suites() -> list[bytes]:
    folder = EXAMPLES / "suites" / "development" / "development-cap"
    lines = (folder / "items.jsonl").read_bytes().splitlines(keepends=True)[:3]
    return [b"".join(lines), lines[0]]


def rows() -> list[bytes]:
    return [canonical({"prompt": "a", "expected": "b"}) + b"\n" + canonical({"prompt": "\u00e4", "expected": ""})]


def rows_json() -> list[bytes]:
    return [canonical(lora_config()), canonical([1.5, None, "\u00e4"])]


def policies() -> list[bytes]:
    return [b'{"name": "small", "gates": {"alpha": 0.2}, "protected": ["cap"]}', b'{"utility": {"risk": 1e-3}}']


def experiments() -> list[bytes]:
    plan = {"name": "keep-more", "hypothesis": "More is better.", "cluster": "rot", "operator": "dare/1",
            "fixed": {"scales": 0.5, "skip": []}, "factors": {"keep": [0.4, 0.9]}, "seeds": [5, 6]}  # fmt: skip
    more = {**plan, "primary": "0", "parents": ["a", "b"], "metric": "target", "alpha": 0.01}
    return [json.dumps(plan).encode(), json.dumps(more, indent=1).encode()]


def operators() -> list[bytes]:
    blend = {"operator": "blend/1", "weights": "uniform"}
    prune = {"operator": "prune/1", "fraction": 0.5, "scope": "global", "skip": []}
    dare = {"operator": "dare/1", "scales": 0.5, "keep": 0.9, "skip": [], "seed": 1}
    tune = {"operator": "fine-tune/1", "steps": 40, "rate": 1e-3, "batch": 96, "seed": 1, "reach": 0.5, "rehearsal": 0.5,
            "data": "cluster", "rehearsed": "others"}  # fmt: skip
    return [json.dumps(found).encode() for found in (blend, [blend, prune], dare, tune)]


def task_files() -> dict[str, bytes]:
    text = (
        b"task: t\ndataset_path: json\ndataset_kwargs: {data_files: {test: rows.jsonl}}\ntest_split: test\n"
        b'output_type: multiple_choice\ndoc_to_text: "{{q}}>"\ndoc_to_target: "{{n}}"\ndoc_to_choice: options\n'
        b"metric_list: [{metric: acc, aggregation: mean}]\n"
    )
    rows = [{"q": "ab", "n": 1, "options": ["x", "y"]}, {"q": "cd", "n": 0, "options": ["yz", "x"]}]
    return {"task.yaml": text, "rows.jsonl": b"".join(json.dumps(row).encode() + b"\n" for row in rows)}


@cache
def ruled() -> Mapping[str, bytes]:
    """Example items of every kind of scorer whose library is installed."""
    found = {name: example_items(name, "c") for name in SCORERS}
    return {name: b"".join(canonical(item) + b"\n" for item in items) for name, items in found.items()}


def suite_manifest(scorer: str, items: bytes) -> bytes:
    fields = {"name": "s", "role": "development", "dimension": "task", "cluster": "c", "scorer": scorer,
              "licence": "CC0-1.0", "items": items.count(b"\n"), "items_sha256": items_sha256(items),
              "max_new_tokens": 12}  # fmt: skip
    return "".join(f"{key}={value}\n" for key, value in fields.items()).encode()


def suite_folders() -> list[bytes]:
    return [bytes([place]) + ruled()[name] for place, name in enumerate(sorted(ruled()))]
