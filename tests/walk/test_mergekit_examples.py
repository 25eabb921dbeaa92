"""Every shipped mergekit file runs unchanged through the lab: models, a LoRA, two vocabularies; and comes out again."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from checkpoint_fixtures import read_llama, safetensors_bytes
from studbook.lab import Lab

HERE = Path(__file__).resolve()
sys.path.append(str(HERE.parents[1] / "exchange"))

from llamas import HIDDEN, WORDS, vocabulary, write_llama  # noqa: E402

EXAMPLES = sorted((HERE.parents[2] / "examples" / "mergekit").glob("*.yml"))
PERSON = "ann"


def write_lora(folder: Path) -> Path:
    """A PEFT folder of rank 2 on every query projection."""
    rng = np.random.default_rng(9)
    tensors = {}
    for layer in range(4):
        stem = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        tensors[f"{stem}.lora_A.weight"] = ("F32", rng.standard_normal((2, HIDDEN)).astype(np.float32) * 0.1)
        tensors[f"{stem}.lora_B.weight"] = ("F32", rng.standard_normal((HIDDEN, 2)).astype(np.float32) * 0.1)
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(
        safetensors_bytes({n: (word, a.astype(np.float32)) for n, (word, a) in tensors.items()})
    )
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lab with the models that the examples name."""
    folder = tmp_path_factory.mktemp("examples")
    base = write_llama(folder / "base", 0)
    write_llama(folder / "maths", 1, base)
    write_llama(folder / "code", 2, base)
    write_lora(folder / "poems-lora")
    write_llama(folder / "union" / "maths", 3, base, words=(*WORDS, "rose", "violet"))
    write_llama(folder / "union" / "code", 4, base, words=(*WORDS, "violet", "verse"))
    for name, models in (("lab", folder), ("other", folder / "union")):
        Lab.init(folder / name, PERSON, folder / f"{name}-keys")
        with Lab(folder / name, folder / f"{name}-keys") as lab:
            for model in (base, models / "maths", models / "code", folder / "poems-lora"):
                lab.register(model, licence="MIT")
                lab.approve(model.name, PERSON)
    return folder


@pytest.fixture(params=EXAMPLES, ids=lambda p: p.stem)
def merged(request: pytest.FixtureRequest, home: Path, tmp_path: Path) -> Iterator[tuple[str, Lab, str, Path]]:
    """One example, bred and exported."""
    name = "other" if "union" in request.param.stem else "lab"
    for part in (name, f"{name}-keys"):
        shutil.copytree(home / part, tmp_path / part, ignore=shutil.ignore_patterns("cache"))
    with Lab(tmp_path / name, tmp_path / f"{name}-keys") as lab:
        text = request.param.read_text()
        seed = {"seed": 3} if "dare" in text else {}
        child = lab.breed(None, {"mergekit": text, "where": request.param.name, **seed})
        lab.export(child, tmp_path / "out")
        yield request.param.stem, lab, child, tmp_path / "out"


def test_an_example_is_bred_exported_and_reproduced(merged: tuple[str, Lab, str, Path], home: Path) -> None:
    stem, lab, child, out = merged
    config, found = json.loads((out / "config.json").read_bytes()), read_llama(out)
    layers = {int(n.split(".")[2]) for n in found if n.startswith("model.layers.")}
    assert config["num_hidden_layers"] == len(layers) == (6 if stem == "passthrough" else 4)
    assert config["vocab_size"] == found["model.embed_tokens.weight"].shape[0]
    assert all(np.isfinite(v).all() for v in found.values())
    if stem == "union-tokenizer":
        words = vocabulary(out)
        assert {"rose", "violet", "verse", *WORDS} == words.keys()
        assert config["vocab_size"] == 72
    assert lab.reproduce(child, threads=2, chunk=777) == child
    assert lab.verify().ok


@pytest.mark.train
def test_an_example_loads_in_transformers(merged: tuple[str, Lab, str, Path]) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    _, _, _, out = merged
    network = transformers.AutoModelForCausalLM.from_pretrained(out, local_files_only=True)
    with torch.no_grad():
        logits = network(torch.tensor([[1, 2, 3]])).logits
    assert torch.isfinite(logits).all()
    found = read_llama(out)
    for name, value in network.state_dict().items():
        assert np.array_equal(value.float().numpy(), found[name]), name
    tokenizer = transformers.AutoTokenizer.from_pretrained(out, local_files_only=True)
    assert tokenizer.convert_tokens_to_ids("t5") == 5
