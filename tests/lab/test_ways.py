"""Within a channel a router chooses among the packages that may answer; every choice is a line, and comes out again."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from msgspec import structs

from lab_fixtures import Place, problems, rewrite, shipped_items
from package_fixtures import sha
from studbook.errors import DigestDiffers, OutOfOrder
from studbook.lab import Lab
from studbook.lab.package_host import folder_of
from studbook.lab.segments import keep_segments, open_log, routes_folder
from studbook.lab.specialists import OWN
from studbook.lab.ways import Chosen, Way
from studbook.records import Deployment, RouteRule
from studbook.release import ALONE
from studbook.runtime.routelog import RouteLog
from studbook.runtime.routing.router import Router
from studbook.runtime.serve import Asked, Outcome, Wanted

RULES = (RouteRule(text="rot ", place="start", cluster="rot"), RouteRule(text="dup", place="word", cluster="odd"))
DONE = Outcome("", 0.1, 3, sha("tokens"), said=sha("said"), prompt_tokens=7)


@pytest.fixture
def lab(host: Place) -> Iterator[Lab]:
    with host.open() as opened:
        yield opened


def deployed(lab: Lab, rules: tuple[RouteRule, ...] = (), fallback: str | None = None) -> Deployment:
    found = lab.routes.learn(rules, fallback)
    return Deployment(package=None, router=found.router, thresholds=found.thresholds, stack=(), cache=None)


def way(lab: Lab, deployment: Deployment, log: RouteLog | None = None, *, keep_prompts: bool = False) -> Way:
    return Way(lab.desk, lab.desk.champion(), deployment, log, keep_prompts=keep_prompts)


def ask(found: Way, prompt: str | tuple[int, ...]) -> Chosen:
    return found.choose(Asked(0, Wanted(prompt)))


def key_of(lab: Lab, name: str) -> str:
    return lab.packages.show(name).package.artifact.sha256


def prompts(cluster: str) -> list[str]:
    return [item["prompt"] for item in shipped_items("selection", cluster)]


def excluded(chosen: Chosen) -> dict[str, str | None]:
    assert chosen.record
    return {c.id: c.excluded for c in chosen.record.candidates}


def test_without_a_router_the_channels_own_model_answers_and_nothing_is_written(lab: Lab) -> None:
    found = way(lab, ALONE)
    assert [m.revision for m in found.models()] == [lab.desk.champion()]
    assert ask(found, "rot abc>") == Chosen(lab.desk.champion(), None)
    found.ended(ask(found, "rot abc>"), DONE)
    assert lab.routes.list() == ()


def test_prompts_go_to_the_specialist_that_answers_for_them_and_what_is_foreign_stays(lab: Lab) -> None:
    found = way(lab, deployed(lab))
    own, *others = (m.revision for m in found.models())
    assert own == lab.desk.champion()
    assert set(others) == {key_of(lab, "rot"), key_of(lab, "odd")}
    for cluster in ("rot", "odd"):
        went = [ask(found, prompt) for prompt in prompts(cluster)]
        assert sum(c.revision == key_of(lab, cluster) for c in went) >= 20
        assert all(c.revision in (own, key_of(lab, cluster)) for c in went)
    stayed = [ask(found, prompt) for prompt in prompts("cap")]
    assert sum(c.revision == own for c in stayed) >= 20
    first = next(c.record for c in stayed if c.revision == own)
    assert first
    assert (first.how, first.reason, first.fallback, first.selected) == ("fallback", "route.margin", OWN, own)


def test_a_rule_decides_before_the_n_grams(lab: Lab) -> None:
    chosen = ask(way(lab, deployed(lab, RULES)), "rot abc>")
    assert chosen.record
    assert (chosen.revision, chosen.record.how, chosen.record.rule) == (key_of(lab, "rot"), "rule", 0)


def test_token_ids_go_the_way_of_their_text(lab: Lab) -> None:
    found = way(lab, deployed(lab))
    model = lab.desk.model(lab.desk.champion())
    for prompt in ("rot héllo>", prompts("odd")[0]):
        ids = tuple(model.tokenizer.encode(prompt, eos=False))
        assert ask(found, ids) == ask(found, prompt)
    # No model answers these; they have a way all the same, and none of them a long one.
    for ids in ((99999,), (), (255,) * 3, tuple(range(256)) * 4000):
        assert ask(found, ids).record


def test_every_choice_is_a_line_that_says_who_ran_and_replays(lab: Lab) -> None:
    log = open_log(lab.desk)
    kept = way(lab, deployed(lab), log, keep_prompts=True)
    silent = way(lab, deployed(lab), log)
    asked = [prompts(cluster)[i] for cluster in ("rot", "odd", "cap") for i in range(3)]
    for number, prompt in enumerate(asked):
        found = (kept, silent)[number % 2]
        chosen = ask(found, prompt)
        found.ended(chosen, DONE._replace(revision=chosen.revision))
    failed = ask(silent, "rot abc>")
    silent.ended(failed, Outcome(failed.revision, 0.1, failure="serve.cancelled"))
    assert lab.routes.verify().unsealed == 10
    log.close()
    keep_segments(lab.desk)
    told = lab.routes.verify()
    assert (told.routes, told.replayed, told.from_prompts, told.unsealed) == (10, 10, 5, 0)
    line = lab.routes.show("1:0")
    assert line.prompt == asked[0]
    assert (line.outcome, line.answer, line.failure) == ("answered", sha("said"), None)
    (step,) = line.steps
    assert (step.revision, step.tokens, step.reason) == (line.selected, 3, "route.answered")
    assert line.observed
    assert (line.observed.prompt_tokens, line.observed.active_bytes) == (7, line.estimated)
    assert lab.routes.show("1:1").prompt is None
    assert lab.routes.replay("1:1", asked[1]).from_prompts == 1
    last = lab.routes.show("1:9")
    assert (last.outcome, last.failure, last.answer) == ("failed", "serve.cancelled", None)
    assert lab.verify().ok


def test_what_is_not_in_memory_is_left_out_until_it_is(lab: Lab) -> None:
    found = way(lab, deployed(lab))
    found.hold([lab.desk.champion(), key_of(lab, "odd")])
    prompt = prompts("rot")[0]
    assert excluded(ask(found, prompt)) == {OWN: None, "odd": None, "rot": "package.absent"}
    assert ask(found, prompt).revision != key_of(lab, "rot")
    found.hold([m.revision for m in found.models()])
    assert ask(found, prompt).revision == key_of(lab, "rot")


def test_a_package_whose_bytes_were_changed_is_left_out_and_the_others_answer(lab: Lab) -> None:
    deployment = deployed(lab)
    model = folder_of(lab.desk, lab.packages.show("rot").revision) / "model.slm"
    rewrite(model, model.read_bytes()[:-1] + b"\x01")
    found = way(lab, deployment)
    assert key_of(lab, "rot") not in {m.revision for m in found.models()}
    assert excluded(ask(found, prompts("rot")[0]))["rot"] == "package.bytes"
    assert ask(found, prompts("odd")[0]).revision == key_of(lab, "odd")


def test_where_the_package_that_stands_ready_is_gone_the_channels_own_model_answers(lab: Lab) -> None:
    log = open_log(lab.desk)
    deployment = deployed(lab, RULES, fallback="odd")
    lab.packages.suspend("odd")
    found = way(lab, deployment, log)
    chosen = ask(found, "what is this?")
    assert chosen.revision == lab.desk.champion()
    assert chosen.record
    assert (chosen.record.how, chosen.record.selected) == ("refused", None)
    found.ended(chosen, DONE)
    log.close()
    line = lab.routes.show("1:0")
    assert (line.outcome, line.steps[0].revision) == ("answered", lab.desk.champion())
    assert lab.routes.verify().replayed == 1


def test_a_line_that_was_changed_is_found(host: Place, lab: Lab) -> None:
    log = open_log(lab.desk)
    found = way(lab, deployed(lab), log)
    for prompt in prompts("rot")[:3]:
        found.ended(ask(found, prompt), DONE)
    log.close()
    (lines,) = routes_folder(host.path).glob("*.jsonl")
    first, *others = lines.read_bytes().splitlines()
    changed = json.loads(first) | {"answer": sha("something nobody said")}
    lines.write_bytes(b"\n".join([json.dumps(changed, separators=(",", ":"), sort_keys=True).encode(), *others, b""]))
    with pytest.raises(DigestDiffers):
        lab.routes.verify()
    assert problems(host) != []


def test_what_is_deployed_with_adapters_on_it_is_not_served_without_them(lab: Lab) -> None:
    with pytest.raises(OutOfOrder) as caught:
        way(lab, structs.replace(ALONE, stack=(sha("adapter"),)))
    assert caught.value.reason == "serve.stack"


def test_a_router_that_asks_a_sentence_encoder_leads_no_channel_of_a_server(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = deployed(lab)
    monkeypatch.setattr(Router, "reads", False)
    with pytest.raises(OutOfOrder, match="sentence encoder") as caught:
        way(lab, deployment)
    assert caught.value.reason == "serve.encoder"
