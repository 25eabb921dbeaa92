"""What of a task file of lm-eval-harness decides a verdict, and what of it a Studbook suite cannot say.

A suite has one verdict an item, no examples before the question, and an answer ends where the model ends it. Fields and
defaults: the task guide of lm-eval 0.4.13.
"""

from __future__ import annotations

from typing import NamedTuple

from studbook.exchange.mergekit_yaml import Node

__all__ = ["Rules", "read_rules"]

# Fields that change nothing about prompts, answers and verdicts.
_IGNORED = frozenset(
    "task task_alias tag metadata training_split fewshot_split fewshot_delimiter should_decontaminate "  # noqa: SIM905
    "doc_to_decontamination_query".split()
)
_READ = frozenset(
    "output_type dataset_path dataset_kwargs test_split validation_split doc_to_text doc_to_target "  # noqa: SIM905
    "doc_to_choice description target_delimiter metric_list generation_kwargs num_fewshot repeats unsafe_code".split()
)
_CODE = ("process_docs", "process_results", "custom_dataset")
_SCORERS = {"generate_until": "exact-match", "loglikelihood": "exact-match", "multiple_choice": "multiple-choice"}
_METRICS: dict[str, tuple[str, ...]] = {
    "generate_until": ("exact_match",),
    "loglikelihood": ("acc",),
    "multiple_choice": ("acc", "acc_bytes"),
}
_TOKENS = 256  # the harness's limit where a task names none


class Rules(NamedTuple):
    """A task file, as far as it decides verdicts.

    Attributes:
        task: The whole file, for errors.
        name: Name of the task.
        scorer: The kind of scorer that a suite needs for it.
        data: Name of the data file.
        text: Field or template of the prompt.
        target: Field or template of the right answer, or of its place among the choices.
        choices: Field or list of the choices; None where there are none.
        description: What stands before every prompt.
        delimiter: What stands before every choice.
        by: What the log-likelihood of a choice is divided by: ``raw`` nothing, ``byte`` its UTF-8 bytes.
        limit: Most tokens that are generated; None where nothing is.
    """

    task: Node
    name: str
    scorer: str
    data: Node
    text: Node
    target: Node
    choices: Node | None
    description: str
    delimiter: str
    by: str
    limit: int | None


def read_rules(task: Node) -> Rules:
    """Sort a task file into what a suite can say, and refuse the rest.

    Raises:
        UsageError: if a field is missing or malformed.
        OutsideAllowlist: if a suite would not give the harness's verdicts.
    """
    fields = task.mapping()
    for name, node in fields.items():
        if name in _CODE:
            node.outside("is code; a suite is data", "code", "Run it once, and write what it gives into the data.")
        if name not in _IGNORED | _READ:
            node.outside("cannot be carried over", "field", "Remove it if it changes no prompt, answer or verdict.")
    output = _word(fields, "output_type", "generate_until")
    if output not in _SCORERS:
        fields["output_type"].outside(f"{output} has no verdict an item", "output", f"Known: {', '.join(_SCORERS)}.")
    _check_zero(fields)
    choices = _needed(task, fields, "doc_to_choice") if output == "multiple_choice" else None
    if choices is None and "doc_to_choice" in fields:
        fields["doc_to_choice"].outside(
            f"choices in a task of {output}", "choices", "Use output_type: multiple_choice."
        )
    metric = _metric(task, fields, output)
    delimiter = _raw(fields, "target_delimiter", " ")
    if metric == "acc_bytes" and delimiter:
        fields["metric_list"].outside("acc_bytes leaves the delimiter out of the length", "metric", "Use acc.")
    return Rules(
        task=task,
        name=_word(fields, "task", "task"),
        scorer=_SCORERS[output],
        data=_data_file(task, fields),
        text=_needed(task, fields, "doc_to_text"),
        target=_needed(task, fields, "doc_to_target"),
        choices=choices,
        description=_description(fields),
        delimiter=delimiter,
        by="byte" if metric == "acc_bytes" else "raw",
        limit=_limit(task, fields) if output == "generate_until" else None,
    )


def _needed(task: Node, fields: dict[str, Node], name: str) -> Node:
    if name not in fields:
        task.wrong(f"{name} is missing", "missing", f"Add {name}.")
    return fields[name]


def _word(fields: dict[str, Node], name: str, default: str) -> str:
    return fields[name].text() if name in fields else default


def _raw(fields: dict[str, Node], name: str, default: str) -> str:
    """A text that may be empty."""
    return default if name not in fields else "" if fields[name].value == "" else fields[name].text()


def _description(fields: dict[str, Node]) -> str:
    text = _raw(fields, "description", "")
    if "{" in text:
        fields["description"].outside("a template before the prompt is not carried over", "template")
    return text


def _check_zero(fields: dict[str, Node]) -> None:
    """Refuse what would change the prompt or the number of answers."""
    if "num_fewshot" in fields and fields["num_fewshot"].integer() != 0:
        advice = "Write the examples into the prompts of the data."
        fields["num_fewshot"].outside("examples are drawn by the harness", "fewshot", advice)
    if "repeats" in fields and fields["repeats"].integer() != 1:
        fields["repeats"].outside("a suite asks every question once", "repeats", "Use repeats: 1.")
    if "unsafe_code" in fields and fields["unsafe_code"].flag():
        fields["unsafe_code"].outside("runs what the model writes", "code", "Use a suite of the kind code.")


def _data_file(task: Node, fields: dict[str, Node]) -> Node:
    """The one local file of JSON lines."""
    local = "Download the data, and name it: dataset_path: json, dataset_kwargs: {data_files: {test: FILE.jsonl}}."
    path = _needed(task, fields, "dataset_path")
    if path.text() != "json":
        path.outside("a data set that is not a local JSON file is not fetched", "remote", local)
    kwargs = _needed(task, fields, "dataset_kwargs").mapping(("data_files",))
    split = fields.get("test_split") or fields.get("validation_split") or _needed(task, fields, "test_split")
    files = _needed(task, kwargs, "data_files")
    if isinstance(files.value, dict):
        named = files.mapping().get(split.text())
        if named is None:
            split.wrong("data_files names no such split", "split", "Name the file of this split.")
        files = named
    elif split.text() != "train":
        # One bare file is the split ``train`` to the harness's library.
        split.wrong("data_files names no splits, so that there is none but train", "split", local)
    if "://" in files.text():
        files.outside("is not fetched", "remote", local)
    return files


def _metric(task: Node, fields: dict[str, Node], output: str) -> str:
    """The one metric that is 0 or 1 an item."""
    known = _METRICS[output]
    if "metric_list" not in fields:
        if output == "generate_until":
            return known[0]
        advice = f"Add metric_list with one of {', '.join(known)}."
        task.outside("the harness's default has several metrics; a suite has one verdict an item", "metric", advice)
    first, *more = fields["metric_list"].sequence()
    if more:
        more[0].outside("a suite has one verdict an item", "metric", "Import the task once a metric.")
    entries = first.mapping(("metric", "aggregation", "higher_is_better", "ignore_case", "ignore_punctuation"))
    name = _needed(first, entries, "metric")
    if name.text() not in known:
        name.outside(f"is no verdict of {output} that a suite gives", "metric", f"Known: {', '.join(known)}.")
    if "aggregation" in entries and entries["aggregation"].text() != "mean":
        entries["aggregation"].outside("a suite's score is the mean", "metric", "Use aggregation: mean.")
    if "higher_is_better" in entries and not entries["higher_is_better"].flag():
        entries["higher_is_better"].outside("more right answers are better", "metric", "Use higher_is_better: true.")
    for option in ("ignore_case", "ignore_punctuation"):
        if option in entries and entries[option].flag():
            entries[option].outside("a suite compares answers as they are", "metric", f"Use {option}: false.")
    return name.text()


def _limit(task: Node, fields: dict[str, Node]) -> int:
    """Most new tokens, after the settings of generation were found to be those of a suite."""
    settings = _needed(task, fields, "generation_kwargs")
    known = ("until", "max_gen_toks", "do_sample", "temperature")
    entries = settings.mapping(known)
    until = _needed(settings, entries, "until")
    if until.value != []:
        advice = "Write until: [] if the model is to end its answer by itself."
        until.outside("a suite's answer ends where the model ends it, not at a stop text", "until", advice)
    if "do_sample" in entries and entries["do_sample"].flag():
        entries["do_sample"].outside("a suite decodes greedily", "sampling", "Use do_sample: false.")
    if "temperature" in entries and entries["temperature"].number() != 0:
        entries["temperature"].outside("a suite decodes greedily", "sampling", "Use temperature: 0.")
    return entries["max_gen_toks"].integer() if "max_gen_toks" in entries else _TOKENS
