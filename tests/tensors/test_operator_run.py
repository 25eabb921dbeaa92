from __future__ import annotations

import ctypes
import hashlib
import platform
import threading

import numpy as np
import pytest

from studbook.breeding.operators import Inputs, TaskDelta
from studbook.breeding.operators.run import compute
from studbook.errors import ParentsDoNotFit, StudbookError
from studbook.tensors.sources import ArraySource

GLIBC = platform.machine() == "x86_64" and platform.libc_ver()[0] == "glibc"


def source(place: int, value: float) -> ArraySource:
    digest = hashlib.sha256(b"run %d" % place).hexdigest()
    return ArraySource(digest, {"a": np.full((9, 11), value, np.float32), "b": np.full(40, value, np.float32)})


@pytest.mark.skipif(not GLIBC, reason="sets the mode through x86-64 glibc")
@pytest.mark.parametrize("threads", [1, 3])
def test_a_run_is_refused_where_subnormals_are_flushed(threads):
    inputs = Inputs(base=source(0, 1.0), parents=(source(1, 2.0),))
    caught: list[StudbookError] = []

    def body() -> None:
        libm = ctypes.CDLL("libm.so.6")
        environment = (ctypes.c_uint32 * 8)()  # fenv_t; its last word is the SSE control register
        libm.fegetenv(ctypes.byref(environment))
        environment[7] |= 0x8040
        libm.fesetenv(ctypes.byref(environment))
        try:
            compute(TaskDelta(scales=(1.0,), skip=()), inputs, threads=threads)
        except StudbookError as error:
            caught.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert [error.reason for error in caught] == ["contract.arithmetic"]


@pytest.mark.parametrize(("chunk", "threads"), [(7, 1), (7, 4), (1000, 3)])
def test_the_first_tensor_that_overflows_is_named_whatever_the_threads(chunk, threads):
    inputs = Inputs(base=source(0, -3e38), parents=(source(1, 3e38),))
    with pytest.raises(ParentsDoNotFit, match=r"child of task-delta/1: a from element 0: \d+ of \d+ elements"):
        compute(TaskDelta(scales=(1.0,), skip=()), inputs, chunk=chunk, threads=threads)
