"""Peers of bench_engine.py, run in an interpreter that has torch, transformers and xllamacpp: one way a process.

    python benchmarks/engine_peer.py WAY FOLDER

``FOLDER`` holds job.json (prompt and token counts), the model as a checkpoint of the Llama family and as model.gguf.
Printed: one line of JSON with CPU and wall seconds of every part, and the tokens that were written.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clocks import fastest, peak_mib, spent

WAY, FOLDER = sys.argv[1], Path(sys.argv[2])
JOB: dict[str, Any] = json.loads((FOLDER / "job.json").read_text())


def tell(ready: tuple[float, float], write: Callable[[], list[int]], feed: Callable[[], int], versions: Any) -> None:
    """Measure writing and feeding, and print them."""
    written, decode = fastest(write, JOB["repeats"])
    fed, score = fastest(feed, JOB["repeats"])
    print(json.dumps({"start": ready, "decode": decode, "score": score, "fed": fed, "ids": written,
                      "peak_mib": peak_mib(), "versions": versions}))  # fmt: skip


def by_transformers() -> None:
    """``generate`` of the library, greedy; feeding is one batch of forward passes with logits at every position."""
    import torch
    import transformers

    torch.set_num_threads(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(FOLDER / "checkpoint", dtype=torch.float32).eval()
    prompt, rows = torch.tensor([JOB["prompt"]]), torch.tensor(JOB["rows"])
    model.generation_config.eos_token_id = None
    ready = spent()

    def write() -> list[int]:
        ids = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=JOB["new"],
                             do_sample=False, pad_token_id=258)  # fmt: skip
        return ids[0, prompt.shape[1] :].tolist()

    def feed() -> int:
        model(rows, use_cache=False)
        return rows.numel()

    with torch.inference_mode():
        tell(ready, write, feed, {"torch": torch.__version__, "transformers": transformers.__version__})


def by_torch() -> None:
    """A decoder written out in plain torch, with a preallocated cache of keys and values."""
    import torch
    from safetensors.torch import load_file
    from torch.nn import functional as fn

    torch.set_num_threads(1)
    config = json.loads((FOLDER / "checkpoint" / "config.json").read_text())
    weights = load_file(FOLDER / "checkpoint" / "model.safetensors")
    heads, width, depth = config["num_attention_heads"], config["head_dim"], config["num_hidden_layers"]
    table = weights["model.embed_tokens.weight"]
    head = weights.get("lm_head.weight", table)
    rates = config["rope_theta"] ** (-torch.arange(0, width, 2) / width)
    angles = torch.arange(config["max_position_embeddings"])[:, None] * torch.cat([rates, rates])
    cosines, sines, eps = angles.cos(), angles.sin(), config["rms_norm_eps"]
    layers = [
        {k.rsplit(".", 2)[-2]: v for k, v in weights.items() if k.startswith(f"model.layers.{layer}.")}
        for layer in range(depth)
    ]
    ready = spent()

    def turned(x: Any, start: int) -> Any:
        left, right = x.chunk(2, -1)
        stop = start + x.shape[2]
        return x * cosines[start:stop] + torch.cat([-right, left], -1) * sines[start:stop]

    def run(ids: Any, cache: Any, start: int) -> Any:
        x = table[ids]
        batch, count = ids.shape
        for layer, w in enumerate(layers):
            h = fn.rms_norm(x, (x.shape[-1],), w["input_layernorm"], eps)
            q, k, v = (fn.linear(h, w[f"{p}_proj"]).view(batch, count, heads, width).transpose(1, 2) for p in "qkv")
            q, k = turned(q, start), turned(k, start)
            if cache is not None:
                cache[layer, 0, :, :, start : start + count] = k
                cache[layer, 1, :, :, start : start + count] = v
                k, v = cache[layer, :, :, :, : start + count]
            mixed = fn.scaled_dot_product_attention(q, k, v, is_causal=count > 1)
            x = x + fn.linear(mixed.transpose(1, 2).reshape(batch, count, -1), w["o_proj"])
            h = fn.rms_norm(x, (x.shape[-1],), w["post_attention_layernorm"], eps)
            x = x + fn.linear(fn.silu(fn.linear(h, w["gate_proj"])) * fn.linear(h, w["up_proj"]), w["down_proj"])
        return fn.linear(fn.rms_norm(x, (x.shape[-1],), weights["model.norm.weight"], eps), head)

    def write() -> list[int]:
        length, out = len(JOB["prompt"]), []
        cache = torch.zeros(depth, 2, 1, heads, length + JOB["new"], width)
        ids, start = torch.tensor([JOB["prompt"]]), 0
        for _ in range(JOB["new"]):
            token = int(run(ids, cache, start)[0, -1].argmax())
            out.append(token)
            start, ids = start + ids.shape[1], torch.tensor([[token]])
        return out

    def feed() -> int:
        rows = torch.tensor(JOB["rows"])
        run(rows, None, 0)
        return rows.numel()

    with torch.inference_mode():
        tell(ready, write, feed, {"torch": torch.__version__})


def by_llama() -> None:
    """llama.cpp on the same weights in f32, one thread; what its own clock says of writing and of feeding a prompt."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(FOLDER / "model.gguf")
    params.n_ctx, params.n_batch, params.n_ubatch, params.n_parallel = JOB["context"], 512, 512, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.n_gpu_layers, params.warmup, params.verbosity = 0, True, 0
    if "plain" in sys.argv:
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(params)
    ready = spent()

    def ask(ids: list[int], new: int) -> dict[str, Any]:
        asked = {"prompt": ids, "n_predict": new, "temperature": 0.0, "ignore_eos": True, "cache_prompt": False,
                 "return_tokens": True}  # fmt: skip
        request = urllib.request.Request(
            f"{server.listening_address}/completion", json.dumps(asked).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    writing: list[float] = []
    feeding: list[float] = []

    def write() -> list[int]:
        found = ask(JOB["prompt"], JOB["new"])
        writing.append(found["timings"]["predicted_ms"] / 1000)
        ids: list[int] = found["tokens"]
        return ids

    def feed() -> int:
        found = [ask(row, 1)["timings"] for row in JOB["rows"]]
        feeding.append(sum(one["prompt_ms"] for one in found) / 1000)
        return sum(one["prompt_n"] for one in found)

    ids, (cpu, _) = fastest(write, JOB["repeats"])
    fed, (score_cpu, _) = fastest(feed, JOB["repeats"])
    told = {
        "start": ready,
        "decode": [cpu, min(writing[1:])],
        "score": [score_cpu, min(feeding[1:])],
        "fed": fed,
        "ids": ids,
        "peak_mib": peak_mib(),
        "versions": {"xllamacpp": xllamacpp.__version__},
    }
    print(json.dumps(told))
    sys.stdout.flush()
    os._exit(0)  # its server's threads do not end by themselves


if __name__ == "__main__":
    {"transformers": by_transformers, "torch": by_torch, "llama": by_llama}[WAY]()
