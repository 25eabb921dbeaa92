"""Tiny llamas as folders that transformers, mergekit and Studbook all open, and the peer run on them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from checkpoint_fixtures import CONFIG, bf16, read_llama, safetensors_bytes

HIDDEN, FFN, LAYERS = 32, 48, 4
WORDS = tuple(f"t{i}" for i in range(64))
# Merges of one run happen in one process: importing the peer takes longer than all of them.
_DRIVER = """
import sys
import torch
torch.set_num_threads(1)
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
for line in sys.stdin.read().splitlines():
    source, target = line.split("\\t")
    text = open(source, encoding="utf-8").read()
    config = MergeConfiguration.model_validate(yaml.safe_load(text))
    run_merge(config, target, options=MergeOptions(quiet=True, random_seed=1, clone_tensors=True), config_source=text)
"""


def shapes(layers: int, rows: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a llama."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (rows, HIDDEN), "lm_head.weight": (rows, HIDDEN)}
    for layer in range(layers):
        stem = f"model.layers.{layer}"
        found |= {f"{stem}.self_attn.{n}_proj.weight": (HIDDEN, HIDDEN) for n in "qkvo"}
        found |= {f"{stem}.mlp.{n}_proj.weight": (FFN, HIDDEN) for n in ("gate", "up")}
        found[f"{stem}.mlp.down_proj.weight"] = (HIDDEN, FFN)
        found |= {f"{stem}.{n}_layernorm.weight": (HIDDEN,) for n in ("input", "post_attention")}
    return {**found, "model.norm.weight": (HIDDEN,)}


def write_llama(
    folder: Path, seed: int, base: Path | None = None, *, layers: int = LAYERS, words: Sequence[str] = WORDS
) -> Path:
    """A tiny bf16 llama with a word-level tokenizer: noise, or another one with noise of a fifth of its size added."""
    rng = np.random.default_rng(seed)
    start = read_llama(base) if base is not None else {}
    tensors = {}
    for name, shape in shapes(layers, len(words)).items():
        noise = rng.standard_normal(shape).astype(np.float32) * np.float32(0.05)
        if name in start:
            grown = noise.copy()
            rows = min(shape[0], start[name].shape[0])
            grown[:rows] = start[name][:rows] + np.float32(0.2) * noise[:rows]
            noise = grown
        tensors[name] = ("BF16", bf16(noise))
    config = {**CONFIG, "hidden_size": HIDDEN, "intermediate_size": FFN, "num_hidden_layers": layers}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": len(words)}, indent=2))
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer(words)))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    (folder / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    return folder


def _tokenizer(words: Sequence[str]) -> dict[str, object]:
    model = {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(words)}, "unk_token": words[0]}
    nothing = dict.fromkeys(("truncation", "padding", "normalizer", "post_processor", "decoder"))
    return {"version": "1.0", **nothing, "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"}, "model": model}


def family(folder: Path) -> Path:
    """A base, two models tuned from it, and two more with words of their own."""
    base = write_llama(folder / "base", 0)
    write_llama(folder / "maths", 1, base)
    write_llama(folder / "code", 2, base)
    write_llama(folder / "poems", 3, base, words=(*WORDS, "rose", "violet"))
    write_llama(folder / "songs", 4, base, words=(*WORDS, "violet", "verse"))
    return folder


def run_peer(texts: Mapping[str, str], folder: Path) -> dict[str, Path]:
    """Merge with mergekit: name -> YAML to name -> folder. One thread, and torch's kernels without fused operations."""
    lines = []
    for name, text in texts.items():
        (folder / f"{name}.yml").write_text(text)
        lines.append(f"{folder / f'{name}.yml'}\t{folder / name}")
    found = subprocess.run(
        [sys.executable, "-c", _DRIVER],
        input="\n".join(lines),
        env={**os.environ, "ATEN_CPU_CAPABILITY": "default", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        raise AssertionError(found.stderr[-4000:])
    return {name: folder / name for name in texts}


def vocabulary(folder: Path) -> dict[str, int]:
    """Token -> row of a tokenizer.json."""
    document = json.loads((folder / "tokenizer.json").read_text())
    added = {entry["content"]: entry["id"] for entry in document["added_tokens"]}
    return {**document["model"]["vocab"], **added}
