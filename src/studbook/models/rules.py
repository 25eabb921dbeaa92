"""Every rule of the SLM1 container, by name: the ``reason`` of each `SlmRefused`.

The rules are those of the format's header, directory, storage and checksum sections; none is checked under two names
and no two rules share one.
"""

from __future__ import annotations

from enum import StrEnum

from studbook.errors import SlmRefused

__all__ = ["SlmRule", "refusal"]


class SlmRule(StrEnum):
    """One member a rule of the container, in the order in which a reader meets them."""

    SIZE = "slm.size"
    SHORT = "slm.short"
    FILE_ALIGNMENT = "slm.file-alignment"
    MAGIC = "slm.magic"
    VERSION = "slm.version"
    HEADER_LENGTH = "slm.header-length"
    MODEL_TYPE = "slm.model-type"
    FLAGS = "slm.flags"
    VOCAB = "slm.vocab"
    SPECIAL_TOKENS = "slm.special-tokens"
    HIDDEN = "slm.hidden"
    LAYERS = "slm.layers"
    HEADS = "slm.heads"
    KV_HEADS = "slm.kv-heads"
    KV_HEADS_MANY = "slm.kv-heads.too-many"
    KV_HEADS_DIVIDE = "slm.kv-heads.divide"
    HEAD_DIM = "slm.head-dim"
    HEAD_DIM_ODD = "slm.head-dim.odd"
    HEAD_PRODUCT = "slm.head-dim.product"
    FFN = "slm.ffn"
    CONTEXT = "slm.context"
    ROPE_THETA = "slm.rope-theta"
    EPSILON = "slm.epsilon"
    TOKENIZER_RANGE = "slm.tokenizer-range"
    DIRECTORY_ALIGNMENT = "slm.directory-alignment"
    DIRECTORY_RANGE = "slm.directory-range"
    DATA_ALIGNMENT = "slm.data-alignment"
    DATA_RANGE = "slm.data-range"
    TENSOR_COUNT = "slm.tensor-count"
    OVERLAP = "slm.overlap"
    ORDER = "slm.order"
    CHECKSUM_ZERO = "slm.checksum.zero"
    CHECKSUM = "slm.checksum"
    DTYPE = "slm.tensor.dtype"
    RANK = "slm.tensor.rank"
    DIMS_ZERO = "slm.tensor.dims-zero"
    DIMS_UNUSED = "slm.tensor.dims-unused"
    RESERVED = "slm.tensor.reserved"
    BLOCK_F32 = "slm.tensor.block-f32"
    BLOCK_Q8 = "slm.tensor.block-q8_0"
    BLOCK_Q4_ODD = "slm.tensor.block-q4_0-odd"
    BLOCK_Q4_DIVIDE = "slm.tensor.block-q4_0-divide"
    PAYLOAD_LENGTH = "slm.payload.length"
    PAYLOAD_ALIGNMENT = "slm.payload.alignment"
    PAYLOAD_RANGE = "slm.payload.range"
    PAYLOAD_BEFORE_DATA = "slm.payload.before-data"
    SCALE_OFFSET_F32 = "slm.scale.offset-f32"
    SCALE_ALIGNMENT = "slm.scale.alignment"
    SCALE_RANGE = "slm.scale.range"
    SCALE_BEFORE_DATA = "slm.scale.before-data"
    PADDING = "slm.padding"
    TRAILING = "slm.trailing"
    VOCAB_TOKENIZER = "slm.vocab.tokenizer"
    TENSOR_DUPLICATE = "slm.tensor.duplicate"
    TENSOR_UNKNOWN = "slm.tensor.unknown"
    TENSOR_MISSING = "slm.tensor.missing"
    TENSOR_SHAPE = "slm.tensor.shape"
    PAYLOAD_NON_FINITE = "slm.payload.non-finite"
    SCALE_NON_FINITE = "slm.scale.non-finite"
    SCALE_NON_POSITIVE = "slm.scale.non-positive"
    PRODUCT_NON_FINITE = "slm.product.non-finite"
    ODD_ROW = "slm.write.odd-row"


def refusal(rule: SlmRule, message: str, where: object = "", field: str = "", advice: str = "") -> SlmRefused:
    """The error for one broken rule, placed at file and field.

    Args:
        rule: Which rule.
        message: What is wrong, with the numbers.
        where: The file.
        field: The field, tensor or section in it.
        advice: What to do, where it is not the usual "fetch the file again".
    """
    places = [str(where), f"field {field}" if field else ""]
    return SlmRefused(message, where=": ".join(p for p in places if p), reason=rule, advice=advice)
