"""The runtime smoke: a model is loaded by the engine, speaks twice, and its logits get a digest.

What it says follows from the bytes of engine and model alone, so whoever has both can ask again: the lab when it verifies,
and a page before it lets the model generate.
"""

from __future__ import annotations

from msgspec import Struct

from studbook.errors import StudbookError
from studbook.models.engine import ENGINE_SHA256, Engine
from studbook.records import Header, LogitDigest, RuntimeSmoke, digest

__all__ = ["SMOKE_PROMPTS", "SMOKE_TOKENS", "Spoken", "smoked", "spoken"]

SMOKE_PROMPTS = ("", "a", "abc>", "The quick brown fox")
SMOKE_TOKENS = 8


class Spoken(Struct, frozen=True, forbid_unknown_fields=True):
    """What a model did in its smoke.

    Attributes:
        artifact: Digest of the model.
        ids: Greedy token ids to each prompt.
        same: Whether a second time gave the same.
        finite: Whether every logit was finite.
        logits: Digest of its logits on a fixed sequence; None where one of them is not finite.
        fuel: What the engine counted for all of it.
    """

    artifact: str
    ids: tuple[tuple[int, ...], ...]
    same: bool
    finite: bool
    logits: LogitDigest | None
    fuel: int


def spoken(engine: Engine) -> Spoken:
    """Let a model speak to the fixed prompts, greedily and twice, and digest its logits.

    Args:
        engine: The model, loaded and metered, without packages on it.
    """
    before = engine.fuel_used
    prompts = [engine.encode(text, bos=True, eos=False) for text in SMOKE_PROMPTS]
    first, second = (engine.decode(prompts, SMOKE_TOKENS) for _ in range(2))
    logits = _logits(engine)
    return Spoken(
        artifact=engine.sha256,
        ids=tuple(map(tuple, first.ids)),
        same=first == second,
        finite=all(first.finite) and logits is not None,
        logits=logits,
        fuel=engine.fuel_used - before,
    )


def smoked(header: Header, evaluator: str, said: Spoken) -> RuntimeSmoke:
    """The record of a smoke.

    Args:
        header: Record header.
        evaluator: Digest of the evaluator.
        said: What the model did.
    """
    passed = said.same and said.finite and len(said.ids) == len(SMOKE_PROMPTS)
    return RuntimeSmoke(
        header=header,
        artifact=said.artifact,
        evaluator=evaluator,
        engine=ENGINE_SHA256,
        prompts=digest(list(SMOKE_PROMPTS)),
        outputs_sha256=digest([list(ids) for ids in said.ids]),
        tokens=sum(map(len, said.ids)),
        logits=said.logits,
        fuel=said.fuel,
        finite=said.finite,
        deterministic=said.same,
        passed=passed,
        detail="loads and runs" if passed else f"finite logits: {said.finite}; equal when repeated: {said.same}",
    )


def _logits(engine: Engine) -> LogitDigest | None:
    positions = engine.shape.smoke_positions
    try:
        return LogitDigest(positions=positions, sha256=engine.logit_digest(positions))
    except StudbookError as error:
        if error.reason != "engine.non-finite":
            raise
        return None
