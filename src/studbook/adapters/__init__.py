"""Adapters: small packages that change some tensors of one model, and can be taken off again.

Three kinds: ``ADP1`` holds dense deltas, ``ASP1`` sparse ones, ``ALR1`` low-rank factors. Walk it in this order: `rules`
names every way a package can lie; `changes` is what one entry does to one tensor; `layout` and `meta` are what lies in a
file; `reader` and `writer` are its two doors; `fit` holds a package against a model; `fusion` is the arithmetic; `stack`
puts packages on a resident model and takes them off; `source` shows a fused model to operators; `make` builds packages.
"""

from __future__ import annotations

__all__: list[str] = []
