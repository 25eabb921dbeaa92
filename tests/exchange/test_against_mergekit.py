"""The same merge files given to mergekit and to Studbook on the same checkpoints: how near the two come."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from checkpoint_fixtures import bf16, read_llama
from exchange.llamas import family, run_peer, vocabulary
from studbook.breeding.checkpoint_recipe import decode_recipe
from studbook.breeding.checkpoint_sources import Opened, open_recipe
from studbook.breeding.operators.run import compute
from studbook.exchange import read_mergekit
from studbook.models.checkpoint import open_checkpoint
from studbook.models.checkpoint_folder import list_folder

pytestmark = pytest.mark.train
pytest.importorskip("mergekit")

Tensors = dict[str, NDArray[np.float32]]
SEED = 11
DELTAS = """
models:
  - model: M/maths
    parameters: {weight: 0.7}
  - model: M/code
    parameters: {weight: 0.45}
base_model: M/base
dtype: float32
"""
SOURCES = "sources: [{model: M/base, layer_range: [0, 4]}, {model: M/maths, layer_range: [0, 4]}]"
FILES = {
    "linear": """
models:
  - model: M/maths
    parameters: {weight: 0.7}
  - model: M/code
    parameters: {weight: 0.3}
merge_method: linear
dtype: float32
""",
    "linear-thirds": """
models: [{model: M/maths}, {model: M/code}, {model: M/base}]
merge_method: linear
parameters: {weight: 1}
dtype: float32
""",
    "task-arithmetic": f"{DELTAS}merge_method: task_arithmetic\n",
    "task-arithmetic-scaled": f"{DELTAS}merge_method: task_arithmetic\nparameters: {{lambda: 0.6, normalize: true}}\n",
    "task-arithmetic-gradient": f"""{DELTAS}
merge_method: task_arithmetic
""".replace("weight: 0.45", "weight: [{filter: mlp, value: [0.1, 0.9]}, {value: [0.25, 0.5, 1]}]"),
    "slerp": f"""
slices: [{{{SOURCES}}}]
merge_method: slerp
base_model: M/base
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.4
dtype: float32
out_dtype: bfloat16
""",
    "task-arithmetic-slices": """
slices:
  - sources:
      - {model: M/base, layer_range: [0, 3]}
      - {model: M/maths, layer_range: [0, 3]}
      - {model: M/code, layer_range: [1, 4]}
    parameters: {weight: [0.2, 0.9]}
  - sources:
      - {model: M/base, layer_range: [3, 4]}
      - {model: M/code, layer_range: [3, 4], parameters: {weight: 0.7}}
      - {model: M/maths, layer_range: [2, 3]}
base_model: M/base
merge_method: task_arithmetic
parameters: {weight: [0.1, 0.35]}
dtype: float32
""",
    "ties": f"{DELTAS}merge_method: ties\nparameters: {{density: 0.4}}\n",
    "ties-sum": f"{DELTAS}merge_method: ties\nparameters: {{density: 1, normalize: false, lambda: 0.8}}\n",
    "breadcrumbs": f"{DELTAS}merge_method: breadcrumbs\nparameters: {{density: 0.9, gamma: 0.05}}\n",
    "dare-ties": f"{DELTAS}merge_method: dare_ties\nparameters: {{density: 0.5}}\n",
    "dare-linear": """
models: [{model: M/maths, parameters: {weight: 1}}]
base_model: M/base
merge_method: dare_linear
parameters: {density: 0.4}
dtype: float32
""",
    "model-stock": """
models: [{model: M/maths}, {model: M/code}]
base_model: M/base
merge_method: model_stock
dtype: float32
""",
    "nearswap": """
models: [{model: M/maths}]
base_model: M/base
merge_method: nearswap
parameters: {t: 0.004}
dtype: float32
""",
    "multislerp": """
models: [{model: M/maths}, {model: M/code}]
merge_method: multislerp
parameters: {weight: 1}
dtype: float32
""",
    "passthrough": """
slices:
  - sources: [{model: M/maths, layer_range: [0, 3]}]
  - sources: [{model: M/code, layer_range: [1, 4]}]
merge_method: passthrough
""",
    "union": """
models: [{model: M/poems, parameters: {weight: 0.5}}, {model: M/songs, parameters: {weight: 0.25}}]
base_model: M/base
merge_method: task_arithmetic
tokenizer_source: union
dtype: float32
""",
}


@dataclass(frozen=True)
class Pair:
    """One file's results."""

    theirs: Tensors
    ours: Tensors
    folder: Path
    opened: Opened

    def stored(self, name: str) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
        """Both rounded to bf16, as bits."""
        return bf16(self.theirs[name]), bf16(self.ours[name])


class Both:
    """Runs every file through mergekit once, and through Studbook when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.models = family(folder / "models")
        self.texts = {name: text.replace("M/", f"{self.models}/") for name, text in FILES.items()}
        (folder / "peer").mkdir()
        self.folders = run_peer(self.texts, folder / "peer")

    def __call__(self, name: str) -> Pair:
        opened = self.open(name)
        ours = compute(opened.operator, opened.inputs, threads=2)
        return Pair(read_llama(self.folders[name]), dict(ours), self.folders[name], opened)

    def open(self, name: str) -> Opened:
        plain = read_mergekit(self.texts[name], f"{name}.yml", lambda name: sorted(read_llama(Path(name))), seed=SEED)
        digests = {str(p): open_checkpoint(list_folder(p)).sha256 for p in self.models.iterdir()}

        def named(value: object) -> object:
            if isinstance(value, dict):
                return {k: named(v) for k, v in value.items()}
            if isinstance(value, list):
                return [named(v) for v in value]
            return digests.get(value, value) if isinstance(value, str) else value

        fields = {"recipe": "checkpoint-recipe/1", "shard_bytes": 1 << 30, **plain}
        recipe = decode_recipe(named(fields))  # type: ignore[arg-type]
        return open_recipe(recipe, {digests[str(p)]: list_folder(p) for p in self.models.iterdir()})

    def delta(self, model: str) -> Tensors:
        start = read_llama(self.models / "base")
        return {n: v - start[n] for n, v in read_llama(self.models / model).items()}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    return Both(tmp_path_factory.mktemp("peer"))


def share(pair: Pair, apart: int) -> float:
    """Share of the elements whose bf16 values are at most this many steps apart."""
    near = total = 0
    for name in pair.theirs:
        a, b = (ordered(bits) for bits in pair.stored(name))
        near += int(np.count_nonzero(np.abs(a - b) <= apart))
        total += a.size
    return near / total


def ordered(bits: NDArray[np.uint16]) -> NDArray[np.int64]:
    """bf16 bits as integers in the order of their values."""
    wide = bits.astype(np.int64)
    return np.where(wide & 0x8000, 0x8000 - wide, wide)


@pytest.mark.parametrize(
    "name",
    [
        "linear",
        "linear-thirds",
        "task-arithmetic",
        "task-arithmetic-scaled",
        "task-arithmetic-gradient",
        "task-arithmetic-slices",
        "ties-sum",
        "passthrough",
    ],
)
def test_methods_of_plain_arithmetic_give_the_same_bytes(both: Both, name: str) -> None:
    pair = both(name)
    assert pair.ours.keys() == pair.theirs.keys()
    for tensor, theirs in pair.theirs.items():
        assert np.array_equal(theirs.view(np.uint32), pair.ours[tensor].view(np.uint32)), tensor


def test_a_merge_does_something(both: Both) -> None:
    start = read_llama(both.models / "base")
    for name in set(FILES) - {"passthrough", "union"}:
        found = read_llama(both.folders[name])
        assert any(not np.array_equal(found[n], start[n]) for n in start), name


@pytest.mark.parametrize("name", ["slerp", "multislerp", "model-stock", "nearswap"])
def test_methods_with_angles_and_quotients_are_within_one_step_of_bf16(both: Both, name: str) -> None:
    pair = both(name)
    assert share(pair, 0) >= 0.99
    assert share(pair, 1) == 1.0


@pytest.mark.parametrize(("name", "densities"), [("ties", (0.4,)), ("breadcrumbs", (0.95, 0.05))])
def test_sparse_merges_differ_only_where_magnitudes_tie(both: Both, name: str, densities: tuple[float, ...]) -> None:
    pair = both(name)
    assert share(pair, 1) >= 0.99
    deltas = [both.delta(model) for model in ("maths", "code")]
    for tensor, theirs in pair.theirs.items():
        tied = np.zeros(theirs.shape, bool)
        for delta in deltas:
            size = np.abs(delta[tensor])
            ranked = np.sort(size.reshape(-1))[::-1]
            for density in densities:
                edge = ranked[max(1, int(density * size.size)) - 1]
                tied |= size == edge
        same = theirs.view(np.uint32) == pair.ours[tensor].view(np.uint32)
        assert np.all(same | tied), tensor


def test_dare_keeps_the_same_share_and_the_same_mean(both: Both) -> None:
    pair, delta, start = both("dare-linear"), both.delta("maths"), read_llama(both.models / "base")
    found = {}
    for who, tensors in (("theirs", pair.theirs), ("ours", pair.ours)):
        moved = np.concatenate([(tensors[n] - start[n]).reshape(-1) for n in sorted(delta)])
        whole = np.concatenate([delta[n].reshape(-1) for n in sorted(delta)])
        kept = np.count_nonzero(moved[whole != 0]) / np.count_nonzero(whole)
        found[who] = (kept, float(np.dot(moved, whole) / np.dot(whole, whole)))
    n = sum(v.size for v in delta.values())
    # Four standard errors of a share of .4, and of a mean of kept changes divided by it.
    assert abs(found["theirs"][0] - found["ours"][0]) < 4 * (2 * 0.4 * 0.6 / n) ** 0.5
    assert found["theirs"][1] == pytest.approx(1.0, abs=0.05)
    assert found["ours"][1] == pytest.approx(1.0, abs=0.05)


def test_dare_with_a_vote_moves_the_model_as_far(both: Both) -> None:
    pair, start = both("dare-ties"), read_llama(both.models / "base")
    lengths = [
        np.sqrt(sum(float(np.sum((tensors[n].astype(np.float64) - start[n]) ** 2)) for n in start))
        for tensors in (pair.theirs, pair.ours)
    ]
    assert lengths[0] == pytest.approx(lengths[1], rel=0.05)


def test_layers_are_stacked_in_the_order_of_the_file(both: Both) -> None:
    pair = both("passthrough")
    code = read_llama(both.models / "code")
    assert np.array_equal(pair.ours["model.layers.3.mlp.up_proj.weight"], code["model.layers.1.mlp.up_proj.weight"])
    assert len([n for n in pair.ours if n.endswith("up_proj.weight")]) == 6


def test_a_union_gives_every_token_the_same_row(both: Both) -> None:
    pair = both("union")
    assert pair.opened.vocabulary is not None
    theirs, ours = vocabulary(pair.folder), pair.opened.vocabulary.vocab
    assert theirs.keys() == ours.keys()
    assert {"rose", "violet", "verse"} < ours.keys()
    for tensor, found in pair.theirs.items():
        if found.shape[0] != len(theirs):
            assert np.array_equal(found.view(np.uint32), pair.ours[tensor].view(np.uint32)), tensor
            continue
        for token in theirs:
            a, b = found[theirs[token]], pair.ours[tensor][ours[token]]
            assert np.array_equal(a.view(np.uint32), b.view(np.uint32)), (tensor, token)
