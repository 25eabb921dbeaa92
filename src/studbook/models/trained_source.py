"""A trained source: a manifest that lists one f32 file a tensor, and what binds a container to it.

Keys: ``manifest_version=1``, ``kind=trained-source``, ``source_kind=converted-trained``, ``name``, ``shape.*`` (the
fields of `SlmShape`), ``tokenizer.path|byte_length|sha256``, ``tensor_count``, and for every tensor
``tensor.N.name|path|dims|byte_length|sha256``. Payloads are little-endian f32. Paths are relative to the manifest's
folder, plain names joined by ``/``, never through a link. Other keys are kept as notes unless they start with one of
the names above. The tensor digests bind a container to its manifest even where the loose files are not shipped.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from studbook.errors import DigestDiffers, SlmRefused
from studbook.files import read_file
from studbook.models.keyvalue import (
    MAX_MANIFEST_BYTES,
    ManifestRule,
    manifest_refusal,
    parse_manifest,
    take,
    take_digest,
    take_int,
)
from studbook.models.provenance import check_known
from studbook.models.shape import SlmShape, TensorSpec
from studbook.models.slm import MAX_FILE_BYTES, Slm
from studbook.models.stored import Dtype

__all__ = [
    "FIXED_LINES",
    "SHAPE_FIELDS",
    "FileEntry",
    "TrainedSource",
    "check_trained_source",
    "parse_trained_source",
    "read_trained_source",
]

_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,119}\Z")
_REAL = re.compile(r"[0-9]{1,40}(\.[0-9]{1,40})?(e[+-]?[0-9]{1,3})?\Z")
_DIMS = re.compile(r"[1-9][0-9]{0,9}(x[1-9][0-9]{0,9}){0,3}\Z")
FIXED_LINES = {"manifest_version": "1", "kind": "trained-source", "source_kind": "converted-trained"}
_RESERVED = ("shape.", "tensor.", "tokenizer.")
SHAPE_FIELDS = tuple(field.name for field in fields(SlmShape))


@dataclass(frozen=True)
class FileEntry:
    """One listed file.

    Attributes:
        path: Relative to the manifest's folder, with ``/``.
        byte_length: Its length.
        sha256: SHA-256 of its bytes.
    """

    path: str
    byte_length: int
    sha256: str


@dataclass(frozen=True)
class TrainedSource:
    """A checked trained-source manifest; the files it lists have not been read.

    Attributes:
        path: The manifest.
        sha256: SHA-256 of the manifest's bytes.
        name: What the producer calls the model.
        shape: Dimensions of the model.
        tokenizer: The file that holds the tokenizer section.
        tensors: One file for every tensor of the shape, by canonical name in canonical order.
        notes: Further lines, kept as they are.
    """

    path: Path
    sha256: str
    name: str
    shape: SlmShape
    tokenizer: FileEntry
    tensors: Mapping[str, FileEntry]
    notes: Mapping[str, str]


def read_trained_source(path: Path | str) -> TrainedSource:
    """Read a trained-source manifest from disk; the files it lists stay unread.

    Raises:
        UsageError: if there is no such file.
        BytesLie: if it is not a regular file.
        OverBudget: if it is too long.
        ManifestRefused: naming the key that breaks a rule.
    """
    return parse_trained_source(read_file(Path(path), MAX_MANIFEST_BYTES), path)


def parse_trained_source(data: bytes, where: Path | str = "") -> TrainedSource:
    """Read a trained-source manifest from its bytes.

    Raises:
        ManifestRefused: naming the key that breaks a rule.
    """
    values = parse_manifest(data, where)
    for key, value in FIXED_LINES.items():
        take(values, key, where, (value,))
    check_known(values, where)
    name = take(values, "name", where)
    shape = _parse_shape(values, where)
    tokenizer = _entry(values, "tokenizer", where)
    tensors = _tensor_entries(values, shape, where)
    listed = [tokenizer, *tensors.values()]
    _check_twins(listed, where)
    if sum(entry.byte_length for entry in listed) > MAX_FILE_BYTES:
        message = f"the listed files exceed {MAX_FILE_BYTES} bytes together"
        raise manifest_refusal(ManifestRule.SIZE, message, where)
    notes = _notes(values, len(tensors), where)
    return TrainedSource(Path(where), hashlib.sha256(data).hexdigest(), name, shape, tokenizer, tensors, notes)


def _parse_shape(values: Mapping[str, str], where: object) -> SlmShape:
    numbers: dict[str, float | int | bool] = {}
    for field in SHAPE_FIELDS:
        key = f"shape.{field}"
        if field == "tied":
            numbers[field] = take(values, key, where, ("true", "false")) == "true"
        elif field in ("rope_theta", "rms_norm_epsilon"):
            text = take(values, key, where)
            if not _REAL.match(text):
                raise manifest_refusal(ManifestRule.VALUE, f"{text[:80]!r} is not a decimal number", where, key)
            numbers[field] = float(text)
        else:
            numbers[field] = take_int(values, key, where)
    try:
        shape = SlmShape(**numbers)  # type: ignore[arg-type]
    except SlmRefused as error:
        message = f"{error.where}: {error.message}"
        raise manifest_refusal(ManifestRule.SHAPE, message, where, "shape") from error
    # A hostile layer count stops here, before any tensor name is built.
    if take_int(values, "tensor_count", where) != shape.tensor_count or shape.tensor_count > len(values):
        message = f"{values['tensor_count']}; this shape has {shape.tensor_count} tensors"
        raise manifest_refusal(ManifestRule.VALUE, message, where, "tensor_count")
    return shape


def _entry(values: Mapping[str, str], prefix: str, where: object) -> FileEntry:
    path = take(values, f"{prefix}.path", where)
    parts = path.split("/")
    if len(path) > 240 or not all(_PART.match(part) for part in parts):
        message = f"{path[:80]!r} is not plain names of letters, digits, '.', '_', '-' joined by '/'"
        raise manifest_refusal(ManifestRule.PATH, message, where, f"{prefix}.path")
    length = take_int(values, f"{prefix}.byte_length", where)
    return FileEntry(path, length, take_digest(values, f"{prefix}.sha256", where))


def _tensor_entries(values: Mapping[str, str], shape: SlmShape, where: object) -> dict[str, FileEntry]:
    specs = {spec.name: spec for spec in shape.tensors()}
    found: dict[str, FileEntry] = {}
    for index in range(shape.tensor_count):
        prefix = f"tensor.{index}"
        name = take(values, f"{prefix}.name", where)
        if name not in specs or name in found:
            message = f"{name[:80]!r} is {'listed twice' if name in found else 'no tensor of this shape'}"
            raise manifest_refusal(ManifestRule.TENSOR_NAME, message, where, f"{prefix}.name")
        found[name] = _tensor_entry(values, prefix, specs[name], where)
    return {name: found[name] for name in specs}


def _tensor_entry(values: Mapping[str, str], prefix: str, spec: TensorSpec, where: object) -> FileEntry:
    text = take(values, f"{prefix}.dims", where)
    wanted = "x".join(map(str, spec.dims))
    if not _DIMS.match(text) or text != wanted:
        message = f"{text[:80]!r}; the shape gives {wanted}"
        raise manifest_refusal(ManifestRule.TENSOR_DIMS, message, where, f"{prefix}.dims")
    entry = _entry(values, prefix, where)
    if entry.byte_length != 4 * spec.elements:
        message = f"{entry.byte_length}; f32 of shape {wanted} has {4 * spec.elements} bytes"
        raise manifest_refusal(ManifestRule.TENSOR_LENGTH, message, where, f"{prefix}.byte_length")
    return entry


def _check_twins(listed: list[FileEntry], where: object) -> None:
    seen: set[str] = set()
    for entry in listed:
        # Two names that differ in case only are one file on some machines.
        if entry.path.lower() in seen:
            raise manifest_refusal(ManifestRule.TWIN, "is listed twice, or differs in case only", where, entry.path)
        seen.add(entry.path.lower())


def _notes(values: Mapping[str, str], count: int, where: object) -> dict[str, str]:
    known = {*FIXED_LINES, "name", "tensor_count", *(f"shape.{field}" for field in SHAPE_FIELDS)}
    known |= {f"tokenizer.{part}" for part in ("path", "byte_length", "sha256")}
    known |= {f"tensor.{i}.{part}" for i in range(count) for part in ("name", "path", "dims", "byte_length", "sha256")}
    notes = {key: value for key, value in values.items() if key not in known}
    for key in notes:
        if key.startswith(_RESERVED):
            raise manifest_refusal(ManifestRule.UNKNOWN, "is not a key of this kind of manifest", where, key)
    return notes


def check_trained_source(source: TrainedSource, slm: Slm) -> None:
    """Check that a container holds exactly the tensors a manifest lists, from their digests.

    Raises:
        ManifestRefused: if the shapes differ or a tensor of the container is not stored as f32.
        DigestDiffers: if the tokenizer or a tensor's payload has another SHA-256 than the manifest says.
    """
    if source.shape != slm.shape:
        first = next(f for f in SHAPE_FIELDS if getattr(source.shape, f) != getattr(slm.shape, f))
        message = f"{getattr(source.shape, first)}; the container has {getattr(slm.shape, first)}"
        raise manifest_refusal(ManifestRule.SHAPE, message, source.path, f"shape.{first}")
    if source.tokenizer.sha256 != slm.tokenizer_sha256:
        message = f"the container's tokenizer is {slm.tokenizer_sha256}; the manifest says {source.tokenizer.sha256}"
        raise DigestDiffers(message, where=f"{source.path}: field tokenizer.sha256")
    for name, entry in source.tensors.items():
        tensor = slm.tensors[name]
        if tensor.dtype is not Dtype.F32:
            message = f"is stored as {tensor.dtype}; a manifest describes the f32 container"
            raise manifest_refusal(ManifestRule.TENSOR_DTYPE, message, source.path, name)
        found = hashlib.sha256(tensor.payload).hexdigest()
        if found != entry.sha256:
            message = f"the container's payload is {found}; the manifest says {entry.sha256}"
            raise DigestDiffers(message, where=f"{source.path}: field {name}")
