"""Manifests that lie: about their text, their shape, their tensors, and the files they point at."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from studbook.errors import BytesLie, DigestDiffers, ManifestRefused, StudbookError, UsageError
from studbook.models.keyvalue import MAX_MANIFEST_BYTES
from studbook.models.manifests import (
    ManifestRule,
    convert_trained_source,
    parse_manifest,
    read_provenance,
    read_trained_source,
    write_trained_source,
)
from studbook.models.shape import SlmShape
from studbook.models.tokenizers import ByteTokenizer

TEXTS = [
    (ManifestRule.SIZE, b"a=" + b"b" * MAX_MANIFEST_BYTES + b"\n"),
    (ManifestRule.BOM, b"\xef\xbb\xbfa=b\n"),
    (ManifestRule.UTF8, b"a=\xff\n"),
    (ManifestRule.UTF8, b"a=\xed\xa0\x80\n"),
    (ManifestRule.TRUNCATED, b""),
    (ManifestRule.TRUNCATED, b"a=b\nc=d"),
    (ManifestRule.CHARACTER, b"a=b\r\n"),
    (ManifestRule.CHARACTER, b"a=b\0\n"),
    (ManifestRule.CHARACTER, b"a=\x1b[31m\n"),
    (ManifestRule.CHARACTER, "a=\u202eb\n".encode()),
    (ManifestRule.CHARACTER, "a=b\ufeff\n".encode()),
    (ManifestRule.CHARACTER, "a=\x85\n".encode()),
    (ManifestRule.LINE, b"a=b\n\n"),
    (ManifestRule.LINE, b"# a remark\n"),
    (ManifestRule.KEY, b"=b\n"),
    (ManifestRule.KEY, b"a b=c\n"),
    (ManifestRule.KEY, b" a=c\n"),
    (ManifestRule.KEY, "\u0430=c\n".encode()),
    (ManifestRule.DUPLICATE, b"a=b\nc=d\na=b\n"),
]


@pytest.mark.parametrize(("rule", "data"), TEXTS)
def test_text_that_lies_is_refused_by_name(rule: ManifestRule, data: bytes) -> None:
    with pytest.raises(ManifestRefused) as refused:
        parse_manifest(data, "m.manifest")
    assert refused.value.reason == rule
    assert refused.value.where.startswith("m.manifest")
    assert refused.value.advice


@pytest.fixture
def good(tmp_path: Path) -> Path:
    shape = SlmShape(260, 8, 1, 2, 1, 4, 12, 16, 10000.0, 1e-5, True)
    random = np.random.default_rng(3)
    tensors = {spec.name: random.standard_normal(spec.dims).astype(np.float32) for spec in shape.tensors()}
    return write_trained_source(tmp_path / "good", "good", shape, ByteTokenizer(), tensors)


def rewrite(path: Path, changes: dict[str, str | None]) -> Path:
    values: dict[str, str | None] = {**parse_manifest(path.read_bytes()), **changes}
    path.chmod(0o644)
    path.write_text("".join(f"{key}={value}\n" for key, value in values.items() if value is not None))
    return path


ZERO = "0" * 64
LIES: list[tuple[str, ManifestRule, dict[str, str | None]]] = [
    ("manifest_version", ManifestRule.VALUE, {"manifest_version": "2"}),
    ("kind", ManifestRule.VALUE, {"kind": "data"}),
    ("source_kind", ManifestRule.VALUE, {"source_kind": "deterministic-smoke"}),
    ("name", ManifestRule.MISSING, {"name": None}),
    ("quality_claim", ManifestRule.VALUE, {"quality_claim": "excellent"}),
    ("shape.hidden_size", ManifestRule.MISSING, {"shape.hidden_size": None}),
    ("shape.hidden_size", ManifestRule.VALUE, {"shape.hidden_size": "+8"}),
    ("shape.hidden_size", ManifestRule.VALUE, {"shape.hidden_size": "08"}),
    ("shape.hidden_size", ManifestRule.VALUE, {"shape.hidden_size": "9" * 5000}),
    ("shape.hidden_size", ManifestRule.VALUE, {"shape.hidden_size": "\u0668"}),
    ("shape", ManifestRule.SHAPE, {"shape.hidden_size": "10"}),
    ("shape", ManifestRule.SHAPE, {"shape.head_count": "0"}),
    ("shape", ManifestRule.SHAPE, {"shape.rope_theta": "1e300"}),
    ("shape.rope_theta", ManifestRule.VALUE, {"shape.rope_theta": "nan"}),
    ("shape.rope_theta", ManifestRule.VALUE, {"shape.rope_theta": "1_0.0"}),
    ("shape.tied", ManifestRule.VALUE, {"shape.tied": "True"}),
    ("tensor_count", ManifestRule.VALUE, {"tensor_count": "12"}),
    ("tensor_count", ManifestRule.VALUE, {"shape.layer_count": "4294967295"}),
    ("tensor_count", ManifestRule.VALUE, {"shape.layer_count": "4294967295", "tensor_count": "38654705657"}),
    ("tensor.3.name", ManifestRule.TENSOR_NAME, {"tensor.3.name": "layers.0.wq.bias"}),
    ("tensor.3.name", ManifestRule.TENSOR_NAME, {"tensor.3.name": "tok_embeddings.weight"}),
    ("tensor.3.name", ManifestRule.MISSING, {"tensor.3.name": None}),
    ("tensor.0.dims", ManifestRule.TENSOR_DIMS, {"tensor.0.dims": "8x260"}),
    ("tensor.0.dims", ManifestRule.TENSOR_DIMS, {"tensor.0.dims": "2080"}),
    ("tensor.0.dims", ManifestRule.TENSOR_DIMS, {"tensor.0.dims": "260X8"}),
    ("tensor.0.byte_length", ManifestRule.TENSOR_LENGTH, {"tensor.0.byte_length": "8324"}),
    ("tensor.0.sha256", ManifestRule.VALUE, {"tensor.0.sha256": ZERO[1:]}),
    ("tensor.0.sha256", ManifestRule.VALUE, {"tensor.0.sha256": "A" * 64}),
    ("tensor.11.path", ManifestRule.UNKNOWN, {"tensor.11.path": "more.f32"}),
    ("shape.biases", ManifestRule.UNKNOWN, {"shape.biases": "true"}),
    ("tensors/norm.weight.f32", ManifestRule.TWIN,
     {"tensor.0.path": "tensors/norm.weight.f32"}),
    ("tensors/norm.weight.f32", ManifestRule.TWIN, {"tensor.0.path": "Tensors/NORM.weight.f32"}),
    *((("tensor.0.path", ManifestRule.PATH, {"tensor.0.path": path})) for path in (
        "/etc/passwd", "../x.f32", "tensors/../../x.f32", "a\\b", "", ".", "tensors/", "//x", "tensors//x",
        ".hidden", "tensors/.git/x", "C:x", "a b", "caf\u00e9", "n" * 121, "/".join(["n" * 60] * 5),
    )),
]  # fmt: skip


@pytest.mark.parametrize(("key", "rule", "changes"), LIES)
def test_a_manifest_that_lies_is_refused_at_its_key(
    good: Path, key: str, rule: ManifestRule, changes: dict[str, str | None]
) -> None:
    with pytest.raises(ManifestRefused) as refused:
        read_trained_source(rewrite(good, changes))
    assert refused.value.reason == rule
    place = str(refused.value.where).lower()
    assert place == f"{good}: field {key}".lower()


def test_a_tokenizer_path_is_held_to_the_same_rules(good: Path) -> None:
    with pytest.raises(ManifestRefused) as refused:
        read_trained_source(rewrite(good, {"tokenizer.path": "../tokenizer.bin"}))
    assert refused.value.reason == ManifestRule.PATH


def test_listed_files_may_not_exceed_one_container(good: Path) -> None:
    with pytest.raises(ManifestRefused) as refused:
        read_trained_source(rewrite(good, {"tokenizer.byte_length": str(1 << 30)}))
    assert refused.value.reason == ManifestRule.SIZE


def test_a_manifest_cut_anywhere_is_refused(good: Path) -> None:
    data = good.read_bytes()
    good.chmod(0o644)
    for length in range(0, len(data), 37):
        good.write_bytes(data[:length])
        with pytest.raises(ManifestRefused):
            read_trained_source(good)


def test_a_flipped_byte_in_a_manifest_never_gives_another_model(good: Path) -> None:
    data = good.read_bytes()
    container = convert_trained_source(read_trained_source(good))
    good.chmod(0o644)
    for at in range(0, len(data), 11):
        changed = bytearray(data)
        changed[at] ^= 1
        good.write_bytes(bytes(changed))
        try:
            result = convert_trained_source(read_trained_source(good))
        except StudbookError:
            continue
        # Only words that are no part of the model may change: its name, its context, its rotary base.
        line = data[data.rfind(b"\n", 0, at) + 1 : data.find(b"\n", at)]
        free = (b"name=", b"shape.max_context=", b"shape.rope_theta=", b"shape.rms_norm_epsilon=")
        assert result == container or line.startswith(free)


FILE = "tensors/tok_embeddings.weight.f32"


def swap_for_link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to(path.with_name("moved"))


def swap_folder_for_link(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))
    path.parent.symlink_to(path.parent.with_name("elsewhere"))


def swap_for_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def put_nan(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(struct.pack("<f", float("nan")) + path.read_bytes()[4:])


SPOILS: list[tuple[Callable[[Path], object], type[StudbookError]]] = [
    (swap_for_link, ManifestRefused),
    (swap_folder_for_link, ManifestRefused),
    (swap_for_fifo, BytesLie),
    (lambda path: path.unlink(), UsageError),
    (lambda path: (path.chmod(0o644), path.write_bytes(path.read_bytes()[:-4])), ManifestRefused),
    (lambda path: (path.chmod(0o644), path.write_bytes(path.read_bytes() + b"\0\0\0\0")), ManifestRefused),
    (lambda path: (path.chmod(0o644), path.write_bytes(bytes(len(path.read_bytes())))), DigestDiffers),
    (put_nan, DigestDiffers),
]


@pytest.mark.parametrize(("spoil", "error"), SPOILS)
def test_a_listed_file_that_is_not_what_was_listed_is_refused(
    good: Path, spoil: Callable[[Path], object], error: type[StudbookError]
) -> None:
    spoil(good.parent / FILE)
    with pytest.raises(error) as refused:
        convert_trained_source(read_trained_source(good))
    assert "tok_embeddings" in refused.value.where or "tensors" in refused.value.where


def test_a_listed_file_that_is_not_finite_is_refused_although_its_digest_is_right(good: Path) -> None:
    path = good.parent / FILE
    put_nan(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ManifestRefused) as refused:
        convert_trained_source(read_trained_source(rewrite(good, {"tensor.0.sha256": digest})))
    assert refused.value.reason == ManifestRule.TENSOR_NON_FINITE


def test_a_manifest_behind_a_link_is_refused(good: Path) -> None:
    link = good.with_name("link.manifest")
    link.symlink_to(good)
    for read in (read_trained_source, read_provenance):
        with pytest.raises(BytesLie):
            read(link)


def test_every_rule_of_manifests_is_broken_somewhere() -> None:
    tested = {rule for rule, _ in TEXTS} | {rule for _, rule, _ in LIES}
    in_files = {ManifestRule.LINK, ManifestRule.TENSOR_NON_FINITE, ManifestRule.TENSOR_DTYPE}
    assert tested | in_files == set(ManifestRule)
