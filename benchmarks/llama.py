"""A model of an SLM1 container as a checkpoint of the Llama family, for the peers that benchmarks compare with.

The network is the same; names differ, and the order of query and key rows, since rotary pairs there are half a head apart.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from studbook.adapters.make import adjacent_pairs
from studbook.models.decoder import Decoder
from studbook.models.slm import Slm
from studbook.models.tokenizers import BOS, EOS, PAD, UNK

SPECIAL = {"<s>": BOS, "</s>": EOS, "<pad>": PAD, "<unk>": UNK}


def llama_tensors(model: Slm) -> dict[str, np.ndarray]:
    """The weights under Llama's names; query and key rows in the order of half-split rotary pairs."""
    shape = model.shape
    names = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "w1": "mlp.gate_proj"}
    names |= {"w3": "mlp.up_proj", "w2": "mlp.down_proj"}
    names |= {f"w{part}": f"self_attn.{part}_proj" for part in "qkvo"}
    found = {"model.embed_tokens.weight": model.dense("tok_embeddings.weight")}
    found["model.norm.weight"] = model.dense("norm.weight")
    if not shape.tied:
        found["lm_head.weight"] = model.dense("output.weight")
    for layer in range(shape.layer_count):
        for own, theirs in names.items():
            value = model.dense(f"layers.{layer}.{own}.weight")
            if own in ("wq", "wk"):
                heads = shape.head_count if own == "wq" else shape.kv_head_count
                value = value[np.argsort(adjacent_pairs(heads, shape.head_dim))]
            found[f"model.layers.{layer}.{theirs}.weight"] = value
    return found


def write_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """f32 tensors, one after the other."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, value in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [at, at + value.nbytes]}
        at += value.nbytes
    text = json.dumps(header).encode()
    parts = [np.ascontiguousarray(value).tobytes() for value in tensors.values()]
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))


def byte_names() -> list[str]:
    """The printable character that byte-level tokenizers write for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


def tokenizer() -> dict[str, Any]:
    """The byte tokenizer as a tokenizer.json: no merges, so that every byte is a token."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    begin = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    vocab = {name: byte for byte, name in enumerate(byte_names())}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": c, **flags, "special": True} for c, i in SPECIAL.items()],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": begin,
            "pair": [*begin, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [BOS], "tokens": ["<s>"]}},
        },
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab | SPECIAL, "merges": [], "dropout": None, "unk_token": None},
    }


def export(model: Slm, folder: Path, sequences: np.ndarray) -> None:
    """A checkpoint folder, and Studbook's logits of some sequences, which whoever loads it has to find again."""
    shape = model.shape
    folder.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.ffn_size,
        "num_hidden_layers": shape.layer_count,
        "num_attention_heads": shape.head_count,
        "num_key_value_heads": shape.kv_head_count,
        "head_dim": shape.head_dim,
        "max_position_embeddings": shape.max_context,
        "rms_norm_eps": shape.rms_norm_epsilon,
        "rope_theta": shape.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "hidden_act": "silu",
        "tie_word_embeddings": shape.tied,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
        "dtype": "float32",
    }
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer()))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": shape.max_context, **names})
    )
    write_safetensors(folder / "model.safetensors", llama_tensors(model))
    decoder = Decoder(model)
    np.savez(folder / "check.npz", ids=sequences, logits=decoder.logits(decoder.run(sequences)))
