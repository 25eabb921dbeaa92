"""Adapter train: low-rank factors of some matrices, trained on a slice and fused."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from msgspec import Meta

from studbook.breeding.operators.inputs import Inputs
from studbook.breeding.operators.parameters import Pattern, matches
from studbook.breeding.operators.trained import Trained
from studbook.errors import ParentsDoNotFit

__all__ = ["AdapterTrain", "Alpha", "Rank"]

Rank = Annotated[
    int,
    Meta(
        description="rank of the factors; the smaller side of a matrix where that is less",
        extra={"low": 1, "high": 256},
        extra_json_schema={"minimum": 1, "maximum": 256},
    ),
]
Alpha = Annotated[
    float,
    Meta(
        description="scale of the change: (alpha / rank) * B @ A",
        extra={"low": 1e-3, "high": 1024.0},
        extra_json_schema={"minimum": 1e-3, "maximum": 1024.0},
    ),
]
Licence = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]{0,119}\Z", description="SPDX identifier in the package")
]


class AdapterTrain(Trained, frozen=True, tag="adapter-train/1"):
    """Train low-rank factors of some matrices of one parent, and build them in.

    Formula:
        child = p + (alpha' / r) * B @ A for the chosen matrices, by the fusion rules of the package format

        A (r, in) starts N(0, 1 / in), B (out, r) at zero; both are trained for ``steps`` steps as in fine-tune/1 with p
        left alone. alpha' is ``alpha``, smaller for all matrices alike where the change would leave the reach. The worker
        leaves the factors beside the child as the ``ALR1`` package ``adapter.alr1``: fusing it over p gives the child's
        own bytes.

    Source:
        Hu et al., LoRA: low-rank adaptation of large language models, arXiv 2106.09685.

    Base:
        The f32 model the change is measured from; in a round the champion, which is the parent too.

    Attributes:
        steps: Optimiser steps, the whole budget.
        rate: Peak learning rate, 1e-7..1.
        batch: Rows a step, 1..4096.
        seed: Seed of the drawn rows and of A.
        reach: Largest ||child - p|| over ||p||.
        rehearsal: Share of rehearsed rows, 0..1; 0 with no rehearsed slices.
        data: SHA-256 of every slice trained on; a recipe says "cluster" for the failure cluster's own.
        rehearsed: SHA-256 of every slice rehearsed; a recipe says "others" for the other slices of the same data
            manifest.
        rank: Rank of the factors.
        alpha: Scale of the change.
        targets: Globs over matrix names; only matrices that match are changed.
        licence: SPDX identifier that the package states: the parent's.

    Bound:
        ||p - base|| + reach * ||p|| + rounding.

    When to use:
        A small change that is to be shipped, stacked or taken off by itself.

    Failure modes:
        A low rank cannot hold a skill the parent has no trace of. A quantised parent is refused: packages are made for
        f32 models.
    """

    family: ClassVar[str] = "adapter-train"
    parents_needed: ClassVar[tuple[int, int]] = (1, 1)

    rank: Rank
    alpha: Alpha
    targets: Annotated[tuple[Pattern, ...], Meta(min_length=1, max_length=64)]
    licence: Licence

    def chosen(self, inputs: Inputs) -> tuple[str, ...]:
        """Names of the matrices that are changed.

        Raises:
            ParentsDoNotFit: if no matrix matches; ``training.targets``.
        """
        start = self.start(inputs)
        names = tuple(n for n in start.names if len(start.dims(n)) == 2 and matches(n, self.targets))
        if not names:
            raise ParentsDoNotFit(
                "no matrix of the parent matches",
                where=f"{self.tag()}: targets",
                advice='Name matrices, such as "layers.*.w?.weight".',
                reason="training.targets",
            )
        return names

    def check(self, inputs: Inputs) -> None:
        """As `Operator.check`; also at least one matrix must be chosen.

        Raises:
            OutsideAllowlist: as `Operator.check`.
            ParentsDoNotFit: as `Operator.check` and `chosen`.
        """
        super().check(inputs)
        self.chosen(inputs)

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """Attention alone, and all matrices of the layers."""
        own: dict[str, Any] = {"rank": 8, "alpha": 16.0, "licence": "CC0-1.0"}
        return (
            cls(**cls.common(), **own, targets=("layers.*.w[qkvo].weight",)),
            cls(**cls.common(rate=3e-3), **own, targets=("layers.*.w*.weight",)),
        )
