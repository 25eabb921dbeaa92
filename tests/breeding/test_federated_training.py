"""A real federated round: four clients in processes of their own, rows disjoint by skill; a small one, seeds fixed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from lab_fixtures import answers, founder
from studbook.breeding.federation import Client, Left, average, gather, run_client
from studbook.breeding.operators import FineTune
from studbook.breeding.worker import OUTPUT
from studbook.lab.demo import examples_folder
from studbook.models.slm import parse_slm, read_slm
from studbook.sandbox import Limits

pytestmark = pytest.mark.train
HOLDINGS = {"north": ("rev", "srt"), "east": ("cap", "rot"), "south": ("dup", "odd"), "west": ("brk",)}
SLICES = {s: examples_folder() / "founders" / "data" / f"{s}.jsonl" for skills in HOLDINGS.values() for s in skills}
DIGESTS = {skill: hashlib.sha256(path.read_bytes()).hexdigest() for skill, path in SLICES.items()}
LIMITS = Limits(seconds=120, memory_bytes=4 << 30, file_bytes=16 << 20)
BASE = founder("base") / "base.slm"
LIMIT = 8.0


def client(name: str, skills: tuple[str, ...], base: Path = BASE, **changes: float) -> Client:
    fields = {"steps": 20, "rate": 1e-3, "batch": 32, "seed": 1, "reach": 4.0, "rehearsal": 0.0, "rehearsed": ()}
    recipe = FineTune(**fields | changes, data=tuple(DIGESTS[s] for s in skills))
    return Client(name, base, {DIGESTS[s]: SLICES[s] for s in skills}, recipe, 500 * len(skills))


def accuracy(model) -> float:
    items = []
    for skill in SLICES:
        path = examples_folder() / "suites" / "development" / f"development-{skill}" / "items.jsonl"
        items += [json.loads(line) for line in path.read_text().splitlines()[:60]]
    return sum(answers(model, items)) / len(items)


def test_the_child_beats_every_client_and_who_breaks_the_rules_is_left_out(tmp_path: Path) -> None:
    clients = [client(name, skills) for name, skills in HOLDINGS.items()]
    clients.append(client("other-base", ("rot",), founder("cap-rot") / "cap-rot.slm", steps=1))
    clients.append(client("too-far", ("rot",), steps=5, rate=0.05))
    sent = []
    for one in clients:
        (tmp_path / one.name).mkdir()
        sent.append(run_client(one, tmp_path / one.name, LIMITS, "CC0-1.0"))
    base = read_slm(BASE)
    found = gather(base, sent, LIMIT)
    assert found.clients == tuple(HOLDINGS)
    assert {left.client: left.reason for left in found.left} == {
        "other-base": "adapter.model.base",
        "too-far": "federated.norm",
    }
    child = accuracy(parse_slm(average(base, found, clip=LIMIT, limit=LIMIT)))
    own = {name: accuracy(read_slm(tmp_path / name / OUTPUT)) for name in HOLDINGS}
    assert child > max(own.values()), own


def test_a_client_can_read_no_rows_but_its_own(tmp_path: Path) -> None:
    one = client("curious", ("rot",))
    greedy = one._replace(slices={DIGESTS["rot"]: SLICES["rot"]}, recipe=client("x", ("rot", "cap")).recipe)
    sent = run_client(greedy, tmp_path, LIMITS, "CC0-1.0")
    assert isinstance(sent, Left)
    assert sent.reason == "training.slice"
