from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from runtime_fixtures import Shelf, package_of, set_of
from studbook.errors import DigestDiffers, OutOfOrder, OverBudget, StudbookError, UsageError
from studbook.models.engine import Engine
from studbook.models.slm import parse_slm
from studbook.models.tokenizers import BOS
from studbook.records import LogitDigest, ResidentSetRecord, canonical, read_record
from studbook.runtime.arenas import Arena, Budgets, Limits
from studbook.runtime.handles import Artifacts
from studbook.runtime.installing import Wish
from studbook.runtime.resident import ResidentSet

ROOM = Limits(total=64 << 20, staging=16 << 20, router=4 << 20)
WIDE = Budgets(installed=50, active=20, parallel=8, host=ROOM, device=ROOM)
TIMEOUT = 60


@contextmanager
def refused(reason: str) -> Iterator[None]:
    with pytest.raises(StudbookError) as caught:
        yield
    assert caught.value.reason == f"resident.{reason}"
    assert caught.value.advice


def held(residents: ResidentSet) -> dict[str, int]:
    """Bytes that the engines of every arena hold, asked of the engines."""
    return {
        name: sum(tenant.engine.memory_bytes for tenant in arena._tenants.values())
        for name, arena in residents.arenas.items()
    }


def names_of(residents: ResidentSet) -> set[str]:
    return {standing.installed.id for standing in residents.view().active.values()}


def filled(shelf: Shelf, budgets: Budgets, *names: str, **given: object) -> ResidentSet:
    residents = set_of(budgets, **given)
    for seed, name in enumerate(names):
        residents.install(shelf.package(name, seed))
    return residents


def test_what_was_planned_is_what_the_engines_hold(shelf: Shelf) -> None:
    residents = set_of(WIDE)
    residents.install(shelf.package("plain", 1))
    residents.install(shelf.package("small", 2, dtype="q4_0", wish=Wish(positions=8, sessions=3)))
    residents.install(shelf.package("fused", 3, dtype="q8_0", kinds=("ALR1", "ASP1")))
    residents.install(shelf.package("twice", 4, wish=Wish(copies=2, place="device")))
    record = residents.activate(["plain", "small", "fused", "twice"])
    lines = {line.limit: line for line in record.lines}
    assert held(residents) == {"host": record.host_bytes, "device": record.device_bytes} == residents.bytes_held()
    assert lines["host.specialists"].brought == record.host_bytes
    assert lines["device.specialists"].brought == record.device_bytes
    assert lines["active"].brought == 4
    parts = sum(lines[f"host.{name}"].brought for name in ("weights", "kv", "scratch"))
    assert parts == record.host_bytes


def test_a_plan_prints_its_arithmetic_and_a_record_reads_back(shelf: Shelf) -> None:
    written: list[ResidentSetRecord] = []
    residents = filled(shelf, WIDE, "a", "b", write=written.append)
    first = residents.activate(["a"], reason="first")
    second = residents.activate(["b"], reason="second")
    assert written == [first, second]
    assert read_record(canonical(second)) == second
    assert second.previous is not None
    assert first.previous is None
    assert set(second.after) == {*first.after, *second.brought}
    for line in second.lines:
        assert line.before + line.brought - line.freed <= line.most


@pytest.mark.parametrize("wish", [Wish(), Wish(place="device")])
def test_one_model_beyond_the_bytes_of_a_place_is_refused_under_its_name(shelf: Shelf, wish: Wish) -> None:
    package = shelf.package("big", 1, wish=wish)
    tight = Limits(total=package.total + (1 << 20) - 1, staging=1 << 20)
    budgets = Budgets(2, 2, 2, *((tight, ROOM) if wish.place == "host" else (ROOM, tight)))
    residents = set_of(budgets)
    residents.install(package)
    with refused(wish.place):
        residents.activate(["big"])
    assert held(residents) == {"host": 0, "device": 0}


@pytest.mark.parametrize("part", ["weights", "kv", "scratch"])
def test_every_class_of_bytes_is_a_limit_by_itself(shelf: Shelf, part: str) -> None:
    package = shelf.package("classed", 1)
    room = ROOM._replace(**{part: getattr(package.sizes, part) - 1})
    residents = set_of(Budgets(2, 2, 2, room))
    residents.install(package)
    with pytest.raises(OverBudget, match=rf"host\.{part}") as caught:
        residents.activate(["classed"])
    assert caught.value.reason == "resident.host"


def test_routers_and_specialists_never_take_each_others_bytes(shelf: Shelf) -> None:
    router, big = (
        shelf.package("router", 1, wish=Wish(router=True)),
        shelf.package("second-router", 2, wish=Wish(router=True)),
    )
    specialist = shelf.package("specialist", 3)
    room = Limits(total=2 * router.total + specialist.total, staging=router.total, router=router.total)
    residents = set_of(Budgets(9, 9, 9, room))
    for package in (router, big, specialist, shelf.package("another", 4)):
        residents.install(package)
    residents.activate(["specialist"])
    residents.activate(["router"], pins=["router"])
    assert held(residents)["host"] == room.total - room.staging
    record = residents.activate(["another"])
    assert record.victims == (specialist.revision,)
    with refused("pinned"):
        residents.activate(["second-router"])
    residents.unpin("router")
    assert residents.activate(["second-router"]).victims == (router.revision,)
    room = room._replace(router=router.total - 1)
    residents = set_of(Budgets(9, 9, 9, room))
    residents.install(router)
    with refused("router"):
        residents.activate(["router"])


def test_installed_active_and_parallel_are_counted_by_themselves(shelf: Shelf) -> None:
    residents = filled(shelf, WIDE._replace(installed=3, active=2, parallel=1), "a", "b", "c")
    with refused("installed"):
        residents.install(shelf.package("d", 4))
    with refused("active"):
        residents.activate(["a", "b", "c"])
    residents.activate(["a", "b"])
    with residents.lease("a"), refused("parallel"), residents.lease("b"):
        pass
    with residents.lease("b"):
        assert residents.leased == 1
    assert residents.leased == 0


def test_the_smallest_sufficient_set_goes_and_the_longest_unused_among_equals(shelf: Shelf) -> None:
    residents = filled(shelf, WIDE._replace(active=3), "a", "b", "c", "d")
    residents.activate(["a", "b", "c"])
    for name in ("b", "c", "a"):
        with residents.lease(name):
            pass
    record = residents.activate(["d"])
    assert record.victims == (shelf.package("b", 1).revision,)
    assert names_of(residents) == {"a", "c", "d"}


def test_what_is_leased_is_never_a_victim(shelf: Shelf) -> None:
    residents = filled(shelf, WIDE._replace(active=2), "a", "b", "c")
    residents.activate(["a", "b"])
    with residents.lease("a") as module, module.session() as session:
        residents.activate(["c"])
        assert names_of(residents) == {"a", "c"}
        with residents.lease("c"), refused("leased"):
            residents.activate(["b"])
        with refused("leased"):
            residents.evict("a")
        assert session.feed([BOS]).shape == (260,)


def test_leases_are_all_or_none(shelf: Shelf) -> None:
    residents = filled(shelf, WIDE, "a", "b", "c")
    residents.activate(["a", "b"])
    with residents.lease("b"):
        with refused("leased"), residents.lease_all(["a", "b"]):
            pass
        with refused("inactive"), residents.lease_all(["a", "c"]):
            pass
        assert residents.leased == 1
        with residents.lease("a"):
            assert residents.leased == 2
    with residents.lease_all(["b", "a"]) as (second, first):
        assert (second.where, first.where) == ("b", "a")


def test_leases_taken_crosswise_by_many_threads_come_to_an_end(shelf: Shelf) -> None:
    residents = filled(shelf, WIDE._replace(parallel=3), "a", "b", "c")
    residents.activate(["a", "b", "c"])
    done: list[int] = []

    def work(index: int) -> None:
        order = [["a", "b"], ["b", "c"], ["c", "a"], ["a", "b", "c"]][index % 4]
        served = 0
        while served < 10:
            try:
                with residents.lease_all(order) as modules:
                    for module in modules:
                        module.session().feed([BOS])
                    served += 1
            except OverBudget:
                continue
        done.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert sorted(done) == [0, 1, 2, 3]
    assert residents.leased == 0


def test_changes_and_leases_of_many_threads_keep_the_limits(shelf: Shelf) -> None:
    names = ["a", "b", "c", "d"]
    residents = filled(shelf, WIDE._replace(active=2, parallel=3), *names)
    done: list[int] = []

    def work(index: int) -> None:
        for step in range(12):
            name, served = names[(index + step) % 4], False
            while not served:
                try:
                    with residents.lease(name) as module, module.session() as session:
                        assert session.feed([BOS]).shape == (260,)
                        served = True
                except OutOfOrder:
                    with suppress(OverBudget):
                        residents.activate([name])
                except OverBudget:
                    continue
        done.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert sorted(done) == [0, 1, 2]
    assert residents.leased == 0
    assert len(names_of(residents)) == 2
    assert held(residents)["host"] == residents.bytes_held()["host"] == 2 * shelf.package("a", 0).total


def test_copies_are_leased_at_the_same_time(shelf: Shelf) -> None:
    residents = set_of(WIDE)
    residents.install(shelf.package("twice", 1, wish=Wish(copies=2)))
    residents.activate(["twice"])
    with residents.lease("twice") as first, residents.lease("twice") as second:
        assert first is not second
        assert (first.session().feed([BOS]) == second.session().feed([BOS])).all()
        with refused("leased"), residents.lease("twice"):
            pass


def test_pins_stay_and_pins_beyond_the_budget_are_refused(shelf: Shelf) -> None:
    residents = filled(shelf, WIDE._replace(active=2), "a", "b", "c")
    residents.activate(["a"], pins=["a"])
    with refused("pinned"):
        residents.evict("a")
    residents.activate(["b"], pins=["b"])
    with refused("pinned"):
        residents.activate(["c"])
    with refused("pinned"):
        residents.activate([], pins=["c"])
    residents.unpin("a")
    assert residents.activate(["c"]).victims == (shelf.package("a", 0).revision,)


def test_what_is_required_comes_and_goes_in_the_same_transaction(shelf: Shelf) -> None:
    residents = set_of(WIDE)
    residents.install(shelf.package("top", 1, requires=("middle",)))
    with pytest.raises(OutOfOrder, match="requires middle"):
        residents.activate(["top"])
    residents.install(shelf.package("middle", 2, requires=("bottom",)))
    residents.install(shelf.package("bottom", 3))
    record = residents.activate(["top"])
    assert [residents.view().installed[name].id for name in record.brought] == ["bottom", "middle", "top"]
    with residents.lease("top"), refused("leased"):
        residents.evict("bottom")
    assert len(residents.evict("bottom").dropped) == 3
    assert held(residents)["host"] == 0


def test_a_failing_requirement_frees_the_whole_staging(shelf: Shelf) -> None:
    good, bad = shelf.package("top", 1, requires=("broken",)), shelf.package("broken", 2)
    wrong = LogitDigest(positions=bad.smoke.positions, sha256="0" * 64)
    residents = filled(shelf, WIDE, "a")
    residents.activate(["a"])
    before = held(residents)
    residents.install(good)
    residents.install(type(bad)(**{**_fields(bad), "smoke": wrong}))
    with refused("smoke"):
        residents.activate(["top"])
    assert names_of(residents) == {"a"}
    assert held(residents) == before


def _fields(package: object) -> dict[str, object]:
    return {name: getattr(package, name) for name in type(package).__dataclass_fields__}  # type: ignore[attr-defined]


def test_a_new_revision_takes_the_place_of_the_old_one_and_a_named_one_stands_beside(shelf: Shelf) -> None:
    first, second = shelf.package("same", 1), shelf.package("same", 2)
    residents = set_of(WIDE)
    residents.install(first)
    residents.activate(["same"], pins=["same"])
    residents.install(second)
    record = residents.activate([second.revision])
    assert set(record.after) == {first.revision, second.revision}
    assert record.current == (first.revision,)
    residents.evict(second.revision)
    with residents.lease("same"), refused("leased"):
        residents.activate(["same"])
    record = residents.activate(["same"])
    assert (record.dropped, record.after, record.pins) == ((first.revision,), (second.revision,), (second.revision,))


def test_the_known_good_set_comes_back_in_one_act(shelf: Shelf) -> None:
    residents = filled(shelf, WIDE, "a", "b", "c", "d")
    with refused("known-good"):
        residents.restore()
    residents.activate(["a", "b"], pins=["a"])
    good = residents.settle().known_good
    residents.activate(["c", "d"])
    residents.evict("b")
    with refused("in-use"):
        residents.uninstall(shelf.package("b", 1).revision)
    with residents.lease("c") as module:
        record = residents.restore(reason="c answers nonsense")
        assert names_of(residents) == {"a", "b"}
        with refused("inactive"), residents.lease("c"):
            pass
        assert module.session().feed([BOS]).shape == (260,)
        assert residents.bytes_held()["host"] == 3 * shelf.package("a", 0).total
    assert residents.bytes_held()["host"] == 2 * shelf.package("a", 0).total == held(residents)["host"]
    assert record.known_good == good == residents.known_good()
    assert record.pins == (shelf.package("a", 0).revision,)


def test_restoring_into_a_full_memory_lets_the_present_go_first(shelf: Shelf) -> None:
    one = shelf.package("a", 0).total
    residents = filled(shelf, Budgets(9, 9, 9, Limits(total=4 * one, staging=one)), "a", "b", "c", "d", "e", "f")
    residents.activate(["a"])
    residents.activate(["b"])
    residents.activate(["c"])
    residents.settle()
    for name in ("d", "e", "f"):
        residents.activate([name])
    assert names_of(residents) == {"d", "e", "f"}
    with residents.lease_all(["d", "e"]), refused("leased"):
        residents.restore()
    assert names_of(residents) == {"d", "e", "f"}
    residents.restore()
    assert names_of(residents) == {"a", "b", "c"}


def test_nothing_is_swapped_without_its_record(shelf: Shelf) -> None:
    def full(_: ResidentSetRecord) -> None:
        raise OSError("no space left")

    residents = filled(shelf, WIDE, "a", write=full)
    with pytest.raises(OSError, match="no space"):
        residents.activate(["a"])
    assert names_of(residents) == set()
    assert held(residents)["host"] == 0


def test_a_file_that_changed_on_disk_is_not_staged(shelf: Shelf) -> None:
    package = shelf.package("touched", 77)
    residents = filled(shelf, WIDE, "a")
    residents.activate(["a"])
    residents.install(package)
    data = package.artifact.path.read_bytes()
    package.artifact.path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with refused("artifact"):
        residents.activate(["touched"])
    package.artifact.path.write_bytes(data)
    assert names_of(residents) == {"a"}
    residents.activate(["touched"])


def test_an_arena_that_has_less_than_its_account_says_refuses_for_real(shelf: Shelf) -> None:
    residents = filled(shelf, WIDE, "a", "b")
    residents.activate(["a"])
    arena = residents.arenas["host"]
    foreign = arena.open(shelf.model(9), arena.limit - arena.allowed_bytes)
    with pytest.raises(OverBudget) as caught:
        residents.activate(["b"])
    assert caught.value.reason == "engine.memory"
    assert names_of(residents) == {"a"}
    arena.close(foreign)
    residents.activate(["b"])


def test_a_plan_that_is_too_small_is_refused_by_the_engine(shelf: Shelf) -> None:
    package = shelf.package("liar", 5)
    small = type(package.sizes)(**{**vars(package.sizes), "scratch": package.sizes.scratch - (1 << 16)})
    residents = set_of(WIDE)
    residents.install(type(package)(**{**_fields(package), "sizes": small}))
    with pytest.raises(OverBudget) as caught:
        residents.activate(["liar"])
    assert caught.value.reason == "engine.memory"
    assert held(residents)["host"] == 0


def test_a_model_stopped_by_a_defect_is_staged_anew(shelf: Shelf) -> None:
    residents = filled(shelf, WIDE, "a")
    residents.activate(["a"])
    with residents.lease("a") as module:
        module._engine.close()
    with refused("inactive"), residents.lease("a"):
        pass
    record = residents.activate(["a"])
    assert record.brought == record.dropped
    with residents.lease("a") as module:
        assert module.session().feed([BOS]).shape == (260,)


def test_unknown_names_are_refused(shelf: Shelf) -> None:
    residents = filled(shelf, WIDE, "a")
    with refused("unknown"):
        residents.activate(["b"])
    with refused("inactive"):
        residents.evict("a")
    with refused("twice"):
        residents.install(shelf.package("a", 0))
    revision = shelf.package("a", 0).revision
    residents.uninstall(revision)
    with refused("unknown"):
        residents.uninstall(revision)


def test_files_are_held_once_for_each_that_refers_to_them(shelf: Shelf) -> None:
    residents, package = set_of(WIDE), shelf.package("one", 3)
    other = type(package)(**{**_fields(package), "id": "other", "revision": "b" * 64})
    residents.install(package)
    residents.install(other)
    assert residents.artifacts.references(package.artifact.sha256) == 2
    residents.uninstall(package.revision)
    residents.uninstall(other.revision)
    assert residents.artifacts.references(package.artifact.sha256) == 0
    missing = type(package)(**{**_fields(package), "stack": (package.artifact._replace(sha256="c" * 64),)})
    with pytest.raises(DigestDiffers):
        residents.install(missing)
    assert residents.artifacts.references(package.artifact.sha256) == 0


def test_freeing_everything_leaves_nothing(shelf: Shelf) -> None:
    residents = filled(shelf, WIDE, "a", "b")
    residents.activate(["a", "b"])
    with residents.lease("a"):
        residents.close()
        assert held(residents)["host"] == shelf.package("a", 0).total
    assert held(residents)["host"] == 0


def test_the_smoke_of_a_stack_is_that_of_the_fused_model(shelf: Shelf) -> None:
    package = shelf.package("fused", 3, kinds=("ADP1",))
    base = parse_slm(shelf.model(3))
    with Engine(shelf.model(3)) as engine:
        bare = engine.logit_digest(package.smoke.positions)
        engine.apply(package_of(base, "ADP1", 3))
        assert engine.logit_digest(package.smoke.positions) == package.smoke.sha256 != bare


def test_an_arena_counts_what_it_allowed(shelf: Shelf) -> None:
    arena = Arena("device", 2 << 20)
    engine = arena.open(shelf.model(1), 1 << 20)
    assert engine.memory_bytes <= arena.allowed_bytes == 1 << 20
    with pytest.raises(OverBudget):
        Arena("device", 1 << 16).open(shelf.model(1), 1 << 20)
    arena.close(engine)
    assert arena.allowed_bytes == 0


def test_artifacts_that_do_not_exist_are_refused(shelf: Shelf) -> None:
    with pytest.raises(UsageError):
        Artifacts().hold(shelf.folder / "nothing", "0" * 64)
