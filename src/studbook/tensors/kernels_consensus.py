"""Compiled passes over widened rows: cuts, bands, drops and ranks, votes and sums, and steps towards a parent.

``rows`` is f32, C-contiguous, shape (models, n): elements of the base, then those of every parent. A first pass turns the
parents' rows into their sparse changes, in place; a second writes the child's elements, f32, to ``out``. Every function
does what the `rows` of an operator does, one correctly rounded f32 operation at a time.

Nothing here calls what another module compiled, see `studbook.tensors.kernels`; so rows are widened, and children are
rounded, by that module's own functions before and after.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from studbook.tensors.compiling import compiled

__all__ = [
    "add_by_row",
    "add_terms",
    "drop",
    "drop_ranked",
    "keep_band",
    "keep_largest",
    "near",
    "subtract_row",
    "vote",
]

TILE = 1024
# Rows no longer than this are ranked by counting: every element is compared with every other one.
SHORT = 128


@compiled
def subtract_row(base: Any, row: Any) -> None:
    """A row minus the base, in place."""
    for i in range(row.size):
        row[i] = row[i] - base[i]


@compiled
def _largest(base: Any, row: Any, cut: Any, ties: Any) -> int:
    """The changes above a cut, the others +0.0; only the first ``ties`` ones may equal it. Counts what is kept."""
    zero, kept = np.float32(0), 0
    head, first = base[:ties], row[:ties]
    for i in range(first.size):
        change = first[i] - head[i]
        keeps = abs(change) >= cut
        first[i] = change if keeps else zero
        kept += keeps
    rest, last = base[ties:], row[ties:]
    for i in range(last.size):
        change = last[i] - rest[i]
        keeps = abs(change) > cut
        last[i] = change if keeps else zero
        kept += keeps
    return kept


@compiled
def keep_largest(rows: Any, cuts: Any, ties: Any, kept: Any) -> None:
    """Turn parents into their largest changes.

    Args:
        rows: See the module.
        cuts: f32, one a parent: the magnitude at the cut; NaN keeps nothing.
        ties: i64, one a parent: so many of the first elements may equal the cut; any integer.
        kept: i64, one a parent; what was kept is added.
    """
    for k in range(cuts.size):
        row = rows[k + 1]
        kept[k] += _largest(rows[0], row, cuts[k], min(max(ties[k], 0), row.size))


@compiled
def keep_band(rows: Any, cuts: Any, ties: Any, kept: Any) -> None:
    """Turn parents into the changes that a parent's second cut keeps and its first one does not.

    Args:
        rows: See the module.
        cuts: f32, two a parent, else as for `keep_largest`.
        ties: i64, two a parent.
        kept: i64, two a parent; how many each cut keeps is added.
    """
    base, zero = rows[0], np.float32(0)
    for k in range(rows.shape[0] - 1):
        row, high, low = rows[k + 1], cuts[2 * k], cuts[2 * k + 1]
        above, below = ties[2 * k], ties[2 * k + 1]
        outliers = both = 0
        for i in range(row.size):
            change = row[i] - base[i]
            size = abs(change)
            outlier = (size > high) | ((size == high) & (i < above))
            inside = (size > low) | ((size == low) & (i < below))
            row[i] = change if inside & (not outlier) else zero
            outliers += outlier
            both += inside
        kept[2 * k] += outliers
        kept[2 * k + 1] += both


@compiled
def drop(base: Any, row: Any, words: Any, highest: Any, factor: Any) -> None:
    """Turn a parent's row into its changes times ``factor`` (f32), +0.0 where a word (u32) is above ``highest`` (u32)."""
    zero = np.float32(0)
    for i in range(row.size):
        change = (row[i] - base[i]) * factor
        row[i] = change if words[i] <= highest else zero


@compiled
def _sorted_by(keys: Any, to: Any, counts: Any, shift: Any) -> None:
    """One stable pass of a radix sort; counts (u32) of the digits become the places after each digit's last one."""
    place = np.uint32(0)
    for d in range(counts.size):
        count = counts[d]
        counts[d] = place
        place = np.uint32(place + count)
    digits = np.uint64(counts.size - 1)
    for i in range(keys.size):
        digit = np.int64((keys[i] >> np.uint64(shift)) & digits)
        to[counts[digit]] = keys[i]
        counts[digit] = np.uint32(counts[digit] + np.uint32(1))


@compiled
def _ranks_of_long(bits: Any, keys: Any, spare: Any, counts: Any, ranks: Any) -> None:
    """Ranks by a radix sort of 31 bits: digits of 11, 11 and 9."""
    counts[:] = 0
    low, middle, high = counts[:2048], counts[2048:4096], counts[4096:4608]
    for i in range(bits.size):
        key = np.int64(0x7FFFFFFF) - (np.int64(bits[i]) & np.int64(0x7FFFFFFF))
        keys[i] = np.uint64((key << 32) | i)
        low[key & 2047] += np.uint32(1)
        middle[(key >> 11) & 2047] += np.uint32(1)
        high[key >> 22] += np.uint32(1)
    _sorted_by(keys, spare, low, 32)
    _sorted_by(spare, keys, middle, 43)
    _sorted_by(keys, spare, high, 54)
    for j in range(spare.size):
        ranks[np.int64(spare[j] & np.uint64(0xFFFFFFFF))] = j


@compiled
def _ranks_of_short(bits: Any, keys: Any, ranks: Any) -> None:
    """Ranks by counting: how many keys are smaller; no two are equal, as each ends in its index."""
    for i in range(bits.size):
        key = np.int64(0x7FFFFFFF) - (np.int64(bits[i]) & np.int64(0x7FFFFFFF))
        keys[i] = (key << 32) | i
    for i in range(keys.size):
        own, smaller = keys[i], np.int64(0)
        for j in range(keys.size):
            smaller += keys[j] < own
        ranks[i] = smaller


@compiled
def drop_ranked(row: Any, columns: Any, words: Any, limits: Any, factors: Any) -> None:
    """Drop changes by their rank in their row: keep where the word is below the rank's limit, times the rank's factor.

    Args:
        row: f32 changes, whole rows of ``columns``; what is dropped becomes +0.0. Rank 0 is the largest magnitude, and of
            equal ones the lowest index comes first.
        columns: Length of a row.
        words: u32, one an element.
        limits: u64, one a rank.
        factors: f32, one a rank.
    """
    zero, ranks = np.float32(0), np.empty(columns, np.int64)
    keys, spare, counts = np.empty(columns, np.uint64), np.empty(columns, np.uint64), np.empty(4608, np.uint32)
    for s in range(0, row.size, columns):
        part, drawn = row[s : s + columns], words[s : s + columns]
        if columns <= SHORT:
            _ranks_of_short(part.view(np.uint32), keys.view(np.int64), ranks)
        else:
            _ranks_of_long(part.view(np.uint32), keys, spare, counts, ranks)
        for i in range(part.size):
            rank = ranks[i]
            change = part[i] * factors[rank]
            part[i] = change if np.uint64(drawn[i]) < limits[rank] else zero


@compiled
def _changed(base: Any, change: Any, out: Any) -> None:
    """A change of zero keeps the base, the sign of a zero included."""
    for i in range(out.size):
        out[i] = base[i] if change[i] == 0 else base[i] + change[i]


@compiled
def add_terms(rows: Any, weights: Any, divides: Any, divisor: Any, scale: Any, out: Any) -> None:
    """Base + scale * (sum_k w_k * t_k), the sum divided first where ``divides``.

    Args:
        rows: The base and the terms t_k.
        weights: f32, one a term.
        divides: Whether ``divisor`` is used.
        divisor: f32.
        scale: f32.
        out: f32.
    """
    tile = np.empty(TILE, np.float32)
    for s in range(0, out.size, TILE):
        e = min(s + TILE, out.size)
        total = tile[: e - s]
        total[:] = 0
        for k in range(weights.size):
            term, weight = rows[k + 1, s:e], weights[k]
            for i in range(total.size):
                total[i] = total[i] + term[i] * weight
        if divides:
            for i in range(total.size):
                total[i] = total[i] / divisor
        for i in range(total.size):
            total[i] = total[i] * scale
        _changed(rows[0, s:e], total, out[s:e])


@compiled
def vote(rows: Any, weights: Any, normalize: Any, scale: Any, out: Any) -> None:
    """Base + scale * (sum of the w_k * t_k with the sign of sum_k w_k * t_k), see `add_terms`.

    A sum of zero elects plus. With ``normalize`` the sum is divided by the sum of the weights that agree where that is
    above zero, and is zero elsewhere.
    """
    zero, held = np.float32(0), np.empty((3, TILE + 48), np.float32)
    for s in range(0, out.size, TILE):
        e = min(s + TILE, out.size)
        sign, top, bottom = held[0, : e - s], held[1, : e - s], held[2, : e - s]
        sign[:] = 0
        top[:] = 0
        bottom[:] = 0
        for k in range(weights.size):
            term, weight = rows[k + 1, s:e], weights[k]
            for i in range(sign.size):
                sign[i] = sign[i] + term[i] * weight
        for i in range(sign.size):
            sign[i] = np.float32(1) if sign[i] >= zero else np.float32(-1)
        for k in range(weights.size):
            term, weight = rows[k + 1, s:e], weights[k]
            for i in range(top.size):
                product = term[i] * weight
                agrees = product * sign[i] > zero
                top[i] = top[i] + (product if agrees else zero)
                bottom[i] = bottom[i] + (weight if agrees else zero)
        if normalize:
            for i in range(top.size):
                mean = top[i] / bottom[i]  # before the choice: a division that is not always made is not vectorised
                top[i] = mean if bottom[i] > zero else zero
        for i in range(top.size):
            top[i] = top[i] * scale
        _changed(rows[0, s:e], top, out[s:e])


@compiled
def add_by_row(rows: Any, start: Any, columns: Any, factors: Any, out: Any) -> None:
    """Base + sum_k f * (p_k - base), with one factor f a row of the tensor.

    Args:
        rows: The base and the parents.
        start: Index of the first element in its tensor.
        columns: Length of a row.
        factors: f32, one a row of the tensor.
        out: f32.
    """
    change, s = np.empty(out.size, np.float32), 0
    change[:] = 0
    while s < out.size:
        e = min(s + columns - (start + s) % columns, out.size)
        factor, base, total = factors[(start + s) // columns], rows[0, s:e], change[s:e]
        for k in range(1, rows.shape[0]):
            row = rows[k, s:e]
            for i in range(total.size):
                total[i] = total[i] + (row[i] - base[i]) * factor
        s = e
    _changed(rows[0], change, out)


@compiled
def near(rows: Any, reach: Any, least: Any, out: Any) -> None:
    """The parent where it is no farther than ``reach`` from the base, else a step of that size; see ``nearswap/1``.

    Args:
        rows: The base and the parent.
        reach: f32.
        least: f32; smaller differences count as this large.
        out: f32.
    """
    base, parent, one = rows[0], rows[1], np.float32(1)
    for i in range(out.size):
        change = parent[i] - base[i]
        size = abs(change)
        share = reach / (size if size > least else least)
        step = (share if share < one else one) * change
        moved = base[i] if step == 0 else base[i] + step
        out[i] = parent[i] if (share >= one) & (change != 0) else moved
