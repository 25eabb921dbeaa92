"""Merge files of mergekit become recipes that say the same, or are refused with file, line and field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studbook.breeding.operators import decode_operator
from studbook.errors import OutsideAllowlist, StudbookError, UsageError
from studbook.exchange import read_mergekit, translate_mergekit

EXAMPLES = Path(__file__).parents[2] / "examples" / "mergekit"
PAIR = "models: [{model: a}, {model: b}]\n"
DELTAS = "base_model: base\n" + PAIR
WEIGHED = (
    "models: [{model: a, parameters: {weight: 0.5}}, {model: b, parameters: {weight: 0.5}}]\nmerge_method: linear\n"
)
TIES = (
    "base_model: base\nmodels: [{model: a}, {model: base}, {model: b}]\nmerge_method: ties\nparameters: {weight: 1}\n"
)


def four(name: str) -> tuple[str, ...]:
    """Tensor names of a model of four layers."""
    outside = ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
    return (*outside, *(f"model.layers.{i}.{kind}.weight" for i in range(4) for kind in ("mlp.up", "attn.q", "norm")))


def read(text: str) -> dict[str, Any]:
    return read_mergekit(text, "file.yml", four)


def operator(text: str) -> dict[str, Any]:
    return read(text)["operator"]


def whole(name: str, adapter: str | None = None) -> dict[str, Any]:
    return {"model": name, "adapter": adapter, "layers": None}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yml")), ids=lambda p: p.stem)
def test_every_example_becomes_an_operator_that_decodes(path: Path) -> None:
    found = read_mergekit(path.read_text(), path.name, four)
    assert decode_operator(found["operator"]).validate(len(found["parents"])) is None


def test_a_linear_file_is_a_blend_of_its_models_in_their_order_with_the_first_as_donor() -> None:
    found = read(WEIGHED + "dtype: float32\nout_dtype: bfloat16\n")
    assert found == {
        "operator": {"operator": "blend/1", "weights": [0.5, 0.5]},
        "base": whole("a"),
        "parents": [whole("a"), whole("b")],
        "config_from": "a",
        "tokenizer_from": "a",
        "vocabulary": {"policy": "refuse", "multiple_of": None, "lacking": "average"},
        "dtype": "bf16",
    }


def test_linear_weights_are_divided_by_at_the_end_unless_they_sum_to_one() -> None:
    text = "models: [{model: a, parameters: {weight: 3}}, {model: b, parameters: {weight: 1}}]\nmerge_method: linear\n"
    assert operator(text) == {"operator": "linear-sum/1", "weights": [3.0, 1.0], "normalize": True}
    assert operator(text + "parameters: {normalize: false}\n")["normalize"] is False
    assert operator(WEIGHED + "parameters: {normalize: false}\n")["weights"] == [0.5, 0.5]


def test_a_base_of_a_linear_merge_is_an_input_too_and_needs_a_weight() -> None:
    with pytest.raises(UsageError, match="weight is set for no tensor"):
        read(WEIGHED + "base_model: base\n")
    found = read(WEIGHED + "base_model: base\nparameters: {weight: 1}\n")
    assert [p["model"] for p in found["parents"]] == ["a", "b", "base"]
    assert found["operator"]["weights"] == [0.5, 0.5, 1.0]
    assert found["config_from"] == "base"


def test_the_base_is_no_parent_of_methods_that_measure_against_it() -> None:
    found = read(TIES)
    assert found["base"] == whole("base")
    assert found["parents"] == [whole("a"), whole("b")]
    assert found["operator"] == {
        "operator": "ties/1",
        "densities": [1.0, 1.0],
        "weights": [1.0, 1.0],
        "scale": 1.0,
        "normalize": True,
        "skip": [],
    }


def test_slerp_goes_from_the_base_to_the_other_model_in_either_order() -> None:
    for models in ("[{model: a}, {model: base}]", "[{model: base}, {model: a}]", "[{model: a}]"):
        found = read(f"models: {models}\nmerge_method: slerp\nbase_model: base\nparameters: {{t: 0.25}}\n")
        assert found["parents"] == [whole("base"), whole("a")]
        assert found["operator"] == {"operator": "slerp/1", "t": 0.25, "skip": []}


def test_the_nearest_setting_wins_and_the_wider_one_holds_for_the_rest() -> None:
    text = (
        "slices: [{sources: [{model: base, layer_range: [0, 2]}, {model: a, layer_range: [0, 2], parameters:"
        " {weight: [{filter: mlp, value: 0.1}]}}, {model: b, layer_range: [0, 2]}], parameters: {weight: 0.2}}]\n"
        "base_model: base\nmerge_method: task_arithmetic\nparameters: {weight: 0.3}\n"
    )
    found = operator(text)
    assert found["operator"] == "scheduled/1"
    assert found["inner"]["scales"] == [0.2, 0.2]
    assert found["rules"] == [{"field": "scales", "parent": 0, "filter": "mlp", "values": [0.1]}]
    assert found["layers"] == 2


def test_a_gradient_is_kept_as_it_is_written_and_spans_the_layers_of_the_model() -> None:
    text = DELTAS + "merge_method: task_arithmetic\nparameters: {weight: [0, 0.25, 1e-1]}\n"
    found = operator(text)
    assert found["layers"] == 4
    assert [(r["parent"], r["filter"], r["values"]) for r in found["rules"]] == [
        (0, "*", [0.0, 0.25, 0.1]),
        (1, "*", [0.0, 0.25, 0.1]),
    ]
    with pytest.raises(UsageError, match="need the models") as caught:
        read_mergekit(text, "file.yml")
    assert caught.value.reason == "mergekit.layers"


def test_entries_behind_one_without_a_filter_are_never_reached() -> None:
    text = (
        f"{DELTAS}merge_method: task_arithmetic\nparameters: {{weight: [{{value: 0.5}}, {{filter: mlp, value: 9}}]}}\n"
    )
    assert operator(text) == {"operator": "task-delta/1", "scales": [0.5, 0.5], "skip": []}


def test_values_of_several_slices_become_one_value_a_layer() -> None:
    def piece(first: int, last: int, t: str) -> str:
        sources = "".join(f"{{model: {m}, layer_range: [{first}, {last}]}}, " for m in ("base", "a"))
        return f"  - {{sources: [{sources}], parameters: {{t: {t}}}}}\n"

    text = f"slices:\n{piece(0, 3, '[0, 1]')}{piece(2, 3, '0.5')}merge_method: slerp\nbase_model: base\n"
    found = read(text)
    assert [(r["filter"], r["values"]) for r in found["operator"]["rules"]] == [
        ("model.norm.weight", [0.5]),
        ("lm_head.weight", [0.5]),
        ("*", [0.0, 0.5, 1.0, 0.5]),
    ]
    assert found["operator"]["layers"] == 4
    assert [(s["model"], s["first"], s["last"]) for s in found["parents"][1]["layers"]] == [("a", 0, 3), ("a", 2, 3)]


def test_slices_of_whole_models_are_the_models_themselves_where_their_layers_are_known() -> None:
    sources = "[{model: base, layer_range: [0, 4]}, {model: a, layer_range: [0, 4]}]"
    text = f"slices: [{{sources: {sources}}}]\nmerge_method: slerp\nbase_model: base\nparameters: {{t: 0.5}}\n"
    assert read(text)["parents"] == [whole("base"), whole("a")]
    assert read_mergekit(text, "file.yml")["parents"][1]["layers"] == [
        {"model": "a", "adapter": None, "first": 0, "last": 4}
    ]


def test_passthrough_slices_become_segments_of_models_that_are_each_named_once() -> None:
    text = "merge_method: passthrough\nslices:\n" + "".join(
        f"  - sources: [{{model: {m}, layer_range: [{f}, {e}]}}]\n"
        for m, f, e in (("a", 0, 3), ("b", 1, 4), ("a", 3, 4))
    )
    found = read(text)
    assert found["operator"] == {
        "operator": "passthrough/1",
        "segments": [
            {"parent": 0, "first": 0, "last": 3},
            {"parent": 1, "first": 1, "last": 4},
            {"parent": 0, "first": 3, "last": 4},
        ],
    }
    assert found["parents"] == [whole("a"), whole("b")]


def test_a_model_with_an_adapter_is_one_input_in_either_spelling() -> None:
    for model in ("a+lora", "{model: a, lora: lora}", "{model: {path: a}, lora: {path: lora}}"):
        found = read(f"models: [{{model: {model}}}]\nmerge_method: passthrough\n")
        assert found["parents"] == [whole("a", "lora")]
        assert found["operator"]["segments"] == [{"parent": 0, "first": 0, "last": 4}]
        assert found["config_from"] == "a"


@pytest.mark.parametrize(
    ("written", "policy", "donor", "multiple"),
    [
        ("", "refuse", "base", None),
        ("tokenizer_source: union", "union", "base", None),
        ("tokenizer_source: base", "base", "base", None),
        ("tokenizer: {source: base, pad_to_multiple_of: 64}", "base", "base", 64),
        ("tokenizer: {pad_to_multiple_of: 8}", "union", "base", 8),
    ],
)
def test_tokenizer_settings_become_a_policy_and_a_donor(
    written: str, policy: str, donor: str, multiple: int | None
) -> None:
    found = read(f"{TIES}{written}\n")
    assert found["vocabulary"] == {"policy": policy, "multiple_of": multiple, "lacking": "base"}
    assert found["tokenizer_from"] == donor


def test_tokenizers_have_to_be_equal_where_no_tensor_is_mixed_from_all_models() -> None:
    text = "slices: [{sources: [{model: a, layer_range: [0, 1]}]}]\nmerge_method: passthrough\n"
    assert read(f"{text}tokenizer_source: union\n")["vocabulary"]["policy"] == "refuse"
    padded = read(f"{text}tokenizer: {{source: base, pad_to_multiple_of: 8}}\n")["vocabulary"]
    assert (padded["policy"], padded["multiple_of"]) == ("pad_to", 8)
    pieces = "".join(
        f"- sources: [{{model: {m}, layer_range: [0, 1]}}, {{model: c, layer_range: [0, 1]}}]\n" for m in "ab"
    )
    text = f"slices:\n{pieces}merge_method: linear\nparameters: {{weight: 1}}\ntokenizer_source: union\n"
    assert read(text)["vocabulary"]["policy"] == "refuse"
    assert read(text.replace("model: a", "model: b"))["vocabulary"]["policy"] == "union"


def test_a_model_may_donate_the_tokenizer_of_a_merge_of_two() -> None:
    found = read(f"{WEIGHED}tokenizer_source: b\n")
    assert (found["tokenizer_from"], found["config_from"]) == ("b", "a")
    assert found["vocabulary"]["policy"] == "base"


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("", "keep"),
        ("dtype: float16", "f16"),
        ("dtype: torch.bfloat16", "bf16"),
        ("dtype: float32\nout_dtype: float16", "f16"),
        ("out_dtype: bfloat16", "bf16"),
    ],
)
def test_the_child_is_stored_as_the_file_says(written: str, wanted: str) -> None:
    assert read(f"{WEIGHED}{written}\n")["dtype"] == wanted


def test_notes_say_what_the_reader_may_not_expect() -> None:
    found = translate_mergekit(
        f"{DELTAS}merge_method: dare_ties\nparameters: {{weight: 1, density: 0.5, int8_mask: true}}\ndtype: bfloat16\n",
        "file.yml",
        seed=7,
    )
    assert found.recipe["operator"]["seed"] == 7
    said = " / ".join(found.notes)
    for part in ("seed 7", "int8_mask changes nothing", "computed in f32"):
        assert part in said
    assert "first model named" in " ".join(translate_mergekit(WEIGHED, "file.yml").notes)


def arithmetic(method: str, more: str = "") -> dict[str, Any]:
    return operator(f"{DELTAS}merge_method: {method}\nparameters: {{weight: 0.5, density: 0.5{more}}}\n")


def test_methods_of_task_vectors_keep_their_own_defaults() -> None:
    assert arithmetic("dare_linear") == {"operator": "dare/1", "keep": 0.5, "scales": [0.5, 0.5], "seed": 0, "skip": []}
    found = arithmetic("dare_ties")
    assert (found["operator"], found["normalize"], found["rescale"]) == ("dare-ties/1", False, True)
    found = arithmetic("breadcrumbs_ties")
    assert (found["operator"], found["elect"], found["gammas"], found["normalize"]) == (
        "breadcrumbs/1", True, [0.01, 0.01], False,
    )  # fmt: skip
    found = arithmetic("della", ", epsilon: 0.1")
    assert (found["operator"], found["elect"], found["epsilons"], found["normalize"], found["rescale"]) == (
        "della/1", True, [0.1, 0.1], True, True,
    )  # fmt: skip
    assert arithmetic("della_linear")["normalize"] is False


def test_dare_with_more_than_one_density_is_della_without_a_preference() -> None:
    text = "base_model: base\nmodels: [{model: a, parameters: {density: 0.3}}, {model: b}]\nmerge_method: dare_linear\n"
    found = operator(f"{text}parameters: {{weight: 1, density: 0.5}}\n")
    assert (found["operator"], found["densities"], found["epsilons"]) == ("della/1", [0.3, 0.5], [0.0, 0.0])
    assert (found["elect"], found["rescale"], found["normalize"]) == (False, True, False)


def test_task_arithmetic_that_is_normalised_or_scaled_keeps_mergekits_order_of_operations() -> None:
    found = operator(f"{DELTAS}merge_method: task_arithmetic\nparameters: {{weight: 0.5, lambda: 0.7}}\n")
    assert (found["operator"], found["densities"], found["gammas"], found["elect"], found["scale"]) == (
        "breadcrumbs/1", [1.0, 1.0], [0.0, 0.0], False, 0.7,
    )  # fmt: skip


REFUSALS = {
    "no-yaml": ("models: [", UsageError, "yaml", 1),
    "empty": ("# nothing\n", UsageError, "empty", 1),
    "list": ("- a\n", UsageError, "type", 1),
    "documents": (f"{WEIGHED}---\n{WEIGHED}", UsageError, "documents", 3),
    "anchor": ("merge_method: &m linear\n", UsageError, "alias", 1),
    "alias": ("a: 1\nmodels: *m\n", UsageError, "alias", 2),
    "tag": ("merge_method: !!python/name:os.system linear\n", UsageError, "tag", 1),
    "merge-key": ("<<: {a: 1}\n", UsageError, "key", 1),
    "twice": (f"{WEIGHED}merge_method: slerp\n", UsageError, "twice", 3),
    "deep": ("a: " + "[" * 40 + "]" * 40 + "\n", UsageError, "size", 1),
    "escape": ('a: "\\UFFFFFFFF"\n', UsageError, "yaml", 1),
    "unknown-key": (f"{WEIGHED}nonsense: 1\n", UsageError, "unknown", 3),
    "no-inputs": ("merge_method: linear\n", UsageError, "inputs", 1),
    "both": (f"{WEIGHED}slices: []\n", UsageError, "inputs", 1),
    "no-method": (PAIR, UsageError, "method", 1),
    "unknown-method": (f"{PAIR}merge_method: magic\n", UsageError, "method", 2),
    "karcher": (f"{PAIR}merge_method: karcher\n", OutsideAllowlist, "method", 2),
    "nuslerp": (f"{PAIR}merge_method: nuslerp\n", OutsideAllowlist, "method", 2),
    "no-base": (f"{PAIR}merge_method: ties\nparameters: {{weight: 1}}\n", UsageError, "base", 1),
    "same-model": ("models: [{model: a}, {model: a}]\nmerge_method: linear\n", UsageError, "twice", 1),
    "one-model": ("models: [{model: a, parameters: {weight: 1}}]\nmerge_method: linear\n", UsageError, "inputs", 1),
    "three-for-slerp": (f"{DELTAS}merge_method: slerp\nparameters: {{t: 0.5}}\n", UsageError, "inputs", 2),
    "two-for-nearswap": (f"{DELTAS}merge_method: nearswap\nparameters: {{t: 0.5}}\n", UsageError, "inputs", 2),
    "stray-parameter": (f"{WEIGHED}parameters: {{density: 0.5}}\n", UsageError, "parameter", 3),
    "shared-in-input": (
        "base_model: base\nmodels:\n- model: a\n  parameters: {t: 0.5}\nmerge_method: slerp\n", UsageError, "parameter", 4,
    ),
    "no-weight": (f"{PAIR}merge_method: linear\n", UsageError, "missing", 1),
    "null": (f"{TIES}".replace("weight: 1", "weight: null"), UsageError, "missing", 4),
    "only-filters": (
        f"{DELTAS}merge_method: ties\nparameters: {{weight: [{{filter: mlp, value: 1}}]}}\n", UsageError, "missing", 2,
    ),
    "text-weight": (f"{TIES}".replace("weight: 1", "weight: much"), UsageError, "number", 4),
    "long-filter": (f"{TIES}".replace("weight: 1", "weight: {filter: a b, value: 1}"), UsageError, "filter", 4),
    "slice-filters": (
        "slices:\n- sources: [{model: base, layer_range: [0, 1]}, {model: a, layer_range: [0, 1]}]\n"
        "- sources: [{model: base, layer_range: [0, 1]}, {model: a, layer_range: [0, 1]}]\n"
        "  parameters: {t: [{filter: mlp, value: 1}, {value: 0}]}\n"
        "base_model: base\nmerge_method: slerp\nparameters: {t: 0.5}\n", OutsideAllowlist, "slice-filters", 3,
    ),
    "infinite": (f"{TIES}".replace("weight: 1", "weight: .inf"), UsageError, "number", 4),
    "mixed-list": (f"{TIES}".replace("weight: 1", "weight: [1, {value: 2}]"), UsageError, "type", 4),
    "flag-word": (f"{TIES}".replace("weight: 1", "weight: 1, normalize: maybe"), UsageError, "flag", 4),
    "flag-gradient": (f"{TIES}".replace("weight: 1", "weight: 1, normalize: [1, 0]"), OutsideAllowlist, "gradient", 4),
    "ties-rescale": (f"{TIES}".replace("weight: 1", "weight: 1, rescale: true"), OutsideAllowlist, "parameter", 3),
    "idle-density": (
        f"{DELTAS}merge_method: task_arithmetic\nparameters: {{weight: 1, density: 0.5}}\n",
        OutsideAllowlist, "parameter", 3,
    ),
    "scale": (
        "slices: [{sources: [{model: a, layer_range: [0, 1], parameters: {scale: 0.5}}]}]\nmerge_method: passthrough\n",
        OutsideAllowlist, "scale", 2,
    ),
    "revision": ("models: [{model: a@v1}, {model: b}]\nmerge_method: linear\n", OutsideAllowlist, "revision", 1),
    "two-adapters": ("models: [{model: a+b+c}]\nmerge_method: passthrough\n", UsageError, "model", 1),
    "modules": ("modules: {text: {}}\nmerge_method: linear\n", OutsideAllowlist, "modules", 1),
    "template": (f"{WEIGHED}chat_template: chatml\n", OutsideAllowlist, "chat-template", 3),
    "dtype": (f"{WEIGHED}dtype: float64\n", OutsideAllowlist, "dtype", 3),
    "wider-out": (f"{WEIGHED}dtype: bfloat16\nout_dtype: float32\n", OutsideAllowlist, "dtype", 3),
    "tokens": (f"{TIES}tokenizer: {{tokens: {{x: {{source: a}}}}}}\n", OutsideAllowlist, "tokens", 5),
    "two-tokenizers": (f"{TIES}tokenizer: {{source: base}}\ntokenizer_source: base\n", UsageError, "tokenizer", 6),
    "foreign-tokenizer": (f"{TIES}tokenizer_source: a\n", OutsideAllowlist, "tokenizer", 5),
    "stranger-tokenizer": (f"{TIES}tokenizer_source: x\n", OutsideAllowlist, "tokenizer", 5),
    "multiple": (f"{TIES}tokenizer: {{pad_to_multiple_of: 0}}\n", UsageError, "number", 5),
    "range": (
        "slices: [{sources: [{model: a, layer_range: [3, 3]}]}]\nmerge_method: passthrough\n", UsageError, "layers", 1,
    ),
    "uneven": (
        "slices:\n- sources: [{model: a, layer_range: [0, 2]}, {model: b, layer_range: [0, 1]}]\nmerge_method: linear\n",
        UsageError, "layers", 2,
    ),
    "residual": (
        "slices:\n- sources: [{model: a, layer_range: [0, 2]}]\n  residual_weight: 1\nmerge_method: linear\n",
        OutsideAllowlist, "residual", 3,
    ),
    "slice-base": (
        "slices:\n- sources: [{model: a, layer_range: [0, 2]}]\n  base_model: b\nmerge_method: linear\n",
        OutsideAllowlist, "slice-base", 3,
    ),
    "numbered-filter": (
        "slices:\n- sources: [{model: a, layer_range: [1, 2], parameters: {weight: [{filter: layers.1, value: 1}, "
        "{value: 0}]}}, {model: b, layer_range: [1, 2], parameters: {weight: 1}}]\nmerge_method: linear\n",
        OutsideAllowlist, "filter", 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "kind", "rule", "line"), REFUSALS.values(), ids=REFUSALS)
def test_a_file_that_cannot_be_said_here_is_refused_at_its_line(
    text: str, kind: type[StudbookError], rule: str, line: int
) -> None:
    with pytest.raises(kind) as caught:
        read(text)
    assert type(caught.value) is kind
    assert caught.value.reason == f"mergekit.{rule}"
    assert caught.value.where.startswith(f"file.yml:{line}"), caught.value.where
    assert caught.value.advice


def test_a_file_that_unfolds_to_millions_is_refused_at_once() -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
    for text in (bomb, "a: [" + "1, " * 60_000 + "]\n", "x" * (1 << 20) + ": 1\n"):
        with pytest.raises(UsageError):
            read(text)


LINES = sorted({line for path in EXAMPLES.glob("*.yml") for line in path.read_text().splitlines()})


@given(st.one_of(st.text(max_size=200), st.lists(st.sampled_from(LINES), max_size=20).map("\n".join)))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_recipe_or_a_typed_refusal(text: str) -> None:
    try:
        found = read(text)
    except StudbookError as error:
        assert error.reason.startswith("mergekit.")
        assert error.where.startswith("file.yml:")
    else:
        assert found["parents"]


SCALARS = st.one_of(
    st.integers(-9, 9), st.floats(-2, 2), st.booleans(), st.none(), st.sampled_from(["a", "union", "1e-3"])
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from(["model", "parameters", "weight", "filter", "value", "sources", "layer_range", "t"]), inner, max_size=3
), max_leaves=8)  # fmt: skip
KEYS = ("models", "slices", "base_model", "parameters", "dtype", "tokenizer", "tokenizer_source", "merge_method")


METHODS = st.sampled_from(["linear", "slerp", "ties", "passthrough"])


@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5), METHODS)
@settings(max_examples=300, deadline=None)
def test_any_structure_is_a_recipe_or_a_typed_refusal(fields: dict[str, Any], method: str) -> None:
    yaml = pytest.importorskip("yaml")
    try:
        read(yaml.safe_dump({"merge_method": method, **fields}))
    except StudbookError as error:
        assert error.reason.startswith("mergekit.")


@given(st.lists(st.floats(-2, 2), min_size=1, max_size=6), st.integers(1, 9))
def test_slices_of_constants_give_every_layer_its_own_value(values: list[float], layers: int) -> None:
    pieces = "".join(
        f"- {{sources: [{{model: base, layer_range: [0, {layers}]}}, {{model: a, layer_range: [0, {layers}]}}],"
        f" parameters: {{weight: {value!r}}}}}\n"
        for value in values
    )
    found = operator(f"slices:\n{pieces}base_model: base\nmerge_method: task_arithmetic\n")
    if len(set(values)) == 1:
        assert found["scales"] == values[:1]
    else:
        assert found["rules"][-1]["values"] == [value for value in values for _ in range(layers)]
        behind = [rule["values"] for rule in found["rules"][:-1]]
        assert behind == ([[values[-1]]] * 2 if values[-1] != values[0] else [])
