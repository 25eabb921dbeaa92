"""Tasks of lm-eval-harness as suite folders: what is carried over, and what is refused in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_fixtures import Place, run_cli
from studbook.errors import ManifestRefused, OutsideAllowlist, RecordRefused, StudbookError, UsageError
from studbook.evaluation.suites import read_suite_folder
from studbook.exchange.lm_eval_task import read_task, suite_files
from studbook.lab.foreign_suites import import_task

ROWS = [
    {"q": "abc", "a": "bcd", "n": 1, "options": ["x", "bcd"]},
    {"q": "xy", "a": "yz", "n": 0, "options": ["yz", "x"]},
]
GENERATE = """
task: my-task
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
doc_to_text: "rot {{ q }}>"
doc_to_target: a
generation_kwargs: {until: [], max_gen_toks: 12, do_sample: false, temperature: 0.0}
metadata: {version: 1.0}
"""
CHOOSE = """
task: my-choice
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: q
doc_to_target: n
doc_to_choice: options
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
HOW: dict[str, Any] = {"role": "development", "cluster": "rot", "licence": "CC0-1.0"}


def write_task(folder: Path, text: str = GENERATE, rows: Any = None) -> Path:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (ROWS if rows is None else rows)))
    path = folder / "my-task.yaml"
    path.write_text(text)
    return path


def refusal(path: Path) -> StudbookError:
    with pytest.raises(StudbookError) as refused:
        read_task(path)
    assert refused.value.where.startswith(str(path.parent)) and refused.value.advice
    return refused.value


def test_a_generation_task_becomes_an_exact_match_suite(tmp_path: Path) -> None:
    made = import_task(write_task(tmp_path), tmp_path / "suite", **HOW)
    suite = read_suite_folder(tmp_path / "suite")
    assert (made.name, made.items, made.scorer) == ("my-task", 2, "exact-match")
    assert [(i.prompt, i.expected) for i in suite.items] == [("rot abc>", "bcd"), ("rot xy>", "yz")]
    assert suite.settings["max_new_tokens"] == "12"
    assert suite.settings["scorer"] == "exact-match"


def test_a_description_stands_before_every_prompt(tmp_path: Path) -> None:
    task = read_task(write_task(tmp_path, GENERATE + 'description: "Rotate: "\n'))
    assert [q["prompt"] for q in task.questions] == ["Rotate: rot abc>", "Rotate: rot xy>"]


def test_a_prompt_of_several_lines_is_carried_over_as_it_is(tmp_path: Path) -> None:
    text = GENERATE.replace("rot {{ q }}>", "Text:\\t{{ q }}\\n\\nAnswer:") + 'description: "Rotate.\\n"\n'
    import_task(write_task(tmp_path, text, [ROWS[0] | {"q": "abc\ndef"}, ROWS[1]]), tmp_path / "suite", **HOW)
    prompts = [item.prompt for item in read_suite_folder(tmp_path / "suite").items]
    assert prompts == ["Rotate.\nText:\tabc\ndef\n\nAnswer:", "Rotate.\nText:\txy\n\nAnswer:"]
    assert (tmp_path / "suite" / "items.jsonl").read_bytes().count(b"\n") == 2


def test_a_refusal_without_an_advice_of_its_own_names_the_page_of_this_tool(tmp_path: Path) -> None:
    found = refusal(write_task(tmp_path, GENERATE + "description: q\n"))
    assert found.advice == "docs/lm-eval.md lists what can be translated."


def test_a_likelihood_task_asks_for_the_whole_answer(tmp_path: Path) -> None:
    text = GENERATE.replace("generation_kwargs", "x_kwargs").split("x_kwargs")[0]
    task = read_task(write_task(tmp_path, text + "output_type: loglikelihood\nmetric_list: [{metric: acc}]\n"))
    assert task.scorer == "exact-match" and task.max_new_tokens == 3


@pytest.mark.parametrize(
    ("target", "right"), [("n", ["bcd", "yz"]), ('"{{n}}"', ["bcd", "yz"]), ("a", ["bcd", "yz"]), ("1", ["bcd", "x"])]
)
def test_a_choice_task_carries_every_choice_as_the_harness_scores_it(
    tmp_path: Path, target: str, right: list[str]
) -> None:
    task = read_task(write_task(tmp_path, CHOOSE.replace("doc_to_target: n", f"doc_to_target: {target}")))
    assert task.scorer == "multiple-choice"
    assert [q["expected"] for q in task.questions] == [f" {text}" for text in right]
    assert [q["rule"] for q in task.questions] == [
        {"choices": [" x", " bcd"], "by": "raw"},
        {"choices": [" yz", " x"], "by": "raw"},
    ]


def test_choices_by_bytes_are_divided_without_a_delimiter_only(tmp_path: Path) -> None:
    by_bytes = CHOOSE.replace("metric: acc,", "metric: acc_bytes,")
    assert refusal(write_task(tmp_path, by_bytes)).reason == "lm-eval.metric"
    task = read_task(write_task(tmp_path, by_bytes + 'target_delimiter: ""\n'))
    assert [q["rule"]["by"] for q in task.questions] == ["byte", "byte"]
    assert task.questions[0]["expected"] == "bcd"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("doc_to_target: a", "doc_to_target: !function utils.answer", "lm-eval.code"),
        ("doc_to_target: a", "doc_to_target: a\nprocess_docs: tidy", "lm-eval.code"),
        ("dataset_path: json", "dataset_path: some/benchmark", "lm-eval.remote"),
        ("rows.jsonl", "https://example.org/rows.jsonl", "lm-eval.remote"),
        ("rows.jsonl", "../rows.jsonl", "lm-eval.data"),
        ("rows.jsonl", "others.jsonl", "lm-eval.data"),
        ("test_split: test", "test_split: later", "lm-eval.split"),
        ("{test: rows.jsonl}", "rows.jsonl", "lm-eval.split"),
        ("until: []", 'until: ["\\n"]', "lm-eval.until"),
        ("generation_kwargs", "metadata_kwargs", "lm-eval.field"),
        ("do_sample: false", "do_sample: true", "lm-eval.sampling"),
        ("temperature: 0.0", "temperature: 0.7", "lm-eval.sampling"),
        ("max_gen_toks: 12", "max_gen_toks: 3", "lm-eval.limit"),
        ("{{ q }}", "{{ q | upper }}", "lm-eval.template"),
        ("{{ q }}", "{% if q %}x{% endif %}", "lm-eval.template"),
        ("{{ q }}", "{{ none }}", "lm-eval.template"),
        ("{{ q }}", "{{ z }}", "lm-eval.row"),
        ("rot {{ q }}", "rot\\v{{ q }}", "lm-eval.row"),
        ("rot {{ q }}", "rot\\u2028{{ q }}", "lm-eval.row"),
        ("doc_to_target: a", 'doc_to_target: "[{{a}}]"', "lm-eval.target"),
        ("doc_to_target: a", "doc_to_target: options", "lm-eval.row"),
        ("doc_to_target: a\n", "", "lm-eval.missing"),
        ("task: my-task", "num_fewshot: 3", "lm-eval.fewshot"),
        ("task: my-task", "repeats: 5", "lm-eval.repeats"),
        ("task: my-task", "unsafe_code: true", "lm-eval.code"),
        ("task: my-task", "filter_list: [{name: x}]", "lm-eval.field"),
        ("task: my-task", "include: other.yaml", "lm-eval.field"),
        ("task: my-task", "gen_prefix: So", "lm-eval.field"),
        ("task: my-task", "description: q", "lm-eval.template"),
        ("task: my-task", "doc_to_choice: options", "lm-eval.choices"),
        ("task: my-task", "output_type: loglikelihood_rolling", "lm-eval.output"),
        ("task: my-task", "output_type: loglikelihood", "lm-eval.metric"),
        ("task: my-task", "metric_list: [{metric: bleu}]", "lm-eval.metric"),
        ("task: my-task", "metric_list: [{metric: exact_match}, {metric: exact_match}]", "lm-eval.metric"),
        ("task: my-task", "metric_list: [{metric: exact_match, ignore_case: true}]", "lm-eval.metric"),
        ("task: my-task", "metric_list: [{metric: exact_match, aggregation: max}]", "lm-eval.metric"),
        ("task: my-task", "metric_list: [{metric: exact_match, regexes_to_ignore: [x]}]", "lm-eval.unknown"),
        ("task: my-task", "task: [", "lm-eval.yaml"),
        ("task: my-task", 'description: "{{q}}"', "lm-eval.template"),
        ("rows.jsonl", r'"rows\0.jsonl"', "lm-eval.data"),
        ("rows.jsonl", r'"rows\uD800.jsonl"', "lm-eval.data"),
        ("rows.jsonl", "loop", "lm-eval.data"),
    ],
)
def test_what_a_suite_cannot_say_is_refused_in_words(tmp_path: Path, old: str, new: str, reason: str) -> None:
    assert old in GENERATE
    (tmp_path / "loop").symlink_to("loop")
    found = refusal(write_task(tmp_path, GENERATE.replace(old, new)))
    assert found.reason == reason
    assert isinstance(found, OutsideAllowlist | UsageError)
    assert "mergekit" not in found.advice


@pytest.mark.parametrize(
    "row", [{"n": 2}, {"n": "w"}, {"n": True}, {"options": ["x"]}, {"options": ["x", "x"]}, {"options": ["x", 1]},
            {"n": "9" * 5000}],
)  # fmt: skip
def test_a_row_without_one_right_choice_is_refused(tmp_path: Path, row: dict[str, Any]) -> None:
    text = CHOOSE.replace("doc_to_target: n", 'doc_to_target: "{{n}}"') if len(str(row)) > 99 else CHOOSE
    found = refusal(write_task(tmp_path, text, [ROWS[0], ROWS[1] | row]))
    assert found.reason == "lm-eval.row"
    assert "line 2" in found.where


def test_a_line_that_is_no_object_is_refused(tmp_path: Path) -> None:
    for rows in ([[1]], ["x"]):
        with pytest.raises(RecordRefused):
            read_task(write_task(tmp_path, rows=rows))
    with pytest.raises(UsageError):
        read_task(write_task(tmp_path, rows=[]))


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "task"
    folder.mkdir()
    path = write_task(folder)
    (folder / "rows.jsonl").rename(tmp_path / "rows.jsonl")
    (folder / "rows.jsonl").symlink_to(tmp_path / "rows.jsonl")
    assert refusal(path).reason == "lm-eval.data"


def test_a_refused_import_leaves_nothing_behind(tmp_path: Path) -> None:
    path = write_task(tmp_path)
    with pytest.raises(ManifestRefused):
        import_task(path, tmp_path / "suite", **HOW | {"licence": "two\nlines"})
    path = write_task(tmp_path, rows=[{"q": "x" * 5000, "a": "y"}])
    with pytest.raises(StudbookError) as refused:
        import_task(path, tmp_path / "suite", **HOW)
    assert str(tmp_path / "suite" / "items.jsonl") in refused.value.where
    assert sorted(p.name for p in tmp_path.iterdir()) == ["my-task.yaml", "rows.jsonl"]


def test_a_folder_below_one_that_is_not_there_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        import_task(write_task(tmp_path), tmp_path / "missing" / "suite", **HOW)
    assert (refused.value.reason, refused.value.where) == ("usage.folder", str(tmp_path / "missing"))


def test_an_answer_that_no_suite_lets_a_model_write_is_told_before_anything_is_written(tmp_path: Path) -> None:
    path = write_task(tmp_path, GENERATE.replace("max_gen_toks: 12", "max_gen_toks: 5000"))
    with pytest.raises(ManifestRefused, match="max_new_tokens=5000"):
        import_task(path, tmp_path / "suite", **HOW)
    assert not (tmp_path / "suite").exists()


def test_an_existing_folder_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "suite").mkdir()
    with pytest.raises(UsageError):
        import_task(write_task(tmp_path), tmp_path / "suite", **HOW)


def test_the_verb_needs_no_lab(tmp_path: Path) -> None:
    place = Place(tmp_path / "none", tmp_path / "keys")
    words = ("suite", "import", str(write_task(tmp_path)), "-o", str(tmp_path / "suite"))
    done = run_cli(place, *words, "--cluster", "rot", "--licence", "CC0-1.0", "--name", "other")
    assert done.returncode == 0, done.stderr
    assert "2 items" in done.stdout
    assert read_suite_folder(tmp_path / "suite").settings["name"] == "other"


texts = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cf", "Zl", "Zp")), min_size=1, max_size=40
)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
def test_any_printable_rows_come_through_unchanged(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("task")
    text = GENERATE.replace('"rot {{ q }}>"', "q").replace("max_gen_toks: 12", "max_gen_toks: 4096")
    path = write_task(folder, text, [{"q": q, "a": a} for q, a in rows])
    files = suite_files(read_task(path), name="any", role="sealed", cluster="any", licence="CC0-1.0")
    for name, data in files.items():
        (folder / name).write_bytes(data)
    assert [(i.prompt, i.expected) for i in read_suite_folder(folder).items] == rows
