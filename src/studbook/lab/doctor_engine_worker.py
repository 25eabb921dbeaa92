"""A worker that runs the engine on a model nobody trained, so that it can be seen whether it runs here, and how fast."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from studbook.evaluation.smokes import spoken
from studbook.models.engine import Engine, warm
from studbook.models.sampling import GREEDY
from studbook.models.shape import SlmShape
from studbook.models.slm_writer import write_slm
from studbook.models.tokenizers import BOS, ByteTokenizer

__all__ = ["warm", "work"]

_SHAPE = SlmShape(
    vocab_size=260,
    hidden_size=64,
    layer_count=3,
    head_count=4,
    kv_head_count=2,
    head_dim=16,
    ffn_size=192,
    max_context=256,
    rope_theta=10_000.0,
    rms_norm_epsilon=1e-5,
    tied=True,
)
_NO_TOKEN = _SHAPE.vocab_size  # never written, so nothing stops it


def work(_job: dict[str, Any], _folder: Path) -> dict[str, Any]:
    """Let the model pass a smoke, and write until its context is full.

    Returns:
        ``passed``, ``tokens_per_second`` of decoding one by one, ``fuel``: what a token takes.
    """
    chance = np.random.default_rng(1)
    tensors = {s.name: chance.normal(0.0, 0.1, s.dims).astype(np.float32) for s in _SHAPE.tensors()}
    with Engine(write_slm(_SHAPE, ByteTokenizer(), tensors), fuel=True) as engine:
        said = spoken(engine)
        before, started = engine.fuel_used, time.perf_counter()
        with engine.session(_SHAPE.max_context) as session:
            ids, _ = session.write_on([BOS], _SHAPE.max_context, GREEDY, _NO_TOKEN)
        seconds = time.perf_counter() - started
        return {
            "passed": said.same and said.finite,
            "tokens_per_second": len(ids) / seconds,
            "fuel": (engine.fuel_used - before) // len(ids),
        }
