"""The one forward pass, C compiled to WebAssembly: what is judged here is what runs in the page, bit for bit.

`source` holds the C, ``engine.wasm`` what `make engine` made of it, ``engine.json`` the digests of both.
"""

from __future__ import annotations

__all__: list[str] = []
