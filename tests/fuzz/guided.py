"""Readers driven by coverage, one after the other, each in a fork of this process; started by `tools/fuzz.py`.

Every line of standard input is a JSON list: a reader, a folder, and options of libFuzzer. The reader's output goes to
``log.txt`` in the folder, its findings beside it, one place in the code once; when it ended, its exit status is printed.
Reading the sources for coverage takes ten times as long as a fork. Needs atheris.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import traceback
import zlib
from pathlib import Path
from random import Random

import atheris

TESTS = Path(__file__).resolve().parents[1]
SOURCE = TESTS.parent / "src"
sys.path.insert(0, str(TESTS))
READERS = {"adapters", "errors", "evaluation", "exchange", "files", "ledger", "models", "records", "seal"}
# Of the lab only what reads publications.
OF_LAB = {"beside", "consumer", "mirror", "publication", "rootwalk", "seen"}
# Only readers are watched. Kernels are compiled from their bytecode, which must stay as it was written.
LEFT_ALONE = [
    ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    for path in sorted((SOURCE / "studbook").rglob("*.py"))
    if (
        (parts := path.relative_to(SOURCE).with_suffix("").parts)[1] not in READERS
        and not (parts[1] == "lab" and parts[-1] in OF_LAB)
    )
    or re.search("numba|tensors.compiling", path.read_text(encoding="utf-8"))
]
with atheris.instrument_imports(include=["studbook", "yaml"], exclude=LEFT_ALONE):
    from fuzz.harnesses import HARNESSES, check, mutable
    from fuzz.trees import mutated

# Memory is traced for one input in so many: tracing costs as much as reading.
SHARE = 8


class Run:
    """Gives inputs to one reader and keeps what goes wrong."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.seen: set[str] = set()

    def __call__(self, data: bytes) -> None:
        try:
            check(self.name, data, memory=zlib.crc32(data) % SHARE == 0)
        except Exception as error:
            self._keep(data, error)

    def _keep(self, data: bytes, error: Exception) -> None:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{type(error).__name__} {frame.filename}:{frame.lineno}"
        if place in self.seen:
            return
        self.seen.add(place)
        stem = f"finding-{hashlib.sha256(data).hexdigest()[:16]}"
        (self.folder / stem).write_bytes(data)
        (self.folder / f"{stem}.txt").write_text("".join(traceback.format_exception(error)), errors="replace")

    def mutate(self, data: bytes, limit: int, seed: int) -> bytes:
        """Half of the changes of JSON are changes of its tree."""
        begin = HARNESSES[self.name].json
        if begin is None or seed % 2:
            return bytes(atheris.Mutate(data, limit))
        return mutated(data, begin, Random(seed))[:limit]


def drive(name: str, folder: Path, options: list[str]) -> None:
    """Run one reader to its end; never returns."""
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for data in mutable(name):
        (corpus / hashlib.sha256(data).hexdigest()).write_bytes(data)
    words = folder / "words.txt"
    quoted = ("".join(f"\\x{byte:02x}" for byte in word) for word in HARNESSES[name].words or (b"\0",))
    words.write_text("".join(f'"{word}"\n' for word in quoted))
    run = Run(name, folder)
    atheris.Setup([sys.argv[0], *options, f"-dict={words}", str(corpus)], run, custom_mutator=run.mutate)
    atheris.Fuzz()


def main() -> None:
    for line in sys.stdin:
        name, folder, *options = json.loads(line)
        child = os.fork()
        if child == 0:
            log = os.open(Path(folder) / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            for stream in (1, 2):
                os.dup2(log, stream)
            try:
                drive(name, Path(folder), options)
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            os._exit(1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
