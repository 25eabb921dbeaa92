"""Write the frozen suites and the training slices; the same seed gives the same bytes (`make suites`).

A suite is a folder ``examples/suites/<role>/<name>/`` with ``items.jsonl`` and ``suite.manifest``. There are three
roles, each made of prompts of its own split: development with 200 items a skill, selection and sealed with 1,000 each.
A role has one suite a skill, and one calibration suite with 70 items of every skill. The prompts of one suite are
distinct and clean. Three more, ``examples/honesty/honesty-<task>/``, hold tasks that nobody here was taught; they are
shown and never gate. A slice ``examples/founders/data/<skill>.jsonl`` holds 500 distinct rows of the train split.

Run ``python examples/founders/suites.py`` to rewrite the files, or with ``--check`` to compare them instead.
Standard library only.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

import honesty
import skills

__all__ = ["ITEMS", "SEED", "SLICE_ROWS", "all_files", "honesty_files", "items_of", "manifest_text", "slice_of"]

SEED = 2025
"""Seed of every suite and slice."""

ITEMS = {"development": 200, "selection": 1000, "sealed": 1000}
"""Items of one task suite, by role."""

CALIBRATION_ITEMS = 70
"""Items of each skill in a calibration suite."""

SLICE_ROWS = 500
"""Rows of one training slice."""

MAX_NEW_TOKENS = 12
"""Longest answer a model may write: five doubled letters, the end-of-sequence token, and one to spare."""

_HERE = Path(__file__).resolve().parent


def items_of(role: str, skill: str) -> list[dict[str, str]]:
    """Return the items of the task suite of ``skill``, clean prompts only, in the order they were drawn."""
    rng = skills.seeded(SEED, "suite", role, skill)
    rows = skills.rows_of_skill(rng, skill, role, ITEMS[role])
    return [_item(f"{skill}-{role}-{number:04d}", row) for number, row in enumerate(rows, 1)]


def calibration_items(role: str) -> list[dict[str, str]]:
    """Return the items of the calibration suite: ``CALIBRATION_ITEMS`` of every skill, skill after skill."""
    rows: list[skills.Row] = []
    for skill in skills.SKILLS:
        rng = skills.seeded(SEED, "calibration", role, skill)
        rows += skills.rows_of_skill(rng, skill, role, CALIBRATION_ITEMS)
    return [_item(f"calibration-{role}-{number:04d}", row) for number, row in enumerate(rows, 1)]


def slice_of(skill: str) -> list[dict[str, str]]:
    """Return the training slice of ``skill``: ``SLICE_ROWS`` clean rows of the train split."""
    rng = skills.seeded(SEED, "slice", skill)
    rows = skills.rows_of_skill(rng, skill, "train", SLICE_ROWS)
    return [{"expected": row.expected, "prompt": row.prompt} for row in rows]


def manifest_text(role: str, name: str, cluster: str, items: bytes, count: int) -> str:
    """Return the ``key=value`` manifest of a suite whose item bytes are ``items``."""
    calibration = cluster == "mixture"
    fields = {
        "manifest_version": 1,
        "kind": "suite",
        "name": name,
        "role": role,
        "dimension": "calibration" if calibration else "task",
        "cluster": cluster,
        "scorer": "proper-scores" if calibration else "exact-match",
        "licence": "CC0-1.0",
        "items": count,
        "items_sha256": hashlib.sha256(items).hexdigest(),
        "generator": "skills.py",
        "generator_sha256": skills.generator_sha256(),
        "seed": SEED,
        "split_rule": skills.SPLIT_RULE,
        "max_new_tokens": MAX_NEW_TOKENS,
    }
    return "".join(f"{key}={value}\n" for key, value in fields.items())


def honesty_files(task: str) -> dict[str, bytes]:
    """Return the suite of a task that nobody was taught: shown on development items, never protected, never a target."""
    name = f"honesty-{task}"
    found = honesty.rows(skills.seeded(SEED, "honesty", task), task, ITEMS["development"])
    payload = _lines([_item(f"{name}-{number:04d}", row) for number, row in enumerate(found, 1)])
    changes = {
        "dimension": "honesty",
        "generator": "honesty.py",
        "generator_sha256": honesty.generator_sha256(),
    }
    text = manifest_text("development", name, task, payload, ITEMS["development"])
    lines = (f"{key}={changes.get(key, value)}\n" for key, _, value in (li.partition("=") for li in text.splitlines()))
    folder = f"honesty/{name}"
    return {f"{folder}/items.jsonl": payload, f"{folder}/suite.manifest": "".join(lines).encode()}


def all_files() -> dict[str, bytes]:
    """Return every generated file, by its path relative to ``examples/``."""
    files: dict[str, bytes] = {}
    for role in ITEMS:
        for skill in skills.SKILLS:
            files |= _suite_files(role, f"{role}-{skill}", skill, items_of(role, skill))
        files |= _suite_files(role, f"{role}-calibration", "mixture", calibration_items(role))
    for task in honesty.TASKS:
        files |= honesty_files(task)
    for skill in skills.SKILLS:
        files[f"founders/data/{skill}.jsonl"] = _lines(slice_of(skill))
    return files


def main(argv: list[str] | None = None) -> int:
    """Write the files, or compare them with ``--check``; return 1 if one differs."""
    parser = argparse.ArgumentParser(description="Write the founders' suites and training slices.")
    parser.add_argument("--check", action="store_true", help="compare with the files on disk and write nothing")
    parser.add_argument("--out", type=Path, default=_HERE.parent, help="the folder that holds founders/ and suites/")
    arguments = parser.parse_args(argv)
    stale = []
    for path, payload in all_files().items():
        target = arguments.out / path
        if arguments.check:
            if not target.is_file() or target.read_bytes() != payload:
                stale.append(path)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(payload)
    for path in stale:
        print(f"differs from its generator: {path}", file=sys.stderr)
    return 1 if stale else 0


def _item(identity: str, row: skills.Row) -> dict[str, str]:
    return {
        "cluster": row.skill,
        "expected": row.expected,
        "id": identity,
        "perturbation": row.perturbation,
        "prompt": row.prompt,
    }


def _lines(rows: list[dict[str, str]]) -> bytes:
    return "".join(skills.compact_json(row) + "\n" for row in rows).encode()


def _suite_files(role: str, name: str, cluster: str, items: list[dict[str, str]]) -> dict[str, bytes]:
    payload = _lines(items)
    folder = f"suites/{role}/{name}"
    manifest = manifest_text(role, name, cluster, payload, len(items))
    return {f"{folder}/items.jsonl": payload, f"{folder}/suite.manifest": manifest.encode()}


if __name__ == "__main__":
    sys.exit(main())
