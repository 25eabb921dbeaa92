"""What a shipped operator computes never changes: pinned records with the digests of their children.

Add lines to ``operator_pins.json``, never replace one; other arithmetic is another version of the operator's tag.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from studbook.breeding.operators import Inputs, decode_operator, operator_names
from studbook.breeding.operators.run import compute
from studbook.tensors.philox import stream_for
from studbook.tensors.sources import ArraySource

PINS = json.loads(Path(__file__).with_name("operator_pins.json").read_text(encoding="utf-8"))
SHAPES = {
    "tok_embeddings.weight": (260, 64),
    "layers.0.wq.weight": (64, 64),
    "layers.1.w2.weight": (64, 1058),
    "norm.weight": (64,),
}


def model(place: int, base: ArraySource | None = None) -> ArraySource:
    """A model drawn from the keyed stream, so that no other library's generator enters a pin."""
    digest = hashlib.sha256(b"pin %d" % place).digest()
    tensors = {}
    for name, dims in SHAPES.items():
        noise = stream_for(place, digest, name).noise(0, int(np.prod(dims)))
        tensors[name] = (noise if base is None else base.flat(name) + noise * np.float32(0.0625)).reshape(dims)
    return ArraySource(digest.hex(), tensors)


@pytest.mark.parametrize("pin", PINS, ids=lambda pin: f"{pin['record']['operator']}-{pin['sha256'][:8]}")
def test_a_pinned_record_gives_the_pinned_child(pin):
    base = model(0)
    inputs = Inputs(base=base, parents=tuple(model(k + 1, base) for k in range(pin["parents"])))
    child = compute(decode_operator(pin["record"]), inputs)
    digest = hashlib.sha256(b"".join(child[name].tobytes() for name in SHAPES)).hexdigest()
    assert digest == pin["sha256"]


def test_no_operator_that_was_shipped_is_gone():
    assert {pin["record"]["operator"] for pin in PINS} <= set(operator_names())
