"""Federated rounds in a lab: clients are registered data manifests, and `verify` averages again what they sent."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace as change

from lab_fixtures import CLUSTER, PERSON, Place, founder, problems
from release_fixtures import refused
from studbook.adapters.make import dense_delta
from studbook.breeding.federation import Left, Update, average, gather, limit_of
from studbook.breeding.operators import FederatedRound, decode_operator
from studbook.environment import has_torch
from studbook.lab import Lab, breeding, rounds, slices
from studbook.lab.clock import today
from studbook.lab.demo import examples_folder
from studbook.lab.federated import check_federated, write_federated
from studbook.lab.rederive import check_candidate
from studbook.models.slm import parse_slm, read_slm
from studbook.models.slm_writer import write_slm
from studbook.records import (
    FederatedReceipt,
    LineageTemplate,
    Revocation,
    RevokedSubject,
    replace,
)

HOLDINGS = {"north": ("rev", "srt"), "east": ("cap", "rot"), "south": ("dup", "odd")}
RECIPE: dict[str, Any] = {
    "operator": "federated-round/1",
    "steps": 2,
    "rate": 1e-3,
    "batch": 8,
    "seed": 1,
    "reach": 0.5,
    "limit": 1.0,
    "licence": "CC0-1.0",
    "clients": list(HOLDINGS),
}


def hold(folder: Path, name: str, skills: tuple[str, ...]) -> Path:
    """The data manifest of one client, its slices beside it."""
    (folder / name).mkdir(parents=True)
    rows = ["manifest_version=1", "kind=data", f"name={name}", "split=train", "split_rule=by hand", "seed=1"]
    total = 0
    for place, skill in enumerate(skills):
        data = (examples_folder() / "founders" / "data" / f"{skill}.jsonl").read_bytes()
        shutil.copy(examples_folder() / "founders" / "data" / f"{skill}.jsonl", folder / name / f"{skill}.jsonl")
        count = data.count(b"\n")
        total += count
        fields = {"path": f"{skill}.jsonl", "label": skill, "sha256": hashlib.sha256(data).hexdigest(), "rows": count}
        rows += [f"file.{place}.{key}={value}" for key, value in fields.items()]
    path = folder / name / "data.manifest"
    path.write_text("\n".join([*rows, f"rows={total}", ""]))
    return path


@pytest.fixture(scope="module")
def place(prepared_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A lab in which three clients' data manifests are registered; only read it, or copy it."""
    folder = tmp_path_factory.mktemp("clients")
    made = prepared_lab.copy(folder)
    with made.open() as lab:
        for name, skills in HOLDINGS.items():
            lab.register(hold(folder, name, skills))
    return made


@pytest.fixture
def lab(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A copy of it, opened on a machine that says it has torch."""
    monkeypatch.setattr(slices, "has_torch", lambda: True)
    with place.copy(tmp_path).open() as opened:
        yield opened


def declared(lab: Lab, **changes: Any) -> LineageTemplate:
    """The template of a round; nothing is trained."""
    herd, _, _ = rounds.start(lab.desk, CLUSTER, [RECIPE], None, today())
    (order,) = breeding.plan(lab.desk, herd, [RECIPE | changes])
    lab.desk.workspace.commit(order.template)
    return order.template


def sent(lab: Lab, folder: Path, template: LineageTemplate) -> tuple[list[Update | Left], str]:
    """What three clients sent, one of them too much and one of them nothing; and the digest of the child."""
    operator = decode_operator(template.operator)
    assert isinstance(operator, FederatedRound)
    base = lab.desk.model(template.base)
    far = {s.name: base.dense(s.name) * np.float32(3) for s in base.shape.tensors()}
    models = [read_slm(founder("cap-rot") / "cap-rot.slm"), parse_slm(write_slm(base.shape, base.tokenizer, far))]
    found: list[Update | Left] = []
    for client, model in zip(operator.clients[:2], models, strict=True):
        path = folder / f"{client.manifest[:8]}.adp1"
        path.write_bytes(dense_delta(base, model, licence="CC0-1.0"))
        found.append(Update(client.manifest, path, client.rows))
    found.append(Left(operator.clients[2].manifest, "budget.worker", "took too long"))
    limit = limit_of(operator, base)
    gathered = gather(base, found, limit)
    assert len(gathered.clients) == 1
    child = average(base, gathered, clip=limit, limit=limit)
    return found, hashlib.sha256(child).hexdigest()


def test_clients_are_called_by_their_data_manifests_and_hold_what_those_list(lab: Lab) -> None:
    template = declared(lab)
    operator = decode_operator(template.operator)
    assert isinstance(operator, FederatedRound)
    assert len({c.manifest for c in operator.clients}) == len(HOLDINGS)
    assert [c.rows for c in operator.clients] == [1000, 1000, 1000]
    assert len(set(operator.slices())) == 6
    by_digest = declared(lab, clients=[c.manifest[:12] for c in operator.clients])
    assert by_digest == template


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"clients": ["north", "nobody"]}, "usage.client"),
        ({"clients": ["north"]}, "operator.clients"),
        ({"clients": ["north", "north"]}, "operator.clients"),
        ({"licence": "MIT"}, "training.licence"),
    ],
    ids=str,
)
def test_a_round_that_cannot_be_is_refused_before_anybody_trains(
    lab: Lab, changes: dict[str, Any], reason: str
) -> None:
    before = [e.record_kind for e in lab.desk.entries()].count(LineageTemplate.kind())
    with refused(reason):
        lab.breed(CLUSTER, RECIPE | changes)
    assert [e.record_kind for e in lab.desk.entries()].count(LineageTemplate.kind()) == before


def test_clients_that_do_not_hold_what_they_say_are_refused(lab: Lab) -> None:
    true = declared(lab).operator["clients"]
    for lie in ({"rows": 5000}, {"data": [true[1]["data"][0]]}, {"manifest": "0" * 64}):
        with refused("training.client"):
            lab.breed(CLUSTER, RECIPE | {"clients": [{**true[0], **lie}, true[2]]})


def test_data_that_was_taken_back_is_nobodys(lab: Lab) -> None:
    manifest = declared(lab).operator["clients"][0]["manifest"]
    subject = RevokedSubject(type="data", digest=manifest)
    since = len(lab.desk.entries())
    revoked = Revocation(header=lab.desk.header, subject=subject, reason="was not theirs", since=since)
    lab.desk.workspace.commit(revoked, owner=PERSON)
    with refused("usage.client"):
        lab.breed(CLUSTER, RECIPE)


def test_a_round_on_record_can_be_averaged_again(lab: Lab, tmp_path: Path) -> None:
    template = declared(lab)
    found, child = sent(lab, tmp_path, template)
    write_federated(lab.desk, template, found, child)
    ((_, record),) = lab.desk.all(FederatedReceipt)
    assert [c.reason for c in record.clients] == ["", "federated.norm", "budget.worker"]
    assert [c.norm is None for c in record.clients] == [False, True, True]
    assert [c.package is None for c in record.clients] == [False, False, True]
    check_federated(lab.desk, record)
    assert lab.verify().ok


def test_packages_that_do_not_give_the_child_are_not_put_on_record(lab: Lab, tmp_path: Path) -> None:
    template = declared(lab)
    found, _ = sent(lab, tmp_path, template)
    with refused("federated.field"):
        write_federated(lab.desk, template, found, template.base)
    assert not list(lab.desk.all(FederatedReceipt))


Lie = Callable[[FederatedReceipt], dict[str, Any]]


def client(place: int, **changes: Any) -> Lie:
    def lie(record: FederatedReceipt) -> dict[str, Any]:
        rows = list(record.clients)
        rows[place] = change(rows[place], **changes)
        return {"clients": tuple(rows)}

    return lie


LIES: dict[str, tuple[str, Lie]] = {
    "a smaller change": ("clients", client(0, norm=0.5)),
    "one that was left out is in": ("clients", client(1, reason="", words="", norm=0.5)),
    "one that was in is left out": ("clients", client(0, reason="federated.norm", words="too far", norm=None)),
    "nobody says why it sent nothing": ("clients: reasons", client(2, reason="")),
    "more rows": ("clients: names", client(0, rows=1)),
    "another client": ("clients: names", client(0, manifest="0" * 64)),
    "a wider limit": ("limit", lambda r: {"limit": r.limit * 2}),
    "another child": ("output", lambda _: {"output": "0" * 64}),
    "a client forgotten": ("clients: names", lambda r: {"clients": r.clients[:-1]}),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_about_a_round_is_refused_and_the_field_is_named(lab: Lab, tmp_path: Path, lie: str) -> None:
    field, changes = LIES[lie]
    template = declared(lab)
    write_federated(lab.desk, template, *sent(lab, tmp_path, template))
    ((_, record),) = lab.desk.all(FederatedReceipt)
    with refused("federated.field") as caught:
        check_federated(lab.desk, replace(record, **changes(record)))
    assert caught.value.where == f"federated-receipt: {field}"


def test_a_receipt_of_something_that_has_no_clients_is_refused(lab: Lab, tmp_path: Path) -> None:
    template = declared(lab)
    write_federated(lab.desk, template, *sent(lab, tmp_path, template))
    ((_, record),) = lab.desk.all(FederatedReceipt)
    lab.breed(CLUSTER, {"operator": "blend/1", "weights": "uniform"})
    other = next(d for d, t in lab.desk.all(LineageTemplate) if t.operator["operator"] == "blend/1")
    with refused("federated.field") as caught:
        check_federated(lab.desk, replace(record, template=other))
    assert caught.value.where == "federated-receipt: template"


@pytest.mark.skipif(has_torch(), reason="what a machine without torch says")
def test_a_round_in_which_every_client_failed_says_why_of_each(lab: Lab) -> None:
    with pytest.raises(Exception, match="torch") as caught:
        lab.breed(CLUSTER, RECIPE)
    assert getattr(caught.value, "reason", "") == "parents.all-excluded"
    assert not list(lab.desk.all(FederatedReceipt))


@pytest.mark.train
def test_a_whole_round_is_bred_verified_and_bred_again(place: Place, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    own = place.copy(tmp_path)
    with own.open() as lab:
        artifact = lab.breed(CLUSTER, RECIPE | {"steps": 6})
        manifest = next(m for _, m in lab.desk.candidates() if m.artifact.sha256 == artifact)
        ((_, record),) = lab.desk.all(FederatedReceipt)
        assert record.output == artifact
        assert all(c.norm and not c.reason for c in record.clients)
        assert {c.manifest for c in record.clients} < set(manifest.data)
        assert lab.reproduce(artifact, tmp_path / "again") == artifact
        bare = lab.desk.at(next(e.sequence for e in lab.desk.entries() if e.record_kind == FederatedReceipt.kind()))
        with refused("candidate.field") as caught:
            check_candidate(bare, manifest)
        assert caught.value.where == "candidate: round"
    assert problems(own) == []
