"""Several models that answer as one: the output ensemble.

Each answer token gets the mean over the models of log p, brought back to a distribution: log softmax of the mean of the
logits, for log p_m = logits_m - c_m and the constants c_m fall out (geometric mean of the models; Hinton 2002, products
of experts, with equal weights). What a merge of the parents must beat to be worth more than running them side by side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from studbook.errors import ParentsDoNotFit, UsageError
from studbook.models.decoder import Cache, Decoder
from studbook.models.forward import Forward
from studbook.models.slm import Slm

__all__ = ["Joint"]

F32 = NDArray[np.float32]
Ids = NDArray[np.int64]


class Joint(Forward):
    """Models that share shapes and tokenizer, ready to score together as `Forward.score` does; they do not write.

    Args:
        slms: The models, at least one.

    Raises:
        ParentsDoNotFit: if two have another layout or tokenizer.
    """

    def __init__(self, slms: Sequence[Slm]) -> None:
        first = slms[0]
        for slm in slms[1:]:
            if (slm.layout_sha256, slm.tokenizer_sha256) != (first.layout_sha256, first.tokenizer_sha256):
                raise ParentsDoNotFit(
                    "has another layout or tokenizer than the first of the ensemble",
                    where=f"model {slm.sha256[:16]}",
                    advice="Score models together that share their base.",
                    reason="parents.ensemble",
                )
        super().__init__(first)
        self.decoder = _Decoders(slms)


class _Decoders(Decoder):
    """The decoders of all models, side by side; its own weights are the first model's."""

    def __init__(self, slms: Sequence[Slm]) -> None:
        super().__init__(slms[0])
        self._others = [Decoder(slm) for slm in slms[1:]]

    def run(self, ids: Ids, rows: Ids | None = None, cache: Cache | None = None, taps: list[F32] | None = None) -> F32:
        """Residual streams f32 (rows, models, hidden)."""
        if cache is not None or taps is not None:
            text = "an ensemble scores known answers; it does not write, and has no layers of its own"
            advice = "Let one model write, or look into one."
            raise UsageError(text, where="ensemble", advice=advice, reason="forward.ensemble")
        return np.stack([super().run(ids, rows), *(other.run(ids, rows) for other in self._others)], axis=1)

    def logits(self, x: F32) -> F32:
        """Mean logits f32 (rows, vocabulary) of residual rows f32 (rows, models, hidden)."""
        total = super().logits(x[:, 0]).astype(np.float64)
        with np.errstate(all="ignore"):
            for place, other in enumerate(self._others, start=1):
                total += other.logits(x[:, place])
            return (total / (1 + len(self._others))).astype(np.float32)
