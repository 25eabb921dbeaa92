import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authority_fixtures import HEADER
from routing_fixtures import MODULES, module, router
from studbook.errors import UsageError
from studbook.runtime.controller import Change, ClusterUse, ControllerRule, ModuleUse, Window, control, window_of
from studbook.runtime.routing.router import RouteRequest
from studbook.runtime.routing.tell import route_record

RULE = ControllerRule(budget=300)


def use(name: str, share: int, *, active: bool, right: int = 90, cost: int = 100, cluster: str = "") -> ModuleUse:
    """A module with a share of a thousand requests, and a hundred probes."""
    return ModuleUse(name, cost, active, (ClusterUse(cluster or name, share, 100, right),))


def window(*modules: ModuleUse, changed: tuple[str, ...] = ()) -> Window:
    return Window(1000, modules, changed)


def said(*windows: Window, rule: ControllerRule = RULE) -> list[tuple[str, ...]]:
    return [(c.act, c.module, c.other, c.reason.removeprefix("controller.")) for c in control(windows, rule)]


QUIET = window(use("a", 500, active=True), use("b", 400, active=True))


def test_nothing_to_do_is_said_and_so_is_too_little_to_go_by():
    assert said(QUIET, QUIET) == [("no-op", "", "", "steady")]
    assert said(QUIET) == [("no-op", "", "", "steady")]


def test_an_idle_module_goes_and_one_in_demand_comes_after_enough_windows_only():
    idle = window(use("a", 900, active=True), use("b", 10, active=True))
    assert said(QUIET, idle) == [("no-op", "", "", "steady")]
    assert said(idle, idle) == [("deactivate", "b", "", "idle")]
    wanted = window(use("a", 700, active=True), use("c", 200, active=False))
    assert said(window(use("a", 900, active=True), use("c", 50, active=False)), wanted)[0][0] == "no-op"
    assert said(wanted, wanted) == [("activate", "c", "", "demand")]


def test_between_the_marks_nothing_moves():
    between = window(use("a", 800, active=True), use("b", 60, active=True), use("c", 60, active=False))
    assert said(between, between) == [("no-op", "", "", "steady")]


def test_without_room_the_lesser_one_gives_way_or_its_bytes_are_reserved():
    full = [use("a", 400, active=True), use("b", 250, active=True), use("d", 50, active=True)]
    crowded = window(*full, use("c", 200, active=False))
    assert said(crowded, crowded) == [("replace", "d", "c", "outweighed")]
    close = window(*full[:2], use("d", 150, active=True), use("c", 200, active=False))
    assert said(close, close) == [("reserve", "c", "", "no-room")]


def test_a_module_that_another_one_beats_on_all_it_does_is_replaced_or_retired():
    better = window(use("a", 400, active=True, right=50), use("z", 0, active=False, right=95, cluster="a"))
    assert said(better, better)[0] == ("replace", "a", "z", "better")
    worse = window(use("a", 400, active=True, right=95), use("z", 0, active=False, right=50, cluster="a"))
    assert said(worse, worse) == [("retire", "z", "", "dominated")]
    dear = window(use("a", 400, active=True, right=50), use("z", 0, active=False, right=95, cluster="a", cost=101))
    assert said(dear, dear) == [("no-op", "", "", "steady")]
    unsure = window(use("a", 400, active=True, right=80), use("z", 0, active=False, right=88, cluster="a"))
    assert said(unsure, unsure)[0][0] == "no-op"


def test_a_module_that_is_surely_worse_on_one_busy_cluster_is_split_there():
    both = ModuleUse("m", 100, True, (ClusterUse("x", 300, 200, 190), ClusterUse("y", 300, 200, 90)))
    assert control([window(both)] * 2, RULE) == (Change("split", "m", "", "y", "controller.uneven"),)
    rare = ModuleUse("m", 100, True, (ClusterUse("x", 300, 200, 190), ClusterUse("y", 50, 200, 90)))
    assert said(window(rare), window(rare)) == [("no-op", "", "", "steady")]


def test_two_quiet_modules_are_merged():
    quiet = window(use("a", 800, active=True), use("b", 40, active=True), use("c", 45, active=True))
    assert said(quiet, quiet) == [("merge", "b", "c", "alike")]


def test_what_was_changed_lately_is_left_alone_and_no_step_changes_too_much():
    idle = window(use("a", 900, active=True), use("b", 10, active=True), changed=("b",))
    assert said(idle, idle) == [("no-op", "", "", "cooldown")]
    assert said(idle, idle, rule=RULE._replace(cooldown=0))[0][0] == "deactivate"
    many = window(*(use(name, 1, active=True) for name in "abcdef"))
    assert len(said(many, many, rule=RULE._replace(budget=600))) == RULE.changes


def test_a_better_module_that_does_not_fit_is_left_out():
    full = window(use("a", 400, active=True, right=50), use("z", 0, active=False, right=95, cluster="a"))
    assert said(full, full, rule=RULE._replace(budget=50)) == [("no-op", "", "", "budget")]


@pytest.mark.parametrize(
    "wrong", [{"lower": 0.1}, {"patience": 0}, {"changes": 0}, {"alpha": 0.0}, {"budget": -1}, {"cooldown": -1}]
)
def test_a_rule_without_hysteresis_or_bounds_is_refused(wrong):
    with pytest.raises(UsageError) as caught:
        control([QUIET, QUIET], RULE._replace(**wrong))
    assert caught.value.reason == "controller.rule"


uses = st.builds(
    lambda name, cost, active, share, right: ModuleUse(name, cost, active, (ClusterUse("x", share, 50, right),)),
    st.sampled_from("abcdefgh"), st.integers(1, 150), st.booleans(), st.integers(0, 600), st.integers(0, 50),
)  # fmt: skip
many_windows = st.lists(st.lists(uses, max_size=6, unique_by=lambda m: m.id).map(lambda m: window(*m)), max_size=4)


@settings(max_examples=200, deadline=None)
@given(many_windows)
def test_no_step_goes_beyond_its_bytes_or_its_number_and_every_change_has_a_reason(windows):
    changes = control(windows, RULE)
    assert changes == control(list(windows), RULE)
    assert 1 <= len(changes) <= RULE.changes
    assert all(c.reason.startswith("controller.") for c in changes)
    if windows:
        cost = {m.id: m.cost for m in windows[-1].modules}
        active = before = {m.id for m in windows[-1].modules if m.active}
        for c in changes:
            if c.act == "activate":
                active = active | {c.module}
            elif c.act in ("deactivate", "retire"):
                active = active - {c.module}
            elif c.act == "replace":
                active = active - {c.module} | {c.other}
        taken = sum(cost[name] for name in active)
        assert taken <= max(RULE.budget, sum(cost[name] for name in before))


def test_a_window_counts_each_request_for_the_module_that_would_answer_it():
    route = router(rules=True)
    records = []
    for prompt in ("rev abc>", "rve abc>", "cap abc>", "brk ([>"):
        asked = RouteRequest(prompt)
        records.append(route_record(HEADER, route, asked, route.route(asked, MODULES[:1]), keep_prompt=True))
    hidden = route_record(HEADER, route, asked, route.route(asked, MODULES[:1]), keep_prompt=False)
    installed = [(MODULES[0], True), (MODULES[1], False), (module("also", "cap", cost=50), False)]
    found = window_of([*records, hidden], route, installed, {("rev", "rev"): (9, 10)}, ("rev",))
    assert (found.requests, found.changed) == (5, ("rev",))
    assert {m.id: m.requests for m in found.modules} == {"rev": 2, "cap": 0, "also": 1}
    assert found.modules[0].uses == (ClusterUse("rev", 2, 10, 9),)
