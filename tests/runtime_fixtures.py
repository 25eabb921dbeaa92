"""Small models with random weights, packages for them, and tokenizers with words: what the runtime's tests hold."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from studbook.adapters.changes import LowRank
from studbook.adapters.make import dense_delta, low_rank, top_delta
from studbook.models.bpe import BpeTokenizer
from studbook.models.shape import SlmShape
from studbook.models.slm import Slm, parse_slm, write_slm
from studbook.models.tokenizers import ByteTokenizer
from studbook.records import Header
from studbook.runtime.arenas import Arena, Budgets, Place
from studbook.runtime.handles import Artifact, Artifacts
from studbook.runtime.installing import Wish, prepare
from studbook.runtime.resident import ResidentSet
from studbook.runtime.residents import Installed

SHAPES: list[dict[str, Any]] = [
    {},
    {"tied": False, "kv_head_count": 4},
    {"kv_head_count": 1, "layer_count": 3, "rope_theta": 100.0},
    {"hidden_size": 18, "head_count": 3, "kv_head_count": 3, "head_dim": 6, "ffn_size": 10},
    {"hidden_size": 96, "head_count": 2, "kv_head_count": 1, "head_dim": 48, "ffn_size": 70, "max_context": 128},
]


def shape_of(**changes: Any) -> SlmShape:
    fields: dict[str, Any] = {
        "vocab_size": 260, "hidden_size": 16, "layer_count": 2, "head_count": 4, "kv_head_count": 2, "head_dim": 4,
        "ffn_size": 24, "max_context": 32, "rope_theta": 10000.0, "rms_norm_epsilon": 1e-5, "tied": True,
    }  # fmt: skip
    return SlmShape(**(fields | changes))


@cache
def _values(shape: SlmShape, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    size = 2 / shape.hidden_size**0.5
    return {
        spec.name: (random.standard_normal(spec.dims) * size + (len(spec.dims) == 1)).astype(np.float32)
        for spec in shape.tensors()
    }


def tensors_of(shape: SlmShape, seed: int = 0) -> dict[str, np.ndarray]:
    return dict(_values(shape, seed))


def package_of(base: Slm, kind: str, seed: int) -> bytes:
    """A package for some matrices: of all kinds of tensors for dense ones, of one layer otherwise."""
    random = np.random.default_rng(seed + 1)
    if kind == "ALR1":
        names = ["layers.0.wq.weight", "layers.0.w2.weight"]
        factors = {}
        for name in names:
            rows, columns = base.tensors[name].dims
            a, b = random.standard_normal((2, columns)), random.standard_normal((rows, 2))
            factors[name] = LowRank((0.1 * a).astype(np.float32), (0.1 * b).astype(np.float32), 2.0)
        return low_rank(base, factors, licence="MIT", kind="trained", digests={"source": base.sha256})
    tuned = {name: base.dense(name).copy() for name in base.tensors}
    for name in ("tok_embeddings.weight", "layers.0.wo.weight", "norm.weight")[: 3 if kind == "ADP1" else 2]:
        tuned[name] += random.standard_normal(tuned[name].shape).astype(np.float32) * np.float32(0.01)
    other = parse_slm(write_slm(base.shape, base.tokenizer, tuned))
    if kind == "ADP1":
        return dense_delta(base, other, licence="MIT")
    return top_delta(base, other, licence="MIT", retention=0.25)


def words_of(count: int, *, shuffled: bool) -> BpeTokenizer:
    """Words of two letters, each by one merge."""
    pairs = [(97 + i // 26, 97 + i % 26) for i in range(count)]
    ranks = np.random.default_rng(0).permutation(count).tolist() if shuffled else list(range(count))
    order = ranks if shuffled else range(count)
    merges = [(*pairs[i], 260 + i, ranks[i]) for i in order]
    return BpeTokenizer.build([bytes(pair) for pair in pairs], merges)


class Shelf:
    """A folder of small models, by size and seed, ready to be installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: dict[tuple[object, ...], Installed] = {}

    def artifact(self, data: bytes) -> Artifact:
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.folder / sha256
        if not path.exists():
            path.write_bytes(data)
        return Artifact(sha256, len(data), path)

    def model(self, seed: int = 0, dtype: str = "f32", **changes: Any) -> bytes:
        shape = shape_of(**changes)
        return write_slm(shape, ByteTokenizer(), tensors_of(shape, seed), dtype)

    def package(
        self,
        name: str,
        seed: int = 0,
        *,
        requires: tuple[str, ...] = (),
        kinds: tuple[str, ...] = (),
        dtype: str = "f32",
        wish: Wish = Wish(),  # noqa: B008
        **changes: Any,
    ) -> Installed:
        key = (name, seed, requires, kinds, dtype, wish, *sorted(changes.items()))
        if key not in self._made:
            data = self.model(seed, **changes)
            artifact = self.artifact(self.model(seed, dtype, **changes))
            stack = [self.artifact(package_of(parse_slm(data), kind, seed)) for kind in kinds]
            revision = hashlib.sha256(repr(key).encode()).hexdigest()
            self._made[key] = prepare(name, revision, artifact, stack=stack, requires=requires, wish=wish)
        return self._made[key]


def set_of(budgets: Budgets, **given: Any) -> ResidentSet:
    """A resident set with an arena for every place that has limits."""
    limits = budgets.limits()
    places: list[Place] = [place for place in ("host", "device") if place in limits]
    arenas = {place: Arena(place, limits[place].total) for place in places}
    header = Header(source="studbook", version="0", environment="test", owner="tests")
    return ResidentSet(budgets, arenas, Artifacts(), header, **given)
