"""A federated round: clients train apart, each on rows nobody else can read, and send what changed.

The coordinator trusts no client. A package that is broken, too large a change, made from another base or from another
shape is left out with its reason, as is a client whose worker failed; the round goes on with the others. What is left is
averaged by `federated-update/1`, weighted by rows and clipped to the declared norm. Nothing here makes a result private:
deltas tell of the rows they come from.

Source: McMahan et al., Communication-efficient learning of deep networks from decentralized data, arXiv 1602.05629.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from studbook.adapters.reader import parse_adapter
from studbook.adapters.source import AdapterSource, SlmSource
from studbook.breeding.operators import FederatedRound, FederatedUpdate, FineTune, Inputs
from studbook.breeding.operators.bounds import distance, norm
from studbook.breeding.operators.run import compute
from studbook.breeding.sources import SlmTensors
from studbook.breeding.template import operator_fields
from studbook.errors import ParentsDoNotFit, StudbookError
from studbook.files import read_file
from studbook.models.slm import Slm, read_slm
from studbook.models.slm_layout import MAX_FILE_BYTES
from studbook.models.slm_writer import write_slm
from studbook.records import digest
from studbook.sandbox import Limits, run_worker
from studbook.tensors.contract import CONTRACT_SHA256
from studbook.tensors.sources import ArraySource

__all__ = [
    "UPDATE",
    "Client",
    "Gathered",
    "Left",
    "Update",
    "average",
    "average_round",
    "gather",
    "limit_of",
    "run_client",
    "run_clients",
]

UPDATE = "update.adp1"
"""What a client leaves in its folder: what changed, as a package."""


# A change that was made shorter to just the limit is rounded to f32 afterwards.
_ROOM = 1.0 + 2.0**-20


class Client(NamedTuple):
    """One client.

    Attributes:
        name: What it is called in reasons.
        base: The model it starts from: the round's base, or it is left out.
        slices: Digest -> file of its own slices; its worker can read no others.
        recipe: How it trains; ``data`` names its slices and ``reach`` holds its change.
        rows: Its weight in the mean: how many rows it has.
    """

    name: str
    base: Path
    slices: Mapping[str, Path]
    recipe: FineTune
    rows: int


class Update(NamedTuple):
    """What a client sent.

    Attributes:
        client: Its name.
        package: The file.
        rows: Its weight.
    """

    client: str
    package: Path
    rows: int


class Left(NamedTuple):
    """A client that was left out.

    Attributes:
        client: Its name.
        reason: Stable reason, such as ``federated.norm``.
        words: Why, in words.
    """

    client: str
    reason: str
    words: str


class Gathered(NamedTuple):
    """What a round goes on with.

    Attributes:
        clients: Names of those inside, in order.
        sources: Their models: the base with each one's package on it.
        weights: Their rows.
        norms: L2 norm of each one's change.
        left: Those left out, with reasons.
    """

    clients: tuple[str, ...]
    sources: tuple[AdapterSource, ...]
    weights: tuple[float, ...]
    norms: tuple[float, ...]
    left: tuple[Left, ...]


def run_clients(
    operator: FederatedRound, base: Path, paths: Mapping[str, Path], folder: Path, limits: Limits
) -> tuple[Update | Left, ...]:
    """Train every client of a round, each in a process and folder of its own; they are called by their data manifests.

    Args:
        operator: The round.
        base: The model they start from.
        paths: Digest -> file of every slice.
        folder: An empty folder; every client gets one below it.
        limits: What each worker may use.
    """
    shared = {name: getattr(operator, name) for name in ("steps", "rate", "batch", "seed", "reach")}
    sent = []
    for place, one in enumerate(operator.clients):
        recipe = FineTune(**shared, rehearsal=0.0, data=one.data, rehearsed=())
        client = Client(one.manifest, base, {d: paths[d] for d in one.data}, recipe, one.rows)
        (own := folder / f"client-{place}").mkdir()
        sent.append(run_client(client, own, limits, operator.licence))
    return tuple(sent)


def limit_of(operator: FederatedRound, start: Slm) -> float:
    """Largest L2 norm of a change that is let in, with room for the rounding of a change made shorter to just that."""
    source = SlmTensors(start)
    return operator.limit * norm(source, source.names) * _ROOM


def average_round(
    operator: FederatedRound, inputs: Inputs, start: Slm, updates: Sequence[Update | Left]
) -> tuple[Inputs, Gathered]:
    """What was learned in a round, beside base and parent, and whom it was learned from.

    Args:
        operator: The round.
        inputs: Base and parent.
        start: The parent, as a model.
        updates: One a client, in the operator's order.

    Raises:
        ParentsDoNotFit: if no client is left; ``parents.all-excluded``.
    """
    limit = limit_of(operator, start)
    gathered = gather(start, updates, limit)
    learned = ArraySource(digest(operator), _mean(start, gathered, clip=limit, limit=limit, scale=1.0))
    return replace(inputs, learned=learned), gathered


def run_client(client: Client, folder: Path, limits: Limits, licence: str) -> Update | Left:
    """Train one client in a locked-down process of its own.

    Args:
        client: The client.
        folder: An empty folder for its worker.
        limits: What the worker may use.
        licence: SPDX identifier of the package.

    Returns:
        Its update, or why there is none; a client that fails ends itself and not the round.
    """
    try:
        model = read_slm(client.base)
        named = [str(client.base.absolute()), model.sha256]
        job = {
            "base": named,
            "parents": [named],
            "operator": operator_fields(client.recipe),
            "numeric_contract": CONTRACT_SHA256,
            "output_bytes": limits.file_bytes,
            "threads": 1,
            "chunk": 1 << 20,
            "slices": {d: str(path.absolute()) for d, path in client.slices.items()},
            "licence": licence,
        }
        run_worker("studbook.breeding.client_worker", job, folder, limits, [client.base, *client.slices.values()])
    except StudbookError as error:
        return Left(client.name, error.reason, error.message)
    return Update(client.name, folder / UPDATE, client.rows)


def gather(base: Slm, updates: Sequence[Update | Left], limit: float) -> Gathered:
    """Hold every update against the round's base and norm bound; what does not hold is left out with its reason.

    Args:
        base: The model the round starts from, f32.
        updates: One a client, in the order of the round.
        limit: Largest L2 norm of a client's change.
    """
    inside: list[tuple[str, AdapterSource, float, float]] = []
    left = []
    for update in updates:
        if isinstance(update, Left):
            left.append(update)
            continue
        try:
            source = _source(base, update)
            size = distance(Inputs(base=SlmSource(base), parents=(source,)))
        except StudbookError as error:
            left.append(Left(update.client, error.reason, error.message))
            continue
        if not size <= limit:
            words = f"norm {size:.6g}" if math.isfinite(size) else "a norm that is not finite"
            left.append(Left(update.client, "federated.norm", f"{words} is above the limit {limit:g}"))
            continue
        if update.rows < 1:
            left.append(Left(update.client, "federated.rows", "brings no rows, so it has no weight"))
            continue
        inside.append((update.client, source, float(update.rows), size))
    names, sources, weights, norms = zip(*inside, strict=True) if inside else ((), (), (), ())
    return Gathered(names, sources, weights, norms, tuple(left))


def average(base: Slm, gathered: Gathered, *, clip: float, limit: float, scale: float = 1.0) -> bytes:
    """The child of a round, an f32 container: the base and the weighted mean of the clients' clipped changes.

    Args:
        base: The model the round started from.
        gathered: What `gather` let in.
        clip: Largest norm that a client's change keeps.
        limit: As for `gather`.
        scale: The server's step.

    Raises:
        ParentsDoNotFit: if no client is left; ``parents.all-excluded``.
        OutsideAllowlist: if a number is out of the operator's range.
    """
    return write_slm(base.shape, base.tokenizer, _mean(base, gathered, clip=clip, limit=limit, scale=scale))


def _mean(base: Slm, gathered: Gathered, *, clip: float, limit: float, scale: float) -> dict[str, NDArray[np.float32]]:
    if not gathered.sources:
        raise ParentsDoNotFit(
            "; ".join(f"{left.client}: {left.words}" for left in gathered.left) or "there are no clients",
            where="federated round",
            advice="Mend what the clients were left out for, or leave the base as it is this round.",
            reason="parents.all-excluded",
        )
    operator = FederatedUpdate(weights=gathered.weights, clip=clip, limit=limit, scale=scale, skip=())
    return dict(compute(operator, Inputs(base=SlmSource(base), parents=gathered.sources)))


def _source(base: Slm, update: Update) -> AdapterSource:
    data = read_file(update.package, MAX_FILE_BYTES)
    source = AdapterSource(SlmSource(base), parse_adapter(data, update.client))
    Inputs(base=SlmSource(base), parents=(source,)).check_finite()
    return source
