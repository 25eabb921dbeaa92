"""A good bundle from the small lab: its champion, with a dense, a sparse and a low-rank package on top."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parent))

import msgspec

from assembly.drafts import Draft, relogged
from lab_fixtures import CLUSTER, PERSON, Place, founder, prepare
from studbook.adapters.changes import Dense, LowRank
from studbook.adapters.make import low_rank, random_delta
from studbook.adapters.reader import parse_adapter
from studbook.adapters.writer import write_adapter
from studbook.assembly.manifests import needs
from studbook.assembly.measuring import measure
from studbook.lab import Lab
from studbook.lab.assembling import Wanted
from studbook.models.keyvalue import format_manifest
from studbook.models.slm import Slm, parse_slm, read_slm, write_slm

STACK = ("dense", "sparse", "factors")


def released(place: Place) -> None:
    """A champion that a round chose, routed, reviewed, and with three approved packages made for it."""
    with place.open() as lab:
        first = lab.round(CLUSTER)
        assert first.released is not None, first.record.no_op.reasons
        lab.release(first.released, "champion", PERSON, "won the first round")
        lab.policies.route("champion", PERSON)
        lab.review()
        lab.parents(CLUSTER, keep=True)
        register_packages(lab, place.path.parent / "packages")


def register_packages(lab: Lab, folder: Path) -> None:
    """Register and approve a package of every kind for the champion; their folders lie below a new one."""
    base = lab.desk.model(lab.desk.champion())
    for name, data in packages(base).items():
        lab.register(package_folder(folder / name, name, base, data))
        lab.approve(name, PERSON, reason="made from shipped founders")


def packages(base: Slm) -> dict[str, bytes]:
    """One package of every kind for a model, in the order of the stack."""
    tuned = read_slm(founder("rev-srt") / "rev-srt.slm")
    name = "layers.1.w1.weight"
    shape = base.dense(name).shape
    dense = {"norm.weight": Dense(tuned.dense("norm.weight") - base.dense("norm.weight")),
             name: Dense(np.float32(0.25) * (tuned.dense(name) - base.dense(name)))}  # fmt: skip
    wave = np.sin(np.arange(shape[1] * 2, dtype=np.float32)).astype(np.float32).reshape(2, shape[1])
    left = np.cos(np.arange(shape[0] * 2, dtype=np.float32)).astype(np.float32).reshape(shape[0], 2)
    factors = {name: LowRank(wave * np.float32(0.05), left * np.float32(0.05), 2.0)}
    order = {spec.name: dense[spec.name] for spec in base.shape.tensors() if spec.name in dense}
    return {
        "dense": write_adapter(
            base.shape, base.tokenizer_sha256, order, base_sha256=base.sha256, licence="CC0-1.0", kind="task-delta",
            digests={"tuned_sha256": tuned.sha256},
        ),
        "sparse": random_delta(base, tuned, licence="CC0-1.0", keep=0.02, seed=7),
        "factors": low_rank(base, factors, licence="CC0-1.0", kind="trained", digests={"data_sha256": tuned.sha256}),
    }  # fmt: skip


def package_folder(folder: Path, name: str, base: Slm, data: bytes) -> Path:
    """A folder that registers as a package."""
    found = parse_adapter(data)
    folder.mkdir(parents=True)
    (folder / f"{name}.adp").write_bytes(data)
    fields = {
        "kind": "adapter",
        "name": name,
        "path": f"{name}.adp",
        "sha256": found.sha256,
        "package": found.head.magic,
        "base_sha256": base.sha256,
        "tokenizer_sha256": base.tokenizer_sha256,
    }
    (folder / "source.manifest").write_bytes(format_manifest(fields))
    return folder


@pytest.fixture(scope="session")
def released_lab(prepared_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The small lab with a champion that may be assembled; read it, or copy it."""
    place = prepared_lab.copy(tmp_path_factory.mktemp("released"))
    released(place)
    return place


@pytest.fixture(scope="session", params=["q8_0", "q4_0"])
def quantised_bundle(
    request: pytest.FixtureRequest, good_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The same of a quantised build; read it, or copy it."""
    folder = tmp_path_factory.mktemp("quantised") / str(request.param)
    quantised(good_bundle, folder, request.param)
    return folder


@pytest.fixture(scope="session")
def good_bundle(released_lab: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a package of every kind; read it, or copy it."""
    folder = tmp_path_factory.mktemp("bundle") / "champion"
    with released_lab.open() as lab:
        lab.assemble("champion", folder, Wanted(STACK))
    return folder


def quantised(good: Path, target: Path, dtype: str) -> None:
    """Write a good bundle as one of its model's q8_0 or q4_0 build, with the same packages on top.

    No round of the small lab promotes such a build, so its evidence is written anew, with a ledger around it.
    """
    draft = Draft(good)
    model = parse_slm(draft.binary("model"))
    tensors = {name: model.dense(name) for name in model.tensors}
    data = write_slm(model.shape, model.tokenizer, tensors, dtype)
    packages = [draft.binary(f"adapter-{k}") for k in range(1, len(draft.plan["stack"]) + 1)]
    build = parse_slm(data)
    own = needs(build, draft.plan["execution"]["engine"])
    found = measure(data, packages, model.sha256, own, model.shape.max_context - 1)
    operator = {"operator": "quantise/1", "dtype": dtype}
    draft.put("model", data)

    def manifest(value: dict[str, Any]) -> None:
        value |= {"storage": dtype, "base": model.sha256, "quantise_receipt": draft.sealed["evidence-operator-receipt"]}
        value |= {"runtime": msgspec.to_builtins(own), "logits": msgspec.to_builtins(found.logits)}
        first, *sources = value["lineage"]
        made = {**first, "operator": "quantise/1", "parents": [model.sha256]}
        value["lineage"] = [made, {**first, "digest": model.sha256, "name": "unquantised"}, *sources]

    def template(value: dict[str, Any]) -> None:
        value |= {"operator": operator, "parents": [model.sha256]}
        value |= {"base": model.sha256}
        value["expected"] |= {"label": dtype, "size_bytes": len(data)}

    inputs = [{"role": role, "before": model.sha256, "after": model.sha256} for role in ("base", "parent")]
    draft.edit("evidence-template", template)
    draft.edit("evidence-operator-receipt", _set(operator=operator, inputs=inputs))
    draft.edit("evidence-smoke", _set(logits=msgspec.to_builtins(found.logits)))
    draft.edit("model-manifest", manifest)
    for order, diagnostics in enumerate(found.stack, 1):
        draft.edit(f"evidence-adapter-{order}-source", lambda value: value["source"].update(base=model.sha256))
        draft.edit(f"adapter-manifest-{order}", _set(base=model.sha256, fused=dict(diagnostics.fused)))
    draft.edit("adapter-family", _set(base=model.sha256, logits=msgspec.to_builtins(found.whole)))
    draft.edit_plan(lambda plan: plan["execution"].update(memory_limit=own.memory_limit))
    relogged(draft)
    draft.write(target)


def _set(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda value: value.update(fields)


def main() -> int:
    """Write a good bundle into a folder: ``python tests/bundle_fixtures.py FOLDER``."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--plain", action="store_true", help="without packages")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = prepare(Path(folder) / "life")
        released(place)
        with Lab(place.path, place.keys) as lab:
            found = lab.assemble("champion", options.folder, Wanted(() if options.plain else STACK))
    print(f"{found.folder}: {found.files} files, {found.size} bytes, plan {found.plan}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
