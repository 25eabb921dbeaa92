from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from studbook.errors import BytesLie, ParentsDoNotFit, UsageError
from studbook.models import lowrank
from studbook.models.checkpoint import list_folder, parse_listing
from studbook.models.lowrank import fuse, fuse_reference
from studbook.models.peft import LoraView, read_peft
from studbook.models.safetensors_layout import TensorSpec, plan_shards
from studbook.models.safetensors_writer import write_shards
from studbook.tensors.sources import ArraySource
from studbook.tensors.storage import narrow, storage_of, widen

Arrays = dict[str, NDArray[Any]]
Build = Callable[..., dict[str, Path]]
Q = "model.layers.0.self_attn.q_proj.weight"
V = "model.layers.0.self_attn.v_proj.weight"
BASE_DIGEST = "b" * 64


def key(tensor: str, part: str) -> str:
    return f"base_model.model.{tensor.removesuffix('.weight')}.lora_{part}.weight"


def values(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def factors(rank: int = 2, v_rank: int | None = None) -> Arrays:
    other = v_rank or rank
    return {
        key(Q, "A"): values((rank, 6), 1), key(Q, "B"): values((5, rank), 2),
        key(V, "A"): values((other, 6), 3), key(V, "B"): values((3, other), 4),
    }  # fmt: skip


def base() -> ArraySource:
    tensors = {Q: values((5, 6), 5), V: values((3, 6), 6), "model.norm.weight": values((6,), 7)}
    return ArraySource(BASE_DIGEST, {name: narrow(tensor, "bf16") for name, tensor in tensors.items()})


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Writes a LoRA folder and gives its files."""

    def make(arrays: Mapping[str, NDArray[Any]] | None = None, **fields: Any) -> dict[str, Path]:
        folder = tmp_path / "adapter"
        found = factors() if arrays is None else arrays
        specs = [TensorSpec(n, storage_of(a), a.shape) for n, a in found.items()]

        def compute(sink: Any) -> None:
            for name in sink.names:
                raw = found[name].reshape(-1)
                sink.put(name, 0, raw)
                sink.passed(name, 0, raw)

        write_shards(plan_shards(specs, 1 << 30), compute, folder, "0" * 64)
        (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "base_model_name_or_path": "some/base"} | fields
        (folder / "adapter_config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))
        return list_folder(folder)

    return make


def rank_loop(
    w: NDArray[np.float32], left: NDArray[np.float32], right: NDArray[np.float32], scale: float
) -> NDArray[np.float32]:
    """One element at a time, in Python's own floats."""
    out = np.empty_like(w)
    for row, column in np.ndindex(w.shape):
        total = 0.0
        for k in range(left.shape[1]):
            total += float(left[row, k]) * float(right[k, column])
        out[row, column] = np.float32(float(w[row, column]) + scale * total)
    return out


def test_a_view_adds_the_product_rank_by_rank(build: Build) -> None:
    source, adapter = base(), read_peft(build())
    view = LoraView(source, adapter)
    made = factors()
    for name in (Q, V):
        shape = source.dims(name)
        expected = rank_loop(source.flat(name).reshape(shape), made[key(name, "B")], made[key(name, "A")], 3 / 2)
        assert view.storage(name) == "f32"
        assert np.array_equal(view.flat(name).view(np.uint32), expected.reshape(-1).view(np.uint32))
    assert view.names == source.names
    assert view.dims(V) == (3, 6)


def test_the_sum_is_the_exact_one_within_its_rounding(build: Build) -> None:
    view, made = LoraView(base(), read_peft(build())), factors()
    w = base().flat(Q).reshape(5, 6)
    for row, column in np.ndindex(5, 6):
        a, b = made[key(Q, "A")][:, column], made[key(Q, "B")][row]
        exact = Fraction(float(w[row, column])) + Fraction(3, 2) * sum(
            Fraction(float(x)) * Fraction(float(y)) for x, y in zip(a, b, strict=True)
        )
        found = float(view.flat(Q).reshape(5, 6)[row, column])
        assert abs(Fraction(found) - exact) <= Fraction(float(np.spacing(np.float32(abs(found)))))


def test_tensors_that_are_not_changed_pass_through_as_they_are_stored(build: Build) -> None:
    source, view = base(), LoraView(base(), read_peft(build()))
    name = "model.norm.weight"
    assert view.storage(name) == "bf16"
    ours, theirs = np.empty(4, np.uint16), np.empty(4, np.uint16)
    view.fill(name, 1, ours)
    source.fill(name, 1, theirs)
    assert np.array_equal(ours, theirs)


def test_any_range_of_a_view_is_that_range_of_the_whole(build: Build) -> None:
    view = LoraView(base(), read_peft(build()))
    whole = view.flat(Q).copy()
    for start in range(30):
        for stop in range(start, 31):
            assert np.array_equal(view.read(Q, start, stop), whole[start:stop])


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 9), columns=st.integers(1, 9), rank=st.integers(1, 5), seed=st.integers(0, 99), data=st.data(),
    scale=st.floats(-4, 4),
)  # fmt: skip
def test_compiled_and_plain_fusion_are_the_rank_loop(
    rows: int, columns: int, rank: int, seed: int, scale: float, data: st.DataObject
) -> None:
    w, left, right = values((rows, columns), seed), values((rows, rank), seed + 1), values((rank, columns), seed + 2)
    start = data.draw(st.integers(0, w.size - 1))
    stop = data.draw(st.integers(start + 1, w.size))
    expected = rank_loop(w, left, right, scale).reshape(-1)[start:stop]
    for function in (fuse, fuse_reference):
        out = np.empty(stop - start, np.float32)
        function(w.reshape(-1)[start:stop], start, left, right, scale, out)
        assert np.array_equal(out.view(np.uint32), expected.view(np.uint32))


def test_fusion_goes_over_blocks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    w, left, right = values((50, 7), 1), values((50, 3), 2), values((3, 7), 3)
    monkeypatch.setattr(lowrank, "_BLOCK", 20)
    out = np.empty(w.size - 8, np.float32)
    fuse_reference(w.reshape(-1)[3:-5], 3, left, right, 0.5, out)
    assert np.array_equal(out, rank_loop(w, left, right, 0.5).reshape(-1)[3:-5])


def test_fused_values_beyond_f32_become_infinite_and_are_found_later() -> None:
    big = np.full((1, 1), 3e38, np.float32)
    for function in (fuse, fuse_reference):
        out = np.empty(1, np.float32)
        function(big.reshape(-1), 0, big, np.ones((1, 1), np.float32), 1.0, out)
        assert math.isinf(out[0])


PLAIN = """
import sys
sys.modules["numba"] = None
import numpy as np
from studbook.models import lowrank
assert lowrank.njit is None
random = np.random.default_rng(5)
w, left, right = (random.standard_normal(s).astype(np.float32) for s in ((40, 30), (40, 8), (8, 30)))
out = np.empty(w.size, np.float32)
lowrank.fuse(w.reshape(-1), 0, left, right, 0.3, out)
print(out.tobytes().hex())
"""


def test_without_a_compiler_the_bytes_are_the_same() -> None:
    run = subprocess.run([sys.executable, "-c", PLAIN], capture_output=True, text=True, check=True)
    random = np.random.default_rng(5)
    w, left, right = (random.standard_normal(s).astype(np.float32) for s in ((40, 30), (40, 8), (8, 30)))
    out = np.empty(w.size, np.float32)
    fuse(w.reshape(-1), 0, left, right, 0.3, out)
    assert run.stdout.strip() == out.tobytes().hex()


def test_where_no_folder_can_be_written_the_kernel_is_compiled_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    real = lowrank.njit

    def stubborn(**options: bool) -> object:
        if options.get("cache"):
            raise RuntimeError("no locator available")
        return real(**options)

    monkeypatch.setattr(lowrank, "njit", stubborn)
    compiled = lowrank._compiled()
    w, left, right = values((3, 4), 1), values((3, 2), 2), values((2, 4), 3)
    out = np.empty(12, np.float32)
    compiled(w.reshape(-1), np.int64(0), left, right, np.float64(0.5), out)
    assert np.array_equal(out, rank_loop(w, left, right, 0.5).reshape(-1))


def test_an_adapter_states_what_it_is(build: Build) -> None:
    files = build()
    adapter = read_peft(files)
    assert adapter.names == (Q, V)
    assert adapter.ranks() == {Q: 2, V: 2}
    assert adapter.base_name == "some/base"
    assert adapter.scale(Q) == 1.5
    assert [e.path for e in parse_listing(adapter.manifest)] == sorted(files)
    assert read_peft(files, adapter.sha256).sha256 == adapter.sha256
    assert read_peft(files, "a" * 64).sha256 == "a" * 64


def test_the_view_s_digest_is_of_base_and_adapter(build: Build) -> None:
    adapter = read_peft(build(), "a" * 64)
    other = read_peft(build(), "c" * 64)
    one = LoraView(base(), adapter).sha256
    tensors = {name: base().flat(name).reshape(base().dims(name)) for name in base().names}
    assert len({one, LoraView(base(), other).sha256, LoraView(ArraySource("a" * 64, tensors), adapter).sha256}) == 3


@pytest.mark.parametrize(
    ("fields", "scale"),
    [
        ({}, 3 / 2), ({"use_rslora": True}, 3 / math.sqrt(2)), ({"lora_alpha": 0.5}, 0.25), ({"lora_alpha": ...}, 4.0),
        ({"alpha_pattern": {"q_proj": 7}}, 3.5), ({"alpha_pattern": {"self_attn.q_proj": 7, "q_proj": 9}}, 3.5),
        ({"alpha_pattern": {"_proj": 7, "v_proj": 9}}, 1.5), ({"alpha_pattern": {"^q_proj": 7}}, 1.5),
        ({"alpha_pattern": {"^model.layers.0.self_attn.q_proj": 7}}, 3.5), ({"alpha_pattern": None}, 1.5),
    ],
)  # fmt: skip
def test_the_scale_follows_alpha_rank_and_patterns(build: Build, fields: dict[str, Any], scale: float) -> None:
    assert read_peft(build(**fields)).scale(Q) == scale


def test_patterns_give_single_modules_another_rank(build: Build) -> None:
    adapter = read_peft(build(factors(v_rank=4), rank_pattern={"v_proj": 4}))
    assert adapter.ranks() == {Q: 2, V: 4}
    assert (adapter.scale(Q), adapter.scale(V)) == (1.5, 0.75)


@pytest.mark.parametrize("storage", ["f16", "bf16"])
def test_factors_of_sixteen_bits_are_widened_exactly(build: Build, storage: Any) -> None:
    narrowed = {name: narrow(array, storage) for name, array in factors().items()}
    view = LoraView(base(), read_peft(build(narrowed)))
    left, right = widen(narrowed[key(Q, "B")]), widen(narrowed[key(Q, "A")])
    expected = rank_loop(base().flat(Q).reshape(5, 6), left, right, 1.5)
    assert np.array_equal(view.flat(Q), expected.reshape(-1))


def test_matrices_with_inputs_as_rows_get_the_transposed_product(build: Build) -> None:
    made = factors()
    source = ArraySource(BASE_DIGEST, {Q: values((6, 5), 5), V: values((6, 3), 6)})
    view = LoraView(source, read_peft(build(made, fan_in_fan_out=True)))
    expected = rank_loop(source.flat(Q).reshape(6, 5), made[key(Q, "A")].T, made[key(Q, "B")].T, 1.5)
    assert np.array_equal(view.flat(Q), expected.reshape(-1))


def test_embeddings_get_the_transposed_product(build: Build) -> None:
    name = "model.embed_tokens"
    a, b = values((2, 9), 1), values((4, 2), 2)
    made = {f"base_model.model.{name}.lora_embedding_A": a, f"base_model.model.{name}.lora_embedding_B": b}
    source = ArraySource(BASE_DIGEST, {f"{name}.weight": values((9, 4), 5)})
    view = LoraView(source, read_peft(build(made)))
    expected = rank_loop(source.flat(f"{name}.weight").reshape(9, 4), a.T, b.T, 1.5)
    assert np.array_equal(view.flat(f"{name}.weight"), expected.reshape(-1))


def changed(**arrays: NDArray[Any] | None) -> Arrays:
    names = {"qa": key(Q, "A"), "qb": key(Q, "B"), "va": key(V, "A"), "vb": key(V, "B")}
    found = factors() | {names[k]: a for k, a in arrays.items() if a is not None}
    return {n: a for n, a in found.items() if n not in {names[k] for k, a in arrays.items() if a is None}}


EMBEDDING = key(Q, "A").replace("lora_A.weight", "lora_embedding_A")
NAN = np.array([[np.nan, 0], [0, 0], [0, 0]], np.float32)
BAD_TENSORS: list[tuple[str, Arrays, type[Exception], str]] = [
    ("A without B", changed(qb=None), BytesLie, "peft.pair"),
    ("B without A", changed(qa=None), BytesLie, "peft.pair"),
    ("rank of A differs", changed(qa=values((3, 6), 1)), BytesLie, "peft.rank"),
    ("rank of B differs", changed(qb=values((5, 3), 1)), BytesLie, "peft.rank"),
    ("rank of both is not r", changed(qa=values((3, 6), 1), qb=values((5, 3), 1)), BytesLie, "peft.rank"),
    ("NaN", changed(vb=NAN), BytesLie, "peft.non-finite"),
    ("infinity in bf16", changed(vb=narrow(np.full((3, 2), np.inf, np.float32), "bf16")), BytesLie, "peft.non-finite"),
    ("convolution", changed(qa=values((2, 6, 1, 1), 1)), UsageError, "peft.shape"),
    ("saved module", factors() | {"base_model.model.lm_head.weight": values((2, 2), 1)}, UsageError, "peft.tensor"),
    ("DoRA vector", factors() | {key(Q, "magnitude_vector"): values((5,), 1)}, UsageError, "peft.tensor"),
    ("bias", factors() | {key(Q, "B").replace("weight", "bias"): values((5,), 1)}, UsageError, "peft.tensor"),
    ("another prefix", {n.replace("base_model.", ""): a for n, a in factors().items()}, UsageError, "peft.tensor"),
    ("no module", {"base_model.model..lora_A.weight": values((2, 2), 1)}, UsageError, "peft.tensor"),
    ("layer and embedding of one name", factors() | {EMBEDDING: values((2, 6), 1)}, BytesLie, "peft.twice"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arrays", "kind", "reason"), BAD_TENSORS, ids=[b[0] for b in BAD_TENSORS])
def test_tensors_that_are_no_plain_lora_are_refused(
    build: Build, name: str, arrays: Arrays, kind: type[Exception], reason: str
) -> None:
    with pytest.raises(kind) as caught:
        read_peft(build(arrays))
    assert caught.value.reason == reason  # type: ignore[attr-defined]
    assert "adapter_model.safetensors: " in caught.value.where  # type: ignore[attr-defined]


BAD_CONFIG: list[tuple[str, Any, type[Exception]]] = [
    ("peft_type", "ADALORA", UsageError), ("peft_type", ..., UsageError), ("use_dora", True, UsageError),
    ("modules_to_save", ["lm_head"], UsageError), ("bias", "all", UsageError), ("bias", "lora_only", UsageError),
    ("lora_bias", True, UsageError), ("use_qalora", True, UsageError), ("target_parameters", ["x"], UsageError),
    ("trainable_token_indices", [1], UsageError), ("layer_replication", [[0, 2]], UsageError),
    ("alora_invocation_tokens", [1], UsageError), ("a_field_of_tomorrow", {"x": 1}, UsageError),
    ("init_lora_weights", "pissa", UsageError), ("init_lora_weights", "olora", UsageError),
    ("init_lora_weights", 1, UsageError), ("init_lora_weights", [], UsageError),
    ("r", 0, BytesLie), ("r", "2", BytesLie), ("r", True, BytesLie), ("r", 2.0, BytesLie), ("r", 10**9, BytesLie),
    ("lora_alpha", "3", BytesLie), ("lora_alpha", True, BytesLie), ("lora_alpha", None, BytesLie),
    ("lora_alpha", 10**400, BytesLie), ("use_rslora", "yes", BytesLie), ("fan_in_fan_out", 1, BytesLie),
    ("rank_pattern", [1], BytesLie), ("rank_pattern", {"q_proj": 0}, BytesLie),
    ("rank_pattern", {"(a+)+$": 2}, UsageError), ("alpha_pattern", {"q_proj|v_proj": 2}, UsageError),
    ("alpha_pattern", {"q_proj": "2"}, BytesLie),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value", "kind"), BAD_CONFIG, ids=[f"{f}={str(v)[:20]}" for f, v, _ in BAD_CONFIG])
def test_a_config_that_asks_for_more_than_plain_lora_is_refused(
    build: Build, field: str, value: Any, kind: type[Exception]
) -> None:
    with pytest.raises(kind) as caught:
        read_peft(build(**{field: value}))
    assert f"adapter_config.json: field {field}" in caught.value.where  # type: ignore[attr-defined]


def test_fields_that_are_off_or_change_nothing_are_accepted(build: Build) -> None:
    fields = {
        "use_dora": False, "modules_to_save": None, "bias": "none", "layer_replication": None, "loftq_config": {},
        "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", "lora_dropout": 0.1, "a_field_of_tomorrow": None,
        "init_lora_weights": "gaussian", "rank_pattern": {}, "alpha_pattern": {}, "runtime_config": {"x": False},
    }  # fmt: skip
    assert read_peft(build(**fields)).names == (Q, V)


def test_a_config_that_is_not_strict_json_is_refused(build: Build) -> None:
    files = build()
    for text in ("", "[]", '{"r":1,"r":2}', '{"r":NaN}', "[" * 100_000):
        files["adapter_config.json"].write_text(text)
        with pytest.raises(BytesLie) as caught:
            read_peft(files)
        assert caught.value.reason == "peft.config"


def test_a_base_that_does_not_fit_is_refused_by_tensor(build: Build) -> None:
    adapter = read_peft(build())
    for tensors in ({Q: values((5, 6), 1)}, {Q: values((5, 6), 1), V: values((6, 3), 1)}):
        with pytest.raises(ParentsDoNotFit) as caught:
            LoraView(ArraySource(BASE_DIGEST, tensors), adapter)
        assert V in caught.value.where
        assert caught.value.reason == "peft.base"


def test_a_folder_without_one_of_the_two_files_is_refused(build: Build) -> None:
    files = build()
    for missing in files:
        with pytest.raises(UsageError):
            read_peft({p: f for p, f in files.items() if p != missing})


@pytest.mark.train
@pytest.mark.parametrize(
    "options", [{}, {"use_rslora": True}, {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {"q_proj": 3}}]
)
def test_a_view_is_what_peft_merges_within_rounding(tmp_path: Path, options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=False,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    tensors = {n: t.detach().numpy().copy() for n, t in model.state_dict().items()}
    lora = peft.LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj", "embed_tokens"], **options)
    with warnings.catch_warnings():
        # One of the two libraries warns about the other.
        warnings.simplefilter("ignore", FutureWarning)
        trained = peft.get_peft_model(model, lora)
    for name, parameter in trained.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    trained.save_pretrained(tmp_path, save_embedding_layers=False)
    merged = {n: t.detach().numpy() for n, t in trained.merge_and_unload().state_dict().items()}
    view = LoraView(ArraySource(BASE_DIGEST, tensors), read_peft(list_folder(tmp_path)))
    assert len(view.adapter.names) == 5
    for name in view.names:
        ours, theirs = view.flat(name), merged[name].reshape(-1)
        if name in view.adapter.names:
            assert not np.array_equal(ours, tensors[name].reshape(-1))
            assert np.abs(ours - theirs).max() < 1e-6
        else:
            assert np.array_equal(ours, theirs)
