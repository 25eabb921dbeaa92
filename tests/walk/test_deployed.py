"""What a deployment holds, opened through its link by the programs it is for."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from checkpoint_fixtures import read_llama, write_llama
from exchange.llama_cpp import ask
from lab_fixtures import PERSON, Place, founder
from studbook.lab import Lab
from studbook.lab.deploying import Wanted
from studbook.lab.deployment_folder import Head, Label, Placed, opened
from studbook.lab.export import model_files
from studbook.lab.hooks import Hook
from studbook.models.engine import Engine
from studbook.models.slm import parse_slm
from studbook.release import ALONE

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.train

NEW = 12
HOOK = """#!{python}
import sys
from gguf import GGUFReader
print(len(GGUFReader(sys.argv[1] + "/model.gguf").tensors), "tensors")
"""


@pytest.fixture
def lab(tmp_path: Path) -> Place:
    """A lab that was founded and holds nothing."""
    place = Place(tmp_path / "lab", tmp_path / "keys")
    Lab.init(place.path, PERSON, place.keys)
    return place


def test_llama_cpp_writes_what_the_champion_writes(lab: Place, tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text(HOOK.format(python=sys.executable))
    hook.chmod(0o755)
    with lab.open() as found:
        found.register(founder("base"))
        found.approve("base", PERSON)
        found.release("base", "champion", PERSON)
        deployed = found.deploy("champion", tmp_path / "out", Wanted(Hook(hook), gguf=True))
        model = parse_slm(found.desk.workspace.blob(found.desk.champion()))
        # Without GGUF it is another release.
        assert found.deploy("champion", tmp_path / "out").release != deployed.release
        found.deploy("champion", tmp_path / "out", Wanted(gguf=True))
    assert deployed.said == (f"{len(model.tensors)} tensors",)
    prompts = [model.tokenizer.encode(text, eos=False) for text in ("rev abcd>", "cap hello>")]
    path = tmp_path / "out" / "current" / "model.gguf"
    said = ask(path, model.shape.vocab_size, model.shape.max_context, prompts=prompts, new=NEW)
    data = next((tmp_path / "out" / "current").glob("*.slm")).read_bytes()
    with Engine(data) as engine:
        assert said.greedy == engine.generate(prompts, NEW)


def test_transformers_opens_a_checkpoint_through_the_link(lab: Place, tmp_path: Path) -> None:
    with lab.open() as found:
        found.register(write_llama(tmp_path / "tiny", 3), "tiny")
        artifact = found.desk.find_model("tiny")
        files = dict(model_files(found.desk, artifact))
        label = Label(
            lab=found.desk.workspace.root.lab,
            channel="champion",
            model=artifact,
            name="tiny",
            licence="Apache-2.0",
            deployment=ALONE,
            gguf=False,
            record=found.desk.entries()[-1].record,
            ledger=Head(entries=len(found.desk.entries()), root="0" * 64),
            files=tuple(Placed(path=p, sha256=f.name, size=f.stat().st_size) for p, f in sorted(files.items())),
        )
        with opened(tmp_path / "out", lab.path) as place:
            place.write(label, files, found.desk.progress)
            place.point(label.release)
            assert place.whole(label.release)
    current = tmp_path / "out" / "current"
    network = transformers.AutoModelForCausalLM.from_pretrained(current, local_files_only=True, dtype=torch.float32)
    assert transformers.AutoTokenizer.from_pretrained(current, local_files_only=True)("t1 t2")["input_ids"] == [1, 2]
    values = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    for name, expected in read_llama(tmp_path / "tiny").items():
        assert np.array_equal(values[name], expected), name
