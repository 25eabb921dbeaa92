"""The model adapter for lm-eval-harness beside Studbook's own scorecards, with the network shut."""

from __future__ import annotations

import json
import random
import socket
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("lm_eval")
    import datasets
    import lm_eval
    from lm_eval.api.instance import Instance
    from lm_eval.tasks import TaskManager
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from lab_fixtures import Place, founder, shipped_items
from studbook.errors import BytesLie, UsageError
from studbook.exchange.lm_eval import StudbookLM, rolling_windows
from studbook.exchange.lm_eval_task import read_task
from studbook.lab.harness import open_lm
from studbook.models.slm import Slm, parse_slm, write_slm
from studbook.models.tokenizers import BOS

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore:::(?!studbook)")]
NAME = "cap-rot"
GREEDY = {"until": [], "max_gen_toks": 12, "do_sample": False}
TASK = """
task: foreign-rot
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}>"
doc_to_target: answer
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
generation_kwargs: {until: [], max_gen_toks: 12, do_sample: false}
"""


CHOOSE = """
task: foreign-rot
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: q
doc_to_target: n
doc_to_choice: options
target_delimiter: ""
metric_list: [{metric: METRIC, aggregation: mean, higher_is_better: true}]
"""


def choices(expected: str, draw: random.Random) -> dict[str, Any]:
    """Four choices, the answer among them, and which of them is called right: half of the time any."""
    found = {expected}
    while len(found) < 4:
        found.add("".join(draw.sample(expected, len(expected))) + draw.choice("abcx") * draw.randint(0, 1))
    options = sorted(found)
    return {"options": options, "n": draw.choice([options.index(expected), draw.randrange(4)])}


@pytest.fixture(autouse=True)
def shut_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError(f"a connection was asked for: {arguments}")

    for call in ("connect", "connect_ex", "bind", "sendto"):
        monkeypatch.setattr(socket.socket, call, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def path() -> Path:
    return founder(NAME) / f"{NAME}.slm"


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A foreign task whose rows are shipped items of two skills, one of which the founder never learned."""
    items = [item for cluster in ("rot", "odd") for item in shipped_items("development", cluster)]
    rows = [{"question": item["prompt"].removesuffix(">"), "answer": item["expected"]} for item in items]
    folder = tmp_path / "task"
    folder.mkdir()
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "foreign-rot.yaml").write_text(TASK)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    # The harness finds data below the working directory.
    monkeypatch.chdir(folder)
    yield folder / "foreign-rot.yaml"


def asked(*columns: Sequence[Any]) -> list[Instance]:
    rows = zip(*columns, strict=True)
    return [Instance(request_type="loglikelihood", doc={}, arguments=row, idx=0) for row in rows]


def changed(model: Slm, name: str, value: float) -> Slm:
    tensors = {n: np.array(model.dense(n)) for n in model.tensors}
    tensors[name][:] = value
    return parse_slm(write_slm(model.shape, model.tokenizer, tensors))


def by_harness(lm: StudbookLM, task: Path) -> list[dict[str, Any]]:
    manager = TaskManager(include_path=str(task.parent), include_defaults=False)
    found = lm_eval.simple_evaluate(lm, tasks=["foreign-rot"], task_manager=manager, bootstrap_iters=0)
    return sorted(found["samples"]["foreign-rot"], key=lambda sample: sample["doc_id"])


def test_its_numbers_are_those_of_the_scorecard_item_by_item(prepared_lab: Place, tmp_path: Path) -> None:
    place = prepared_lab.copy(tmp_path)
    with place.open() as lab:
        (card,) = lab.evaluate([NAME]).values()
        results = {r.cluster: r for r in card.card.results if r.dimension == "task"}
    lm = open_lm(place.path, card.card.artifact, ending=True, keys=place.keys)
    for cluster, result in results.items():
        items = shipped_items("development", cluster)
        prompts = [item["prompt"] for item in items]
        scored = lm.loglikelihood(asked(prompts, [item["expected"] for item in items]))
        assert "".join(str(int(right)) for _, right in scored) == result.correct
        assert " ".join(str(round(loglik * 1e6)) for loglik, _ in scored) == result.loglik_micro
        written = lm.generate_until(asked(prompts, [GREEDY] * len(items)))
        assert [text == item["expected"] for text, item in zip(written, items, strict=True)] == [
            mark == "1" for mark in result.correct
        ]
    assert "1" in results["rot"].correct and "0" in results["odd"].correct


def test_the_end_token_is_scored_only_where_it_is_asked_for(path: Path) -> None:
    pair = asked(["rot abc>"], ["bcd"])
    ((with_end, _),) = StudbookLM(path, ending=True).loglikelihood(pair)
    ((without, _),) = StudbookLM(path).loglikelihood(pair)
    assert with_end < without < 0


def test_an_imported_task_is_judged_alike_by_the_harness_and_by_the_lab(
    prepared_lab: Place, tmp_path: Path, task: Path
) -> None:
    place = prepared_lab.copy(tmp_path / "copy")
    with place.open() as lab:
        lab.suites.import_(task, tmp_path / "suite", role="development", cluster="foreign", licence="CC0-1.0")
        lab.suites.freeze([tmp_path / "suite"])
        (card,) = lab.evaluate([NAME]).values()
        (result,) = (r for r in card.card.results if r.cluster == "foreign")
    samples = by_harness(open_lm(place.path, NAME, keys=place.keys), task)
    verdicts = "".join(str(int(sample["exact_match"])) for sample in samples)
    assert verdicts == result.correct
    assert {"0", "1"} == set(verdicts)


def test_a_prompt_of_several_lines_is_the_one_that_the_harness_asks(path: Path, task: Path) -> None:
    lines = TASK.replace('"{{question}}>"', '"T:\\t{{question}}\\n\\nA:"') + 'description: "Do.\\n"\n'
    task.write_text(lines)
    rows = [{"question": "ab\ncd\n", "answer": "x"}, {"question": " e\t", "answer": "y"}]
    (task.parent / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked_for = [sample["arguments"][0][0] for sample in by_harness(StudbookLM(path), task)]
    assert asked_for == [question["prompt"] for question in read_task(task).questions]
    assert asked_for[0] == "Do.\nT:\tab\ncd\n\n\nA:"


@pytest.mark.parametrize("metric", ["acc", "acc_bytes"])
def test_an_imported_choice_is_made_alike_by_the_harness_and_by_the_lab(
    prepared_lab: Place, tmp_path: Path, task: Path, metric: str
) -> None:
    draw = random.Random(3)
    items = [item for cluster in ("rot", "odd") for item in shipped_items("development", cluster)]
    rows = [{"q": item["prompt"], **choices(item["expected"], draw)} for item in items]
    (task.parent / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task.write_text(CHOOSE.replace("METRIC", metric))
    place = prepared_lab.copy(tmp_path / "copy")
    with place.open() as lab:
        lab.suites.import_(task, tmp_path / "suite", role="development", cluster="foreign", licence="CC0-1.0")
        lab.suites.freeze([tmp_path / "suite"])
        cards = [found.card for found in lab.evaluate(["base", NAME]).values()]
    for card in cards:
        (result,) = (r for r in card.results if r.cluster == "foreign")
        samples = by_harness(open_lm(place.path, card.artifact, ending=True, keys=place.keys), task)
        assert "".join(str(int(sample[metric])) for sample in samples) == result.correct
        assert {"0", "1"} == set(result.correct)


def test_the_response_cache_is_refused_before_anything_is_answered(path: Path, task: Path, tmp_path: Path) -> None:
    manager = TaskManager(include_path=str(task.parent), include_defaults=False)
    lm = StudbookLM(path)
    with pytest.raises(UsageError, match="not keyed by model") as refused:
        lm_eval.simple_evaluate(lm, tasks=["foreign-rot"], task_manager=manager, use_cache=str(tmp_path / "answers"))
    assert refused.value.reason == "lm-eval.cache"
    assert lm.cache_hook.dbdict is None


def test_two_models_never_share_an_answer(path: Path, task: Path) -> None:
    other = StudbookLM(founder("dup-odd") / "dup-odd.slm")
    first, second = by_harness(StudbookLM(path), task), by_harness(other, task)
    rights = [[int(sample["exact_match"]) for sample in samples] for samples in (first, second)]
    assert rights[0] != rights[1]
    # In the other order each gives what it gave before.
    again = [by_harness(other, task), by_harness(StudbookLM(path), task)]
    assert [[int(s["exact_match"]) for s in samples] for samples in again] == rights[::-1]


@pytest.mark.parametrize(("length", "context"), [(1, 4), (4, 4), (5, 4), (9, 4), (64, 64), (150, 64)])
def test_rolling_windows_are_those_of_the_harness(length: int, context: int) -> None:
    ids = list(range(length))
    theirs = [make_disjoint_window(w) for w in get_rolling_token_windows(ids, BOS, context, 1)]
    assert list(rolling_windows(ids, context)) == theirs


def test_a_rolling_score_is_the_sum_over_its_tokens(path: Path) -> None:
    lm = StudbookLM(path)
    text = "rot abc>bcd"
    whole = lm.loglikelihood_rolling(asked([text, "", "x" * 200]))
    assert whole[0] == pytest.approx(sum(lm.loglikelihood(asked([text[:i]], [text[i]]))[0][0] for i in range(11)))
    assert whole[1] == 0 and whole[2] < 0


def test_what_is_longer_than_the_context_is_refused_and_never_cut(path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        StudbookLM(path).loglikelihood(asked(["x" * 64], ["y"]))
    assert refused.value.reason == "forward.context"


def test_a_model_whose_logits_are_not_finite_gets_no_verdict(path: Path) -> None:
    broken = changed(StudbookLM(path).model, "norm.weight", 1e38)
    with pytest.raises(BytesLie) as refused:
        StudbookLM(broken).loglikelihood(asked(["rot abc>"], ["bcd"]))
    assert refused.value.reason == "lm-eval.finite"


def test_a_stop_text_cuts_and_sampling_follows_its_seed(path: Path) -> None:
    lm = StudbookLM(path)
    (whole,) = lm.generate_until(asked(["rot abcd>"], [GREEDY]))
    (cut,) = lm.generate_until(asked(["rot abcd>"], [GREEDY | {"until": [whole[2]]}]))
    assert cut == whole[: whole.index(whole[2])]
    warm = {"do_sample": True, "temperature": 3.0, "max_gen_toks": 20}
    same, also, other = lm.generate_until(asked(["x"] * 3, [warm | {"seed": s} for s in (1, 1, 2)]))
    assert same == also != other


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"num_beams": 4}, "lm-eval.generation"), ({"max_gen_toks": "many"}, "lm-eval.number")],
)
def test_a_setting_that_means_nothing_here_is_refused(path: Path, settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError) as refused:
        StudbookLM(path).generate_until(asked(["x"], [settings]))
    assert refused.value.reason == reason


def test_only_the_cpu_is_a_device(path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        StudbookLM(path, device="cuda:0")
    assert refused.value.reason == "lm-eval.device"
    made = StudbookLM.create_from_arg_string(f"artifact={path},ending=True", {"batch_size": 4, "device": "cpu"})
    assert made.ending is True
