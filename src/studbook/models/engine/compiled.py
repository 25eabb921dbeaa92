"""From the shipped bytes to code, once a process; nothing compiled is kept on disk, where it would have to be trusted.

Two switches, so up to four compilations of some 0.1 s: with or without fuel, and confined or not. Unconfined, 4 GiB of
addresses are reserved for a memory, and running over it is caught by the processor; where the address space is
limited, as in a worker, every access is checked instead. Results and fuel are the same.
"""

from __future__ import annotations

import atexit
import hashlib
import resource
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

import wasmtime

__all__ = ["ABI", "ENGINE_SHA256", "Compiled", "compiled", "confined", "engine_bytes", "warm"]

ABI: Final = 1
# Addresses that a checked memory may take beyond what it uses, so that it is not moved each time it grows.
_GROWTH = 16 << 20
_ROOMY = 64 << 30


class Compiled(NamedTuple):
    """Code for this machine.

    Attributes:
        engine: wasmtime's settings and compiler.
        module: The compiled module.
        pages: Fewest pages of 64 KiB that its memory must have.
    """

    engine: wasmtime.Engine
    module: wasmtime.Module
    pages: int


@cache
def engine_bytes() -> bytes:
    """The engine as it is shipped."""
    return files(__package__).joinpath("engine.wasm").read_bytes()


ENGINE_SHA256: Final = hashlib.sha256(engine_bytes()).hexdigest()


def confined() -> bool:
    """Whether this process may not reserve addresses as it likes."""
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    return soft != resource.RLIM_INFINITY and soft < _ROOMY


@cache
def compiled(*, fuel: bool, checked: bool) -> Compiled:
    """The engine as code.

    Args:
        fuel: Whether it counts what it does.
        checked: Whether every access to memory is checked, so that no addresses have to be reserved.
    """
    config = wasmtime.Config()
    # Whoever forks later must have one thread only.
    config.parallel_compilation = False
    config.consume_fuel = fuel
    config.wasm_relaxed_simd = False
    if checked:
        config.memory_reservation = 0
        config.memory_reservation_for_growth = _GROWTH
        config.memory_guard_size = 0
        # Guards against what foreign code might guess of other memory in its process; this code is our own.
        config.cranelift_flag_set("enable_heap_access_spectre_mitigation", "false")
    engine = wasmtime.Engine(config)
    module = wasmtime.Module(engine, engine_bytes())
    (memory,) = module.imports
    assert isinstance(memory.type, wasmtime.MemoryType)
    return Compiled(engine, module, memory.type.limits.min)


# Before the interpreter takes wasmtime's own functions away.
atexit.register(compiled.cache_clear)


def warm() -> None:
    """Compile what a confined worker needs, before it is forked."""
    compiled(fuel=True, checked=True)
