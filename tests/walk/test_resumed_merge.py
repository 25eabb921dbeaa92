"""What an interrupted merge left is gone on with if it is what a run leaves; a forged shard is found by breeding anew."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoint_fixtures import CARD, bf16, safetensors_bytes, tokenizer_json
from studbook.breeding.checkpoint_produce import run_checkpoint
from studbook.breeding.checkpoint_template import draft_checkpoint
from studbook.errors import DigestDiffers, ParentsDoNotFit, StudbookError, UsageError
from studbook.lab import Lab, checkpoints
from studbook.lab.checkpoint_store import intact
from studbook.lab.progress import Silent
from studbook.lab.resume import clear, resumable
from studbook.models.safetensors_writer import JOURNAL, JOURNAL_BYTES
from studbook.records import CandidateManifest, LineageTemplate

PERSON = "ann"
SHARD = 1 << 20
NAMES = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
Meddle = Callable[[Path, Path], object]


class Told(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def said(self, words: str) -> bool:
        return any(words in line for line in self.lines)


def write_model(folder: Path, seed: int, **config: object) -> Path:
    """Three matrices of a little less than 1 MiB each, one for a shard."""
    rng = np.random.default_rng(seed)
    matrices = {f"layers.{i}.weight": bf16(rng.standard_normal((500, 1000)).astype(np.float32)) for i in range(3)}
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(safetensors_bytes({n: ("BF16", m) for n, m in matrices.items()}))
    (folder / "config.json").write_text(json.dumps({"architectures": ["None"], "num_hidden_layers": 3, **config}))
    (folder / "tokenizer.json").write_bytes(tokenizer_json())
    (folder / "README.md").write_text(CARD)
    return folder


def recipe(**changes: object) -> dict[str, Any]:
    """A mean of two, in three shards, with changes."""
    view = {"adapter": None, "layers": None}
    fields: dict[str, Any] = {
        "operator": {"operator": "blend/1", "weights": [0.5, 0.5]},
        "base": {"model": "first", **view},
        "parents": [{"model": "first", **view}, {"model": "second", **view}],
        "config_from": "first",
        "tokenizer_from": "first",
        "vocabulary": {"policy": "refuse", "multiple_of": None, "lacking": "base"},
        "dtype": "keep",
        "shard_bytes": SHARD,
    }
    return fields | changes


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lab of two approved checkpoints, and a third with another config."""
    folder = tmp_path_factory.mktemp("home")
    Lab.init(folder / "lab", PERSON, folder / "keys")
    with Lab(folder / "lab", folder / "keys") as lab:
        for seed, (name, config) in enumerate((("first", {}), ("second", {}), ("other", {"rope_theta": 5.0}))):
            lab.register(write_model(folder / name, seed, **config))
            lab.approve(name, PERSON)
    return folder


@pytest.fixture(scope="module")
def left(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run of the recipe leaves when it is killed as soon as all three shards are finished."""
    folder = tmp_path_factory.mktemp("left") / "run"
    with opened(home, tmp_path_factory.mktemp("reader")) as lab:
        desk = lab.desk
        found = checkpoints.resolve(desk, recipe())
        files = {d: checkpoints.stored(desk, d) for d in found.sources()}
        template = draft_checkpoint(desk.header, desk.policy[1], desk.policy[0], found, files)
        folder.mkdir()
        run_checkpoint(template, files, folder, threads=1)
        shutil.copytree(folder, folder.with_name(template.recipe_sha256[:16]))
    return folder.with_name(template.recipe_sha256[:16])


def opened(home: Path, folder: Path) -> Lab:
    """A copy of the lab that tells what it does."""
    for part in ("lab", "keys"):
        shutil.copytree(home / part, folder / part, ignore=shutil.ignore_patterns("cache"), copy_function=linked)
    return Lab(folder / "lab", folder / "keys", progress=Told())


def linked(source: str, target: str) -> None:
    """Weights are not copied for every test; what a test changes it replaces."""
    if Path(source).stat().st_size > SHARD:
        os.link(source, target)
    else:
        shutil.copy2(source, target)


@pytest.fixture
def lab(home: Path, tmp_path: Path) -> Iterator[Lab]:
    with opened(home, tmp_path / "own") as found:
        yield found


@pytest.fixture(scope="module")
def expected(home: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the child of an undisturbed run."""
    with opened(home, tmp_path_factory.mktemp("straight")) as lab:
        return lab.breed(None, recipe())


def told(lab: Lab) -> Told:
    assert isinstance(lab.desk.progress, Told)
    return lab.desk.progress


def interrupted(lab: Lab, left: Path, keep: int = 3) -> Path:
    """The resume folder as a kill after so many shards leaves it."""
    place = lab.desk.workspace.path / "cache" / "resume" / left.name
    shutil.copytree(left, place)
    child = place / "child"
    lines = (child / JOURNAL).read_bytes().splitlines(keepends=True)
    (child / JOURNAL).write_bytes(b"".join(lines[: 1 + keep]))
    if keep < 3:
        for path in child.iterdir():
            if path.name not in (JOURNAL, *NAMES[:keep]):
                path.unlink()
    return place


def linked_journal(place: Path, victim: Path) -> None:
    (place / "child" / JOURNAL).rename(victim / "journal")
    (place / "child" / JOURNAL).symlink_to(victim / "journal")


def moved_away(place: Path, victim: Path) -> None:
    place.rename(victim / "moved")
    place.symlink_to(victim / "moved")


STRANGERS: dict[str, Meddle] = {
    "an extra file": lambda place, _: (place / "child" / "notes.txt").write_text("mine"),
    "a fifo": lambda place, _: os.mkfifo(place / "child" / "pipe"),
    "a folder": lambda place, _: (place / "child" / "inner" / "deep").mkdir(parents=True),
    "a link": lambda place, victim: (place / "child" / "link.safetensors").symlink_to(victim / "treasure"),
}
MORE_STRANGERS: dict[str, Meddle] = {
    "a file of another checkpoint": lambda place, _: (place / "child" / "chat_template.jinja").write_text("{{ x }}"),
    "a file beside the child": lambda place, _: (place / "notes.txt").write_text("mine"),
    "a fifo for the progress": lambda place, _: os.mkfifo(place / "progress"),
    "a folder for the progress": lambda place, _: (place / "progress.partial").mkdir(),
    "a hard link to a shard": lambda place, victim: os.link(place / "child" / NAMES[0], victim / "twin"),
    "a set-user bit": lambda place, _: (place / "child" / NAMES[0]).chmod(0o4644),
    "a link for the journal": linked_journal,
    "a journal too long to read": lambda place, _: os.truncate(place / "child" / JOURNAL, JOURNAL_BYTES + 1),
    "weights without a journal": lambda place, _: (place / "child" / JOURNAL).unlink(),
    "a link for the whole folder": moved_away,
    "a file for the whole folder": lambda place, _: (shutil.rmtree(place), place.write_text("mine")),
    "a name that is no text": lambda place, _: Path(os.fsdecode(os.fsencode(place) + b"/\xff\n")).write_text("x"),
}


def victim_of(tmp_path: Path) -> Path:
    """A folder that nothing in the lab may touch."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "treasure").write_text("gold")
    return tmp_path / "victim"


@pytest.mark.parametrize("kind", STRANGERS)
def test_a_merge_begins_anew_where_a_run_leaves_no_such_thing(
    lab: Lab, left: Path, expected: str, tmp_path: Path, kind: str
) -> None:
    place, victim = interrupted(lab, left, keep=1), victim_of(tmp_path)
    STRANGERS[kind](place, victim)
    assert lab.breed(None, recipe()) == expected
    assert told(lab).said("begins anew")
    assert not told(lab).said("going on")
    assert not place.exists()
    assert (victim / "treasure").read_text() == "gold"


@pytest.mark.parametrize("kind", STRANGERS | MORE_STRANGERS)
def test_the_folder_is_emptied_before_anything_reads_it(lab: Lab, left: Path, tmp_path: Path, kind: str) -> None:
    place, victim = interrupted(lab, left), victim_of(tmp_path)
    names = {JOURNAL, *(path.name for path in (place / "child").iterdir())}
    (STRANGERS | MORE_STRANGERS)[kind](place, victim)
    assert resumable(lab.desk, place.name, names) == place
    assert not place.is_symlink()
    assert not list(place.iterdir())
    (line,) = told(lab).lines
    assert line.isprintable()
    assert "begins anew" in line
    assert (victim / "treasure").read_text() == "gold"


def test_what_a_run_leaves_is_kept_and_its_notes_are_not(lab: Lab, left: Path) -> None:
    place = interrupted(lab, left)
    for note in ("progress", "resumed", "progress.partial"):
        (place / note).write_text("7")
    names = {path.name for path in (place / "child").iterdir()}
    assert resumable(lab.desk, place.name, names) == place
    assert [path.name for path in place.iterdir()] == ["child"]
    assert {path.name for path in (place / "child").iterdir()} == names
    assert not told(lab).lines


def test_folders_that_may_not_be_listed_are_removed_and_links_in_them_not_followed(tmp_path: Path) -> None:
    victim = victim_of(tmp_path)
    (tmp_path / "gone" / "inner" / "deep").mkdir(parents=True)
    (tmp_path / "gone" / "link").symlink_to(victim)
    victim.chmod(0o500)
    for path in ("gone/inner/deep", "gone/inner", "gone"):
        (tmp_path / path).chmod(0)
    clear(tmp_path / "gone")
    clear(tmp_path / "gone")
    assert not (tmp_path / "gone").exists()
    assert (victim / "treasure").read_text() == "gold"
    assert stat.S_IMODE(victim.stat().st_mode) == 0o500


@pytest.mark.parametrize("keep", [1, 3])
def test_it_is_said_after_which_shard_a_merge_goes_on(lab: Lab, left: Path, expected: str, keep: int) -> None:
    interrupted(lab, left, keep)
    assert lab.breed(None, recipe()) == expected
    assert told(lab).lines == [f"going on after shard {keep} of 3"]


def test_a_damaged_shard_is_made_again_and_the_others_are_kept(lab: Lab, left: Path, expected: str) -> None:
    place = interrupted(lab, left)
    flip(place / "child" / NAMES[1])
    assert lab.breed(None, recipe()) == expected
    assert told(lab).said("going on with 2 of 3 shards")


def flip(path: Path) -> None:
    """Change the lowest bit of a file's last weight."""
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def forge(place: Path) -> None:
    """Change the first shard, and its line in the journal with it."""
    child = place / "child"
    flip(child / NAMES[0])
    found = hashlib.sha256((child / NAMES[0]).read_bytes()).hexdigest()
    head, first, *others = (child / JOURNAL).read_text().splitlines(keepends=True)
    line = json.dumps(json.loads(first) | {"sha256": found}, sort_keys=True, separators=(",", ":"))
    (child / JOURNAL).write_text("".join([head, f"{line}\n", *others]))


def test_a_forged_shard_is_found_by_breeding_everything_anew(lab: Lab, left: Path, expected: str) -> None:
    forge(interrupted(lab, left, keep=1))
    child = lab.breed(None, recipe())
    assert told(lab).said("going on after shard 1 of 3")
    assert child != expected
    assert lab.verify().ok, "what was recorded is what lies there"
    with pytest.raises(DigestDiffers) as caught:
        lab.reproduce(child)
    assert caught.value.reason == "digest.recompute"
    assert not list(lab.desk.workspace.path.glob("cache/work/reproduce-*"))
    # Without its bytes it cannot come back either, and both digests are named.
    weights(lab, child).unlink()
    with pytest.raises(DigestDiffers) as caught:
        lab.breed(None, recipe())
    assert expected[:16] in caught.value.message
    assert child[:16] in caught.value.message
    assert not list(lab.desk.workspace.path.glob("cache/work/*"))
    assert len(list(lab.desk.all(CandidateManifest))) == 1


def weights(lab: Lab, artifact: str) -> Path:
    """Where a child's second shard lies in the store."""
    return checkpoints.stored(lab.desk, artifact)[NAMES[1]]


def cut(path: Path) -> None:
    path.chmod(0o644)
    os.truncate(path, 1000)


def to_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/")


DAMAGE: dict[str, Callable[[Path], None]] = {"gone": Path.unlink, "cut": cut, "changed": flip, "a link": to_link}


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_child_whose_bytes_are_not_what_they_were_is_bred_again_and_put_back(
    lab: Lab, expected: str, damage: str
) -> None:
    child = lab.breed(None, recipe())
    entries = len(lab.desk.entries())
    DAMAGE[damage](weights(lab, child))
    assert lab.breed(None, recipe()) == child == expected
    assert told(lab).said("bred anew")
    assert lab.verify().ok
    assert len(lab.desk.entries()) == entries
    assert not list(lab.desk.workspace.path.glob("cache/work/restore-*"))


def test_every_kind_of_damage_to_the_files_of_a_checkpoint_is_seen(lab: Lab) -> None:
    model = lab.desk.find_model("second")
    path = checkpoints.stored(lab.desk, model)["model.safetensors"]
    whole = path.read_bytes()
    for damage in DAMAGE.values():
        path.unlink(missing_ok=True)
        path.write_bytes(whole)
        assert intact(lab.desk, model)
        damage(path)
        assert not intact(lab.desk, model)


def test_a_lost_list_of_files_comes_back_too(lab: Lab) -> None:
    child = lab.breed(None, recipe())
    lab.desk.workspace.blob_path(child).unlink()
    assert lab.breed(None, recipe()) == child
    assert lab.verify().ok


def test_a_child_that_was_bred_already_needs_no_bound_and_no_bytes_of_its_parents(lab: Lab) -> None:
    child = lab.breed(None, recipe())
    for parent in ("first", "second"):
        checkpoints.stored(lab.desk, lab.desk.find_model(parent))["model.safetensors"].unlink()
    told(lab).lines.clear()
    assert lab.breed(None, recipe()) == child
    (line,) = told(lab).lines
    manifest, found = lab.desk.candidates()[-1]
    entry = lab.desk.workspace.entry(manifest)
    assert entry is not None
    assert line == f"already bred on {entry.time[:10]}: {found.name}"


def test_what_was_declared_before_a_kill_is_not_declared_again(lab: Lab, left: Path, expected: str) -> None:
    desk = lab.desk
    found = checkpoints.resolve(desk, recipe())
    files = {d: checkpoints.stored(desk, d) for d in found.sources()}
    desk.workspace.commit(draft_checkpoint(desk.header, desk.policy[1], desk.policy[0], found, files))
    interrupted(lab, left, keep=2)
    assert lab.breed(None, recipe()) == expected
    assert len(list(desk.all(LineageTemplate))) == 1


def test_a_parent_that_is_another_one_already_is_refused_before_any_shard(lab: Lab) -> None:
    path = checkpoints.stored(lab.desk, lab.desk.find_model("second"))["model.safetensors"]
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.unlink()
    path.write_bytes(data)
    with pytest.raises(DigestDiffers) as caught:
        lab.breed(None, recipe())
    assert caught.value.reason == "digest.input"
    assert not list(lab.desk.workspace.path.glob("cache/resume/*"))


@pytest.mark.parametrize(("config_from", "parent"), [("first", "second"), ("other", "first")])
def test_a_child_with_the_weights_of_a_parent_is_refused_whatever_its_config_says(
    lab: Lab, config_from: str, parent: str
) -> None:
    share = [1.0, 0.0] if parent == "first" else [0.0, 1.0]
    same = recipe(operator={"operator": "blend/1", "weights": share}, config_from=config_from)
    with pytest.raises(ParentsDoNotFit, match=f"changed nothing: .* {parent} itself") as caught:
        lab.breed(None, same)
    assert caught.value.reason == "parents.unchanged"
    assert not list(lab.desk.all(CandidateManifest))
    assert not list(lab.desk.workspace.path.glob("cache/resume/*"))


def test_the_same_weights_in_another_storage_are_a_change(lab: Lab) -> None:
    wide = recipe(operator={"operator": "blend/1", "weights": [1.0, 0.0]}, dtype="f32")
    assert lab.breed(None, wide) not in lab.desk.registered()


def test_reproducing_leaves_nothing_in_the_lab_and_all_of_it_where_the_caller_says(lab: Lab, tmp_path: Path) -> None:
    child = lab.breed(None, recipe())
    assert lab.reproduce(child) == child
    lab.ready()
    assert not list(lab.desk.workspace.path.glob("cache/work/*"))
    assert lab.reproduce(child, folder=tmp_path / "mine") == child
    assert (tmp_path / "mine" / "child" / NAMES[0]).is_file()
    with pytest.raises(UsageError, match="not empty"):
        lab.reproduce(child, folder=tmp_path / "mine")
    assert (tmp_path / "mine" / "child" / NAMES[0]).is_file()


def test_a_folder_that_cannot_be_emptied_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stuck").mkdir()
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    with pytest.raises(StudbookError, match="cannot be removed") as caught:
        clear(tmp_path / "stuck")
    assert str(tmp_path / "stuck") in caught.value.where
