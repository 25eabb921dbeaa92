"""The SLM1 container: read once, checked whole, then used.

`parse_slm` is pure; `read_slm` reads one descriptor once, so that what is hashed is what is parsed. Order of checks:
header and checksum, directory and ranges, tokenizer, required names, exact shapes, values. A file that passes none of
this leaves nothing behind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from studbook.errors import OverBudget, UsageError
from studbook.files import read_file
from studbook.models.bpe import BpeTokenizer, parse_tokenizer
from studbook.models.checksum import fnv1a64
from studbook.models.rules import SlmRule, refusal
from studbook.models.shape import OUTPUT, SlmShape
from studbook.models.slm_layout import MAX_FILE_BYTES, Entry, check_spans, parse_directory, parse_header
from studbook.models.slm_writer import assemble_slm, write_slm
from studbook.models.stored import StoredTensor
from studbook.models.tokenizers import ByteTokenizer

__all__ = ["MAX_FILE_BYTES", "Slm", "SlmRule", "assemble_slm", "parse_slm", "read_slm", "write_slm"]


@dataclass(frozen=True, eq=False)
class Slm:
    """A model read from a container; tensors stay in storage until asked for.

    Attributes:
        shape: Dimensions of the model.
        tokenizer: Its tokenizer.
        tensors: Tensors in storage by canonical name, in canonical order.
        sha256: SHA-256 of the file, its identity.
        size: Bytes of the file.
        tokenizer_sha256: SHA-256 of the tokenizer section.
    """

    shape: SlmShape
    tokenizer: ByteTokenizer | BpeTokenizer
    tensors: Mapping[str, StoredTensor]
    sha256: str
    size: int
    tokenizer_sha256: str

    @property
    def label(self) -> str:
        """How the tensors are stored: f32, q8_0, q4_0, or mixed."""
        kinds = {tensor.dtype for tensor in self.tensors.values()}
        return str(kinds.pop()) if len(kinds) == 1 else "mixed"

    @property
    def layout_sha256(self) -> str:
        """Identity of names and shapes, without dtypes."""
        return self.shape.layout_sha256()

    def dense(self, name: str) -> NDArray[np.float32]:
        """One tensor's values, f32 in its dimensions, read-only; no copy for f32, decoded anew if quantised.

        Raises:
            UsageError: if the model has no tensor of that name.
        """
        if name not in self.tensors:
            raise UsageError(f"the model has no tensor {name!r}", where=self.sha256, reason="slm.name")
        return self.tensors[name].dense()


def read_slm(path: Path | str) -> Slm:
    """Read a container from disk.

    Raises:
        UsageError: if there is no such file.
        BytesLie: if it is a link, a fifo or a device, or changes while it is read.
        SlmRefused: if it is too long, which is seen before reading, or breaks a rule.
        TokenizerRefused: if its tokenizer section breaks a rule.
    """
    try:
        data = read_file(Path(path), MAX_FILE_BYTES)
    except OverBudget as error:
        raise refusal(SlmRule.SIZE, error.message, path) from error
    return parse_slm(data, path)


def parse_slm(data: bytes, where: object = "") -> Slm:
    """Read a container from its bytes.

    Args:
        data: The whole file.
        where: What to call it in errors.

    Raises:
        SlmRefused: naming field and rule.
        TokenizerRefused: if its tokenizer section breaks a rule.
    """
    header = parse_header(data, where)
    entries = parse_directory(data, header, where)
    check_spans(data, header, entries, where)
    section = data[header.tokenizer_offset : header.tokenizer_end]
    tokenizer = parse_tokenizer(section, f"{where}: tokenizer section" if str(where) else "tokenizer section")
    if tokenizer.vocab_size != header.shape.vocab_size:
        message = f"{header.shape.vocab_size}; the tokenizer section has {tokenizer.vocab_size}"
        raise refusal(SlmRule.VOCAB_TOKENIZER, message, where, "vocab_size")
    tensors = _tensors(data, header.shape, _by_name(header.shape, entries, where), where)
    digest, section_digest = hashlib.sha256(data).hexdigest(), hashlib.sha256(section).hexdigest()
    return Slm(header.shape, tokenizer, MappingProxyType(tensors), digest, len(data), section_digest)


def _by_name(shape: SlmShape, entries: Sequence[Entry], where: object) -> dict[str, Entry]:
    names = {spec.name_hash: spec.name for spec in shape.tensors()}
    names.setdefault(fnv1a64(OUTPUT), OUTPUT)  # a known name even where the tied flag forbids the tensor
    found: dict[str, Entry] = {}
    for index, entry in enumerate(entries):
        field = f"tensor directory entry {index} name_hash"
        name = names.get(entry.name_hash)
        if name is None:
            message = f"{entry.name_hash:#018x} is the name of no tensor of this shape"
            raise refusal(SlmRule.TENSOR_UNKNOWN, message, where, field)
        if name in found:
            raise refusal(SlmRule.TENSOR_DUPLICATE, f"{name} appears twice", where, field)
        found[name] = entry
    for spec in shape.tensors():
        if spec.name not in found:  # the count was right, so output.weight stands in its place
            message = f"is missing; {OUTPUT} stands in its place although the output is tied"
            raise refusal(SlmRule.TENSOR_MISSING, message, where, spec.name)
    return found


def _tensors(data: bytes, shape: SlmShape, entries: Mapping[str, Entry], where: object) -> dict[str, StoredTensor]:
    for spec in shape.tensors():
        if entries[spec.name].dims != spec.dims:
            message = f"{entries[spec.name].dims}; the header's dimensions give {spec.dims}"
            raise refusal(SlmRule.TENSOR_SHAPE, message, where, spec.name)
    view = memoryview(data)
    tensors = {}
    for spec in shape.tensors():
        entry = entries[spec.name]
        payload = view[entry.byte_offset : entry.byte_offset + entry.byte_length]
        scales = view[entry.scale_offset : entry.scale_offset + entry.scale_length]
        tensors[spec.name] = StoredTensor(entry.dtype, entry.dims, payload, scales, entry.block)
        tensors[spec.name].check_values(where, spec.name)
    return tensors
