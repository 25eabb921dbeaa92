"""The files of a founder: container, trained-source manifest, data manifest, licence record, training receipt, lock.

A founder is a folder ``<name>/`` with ``<name>.slm``, ``source.manifest`` (one line group a tensor, whose digests match
the payloads inside the container; the loose tensor files are not shipped), ``data.manifest``, ``licence.manifest`` with
the licence text beside it, and ``training.json``. ``founders.lock`` pins the SHA-256 of every one of these files in the
form that ``sha256sum --check`` reads. Paths in ``data.manifest`` are relative to the folder above the founder's.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path

import network
import numpy as np
import recipe
import skills
import suites
import torch

from studbook.models.manifests import format_manifest, trained_source_manifest
from studbook.models.shape import SlmShape
from studbook.models.slm import write_slm
from studbook.models.tokenizers import ByteTokenizer

__all__ = ["LOCK", "SOURCES", "container", "environment_class", "family_files", "lock_text", "read_lock", "sha256_of"]

HERE = Path(__file__).resolve().parent
"""The folder of the shipped founders."""

LOCK = "founders.lock"
"""Name of the file of pins."""

SOURCES = ("network.py", "optimise.py", "recipe.py", "skills.py")
"""The files that decide a founder's bytes; their digests stand in its receipt."""

LICENCE = "CC0-1.0"
_LICENCE_TEXT = f"{LICENCE}.txt"
_LICENCE_DECLARED_IN = "docs/founders.md"


def sha256_of(data: bytes) -> str:
    """Return the SHA-256 of ``data`` in hex."""
    return hashlib.sha256(data).hexdigest()


def environment_class() -> dict[str, str]:
    """Return what decides whether two machines train to the same bytes: torch build, instruction set, platform."""
    return {
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_vendor": _cpu_vendor(),
        "platform": f"{platform.system()}-{platform.machine()}".lower(),
        "torch": str(torch.__version__),
    }


def container(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Return the f32 container of a founder's tensors, f32 arrays by canonical name."""
    return write_slm(SlmShape(**network.SHAPE), ByteTokenizer(), tensors)


def family_files(family: Mapping[str, recipe.Trained]) -> dict[str, bytes]:
    """Return every file of a trained family by its path relative to the founders' folder, without the lock."""
    base = sha256_of(container(family["base"].tensors))
    files: dict[str, bytes] = {}
    for name, trained in family.items():
        start = None if name in ("base", "ceiling") else base
        files |= {f"{name}/{file}": data for file, data in _founder_files(trained, start).items()}
    return files


def lock_text(files: Mapping[str, bytes]) -> bytes:
    """Return the pins of ``files``, one ``<sha256>  <path>`` a line, sorted by path."""
    return "".join(f"{sha256_of(files[path])}  {path}\n" for path in sorted(files)).encode()


def read_lock(folder: Path) -> dict[str, str]:
    """Return the pinned SHA-256 by path."""
    lines = (folder / LOCK).read_text(encoding="utf-8").splitlines()
    return {path: digest for digest, path in (line.split("  ", 1) for line in lines)}


def _founder_files(trained: recipe.Trained, start: str | None) -> dict[str, bytes]:
    name = trained.recipe.name
    slm = container(trained.tensors)
    data = _key_values(_data_fields(trained))
    text = (HERE / _LICENCE_TEXT).read_bytes()
    licence = {
        "manifest_version": 1,
        "kind": "licence",
        "spdx": LICENCE,
        "text_path": _LICENCE_TEXT,
        "text_sha256": sha256_of(text),
        "declared_in": _LICENCE_DECLARED_IN,
    }
    return {
        f"{name}.slm": slm,
        "source.manifest": trained_source_manifest(name, SlmShape(**network.SHAPE), ByteTokenizer(), trained.tensors),
        "data.manifest": data,
        "licence.manifest": _key_values(licence),
        _LICENCE_TEXT: text,
        "training.json": _canonical(_receipt(trained, slm, data, start)),
    }


def _data_fields(trained: recipe.Trained) -> dict[str, object]:
    """Return the data manifest: the stream of rows the founder saw, and the slices that show what they look like."""
    plan = trained.recipe
    fields: dict[str, object] = {
        "manifest_version": 1,
        "kind": "data",
        "name": f"{plan.name}-curriculum",
        "licence": LICENCE,
        "generator": "skills.py",
        "generator_sha256": skills.generator_sha256(),
        "seed": trained.seed,
        "split": "train",
        "split_rule": skills.SPLIT_RULE,
        "skills": " ".join(plan.own),
        "rehearsal": plan.rehearsal,
        "perturbed": plan.perturbed,
        "rows": trained.rows,
        "rows_sha256": trained.rows_sha256,
    }
    seen = skills.SKILLS if plan.rehearsal else plan.own
    for number, skill in enumerate(seen):
        payload = (HERE / "data" / f"{skill}.jsonl").read_bytes()
        fields[f"file.{number}.path"] = f"data/{skill}.jsonl"
        fields[f"file.{number}.label"] = skill
        fields[f"file.{number}.sha256"] = sha256_of(payload)
        fields[f"file.{number}.rows"] = suites.SLICE_ROWS
    return fields


def _receipt(trained: recipe.Trained, slm: bytes, data: bytes, start: str | None) -> dict[str, object]:
    items = suites.ITEMS["development"]
    return {
        "data_manifest_sha256": sha256_of(data),
        "development_items": items,
        "development_right": {skill: round(share * items) for skill, share in trained.development.items()},
        "environment_class": environment_class(),
        "kind": "training-receipt",
        "name": trained.recipe.name,
        "recipe": recipe.recipe_fields(trained.recipe),
        "result_bytes": len(slm),
        "result_sha256": sha256_of(slm),
        "rows": trained.rows,
        "seed": trained.seed,
        "source_sha256": {source: sha256_of((HERE / source).read_bytes()) for source in SOURCES},
        "start_sha256": start,
        "steps": trained.steps,
        "version": 1,
    }


def _key_values(fields: Mapping[str, object]) -> bytes:
    return format_manifest({key: str(value) for key, value in fields.items()})


def _canonical(value: object) -> bytes:
    """Return canonical JSON (RFC 8785); plain ``json`` is enough where all keys are ASCII and no number is a float."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _cpu_vendor() -> str:
    """Return the processor's vendor where the system tells; the arithmetic library chooses its kernels by it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    found = (line.split(":", 1)[1].strip() for line in lines if line.startswith(("vendor_id", "CPU implementer")))
    return next(found, "unknown")
