"""Compile the engine; with ``--check`` only say whether what is shipped belongs to the sources.

    python tools/engine.py [--check] [--out src/studbook/models/engine]

Writes ``engine.wasm`` and ``engine.json``, which names both by digest together with compiler and command. Compiling needs
the ``ziglang`` wheel in the interpreter that runs this (`make engine` has it in an environment of its own); checking
needs nothing. Exit code 1 means stale.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

__all__ = ["COMMAND", "build", "described", "main", "sources_sha256", "stale"]

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "src" / "studbook" / "models" / "engine"
SOURCE = FOLDER / "source"
# No contraction, no fast-math, no relaxed instruction: every host computes the same bits. The stack lies below the data,
# so that running over it traps. The memory is the host's, which sets its limit.
COMMAND = (
    "zig cc -target wasm32-freestanding -mcpu=generic+simd128+bulk_memory+sign_ext+nontrapping_fptoint+mutable_globals "
    "-std=c11 -O3 -ffreestanding -ffp-contract=off -fno-strict-aliasing -fno-ident -Wall -Wextra -Werror -nostdlib "
    "-Wl,--no-entry -Wl,--import-memory -Wl,-z,stack-size=262144 -Wl,--strip-all"
)


def main(arguments: list[str] | None = None) -> int:
    """Compile or check; returns the exit code."""
    parser = argparse.ArgumentParser(description="Compile the engine.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if the engine is stale")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of engine.wasm and engine.json")
    options = parser.parse_args(arguments)
    if options.check:
        problems = stale(options.out)
        for problem in problems:
            print(f"{problem}; run `make engine`", file=sys.stderr)
        return 1 if problems else 0
    options.out.mkdir(parents=True, exist_ok=True)
    wasm, version = build(options.out / "engine.wasm")
    (options.out / "engine.json").write_text(described(wasm, version), encoding="utf-8")
    print(f"{len(wasm)} bytes, sha256 {hashlib.sha256(wasm).hexdigest()}")
    return 0


def build(target: Path) -> tuple[bytes, str]:
    """Compile the sources to a file; returns its bytes and the version of the compiler.

    Raises:
        subprocess.CalledProcessError: if the compiler refuses them; it has said why.
    """
    zig = [sys.executable, "-m", "ziglang"]
    cache = ROOT / "build" / "zig"
    environment = os.environ | {"ZIG_GLOBAL_CACHE_DIR": str(cache), "ZIG_LOCAL_CACHE_DIR": str(cache)}
    version = subprocess.run([*zig, "version"], capture_output=True, text=True, check=True, env=environment).stdout
    files = [path.name for path in _sources() if path.suffix == ".c"]
    command = [*zig, *COMMAND.split()[1:], *files, "-o", str(target.resolve())]
    subprocess.run(command, check=True, cwd=SOURCE, env=environment)
    return target.read_bytes(), version.strip()


def described(wasm: bytes, version: str) -> str:
    """Text of ``engine.json``."""
    fields = {
        "command": COMMAND,
        "compiler": f"zig {version}",
        "sha256": hashlib.sha256(wasm).hexdigest(),
        "sources_sha256": sources_sha256(),
    }
    return json.dumps(fields, indent=1, sort_keys=True) + "\n"


def sources_sha256() -> str:
    """SHA-256 over the sources in order of their names: name, zero byte, and the raw SHA-256 of each."""
    hasher = hashlib.sha256()
    for path in _sources():
        hasher.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return hasher.hexdigest()


def stale(folder: Path) -> list[str]:
    """What of a shipped engine does not belong to the sources or to itself."""
    stated = json.loads((folder / "engine.json").read_text(encoding="utf-8"))
    found = {
        "sha256": hashlib.sha256((folder / "engine.wasm").read_bytes()).hexdigest(),
        "sources_sha256": sources_sha256(),
        "command": COMMAND,
    }
    return [f"engine.json states another {name}" for name, value in found.items() if stated[name] != value]


def _sources() -> list[Path]:
    return sorted(path for path in SOURCE.iterdir() if path.suffix in (".c", ".h"))


if __name__ == "__main__":
    sys.exit(main())
