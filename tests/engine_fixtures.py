"""The engine as a bare host sees it: bytes in, a word out, nothing of the Python readers in between."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import wasmtime

PAGE = 1 << 16
FUEL = 1 << 50


@cache
def _module(metered: bool) -> tuple[wasmtime.Engine, wasmtime.Module]:
    config = wasmtime.Config()
    config.consume_fuel = metered
    engine = wasmtime.Engine(config)
    return engine, wasmtime.Module(engine, files("studbook.models.engine").joinpath("engine.wasm").read_bytes())


class Standing(NamedTuple):
    """What the engine says is in force: digests of packages, name hash -> digest of fused tensors, state, generation."""

    applied: list[str]
    fused: dict[int, str]
    state: str
    generation: int


class Door:
    """One instance with a memory of its own of at most ``pages`` pages; a metered one counts what it executes."""

    def __init__(self, pages: int = 16_384, *, metered: bool = False) -> None:
        engine, module = _module(metered)
        self.store = wasmtime.Store(engine)
        if metered:
            self.store.set_fuel(FUEL)
        least = module.imports[0].type.limits.min
        self.memory = wasmtime.Memory(self.store, wasmtime.MemoryType(wasmtime.Limits(least, pages)))
        self.exports = wasmtime.Instance(self.store, module, [self.memory]).exports(self.store)

    def call(self, name: str, *values: int) -> Any:
        """What an export returns; pointers as non-negative numbers."""
        return self.exports[f"sb_{name}"](self.store, *values)

    def read(self, at: int, size: int) -> bytes:
        return bytes(self.memory.read(self.store, at, at + size))

    def put(self, data: bytes) -> int:
        """A block with these bytes; 0 if there is no room."""
        at = self.call("alloc", len(data)) & 0xFFFFFFFF
        if at:
            self.memory.write(self.store, data, at)
        return int(at)

    @property
    def fuel_used(self) -> int:
        return FUEL - self.store.get_fuel()

    @property
    def pages(self) -> int:
        return int(self.memory.size(self.store))

    def reason(self) -> str:
        at = self.call("reason") & 0xFFFFFFFF
        return self.read(at, 64).split(b"\0", 1)[0].decode()

    def place(self) -> int:
        return int(self.call("place"))

    def given(self, name: str, data: bytes) -> str:
        """Reason of an export that takes a block and gives it back; empty if it has nothing against it."""
        at = self.put(data)
        if not at:
            return self.reason()
        status = self.call(name, at, len(data))
        self.call("free", at)
        return self.reason() if status < 0 else ""

    def check_model(self, data: bytes) -> str:
        return self.given("model_check", data)

    def check_adapter(self, data: bytes) -> str:
        return self.given("adapter_check", data)

    def load(self, data: bytes) -> str:
        at = self.put(data)
        return self.reason() if not at or self.call("model_load", at, len(data)) < 0 else ""

    def accept(self, sha256: str) -> None:
        at = self.put(bytes.fromhex(sha256))
        assert self.call("accept", at) == 0
        self.call("free", at)

    def apply(self, packages: Sequence[bytes]) -> str:
        blocks = [self.put(data) for data in packages]
        pairs = struct.pack(
            f"<{2 * len(packages)}I", *(n for p, d in zip(blocks, packages, strict=True) for n in (p, len(d)))
        )
        table = self.put(pairs)
        status = self.call("stack_apply", table, len(packages))
        for at in (*blocks, table):
            self.call("free", at)
        return self.reason() if status < 0 else ""

    def detach(self) -> None:
        assert self.call("stack_detach") == 0

    def standing(self) -> Standing:
        at = self.call("stack_info") & 0xFFFFFFFF
        applied, fused, generation, _ = struct.unpack("<4I", self.read(at, 16))
        digests, tensors = struct.unpack("<2I", self.read(at + 48, 8))
        table = self.read(tensors, 40 * fused)
        return Standing(
            [self.read(digests + 32 * i, 32).hex() for i in range(applied)],
            {struct.unpack_from("<Q", table, 40 * i)[0]: table[40 * i + 8 : 40 * i + 40].hex() for i in range(fused)},
            self.read(at + 16, 32).hex(),
            generation,
        )

    def feed(self, ids: Sequence[int], session: int) -> bytes:
        """Logits of the last of these tokens, raw."""
        source, out = self.put(struct.pack(f"<{len(ids)}I", *ids)), self.call("alloc", PAGE) & 0xFFFFFFFF
        assert self.call("feed", session, source, len(ids), out, 0) == 0, self.reason()
        info = self.call("model_info") & 0xFFFFFFFF
        (vocab,) = struct.unpack("<I", self.read(info, 4))
        found = self.read(out, 4 * vocab)
        self.call("free", source)
        self.call("free", out)
        return found

    def encode(self, text: bytes, *, bos: bool = True, eos: bool = True) -> list[int] | str:
        source, out = self.put(text), self.call("alloc", 4 * (len(text) + 2)) & 0xFFFFFFFF
        count = self.call("encode", source, len(text), out, len(text) + 2, bos, eos)
        found = self.reason() if count < 0 else list(struct.unpack(f"<{count}I", self.read(out, 4 * count)))
        self.call("free", source)
        self.call("free", out)
        return found

    def decode(self, ids: Sequence[int]) -> bytes | str:
        source, out = self.put(struct.pack(f"<{len(ids)}I", *ids)), self.call("alloc", PAGE) & 0xFFFFFFFF
        count = self.call("decode", source, len(ids), out, PAGE)
        found = self.reason() if count < 0 else self.read(out, count)
        self.call("free", source)
        self.call("free", out)
        return found
