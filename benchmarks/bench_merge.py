"""CPU seconds and memory of a merge: Studbook against mergekit, in alternation, and against copying the files.

Builds a Llama checkpoint (bf16; a base and three parents that are the base and small noise) in a temporary folder and
merges it with both. Every run is a process of its own whose libraries may use one thread. Counted are user and system
time: of the whole process, and of the merge alone, after the start: the imports and, for Studbook, loading its compiled
kernels from their cache. Anonymous memory is the highest value seen while the process ran. The peer computes with one
thread of torch and writes a new file; Studbook writes

* ``new``: a new file, synced, without digests: what the peer does;
* ``digests``: the same with the SHA-256 of file, leaves and tensors, computed while writing;
* ``again``: over an existing file, without digests: what a search does with candidates it will throw away.

The copy limit reads what the merge reads and overwrites a file of the child's size. Both tools' outputs are compared.
At the end the linear merge is bred once in a lab, with all that is more than merging: models hashed before and after,
the child hashed, its distance measured, records signed.

Give --own an interpreter with the locked core and nothing else: numba imports scipy wherever it finds it.

    python benchmarks/bench_merge.py --peer PYTHON_WITH_MERGEKIT [--own PYTHON] [--size small|large] [--rounds 3]
        [--write docs/proof]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from studbook.breeding.operators import Blend, Dare, Inputs, Mutation, Operator, Slerp, TaskDelta, Ties
from studbook.breeding.operators.run import stream
from studbook.models.checkpoint import Checkpoint, list_folder, open_checkpoint
from studbook.models.safetensors_writer import Shard, ShardSink, TensorSpec, plan_shards
from studbook.tensors.philox import stream_for
from studbook.tensors.sinks import MemorySink
from studbook.tensors.sources import ArraySource, TensorSource
from studbook.tensors.storage import Raw, Storage, aligned

HERE = Path(__file__).resolve()
MODELS = ("base", "first", "second", "third")
SHARD_BYTES = 1 << 40
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Size(NamedTuple):
    """Dimensions of a Llama model."""

    hidden: int
    inner: int
    layers: int
    vocabulary: int


SIZES = {"small": Size(256, 688, 4, 4000), "large": Size(1280, 3328, 20, 32000)}


class Merge(NamedTuple):
    """One merge, in both tools' words."""

    operator: Operator
    parents: int
    peer: dict[str, Any]


def peer(method: str, parents: int, base: str | None = None, **parameters: Any) -> dict[str, Any]:
    weights = parameters.pop("weights", [None] * parents)
    own = {k: parameters.pop(k) for k in ("density",) if k in parameters}
    models = [
        {"model": name, "parameters": {**own, **({} if w is None else {"weight": w})}}
        for name, w in zip(MODELS[1 : parents + 1], weights, strict=True)
    ]
    found = {"merge_method": method, "models": models, "parameters": parameters}
    return found | ({"base_model": base} if base else {})


THIRDS = (0.3, 0.3, 0.4)
MERGES = {
    "linear": Merge(Blend(weights=THIRDS), 3, peer("linear", 3, weights=THIRDS)),
    "task arithmetic": Merge(
        TaskDelta(scales=(0.3,) * 3, skip=()), 3, peer("task_arithmetic", 3, "base", weights=(0.3,) * 3)
    ),
    "slerp": Merge(Slerp(t=0.4, skip=()), 2, peer("slerp", 2, "first", t=0.4)),
    "DARE": Merge(
        Dare(keep=0.5, scales=(0.3,) * 3, seed=1, skip=()),
        3,
        peer("dare_linear", 3, "base", weights=(0.3,) * 3, density=0.5, rescale=True),
    ),
    "TIES": Merge(
        Ties(densities=(0.2,) * 3, weights=(1.0,) * 3, normalize=True, scale=1.0, skip=()),
        3,
        peer("ties", 3, "base", weights=(1.0,) * 3, density=0.2, normalize=True),
    ),
}
WAYS = ("new", "digests", "again")
# The peer takes minutes for these, and their ratios are far from any limit.
SLOW, FEW = ("DARE", "TIES"), 2


class Drawn(TensorSource):
    """A base that exists only as a seed: uniform noise, one standard deviation of a usual initialisation."""

    def __init__(self, size: Size) -> None:
        self.sha256 = "0" * 64
        self._shapes = shapes(size)
        self.names = tuple(sorted(self._shapes))

    def dims(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def storage(self, name: str) -> Storage:
        return "f32"

    def fill(self, name: str, start: int, out: Raw) -> None:
        noise = stream_for(0, bytes(32), name).noise(start, start + out.size)
        out[:] = noise * np.float32(0.035) + np.float32("norm" in name)


def shapes(size: Size) -> dict[str, tuple[int, ...]]:
    hidden, inner = size.hidden, size.inner
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (size.vocabulary, hidden),
        "lm_head.weight": (size.vocabulary, hidden),
        "model.norm.weight": (hidden,),
    }
    for layer in range(size.layers):
        at = f"model.layers.{layer}."
        found |= {f"{at}self_attn.{p}_proj.weight": (hidden, hidden) for p in "qkvo"}
        found |= {f"{at}mlp.{p}_proj.weight": (inner, hidden) for p in ("gate", "up")}
        found |= {f"{at}mlp.down_proj.weight": (hidden, inner)}
        found |= {f"{at}{p}_layernorm.weight": (hidden,) for p in ("input", "post_attention")}
    return found


def config(size: Size) -> dict[str, Any]:
    heads = size.hidden // 64
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": size.hidden,
        "intermediate_size": size.inner,
        "num_hidden_layers": size.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "vocab_size": size.vocabulary,
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 2048,
        "torch_dtype": "bfloat16",
    }


def plan(source: TensorSource) -> Shard:
    (shard,) = plan_shards([TensorSpec(n, "bf16", source.dims(n)) for n in source.names], SHARD_BYTES)
    return shard


def merge(operator: Operator, inputs: Inputs, folder: Path, *, way: str = "new") -> None:
    slot = folder / "model.safetensors" if way == "again" else None
    with ShardSink(plan(inputs.base), folder, digests=way == "digests", slot=slot) as sink:
        stream(operator, inputs, sink)
        sink.finish()


def opened(folder: Path, name: str) -> Checkpoint:
    return open_checkpoint(list_folder(folder / name), f"{MODELS.index(name):064x}", mapped=True)


def build(folder: Path, size: Size) -> None:
    for place, name in enumerate(MODELS):
        home = folder / name
        home.mkdir()
        (home / "config.json").write_text(json.dumps(config(size), indent=2))
        source = opened(folder, "base") if place else Drawn(size)
        skip = () if place else ("*",)
        merge(Mutation(strength=0.05, seed=place, skip=skip), Inputs(source, (source,)), home)


# -- children --------------------------------------------------------------------------------------------------------


def child(folder: Path, what: str, way: str, out: Path) -> None:
    """Runs in a process of its own; prints what the merge cost."""
    if what in MERGES:
        warm(MERGES[what])
    cpu, wall = time.process_time(), time.perf_counter()
    if what.startswith("copy"):
        copy([folder / name / "model.safetensors" for name in MODELS[1 : 1 + int(what[4:])]], out / "model.safetensors")
    else:
        chosen = MERGES[what]
        base, *parents = (opened(folder, name) for name in MODELS[: chosen.parents + 1])
        inputs = Inputs(base, tuple(parents))
        chosen.operator.check(inputs)
        merge(chosen.operator, inputs, out, way=way)
    now = time.process_time(), time.perf_counter()
    print(json.dumps({"cpu_s": now[0] - cpu, "wall_s": now[1] - wall, "start_cpu_s": cpu}))


def warm(chosen: Merge) -> None:
    """Load the compiled kernels from their cache, by a merge of some elements that differ."""
    dims = (512, 512)
    bits = [np.arange(place, place + 512 * 512, dtype=np.uint32).reshape(dims) for place in range(chosen.parents + 1)]
    sources = [ArraySource(f"{k:064x}", {"w": (b * 37 % 0x3F80).astype(np.uint16)}) for k, b in enumerate(bits)]
    stream(chosen.operator, Inputs(sources[0], tuple(sources[1:])), MemorySink({"w": dims}, "bf16"))


def copy(sources: list[Path], target: Path) -> None:
    """Read every source, and overwrite the target with the last one."""
    step = 1 << 19
    room = aligned(step, np.uint8).data
    handles = [os.open(path, os.O_RDONLY) for path in sources]
    out = os.open(target, os.O_WRONLY)
    for at in range(0, os.fstat(out).st_size, step):
        for handle in handles:
            count = os.preadv(handle, [room], at)
        os.pwrite(out, room[:count], at)
    for handle in (*handles, out):
        os.close(handle)


def measured(command: list[str], **environment: str) -> dict[str, float]:
    """Run a process; CPU seconds, wall seconds and highest anonymous memory, and what it printed."""
    # What the run before has left unwritten would be charged to the first one that syncs.
    os.sync()
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as said:
        wall = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=printed, stderr=said, env={**os.environ, **ONE_THREAD, **environment}
        )
        peak, done = 0, 0
        while not done:
            peak = max(peak, anonymous(process.pid))
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
            time.sleep(0.005)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - wall
        if process.returncode:
            said.seek(0)
            raise SystemExit(said.read().decode()[-4000:])
        printed.seek(0)
        inner = json.loads(printed.read().splitlines()[-1])
    return {
        "whole_cpu_s": usage.ru_utime + usage.ru_stime,
        "whole_wall_s": wall,
        "anonymous_mb": peak / 1000,
        **{k: inner[k] for k in ("cpu_s", "wall_s", "start_cpu_s")},
    }


def anonymous(pid: int) -> int:
    """Anonymous memory of a process in kB, 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), 0)


# -- comparisons -----------------------------------------------------------------------------------------------------


def differences(ours: Path, theirs: Path, folder: Path, name: str) -> dict[str, float]:
    """How far two merges are apart, in units in the last place of bf16, over all elements."""
    (ours / "config.json").write_text((folder / "base" / "config.json").read_text())
    a, b, base = open_checkpoint(list_folder(ours)), open_checkpoint(list_folder(theirs)), opened(folder, "base")
    equal = near = count = 0
    worst = 0.0
    moved = [0, 0]
    for tensor in a.names:
        for start in range(0, a.size(tensor), 1 << 20):
            stop = min(start + (1 << 20), a.size(tensor))
            x, y, z = (s.read(tensor, start, stop) for s in (a, b, base))
            unit = np.spacing(np.maximum(np.abs(x), np.abs(y))) * np.float32(1 << 16)
            apart = np.abs(x - y) / unit
            equal, near, count = equal + int((apart == 0).sum()), near + int((apart <= 1).sum()), count + x.size
            worst = max(worst, float(apart.max()))
            moved = [moved[0] + int((x != z).sum()), moved[1] + int((y != z).sum())]
    return {
        "equal": equal / count,
        "within_one_ulp": near / count,
        "largest_ulp": worst,
        "changed": moved[0] / count,
        "peer_changed": moved[1] / count,
    }


def runs(arguments: argparse.Namespace, folder: Path) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Every measurement, the tools in alternation."""
    (folder / "work").mkdir()
    own = partial(own_run, arguments, folder)
    for name, chosen in MERGES.items():
        own(name, "digests")  # compiles what is not compiled yet, and leaves a file to overwrite
        for turn in range(min(arguments.rounds, FEW) if name in SLOW else arguments.rounds):
            if arguments.peer:
                yield name, "peer", peer_run(arguments, folder, chosen.peer, turn)
            for way in WAYS:
                yield name, way, own(name, way)
            yield name, "copy", own(f"copy{chosen.parents + (name not in ('linear', 'slerp'))}", "")


def own_run(arguments: argparse.Namespace, folder: Path, what: str, way: str, **environment: str) -> dict[str, float]:
    out = folder / "work"
    if way in ("new", "digests"):
        (out / "model.safetensors").unlink(missing_ok=True)
    return measured([arguments.own, str(HERE), "--child", str(folder), what, way, str(out)], **environment)


def peer_run(arguments: argparse.Namespace, folder: Path, wanted: dict[str, Any], turn: int) -> dict[str, float]:
    text = {**wanted, "dtype": arguments.peer_dtype, "out_dtype": "bfloat16"}
    models = [{**m, "model": str(folder / m["model"])} for m in wanted["models"]]
    text["models"] = models
    if "base_model" in text:
        text["base_model"] = str(folder / text["base_model"])
    (folder / "peer.json").write_text(json.dumps(text))
    out = folder / "peer"
    if out.exists():
        for path in out.iterdir():
            path.unlink()
    script = str(HERE.with_name("merge_peer.py"))
    return measured([arguments.peer, script, str(folder / "peer.json"), str(out)])


def lab_run(arguments: argparse.Namespace, folder: Path) -> float:
    """CPU seconds of breeding the linear merge in a lab, with one thread, its workers included."""
    lab = ("--lab", str(folder / "lab"))
    models = MODELS[1:]
    recipe = json.dumps({"operator": "blend/1", "weights": THIRDS})
    parents = [word for name in models for word in ("--parent", name)]
    steps = (
        ["init", str(folder / "lab"), "--owner", "bench"],
        *([*lab, "register", str(folder / name), "--licence", "CC0-1.0"] for name in models),
        *([*lab, "approve", name, "--as", "bench"] for name in models),
        [*lab, "breed", recipe, *parents, "--threads", "1"],
    )
    for step in steps:
        before = os.times()
        command = [arguments.own, "-m", "studbook", *step]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **ONE_THREAD})
        if done.returncode:
            raise SystemExit(done.stderr[-4000:])
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def facts() -> dict[str, Any]:
    names = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
    return {
        "processor": names[0].split(":")[1].strip() if names else platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": __import__("numba").__version__,
    }


def gather(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    size = SIZES[arguments.size]
    build(folder, size)
    rows: dict[str, dict[str, list[dict[str, float]]]] = {name: {} for name in MERGES}
    same: dict[str, dict[str, float]] = {}
    for name, way, cost in runs(arguments, folder):
        rows[name].setdefault(way, []).append(cost)
        print(f"{name:16} {way:8} {cost['cpu_s']:8.2f} s CPU {cost['anonymous_mb']:8.0f} MB", file=sys.stderr)
        if way == "digests" and arguments.peer and name not in same:
            same[name] = differences(folder / "work", folder / "peer", folder, name)
    with tempfile.TemporaryDirectory() as cache:
        cold = own_run(arguments, folder, "TIES", "again", NUMBA_CACHE_DIR=cache)
        warmed = own_run(arguments, folder, "TIES", "again", NUMBA_CACHE_DIR=cache)
    middle = {
        name: {way: {k: median(run[k] for run in costs) for k in costs[0]} for way, costs in ways.items()}
        for name, ways in rows.items()
    }
    drawn = Drawn(size)
    return {
        "machine": facts(),
        "parameters": sum(drawn.size(name) for name in drawn.names),
        "rounds": arguments.rounds,
        "peer_dtype": arguments.peer_dtype,
        "merges": middle,
        "same": same,
        "first_compile_cpu_s": cold["whole_cpu_s"] - warmed["whole_cpu_s"],
        "start_cpu_s": warmed["start_cpu_s"],
        "lab_cpu_s": lab_run(arguments, folder),
    }


def page(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    machine = found["machine"]
    lines = [
        "# Merging",
        "",
        f"Llama checkpoints of {found['parameters'] / 1e6:.0f} million parameters in bf16, one base and three parents, all "
        "in the page cache.",
        f"{machine['processor']}, one thread, Python {machine['python']}, numpy {machine['numpy']}, numba "
        f"{machine['numba']}; the peer is mergekit 0.1.5 with one thread of torch",
        f"and dtype {found['peer_dtype']}. Medians of {found['rounds']} runs ({' and '.join(SLOW)}: "
        f"{min(FEW, found['rounds'])}) in alternation; the merge alone, after imports and, for Studbook, loading kernels.",
        "Made by `benchmarks/bench_merge.py`; whole processes stand in the second table.",
        f"Breeding the linear merge in a lab costs {found['lab_cpu_s']:.2f} CPU s in all: models are hashed, the child too, "
        "its distance is measured, records are signed.",
        "",
        "| merge | peer CPU s | new file CPU s | ratio | with digests | over an old file | ratio | copy limit |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    memory = ["", "| merge | peer MB | Studbook MB | peer whole process CPU s | Studbook whole process CPU s |"]
    memory.append("|---|---:|---:|---:|---:|")
    for name, ways in found["merges"].items():
        cost = {way: ways[way]["cpu_s"] if way in ways else float("nan") for way in ("peer", *WAYS, "copy")}
        lines.append(
            f"| {name} | {cost['peer']:.2f} | {cost['new']:.2f} | {cost['peer'] / cost['new']:.1f} | {cost['digests']:.2f} "
            f"| {cost['again']:.2f} | {cost['peer'] / cost['again']:.1f} | {cost['copy']:.2f} |"
        )
        if "peer" in ways:
            a, b = ways["peer"], ways["new"]
            memory.append(
                f"| {name} | {a['anonymous_mb']:.0f} | {b['anonymous_mb']:.0f} | {a['whole_cpu_s']:.1f} | "
                f"{b['whole_cpu_s']:.1f} |"
            )
    lines += [*memory, "", "Compiling the kernels of one merge for the first time costs "]
    lines[-1] += (
        f"{found['first_compile_cpu_s']:.1f} CPU s; later they come from a cache. Start, imports and loading them "
    )
    lines[-1] += f"cost {found['start_cpu_s']:.2f} CPU s."
    if found["same"]:
        lines += ["", "| merge | equal elements | within one unit in the last place | changed | changed by the peer |"]
        lines.append("|---|---:|---:|---:|---:|")
        for name, same in found["same"].items():
            shares = " | ".join(f"{same[k]:.4%}" for k in ("equal", "within_one_ulp", "changed", "peer_changed"))
            lines.append(f"| {name} | {shares} |")
        lines += [
            "",
            "DARE drops other elements than the peer, whose masks come from a generator without position. In TIES the peer",
            "picks among equal magnitudes in no stated order, Studbook the lowest indices.",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        return child(Path(sys.argv[2]), sys.argv[3], sys.argv[4], Path(sys.argv[5]))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", help="an interpreter that has mergekit; without one only Studbook is measured")
    parser.add_argument(
        "--peer-dtype", default="float32", choices=("float32", "bfloat16"), help="what the peer computes in"
    )
    parser.add_argument("--own", default=sys.executable, help="an interpreter that has Studbook [this one]")
    parser.add_argument("--size", default="large", choices=SIZES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path, help="folder for merge.json and merge.md")
    arguments = parser.parse_args()
    if arguments.write:
        arguments.write.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        found = gather(arguments, Path(folder))
    print(page(found))
    if arguments.write:
        (arguments.write / "merge.json").write_text(json.dumps(found, indent=2) + "\n")
        (arguments.write / "merge.md").write_text(page(found))
    return None


if __name__ == "__main__":
    main()
