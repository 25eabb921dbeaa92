"""Every rule of the adapter packages, by name: the ``reason`` of each `AdapterRefused`."""

from __future__ import annotations

from enum import StrEnum

from studbook.errors import AdapterRefused

__all__ = ["FIT_RULES", "FUSE_RULES", "AdapterRule", "refusal"]


class AdapterRule(StrEnum):
    """One member a rule, in the order in which a reader, and then a model, meets them."""

    SIZE = "adapter.size"
    SHORT = "adapter.short"
    FILE_ALIGNMENT = "adapter.file-alignment"
    MAGIC = "adapter.magic"
    VERSION = "adapter.version"
    HEADER_LENGTH = "adapter.header-length"
    FLAGS = "adapter.flags"
    ENTRY_COUNT = "adapter.entry-count"
    PARAMETER_COUNT = "adapter.parameter-count"
    RESERVED = "adapter.reserved"
    META_LENGTH = "adapter.meta-length"
    DIRECTORY_OFFSET = "adapter.directory-offset"
    DATA_OFFSET = "adapter.data-offset"
    DIRECTORY_RANGE = "adapter.directory-range"
    CHECKSUM_ZERO = "adapter.checksum.zero"
    CHECKSUM = "adapter.checksum"
    META_JSON = "adapter.meta.json"
    META_KEYS = "adapter.meta.keys"
    META_BASE = "adapter.meta.base"
    META_LICENCE = "adapter.meta.licence"
    META_SOURCE = "adapter.meta.source"
    META_RETENTION = "adapter.meta.retention"
    META_MASK = "adapter.meta.mask"
    KIND = "adapter.entry.kind"
    RANK = "adapter.entry.rank"
    DIMS_ZERO = "adapter.entry.dims-zero"
    DIMS_UNUSED = "adapter.entry.dims-unused"
    ENTRY_RESERVED = "adapter.entry.reserved"
    MATRIX = "adapter.entry.matrix"
    COUNT = "adapter.entry.count"
    ALPHA = "adapter.entry.alpha"
    DUPLICATE = "adapter.entry.duplicate"
    LENGTH = "adapter.payload.length"
    ALIGNMENT = "adapter.payload.alignment"
    RANGE = "adapter.payload.range"
    BEFORE_DATA = "adapter.payload.before-data"
    OVERLAP = "adapter.overlap"
    PADDING = "adapter.padding"
    TRAILING = "adapter.trailing"
    NON_FINITE = "adapter.payload.non-finite"
    INDEX_ORDER = "adapter.index.order"
    INDEX_RANGE = "adapter.index.range"
    RETENTION = "adapter.retention"
    MASK = "adapter.mask"
    MODEL_FLAGS = "adapter.model.flags"
    MODEL_TENSORS = "adapter.model.tensor-count"
    MODEL_PARAMETERS = "adapter.model.parameter-count"
    MODEL_LAYOUT = "adapter.model.layout"
    MODEL_TOKENIZER = "adapter.model.tokenizer"
    MODEL_BASE = "adapter.model.base"
    TENSOR_UNKNOWN = "adapter.tensor.unknown"
    TENSOR_ORDER = "adapter.tensor.order"
    TENSOR_SHAPE = "adapter.tensor.shape"
    FUSED_NON_FINITE = "adapter.fused.non-finite"


FUSE_RULES = frozenset({AdapterRule.FUSED_NON_FINITE})
FIT_RULES = frozenset(rule for rule in AdapterRule if rule.startswith(("adapter.model.", "adapter.tensor.")))
_MISFIT = "Use the adapter with the model it was made for; its meta block names that one by digest."
_OVERFLOW = "The adapter and this model do not go together; the model was left as it was."


def refusal(rule: AdapterRule, message: str, where: object = "", field: str = "") -> AdapterRefused:
    """The error for one broken rule, placed at file and field.

    Args:
        rule: Which rule.
        message: What is wrong, with the numbers.
        where: The file, or the digest of the package.
        field: The field, entry or tensor in it.
    """
    advice = _MISFIT if rule in FIT_RULES else _OVERFLOW if rule in FUSE_RULES else ""
    places = [str(where), f"field {field}" if field else ""]
    return AdapterRefused(message, where=": ".join(p for p in places if p), reason=rule, advice=advice)
