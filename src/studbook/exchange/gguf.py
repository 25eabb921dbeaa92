"""GGUF, the file that llama.cpp and what is built on it open: an SLM1 model in f32 (extra ``gguf``).

The architecture is ``llama``, whose rotary pairs are adjacent as in an SLM1 model, so every tensor is taken over as it
stands, quantised ones as the f32 values they stand for. Source: the GGUF specification, version 3, written with the
library ``gguf`` of the llama.cpp project; equal models and an equal library give equal bytes.

Ids mean the same in both. Text does too for a byte tokenizer. Merges go over as byte-level merges in the order of their
ranks, but the readers of the format cut a text before they merge: never less than at the ends of a run of digits, and
every three digits inside it (pre-tokenizer ``superbpe``). `keeps_text` tells whether a merge could cross such a cut.
"""

from __future__ import annotations

import tempfile
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from studbook.errors import UsageError
from studbook.models.bpe import BpeTokenizer
from studbook.models.slm import Slm
from studbook.models.tokenizers import BOS, EOS, FIRST_WORD, PAD, UNK, ByteTokenizer

# The library is an extra; everything else that leaves the lab does without it.
try:
    import gguf
except ImportError:
    gguf = None

__all__ = ["keeps_text", "to_gguf", "write_gguf"]

AnyTokenizer = ByteTokenizer | BpeTokenizer

_PARTS = {
    "attn_norm": "attn_norm",
    "wq": "attn_q",
    "wk": "attn_k",
    "wv": "attn_v",
    "wo": "attn_output",
    "ffn_norm": "ffn_norm",
    "w1": "ffn_gate",
    "w3": "ffn_up",
    "w2": "ffn_down",
}
_WHOLE = {"tok_embeddings": "token_embd", "norm": "output_norm", "output": "output"}
_SPECIAL = {BOS: "<|studbook:begin|>", EOS: "<|studbook:end|>", PAD: "<|studbook:pad|>", UNK: "<|studbook:unknown|>"}
# Kinds of tokens, as the format numbers them.
_NORMAL, _UNKNOWN, _CONTROL, _UNUSED = 1, 2, 3, 5


class _Vocabulary(NamedTuple):
    """Text and kind of every id, and the merges, lowest rank first."""

    tokens: list[str]
    kinds: list[int]
    merges: list[str]


def to_gguf(model: Slm, name: str = "", licence: str = "") -> bytes:
    """A model as the bytes of a GGUF file.

    Args:
        model: The model, in any storage.
        name: What people call it.
        licence: SPDX identifier.

    Raises:
        UsageError: if the library is not installed; ``usage.extra``.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        write_gguf(path, model, name, licence)
        return path.read_bytes()


def write_gguf(path: Path, model: Slm, name: str = "", licence: str = "") -> None:
    """Write a model as a GGUF file; one that is there already is overwritten.

    Args:
        path: The file.
        model: The model, in any storage.
        name: What people call it.
        licence: SPDX identifier.

    Raises:
        UsageError: if the library is not installed; ``usage.extra``.
    """
    if gguf is None:
        advice = "Install the extra: pip install 'studbook[gguf]'"
        raise UsageError("GGUF needs the library gguf, which is not installed", advice=advice, reason="usage.extra")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_license(licence)
    _describe(writer, model)
    _spell(writer, model.tokenizer)
    for tensor in model.tensors:
        writer.add_tensor(_renamed(tensor), model.dense(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def keeps_text(tokenizer: AnyTokenizer) -> bool:
    """Whether readers of the format give every text the same ids as the tokenizer does.

    They do unless a word could lie across one of their cuts, is written like a control token, or has the same bytes as
    another one. Where they do not, ids still mean the same, and text is only near.

    Args:
        tokenizer: A model's tokenizer.
    """
    words = () if isinstance(tokenizer, ByteTokenizer) else tokenizer.words
    return len(_spoken(words)) == len(words) and all(_uncut(word) and not _marked(word) for word in words)


def _describe(writer: Any, model: Slm) -> None:
    shape = model.shape
    writer.add_string("studbook.slm.sha256", model.sha256)
    writer.add_file_type(0)
    writer.add_vocab_size(shape.vocab_size)
    writer.add_context_length(shape.max_context)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_block_count(shape.layer_count)
    writer.add_feed_forward_length(shape.ffn_size)
    writer.add_head_count(shape.head_count)
    writer.add_head_count_kv(shape.kv_head_count)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.rms_norm_epsilon)


def _spell(writer: Any, tokenizer: AnyTokenizer) -> None:
    found = _vocabulary(tokenizer)
    writer.add_string("studbook.tokenizer.sha256", tokenizer.sha256)
    writer.add_bool("studbook.tokenizer.keeps_text", keeps_text(tokenizer))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("superbpe")
    writer.add_token_list(found.tokens)
    writer.add_token_types(found.kinds)
    # Readers refuse a file without merges; this one joins what no text is made of.
    writer.add_token_merges(found.merges or [f"{_SPECIAL[PAD]} {_SPECIAL[PAD]}"])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_pad_token_id(PAD)
    writer.add_unk_token_id(UNK)
    # A prompt that is going to be continued has a begin and no end.
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)


def _vocabulary(tokenizer: AnyTokenizer) -> _Vocabulary:
    plain = _printable()
    tokens = [*plain, *_SPECIAL.values()]
    kinds = [_NORMAL] * BOS + [_CONTROL, _CONTROL, _CONTROL, _UNKNOWN]
    if isinstance(tokenizer, ByteTokenizer):
        return _Vocabulary(tokens, kinds, [])
    # Readers know a token by its text alone, and every text once.
    spoken = _spoken(tokenizer.words)
    for token, word in enumerate(tokenizer.words, FIRST_WORD):
        tokens.append("".join(plain[byte] for byte in word) if token in spoken else f"<|studbook:{token}|>")
        kinds.append(_NORMAL if token in spoken else _UNUSED)
    known = {*range(BOS), *spoken}
    merges = sorted(tokenizer.merges, key=lambda merge: merge.rank)
    texts = [f"{tokens[m.left]} {tokens[m.right]}" for m in merges if {m.left, m.right, m.output} <= known]
    return _Vocabulary(tokens, kinds, texts)


def _spoken(words: Sequence[bytes]) -> set[int]:
    """Ids of the words that no lower id stands for already."""
    first = {word: token for token, word in reversed([*enumerate(words, FIRST_WORD)])}
    return {token for word, token in first.items() if len(word) > 1}


def _printable() -> list[str]:
    """The character that stands for each byte in byte-level merges. Source: Radford et al. 2019, GPT-2."""
    shown = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in shown else next(others)) for byte in range(256)]


def _uncut(word: bytes) -> bool:
    """Whether readers merge across every place inside a word: no end of a character there is next to a number's."""
    ends = [at for at in range(1, len(word)) if word[at] & 0xC0 != 0x80]
    if not ends:
        return True
    try:
        return not any(unicodedata.category(character).startswith("N") for character in word.decode())
    except UnicodeDecodeError:
        return False  # the part of a character at its edge could belong to a number


def _marked(word: bytes) -> bool:
    """Whether a word looks like one of the control tokens that readers know by their text."""
    return word.startswith((b"<", b"[", b"_<")) and word.endswith((b">", b"]"))


def _renamed(name: str) -> str:
    """A tensor's name in the format."""
    *layer, part, _ = name.split(".")
    return f"blk.{layer[1]}.{_PARTS[part]}.weight" if layer else f"{_WHOLE[part]}.weight"
