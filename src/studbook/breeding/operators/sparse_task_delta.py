"""Sparse task delta: the largest part of every scaled difference from a shared base, added up."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from msgspec import Meta

from studbook.breeding.operators.base import Each, Kernel, Operator, Survey, add_change, coefficients
from studbook.breeding.operators.compiled import copied
from studbook.breeding.operators.consensus import Sparse, combined, combined_bound, merge_pass
from studbook.breeding.operators.cuts import CountedCuts, known_cuts, largest_changes, share_counts
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.breeding.operators.parameters import MAX_PARENTS, Pattern, Scale, Share, matches
from studbook.breeding.operators.tiled import tiled
from studbook.tensors.compiling import COMPILED
from studbook.tensors.kernels_consensus import keep_largest

__all__ = ["SparseTaskDelta"]


class SparseTaskDelta(Operator, frozen=True, tag="sparse-task-delta/1"):
    """Add each parent's largest changes, scaled.

    Formula:
        d_k = p_k - base
        t_k = d_k where |d_k| is among the floor(density_k * n) largest of its tensor and parent, else 0
        child = base + sum_k s_k * t_k

        n is the tensor's size; of equal magnitudes the lowest indices are kept. All in f32, in the order of the
        parents; the sum is added to the base last. An element whose sum is zero keeps the base's bits.

    Source:
        Ilharco et al., Editing models with task arithmetic, arXiv 2212.04089, with the trimming of Yadav et al.,
        TIES-Merging, arXiv 2306.01708, and no vote.

    Base:
        The model the parents were fine-tuned from.

    Attributes:
        densities: Share of each parent's changes that is kept, 0..1, per tensor.
        scales: One factor a parent, -4..4; negative ones remove a task.
        skip: Globs over tensor names; a tensor that matches stays the base's.

    Bound:
        ||sum_k s_k * t_k|| + rounding, over the tensors not skipped: the cuts are known before the run.

    When to use:
        Skills that live in a few large changes: most of a task delta can be left out, and the others are disturbed less.

    Failure modes:
        A tensor smaller than 1 / density keeps nothing, where some merge tools keep one element. Scales that suit dense
        changes are too small for sparse ones, and the other way round.
    """

    family: ClassVar[str] = "sparse-task-delta"
    parents_needed: ClassVar[tuple[int, int]] = (1, MAX_PARENTS)
    per_parent: ClassVar[tuple[str, ...]] = ("densities", "scales")

    densities: Annotated[tuple[Share, ...], Meta(max_length=MAX_PARENTS)]
    scales: Annotated[tuple[Scale, ...], Meta(max_length=MAX_PARENTS)]
    skip: Annotated[tuple[Pattern, ...], Meta(max_length=64)]

    def survey(self, name: str, inputs: Inputs) -> Survey:
        """One cut a parent."""
        if matches(name, self.skip):
            return Survey()
        return Survey(cuts=known_cuts(inputs, name, share_counts(self.densities, inputs.size(name))))

    def survey_model(self, inputs: Inputs, each: Each) -> dict[str, Survey]:
        """As `Operator.survey_model`; cuts that were found are left in the cache, if there is one."""
        surveys = super().survey_model(inputs, each)
        if inputs.cuts:
            inputs.cuts.save()
        return surveys

    def rows(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> Rows:
        """See `Operator.rows`."""
        base = inputs.base.read(name, start, stop)
        if matches(name, self.skip):
            return base.copy()
        terms = largest_changes(inputs, name, start, stop, survey.cuts)
        return add_change(base, combined(terms, coefficients(self.scales), elect=False, normalize=False))

    def kernel(self, name: str, inputs: Inputs, survey: Survey) -> Kernel | None:
        """See `Operator.kernel`; what was kept is counted, which proves the cuts, wherever they came from."""
        if matches(name, self.skip) or not COMPILED:
            return copied(inputs.base)
        found = self._sparse(name, inputs, survey)
        merge = merge_pass(coefficients(self.scales), elect=False, normalize=False, scale=1.0)

        def passes(rows: Rows, start: int, out: Rows) -> None:
            found.run(rows, start)
            merge(rows, out)

        return tiled((inputs.base, *inputs.parents), passes, found.finish)

    def _sparse(self, name: str, inputs: Inputs, survey: Survey) -> Sparse:
        counts = share_counts(self.densities, inputs.size(name))
        cuts = CountedCuts(survey.cuts, counts, inputs, f"{self.tag()}: {name}")
        return Sparse(lambda rows, start: cuts.apply(keep_largest, rows, start), finish=cuts.check)

    def _bound(self, inputs: Inputs) -> float:
        names = inputs.kept(self.skip)
        surveys = {name: self.survey(name, inputs) for name in names}
        return combined_bound(
            inputs,
            names,
            lambda name, start, stop: largest_changes(inputs, name, start, stop, surveys[name].cuts),
            coefficients(self.scales),
            elect=False,
            normalize=False,
            scale=1.0,
            sparse=lambda name: self._sparse(name, inputs, surveys[name]),
        )

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """Usual, everything with signs that alternate and one tensor left alone, and nothing."""
        return (
            cls(densities=(0.2,) * parents, scales=(0.5,) * parents, skip=()),
            cls(densities=(1.0,) * parents, scales=tuple(0.5 * (-1) ** k for k in range(parents)), skip=("*norm*",)),
            cls(densities=(0.0,) * parents, scales=(0.5,) * parents, skip=()),
        )
