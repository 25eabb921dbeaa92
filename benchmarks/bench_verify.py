"""`studbook verify` against what it cannot be faster than: hashing the same files.

A lab of checkpoints of random tensors and of many small records is made through the public API, in a temporary folder.
Then three things are timed in alternation, in one process: opening and verifying the lab; hashing every file of it with
hashlib in as many threads as there are processors; and bare Ed25519 checks, as many as the lab holds signatures. A
signature costs what it costs, so it is told apart: the ratio asked for is hashing against verifying less signatures.

    python benchmarks/bench_verify.py [--bytes 1073741824] [--records 2000] [--rounds 7] [--folder DIR]
        [--write docs/proof]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import cryptography
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from studbook.executor import available_cores
from studbook.lab import Lab
from studbook.seal.envelope import open_envelope

PERSON = "bench"
MODELS = 8
TENSORS, ROW = 4, 1024
KIND = b"application/vnd.in-toto+json"
STEP = 1 << 20


def write_checkpoint(folder: Path, size: int, seed: int) -> Path:
    """A checkpoint of about ``size`` bytes of random f32."""
    rng = np.random.default_rng(seed)
    rows = max(1, size // (TENSORS * ROW * 4))
    span = rows * ROW * 4
    header = {
        f"layers.{n}.weight": {"dtype": "F32", "shape": [rows, ROW], "data_offsets": [n * span, (n + 1) * span]}
        for n in range(TENSORS)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    folder.mkdir()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _ in range(TENSORS):
            file.write(rng.standard_normal((rows, ROW), dtype=np.float32).data)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": ROW}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def make_lab(folder: Path, size: int, records: int) -> None:
    """Register the checkpoints and let a person approve them, again and again with another reason."""
    Lab.init(folder / "lab", PERSON, folder / "keys")
    with Lab(folder / "lab", folder / "keys") as lab:
        names = []
        for seed in range(MODELS):
            made = write_checkpoint(folder / f"model-{seed}", size // MODELS, seed)
            names.append(lab.register(made, licence="CC0-1.0")[-1].name)
            shutil.rmtree(made)
        while (count := len(lab.desk.entries())) < records:
            lab.approve(names[count % MODELS], PERSON, reason=f"approval at entry {count}")


def signatures(folder: Path) -> list[tuple[Ed25519PublicKey, bytes, bytes]]:
    """Every signature of the lab: key, signature, and what was signed."""
    lines = (folder / "lab" / "audit" / "ledger.jsonl").read_bytes().splitlines()
    envelopes = [*lines, *(p.read_bytes() for p in sorted((folder / "lab").glob("*/*-[0-9]*/*.json")))]
    found = []
    for envelope in map(open_envelope, envelopes):
        signed = b"DSSEv1 %d %s %d %s" % (len(KIND), KIND, len(envelope.payload), envelope.payload)
        for one in envelope.signatures:
            found.append((Ed25519PublicKey.from_public_bytes(bytes.fromhex(one.keyid)), one.sig, signed))
    return found


def hash_file(path: Path) -> str:
    """SHA-256 of a file in steps through one buffer, as fast as hashlib goes."""
    hasher, buffer = hashlib.sha256(), memoryview(bytearray(min(STEP, max(1, path.stat().st_size))))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
    return hasher.hexdigest()


def alternate(rounds: int, **ways: Callable[[], object]) -> dict[str, list[float]]:
    """Wall seconds of every way, taken in turn; the first turn warms up."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, work in ways.items():
            start = time.perf_counter()
            work()
            if turn:
                times[name].append(time.perf_counter() - start)
    return times


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """Verify, hash and check signatures in turn."""
    files = sorted(p for p in (folder / "lab").rglob("*") if p.is_file() and "cache" not in p.parts)
    # The largest first, as threads share them best.
    files.sort(key=lambda p: -p.stat().st_size)
    total = sum(p.stat().st_size for p in files)
    signed = signatures(folder)
    threads = available_cores()

    def verify() -> None:
        with Lab(folder / "lab", folder / "keys", writer=False, still=True) as lab:
            found = lab.verify()
        assert found.ok, found.problems

    def hashing() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(hash_file, files))

    def checks() -> None:
        for key, signature, payload in signed:
            key.verify(signature, payload)

    times = alternate(rounds, verify=verify, hashing=hashing, checks=checks)
    triples = list(zip(times["verify"], times["hashing"], times["checks"], strict=True))
    return {
        "files": len(files),
        "bytes": total,
        "threads": threads,
        "signatures": len(signed),
        "seconds": {name: median(found) for name, found in times.items()},
        "whole": median(h / v for v, h, _ in triples),
        "without_signatures": median(h / max(v - s, 1e-9) for v, h, s in triples),
        "microseconds_a_signature": median(times["checks"]) / len(signed) * 1e6,
    }


def facts() -> dict[str, Any]:
    names = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
    return {
        "processor": names[0].split(":")[1].strip() if names else platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "cryptography": cryptography.__version__,
    }


def page(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    machine, told = found["machine"], found["verifying"]
    seconds, size = told["seconds"], told["bytes"] / 1e9
    lines = [
        "# Verifying a lab",
        "",
        f"Written by `benchmarks/bench_verify.py`: medians of {found['rounds']} rounds in alternation, wall clock, files in "
        f"the page cache; load {machine['load']:.1f} when it ended.",
        f"{machine['processor']}, {machine['cores']} processors, Python {machine['python']}, cryptography "
        f"{machine['cryptography']}.",
        "",
        f"A lab of {told['bytes']:,} bytes in {told['files']:,} files, {found['records']:,} records, "
        f"{told['signatures']:,} signatures.",
        "",
        "| what | seconds | GB/s |",
        "|---|---:|---:|",
        f"| opening the lab and `verify`, whole | {seconds['verify']:.2f} | {size / seconds['verify']:.2f} |",
        f"| hashlib over the same files, {told['threads']} threads | {seconds['hashing']:.2f} | "
        f"{size / seconds['hashing']:.2f} |",
        f"| the same Ed25519 checks alone, one thread | {seconds['checks']:.2f} | |",
        "",
        f"Hashing against verifying less signatures: {told['without_signatures']:.2f}; against all of verifying: "
        f"{told['whole']:.2f}. A signature costs {told['microseconds_a_signature']:.0f} µs. Files are hashed in threads "
        "while signatures are checked in another, so on a machine with more processors than one they overlap.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bytes", type=int, default=1 << 30, help="bytes of tensors")
    parser.add_argument("--records", type=int, default=2_000, help="entries of the ledger")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where to make the lab [temporary folder]")
    parser.add_argument("--write", type=Path, help="folder for verify.json and verify.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        start = time.perf_counter()
        make_lab(Path(folder), arguments.bytes, arguments.records)
        print(f"made in {time.perf_counter() - start:.0f} s", file=sys.stderr)
        found = {"rounds": arguments.rounds, "records": arguments.records}
        found["verifying"] = measure(Path(folder), arguments.rounds)
        found["machine"] = facts()
    print(page(found))
    if arguments.write:
        arguments.write.mkdir(parents=True, exist_ok=True)
        (arguments.write / "verify.json").write_text(json.dumps(found, indent=2) + "\n")
        (arguments.write / "verify.md").write_text(page(found))


if __name__ == "__main__":
    main()
