"""A merge that is killed goes on with the next shard and gives the same child; a disk that fails leaves nothing visible."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from checkpoint_fixtures import CARD, bf16, safetensors_bytes, tokenizer_json
from lab_fixtures import Place, run_cli
from studbook.lab import Lab
from studbook.records import CandidateManifest

PERSON = "ann"
PATIENCE = 300.0


def write_model(folder: Path, seed: int, tensors: int, rows: int, columns: int) -> Path:
    """A checkpoint of some equal matrices; its noise repeats, because only the bytes matter here."""
    rng = np.random.default_rng(seed)
    noise = bf16(rng.standard_normal(min(rows * columns, 1 << 16)).astype(np.float32))
    folder.mkdir()
    matrix = np.resize(noise, (rows, columns))
    (folder / "model.safetensors").write_bytes(
        safetensors_bytes({f"layers.{i:02d}.weight": ("BF16", np.roll(matrix, i)) for i in range(tensors)})
    )
    (folder / "config.json").write_text(json.dumps({"architectures": ["None"], "num_hidden_layers": tensors}))
    (folder / "tokenizer.json").write_bytes(tokenizer_json())
    (folder / "README.md").write_text(CARD)
    return folder


def new_home(folder: Path, tensors: int, rows: int, columns: int) -> Place:
    """A lab with a base and two parents."""
    place = Place(folder / "lab", folder / "keys")
    Lab.init(place.path, PERSON, place.keys)
    with place.open() as lab:
        for seed, name in enumerate(("base", "first", "second")):
            model = write_model(folder / name, seed, tensors, rows, columns)
            lab.register(model)
            lab.approve(name, PERSON)
            shutil.rmtree(model)
    return place


def recipe_file(folder: Path, shard_bytes: int) -> Path:
    """DARE of both parents in shards of this size."""
    view = {"adapter": None, "layers": None}
    path = folder / "recipe.json"
    path.write_text(
        json.dumps(
            {
                "operator": {"operator": "dare/1", "keep": 0.5, "scales": [0.4, 0.3], "seed": 11, "skip": []},
                "base": {"model": "base", **view},
                "parents": [{"model": "first", **view}, {"model": "second", **view}],
                "config_from": "base",
                "tokenizer_from": "base",
                "vocabulary": {"policy": "refuse", "multiple_of": None, "lacking": "base"},
                "dtype": "keep",
                "shard_bytes": shard_bytes,
            }
        )
    )
    return path


def start(place: Place, recipe: Path) -> subprocess.Popen[str]:
    """The merge in a process group of its own."""
    command = [sys.executable, "-m", "studbook", "--lab", str(place.path), "--keys", str(place.keys), "--json"]
    return subprocess.Popen(
        [*command, "breed", str(recipe)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finished(place: Place) -> dict[str, tuple[int, int]]:
    """Shards that are in place in the merge's folder: name -> inode and time."""
    found = {}
    for path in place.path.glob("cache/resume/*/child/*.safetensors"):
        with suppress(FileNotFoundError):  # taken over by the lab since it was listed
            found[path.name] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return found


def kill_after(place: Place, recipe: Path, shards: int) -> dict[str, tuple[int, int]]:
    """Kill the merge as soon as so many shards are finished; what was finished then."""
    process = start(place, recipe)
    deadline = time.monotonic() + PATIENCE
    while len(finished(place)) < shards and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    assert process.poll() is None, process.communicate()
    kept = finished(place)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return kept


def killed_and_resumed(folder: Path, tensors: int, rows: int, columns: int, shard_bytes: int, stops: list[int]) -> None:
    place = new_home(folder, tensors, rows, columns)
    recipe = recipe_file(folder, shard_bytes)
    for stop in stops:
        before = kill_after(place, recipe, stop)
        assert len(before) >= stop
        with place.open() as lab:
            assert not list(lab.desk.all(CandidateManifest))
            assert lab.verify().ok
    process = start(place, recipe)
    seen = set(before.items())
    while process.poll() is None:
        seen |= finished(place).items()
        time.sleep(0.002)
    out, err = process.communicate()
    assert process.returncode == 0, err
    again = {name for name, identity in seen if name in before and identity != before[name]}
    assert not again, "a finished shard was written again"
    assert len({name for name, _ in seen}) > len(before)
    artifact = json.loads(out)["artifact"]
    with place.open() as lab:
        assert lab.reproduce(artifact, folder=folder / "again", threads=2) == artifact
        assert lab.verify().ok
    assert not finished(place)


def test_a_killed_merge_goes_on_at_the_shard_and_gives_the_same_digest(tmp_path: Path) -> None:
    killed_and_resumed(tmp_path, 12, 512, 1024, 1 << 20, [2, 5])


@pytest.mark.proof
def test_a_merge_of_468_million_parameters_killed_at_random_goes_on_at_the_shard(tmp_path: Path) -> None:
    stops = sorted(random.Random(0).sample(range(1, 15), 3))
    killed_and_resumed(tmp_path, 16, 7168, 4096, 64 << 20, stops)


def limited(bytes_: int) -> Callable[[], None]:
    """No file of the child's process may become longer."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, bytes_))


def test_a_file_that_may_not_grow_is_refused_in_words_and_leaves_nothing_visible(tmp_path: Path) -> None:
    place = new_home(tmp_path, 4, 512, 1024)
    recipe = recipe_file(tmp_path, 16 << 20)
    command = [sys.executable, "-m", "studbook", "--lab", str(place.path), "--keys", str(place.keys)]
    run = subprocess.run(
        [*command, "breed", str(recipe)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limited(2 << 20),
    )
    assert run.returncode == 7, run.stderr
    assert "Traceback" not in run.stderr
    assert not finished(place)
    assert not list(place.path.glob("cache/resume/*/child/*.partial"))
    again = run_cli(place, "breed", str(recipe))
    assert again.returncode == 0, again.stderr


def test_a_parent_that_lost_its_end_is_named_and_nothing_is_accepted(tmp_path: Path) -> None:
    place = new_home(tmp_path, 4, 512, 1024)
    recipe = recipe_file(tmp_path, 16 << 20)
    with place.open() as lab:
        digest = lab.desk.find_model("second")
        manifest = lab.desk.registered()[digest][1]
        weights = max(manifest.files, key=lambda b: b.size)
        path = lab.desk.workspace.blob_path(weights.sha256)
    path.chmod(0o644)
    os.truncate(path, weights.size - 4096)
    run = run_cli(place, "breed", str(recipe))
    assert run.returncode in (3, 4), run.stderr
    assert "Traceback" not in run.stderr
    with place.open() as lab:
        assert not list(lab.desk.all(CandidateManifest))
