from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from studbook.models.shape import SlmShape
from studbook.models.slm import Slm, parse_slm, write_slm
from studbook.models.tokenizers import ByteTokenizer

Tensors = dict[str, np.ndarray]


def shape_of(**changes: Any) -> SlmShape:
    fields: dict[str, Any] = {
        "vocab_size": 260,
        "hidden_size": 16,
        "layer_count": 2,
        "head_count": 4,
        "kv_head_count": 2,
        "head_dim": 4,
        "ffn_size": 24,
        "max_context": 32,
        "rope_theta": 10000.0,
        "rms_norm_epsilon": 1e-5,
        "tied": True,
    }
    return SlmShape(**(fields | changes))


def tensors_of(shape: SlmShape, seed: int = 0, size: float = 0.5) -> Tensors:
    random = np.random.default_rng(seed)
    return {
        spec.name: (random.standard_normal(spec.dims) * size + (len(spec.dims) == 1)).astype(np.float32)
        for spec in shape.tensors()
    }


def model_of(
    shape: SlmShape, seed: int = 0, size: float = 0.5, dtype: str | Mapping[str, str] = "f32", **changes: np.ndarray
) -> Slm:
    tensors = tensors_of(shape, seed, size) | changes
    return parse_slm(write_slm(shape, ByteTokenizer(), tensors, dtype))


@pytest.fixture(scope="session")
def make_shape() -> Callable[..., SlmShape]:
    return shape_of


@pytest.fixture(scope="session")
def make_tensors() -> Callable[..., Tensors]:
    return tensors_of


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Slm]:
    return model_of
