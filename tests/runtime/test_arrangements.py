import hashlib
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from msgspec.structs import replace

from authority_fixtures import HEADER
from lab_fixtures import founder
from routing_fixtures import founder_engine, revision
from studbook.adapters.make import dense_delta
from studbook.errors import DigestDiffers, OutOfOrder, OverBudget, RecordRefused, StudbookError, UsageError
from studbook.models.engine import ENGINE_SHA256, Engine
from studbook.models.slm import read_slm
from studbook.records import RouteThreshold
from studbook.runtime.routing.cascade import CascadePlan, CascadeStage, cascade
from studbook.runtime.routing.committee import CommitteePlan, committee, majority
from studbook.runtime.routing.pipeline import PipelinePlan, PipelineStage, pipeline
from studbook.runtime.routing.running import Answer, EngineRunner, Limits
from studbook.runtime.routing.stack import StackPlan, apply_stack
from studbook.runtime.routing.thresholds import confidence_threshold

NAMES = ("base", "rev-srt", "cap-rot", "dup-odd", "brk")
BYTES = {revision(name): founder_engine("base").facts.decoded_bytes for name in NAMES}
TEXT = {"type": "string"}
LETTERS = {"type": "string", "pattern": "^[a-z]+$"}
LIMITS = Limits(64)


def runner(*broken: str) -> EngineRunner:
    """The founders, less those that nobody has opened."""
    return EngineRunner({revision(n): founder_engine(n) for n in NAMES if n not in broken}, fuel=True)


def stage(name: str, share: float, right: Callable[[int], bool] = lambda n: n > 4) -> CascadeStage:
    """A stage whose confidence rises from 0 to 1 at a mean log-probability of -0.5."""
    scores = [-1.0 + n / 10 for n in range(11)]
    artifact = founder_engine(name).facts.sha256
    made = confidence_threshold(
        HEADER, scores, [right(n) for n in range(11)], share, engine=ENGINE_SHA256, model=artifact
    )
    return CascadeStage(revision(name), artifact, made)


def plan(*stages: CascadeStage, escalations: int = 7, tokens: int = 64, fuel: int | None = None) -> CascadePlan:
    return CascadePlan(stages, escalations, 12, Limits(tokens, fuel))


def test_an_engine_says_how_sure_it_was_of_every_token_it_wrote():
    found = runner().run(revision("rev-srt"), "rev abc>", Limits(12))
    engine = founder_engine("rev-srt")
    prompt = engine.encode("rev abc>", bos=True, eos=False)
    with engine.session(20) as session:
        logits = session.feed([*prompt, *found.ids[:-1]], every=True)[len(prompt) - 1 :].astype(float)
    shifted = logits - logits.max(axis=1, keepdims=True)
    picked = shifted[range(len(found.ids)), found.ids] - np.log(np.exp(shifted).sum(axis=1))
    assert found.mean_logprob == pytest.approx(float(picked.mean()), rel=1e-5)
    assert (found.text, found.tokens, found.prompt_tokens) == ("cba", 4, 9)
    assert found.fuel


def test_a_cascade_stops_at_the_first_answer_that_stands():
    run = cascade(plan(stage("base", 0.0), stage("rev-srt", 0.0)), "rev abc>", runner(), BYTES)
    assert (run.selected, run.reason, len(run.steps)) == (revision("base"), "route.accepted", 1)


def test_an_unsure_answer_escalates_and_at_the_end_the_surest_one_is_given():
    sure, unsure = stage("rev-srt", 1.1), stage("base", 1.1, lambda n: False)
    run = cascade(plan(sure, unsure), "rev abc>", runner(), BYTES)
    assert [s.reason for s in run.steps] == ["route.unsure"] * 2
    assert (run.selected, run.text, run.reason) == (revision("rev-srt"), "cba", "route.best-seen")
    assert run.cost.active_bytes == BYTES[revision("base")]
    assert run.cost.tokens == sum(s.tokens for s in run.steps)
    assert run.cost.fuel == sum(s.fuel or 0 for s in run.steps)


def test_escalations_tokens_and_fuel_each_end_a_cascade():
    stages = [stage(name, 1.1) for name in NAMES]
    for bounded in (plan(*stages, escalations=1), plan(*stages, tokens=5), plan(*stages, fuel=1)):
        run = cascade(bounded, "rev abc>", runner(), BYTES)
        assert len(run.steps) <= 2
        assert run.text is not None
    assert len(cascade(plan(*stages, tokens=5), "rev abc>", runner(), BYTES).steps) == 2
    assert cascade(plan(*stages, fuel=1), "rev abc>", runner(), BYTES).reason == "route.budget"


def test_who_held_the_conversation_stands_down_to_the_lower_end():
    first, last = stage("base", 0.5), stage("rev-srt", 0.0)
    wide = first._replace(threshold=replace(first.threshold, value=1.1, low=0.0))
    assert cascade(plan(wide, last), "rev abc>", runner(), BYTES).selected == revision("rev-srt")
    held = plan(wide, last)._replace(held=revision("base"))
    assert cascade(held, "rev abc>", runner(), BYTES).selected == revision("base")


def test_a_model_that_fails_is_a_step_and_not_the_end():
    run = cascade(plan(stage("base", 0.0), stage("rev-srt", 0.0)), "rev abc>", runner("base"), BYTES)
    assert [s.reason for s in run.steps] == ["route.revision", "route.accepted"]
    run = cascade(plan(stage("base", 0.0)), "rev abc>", runner("base"), BYTES)
    assert (run.text, run.selected, run.reason) == (None, None, "route.revision")


@pytest.mark.parametrize(
    "wrong",
    [
        plan(),
        plan(stage("base", 0.5), stage("base", 0.5)),
        plan(stage("base", 0.5), escalations=-1),
        plan(stage("base", 0.5), tokens=0),
    ],
)
def test_a_cascade_without_bounds_is_refused(wrong):
    with pytest.raises(UsageError) as caught:
        cascade(wrong, "rev abc>", runner(), BYTES)
    assert caught.value.reason == "route.cascade"


@pytest.mark.parametrize("changes", [{"engine": "0" * 64}, {"model": "0" * 64}, {"purpose": "margin"}])
def test_a_threshold_of_something_else_is_refused(changes):
    first = stage("base", 0.5)
    other: RouteThreshold = replace(first.threshold, **changes)
    with pytest.raises(DigestDiffers) as caught:
        cascade(plan(first._replace(threshold=other)), "rev abc>", runner(), BYTES)
    assert caught.value.reason == "route.threshold"


def step(name: str, before: Mapping[str, object], after: Mapping[str, object], frame: str) -> PipelineStage:
    return PipelineStage(revision(name), dict(before), dict(after), frame, 12)


REVERSE, DOUBLE = step("rev-srt", LETTERS, LETTERS, "rev {}>"), step("dup-odd", LETTERS, TEXT, "dup {}>")


def test_a_pipeline_gives_what_one_writes_to_the_next():
    run = pipeline(PipelinePlan((REVERSE, DOUBLE), LIMITS), "abc", runner(), BYTES)
    assert (run.text, run.reason) == ("ccbbaa", "route.passed")
    assert [s.revision for s in run.steps] == [revision("rev-srt"), revision("dup-odd")]


def test_stages_that_do_not_fit_are_refused_before_anything_runs():
    for stages in ((DOUBLE, REVERSE), (REVERSE, DOUBLE._replace(input={"type": "object"}))):
        with pytest.raises(UsageError) as caught:
            pipeline(PipelinePlan(stages, LIMITS), "abc", runner(*NAMES), BYTES)
        assert caught.value.reason == "route.types"


@pytest.mark.parametrize(
    "stages",
    [
        (),
        (REVERSE,) * 9,
        (REVERSE._replace(frame="rev"),),
        (REVERSE._replace(frame="{}{}"),),
        (REVERSE._replace(tokens=0),),
    ],
)
def test_a_pipeline_without_bounds_is_refused(stages):
    with pytest.raises(UsageError) as caught:
        pipeline(PipelinePlan(stages, LIMITS), "abc", runner(), BYTES)
    assert caught.value.reason == "route.pipeline"


def test_a_schema_that_is_none_is_refused():
    with pytest.raises(RecordRefused):
        pipeline(PipelinePlan((REVERSE._replace(input={"type": 1}),), LIMITS), "abc", runner(), BYTES)


def test_a_pipeline_ends_at_the_first_failure_and_says_whose():
    def ended(prompt: str, stages: tuple[PipelineStage, ...], *broken: str, tokens: int = 64) -> tuple[str, int]:
        run = pipeline(PipelinePlan(stages, Limits(tokens)), prompt, runner(*broken), BYTES)
        assert (run.text, run.selected) == (None, None)
        return run.reason, len(run.steps)

    assert ended("ABC", (REVERSE, DOUBLE)) == ("route.input", 0)
    digits = {"type": "string", "pattern": "^[0-9]+$"}
    assert ended("abc", (REVERSE._replace(output=digits),)) == ("route.output", 1)
    assert ended("abc", (REVERSE, DOUBLE), "dup-odd") == ("route.revision", 2)
    assert ended("abc", (REVERSE, DOUBLE), tokens=4) == ("route.budget", 1)


def assembly(*members: str, **changes: object) -> CommitteePlan:
    made = CommitteePlan(tuple(map(revision, members)), 12, LIMITS, evidence="e" * 64, parallel=5)
    return made._replace(**changes)


def test_a_committee_gives_the_answer_most_of_its_members_give():
    run = committee(assembly(*NAMES), "rev abc>", runner(), BYTES)
    assert (run.text, run.reason, len(run.steps)) == ("cba", "route.majority", 5)
    assert run.cost.active_bytes == 5 * BYTES[revision("base")]


def vote(name: str, text: str, sure: float | None) -> tuple[str, Answer]:
    return name, Answer(text, (1,), sure, 1, None)


def test_ties_go_to_the_surer_answer_and_then_to_the_lower_revision():
    votes = [vote("c", "x", -0.9), vote("b", "y", -0.1), vote("a", "z", None)]
    assert majority(votes)[0] == "b"
    assert majority([*votes, vote("d", "x", -3.0)])[0] == "c"
    assert majority([vote("b", "x", -1.0), vote("a", "y", -1.0)])[0] == "a"
    assert majority(votes[::-1]) == majority(votes)


def test_a_member_that_fails_has_no_vote():
    run = committee(assembly("base", "rev-srt", "brk"), "rev abc>", runner("base"), BYTES)
    assert [s.reason for s in run.steps] == ["route.revision", "route.voted", "route.voted"]
    run = committee(assembly("base", "brk"), "rev abc>", runner("base", "brk"), BYTES)
    assert (run.text, run.reason) == (None, "route.no-vote")


@pytest.mark.parametrize(
    ("wrong", "kind", "reason"),
    [
        (assembly("base"), UsageError, "route.committee"),
        (assembly("base", "base"), UsageError, "route.committee"),
        (assembly(*NAMES, "sixth"), UsageError, "route.committee"),
        (assembly("base", "brk", evidence=None), OutOfOrder, "route.evidence"),
        (assembly("base", "brk", parallel=1), OutOfOrder, "route.evidence"),
        (assembly("base", "brk", budget=1000), OverBudget, "route.budget"),
    ],
)
def test_a_committee_without_bounds_or_evidence_is_refused(wrong, kind, reason):
    with pytest.raises(kind) as caught:
        committee(wrong, "rev abc>", runner(), BYTES)
    assert caught.value.reason == reason


def pack(name: str) -> tuple[StackPlan, Engine, bytes]:
    """A founder as a dense package on the base it was trained from."""
    base, tuned = (read_slm(founder(n) / f"{n}.slm") for n in ("base", name))
    data = dense_delta(base, tuned, licence="CC0-1.0")
    engine = Engine((founder("base") / "base.slm").read_bytes())
    facts = engine.facts
    return StackPlan(facts.sha256, facts.tokenizer_sha256, (hashlib.sha256(data).hexdigest(),)), engine, data


def test_an_adapter_stands_on_the_base_it_was_made_for_and_answers_as_its_specialist():
    planned, engine, data = pack("rev-srt")
    assert apply_stack(planned, engine, [data]).applied == planned.adapters
    answers = EngineRunner({"stacked": engine, "merged": founder_engine("rev-srt")})
    prompt = "rev hgfe>"
    assert answers.run("stacked", prompt, Limits(12)).text == answers.run("merged", prompt, Limits(12)).text
    with pytest.raises(OutOfOrder) as caught:
        apply_stack(planned, engine, [data])
    assert caught.value.reason == "route.stacked"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"base": "0" * 64}, "route.base"),
        ({"tokenizer": "0" * 64}, "route.tokenizer"),
        ({"adapters": ("0" * 64,)}, "route.adapter"),
        ({"adapters": ()}, "route.stack"),
    ],
)
def test_a_stack_whose_identities_are_others_touches_nothing(changes, reason):
    planned, engine, data = pack("rev-srt")
    before = engine.diagnostics()
    with pytest.raises(StudbookError) as caught:
        apply_stack(planned._replace(**changes), engine, [data])
    assert caught.value.reason == reason
    assert engine.diagnostics() == before


def test_an_adapter_made_for_another_base_is_refused_though_shapes_fit():
    planned, _, data = pack("rev-srt")
    other = Engine((founder("brk") / "brk.slm").read_bytes())
    for base in (planned.base, other.facts.sha256):
        with pytest.raises(DigestDiffers) as caught:
            apply_stack(planned._replace(base=base), other, [data])
        assert caught.value.reason == "route.base"
