"""What is asked and what comes back, as values; nothing here knows HTTP or a model."""

from __future__ import annotations

from typing import Literal, NamedTuple

from msgspec import Struct

from studbook.models.sampling import Sampling
from studbook.records import LogitDigest
from studbook.runtime.handles import Artifact

__all__ = ["Asked", "Failed", "Finished", "Limits", "Model", "Reason", "Text", "Wanted"]

Reason = Literal["stop", "length"]
"""What ended an answer: the model or a stop text, or a limit."""


class Limits(Struct, frozen=True, kw_only=True):
    """What the server takes on itself and what it grants; bytes, seconds and counts.

    Attributes:
        workers: Threads that run models; a model has at most as many copies.
        parallel: Most texts a worker writes side by side, 1 to 32.
        waiting: Most requests that wait for a worker; one more is refused with 429.
        asides: Most runs beside answers that wait; one more is left out.
        connections: Most open connections; one more is closed at once.
        header_bytes: Most bytes of a request's head.
        request_bytes: Most bytes of a request's body.
        response_tokens: Most tokens of an answer.
        response_bytes: Most bytes of an answer's text.
        memory_bytes: Most bytes of all models together: files, weights, caches, and what is staged beside them.
        models: Most models in memory at a time.
        installed: Most models that are known at a time, those included for which there was no room.
        header_seconds: Longest until a request's head is there.
        body_seconds: Longest until its body is there.
        write_seconds: Longest that a client may leave what was sent unread.
        idle_seconds: How long a connection is kept for its next request.
        answer_seconds: Longest from request to end of answer, waiting included.
        grace_seconds: How long answers may go on after the server was told to stop.
    """

    workers: int = 2
    parallel: int = 16
    waiting: int = 64
    asides: int = 64
    connections: int = 512
    header_bytes: int = 16 << 10
    request_bytes: int = 1 << 20
    response_tokens: int = 4096
    response_bytes: int = 64 << 10
    memory_bytes: int = 1 << 30
    models: int = 64
    installed: int = 1024
    header_seconds: float = 10.0
    body_seconds: float = 20.0
    write_seconds: float = 30.0
    idle_seconds: float = 15.0
    answer_seconds: float = 120.0
    grace_seconds: float = 20.0


class Model(NamedTuple):
    """A model that is served.

    Attributes:
        revision: Digest that names exactly this model with all that belongs to it.
        name: What people call it.
        artifact: The file of its container.
        created: When it came to be served, seconds since 1970.
        smoke: Logits that were recorded of it; the engine is asked where there are none.
        record: Digest of the record that lets it be served; its revision where there is none.
        spare: Whether it stays out where there is no room for it, or something is wrong with it.
    """

    revision: str
    name: str
    artifact: Artifact
    created: int = 0
    smoke: LogitDigest | None = None
    record: str = ""
    spare: bool = False


class Wanted(NamedTuple):
    """What a model shall write.

    Attributes:
        prompt: Text, or token ids that are taken as they are.
        sampling: How to pick.
        most: Most tokens; None for as many as the context and the limits allow.
        stops: Texts that end the answer and are left out of it.
    """

    prompt: str | tuple[int, ...]
    sampling: Sampling = Sampling()
    most: int | None = None
    stops: tuple[str, ...] = ()


class Asked(NamedTuple):
    """One request as the dispatcher sees it.

    Attributes:
        number: Counts up by one from 0 while the server runs.
        wanted: What shall be written.
    """

    number: int
    wanted: Wanted


class Text(NamedTuple):
    """A part of an answer.

    Attributes:
        text: Whole characters; may be empty.
    """

    text: str


class Finished(NamedTuple):
    """The end of an answer.

    Attributes:
        text: What is left of it; the whole of it where it was not asked for in parts.
        reason: Whether the model or a stop text ended it, or a limit.
        prompt_tokens: Tokens of the prompt.
        tokens: Tokens written.
        digest: SHA-256 of the tokens written.
    """

    text: str
    reason: Reason
    prompt_tokens: int
    tokens: int
    digest: str


class Failed(NamedTuple):
    """The end of an answer that is none.

    Attributes:
        error: Why.
    """

    error: Exception
