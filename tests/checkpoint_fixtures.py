"""Tiny Hugging Face folders written without the project's own writer, so that reader and writer are held against others."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

HIDDEN, FFN, VOCAB = 16, 24, 32
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": FFN,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": VOCAB,
}
CARD = "---\nlicense: apache-2.0\nlanguage: en\n---\n# A tiny model\n"


def bf16(values: np.ndarray) -> np.ndarray:
    """f32 -> bf16 bits, ties to even, by integer arithmetic of its own."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def safetensors_bytes(tensors: Mapping[str, tuple[str, np.ndarray]]) -> bytes:
    """A safetensors file, tensors in the order given: name -> (dtype word, array whose bytes are the payload)."""
    header, payload = {}, b""
    for name, (word, array) in tensors.items():
        data = array.tobytes()
        header[name] = {
            "dtype": word,
            "shape": list(array.shape),
            "data_offsets": [len(payload), len(payload) + len(data)],
        }
        payload += data
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + payload


def llama_shapes(layers: int = 2, vocab: int = VOCAB) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a llama of this size."""
    shapes = {
        "model.embed_tokens.weight": (vocab, HIDDEN),
        "lm_head.weight": (vocab, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    for layer in range(layers):
        stem = f"model.layers.{layer}"
        shapes |= {f"{stem}.{n}_layernorm.weight": (HIDDEN,) for n in ("input", "post_attention")}
        shapes |= {f"{stem}.self_attn.{n}_proj.weight": (HIDDEN, HIDDEN) for n in "qkvo"}
        shapes |= {f"{stem}.mlp.{n}_proj.weight": (FFN, HIDDEN) for n in ("gate", "up")}
        shapes[f"{stem}.mlp.down_proj.weight"] = (HIDDEN, FFN)
    return shapes


def tokenizer_json(vocab: int = VOCAB) -> bytes:
    """A word-level tokenizer of t0, t1, ..."""
    words = {f"t{i}": i for i in range(vocab)}
    model = {"type": "WordLevel", "vocab": words, "unk_token": "t0"}
    return json.dumps({"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
                       "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
                       "model": model}).encode()  # fmt: skip


def write_llama(
    folder: Path, seed: int, base: Path | None = None, *, layers: int = 2, card: str | None = CARD, scale: float = 0.02
) -> Path:
    """A tiny bf16 llama: noise, or another one with a little noise added."""
    rng = np.random.default_rng(seed)
    tensors = {}
    start = read_llama(base) if base else {}
    for name, shape in llama_shapes(layers).items():
        noise = rng.standard_normal(shape).astype(np.float32) * np.float32(scale)
        tensors[name] = ("BF16", bf16(start[name] + noise * np.float32(0.1) if base else noise))
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": layers}, indent=2))
    (folder / "generation_config.json").write_text('{"max_new_tokens": 8}')
    (folder / "tokenizer.json").write_bytes(tokenizer_json())
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    (folder / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    if card is not None:
        (folder / "README.md").write_text(card)
    return folder


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """A file's tensors as f32, read without the project's reader."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        first, last = (8 + length + at for at in entry["data_offsets"])
        raw = data[first:last]
        if entry["dtype"] == "BF16":
            values = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(raw, {"F32": np.float32, "F16": np.float16, "I64": np.int64}[entry["dtype"]])
        found[name] = values.reshape(entry["shape"])
    return found


def read_llama(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of a folder as f32."""
    found: dict[str, np.ndarray] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= read_safetensors(path)
    return found
