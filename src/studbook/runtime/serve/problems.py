"""Errors as HTTP says them: one table from what is wrong to a status, and OpenAI's form of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from studbook.errors import StudbookError, TokenizerRefused, printable

__all__ = ["CLOSED", "Problem", "problem"]

CLOSED: Final = 499
"""The status that is counted where the client left before the answer."""
# Reason -> status and type.
_STATUS: Mapping[str, tuple[int, str]] = {
    "serve.json": (400, "invalid_request_error"),
    "serve.field": (400, "invalid_request_error"),
    "serve.context": (400, "invalid_request_error"),
    "serve.length": (400, "invalid_request_error"),
    "engine.id": (400, "invalid_request_error"),
    "serve.host": (403, "invalid_request_error"),
    "serve.key": (401, "authentication_error"),
    "serve.path": (404, "invalid_request_error"),
    "serve.model": (404, "invalid_request_error"),
    "serve.method": (405, "invalid_request_error"),
    "serve.slow": (408, "invalid_request_error"),
    "serve.large": (413, "invalid_request_error"),
    "serve.type": (415, "invalid_request_error"),
    "serve.full": (429, "rate_limit_error"),
    "serve.cancelled": (CLOSED, "invalid_request_error"),
    "serve.stopping": (503, "server_error"),
    "serve.stopped": (503, "server_error"),
    "serve.gone": (503, "server_error"),
    "engine.memory": (503, "server_error"),
    "serve.timeout": (504, "server_error"),
}
_CODES: Mapping[str, str] = {
    "serve.context": "context_length_exceeded",
    "serve.key": "invalid_api_key",
    "serve.model": "model_not_found",
    "serve.full": "rate_limit_exceeded",
}


class Problem(NamedTuple):
    """An error on the wire.

    Attributes:
        status: HTTP status.
        body: OpenAI's form.
    """

    status: int
    body: dict[str, Any]


def problem(error: Exception) -> Problem:
    """An error as HTTP says it; of one that is the server's own fault nothing inside is told."""
    reason = error.reason if isinstance(error, StudbookError) else ""
    status, kind = _STATUS.get(reason, (500, "server_error"))
    if isinstance(error, TokenizerRefused):
        status, kind = 400, "invalid_request_error"
    if not isinstance(error, StudbookError) or status == 500:
        return Problem(500, _body("The server failed; its log says how.", kind, None, None))
    message = f"{printable(str(error))}. {printable(error.advice)}"
    param = error.where if status == 400 and error.where else None
    return Problem(status, _body(message, kind, param, _CODES.get(reason, reason.replace(".", "_"))))


def _body(message: str, kind: str, param: str | None, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
