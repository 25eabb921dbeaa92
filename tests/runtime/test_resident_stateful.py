"""The resident set under any sequence of acts, with real engines, real files and real faults."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from runtime_fixtures import Shelf, set_of
from studbook.errors import DigestDiffers, OutOfOrder, OverBudget, StudbookError, UsageError
from studbook.models.tokenizers import BOS
from studbook.records import LogitDigest, ResidentSetRecord
from studbook.runtime.arenas import Budgets, Limits
from studbook.runtime.handles import Module
from studbook.runtime.installing import Wish
from studbook.runtime.resident import ResidentSet
from studbook.runtime.residents import Installed

NAMES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen")
MIB = 1 << 20
HOST = Limits(total=4 * MIB, staging=3 * MIB // 2, router=MIB // 2)
DEVICE = Limits(total=3 * MIB // 2, staging=3 * MIB // 4)
BUDGETS = Budgets(installed=12, active=6, parallel=3, host=HOST, device=DEVICE)
FAULTS = ("file", "smoke", "arena", "plan", "record", "package")


class Crash(Exception):
    """What the writer of records raises when it is told to."""


def catalogue(shelf: Shelf) -> dict[str, list[Installed]]:
    """Two revisions of every name: of many sizes, on both places, some with packages on top, some requiring another."""
    device, pair, wide = Wish(place="device"), Wish(copies=2), Wish(positions=8, sessions=3)
    kinds: dict[str, dict[str, Any]] = {
        "ant": {"wish": Wish(router=True)},
        "bee": {"wish": device, "requires": ("ant",)},
        "cat": {"kinds": ("ALR1",), "dtype": "q8_0"},
        "dog": {"wish": pair},
        "eel": {"wish": wide, "requires": ("fox",)},
        "fox": {"hidden_size": 32, "head_dim": 8, "ffn_size": 64, "max_context": 64},
        "gnu": {"wish": device, "dtype": "q4_0"},
        "hen": {"requires": ("gnu", "cat")},
    }
    return {name: [shelf.package(name, seed, **kinds[name]) for seed in (1, 2)] for name in NAMES}


class Residents(RuleBasedStateMachine):
    """Every act that there is; what may refuse, refuses by name."""

    packages: dict[str, list[Installed]]
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.crash = False
        self.set: ResidentSet = set_of(BUDGETS, write=self.write)
        self.leases: list[tuple[AbstractContextManager[tuple[Module, ...]], tuple[Module, ...]]] = []
        self.records: list[ResidentSetRecord] = []

    def write(self, record: ResidentSetRecord) -> None:
        if self.crash:
            raise Crash
        self.records.append(record)

    def attempt(self, act: Callable[[], object], *expected: type[BaseException]) -> bool:
        """Whether it happened; a refusal has a reason of ours and changes nothing that is active."""
        before, faulted = self.active(), bool(expected)
        try:
            act()
        except (OverBudget, OutOfOrder, UsageError, *expected) as error:
            if isinstance(error, StudbookError) and not faulted:
                assert error.reason.startswith("resident."), error
            assert self.active() == before
            return False
        return True

    def active(self) -> set[str]:
        return set(self.set.view().active)

    @initialize(names=st.permutations(NAMES), count=st.integers(2, 8))
    def begin(self, names: list[str], count: int) -> None:
        for name in NAMES:
            self.set.install(self.packages[name][0])
        for name in names[:count]:
            self.attempt(lambda name=name: self.set.activate([name]))
        self.set.settle()

    def some(self, which: list[int]) -> list[str]:
        """Names of active packages, if there are any."""
        names = sorted(standing.installed.id for standing in self.set.view().active.values())
        return [names[index % len(names)] for index in which] if names else [NAMES[index] for index in which]

    @rule(name=st.sampled_from(NAMES), which=st.integers(0, 1))
    def install(self, name: str, which: int) -> None:
        self.attempt(lambda: self.set.install(self.packages[name][which]))

    @rule(name=st.sampled_from(NAMES), which=st.integers(0, 1))
    def uninstall(self, name: str, which: int) -> None:
        self.attempt(lambda: self.set.uninstall(self.packages[name][which].revision))

    @rule(name=st.sampled_from(NAMES))
    def activate_one(self, name: str) -> None:
        self.attempt(lambda: self.set.activate([name]))

    @rule(names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=2), pin=st.integers(0, 5))
    def activate(self, names: list[str], pin: int) -> None:
        self.attempt(lambda: self.set.activate(names, names[:1] if pin == 0 else ()))

    @rule(name=st.sampled_from(NAMES), which=st.integers(0, 1))
    def activate_beside(self, name: str, which: int) -> None:
        self.attempt(lambda: self.set.activate([self.packages[name][which].revision]))

    @rule(which=st.integers(0, 7))
    def evict(self, which: int) -> None:
        self.attempt(lambda: self.set.evict(self.some([which])[0]))

    @rule(which=st.integers(0, 7))
    def unpin(self, which: int) -> None:
        self.attempt(lambda: self.set.unpin(self.some([which])[0]))

    @rule(which=st.lists(st.integers(0, 7), min_size=1, max_size=3))
    def lease(self, which: list[int]) -> None:
        context = self.set.lease_all(self.some(which))

        def enter() -> None:
            self.leases.append((context, context.__enter__()))

        before = self.set.leased
        if not self.attempt(enter):
            assert self.set.leased == before

    @precondition(lambda self: self.leases)
    @rule(which=st.integers(0, 9))
    def give_back(self, which: int) -> None:
        context, _ = self.leases.pop(which % len(self.leases))
        context.__exit__(None, None, None)

    @precondition(lambda self: self.leases)
    @rule(which=st.integers(0, 9), count=st.integers(1, 8))
    def work(self, which: int, count: int) -> None:
        for module in self.leases[which % len(self.leases)][1]:
            with module.session() as session:
                assert session.feed([BOS] * count).shape == (260,)

    @rule()
    def settle(self) -> None:
        self.attempt(self.set.settle)

    @rule()
    def restore(self) -> None:
        good = self.set.known_good()
        if self.attempt(self.set.restore):
            assert good is not None
            assert self.active() == set(good.revisions)

    @rule(which=st.integers(0, 15), fault=st.integers(0, 5))
    def fail_in_the_middle(self, which: int, fault: int) -> None:
        """Something goes wrong for real while a package is staged; whatever was active still is."""
        view = self.set.view()
        idle = sorted(name for name in view.installed if name not in view.active)
        if not idle:
            return
        package = view.installed[idle[which % len(idle)]]
        act = lambda: self.staged_with(package, FAULTS[fault])  # noqa: E731
        assert not self.attempt(act, DigestDiffers, OverBudget, Crash)

    def staged_with(self, package: Installed, fault: str) -> None:
        path = (package.stack[0] if fault == "package" and package.stack else package.artifact).path
        data, known, foreign = path.read_bytes(), self.set._installed, None
        arena = self.set.arenas[package.place]
        wrong = {
            "smoke": replace(package, smoke=LogitDigest(positions=1, sha256="0" * 64)),
            "plan": replace(package, sizes=replace(package.sizes, scratch=package.sizes.scratch - 65536)),
        }
        try:
            if fault in ("file", "package"):
                path.write_bytes(data[: len(data) // 2])
            elif fault == "arena":
                foreign = arena.open(package_bytes(package), arena.limit - arena.allowed_bytes)
            elif fault == "record":
                self.crash = True
            known[package.revision] = wrong.get(fault, package)
            self.set.activate([package.revision])
        finally:
            known[package.revision], self.crash = package, False
            path.write_bytes(data)
            if foreign is not None:
                arena.close(foreign)

    @invariant()
    def no_limit_is_exceeded(self) -> None:
        type(self).steps += 1
        view = self.set.view()
        assert len(view.installed) <= BUDGETS.installed
        assert len(view.active) <= BUDGETS.active
        assert self.set.leased == sum(len(modules) for _, modules in self.leases) <= BUDGETS.parallel
        for place, limits in BUDGETS.limits().items():
            engines = [tenant.engine for tenant in self.set.arenas[place]._tenants.values()]
            held = sum(engine.memory_bytes for engine in engines)
            planned = sum(package.total for package in view.standing() if package.place == place)
            assert held == planned == self.set.bytes_held()[place] <= limits.total
        assert not view.over(standing.installed for standing in view.active.values())

    @invariant()
    def what_is_leased_works(self) -> None:
        for _, modules in self.leases:
            assert all(module.sound for module in modules)

    @invariant()
    def requirements_are_met(self) -> None:
        ids = {standing.installed.id for standing in self.set.view().active.values()}
        for standing in self.set.view().active.values():
            assert ids >= set(standing.installed.requires)

    @invariant()
    def records_say_what_is_active(self) -> None:
        if self.records:
            assert set(self.records[-1].after) == self.active()
            for line in self.records[-1].lines:
                assert line.before + line.brought - line.freed <= line.most

    def teardown(self) -> None:
        """Whatever happened: with the leases given back, the known-good set comes back in one act."""
        while self.leases:
            self.give_back(0)
        good = self.set.known_good()
        if good is not None:
            self.set.restore()
            assert self.active() == set(good.revisions)
            for revision in good.revisions:
                with self.set.lease(revision) as module, module.session() as session:
                    assert session.feed([BOS]).shape == (260,)
        self.set.close()
        assert all(not arena._tenants for arena in self.set.arenas.values())


def package_bytes(package: Installed) -> bytes:
    return package.artifact.path.read_bytes()


def run(examples: int, steps: int) -> int:
    """Run the machine; returns how many steps it took."""
    Residents.steps = 0
    with tempfile.TemporaryDirectory() as folder:
        Residents.packages = catalogue(Shelf(Path(folder)))
        run_state_machine_as_test(
            Residents,
            settings=settings(
                max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck),
                derandomize=os.environ.get("STUDBOOK_RANDOM") is None, database=None,
            ),
        )  # fmt: skip
    return Residents.steps


def test_any_sequence_of_acts_keeps_every_promise() -> None:
    assert run(60, 50) >= 2_000


@pytest.mark.proof
def test_any_longer_sequence_does_too() -> None:
    assert run(400, 100) >= 20_000
