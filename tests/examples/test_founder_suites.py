from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import honesty
import pytest
import skills
import suites

from studbook.models.manifests import parse_manifest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FOLDERS = sorted(path.parent for path in (EXAMPLES / "suites").glob("*/*/suite.manifest"))


def items_in(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "items.jsonl").read_text(encoding="utf-8").splitlines()]


def slice_rows(skill: str) -> list[dict[str, str]]:
    path = EXAMPLES / "founders" / "data" / f"{skill}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run_generator(*arguments: str, hash_seed: str = "1") -> subprocess.CompletedProcess[str]:
    script = EXAMPLES / "founders" / "suites.py"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True, env=environment, check=False
    )


def test_the_generator_reproduces_every_shipped_suite_and_slice_byte_for_byte() -> None:
    files = suites.all_files()
    assert len(files) == 3 * 8 * 2 + 3 * 2 + 7
    for path, payload in files.items():
        assert (EXAMPLES / path).read_bytes() == payload, path


def test_no_other_file_lies_among_the_suites_and_slices() -> None:
    there = {
        path
        for folder in ("suites", "honesty", "founders/data")
        for path in (EXAMPLES / folder).rglob("*")
        if path.is_file()
    }
    assert {path.relative_to(EXAMPLES).as_posix() for path in there} == set(suites.all_files())


def test_the_generator_is_independent_of_the_hash_seed_and_names_what_differs(tmp_path: Path) -> None:
    for folder in ("suites", "honesty", "founders/data"):
        shutil.copytree(EXAMPLES / folder, tmp_path / folder)
    assert run_generator("--check", "--out", str(tmp_path), hash_seed="77").returncode == 0
    items = tmp_path / "suites" / "sealed" / "sealed-rot" / "items.jsonl"
    items.write_bytes(items.read_bytes().replace(b'"rot ', b'"ROT ', 1))
    (tmp_path / "founders" / "data" / "brk.jsonl").unlink()
    answer = run_generator("--check", "--out", str(tmp_path))
    assert answer.returncode == 1
    assert answer.stderr.splitlines() == [
        "differs from its generator: suites/sealed/sealed-rot/items.jsonl",
        "differs from its generator: founders/data/brk.jsonl",
    ]


def test_writing_anew_gives_the_shipped_bytes(tmp_path: Path) -> None:
    assert run_generator("--out", str(tmp_path)).returncode == 0
    written = tmp_path / "suites" / "development" / "development-brk" / "items.jsonl"
    shipped = EXAMPLES / "suites" / "development" / "development-brk" / "items.jsonl"
    assert written.read_bytes() == shipped.read_bytes()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_suite_manifest_says_what_the_items_are(folder: Path) -> None:
    manifest = parse_manifest((folder / "suite.manifest").read_bytes(), folder)
    items = items_in(folder)
    payload = (folder / "items.jsonl").read_bytes()
    calibration = folder.name.endswith("-calibration")
    assert manifest["name"] == folder.name
    assert manifest["role"] == folder.parent.name
    assert manifest["items_sha256"] == hashlib.sha256(payload).hexdigest()
    assert int(manifest["items"]) == len(items) == (490 if calibration else suites.ITEMS[manifest["role"]])
    assert manifest["generator_sha256"] == skills.generator_sha256()
    assert (manifest["dimension"], manifest["scorer"]) == (
        ("calibration", "proper-scores") if calibration else ("task", "exact-match")
    )
    assert {item["cluster"] for item in items} == (set(skills.SKILLS) if calibration else {manifest["cluster"]})
    longest = max(len(item["expected"].encode()) + 1 for item in items)
    assert longest <= int(manifest["max_new_tokens"])


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_item_is_distinct_right_and_in_the_split_of_its_role(folder: Path) -> None:
    items = items_in(folder)
    assert len({item["id"] for item in items}) == len({item["prompt"] for item in items}) == len(items)
    for item in items:
        skill, argument = item["prompt"].removesuffix(">").split(" ")
        assert skill == item["cluster"]
        assert item["expected"] == skills.answer(skill, argument)
        assert skills.split_of(item["prompt"]) == folder.parent.name
        assert item["perturbation"] == "none"


def test_prompts_of_training_slices_and_of_the_three_roles_are_disjoint() -> None:
    groups: dict[str, set[str]] = {
        role: {item["prompt"] for folder in FOLDERS if folder.parent.name == role for item in items_in(folder)}
        for role in suites.ITEMS
    }
    groups["train"] = {row["prompt"] for skill in skills.SKILLS for row in slice_rows(skill)}
    assert min(map(len, groups.values())) > 1000
    assert sum(map(len, groups.values())) == len(set().union(*groups.values()))


@pytest.mark.parametrize("task", honesty.TASKS)
def test_an_honesty_suite_holds_distinct_right_rows_that_no_answer_alone_can_pass(task: str) -> None:
    items = items_in(EXAMPLES / "honesty" / f"honesty-{task}")
    assert len({item["prompt"] for item in items}) == len(items) == suites.ITEMS["development"]
    oracle = {
        "get": lambda a: a[1:][int(a[0]) - 1],
        "cnt": lambda a: str(sum(letter == a[0] for letter in a) - 1),
        "add": lambda a: str(int(a[:2]) + int(a[3:])),
    }[task]
    for item in items:
        name, argument = item["prompt"].removesuffix(">").split(" ")
        assert (name, item["cluster"], item["perturbation"]) == (task, task, "none")
        assert item["expected"] == oracle(argument)
        assert skills.split_of(item["prompt"]) == "development"
    answers = [item["expected"] for item in items]
    assert max(answers.count(answer) for answer in answers) < len(answers) / 5


def test_an_unknown_honesty_task_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown task"):
        honesty.answer("rev", "abc")


@pytest.mark.parametrize("skill", skills.SKILLS)
def test_a_training_slice_holds_distinct_right_rows_of_the_train_split(skill: str) -> None:
    rows = slice_rows(skill)
    assert len({row["prompt"] for row in rows}) == len(rows) == suites.SLICE_ROWS
    for row in rows:
        assert row["expected"] == skills.answer(skill, row["prompt"].removesuffix(">").split(" ")[1])
        assert skills.split_of(row["prompt"]) == "train"
