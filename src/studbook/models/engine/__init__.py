"""The one forward pass, C compiled to WebAssembly: what is judged here is what runs in the page, bit for bit.

`source` holds the C, ``engine.wasm`` what `make engine` made of it, ``engine.json`` the digests of both. `compiled` turns
the bytes into code once a process, `instance` is one memory with its door, `host` a loaded model as the lab uses it.
"""

from __future__ import annotations

from studbook.models.engine.compiled import ENGINE_SHA256, engine_bytes, warm
from studbook.models.engine.host import Engine, Session

__all__ = ["ENGINE_SHA256", "Engine", "Session", "engine_bytes", "warm"]
