"""Many small models under one budget: packages, resident set, routes, and the request path. See docs/runtime.md."""

from __future__ import annotations

__all__: list[str] = []
