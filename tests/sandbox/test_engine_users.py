"""The engine in a locked-down worker, as root and as an ordinary user: the same bits as out of it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from lab_fixtures import founder
from sandbox_fixtures import NOBODY, USERS, copied_python
from studbook.evaluation.smokes import Spoken, spoken
from studbook.models.engine import Engine
from studbook.sandbox import KERNEL, landlock
from studbook.sandbox.libc import MACHINE

pytestmark = pytest.mark.skipif(
    MACHINE is None or landlock.version() < 6, reason="needs Linux with Landlock version 6 on x86-64 or 64-bit Arm"
)

# What the engine's worker imports; kernels are numpy's without a compiler.
PACKAGES = ("studbook", "msgspec", "numpy", "rfc8785", "wasmtime", "yaml")
_DRIVER = """
import json, sys
from pathlib import Path
from studbook.sandbox import KERNEL, Limits, run_worker
model, sha256, folder = sys.argv[1:]
limits = Limits(seconds=60, memory_bytes=2 << 30, file_bytes=1 << 20, demands=KERNEL)
job = {"model": model, "sha256": sha256, "memory": 1 << 30}
answer = run_worker("studbook.evaluation.smoke_worker", job, Path(folder), limits, [model])
print(json.dumps([answer.value, answer.isolation]))
"""


@pytest.fixture(scope="module")
def python() -> Iterator[Path]:
    base = Path(tempfile.mkdtemp(prefix="studbook-engine-"))
    beside = []
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None
        package = Path(spec.origin).parent
        beside += [package, *package.parent.glob(f"{name}.libs"), *package.parent.glob(f"{name}-*.dist-info")]
    yield copied_python(base, beside)
    shutil.rmtree(base, ignore_errors=True)


@pytest.mark.parametrize("user", USERS)
def test_the_engine_computes_the_same_in_a_locked_down_worker_of(python: Path, user: str) -> None:
    model = python.parent.parent / "base.slm"
    shutil.copy(founder("base") / "base.slm", model)
    model.chmod(0o644)
    folder = python.parent.parent / user
    folder.mkdir()
    drop = {}
    if user == "nobody":
        os.chown(folder, NOBODY, NOBODY)
        drop = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    with Engine(model.read_bytes(), fuel=True) as engine:
        here = spoken(engine)
    command = [str(python), "-I", "-B", "-c", _DRIVER, str(model), here.artifact, str(folder)]
    environment = {"PATH": "/usr/bin:/bin"}
    ran = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False, **drop)  # type: ignore[call-overload]
    assert ran.returncode == 0, ran.stderr
    value, isolation = json.loads(ran.stdout)
    assert msgspec.convert(value, Spoken) == here
    assert set(KERNEL) <= set(isolation)
