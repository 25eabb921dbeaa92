"""JSON that others wrote, read strictly and in linear time: one object, no key twice, nothing that is not JSON."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from studbook.errors import BytesLie

__all__ = ["read_object"]


def read_object(data: bytes, where: object, reason: str) -> dict[str, Any]:
    """The one object a file holds.

    Args:
        data: UTF-8, any layout.
        where: The file, for errors.
        reason: Stable code of the error.

    Raises:
        BytesLie: if it is not an object, a key stands twice, a number is NaN or infinite, text is not Unicode, or it is
            nested too deeply.
    """
    try:
        value = json.loads(data.decode(), object_pairs_hook=_once, parse_constant=_constant, parse_float=_finite)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise BytesLie("is nested too deeply", where=where, reason=reason) from error
    except ValueError as error:
        raise BytesLie(f"is not JSON: {error}", where=where, reason=reason) from error
    if not isinstance(value, dict):
        raise BytesLie("is not a JSON object", where=where, reason=reason)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key[:80]!r} stands twice in one object")
        found[key] = value
    return found


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number JSON knows")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:40]} is too large a number")
    return value
