"""Distil: several teachers into one student."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from msgspec import Meta

from studbook.breeding.operators.inputs import Inputs
from studbook.breeding.operators.parameters import MAX_PARENTS, Share
from studbook.breeding.operators.trained import Trained
from studbook.tensors.sources import TensorSource

__all__ = ["Distil", "Temperature"]

Temperature = Annotated[
    float,
    Meta(
        description="softens teachers and student alike before they are compared",
        extra={"low": 0.25, "high": 20.0},
        extra_json_schema={"minimum": 0.25, "maximum": 20.0},
    ),
]


class Distil(Trained, frozen=True, tag="distil/1"):
    """Train the base on rows and on what the best of its teachers says of every row.

    Formula:
        child = b + min(1, reach * ||b|| / ||q - b||) * (q - b)

        q is the base b after ``steps`` steps as in fine-tune/1, with the loss (1 - i) * CE + i * T^2 *
        KL(softmax(t / T) || softmax(s / T)), the mean over answer ids and ends; i is ``imitation``, T ``temperature``, s the
        student's logits and t those of the parent with the smallest cross-entropy on the row, the first one on a tie.

    Source:
        Hinton, Vinyals and Dean, Distilling the knowledge in a neural network, arXiv 1503.02531. One teacher a row
        instead of their mean: specialists know different rows.

    Base:
        The parents' shared base: the student starts there.

    Attributes:
        steps: Optimiser steps, the whole budget.
        rate: Peak learning rate, 1e-7..1.
        batch: Rows a step, 1..4096.
        seed: Seed of the drawn rows.
        reach: Largest ||child - b|| over ||b||.
        rehearsal: Share of rehearsed rows, 0..1; 0 with no rehearsed slices.
        data: SHA-256 of every slice trained on; a recipe says "cluster" for the failure cluster's own.
        rehearsed: SHA-256 of every slice rehearsed; a recipe says "others" for the other slices of the same data
            manifest.
        imitation: Weight of the teachers against the rows' answers, 0..1.
        temperature: Temperature of both sides, 0.25..20.

    Bound:
        reach * ||b|| + rounding.

    When to use:
        Specialists that lie too far apart to be merged, with rows of each one's skill at hand: the slices must reach all
        the skills the child is to have.

    Failure modes:
        A teacher that is sure and wrong teaches that on rows no other knows better. Skills without rows are forgotten.
        Every step runs all teachers, so it costs as many forward passes more.
    """

    family: ClassVar[str] = "distil"
    parents_needed: ClassVar[tuple[int, int]] = (1, MAX_PARENTS)
    needs_base: ClassVar[bool] = True

    imitation: Share
    temperature: Temperature

    def start(self, inputs: Inputs) -> TensorSource:
        """The base."""
        return inputs.base

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """Half imitation, and nothing but imitation at a higher temperature."""
        return (
            cls(**cls.common(rehearsal=0.8), imitation=0.5, temperature=2.0),
            cls(**cls.common(rehearsal=0.8), imitation=1.0, temperature=4.0),
        )
