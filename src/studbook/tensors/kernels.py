"""The compiled forms of merges: elements are widened, computed on and rounded in registers, from raw rows to a raw row.

Every function does what the `rows` of an operator does, one correctly rounded f32 operation at a time and nothing fused,
in tiles that stay in a core's first-level cache; the tests compare the bytes. Without numba the operators' numpy is used.
``stack`` is what `studbook.tensors.stacks.Stack.feed` gives: where rows lie, so one compiled form serves any number of them.

A compiled function calls nothing compiled in another module: numba's cache on disk notices changes of its own file alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from studbook.tensors.compiling import COMPILED, compiled

try:
    from llvmlite import ir
    from numba import carray, types
    from numba.extending import intrinsic
except ImportError:  # operators then run their numpy, several times slower but with the same bytes
    intrinsic = None

__all__ = [
    "add_dropped",
    "add_noise",
    "add_scaled",
    "choose",
    "convert",
    "differences",
    "elect",
    "keep_above",
    "keep_above_by_row",
    "pair_products",
    "philox_words",
    "weighted_sum",
]

TILE = 512


def _inlined(function: Any) -> Any:
    return intrinsic(function) if COMPILED else function  # by hand, where numba's integer promotion doubles the width


def _bf16_in(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    bits = builder.shl(builder.zext(args[0], ir.IntType(32)), ir.Constant(ir.IntType(32), 16))
    return builder.bitcast(bits, ir.FloatType())


def _f16_in(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Shift the bits to the places of binary32 and scale by 2^112, which is exact for subnormals as well."""
    i32, f32 = ir.IntType(32), ir.FloatType()
    bits = builder.zext(args[0], i32)
    sign = builder.shl(builder.and_(bits, ir.Constant(i32, 0x8000)), ir.Constant(i32, 16))
    size = builder.and_(bits, ir.Constant(i32, 0x7FFF))
    placed = builder.shl(size, ir.Constant(i32, 13))
    number = builder.fmul(builder.bitcast(placed, f32), ir.Constant(f32, 2.0**112))
    special, finite = builder.or_(placed, ir.Constant(i32, 0x7F800000)), ir.Constant(i32, 0x7C00)
    chosen = builder.select(builder.icmp_unsigned("<", size, finite), builder.bitcast(number, i32), special)
    return builder.bitcast(builder.or_(chosen, sign), f32)


@_inlined
def _widen(typing: Any, raw: Any) -> Any:
    """One raw element as the f32 number it stands for."""
    code = {types.uint16: _bf16_in, types.int16: _f16_in, types.float32: lambda _, __, ___, args: args[0]}[raw]
    return types.float32(raw), code


def _f32_out(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    nan = builder.fcmp_unordered("uno", args[0], args[0])
    return builder.select(nan, builder.bitcast(ir.Constant(ir.IntType(32), 0x7FC00000), ir.FloatType()), args[0])


def _bf16_out(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    i32, i16 = ir.IntType(32), ir.IntType(16)
    bits = builder.bitcast(args[0], i32)
    odd = builder.and_(builder.lshr(bits, ir.Constant(i32, 16)), ir.Constant(i32, 1))
    rounded = builder.lshr(builder.add(bits, builder.add(odd, ir.Constant(i32, 0x7FFF))), ir.Constant(i32, 16))
    nan = builder.fcmp_unordered("uno", args[0], args[0])
    return builder.trunc(builder.select(nan, ir.Constant(i32, 0x7FC0), rounded), i16)


def _f16_out(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Three ranges of |x|: from 65536 on infinity, below 2^-14 subnormal (adding 0.5 rounds to 2^-24), else shifted."""
    i32, f32 = ir.IntType(32), ir.FloatType()
    bits = builder.bitcast(args[0], i32)
    sign = builder.and_(builder.lshr(bits, ir.Constant(i32, 16)), ir.Constant(i32, 0x8000))
    size = builder.and_(bits, ir.Constant(i32, 0x7FFFFFFF))
    half = builder.fadd(builder.bitcast(size, f32), ir.Constant(f32, 0.5))
    low = builder.sub(builder.bitcast(half, i32), ir.Constant(i32, 0x3F000000))
    odd = builder.and_(builder.lshr(size, ir.Constant(i32, 13)), ir.Constant(i32, 1))
    bias = ir.Constant(i32, ((15 - 127) << 23) + 0xFFF)
    high = builder.lshr(builder.add(builder.add(size, odd), bias), ir.Constant(i32, 13))
    found = builder.select(builder.icmp_unsigned("<", size, ir.Constant(i32, 0x38800000)), low, high)
    within = builder.icmp_unsigned("<", size, ir.Constant(i32, 0x47800000))
    signed = builder.or_(builder.select(within, found, ir.Constant(i32, 0x7C00)), sign)
    nan = builder.fcmp_unordered("uno", args[0], args[0])
    return builder.trunc(builder.select(nan, ir.Constant(i32, 0x7E00), signed), ir.IntType(16))


@_inlined
def _narrow(typing: Any, value: Any, dtype: Any) -> Any:
    """One f32 number as a raw element of an array's dtype, rounded to nearest even."""
    code = {types.uint16: _bf16_out, types.int16: _f16_out, types.float32: _f32_out}[dtype.dtype]
    return dtype.dtype(types.float32, dtype), code


@_inlined
def _signed_unit(typing: Any, word: Any) -> Any:
    """(i32(word >> 8) - 2^23) * 2^-23, exact in f32."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        i32, f32 = ir.IntType(32), ir.FloatType()
        centred = builder.sub(builder.lshr(args[0], ir.Constant(i32, 8)), ir.Constant(i32, 1 << 23))
        return builder.fmul(builder.sitofp(centred, f32), ir.Constant(f32, 2.0**-23))

    return types.float32(types.uint32), code


@_inlined
def _pointer(typing: Any, address: Any) -> Any:
    """An address as a pointer."""
    kind = ir.PointerType(ir.IntType(8))
    return types.voidptr(types.int64), lambda _, builder, __, args: builder.inttoptr(args[0], kind)


@compiled
def _row(stack: Any, k: Any, s: Any, e: Any) -> Any:
    """The elements s..e-1 of a row; as everywhere here nothing looks whether it has so many."""
    places, kind = stack
    return carray(_pointer(places[k] + s * kind.itemsize), e - s, kind.dtype)


@compiled
def _mixed(x0: Any, x1: Any, x2: Any, x3: Any, k0: Any, k1: Any) -> Any:
    """One round on four words held in u64."""
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    p0, p1 = (x0 & low) * np.uint64(0xD2511F53), (x2 & low) * np.uint64(0xCD9E8D57)
    return (p1 >> shift) ^ x1 ^ k0, p1 & low, (p0 >> shift) ^ x3 ^ k1, p0 & low


@compiled
def philox_words(first: Any, key0: Any, key1: Any, words: Any) -> None:
    """The four words of each counter from ``first`` on under a key of two u32.

    Args:
        first: u64.
        key0: u32.
        key1: u32.
        words: u64, two a counter; each holds two words, the earlier one in its low half. Pairs let LLVM use vectors.
    """
    low, shift, a, b = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(key0), np.uint64(key1)
    for j in range(words.size // 2):
        index = np.uint64(first) + np.uint64(j)
        x0, x1, x2, x3 = index & low, index >> shift, np.uint64(0), np.uint64(0)
        for r in range(10):
            k0, k1 = (a + np.uint64(r * 0x9E3779B9)) & low, (b + np.uint64(r * 0xBB67AE85)) & low
            x0, x1, x2, x3 = _mixed(x0, x1, x2, x3, k0, k1)
        words[2 * j] = x0 | (x1 << shift)
        words[2 * j + 1] = x2 | (x3 << shift)


@compiled
def _change_out(start: Any, change: Any, out: Any) -> None:
    """A change of zero keeps the start, the sign of a zero included."""
    for i in range(out.size):
        value, step = _widen(start[i]), change[i]
        out[i] = _narrow(value if step == 0 else value + step, out.dtype)


@compiled
def convert(stack: Any, k: Any, start: Any, out: Any) -> None:
    """The elements of row k from ``start`` on, stored as ``out`` is."""
    row = _row(stack, k, start, start + out.size)
    for i in range(out.size):
        out[i] = _narrow(_widen(row[i]), out.dtype)


@compiled
def differences(stack: Any, out: Any) -> None:
    """Row k + 1 minus row 0 for every k: f32, shape (rows - 1, n)."""
    base = _row(stack, 0, 0, out.shape[1])
    for k in range(out.shape[0]):
        row, to = _row(stack, k + 1, 0, out.shape[1]), out[k]
        for i in range(row.size):
            to[i] = _widen(row[i]) - _widen(base[i])


@compiled
def weighted_sum(stack: Any, factors: Any, out: Any) -> None:
    """sum_k f_k * x_k in ascending k; factors are f32, one a row."""
    if factors.size == 3:  # the usual number: in one loop more of memory is read at a time
        x, y, z = _row(stack, 0, 0, out.size), _row(stack, 1, 0, out.size), _row(stack, 2, 0, out.size)
        for i in range(out.size):
            pair = _widen(x[i]) * factors[0] + _widen(y[i]) * factors[1]
            out[i] = _narrow(pair + _widen(z[i]) * factors[2], out.dtype)
        return
    tile = np.empty(TILE, np.float32)
    for s in range(0, out.size, TILE):
        e = min(s + TILE, out.size)
        total, row, factor = tile[: e - s], _row(stack, 0, s, e), factors[0]
        for i in range(total.size):
            total[i] = _widen(row[i]) * factor
        for k in range(1, factors.size):
            row, factor = _row(stack, k, s, e), factors[k]
            for i in range(total.size):
                total[i] = total[i] + _widen(row[i]) * factor
        to = out[s:e]
        for i in range(to.size):
            to[i] = _narrow(total[i], to.dtype)


@compiled
def add_scaled(stack: Any, factors: Any, out: Any) -> None:
    """x_0 + sum_k f_k * (x_k+1 - x_0); factors are f32, one a row after the first."""
    tile = np.empty(TILE, np.float32)
    for s in range(0, out.size, TILE):
        e = min(s + TILE, out.size)
        change, base = tile[: e - s], _row(stack, 0, s, e)
        change[:] = 0
        for k in range(factors.size):
            row, factor = _row(stack, k + 1, s, e), factors[k]
            for i in range(change.size):
                change[i] = change[i] + (_widen(row[i]) - _widen(base[i])) * factor
        _change_out(base, change, out[s:e])


@compiled
def add_dropped(stack: Any, start: Any, factors: Any, keys: Any, highest: Any, out: Any) -> None:
    """As `add_scaled`, with a term dropped where its word is above ``highest`` (u32).

    Args:
        stack: Raw, base first.
        start: Index of the first element in its tensor.
        factors: f32, one a parent.
        keys: u32, shape (parents, 2).
        highest: Largest word that keeps.
        out: Raw.
    """
    tile, drawn = np.empty(TILE, np.float32), np.empty(TILE // 2 + 4, np.uint64)
    for s in range(0, out.size, TILE):
        e = min(s + TILE, out.size)
        change, base = tile[: e - s], _row(stack, 0, s, e)
        change[:] = 0
        first, skipped = (start + s) // 4, (start + s) % 4
        used = drawn[: (skipped + change.size + 3) // 4 * 2]
        for k in range(factors.size):
            philox_words(first, keys[k, 0], keys[k, 1], used)
            words, row, factor = used.view(np.uint32)[skipped:], _row(stack, k + 1, s, e), factors[k]
            for i in range(change.size):
                term = (_widen(row[i]) - _widen(base[i])) * factor
                change[i] = change[i] + (term if words[i] <= highest else np.float32(0))
        _change_out(base, change, out[s:e])


@compiled
def add_noise(stack: Any, start: Any, amplitude: Any, key0: Any, key1: Any, out: Any) -> None:
    """x_0 + amplitude * u with u of the stream of a key; amplitude is f32, ``start`` as in `add_dropped`."""
    tile, drawn = np.empty(TILE, np.float32), np.empty(TILE // 2 + 4, np.uint64)
    for s in range(0, out.size, TILE):
        e = min(s + TILE, out.size)
        change = tile[: e - s]
        used = drawn[: ((start + s) % 4 + change.size + 3) // 4 * 2]
        philox_words((start + s) // 4, key0, key1, used)
        words = used.view(np.uint32)[(start + s) % 4 :]
        for i in range(change.size):
            change[i] = _signed_unit(words[i]) * amplitude
        _change_out(_row(stack, 0, s, e), change, out[s:e])


@compiled
def _trim(base: Any, row: Any, cut: Any, ties: Any, out: Any) -> int:
    """The differences above a cut, the others zero; the first ``ties`` ones may equal it. Counts what is kept."""
    kept = 0
    for i in range(ties):
        change = _widen(row[i]) - _widen(base[i])
        keeps = abs(change) >= cut
        out[i] = change if keeps else np.float32(0)
        kept += keeps
    base, row, out = base[ties:], row[ties:], out[ties:]
    for i in range(out.size):
        change = _widen(row[i]) - _widen(base[i])
        keeps = abs(change) > cut
        out[i] = change if keeps else np.float32(0)
        kept += keeps
    return kept


@compiled
def _agreed(held: Any, n: Any, weights: Any, scale: Any) -> None:
    """Scale * (weighted mean of the changes with the vote's sign), into row 1; 0 where there is none."""
    zero, vote, top, bottom = np.float32(0), held[0, :n], held[1, :n], held[2, :n]
    for i in range(vote.size):
        vote[i] = np.float32(1) if vote[i] > zero else (np.float32(-1) if vote[i] < zero else zero)
    held[1:3, :n] = 0
    for k in range(weights.size):
        row, weight = held[3 + k, :n], weights[k]
        for i in range(top.size):
            term = row[i]
            agrees = term * vote[i] > zero
            top[i] = top[i] + (term * weight if agrees else zero)
            bottom[i] = bottom[i] + (weight if agrees else zero)
    for i in range(top.size):
        mean = top[i] / bottom[i]  # before the choice: a division that is not always made is not vectorised
        top[i] = (mean if bottom[i] > zero else zero) * scale


@compiled
def elect(stack: Any, cuts: Any, ties: Any, weights: Any, scale: Any, out: Any, kept: Any) -> None:
    """Trim, elect, average: see ``sign-aware-merge/1``.

    Args:
        stack: Raw, base first.
        cuts: f32, one a parent: the magnitude at the cut; NaN keeps nothing.
        ties: i64, one a parent: so many of the first elements may equal the cut; any integer.
        weights: f32, one a parent.
        scale: f32.
        out: Raw.
        kept: i64, one a parent; what was kept is added.
    """
    # Rows: vote, top, bottom, then the trimmed changes. Were they a multiple of 4 KiB apart, a core would take a store
    # into one for a store into the next and wait.
    held = np.empty((cuts.size + 3, TILE + 48), np.float32)
    for s in range(0, out.size, TILE):
        e = min(s + TILE, out.size)
        base, vote = _row(stack, 0, s, e), held[0, : e - s]
        vote[:] = 0
        for k in range(cuts.size):
            term, weight = held[3 + k, : e - s], weights[k]
            kept[k] += _trim(base, _row(stack, k + 1, s, e), cuts[k], min(max(ties[k] - s, 0), e - s), term)
            for i in range(vote.size):
                vote[i] = vote[i] + term[i] * weight
        _agreed(held, e - s, weights, scale)
        _change_out(base, held[1, : e - s], out[s:e])


@compiled
def keep_above(stack: Any, start: Any, cut: Any, ties: Any, out: Any) -> None:
    """Row 0 from ``start`` on, +0.0 below the magnitude ``cut`` (f32); only the first ``ties`` elements may equal it."""
    ties, row = min(max(ties, 0), out.size), _row(stack, 0, start, start + out.size)
    for i in range(out.size):
        value, size = _widen(row[i]), abs(_widen(row[i]))
        out[i] = _narrow(value if (size > cut) | ((size == cut) & (i < ties)) else np.float32(0), out.dtype)


@compiled
def keep_above_by_row(stack: Any, start: Any, columns: Any, cuts: Any, last: Any, out: Any) -> None:
    """As `keep_above` row by row; cuts (f32) and the last column that may equal it (i64) for all rows of the tensor."""
    s = 0
    while s < out.size:
        r, column = (start + s) // columns, (start + s) % columns
        e = min(s + columns - column, out.size)
        keep_above(stack, s, cuts[r], last[r] + 1 - column, out[s:e])
        s = e


@compiled
def choose(stack: Any, start: Any, unit: Any, picked: Any, out: Any) -> None:
    """Every unit of ``unit`` elements from the row that ``picked`` (i64) names; its first is the unit of ``start``."""
    s = 0
    while s < out.size:
        e = min(s + unit - (start + s) % unit, out.size)
        convert(stack, picked[(start + s) // unit - start // unit], s, out[s:e])
        s = e


@compiled
def pair_products(stack: Any, size: Any, block: Any, table: Any) -> None:
    """Add the inner products of two rows of ``size`` with themselves and each other to a table, f64 (2, 2), lower half.

    The order of sums is that of `studbook.tensors.reductions.block_dot`; the first element starts a block of ``block``.
    """
    lanes = np.empty((3, 16), np.float64)
    first, mixed, second = lanes[0], lanes[1], lanes[2]
    left_row, right_row = _row(stack, 0, 0, size), _row(stack, 1, 0, size)
    for s in range(0, size, block):
        x, y = left_row[s : s + block], right_row[s : s + block]
        lanes[:] = 0
        for i in range(0, x.size // 16 * 16, 16):
            left, right = x[i : i + 16], y[i : i + 16]
            for j in range(16):
                a, b = np.float64(_widen(left[j])), np.float64(_widen(right[j]))
                first[j] += a * a
                mixed[j] += a * b
                second[j] += b * b
        left, right = x[x.size // 16 * 16 :], y[x.size // 16 * 16 :]
        for j in range(left.size):
            a, b = np.float64(_widen(left[j])), np.float64(_widen(right[j]))
            first[j] += a * a
            mixed[j] += a * b
            second[j] += b * b
        for width in (8, 4, 2, 1):
            for row in lanes:
                row[:width] += row[width : 2 * width]
        table[0, 0] += first[0]
        table[1, 0] += mixed[0]
        table[1, 1] += second[0]
