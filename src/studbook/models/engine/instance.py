"""One instance: one memory, its door, and every refusal of the engine as an error of ours."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn

import wasmtime

from studbook.errors import (
    AdapterRefused,
    OutOfOrder,
    OverBudget,
    SlmRefused,
    StudbookError,
    TokenizerRefused,
    UsageError,
)
from studbook.models.engine.compiled import ABI, compiled, confined

__all__ = ["Instance"]

_PAGE = 1 << 16
# More than any work needs; what is used is the difference.
_FUEL = 1 << 63
_LONGEST_REASON = 64
_KINDS: Mapping[str, type[StudbookError]] = {
    "slm": SlmRefused,
    "tokenizer": TokenizerRefused,
    "adapter": AdapterRefused,
    "engine": UsageError,
}
_WORDS: Mapping[str, str] = {
    "engine.no-model": "no model is loaded",
    "engine.session": "no such session, or 64 are open",
    "engine.context": "no token to feed, or more than the session or the model's context has room for",
    "engine.id": "a token id outside the vocabulary",
    "engine.sampling": "a sampling setting out of range",
    "engine.non-finite": "logits that are not finite numbers; the model is broken",
}


class Instance:
    """An engine without a model, in a memory of its own.

    Args:
        memory_limit: Most bytes of memory, the engine's own included.
        fuel: Whether to count what it does.
        where: What to call the model in errors.

    Raises:
        OverBudget: if the limit is below what the engine itself needs, or the system gives less.
    """

    def __init__(self, memory_limit: int, *, fuel: bool, where: object) -> None:
        code = compiled(fuel=fuel, checked=confined())
        self.where = where
        self.memory_limit = memory_limit
        self.metered = fuel
        self._store: wasmtime.Store | None = wasmtime.Store(code.engine)
        # At the latest before the interpreter ends: wasmtime cannot give anything back while it does.
        self._end = weakref.finalize(self, self._store.close)
        if fuel:
            self._store.set_fuel(_FUEL)
        most = min(memory_limit // _PAGE, 1 << 16)
        if most < code.pages:
            self._over_budget()
        try:
            self._memory = wasmtime.Memory(self._store, wasmtime.MemoryType(wasmtime.Limits(code.pages, most)))
            exports = wasmtime.Instance(self._store, code.module, [self._memory]).exports(self._store)
        except wasmtime.WasmtimeError as error:
            raise OverBudget(f"no memory for the engine: {error}", where=where, reason="engine.memory") from error
        self._functions = {export.name: exports[export.name] for export in code.module.exports}
        assert self.call("sb_abi") == ABI

    def call(self, name: str, *values: float) -> int:
        """What an export returns: a status below 0 comes as an error, a pointer or a number as it is.

        Raises:
            StudbookError: as the engine's reason demands; reason ``engine.trap`` is a defect of the engine, whose memory
                is given up then.
            OutOfOrder: if it is closed.
            UsageError: if a number has more than the 32 bits that the engine takes; ``engine.number``.
        """
        function = self._functions[name]
        assert isinstance(function, wasmtime.Func)
        try:
            found = function(self.store, *map(_signed, values))
        except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
            self.close()
            message = f"the engine stopped in {name}: {str(error).splitlines()[0]}"
            raise StudbookError(message, where=self.where, reason="engine.trap", advice="Report it.") from error
        if found is None:
            return 0
        if found < 0 and name not in _POINTERS:
            self._refused()
        return int(found) & 0xFFFFFFFF

    @property
    def store(self) -> wasmtime.Store:
        """The store that holds the memory.

        Raises:
            OutOfOrder: if it is closed.
        """
        if self._store is None:
            raise OutOfOrder("the engine is closed", where=self.where, advice="Open the model again.")
        return self._store

    @property
    def open(self) -> bool:
        """Whether it has its memory still."""
        return self._store is not None

    @property
    def fuel(self) -> int:
        """Fuel burnt so far: the same number on every machine for the same work.

        Raises:
            UsageError: if it is not counted.
        """
        if not self.metered:
            raise UsageError(
                "fuel is not counted here", where=self.where, reason="engine.fuel", advice="Open it with fuel."
            )
        return _FUEL - self.store.get_fuel()

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory it holds now."""
        return self._memory.data_len(self.store)

    def take(self, size: int) -> int:
        """A block of memory; give it back with `give`.

        Raises:
            OverBudget: if the limit does not allow it.
        """
        block = self.call("sb_alloc", size) if size <= 0xFFFFFFFF else 0
        if not block:
            self._over_budget()
        return block

    def give(self, block: int) -> None:
        """Give a block back; 0 is allowed, and so is any block after closing."""
        if self._store is not None:
            self.call("sb_free", block)

    @contextmanager
    def lent(self, size: int) -> Iterator[int]:
        """A block for as long as the context lasts."""
        block = self.take(size)
        try:
            yield block
        finally:
            self.give(block)

    @contextmanager
    def holding(self, data: bytes) -> Iterator[int]:
        """A block with these bytes for as long as the context lasts."""
        with self.lent(len(data)) as block:
            self.write(block, data)
            yield block

    def write(self, block: int, data: bytes) -> None:
        """Bytes to memory."""
        ctypes.memmove(self._address(block, len(data)), data, len(data))

    def read(self, block: int, size: int) -> bytes:
        """Bytes of memory."""
        return ctypes.string_at(self._address(block, size), size)

    def close(self) -> None:
        """Give the memory back; a second time is nothing."""
        self._end()
        self._store = None

    def _address(self, block: int, size: int) -> int:
        if block + size > self._memory.data_len(self.store):
            raise IndexError(f"{size} bytes at {block} are outside the memory")
        return ctypes.addressof(self._memory.data_ptr(self.store).contents) + block

    def _refused(self) -> NoReturn:
        reason = self._reason()
        place = self.call("sb_place")
        if reason == "engine.memory":
            self._over_budget()
        rule = _WORDS.get(reason, f"breaks the rule {reason}")
        at = f" (entry {place})" if place < 1 << 31 else ""
        raise _KINDS[reason.split(".")[0]](f"{rule}{at}", where=self.where, reason=reason)

    def _reason(self) -> str:
        block = self.call("sb_reason")
        most = min(_LONGEST_REASON, self.memory_bytes - block)
        return self.read(block, most).split(b"\0", 1)[0].decode()

    def _over_budget(self) -> NoReturn:
        message = f"does not fit the engine's {self.memory_limit} bytes of memory, or the system has less"
        advice = "Allow the engine more memory, open shorter sessions, or use a smaller model."
        raise OverBudget(message, where=self.where, reason="engine.memory", advice=advice)


# Their value is an address or a number of 32 bits, never a status.
_POINTERS = frozenset(
    ("sb_alloc", "sb_reason", "sb_place", "sb_model_info", "sb_stack_info", "sb_session_length", "sb_abi")
)


def _signed(value: float) -> float:
    """Addresses and counts as the 32 signed bits that the host wants; fractions as they are."""
    # The host would take the lowest 32 bits of any number.
    if isinstance(value, int) and not -(1 << 31) <= value < 1 << 32:
        advice = "Ask for no more positions than the model's context holds."
        raise UsageError(f"{value} has more than 32 bits", reason="engine.number", advice=advice)
    return value - (1 << 32) if isinstance(value, int) and value >= 1 << 31 else value
