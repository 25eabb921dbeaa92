"""Writing the canonical container: one file for one set of shape, tokenizer, values and dtypes."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from studbook.errors import UsageError
from studbook.models.checksum import checksum64
from studbook.models.rules import SlmRule, refusal
from studbook.models.shape import SlmShape, TensorSpec
from studbook.models.slm_layout import CHECKSUM_AT, ENTRY, HEADER, MAX_FILE_BYTES, TIED, align
from studbook.models.stored import Dtype, StoredTensor, store
from studbook.models.tokenizers import Tokenizer

__all__ = ["assemble_slm", "write_slm"]


def write_slm(
    shape: SlmShape,
    tokenizer: Tokenizer,
    tensors: Mapping[str, ArrayLike],
    dtype: str | Mapping[str, str] = "f32",
) -> bytes:
    """The container of a model, from its values.

    Args:
        shape: Dimensions of the model.
        tokenizer: Its tokenizer; vocabularies must agree.
        tensors: f32 values by canonical name, in the dimensions of the shape; exactly the shape's tensors.
        dtype: ``f32``, ``q8_0`` or ``q4_0`` for all, or one of them for every tensor by name.

    Returns:
        The bytes of the file; equal arguments give equal bytes.

    Raises:
        SlmRefused: if a tensor is missing, unknown, of another shape or not finite, or the file would be too large.
        UsageError: if the dtype is unknown or the values are not f32.
    """
    dtypes = _dtypes(shape, dtype)
    _check_names(shape, tensors)
    stored = {}
    for spec in shape.tensors():
        values = np.asarray(tensors[spec.name])
        if values.dtype != np.float32:
            message = f"values are {values.dtype}; a container is written from float32"
            raise UsageError(message, where=spec.name, reason="slm.write.values", advice="Convert them first.")
        _check_dims(spec, values.shape)
        stored[spec.name] = store(values, dtypes[spec.name], field=spec.name)
    return assemble_slm(shape, tokenizer, stored)


def assemble_slm(shape: SlmShape, tokenizer: Tokenizer, stored: Mapping[str, StoredTensor]) -> bytes:
    """The container of a model, from tensors already in storage; codes and scales go in as they are.

    Raises:
        SlmRefused: if the tensors are not exactly those of the shape, or the file would be too large.
    """
    _check_names(shape, stored)
    if tokenizer.vocab_size != shape.vocab_size:
        message = f"{shape.vocab_size}; the tokenizer has {tokenizer.vocab_size}"
        raise refusal(SlmRule.VOCAB_TOKENIZER, message, field="vocab_size")
    section = tokenizer.section()
    directory_at = align(HEADER.size + len(section))
    data_at = align(directory_at + ENTRY.size * shape.tensor_count)
    entries, places, size = _place(shape, stored, data_at)
    if size > MAX_FILE_BYTES:
        advice = "Store it as q8_0 or q4_0, or make the model smaller."
        raise refusal(SlmRule.SIZE, f"{size} bytes; at most {MAX_FILE_BYTES}", advice=advice)
    data = bytearray(size)
    HEADER.pack_into(data, 0, *_header_fields(shape, len(section), directory_at, data_at))
    data[HEADER.size : HEADER.size + len(section)] = section
    data[directory_at : directory_at + len(entries)] = entries
    for at, block in places:
        data[at : at + len(block)] = block
    struct.pack_into("<Q", data, CHECKSUM_AT, checksum64(bytes(data), CHECKSUM_AT))
    return bytes(data)


def _dtypes(shape: SlmShape, dtype: str | Mapping[str, str]) -> dict[str, Dtype]:
    names = [spec.name for spec in shape.tensors()]
    wanted = dict.fromkeys(names, dtype) if isinstance(dtype, str) else dict(dtype)
    if wanted.keys() != set(names):
        stray = sorted(wanted.keys() ^ set(names))[0]
        raise UsageError("a dtype is needed for exactly the shape's tensors", where=stray, reason="slm.write.dtype")
    for name, word in wanted.items():
        if word not in tuple(Dtype):
            message = f"unknown dtype {word!r}; known are {', '.join(Dtype)}"
            raise UsageError(message, where=name, reason="slm.write.dtype")
    return {name: Dtype(word) for name, word in wanted.items()}


def _check_names(shape: SlmShape, given: Mapping[str, object]) -> None:
    wanted = {spec.name for spec in shape.tensors()}
    advice = "Give exactly the tensors that the shape lists."
    for name in sorted(wanted - given.keys()):
        raise refusal(SlmRule.TENSOR_MISSING, "is missing", field=name, advice=advice)
    for name in sorted(given.keys() - wanted):
        raise refusal(SlmRule.TENSOR_UNKNOWN, "belongs to no tensor of this shape", field=name, advice=advice)
    for spec in shape.tensors():
        tensor = given[spec.name]
        if isinstance(tensor, StoredTensor):
            _check_dims(spec, tensor.dims)


def _check_dims(spec: TensorSpec, dims: tuple[int, ...]) -> None:
    if dims != spec.dims:
        advice = "Give the tensor in the dimensions the shape implies, rows as outputs."
        raise refusal(SlmRule.TENSOR_SHAPE, f"{dims}; the shape has {spec.dims}", field=spec.name, advice=advice)


def _place(
    shape: SlmShape, stored: Mapping[str, StoredTensor], start: int
) -> tuple[bytes, list[tuple[int, bytes | memoryview]], int]:
    end = start
    entries = []
    places: list[tuple[int, bytes | memoryview]] = []
    for spec in shape.tensors():
        tensor = stored[spec.name]
        at, end = end, align(end + len(tensor.payload))
        places.append((at, tensor.payload))
        scale_at = 0
        if tensor.dtype is not Dtype.F32:
            scale_at, end = end, align(end + len(tensor.scale_bytes))
            places.append((scale_at, tensor.scale_bytes))
        dims = spec.dims + (0,) * (4 - len(spec.dims))
        head = (spec.name_hash, tensor.dtype.code, len(spec.dims), *dims)
        entries.append(ENTRY.pack(*head, at, len(tensor.payload), scale_at, tensor.block, 0))
    return b"".join(entries), places, end


def _header_fields(shape: SlmShape, section: int, directory_at: int, data_at: int) -> tuple[object, ...]:
    dims = (
        shape.vocab_size,
        shape.special_token_count,
        shape.hidden_size,
        shape.layer_count,
        shape.head_count,
        shape.kv_head_count,
        shape.head_dim,
        shape.ffn_size,
        shape.max_context,
    )
    places = (HEADER.size, section, directory_at, shape.tensor_count, data_at, 0)
    flags = TIED if shape.tied else 0
    return (b"SLM1", 1, HEADER.size, 1, flags, *dims, shape.rope_theta, shape.rms_norm_epsilon, *places)
