"""The one forward pass, C compiled to WebAssembly: what is judged here is what runs in the page, bit for bit.

`source` holds the C, ``engine.wasm`` what `make engine` made of it, ``engine.json`` the digests of both. `compiled` turns
the bytes into code once a process, `instance` is one memory with its door, `host` a loaded model as the
lab uses it, `writing` several texts that are written side by side.
"""

from __future__ import annotations

from studbook.models.engine.compiled import ENGINE_SHA256, engine_bytes, warm
from studbook.models.engine.host import Engine, Session
from studbook.models.engine.writing import MOST_LINES, Line, begin, step

__all__ = ["ENGINE_SHA256", "MOST_LINES", "Engine", "Line", "Session", "begin", "engine_bytes", "step", "warm"]
