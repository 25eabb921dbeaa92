"""Make the lab that this version leaves to all later ones: small, lived in, and verified for ever after by the tests.

    python tools/golden.py [--folder tests/golden]

Writes ``<folder>/v<version>/``: ``lab`` without its cache, ``keys/root.sha256`` (the pin; private keys are thrown away),
and ``SHA256SUMS`` over both. A folder that is there already is never replaced: what an earlier version made stays.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from studbook.errors import StudbookError
from studbook.lab import Lab
from studbook.lab.founding import PIN, read_policy
from studbook.models.manifests import trained_source_manifest
from studbook.models.shape import SlmShape
from studbook.models.slm_writer import write_slm
from studbook.models.tokenizers import ByteTokenizer
from studbook.records import canonical

__all__ = ["SUMS", "main", "sums"]

ROOT = Path(__file__).resolve().parents[1]
SUMS = "SHA256SUMS"
OWNER, CLUSTER, CLUSTERS, ITEMS = "golden", "rot", ("cap", "rot"), 24
SHAPE = SlmShape(
    vocab_size=260,
    hidden_size=16,
    layer_count=1,
    head_count=2,
    kv_head_count=2,
    head_dim=8,
    ffn_size=24,
    max_context=64,
    rope_theta=10000.0,
    rms_norm_epsilon=1e-5,
    tied=True,
)
POLICY: dict[str, Any] = {
    "name": "golden",
    "notes": "Two recipes over two founders with random weights; nothing here says anything about models.",
    "protected": list(CLUSTERS),
    "recipes": [
        {"operator": "blend/1", "weights": "uniform"},
        {"operator": "prune/1", "fraction": 0.5, "scope": "global", "skip": []},
    ],
    "gates": {"alpha": 0.2, "margin": 0.5, "calibration_margin": 2.0, "practical_minimum": 0.0, "finalists": 2},
}


def main(arguments: list[str] | None = None) -> int:
    """Make the golden lab of this version; returns the exit code."""
    parser = argparse.ArgumentParser(description="Make the golden lab of this version.")
    parser.add_argument("--folder", type=Path, default=ROOT / "tests" / "golden")
    options = parser.parse_args(arguments)
    target: Path = options.folder / f"v{version('studbook')}"
    if target.exists():
        print(f"{target} is there already; a golden lab is never made again", file=sys.stderr)
        return 1
    # The ledger names the machine; whose this was is nobody's business.
    platform.node = lambda: "golden"
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        try:
            _live(place)
        except StudbookError as error:
            print(f"{error}\n{error.advice}", file=sys.stderr)
            return error.exit_code
        shutil.copytree(place / "lab", target / "lab", ignore=shutil.ignore_patterns("cache"))
        (target / "keys").mkdir()
        shutil.copyfile(place / "keys" / PIN, target / "keys" / PIN)
    for path in target.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    (target / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sums(target).items()))
    print(f"wrote {target}: {sum(p.stat().st_size for p in target.rglob('*') if p.is_file())} bytes")
    return 0


def sums(folder: Path) -> dict[str, str]:
    """Path -> SHA-256 of every file of a golden lab, but the list itself; sorted by path."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != SUMS)
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def _live(place: Path) -> None:
    """Found, register, approve, freeze, a champion, a round, readiness, and room made by `gc` and a withdrawal."""
    policy = place / "policy.json"
    policy.write_text(json.dumps(POLICY))
    founders = list(_founders(place / "founders"))
    Lab.init(place / "lab", OWNER, place / "keys", read_policy(policy, OWNER))
    with Lab(place / "lab", place / "keys") as lab:
        for folder in founders:
            lab.register(folder)
            lab.approve(folder.name, OWNER, reason="random weights")
        lab.suites.freeze([_suites(place / "suites")], OWNER)
        lab.release("base", "champion", OWNER, "the first")
        outcome = lab.round(CLUSTER, parents=["left", "right"])
        print(f"{outcome.record.action}: {'; '.join(outcome.record.no_op.reasons)}")
        lab.ready()
        cleared = lab.gc().candidates
        # One comes back, so that later versions hold its bytes against its records; the others stay gone.
        lab.reproduce(cleared[0], restore=True)
        lab.withdraw("spare", OWNER, "to show what a withdrawal leaves")


def _founders(folder: Path) -> Iterator[Path]:
    """A base with random weights, two that moved a little away from it, and one that is withdrawn later."""
    shipped = ROOT / "examples" / "founders"
    random = np.random.default_rng(1)
    base = {s.name: (random.standard_normal(s.dims) * 0.2 + (len(s.dims) == 1)).astype("f4") for s in SHAPE.tensors()}
    rows = (shipped / "data" / f"{CLUSTER}.jsonl").read_bytes().splitlines(keepends=True)[:40]
    start = ""
    for name in ("base", "left", "right", "spare"):
        place = folder / name
        (place / "data").mkdir(parents=True)
        noise = np.float32(0.0 if name == "base" else 0.01)
        tensors = {k: v + noise * random.standard_normal(v.shape).astype("f4") for k, v in base.items()}
        model = write_slm(SHAPE, ByteTokenizer(), tensors)
        start = start or hashlib.sha256(model).hexdigest()
        receipt = {
            "result_sha256": hashlib.sha256(model).hexdigest(),
            "start_sha256": None if name == "base" else start,
        }
        (place / f"{name}.slm").write_bytes(model)
        (place / "source.manifest").write_bytes(trained_source_manifest(name, SHAPE, ByteTokenizer(), tensors))
        (place / "training.json").write_bytes(canonical(receipt))
        (place / "data" / f"{CLUSTER}.jsonl").write_bytes(b"".join(rows))
        fields = {"manifest_version": 1, "kind": "data", "name": f"{name}-data", "seed": 1, "split": "train"}
        fields |= {"split_rule": "the first rows", "rows": len(rows), "file.0.path": f"data/{CLUSTER}.jsonl"}
        fields |= {"file.0.label": CLUSTER, "file.0.rows": len(rows)}
        fields |= {"file.0.sha256": hashlib.sha256(b"".join(rows)).hexdigest()}
        (place / "data.manifest").write_bytes(_lines(fields))
        for shared in ("licence.manifest", "CC0-1.0.txt"):
            shutil.copyfile(shipped / "base" / shared, place / shared)
        yield place


def _suites(folder: Path) -> Path:
    """The first items of the shipped suites."""
    for role in ("development", "selection", "sealed"):
        for cluster in (*CLUSTERS, "calibration"):
            source = ROOT / "examples" / "suites" / role / f"{role}-{cluster}"
            items = b"".join((source / "items.jsonl").read_bytes().splitlines(keepends=True)[:ITEMS])
            stated = (source / "suite.manifest").read_text().splitlines()
            fields = dict(line.split("=", 1) for line in stated if "=" in line)
            fields |= {"items": str(ITEMS), "items_sha256": hashlib.sha256(items).hexdigest()}
            place = folder / role / source.name
            place.mkdir(parents=True)
            (place / "items.jsonl").write_bytes(items)
            (place / "suite.manifest").write_bytes(_lines(fields))
    return folder


def _lines(fields: dict[str, Any]) -> bytes:
    return "".join(f"{key}={value}\n" for key, value in fields.items()).encode()


if __name__ == "__main__":
    sys.exit(main())
