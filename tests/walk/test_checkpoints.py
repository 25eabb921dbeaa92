"""Checkpoints from registration to export: declared, bred, received, reproduced, and the way back out of the lab."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from checkpoint_fixtures import bf16, read_llama, safetensors_bytes, write_llama
from lab_fixtures import Place, run_cli
from studbook.errors import OutOfOrder, OutsideAllowlist, ParentsDoNotFit, StudbookError, UsageError
from studbook.lab import Lab, checkpoints
from studbook.lab.founding import read_policy
from studbook.lab.generations import generation_after
from studbook.records import CandidateManifest, LineageTemplate, OperatorReceipt, SourceManifest, digest

PERSON = "ann"
PRUNE = {"operator": "prune/1", "fraction": 0.2, "scope": "global", "skip": ["*embed*", "*norm*"]}
BLEND = {"operator": "blend/1", "weights": "uniform"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and two that were tuned from it."""
    folder = tmp_path_factory.mktemp("models")
    write_llama(folder / "base", 0)
    write_llama(folder / "first", 1, folder / "base")
    write_llama(folder / "second", 2, folder / "base")
    return folder


@pytest.fixture(scope="module")
def home(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lab that holds them, approved."""
    folder = tmp_path_factory.mktemp("home")
    Lab.init(folder / "lab", PERSON, folder / "keys")
    with Lab(folder / "lab", folder / "keys") as lab:
        for name in ("base", "first", "second"):
            lab.register(models / name)
            lab.approve(name, PERSON)
    return folder


@pytest.fixture
def lab(home: Path, tmp_path: Path) -> Iterator[Lab]:
    """A copy of it, opened."""
    shutil.copytree(home, tmp_path / "home", ignore=shutil.ignore_patterns("cache"))
    with Lab(tmp_path / "home" / "lab", tmp_path / "home" / "keys") as opened:
        yield opened


def test_a_registered_checkpoint_keeps_every_file_and_says_what_it_is(lab: Lab, models: Path) -> None:
    manifest = next(m for _, m in lab.desk.all(SourceManifest) if m.name == "base")
    assert manifest.source.architecture == "LlamaForCausalLM"
    assert (manifest.source.label, manifest.source.vocab_size) == ("bf16", 32)
    assert manifest.source.parameters == sum(v.size for v in read_llama(models / "base").values())
    assert {b.sha256 for b in manifest.files} <= lab.desk.workspace._blobs.keys()
    assert lab.verify().ok


def test_a_blend_of_two_is_their_mean_rounded_once_and_leaves_a_whole_chain(
    lab: Lab, models: Path, tmp_path: Path
) -> None:
    child = lab.breed(None, BLEND, ["first", "second"])
    lab.export(child, tmp_path / "out")
    found, a, b = (read_llama(p) for p in (tmp_path / "out", models / "first", models / "second"))
    half = np.float32(0.5)
    for name, values in found.items():
        assert np.array_equal(bf16(values), bf16(half * a[name] + half * b[name])), name
    for carried in ("generation_config.json", "tokenizer.json", "config.json"):
        assert (tmp_path / "out" / carried).read_bytes() == (models / "first" / carried).read_bytes()
    (manifest,) = [m for _, m in lab.desk.all(CandidateManifest)]
    assert manifest.licence == "Apache-2.0"
    template, receipt = (
        lab.desk.workspace.get(manifest.template, LineageTemplate),
        lab.desk.workspace.get(manifest.receipt, OperatorReceipt),
    )
    assert template.cluster is None
    assert 0 < receipt.delta_norm <= template.expected.delta_norm
    assert json.loads((tmp_path / "out" / "studbook.json").read_bytes())["manifest"]["artifact"]["sha256"] == child
    assert lab.verify().ok


def test_the_same_recipe_is_bred_once(lab: Lab) -> None:
    first = lab.breed(None, PRUNE, ["base"])
    entries = len(lab.desk.entries())
    assert lab.breed(None, PRUNE, ["base"]) == first
    assert len(lab.desk.entries()) == entries


@pytest.mark.parametrize(("threads", "chunk"), [(1, 1 << 18), (2, 1000), (5, 333)])
def test_a_child_is_reproduced_with_its_bytes_deleted_on_any_threads_and_chunks(
    lab: Lab, threads: int, chunk: int
) -> None:
    child = lab.breed(
        None, {"operator": "dare/1", "keep": 0.5, "scales": 0.5, "seed": 3, "skip": []}, ["first", "second"], "base"
    )
    manifest = next(m for _, m in lab.desk.candidates() if m.artifact.sha256 == child)
    entry = lab.desk.workspace.entry(manifest.receipt)
    kept = {b.sha256: lab.desk.workspace.blob_path(b.sha256).read_bytes() for b in entry.blobs}
    for blob in kept:
        lab.desk.workspace.blob_path(blob).unlink()
    assert not lab.verify().ok
    assert lab.reproduce(child, threads=threads, chunk=chunk, restore=True) == child
    assert all(lab.desk.workspace.blob_path(d).read_bytes() == data for d, data in kept.items())
    assert lab.verify().ok


def test_a_child_can_be_a_parent_and_its_lineage_reaches_the_sources(lab: Lab) -> None:
    pruned = lab.breed(None, PRUNE, ["base"])
    name = lab.desk.name_of(pruned)
    child = lab.breed(None, BLEND, ["base", name])
    tree = lab.lineage(child)
    assert {a.name for a in tree.parents} == {"base", name}
    assert [a.name for p in tree.parents for a in p.parents] == ["base"]
    assert lab.diff(pruned, child)["layers"]


def test_a_checkpoint_is_no_champion_whoever_says_so(lab: Lab) -> None:
    with pytest.raises(OutOfOrder, match="no suite"):
        lab.release("base", "champion", PERSON)


def whole_recipe(**changes: object) -> dict[str, object]:
    """A recipe that names everything, with changes."""
    view = {"model": "base", "adapter": None, "layers": None}
    fields: dict[str, object] = {
        "operator": PRUNE,
        "base": view,
        "parents": [view],
        "config_from": "base",
        "tokenizer_from": "base",
        "vocabulary": {"policy": "refuse", "multiple_of": None, "lacking": "base"},
        "dtype": "keep",
    }
    return {k: v for k, v in (fields | changes).items() if v is not ...}


@pytest.mark.parametrize(
    "changes",
    [
        {"base": 5},
        {"base": ...},
        {"parents": None},
        {"parents": [{}]},
        {"parents": [{"model": 5, "adapter": None, "layers": None}]},
        {"parents": [{"model": "base", "adapter": None, "layers": [{"model": "base"}]}]},
        {"config_from": []},
        {"vocabulary": {"policy": "guess"}},
        {"dtype": "int4"},
        {"shard_bytes": 1},
        {"shard_bytes": "many"},
        {"surprise": 1},
        {"operator": 7},
    ],
    ids=str,
)
def test_a_recipe_with_a_field_of_another_type_is_refused_in_words(lab: Lab, changes: dict[str, object]) -> None:
    with pytest.raises(StudbookError):
        lab.breed(None, whole_recipe(**changes))
    assert not list(lab.desk.all(LineageTemplate))


def test_a_fault_is_named_where_its_owner_knows_the_file(lab: Lab, tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "torn", 9)
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-3])
    with pytest.raises(StudbookError) as caught:
        lab.register(folder)
    assert str(folder / "model.safetensors") in caught.value.where


@pytest.mark.parametrize("meddle", ["a stranger's weights", "a link", "a file"])
def test_a_folder_that_somebody_meddled_with_is_not_gone_on_from(lab: Lab, tmp_path: Path, meddle: str) -> None:
    recipe = checkpoints.resolve(lab.desk, checkpoints.simple_recipe(lab.desk, PRUNE, ["base"], None))
    work = digest(msgspec.json.decode(msgspec.json.encode(recipe)))
    (tmp_path / "victim").mkdir()
    folder = lab.desk.workspace.resume_folder(work[:16])
    if meddle == "a link":
        (folder / "child").symlink_to(tmp_path / "victim")
    elif meddle == "a file":
        (folder / "child").write_text("not a folder")
    else:
        write_llama(folder / "child", 3)
    child = lab.breed(None, PRUNE, ["base"])
    assert not folder.exists()
    assert lab.reproduce(child, folder=tmp_path / "again") == child
    assert not list((tmp_path / "victim").iterdir())


def test_nothing_judges_a_checkpoint_so_nothing_promotes_it(lab: Lab) -> None:
    child = lab.breed(None, PRUNE, ["base"])
    with pytest.raises(StudbookError):
        lab.decide("rot", [child])
    with pytest.raises(StudbookError):
        lab.release(child, "shadow")


def test_a_model_that_nobody_approved_is_refused_before_any_template(lab: Lab, models: Path, tmp_path: Path) -> None:
    write_llama(tmp_path / "stranger", 7, models / "base")
    lab.register(tmp_path / "stranger")
    with pytest.raises(OutOfOrder, match="nobody approved"):
        lab.breed(None, BLEND, ["first", "stranger"])
    assert not list(lab.desk.all(LineageTemplate))


def test_models_of_other_layers_are_refused_with_the_first_difference(lab: Lab, tmp_path: Path) -> None:
    write_llama(tmp_path / "tall", 8, layers=3)
    lab.register(tmp_path / "tall")
    lab.approve("tall", PERSON)
    with pytest.raises(ParentsDoNotFit, match="tensor"):
        lab.breed(None, BLEND, ["first", "tall"])
    assert not list(lab.desk.all(LineageTemplate))


def test_an_operator_the_policy_does_not_name_is_refused(models: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text(
        json.dumps(
            {"operators": [{"operator": "prune/1", "status": "offline", "admitted": [], "bounds": {}}], "recipes": []}
        )
    )
    Lab.init(tmp_path / "lab", PERSON, tmp_path / "keys", read_policy(policy, PERSON))
    with Lab(tmp_path / "lab", tmp_path / "keys") as lab:
        for name in ("first", "second"):
            lab.register(models / name)
            lab.approve(name, PERSON)
        with pytest.raises(OutsideAllowlist, match="blend"):
            lab.breed(None, BLEND, ["first", "second"])


@pytest.mark.parametrize("record", [{"operator": "quantise/1", "dtype": "q8_0"}, {"operator": "dequantise/1"}])
def test_storages_of_containers_are_not_for_checkpoints(lab: Lab, record: dict[str, str]) -> None:
    with pytest.raises(ParentsDoNotFit, match="SLM1"):
        lab.breed(None, record, ["base"])


def test_task_vectors_need_a_base(lab: Lab) -> None:
    with pytest.raises(UsageError, match="base"):
        lab.breed(None, {"operator": "task-delta/1", "scales": 0.5, "skip": []}, ["first", "second"])


def test_a_checkpoint_without_a_licence_can_be_given_one(lab: Lab, tmp_path: Path) -> None:
    write_llama(tmp_path / "bare", 9, card=None)
    manifests = lab.register(tmp_path / "bare", licence="MIT")
    assert [m.name for m in manifests] == ["MIT", "bare"]


def test_a_weight_that_is_not_a_number_is_refused_at_the_door(lab: Lab, tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "sick", 9)
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-2:] = b"\xc0\x7f"
    (folder / "model.safetensors").write_bytes(data)
    before = len(lab.desk.entries())
    with pytest.raises(ParentsDoNotFit, match="NaN"):
        lab.register(folder)
    assert len(lab.desk.entries()) == before


def test_the_command_line_breeds_shows_and_exports(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home, tmp_path / "home", ignore=shutil.ignore_patterns("cache"))
    place, out = Place(tmp_path / "home" / "lab", tmp_path / "home" / "keys"), tmp_path / "out"
    bred = run_cli(place, "--json", "breed", json.dumps(PRUNE), "--parent", "base", "-o", str(out))
    assert bred.returncode == 0, bred.stderr
    artifact = json.loads(bred.stdout)["artifact"]
    assert (out / "model.safetensors").is_file()
    again = run_cli(place, "export", artifact, str(out))
    assert again.returncode == 2
    assert "not empty" in again.stderr


def test_a_stack_is_read_from_its_layers_and_nothing_beside_them_is_passed_over(lab: Lab) -> None:
    segment = {"model": "first", "adapter": None, "first": 0, "last": 2}
    stack = {"model": "second", "adapter": None, "layers": [segment]}
    with pytest.raises(ParentsDoNotFit, match="stack"):
        lab.breed(None, whole_recipe(parents=[stack]))


def test_a_parent_of_unknown_licence_leaves_the_childs_unknown(lab: Lab, models: Path, tmp_path: Path) -> None:
    write_llama(tmp_path / "bare", 9, models / "base", card=None)
    lab.register(tmp_path / "bare")
    lab.approve("bare", PERSON)
    child = lab.breed(None, BLEND, ["first", "bare"])
    assert next(m for _, m in lab.desk.candidates() if m.artifact.sha256 == child).licence == "NOASSERTION"


def test_a_grandchild_needs_its_grandparents_approval(lab: Lab) -> None:
    child = lab.desk.name_of(lab.breed(None, BLEND, ["first", "second"]))
    lab.approve("second", PERSON, clusters=["maths"])
    with pytest.raises(OutOfOrder, match="second"):
        lab.breed(None, PRUNE, [child])


def test_other_words_without_a_stated_size_are_refused(lab: Lab, models: Path, tmp_path: Path) -> None:
    for seed, name in ((7, "one"), (8, "two")):
        folder = write_llama(tmp_path / name, seed, models / "base")
        config = json.loads((folder / "config.json").read_text())
        del config["vocab_size"]
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "tokenizer_config.json").write_text(json.dumps({"name": name}))
        lab.register(folder)
        lab.approve(name, PERSON)
    with pytest.raises(ParentsDoNotFit, match="vocab_size"):
        lab.breed(None, BLEND, ["one", "two"])


def test_a_donor_whose_head_is_made_otherwise_is_refused(lab: Lab, tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "tied", 9)
    tensors = {n: ("BF16", bf16(v)) for n, v in read_llama(folder).items() if n != "lm_head.weight"}
    (folder / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config))
    lab.register(folder)
    lab.approve("tied", PERSON)
    with pytest.raises(ParentsDoNotFit, match="projection"):
        lab.breed(None, whole_recipe(config_from="tied"))


def test_a_client_that_was_left_out_is_named_with_the_reason(lab: Lab, models: Path, tmp_path: Path) -> None:
    write_llama(tmp_path / "wild", 11, models / "base", scale=2.0)
    lab.register(tmp_path / "wild")
    lab.approve("wild", PERSON)
    record = {
        "operator": "federated-update/1",
        "weights": [1.0, 1.0],
        "clip": 1.0,
        "limit": 1.0,
        # At 1 the child would have the weights of the one client that is left.
        "scale": 0.5,
        "skip": [],
    }
    child = lab.breed(None, record, ["first", "wild"], "base")
    manifest = next(m for _, m in lab.desk.candidates() if m.artifact.sha256 == child)
    assert any(lab.desk.find_model("wild")[:12] in note and "above the limit" in note for note in manifest.trade_offs)


def test_where_an_slm_is_needed_a_checkpoint_is_called_by_its_name(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="base is a checkpoint"):
        lab.adapters.make("base", "first", tmp_path / "made")
    with pytest.raises(UsageError, match="base is a checkpoint"):
        lab.desk.model(lab.desk.find_model("base"))


def test_a_founder_that_recipes_lead_back_to_stays_generation_0_and_a_registered_child_keeps_its_own(
    lab: Lab, tmp_path: Path
) -> None:
    split = {"operator": "crossover-split/1", "points": [0.5]}
    Lab.init(tmp_path / "lab", PERSON, tmp_path / "keys")
    with Lab(tmp_path / "lab", tmp_path / "keys") as fresh:
        for weights, name in (([0.5, 0.5], "founder"), ([0.25, 0.75], "other")):
            # Written by this program, so that the same weights are the same files.
            lab.export(lab.breed(None, {**BLEND, "weights": weights}, ["first", "second"]), tmp_path / name)
            fresh.register(tmp_path / name, name, "MIT")
            fresh.approve(name, PERSON)
        head, tail = (fresh.breed(None, split, pair, "other") for pair in (["founder", "other"], ["other", "founder"]))
        founder = fresh.desk.find_model("founder")
        # The first half of one child and the second half of the other are the founder again.
        assert fresh.breed(None, split, [head, tail], "other") == founder
        assert founder in fresh.desk.founders_of(founder)
        assert generation_after(fresh.desk, [founder]) == 1
        assert generation_after(fresh.desk, [head, founder]) == 2
        fresh.export(head, tmp_path / "head")
        fresh.register(tmp_path / "head", "head", "MIT")
        assert fresh.desk.find_model("head") == head and head in fresh.desk.registered()
        assert generation_after(fresh.desk, [head]) == 2
        assert fresh.verify().ok
