"""Where modules lie: arenas of memory with a limit, and the accounts that are kept of them.

An arena gives every engine a memory that cannot grow beyond what was planned for it, nor beyond what the arena has left:
whoever needs more meets a real refusal of the engine, not of an account. Accounts stand beside it as plain numbers, so
that a plan can be printed and checked before anything is taken.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Literal, NamedTuple

from studbook.models.engine import Engine
from studbook.runtime.handles import Runtime

__all__ = ["Arena", "Budgets", "Limits", "Place", "Tenant"]

Place = Literal["host", "device"]


class Limits(NamedTuple):
    """Budget of one arena, bytes.

    Attributes:
        total: All of it.
        staging: Kept free of residents, so that something new can stand beside what it replaces.
        router: Of routers; specialists never take it, and routers never take more.
        weights: Most for engines, files and decoded tensors of all specialists; as much as there is where it is None.
        kv: Most for keys and values, likewise.
        scratch: Most for room to work in, likewise.
    """

    total: int
    staging: int
    router: int = 0
    weights: int | None = None
    kv: int | None = None
    scratch: int | None = None

    @property
    def specialists(self) -> int:
        """Bytes that specialists may hold together between transactions."""
        return self.total - self.staging - self.router

    def most(self) -> Mapping[str, int]:
        """Most bytes of every class."""
        room = self.specialists
        caps = {"weights": self.weights, "kv": self.kv, "scratch": self.scratch}
        return {name: room if cap is None else cap for name, cap in caps.items()} | {
            "specialists": room,
            "router": self.router,
        }


class Budgets(NamedTuple):
    """The limits of a resident set, each counted by itself.

    Attributes:
        installed: Most packages that are installed.
        active: Most modules that are resident.
        parallel: Most modules that are leased at a time.
        host: Bytes of memory.
        device: Bytes of a second arena; None where there is none.
    """

    installed: int
    active: int
    parallel: int
    host: Limits
    device: Limits | None = None

    def limits(self) -> Mapping[str, Limits]:
        """Limits of every arena there is."""
        return {"host": self.host} | ({"device": self.device} if self.device else {})


class Tenant(NamedTuple):
    """One engine in an arena.

    Attributes:
        engine: The model.
        allowed: Bytes that its memory may reach.
    """

    engine: Engine
    allowed: int


class Arena:
    """Memory of a place, shared by engines; from any thread.

    Args:
        name: ``host`` or ``device``.
        limit: Bytes that all memories together may reach.
        runtime: How engines are run.
    """

    def __init__(self, name: Place, limit: int, runtime: Runtime = Runtime()) -> None:  # noqa: B008
        self.name, self.limit, self.runtime = name, limit, runtime
        self._lock = threading.Lock()
        self._tenants: dict[int, Tenant] = {}

    def open(self, data: bytes, allowed: int, where: str = "") -> Engine:
        """An engine with a model, in a memory of its own.

        Args:
            data: The file.
            allowed: Bytes that its memory may reach; less where the arena has less left.
            where: What to call it in errors.

        Raises:
            OverBudget: if the model does not fit that.
            SlmRefused: if the file breaks a rule.
            TokenizerRefused: if its tokenizer section does.
        """
        with self._lock:
            allowed = min(allowed, self.limit - sum(tenant.allowed for tenant in self._tenants.values()))
            engine = Engine(data, memory_limit=max(allowed, 0), fuel=self.runtime.metered, where=where)
            self._tenants[id(engine)] = Tenant(engine, allowed)
        return engine

    def close(self, engine: Engine) -> None:
        """Give an engine's memory back."""
        engine.close()
        with self._lock:
            self._tenants.pop(id(engine), None)

    @property
    def allowed_bytes(self) -> int:
        """Bytes that the memories in it may reach together; what they hold is never more."""
        with self._lock:
            return sum(tenant.allowed for tenant in self._tenants.values())
