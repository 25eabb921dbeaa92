from __future__ import annotations

import ctypes
import platform
import threading

import numpy as np
import pytest

from studbook.errors import ParentsDoNotFit, StudbookError
from studbook.tensors.contract import (
    CANONICAL_NAN_BITS,
    CONTRACT,
    CONTRACT_SHA256,
    canonical_nan,
    check_arithmetic,
    contract_sha256,
    require_finite,
)

# Receipts cite this digest. A changed rule is a new contract name and a new line here, never an edit of this one.
SHIPPED = {"studbook/numeric/1": "8cb4ff8ffbe7f0cf796b251c7b0bef09a4462d9158df0f7d778a2c70fd46b64e"}


def test_the_contract_is_the_one_that_receipts_cite():
    assert SHIPPED[CONTRACT["contract"]] == CONTRACT_SHA256


@pytest.mark.parametrize("rule", sorted(CONTRACT))
def test_changing_any_rule_changes_the_digest(rule):
    assert contract_sha256({**CONTRACT, rule: CONTRACT[rule] + "."}) != CONTRACT_SHA256


def test_the_contract_cannot_be_changed_in_place():
    with pytest.raises(TypeError):
        CONTRACT["output"] = "anything"  # type: ignore[index]


def test_every_nan_is_written_the_same_way_and_nothing_else_moves():
    bits = np.array([0x7FC00000, 0xFFC00001, 0x7F800001, 0x80000000, 0x00000001, 0x7F800000], np.uint32)
    assert canonical_nan(bits.view(np.float32)).view(np.uint32).tolist() == [
        CANONICAL_NAN_BITS,
        CANONICAL_NAN_BITS,
        CANONICAL_NAN_BITS,
        0x80000000,
        0x00000001,
        0x7F800000,
    ]
    assert bits[1] == 0xFFC00001


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_counted_and_located(bad):
    values = np.zeros((2, 3), np.float32)
    require_finite(values, "parent 1: norm.weight")
    values[1, 1:] = bad
    with pytest.raises(ParentsDoNotFit, match=r"norm\.weight: 2 of 6 elements are NaN or infinite, first at 4"):
        require_finite(values, "parent 1: norm.weight")


def test_this_thread_keeps_the_contract():
    check_arithmetic()


def run_with_mode(mxcsr_bits: int) -> BaseException | None:
    """Set control bits of this thread's SSE unit in a thread of its own, and see what the check says there."""
    caught: list[BaseException] = []

    def body() -> None:
        libm = ctypes.CDLL("libm.so.6")
        environment = (ctypes.c_uint32 * 8)()  # fenv_t of x86-64 glibc; MXCSR is its last word
        libm.fegetenv(ctypes.byref(environment))
        environment[7] |= mxcsr_bits
        libm.fesetenv(ctypes.byref(environment))
        try:
            check_arithmetic()
        except StudbookError as error:
            caught.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    return caught[0] if caught else None


@pytest.mark.skipif(
    platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc", reason="sets the mode through x86-64 glibc"
)
@pytest.mark.parametrize(
    "bits",
    [0x8000, 0x0040, 0x2000, 0x4000, 0x6000],
    ids=["flush-to-zero", "subnormals-are-zero", "round-down", "round-up", "truncate"],
)
def test_a_thread_with_another_floating_point_mode_is_refused(bits):
    assert run_with_mode(0) is None
    error = run_with_mode(bits)
    assert isinstance(error, StudbookError)
    assert error.reason == "contract.arithmetic"
    check_arithmetic()
