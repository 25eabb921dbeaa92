import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from authority_fixtures import HEADER
from routing_fixtures import EXAMPLES, MODULES, RULES, known, module, revision, router
from studbook.errors import BytesLie, DigestDiffers, UsageError
from studbook.records import RouteRule, RouteThreshold
from studbook.runtime.routing.ngrams import counts, scores
from studbook.runtime.routing.router import Router, RouteRequest
from studbook.runtime.routing.rules import REACH, first_rule
from studbook.runtime.routing.state import ENCODER, learn_state, open_state
from studbook.runtime.routing.thresholds import margin_threshold


def asked(prompt: str, **fields: object) -> RouteRequest:
    return RouteRequest(prompt)._replace(**fields)


def limit(value: float, low: float, high: float) -> RouteThreshold:
    made = margin_threshold(HEADER, [0.5], [True], 0.5, encoder=known().digest)
    return replace(made, value=value, low=low, high=high)


@pytest.mark.parametrize(
    ("text", "place", "prompt", "holds"),
    [
        ("rev ", "start", "rev abc>", True),
        ("rev ", "start", "x rev abc>", False),
        ("rev", "word", "please rev, now", True),
        ("rev", "word", "reverse", False),
        ("rev", "word", "prev rev", True),
        ("rev", "anywhere", "prevent", True),
        ("rev", "anywhere", "a" * REACH + "rev", False),
        ("(a+)+$", "anywhere", "aaaa", False),
    ],
)
def test_a_rule_is_plain_text_at_a_plain_place(text, place, prompt, holds):
    assert first_rule([RouteRule(text=text, place=place, cluster="rev")], prompt) == (0 if holds else None)


def test_the_first_rule_that_holds_decides_and_the_cheapest_module_of_its_cluster_answers():
    found = router(rules=True).route(asked("rev abc>"), MODULES)
    assert (found.how, found.rule, found.selected) == ("rule", 0, revision("rev"))
    twin = module("twin", "rev", cost=50)
    assert router(rules=True).route(asked("rev abc>"), (*MODULES, twin)).selected == twin.revision


def test_a_rule_whose_cluster_nobody_may_answer_leaves_it_to_the_scores():
    found = router(rules=True).route(asked("rev abc>"), MODULES[1:3])
    assert found.how == "ngrams"
    assert found.rule == 0


@pytest.mark.parametrize("prompt", ["rev qwe>", "cap qwe>", "brk [(>", "rve qwe>", "cpa qwe>"])
def test_n_grams_find_the_specialist_of_prompts_they_never_saw(prompt):
    expected = {"r": "rev", "c": "cap", "b": "brk"}[prompt[0]]
    assert router().route(asked(prompt), MODULES).selected == revision(expected)


def test_scores_are_whole_number_cosines_that_a_plain_product_gives_too():
    state = known()
    assert state.centroids is not None
    hit = counts("rev abc>", ENCODER).astype(float)
    plain = (
        state.centroids.astype(float)
        @ hit
        / np.linalg.norm(hit)
        / np.linalg.norm(state.centroids.astype(float), axis=1)
    )
    assert scores("rev abc>", ENCODER, state.centroids, state.norms) == pytest.approx(list(plain))


def test_of_a_long_prompt_beginning_and_end_are_read_and_the_middle_is_not():
    half = ENCODER.reach // 2
    first, second = "a" * half + "x" * 5000 + "b" * half, "a" * half + "y" * 9000 + "b" * half
    assert (counts(first, ENCODER) == counts(second, ENCODER)).all()


@pytest.mark.parametrize(
    ("changes", "request_fields", "reason"),
    [
        ({"eligible": False, "why": "package.suspended"}, {}, "package.suspended"),
        ({"permissions": ("files",)}, {"permissions": ("clock",)}, "route.permission"),
        ({"licence": "MIT"}, {"licences": ("CC0-1.0",)}, "route.licence"),
        ({"cost": 101}, {"budget": 100}, "route.budget"),
        ({"load": 9}, {"load": 8}, "route.residency"),
    ],
)
def test_who_may_not_answer_is_never_scored_and_the_reason_stands_beside_the_name(changes, request_fields, reason):
    modules = (module("rev", **changes), module("cap", licence="CC0-1.0"))
    found = router().route(asked("rev abc>", **request_fields), modules)
    told = {c.id: c for c in found.candidates}
    assert (told["rev"].excluded, told["rev"].score) == (reason, None)
    assert found.selected == revision("cap")


def test_a_lead_below_the_margin_goes_to_the_fallback_and_without_one_nowhere():
    high = limit(5.0, 4.0, 6.0)
    found = Router(known(), high).route(asked("rev abc>"), MODULES)
    assert (found.how, found.selected, found.reason) == ("fallback", revision("all"), "route.margin")
    assert found.margin is not None
    assert found.margin > 0
    found = Router(known(), high).route(asked("rev abc>"), MODULES[:3])
    assert (found.how, found.selected, found.fallback) == ("refused", None, None)


def test_who_holds_a_conversation_keeps_it_within_the_band():
    free = router().route(asked("rev abc>"), MODULES)
    assert free.margin is not None
    lead = free.margin
    narrow = Router(known(), limit(lead * 1.5, lead * 0.5, lead * 2))
    assert narrow.route(asked("rev abc>"), MODULES).how == "fallback"
    assert narrow.route(asked("rev abc>", held="rev"), MODULES).selected == revision("rev")
    told = {c.id: c.score for c in free.candidates}
    behind = told["rev"] - told["cap"]
    wide = Router(known(), limit(0.0, 0.0, behind * 1.1))
    assert wide.route(asked("rev abc>", held="cap"), MODULES).reason == "route.held"
    tight = Router(known(), limit(0.0, 0.0, behind * 0.9))
    assert tight.route(asked("rev abc>", held="cap"), MODULES).reason == "route.taken-over"


def test_ties_are_named_and_go_to_the_cheaper_then_to_the_id():
    modules = (module("b", "rev"), module("a", "rev"), module("c", "rev", cost=99))
    found = router().route(asked("rev abc>"), modules)
    assert (found.ties, found.margin, found.selected) == (("c", "a", "b"), 0.0, revision("c"))
    assert router().route(asked("rev abc>"), modules[:2]).selected == revision("a")


@settings(max_examples=60, deadline=None)
@given(prompt=st.text(max_size=200), order=st.permutations(MODULES))
def test_any_text_is_routed_and_the_order_of_modules_changes_nothing(prompt, order):
    assert router(rules=True).route(asked(prompt), order) == router(rules=True).route(asked(prompt), MODULES)


def test_the_same_examples_give_the_same_bytes():
    first, second = (learn_state(HEADER, EXAMPLES, RULES, "all") for _ in range(2))
    assert first == second


def test_a_state_does_not_open_with_other_bytes_or_another_shape():
    state, data = learn_state(HEADER, EXAMPLES)
    with pytest.raises(DigestDiffers):
        open_state(state, data[:-1] + b"\x01")
    with pytest.raises(BytesLie, match="rows"):
        open_state(replace(state, clusters=state.clusters[:-1]), data)
    with pytest.raises(BytesLie, match="not all"):
        open_state(replace(state, encoder=None), data)


def test_a_margin_of_another_state_and_modules_of_one_id_are_refused():
    with pytest.raises(DigestDiffers) as caught:
        Router(known(fallback=None), limit(1.0, 1.0, 1.0))
    assert caught.value.reason == "route.threshold"
    with pytest.raises(UsageError, match="each id once"):
        router().route(asked("rev abc>"), (MODULES[0], MODULES[0]))


def test_rules_and_examples_out_of_bounds_are_refused():
    for wrong in ([RULES[0]] * 257, [replace(RULES[0], text="x" * 65)]):
        with pytest.raises(UsageError) as caught:
            learn_state(HEADER, {}, wrong)
        assert caught.value.reason == "route.rules"
    for examples in ({"rev": []}, {"rev": ["same"], "cap": ["same"]}):
        with pytest.raises(UsageError) as caught:
            learn_state(HEADER, examples)
        assert caught.value.reason == "route.examples"
    with pytest.raises(UsageError, match="power of two"):
        learn_state(HEADER, EXAMPLES, encoder=replace(ENCODER, buckets=1000))
