"""Running the worker, and holding what came out against what was declared."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from studbook.breeding.federation import Left, Update, run_clients
from studbook.breeding.operators import AnyOperator, FederatedRound, Inputs, decode_operator
from studbook.breeding.sources import SlmTensors, as_inputs, open_inputs
from studbook.breeding.worker import OUTPUT
from studbook.environment import training_environment
from studbook.errors import DigestDiffers
from studbook.files import read_file, sha256_file
from studbook.models.slm import Slm, read_slm
from studbook.records import (
    Blob,
    CandidateManifest,
    Check,
    Header,
    InputDigest,
    LineageTemplate,
    OperatorReceipt,
    Rung,
    digest,
)
from studbook.sandbox import Answer, Limits, run_worker
from studbook.tensors.reductions import block_squares, blocks, combine
from studbook.tensors.sources import TensorSource

__all__ = [
    "CHUNK",
    "Bred",
    "bound_header",
    "check_output",
    "delta_norm",
    "describe",
    "produce",
    "run_template",
    "squared_distance",
]

# Elements an operator computes at a time; the bytes do not depend on it.
CHUNK = 1 << 20


class Bred(NamedTuple):
    """What a worker left.

    Attributes:
        receipt: The operator receipt.
        path: The output file, in the worker's folder.
        notes: What the operator says of these inputs.
        sent: Of a federated round, what came of every client.
    """

    receipt: OperatorReceipt
    path: Path
    notes: tuple[str, ...] = ()
    sent: tuple[Update | Left, ...] = ()


def run_template(
    template: LineageTemplate, paths: Mapping[str, Path], folder: Path, *, threads: int = 1, chunk: int = CHUNK
) -> Answer:
    """Run one worker on a template and read back what it wrote.

    Args:
        template: What to do.
        paths: Digest -> file, for base, parents and training slices.
        folder: An empty folder for the worker.
        threads: Threads of the worker; the bytes do not depend on it.
        chunk: Elements computed at a time; the bytes do not depend on it.

    Returns:
        The worker's answer and isolation; its ``sha256`` and ``size`` have been checked against the file.

    Raises:
        DigestDiffers: if the output is not the file the worker says it wrote.
        OverBudget: if it is larger than the template allows.
        StudbookError: any of its kinds, if the worker fails.
    """
    return _run(template, paths, folder, threads, chunk)[0]


def _run(
    template: LineageTemplate, paths: Mapping[str, Path], folder: Path, threads: int, chunk: int
) -> tuple[Answer, tuple[Update | Left, ...]]:
    inputs = [template.base, *template.parents]
    limits = template.limits
    job: dict[str, Any] = {
        "base": [str(paths[template.base].absolute()), template.base],
        "parents": [[str(paths[d].absolute()), d] for d in inputs[1:]],
        "operator": template.operator,
        "numeric_contract": template.numeric_contract,
        "output_bytes": limits.output_bytes,
        "threads": threads,
        "chunk": chunk,
    }
    operator = decode_operator(template.operator)
    allowed = Limits(seconds=limits.seconds, memory_bytes=limits.memory_bytes, file_bytes=limits.output_bytes)
    files = [paths[d] for d in (*inputs, *operator.slices())]
    place = folder
    sent: tuple[Update | Left, ...] = ()
    if isinstance(operator, FederatedRound):
        sent = run_clients(operator, paths[template.parents[0]], paths, folder, allowed)
        job["clients"] = [{k: _plain(v) for k, v in one._asdict().items()} for one in sent]
        files = [*(paths[d] for d in inputs), *(one.package for one in sent if isinstance(one, Update))]
        (place := folder / "coordinator").mkdir()
    elif slices := operator.slices():
        job["slices"] = {d: str(paths[d].absolute()) for d in slices}
    answer = run_worker(operator.worker, job, place, allowed, files)
    if place != folder:
        (place / OUTPUT).replace(folder / OUTPUT)
    data = read_file(folder / OUTPUT, limits.output_bytes)
    if (hashlib.sha256(data).hexdigest(), len(data)) != (answer.value["sha256"], answer.value["size"]):
        raise DigestDiffers("is not the file the worker says it wrote", where=folder / OUTPUT)
    return answer, sent


def _plain(value: object) -> object:
    return str(value.absolute()) if isinstance(value, Path) else value


def produce(
    header: Header, template: LineageTemplate, paths: Mapping[str, Path], folder: Path, *, threads: int = 1
) -> Bred:
    """Breed one candidate and write its receipt; every figure in it is the lab's own.

    Args:
        header: Record header.
        template: The lineage template, already in the ledger.
        paths: Digest -> file, for base, parents and training slices.
        folder: An empty folder for the worker.
        threads: Threads of the worker.

    Raises:
        DigestDiffers: if an input changed before or during the run, or the output after it.
        StudbookError: any of its kinds, if the worker fails.
    """
    operator, opened = _opened(template, paths)
    inputs = [template.base, *template.parents, *operator.slices()]
    before = [sha256_file(paths[d]) for d in inputs]
    (answer, isolation), sent = _run(template, paths, folder, threads, CHUNK)
    after = [sha256_file(paths[d]) for d in inputs]
    for expected, first, last in zip(inputs, before, after, strict=True):
        if not expected == first == last:
            raise DigestDiffers("an input changed while it was used", where=paths[expected], reason="digest.input")
    output = read_slm(folder / OUTPUT)
    if output.sha256 != answer["sha256"]:
        raise DigestDiffers("changed after the worker had ended", where=folder / OUTPUT)
    roles = ["base", *("parent" for _ in template.parents)]
    receipt = OperatorReceipt(
        header=bound_header(header, operator),
        template=digest(template),
        operator=template.operator,
        inputs=tuple(
            InputDigest(role=role, before=b, after=a)  # type: ignore[arg-type]
            for role, b, a in zip(roles, before, after, strict=False)
        ),
        numeric_contract=template.numeric_contract,
        isolation=isolation,
        output=Blob(sha256=output.sha256, size=output.size),
        delta_norm=delta_norm(operator.reference(opened), SlmTensors(output)),
        reproducibility=operator.reproducibility,
    )
    return Bred(receipt, folder / OUTPUT, operator.notes(opened), sent)


def bound_header(header: Header, operator: AnyOperator) -> Header:
    """The header of an operator's receipt: where bytes follow from torch, its version belongs to the environment."""
    if operator.reproducibility == "exact":
        return header
    return replace(header, environment=training_environment())


def delta_norm(reference: TensorSource, child: TensorSource) -> float:
    """||child - reference||, L2 over all tensors in f64, as a reader decodes both; infinite where they do not match."""
    if {n: reference.dims(n) for n in reference.names} != {n: child.dims(n) for n in child.names}:
        return math.inf
    return math.sqrt(math.fsum(squared_distance(reference, child, name) for name in reference.names))


def squared_distance(reference: TensorSource, child: TensorSource, name: str) -> float:
    """Sum of (child - reference)^2 over one tensor, f64 in the contract's order."""

    def difference(start: int, stop: int) -> NDArray[np.float64]:
        left = child.read(name, start, stop).astype(np.float64)
        return left - reference.read(name, start, stop).astype(np.float64)

    return combine(block_squares(difference(s, e)) for s, e in blocks(child.size(name)))


def _opened(template: LineageTemplate, paths: Mapping[str, Path]) -> tuple[AnyOperator, Inputs]:
    """A template's operator and its inputs, as the lab itself reads them."""
    named = [(str(paths[d]), d) for d in (template.base, *template.parents)]
    return decode_operator(template.operator), as_inputs(*open_inputs(named[0], named[1:]))


def check_output(template: LineageTemplate, receipt: OperatorReceipt, output: Slm) -> tuple[Check, ...]:
    """Declared against produced: one row each, positive.

    Args:
        template: What was declared.
        receipt: What was measured on what came out.
        output: The file, parsed by the lab itself.
    """
    expected = template.expected
    rows: Sequence[tuple[str, object, object, bool]] = (
        ("artifact", receipt.output.sha256, output.sha256, receipt.output.sha256 == output.sha256),
        ("layout", expected.layout_sha256, output.layout_sha256, expected.layout_sha256 == output.layout_sha256),
        (
            "tokenizer",
            expected.tokenizer_sha256,
            output.tokenizer_sha256,
            expected.tokenizer_sha256 == output.tokenizer_sha256,
        ),
        ("storage", expected.label, output.label, expected.label == output.label),
        ("size", expected.size_bytes, output.size, expected.size_bytes == output.size),
        (
            "delta-norm",
            f"at most {expected.delta_norm:.6g}",
            f"{receipt.delta_norm:.6g}",
            0.0 <= receipt.delta_norm <= expected.delta_norm,
        ),
    )
    return tuple(Check(name=name, passed=ok, detail=f"declared {want}, came out {got}") for name, want, got, ok in rows)


def describe(
    header: Header,
    template: LineageTemplate,
    bred: Bred,
    checks: tuple[Check, ...],
    family: str,
    licence: str,
    data: tuple[str, ...],
    trade_offs: tuple[str, ...],
    fallback: str,
) -> CandidateManifest:
    """The manifest of a candidate: it inherits licence and data, never scores or permissions."""
    return CandidateManifest(
        header=header,
        name=f"{family}-{bred.receipt.output.sha256[:8]}",
        artifact=bred.receipt.output,
        family=family,
        purpose=template.purpose,
        template=digest(template),
        receipt=digest(bred.receipt),
        checks=checks,
        licence=licence,
        data=data,
        claim=Rung.STRUCTURAL,
        unsupported=("anything the parents were not measured on", "text beyond the tokenizer's context"),
        trade_offs=trade_offs,
        fallback=fallback,
    )
