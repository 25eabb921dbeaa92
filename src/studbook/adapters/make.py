"""Making packages: from two models, whole or in part, and from low-rank factors that were trained elsewhere.

A delta is f32(tuned) - f32(base), one f32 subtraction an element. A tensor in which nothing changed gets no entry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from studbook.adapters.changes import Dense, LowRank, Sparse
from studbook.adapters.writer import write_adapter
from studbook.errors import ParentsDoNotFit, UsageError
from studbook.models.slm import Slm
from studbook.tensors.philox import stream_for
from studbook.tensors.selection import Cut, count_of, cut_of, mask, top_k

__all__ = ["adjacent_pairs", "dense_delta", "from_peft", "low_rank", "random_delta", "top_delta"]

F32 = NDArray[np.float32]
_SMALLEST_KEEP = 0.001


def dense_delta(base: Slm, tuned: Slm, *, licence: str) -> bytes:
    """An ``ADP1`` package with every delta of every tensor that changed.

    Args:
        base: The f32 model.
        tuned: A model of the same shape and tokenizer.
        licence: SPDX identifier of the package.

    Raises:
        ParentsDoNotFit: if the base is not f32, or the models differ in shape or tokenizer.
        UsageError: if nothing changed.
        AdapterRefused: if a delta is not finite, or the file would be too large.
    """
    _check_pair(base, tuned)
    changes = {name: Dense(delta) for name, delta in _deltas(base, tuned) if delta.any()}
    return _package(base, tuned, changes, licence)


def top_delta(
    base: Slm, tuned: Slm, *, licence: str, retention: float, scope: Literal["tensor", "global"] = "tensor"
) -> bytes:
    """An ``ASP1`` package with the largest deltas: exactly floor(retention * n) of them, ties at the lowest index.

    Args:
        base: The f32 model.
        tuned: A model of the same shape and tokenizer.
        licence: SPDX identifier of the package.
        retention: Share of the elements that are kept, 0..1.
        scope: ``tensor`` counts in every tensor by itself, ``global`` over all of them.

    Raises:
        ParentsDoNotFit: as `dense_delta`.
        UsageError: as `dense_delta`, if the share keeps nothing, or there is no such scope.
        AdapterRefused: as `dense_delta`.
    """
    _check_pair(base, tuned)
    if scope not in ("tensor", "global"):
        raise UsageError(f"no scope {scope!r}; tensor and global are known", reason="adapter.make.scope")
    size = base.shape.parameter_count
    cut: Cut | None = None
    if scope == "global":
        flat = lambda: (delta.reshape(-1) for _, delta in _deltas(base, tuned))  # noqa: E731
        cut = top_k(flat, count_of(retention, size), size)
    changes, start = {}, 0
    for name, delta in _deltas(base, tuned):
        own = cut_of(delta.reshape(-1), count_of(retention, delta.size)) if cut is None else cut
        kept = mask(own, delta.reshape(-1), start if cut is not None else 0)
        start += delta.size
        if kept.any() and delta.any():
            changes[name] = _kept(delta, kept)
    return _package(base, tuned, changes, licence, f"top/{scope}/{_decimal(retention)}")


def random_delta(base: Slm, tuned: Slm, *, licence: str, keep: float, seed: int, rescale: bool = False) -> bytes:
    """An ``ASP1`` package with deltas drawn by the keyed stream of (seed, digest of ``tuned``, tensor name).

    Args:
        base: The f32 model.
        tuned: A model of the same shape and tokenizer.
        licence: SPDX identifier of the package.
        keep: Probability of keeping an element, 0.001..1.
        seed: Seed of the stream, 0..2^53-1.
        rescale: Divide kept deltas by ``keep``: one f32 product with f32(1 / keep), so that their mean stays
            (DARE, Yu et al. 2311.03099).

    Raises:
        ParentsDoNotFit: as `dense_delta`.
        UsageError: as `dense_delta`, if nothing is drawn, or a number is out of range.
        AdapterRefused: as `dense_delta`.
    """
    _check_pair(base, tuned)
    if not _SMALLEST_KEEP <= keep <= 1.0 or not 0 <= seed < 1 << 53:
        message = f"keep {keep!r} lies between {_SMALLEST_KEEP} and 1, seed {seed!r} between 0 and 2^53 - 1"
        raise UsageError(message, reason="adapter.make.range", advice="Choose numbers in these ranges.")
    factor = np.float32(1.0 / keep) if rescale else np.float32(1.0)
    changes = {}
    for name, delta in _deltas(base, tuned):
        kept = stream_for(seed, bytes.fromhex(tuned.sha256), name).keep_mask(0, delta.size, keep)
        if kept.any() and delta.any():
            with np.errstate(over="ignore"):
                changes[name] = _kept(delta * factor, kept)
    word = "random-rescaled" if rescale else "random"
    return _package(base, tuned, changes, licence, f"{word}/{_decimal(keep)}", seed)


def low_rank(
    base: Slm,
    factors: Mapping[str, LowRank],
    *,
    licence: str,
    kind: Literal["trained", "peft"],
    digests: Mapping[str, str],
) -> bytes:
    """An ``ALR1`` package from factors by canonical name.

    Args:
        base: The f32 model they were trained on.
        factors: A, B and alpha of every tensor; the change is (alpha / r) * B @ A.
        licence: SPDX identifier of the package.
        kind: ``trained``, or ``peft`` for an imported checkpoint.
        digests: Name -> SHA-256 of what they come from.

    Raises:
        ParentsDoNotFit: if the base is not f32.
        UsageError: if there are no factors, or a name or shape is not the model's.
        AdapterRefused: if a factor is not finite or the rank does not fit, or the file would be too large.
    """
    _check_base(base)
    return write_adapter(
        base.shape, base.tokenizer_sha256, factors,
        base_sha256=base.sha256, licence=licence, kind=kind, digests=digests,
    )  # fmt: skip


def from_peft(
    base: Slm,
    factors: Mapping[str, LowRank],
    names: Mapping[str, str],
    *,
    licence: str,
    digests: Mapping[str, str],
    rows: Mapping[str, NDArray[np.int64]] | None = None,
) -> bytes:
    """An ``ALR1`` package from the factors of a PEFT LoRA checkpoint.

    Args:
        base: The f32 model that was converted from the checkpoint's base.
        factors: By the checkpoint's names. For rank-stabilised LoRA, whose scale is alpha / sqrt(r), pass alpha * sqrt(r).
        names: The checkpoint's name -> canonical name.
        licence: SPDX identifier of the package.
        digests: Name -> SHA-256 of the checkpoint's files.
        rows: Canonical name -> which of the checkpoint's rows stands in each row here; see `adjacent_pairs`.

    Raises:
        ParentsDoNotFit: as `low_rank`, or if a tensor of the checkpoint has no name here.
        UsageError: as `low_rank`, or if two tensors get one name or an order of rows is none.
        AdapterRefused: as `low_rank`.
    """
    orders, renamed = rows or {}, {}
    for foreign, change in factors.items():
        name = names.get(foreign)
        if name is None:
            advice = "An adapter is converted whole or not at all; train it on the tensors that the container has."
            message = "this tensor has no place in an SLM1 model"
            raise ParentsDoNotFit(message, where=foreign, advice=advice, reason="adapter.make.name")
        if name in renamed:
            raise UsageError("two tensors of the checkpoint have this name", where=name, reason="adapter.make.name")
        order = orders.get(name)
        if order is not None and not np.array_equal(np.sort(order), np.arange(change.b.shape[0])):
            raise UsageError("the order of rows is no permutation", where=name, reason="adapter.make.rows")
        b = change.b if order is None else change.b[order]
        renamed[name] = LowRank(np.ascontiguousarray(change.a), np.ascontiguousarray(b), change.alpha)
    return low_rank(base, renamed, licence=licence, kind="peft", digests=digests)


def adjacent_pairs(heads: int, head_dim: int) -> NDArray[np.int64]:
    """Order of rows that turns query or key projections with half-split rotary pairs into ones with adjacent pairs.

    Checkpoints of the Llama family rotate rows i and i + head_dim / 2 of a head together; the container rotates rows
    2i and 2i + 1 (RoFormer, Su et al. 2104.09864, equation 34).

    Args:
        heads: Number of heads of the projection.
        head_dim: Rows of a head, even.

    Returns:
        i64, shape (heads * head_dim,): row k of the result is row order[k] of the checkpoint.
    """
    half = np.arange(head_dim).reshape(2, -1).T.reshape(-1)
    return (np.arange(heads)[:, np.newaxis] * head_dim + half).reshape(-1).astype(np.int64)


def _check_base(base: Slm) -> None:
    if base.label != "f32":
        advice = "Name the f32 model; the package will fit its quantised builds too."
        raise ParentsDoNotFit(
            f"the base is stored as {base.label}", where=base.sha256, advice=advice, reason="adapter.make.base"
        )


def _check_pair(base: Slm, tuned: Slm) -> None:
    _check_base(base)
    same = replace(tuned.shape, max_context=base.shape.max_context) == base.shape
    if not same or tuned.tokenizer_sha256 != base.tokenizer_sha256:
        what = "tokenizer" if same else "shape"
        raise ParentsDoNotFit(f"base and tuned model differ in {what}", where=tuned.sha256, reason="adapter.make.pair")


def _deltas(base: Slm, tuned: Slm) -> Iterator[tuple[str, F32]]:
    for name in base.tensors:
        with np.errstate(over="ignore"):
            yield name, np.subtract(tuned.dense(name), base.dense(name))


def _kept(delta: F32, kept: NDArray[np.bool_]) -> Sparse:
    indices = np.flatnonzero(kept).astype(np.uint32)
    return Sparse(delta.shape, indices, delta.reshape(-1)[indices])


def _decimal(share: float) -> str:
    return np.format_float_positional(float(share), unique=True, trim="-")


def _package(
    base: Slm, tuned: Slm, changes: Mapping[str, Dense | Sparse], licence: str, rule: str = "", seed: int | None = None
) -> bytes:
    if not changes:
        message = "no delta is left: the models are equal, or too few elements are kept"
        raise UsageError(
            message, where=tuned.sha256, reason="adapter.make.empty", advice="There is nothing to package."
        )
    return write_adapter(
        base.shape, base.tokenizer_sha256, changes,
        base_sha256=base.sha256, licence=licence, kind="task-delta", digests={"tuned_sha256": tuned.sha256},
        rule=rule, seed=seed,
    )  # fmt: skip
