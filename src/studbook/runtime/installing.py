"""From a package's files to what the resident set needs to know of it: sizes, and the logits it must show when staged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from studbook.adapters.reader import parse_adapter
from studbook.models.engine import Engine
from studbook.models.slm import parse_slm
from studbook.records import LogitDigest
from studbook.runtime.arenas import Place
from studbook.runtime.handles import Artifact, Artifacts
from studbook.runtime.residents import Installed
from studbook.runtime.sizes import Use, change_of, measure, model_of

__all__ = ["Wish", "prepare"]

_BYTES_A_TOKEN = 4


class Wish(NamedTuple):
    """How a package shall be run.

    Attributes:
        positions: Most tokens of one session; 0 for the model's context.
        sessions: Sessions open at a time, of one copy.
        copies: How often it is staged; as many may be leased at a time.
        text_bytes: Longest text that is encoded; 0 for four bytes a position.
        place: Where it runs.
        router: Whether its bytes are a router's.
    """

    positions: int = 0
    sessions: int = 1
    copies: int = 1
    text_bytes: int = 0
    place: Place = "host"
    router: bool = False


def prepare(
    id: str,  # noqa: A002
    revision: str,
    artifact: Artifact,
    *,
    stack: Sequence[Artifact] = (),
    requires: Sequence[str] = (),
    smoke: LogitDigest | None = None,
    wish: Wish = Wish(),  # noqa: B008
) -> Installed:
    """What the resident set needs to know of a package.

    Args:
        id: Its id.
        revision: Digest of its record.
        artifact: The model's file.
        stack: Adapter packages on it, in order.
        requires: Ids of packages it does not answer without.
        smoke: Logits that were recorded of it, packages on top included; the engine is asked here where there is none.
        wish: How it shall be run.

    Raises:
        DigestDiffers: if a file is not what was promised.
        SlmRefused: if the file breaks a rule.
        AdapterRefused: if a package breaks one, or does not fit the model.
        UsageError: if the wish is out of range for the model.
    """
    files = Artifacts()
    data, packages = files.read(artifact), [files.read(package) for package in stack]
    slm, adapters = parse_slm(data, artifact.path), [parse_adapter(package) for package in packages]
    base = adapters[0].meta.base_sha256 if adapters else None
    if smoke is None:
        with Engine(data, where=id) as engine:
            if base is not None:
                engine.accept(base)
                engine.apply(*packages)
            positions = slm.shape.smoke_positions
            smoke = LogitDigest(positions=positions, sha256=engine.logit_digest(positions))
    positions = wish.positions or slm.shape.max_context
    use = Use(positions, wish.sessions, wish.text_bytes or _BYTES_A_TOKEN * positions, smoke.positions)
    sizes = measure(model_of(slm), use, [change_of(adapter, slm.shape) for adapter in adapters])
    return Installed(
        id, revision, artifact, use, smoke, sizes,
        stack=tuple(stack), base=base, requires=tuple(requires), place=wish.place, router=wish.router, copies=wish.copies,
    )  # fmt: skip
