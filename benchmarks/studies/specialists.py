"""The models of the orchestration study: a champion, four specialists, their adapters, and two single models beside them.

All descend from the shipped founders. The champion is what the demo deploys, the founders' task delta at 0.3. From it are
fine-tuned, by operators of the lab in a locked-down worker: one specialist a skill, and the same as a rank-8 adapter; and
on the rows of all four together one model with the steps of one specialist and one with the steps of all four. From that
last one, the strongest single model, come four late specialists, and one that takes a specialist's steps on all rows.
What is bred is a function of these recipes, so a model that lies in the folder of an earlier run is taken as it is.

Needs the extra ``train``; about fifteen minutes on one idle core.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from studbook.breeding.operators import AdapterTrain, AnyOperator, FineTune, TaskDelta
from studbook.breeding.template import operator_fields
from studbook.breeding.trained_worker import PACKAGE
from studbook.models.slm import read_slm
from studbook.records import digest
from studbook.sandbox import Limits, run_worker
from studbook.tensors.contract import CONTRACT_SHA256

ROOT = Path(__file__).resolve().parents[2]
FOUNDERS = ROOT / "examples" / "founders"
sys.path.append(str(FOUNDERS))

import routing  # noqa: E402
import skills  # noqa: E402

SEED, STEPS, ROWS = 1, 300, 4000
CHAMPION, SINGLE, LONG, LONGER = "champion", "single", "single-all-steps", "single-more-steps"
LIMITS = Limits(seconds=3600, memory_bytes=4 << 30, file_bytes=16 << 20)


class Bred(NamedTuple):
    """One model on disk.

    Attributes:
        path: Its container.
        sha256: Its digest.
        adapter: Its package, if it was trained as one.
        operator: The record that made it.
    """

    path: Path
    sha256: str
    adapter: Path | None
    operator: AnyOperator


def breed_all(folder: Path) -> dict[str, Bred]:
    """Every model by its name; those that lie there already are not bred again."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    base = FOUNDERS / "base" / "base.slm"
    founders = [FOUNDERS / name / f"{name}.slm" for name in ("rev-srt", "cap-rot", "dup-odd", "brk")]
    found = {CHAMPION: _breed(TaskDelta(scales=(0.3,) * 4, skip=()), base, founders, {}, folder)}
    start = found[CHAMPION].path
    slices = {skill: _slice(folder, skill) for skill in routing.ROUTED}
    every = tuple(_sha256(path) for path in slices.values())
    for skill, path in slices.items():
        found[skill] = _breed(FineTune(**_recipe(STEPS, (_sha256(path),))), start, [start], slices, folder)
    for skill, path in slices.items():
        recipe = _recipe(STEPS, (_sha256(path),), rate=1e-2)
        low_rank = AdapterTrain(**recipe, rank=8, alpha=16.0, targets=("layers.*.w?.weight",), licence="CC0-1.0")
        found[f"{skill} adapter"] = _breed(low_rank, start, [start], slices, folder)
    found[SINGLE] = _breed(FineTune(**_recipe(STEPS, every)), start, [start], slices, folder)
    found[LONG] = _breed(FineTune(**_recipe(len(every) * STEPS, every)), start, [start], slices, folder)
    late = found[LONG].path
    for skill, path in slices.items():
        found[f"{skill}-late"] = _breed(FineTune(**_recipe(STEPS, (_sha256(path),))), late, [late], slices, folder)
    found[LONGER] = _breed(FineTune(**_recipe(STEPS, every)), late, [late], slices, folder)
    return found


def _recipe(steps: int, data: tuple[str, ...], rate: float = 2e-3) -> dict[str, object]:
    return {
        "steps": steps,
        "rate": rate,
        "batch": 64,
        "seed": SEED,
        "reach": 2.0,
        "rehearsal": 0.0,
        "data": data,
        "rehearsed": (),
    }


def _slice(folder: Path, skill: str) -> Path:
    path = folder / f"{skill}.jsonl"
    lines = (skills.compact_json(row) + "\n" for row in routing.slice_rows(SEED, skill, ROWS))
    path.write_text("".join(lines), encoding="utf-8")
    return path


def _breed(operator: AnyOperator, base: Path, parents: Sequence[Path], slices: dict[str, Path], folder: Path) -> Bred:
    named = [[str(path), read_slm(path).sha256] for path in (base, *parents)]
    fields = operator_fields(operator)
    place = folder / digest([fields, [sha256 for _, sha256 in named]])[:16]
    if not (place / "candidate.slm").exists():
        place.mkdir(exist_ok=True)
        wanted = operator.slices() if slices else ()
        files = {_sha256(path): str(path) for path in slices.values() if _sha256(path) in wanted}
        job = {
            "base": named[0],
            "parents": named[1:],
            "operator": fields,
            "numeric_contract": CONTRACT_SHA256,
            "output_bytes": LIMITS.file_bytes,
            "threads": 1,
            "chunk": 1 << 20,
            "slices": files,
        }
        run_worker(operator.worker, job, place, LIMITS, [base, *parents, *map(Path, files.values())])
    adapter = place / PACKAGE
    model = place / "candidate.slm"
    return Bred(model, _sha256(model), adapter if adapter.exists() else None, operator)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
