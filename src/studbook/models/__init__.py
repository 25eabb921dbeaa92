"""Models as bytes and as arithmetic: the SLM1 container, its tokenizers, its manifests and a forward pass in numpy.

Walk it in this order: `rules` names every way a file can lie; `shape` is what a model is before it has weights;
`tokenizers`, `bpe`, `quantisation` and `stored` are what lies in a file; `slm_layout`, `slm` and `slm_writer` read and
write the container; `manifests` is the door to the sidecars that say where weights come from; `reference` runs a model
slowly in float64, `decoder` and `forward` fast in float32; `sampling` picks the next token.
"""

from __future__ import annotations

__all__: list[str] = []
