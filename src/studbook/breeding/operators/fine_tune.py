"""Fine-tune: one parent, trained on the failure cluster's slice while rows of other skills are rehearsed."""

from __future__ import annotations

from typing import ClassVar, Self

from studbook.breeding.operators.trained import Trained

__all__ = ["FineTune"]


class FineTune(Trained, frozen=True, tag="fine-tune/1"):
    """Train all weights of one parent on a training slice: a local update.

    Formula:
        child = p + min(1, reach * ||p|| / ||q - p||) * (q - p)

        q is p after ``steps`` steps of AdamW (betas 0.9 and 0.98, decay 0.01) at a rate that falls linearly from
        ``rate`` to 0, on batches of ``batch`` rows drawn with replacement by ``seed``: with probability ``rehearsal`` from
        a rehearsed slice, else from a slice of ``data``. The loss is the mean cross-entropy of answers and ends; prompts
        carry none. Norms run over all tensors in f64; the shortened change is one f32 difference, product and sum an
        element. Every number before that is torch's, so q is the same on machines of one environment class only.

    Source:
        Loshchilov and Hutter, Decoupled weight decay regularization, arXiv 1711.05101; rehearsal as in Robins,
        Catastrophic forgetting, rehearsal and pseudorehearsal, Connection Science 7 (1995). The projection onto a ball
        around the start is the declared norm bound of federated clients as well.

    Base:
        The model the change is measured from; in a round the champion, which is the parent too.

    Attributes:
        steps: Optimiser steps, the whole budget: time is never one.
        rate: Peak learning rate, 1e-7..1.
        batch: Rows a step, 1..4096.
        seed: Seed of the drawn rows.
        reach: Largest ||child - p|| over ||p||.
        rehearsal: Share of rehearsed rows, 0..1; 0 with no rehearsed slices.
        data: SHA-256 of every slice trained on; a recipe says "cluster" for the failure cluster's own.
        rehearsed: SHA-256 of every slice rehearsed; a recipe says "others" for the other slices of the same data
            manifest.

    Bound:
        ||p - base|| + reach * ||p|| + rounding.

    When to use:
        The champion fails on a skill of which rows are at hand, and no parent knows it. Rehearse a quarter or more of the
        other skills, or they are forgotten.

    Failure modes:
        A small slice is learned by heart. Without rehearsal the other skills collapse. A tight reach cuts off what was
        learned. The same record gives other bytes under another torch or vector unit.
    """

    family: ClassVar[str] = "fine-tune"
    parents_needed: ClassVar[tuple[int, int]] = (1, 1)

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """With rehearsal, and a client's local update without."""
        return (cls(**cls.common()), cls(**cls.common(rehearsal=0.0, rehearsed=(), reach=0.1)))
