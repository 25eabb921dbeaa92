"""The numeric contract: the rules that make a child's bytes a function of its receipt alone.

The text below is data. Its digest goes into every receipt, so a receipt says which rules it was computed under; a
changed rule is a changed digest, and a worker refuses a receipt that asks for rules it does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from studbook.errors import ParentsDoNotFit, StudbookError
from studbook.records.doors import digest

__all__ = [
    "CANONICAL_NAN_BITS",
    "CONTRACT",
    "CONTRACT_SHA256",
    "canonical_nan",
    "check_arithmetic",
    "contract_sha256",
    "require_finite",
]

CONTRACT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "contract": "studbook/numeric/1",
        "inputs": "bf16, f16 and f32 are widened exactly to f32; parents are taken in the order of the recipe",
        "elementwise": "f32, subnormals kept, one correctly rounded operation at a time (no fused multiply-add, no "
        "reassociation); parameters are rounded once from f64 to f32; terms are added in the order of the parents",
        "unchanged": "an element whose summed change is zero keeps its bits, sign of zero included",
        "output": "rounded to nearest, ties to even; -0.0 becomes +0.0 on the way into quantisation",
        "non-finite": "a NaN or an infinity in an input or an output is an error; where a policy allows NaN it is "
        "written as 0x7fc00000",
        "reductions": "f64; blocks of 65536 elements on an absolute grid from element 0 of the tensor; in a block lane "
        "i % 16 is summed from +0.0 in ascending i; lanes fold 8, 4, 2, 1 (lane j plus lane j + width); block results "
        "are added in ascending order from +0.0",
        "top-k": "k = floor(share * n) with share read as the shortest decimal that names its f64; ordered by the bits "
        "of |x|, ties kept at the lowest index; share 0 keeps nothing, share 1 keeps everything",
        "random": "Philox4x32-10; key = first 8 bytes, as two little-endian u32, of SHA-256('studbook/philox/1' NUL | "
        "u64 LE seed | raw 32-byte parent digest | UTF-8 name); element i takes word i % 4 of counter "
        "(lo32(i // 4), hi32(i // 4), 0, 0); keep iff u64(word) < round(p * 2^32), ties to even",
        "noise": "u = (i32(word >> 8) - 2^23) * 2^-23, exact in f32, in [-1, 1)",
        "choice": "one of n: (u64(word) * n) >> 32",
    }
)

CANONICAL_NAN_BITS: Final = 0x7FC00000


def contract_sha256(contract: Mapping[str, str]) -> str:
    """SHA-256 (64 hex digits) of a contract's canonical JSON."""
    return digest(dict(contract))


CONTRACT_SHA256: Final = contract_sha256(CONTRACT)


def canonical_nan(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same values (f32, any shape) with every NaN written as 0x7fc00000; a copy."""
    out = values.copy()
    out.view(np.uint32)[np.isnan(values)] = CANONICAL_NAN_BITS
    return out


def require_finite(values: NDArray[np.float32], where: str) -> None:
    """Refuse a NaN or an infinity.

    Args:
        values: f32, any shape.
        where: What they are, such as ``child: layers.0.wq.weight``.

    Raises:
        ParentsDoNotFit: with the count of non-finite elements and the flat index of the first one.
    """
    bad = ~np.isfinite(values)
    if not bad.any():
        return
    first = int(np.argmax(bad.reshape(-1)))
    raise ParentsDoNotFit(
        f"{int(bad.sum())} of {values.size} elements are NaN or infinite, first at {first}",
        where=where,
        advice="Use parents whose values are finite and small enough to be added up in f32, or smaller scales.",
        reason="parents.non-finite",
    )


def check_arithmetic() -> None:
    """Make sure this thread rounds to nearest even and keeps subnormals: some libraries switch both off.

    Raises:
        StudbookError: if the thread's floating-point mode would break the contract.
    """
    half = np.float32(2.0**-24)
    sums = np.array([1.0, -1.0, 1.0], np.float32) + np.array([half, -half, 3 * half], np.float32)
    rounds = np.array_equal(sums, np.array([1.0, -1.0, 1.0 + 2.0**-22], np.float32))
    smallest = np.array([1], np.uint32).view(np.float32)
    keeps = bool((smallest * np.float32(1.0)).view(np.uint32)[0] == 1)
    if not (rounds and keeps):
        raise StudbookError(
            "this thread's floating-point mode breaks the numeric contract",
            advice="A loaded library switched on flush-to-zero or another rounding; run the worker without it.",
            reason="contract.arithmetic",
        )
