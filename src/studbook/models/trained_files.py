"""The files of a trained source: read them into a container, or write them beside their manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from studbook.errors import DigestDiffers, OverBudget
from studbook.files import read_file, write_new
from studbook.models.bpe import parse_tokenizer
from studbook.models.keyvalue import ManifestRule, format_manifest, manifest_refusal
from studbook.models.shape import SlmShape, TensorSpec
from studbook.models.slm_writer import write_slm
from studbook.models.tokenizers import Tokenizer
from studbook.models.trained_source import FIXED_LINES, SHAPE_FIELDS, FileEntry, TrainedSource, parse_trained_source

__all__ = ["MANIFEST_NAME", "convert_trained_source", "trained_source_manifest", "write_trained_source"]

MANIFEST_NAME = "source.manifest"
_TOKENIZER_PATH = "tokenizer.bin"


def convert_trained_source(source: TrainedSource) -> bytes:
    """The f32 container of a trained source, from the files it lists.

    Raises:
        UsageError: if a listed file is missing.
        BytesLie: if it is a link or no regular file.
        ManifestRefused: if its length differs or it holds NaN or infinity.
        DigestDiffers: if its bytes are not those that were promised.
        TokenizerRefused: if the tokenizer section breaks a rule.
        SlmRefused: if tokenizer and shape disagree.
    """
    tokenizer = parse_tokenizer(_listed(source, source.tokenizer), source.path.parent / source.tokenizer.path)
    tensors = {}
    for spec in source.shape.tensors():
        entry = source.tensors[spec.name]
        values = np.frombuffer(_listed(source, entry), dtype="<f4").reshape(spec.dims)
        if not np.isfinite(values).all():
            place = source.path.parent / entry.path
            raise manifest_refusal(ManifestRule.TENSOR_NON_FINITE, "holds NaN or infinity", place, spec.name)
        tensors[spec.name] = values
    return write_slm(source.shape, tokenizer, tensors)


def _listed(source: TrainedSource, entry: FileEntry) -> bytes:
    place = source.path.parent
    for part in entry.path.split("/"):
        place = place / part
        if place.is_symlink():
            raise manifest_refusal(ManifestRule.LINK, "is a link; listed files are plain files", place)
    try:
        data = read_file(place, entry.byte_length)
    except OverBudget as error:
        raise manifest_refusal(ManifestRule.TENSOR_LENGTH, error.message, place) from error
    if len(data) != entry.byte_length:
        message = f"{len(data)} bytes; the manifest says {entry.byte_length}"
        raise manifest_refusal(ManifestRule.TENSOR_LENGTH, message, place)
    found = hashlib.sha256(data).hexdigest()
    if found != entry.sha256:
        raise DigestDiffers(f"SHA-256 is {found}; the manifest says {entry.sha256}", where=place)
    return data


def trained_source_manifest(
    name: str,
    shape: SlmShape,
    tokenizer: Tokenizer,
    tensors: Mapping[str, ArrayLike],
    notes: Mapping[str, str] | None = None,
) -> bytes:
    """The manifest of a trained model, without writing any file.

    Args:
        name: What to call the model.
        shape: Its dimensions.
        tokenizer: Its tokenizer.
        tensors: f32 values by canonical name.
        notes: Further lines, such as the digest of a base or of training data.

    Raises:
        ManifestRefused: if a value cannot stand in a manifest or breaks one of its rules.
    """
    values = dict(FIXED_LINES) | {"name": name}
    values |= {f"shape.{field}": _text(getattr(shape, field)) for field in SHAPE_FIELDS}
    values |= _lines("tokenizer", _TOKENIZER_PATH, tokenizer.section())
    values["tensor_count"] = str(shape.tensor_count)
    for index, spec in enumerate(shape.tensors()):
        payload = _payload(spec, tensors)
        values[f"tensor.{index}.name"] = spec.name
        values[f"tensor.{index}.dims"] = "x".join(map(str, spec.dims))
        values |= _lines(f"tensor.{index}", _tensor_path(spec), payload)
    data = format_manifest(values | dict(notes or {}), name)
    parse_trained_source(data, name)
    return data


def write_trained_source(
    folder: Path | str,
    name: str,
    shape: SlmShape,
    tokenizer: Tokenizer,
    tensors: Mapping[str, ArrayLike],
    notes: Mapping[str, str] | None = None,
) -> Path:
    """Write a trained source: ``source.manifest``, ``tokenizer.bin`` and ``tensors/*.f32`` in one folder.

    Args:
        folder: Where; made if missing, and must not hold a trained source yet.
        name: What to call the model.
        shape: Its dimensions.
        tokenizer: Its tokenizer.
        tensors: f32 values by canonical name.
        notes: Further lines of the manifest.

    Returns:
        The path of the manifest, which is written last.

    Raises:
        ManifestRefused: if a value breaks a rule of the manifest.
        StudbookError: if the disk refuses or a file is there already.
    """
    data = trained_source_manifest(name, shape, tokenizer, tensors, notes)
    target = Path(folder)
    (target / "tensors").mkdir(parents=True, exist_ok=True)
    write_new(target / _TOKENIZER_PATH, tokenizer.section())
    for spec in shape.tensors():
        write_new(target / _tensor_path(spec), _payload(spec, tensors))
    write_new(target / MANIFEST_NAME, data)
    return target / MANIFEST_NAME


def _lines(prefix: str, path: str, payload: bytes) -> dict[str, str]:
    digest = hashlib.sha256(payload).hexdigest()
    return {f"{prefix}.path": path, f"{prefix}.byte_length": str(len(payload)), f"{prefix}.sha256": digest}


def _tensor_path(spec: TensorSpec) -> str:
    return f"tensors/{spec.name}.f32"


def _payload(spec: TensorSpec, tensors: Mapping[str, ArrayLike]) -> bytes:
    if spec.name not in tensors:
        raise manifest_refusal(ManifestRule.TENSOR_NAME, "has no values", "", spec.name)
    values: NDArray[np.float32] = np.asarray(tensors[spec.name])
    if values.dtype != np.float32 or values.shape != spec.dims or not np.isfinite(values).all():
        message = f"{values.dtype} {values.shape}; finite float32 {spec.dims} is needed"
        raise manifest_refusal(ManifestRule.TENSOR_DIMS, message, "", spec.name)
    return np.ascontiguousarray(values, dtype="<f4").tobytes()


def _text(value: object) -> str:
    return str(value).lower()
