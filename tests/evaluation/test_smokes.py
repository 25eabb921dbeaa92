"""The runtime smoke: what is on record is what the engine computes, in a worker and out of it, and nothing else."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab_fixtures import founder, shipped_items
from studbook.errors import DigestDiffers, OverBudget
from studbook.evaluation import generate_worker
from studbook.evaluation.costs import meter
from studbook.evaluation.redteam_models import broken_text, infinite_logits
from studbook.evaluation.scorecards import Subject, engine_memory, evaluator_sha256, smoke
from studbook.evaluation.smokes import spoken
from studbook.models.engine import ENGINE_SHA256, Engine
from studbook.models.forward import Forward
from studbook.models.slm import parse_slm, read_slm
from studbook.records import Header
from studbook.sandbox import Limits, run_worker

HEADER = Header(source="studbook", version="0.1.0", environment="test", owner="ada")
LIMITS = Limits(seconds=60, memory_bytes=2 << 30, file_bytes=1 << 20)
BASE = founder("base") / "base.slm"


# Under a limit of 64 MiB more addresses than it has, a program asks the engine for 512 MiB.
_CRAMPED = """
import re, resource, sys
from pathlib import Path
from studbook.errors import OverBudget
from studbook.models.engine import Engine, warm
warm()
package = bytes(512 << 20)
size = int(re.search(r"VmSize:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) << 10
resource.setrlimit(resource.RLIMIT_AS, (size + (64 << 20), size + (64 << 20)))
with Engine(Path(sys.argv[1]).read_bytes(), memory_limit=1 << 30, fuel=True) as engine:
    before = engine.logit_digest()
    try:
        engine.apply(package)
    except OverBudget as error:
        print(error.reason, engine.logit_digest() == before)
"""


def subject(data: bytes, folder: Path) -> Subject:
    path = folder / "model.slm"
    path.write_bytes(data)
    return Subject(hashlib.sha256(data).hexdigest(), path, parse_slm(data))


def generating(**more: Any) -> dict[str, Any]:
    job = {"model": str(BASE), "sha256": read_slm(BASE).sha256, "memory": engine_memory(LIMITS), "max_new_tokens": 8}
    return {**job, "prompts": [item["prompt"] for item in shipped_items("development", "rot")], **more}


def worked(folder: Path, limits: Limits = LIMITS, **more: Any) -> dict[str, Any]:
    return run_worker("studbook.evaluation.generate_worker", generating(**more), folder, limits, [BASE]).value


def test_a_smoke_names_the_engine_and_the_logits_that_it_computes_here_too(tmp_path: Path) -> None:
    (tmp_path / "worker").mkdir()
    record = smoke(HEADER, subject(BASE.read_bytes(), tmp_path), tmp_path / "worker", LIMITS)
    assert record.passed
    assert record.engine == ENGINE_SHA256
    assert record.evaluator == evaluator_sha256()
    assert record.logits is not None
    assert record.logits.positions == read_slm(BASE).shape.max_context - 1
    # In this process addresses are reserved and nothing is checked; in the worker every access is.
    with Engine(BASE.read_bytes(), fuel=True) as engine:
        here = spoken(engine)
        assert engine.logit_digest() == record.logits.sha256
    assert (here.logits, here.fuel) == (record.logits, record.fuel)


@pytest.mark.parametrize(("data", "passed"), [(broken_text(), True), (infinite_logits(), False)])
def test_a_model_whose_logits_are_not_finite_has_no_digest_of_them_and_does_not_pass(
    tmp_path: Path, data: bytes, passed: bool
) -> None:
    (tmp_path / "worker").mkdir()
    record = smoke(HEADER, subject(data, tmp_path), tmp_path / "worker", LIMITS)
    assert (record.passed, record.finite, record.logits is not None) == (passed, passed, passed)
    assert record.deterministic


def test_fuel_is_the_same_in_every_run_and_more_for_more(tmp_path: Path) -> None:
    runs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        runs.append(worked(tmp_path / name))
    assert runs[0] == runs[1] == generate_worker.work(generating(), tmp_path)
    (tmp_path / "less").mkdir()
    assert 0 < worked(tmp_path / "less", max_new_tokens=1)["fuel"] < runs[0]["fuel"]


def test_the_engine_writes_what_scoring_says_greedy_decoding_would_write(tmp_path: Path) -> None:
    model = read_slm(BASE)
    job = generating()
    prompts = [model.tokenizer.encode(text, bos=True, eos=False) for text in job["prompts"]]
    assert worked(tmp_path)["ids"] == Forward(model).generate(prompts, job["max_new_tokens"])


def test_a_model_that_does_not_fit_the_engines_memory_is_over_budget(tmp_path: Path) -> None:
    with pytest.raises(OverBudget) as caught:
        worked(tmp_path, memory=1 << 20)
    assert caught.value.reason == "engine.memory"


def test_memory_that_the_system_does_not_give_is_over_budget_and_the_model_goes_on_answering() -> None:
    said = subprocess.run([sys.executable, "-c", _CRAMPED, str(BASE)], capture_output=True, text=True, check=False)
    assert (said.stdout, said.returncode) == ("engine.memory True\n", 0), said.stderr


def test_a_worker_that_writes_for_too_long_is_over_budget(tmp_path: Path) -> None:
    short = Limits(seconds=1, memory_bytes=2 << 30, file_bytes=1 << 20)
    with pytest.raises(OverBudget):
        worked(tmp_path, short, prompts=["a"] * 100_000, max_new_tokens=60)


def test_under_the_digest_of_one_model_no_other_is_run(tmp_path: Path) -> None:
    with pytest.raises(DigestDiffers):
        worked(tmp_path, sha256="0" * 64)


def test_half_of_a_workers_memory_is_the_engines_and_never_more_than_it_can_address() -> None:
    assert engine_memory(LIMITS) == 1 << 30
    assert engine_memory(Limits(seconds=1, memory_bytes=64 << 30, file_bytes=1)) < 4 << 30


def test_the_meter_is_named_with_its_version() -> None:
    assert meter().startswith("wasmtime ")
