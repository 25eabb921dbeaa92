"""llama.cpp in a process of its own, which ends with it: its server's threads do not end by themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# f32 throughout: its cache is f16 by default, and flash attention rounds to f16 on the way.
_DRIVER = """
import json, os, sys, urllib.request
import xllamacpp
job = json.load(sys.stdin)
params = xllamacpp.CommonParams()
params.model.path = job["path"]
params.n_ctx, params.n_batch, params.n_ubatch, params.n_parallel = job["context"], 512, 512, 1
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
params.n_gpu_layers, params.warmup, params.verbosity = 0, False, 0
server = xllamacpp.Server(params)

def ask(path, **body):
    data = json.dumps(body).encode()
    request = urllib.request.Request(server.listening_address + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)

def after(ids):
    # Of the byte that begins a character it tells nothing, so it is made to write another one; what it tells is from before.
    made = ask("/completion", prompt=ids, n_predict=1, temperature=0.0, n_probs=job["vocab"], logit_bias=[[97, 1e6]])
    row = [None] * job["vocab"]
    for one in made["completion_probabilities"][0]["top_logprobs"]:
        row[one["id"]] = one["logprob"]
    return row

def written(ids):
    return ask("/completion", prompt=ids, n_predict=job["new"], temperature=0.0, return_tokens=True)["tokens"]

said = {"ids": [ask("/tokenize", content=text, add_special=True)["tokens"] for text in job["texts"]],
        "logprobs": [[after(ids[:n]) for n in range(1, len(ids) + 1)] for ids in job["sequences"]],
        "greedy": [written(ids) for ids in job["prompts"]]}
print(json.dumps(said))
sys.stdout.flush()
os._exit(0)
"""


@dataclass(frozen=True)
class Said:
    """What llama.cpp made of a model.

    Attributes:
        ids: Ids of every text, begin included.
        logprobs: Of every sequence, log p of every next token after each of its positions; f64 (positions, vocabulary).
        greedy: What it wrote after every prompt.
    """

    ids: list[list[int]]
    logprobs: list[NDArray[np.float64]]
    greedy: list[list[int]]


def ask(
    path: Path,
    vocab: int,
    context: int,
    *,
    texts: Sequence[str] = (),
    sequences: Sequence[Sequence[int]] = (),
    prompts: Sequence[Sequence[int]] = (),
    new: int = 1,
) -> Said:
    """Let it read texts, say what may come after every position of sequences, and write after prompts."""
    job = {"path": str(path), "vocab": vocab, "context": context, "texts": list(texts), "new": new}
    job |= {"sequences": [list(ids) for ids in sequences], "prompts": [list(ids) for ids in prompts]}
    done = subprocess.run(
        [sys.executable, "-c", _DRIVER], input=json.dumps(job), capture_output=True, text=True, check=False
    )
    if done.returncode or not done.stdout:
        raise AssertionError(done.stderr[-4000:])
    # What its library prints by itself comes before.
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return Said(found["ids"], [np.array(rows, dtype=np.float64) for rows in found["logprobs"]], found["greedy"])
