"""Scheduled: another operator whose numbers change from layer to layer and from one kind of tensor to the next."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from studbook.breeding.operators.base import Each, Kernel, Operator, Survey
from studbook.breeding.operators.inputs import Inputs, Rows
from studbook.breeding.operators.parameters import MAX_PARENTS, range_of
from studbook.breeding.operators.task_delta import TaskDelta
from studbook.breeding.operators.ties import Ties
from studbook.errors import OutsideAllowlist, ParentsDoNotFit
from studbook.models.shape import SlmShape
from studbook.models.tokenizers import Tokenizer
from studbook.tensors.sources import TensorSource
from studbook.tensors.views import Subset, layer_count, layer_of

__all__ = ["Rule", "Scheduled", "gradient"]

ANY = "*"
_MOST_LAYERS = 4096
# The operators it may hold; the package fills it in where all of them are known.
Inner = TypeVar("Inner", bound=Operator)
Layers = Annotated[
    int,
    Meta(
        description="number of layers the values are spread over",
        extra={"low": 1, "high": _MOST_LAYERS},
        extra_json_schema={"minimum": 1, "maximum": _MOST_LAYERS},
    ),
]


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Values of one field for the tensors a filter takes.

    Attributes:
        field: Name of a field of the inner operator that holds numbers, or true or false.
        parent: Which entry of a field with one number a parent, from 0; null is every entry, or a field with one number.
        filter: ``*`` for every tensor, or a part of a tensor's name.
        values: One value, or several spread evenly over the layers; 1 and 0 for true and false.
    """

    field: Annotated[str, Meta(min_length=1, max_length=64)]
    parent: int | None
    filter: Annotated[str, Meta(pattern=r"^[\x21-\x7e]{1,120}\Z")]
    values: Annotated[tuple[float, ...], Meta(min_length=1, max_length=_MOST_LAYERS)]

    def takes(self, name: str) -> bool:
        """Whether the rule holds for a tensor."""
        return self.filter == ANY or self.filter in name


class Scheduled(Operator, Generic[Inner], frozen=True, tag="scheduled/1"):
    """Run another operator with parameters that depend on the layer and on the tensor's name.

    Formula:
        child[tensor] = inner with the fields that the rules give at t, with t = layer / (layers - 1)

        For each field, and each entry of a field with one number a parent, the first rule counts whose filter is ``*`` or
        a part of the tensor's name; without one the inner record's own value holds. Values v_0 .. v_m stand at t = 0, 1/m
        .. 1 and are joined by straight lines: (1 - f) * v_i + f * v_(i+1), one f64 operation at a time, never beyond
        either; a field of true or false takes v_i. A layer is the first part of a name that is a number. t is 0 outside
        the layers, before and after them, and 1 where ``layers`` is 1.

    Source:
        Gradients and filters of merge files, as the usual merge tool evaluates them; its norm and output projection take
        the first value, not the last, and so do they here.

    Base:
        As the inner operator's.

    Attributes:
        inner: The record of any other operator. Its own values have to be valid too.
        layers: Number of layers the values are spread over, at least as many as the model has.
        rules: Each with ``field``, ``parent`` (an entry from 0, or null for all), ``filter`` and ``values``.

    Bound:
        sqrt(sum of the squares of the inner operator's bounds), one for the tensors of every distinct setting.

    When to use:
        Merge files with gradients, and searches that give every layer its own scale.

    Failure modes:
        A filter that matches nothing changes nothing: look at the names before. Many free numbers fit the items they were
        chosen on. An inner operator that looks at the whole model sees the tensors of one setting as a model.
    """

    family: ClassVar[str] = "scheduled"
    parents_needed: ClassVar[tuple[int, int]] = (1, MAX_PARENTS)

    inner: Inner
    layers: Layers
    rules: Annotated[tuple[Rule, ...], Meta(max_length=4096)]

    @property
    def storage(self) -> str | None:
        """As the inner operator's."""
        return self.inner.storage

    def validate(self, parents: int | None = None) -> None:
        """See `Operator.validate`.

        Raises:
            OutsideAllowlist: also if a rule names a field that cannot change, or a value out of the field's range.
            ParentsDoNotFit: also if a rule names an entry the field does not have.
        """
        super().validate(parents)
        if isinstance(self.inner, Scheduled):
            raise self._outside("a schedule cannot hold a schedule", "inner", "Put all rules into one schedule.")
        self.inner.validate(parents)
        hints = get_type_hints(type(self.inner))
        for at, rule in enumerate(self.rules):
            self._check_rule(rule, hints.get(rule.field), f"rules[{at}]")

    def check(self, inputs: Inputs) -> None:
        """Validate for these inputs, with every setting a tensor gets.

        Raises:
            OutsideAllowlist: as `validate`, or if values that are valid one by one do not fit together.
            ParentsDoNotFit: as the inner operator's check, or if the model has more layers than the schedule.
        """
        self.validate(len(inputs.parents))
        self.inner.check(inputs)
        names = self.reference(inputs).names
        if (count := layer_count(names)) > self.layers:
            raise ParentsDoNotFit(
                f"spread over {self.layers} layers; the model has {count}",
                where=f"{self.tag()}: layers",
                advice="Use the model's number of layers.",
                reason="operator.layers",
            )
        for operator, part in self._settings(inputs, names):
            operator.check(part)

    def reference(self, inputs: Inputs) -> TensorSource:
        """As the inner operator's."""
        return self.inner.reference(inputs)

    def remake(self, shape: SlmShape, tokenizer: Tokenizer) -> tuple[SlmShape, Tokenizer]:
        """As the inner operator's."""
        return self.inner.remake(shape, tokenizer)

    def at(self, name: str) -> Inner:
        """The inner operator with the values of one tensor."""
        layer = layer_of(name)
        share = 0.0 if layer is None else layer / (self.layers - 1) if self.layers > 1 else 1.0
        changes: dict[str, Any] = {}
        settled: set[tuple[str, int | None]] = set()
        for rule in self.rules:
            if rule.takes(name):
                old = changes.get(rule.field, getattr(self.inner, rule.field))
                changes[rule.field] = _settle(rule, old, share, settled)
        return msgspec.structs.replace(self.inner, **changes) if changes else self.inner

    def survey(self, name: str, inputs: Inputs) -> Survey:
        """As the inner operator's, with this tensor's values."""
        return self.at(name).survey(name, inputs)

    def survey_model(self, inputs: Inputs, each: Each) -> dict[str, Survey]:
        """The inner operator's surveys, one survey of a model for the tensors of every distinct setting."""
        names = self.reference(inputs).names
        found: dict[str, Survey] = {}
        for operator, part in self._settings(inputs, names):
            found |= operator.survey_model(part, each)
        return {name: found[name] for name in names}

    def rows(self, name: str, start: int, stop: int, inputs: Inputs, survey: Survey) -> Rows:
        """See `Operator.rows`."""
        return self.at(name).rows(name, start, stop, inputs, survey)

    def kernel(self, name: str, inputs: Inputs, survey: Survey) -> Kernel | None:
        """As the inner operator's, with this tensor's values."""
        return self.at(name).kernel(name, inputs, survey)

    def _bound(self, inputs: Inputs) -> float:
        settings = self._settings(inputs, self.reference(inputs).names)
        return math.sqrt(math.fsum(operator._bound(part) ** 2 for operator, part in settings))

    def _settings(self, inputs: Inputs, names: tuple[str, ...]) -> Iterator[tuple[Inner, Inputs]]:
        """Every distinct setting, and the inputs with only the tensors that have it."""
        groups: dict[Inner, list[str]] = {}
        for name in names:
            groups.setdefault(self.at(name), []).append(name)
        for operator, own in groups.items():
            yield operator, inputs if len(groups) == 1 else _only(inputs, own)

    def _check_rule(self, rule: Rule, hint: Any, where: str) -> None:
        listed = get_origin(hint) is tuple
        kind = get_args(hint)[0] if listed else hint
        if kind not in (float, bool):
            advice = "Name a field of the inner operator that holds numbers, or true or false."
            raise self._outside(f"{rule.field!r} cannot be scheduled", f"{where}.field", advice)
        count = len(getattr(self.inner, rule.field)) if listed else 0
        if rule.parent is not None and not 0 <= rule.parent < count:
            raise ParentsDoNotFit(
                f"{rule.field} has no entry {rule.parent}",
                where=f"{self.tag()}: {where}.parent",
                reason="operator.parents",
            )
        low, high = (0.0, 1.0) if kind is bool else range_of(type(self.inner), rule.field) or (-math.inf, math.inf)
        for at, value in enumerate(rule.values):
            if not (math.isfinite(value) and low <= value <= high and (kind is float or value in (0.0, 1.0))):
                allowed = "neither 0 nor 1" if kind is bool else f"outside {low:.16g}..{high:.16g}"
                advice = f"The range is that of {rule.field} in {self.inner.tag()}."
                raise self._outside(f"{value!r} is {allowed}", f"{where}.values[{at}]", advice)
        if not rule.values:
            raise self._outside(
                "no values", f"{where}.values", "Give one value, or several to be spread over the layers."
            )

    def _outside(self, message: str, field: str, advice: str) -> OutsideAllowlist:
        return OutsideAllowlist(message, where=f"{self.tag()}: {field}", advice=advice, reason="operator.schedule")

    @classmethod
    def examples(cls, parents: int) -> tuple[Self, ...]:
        """A gradient of scales with norms left alone, densities and a flag by name, and no rules at all."""
        delta = TaskDelta(scales=(0.3,) * parents, skip=())
        ones = (1.0,) * parents
        ties = Ties(densities=ones, weights=ones, normalize=True, scale=1.0, skip=())

        def rule(field: str, pattern: str, *values: float, parent: int | None = None) -> Rule:
            return Rule(field=field, parent=parent, filter=pattern, values=values)

        scales = (rule("scales", "norm", 0.0), rule("scales", ANY, 0.1, 0.5, parent=0))
        named = (rule("normalize", "wq", 0.0), rule("densities", "wq", 0.5, 0.2), rule("scale", ANY, 0.5))
        return (
            cls(inner=delta, layers=2, rules=scales),  # type: ignore[arg-type]
            cls(inner=ties, layers=3, rules=named),  # type: ignore[arg-type]
            cls(inner=delta, layers=2, rules=()),  # type: ignore[arg-type]
        )


def gradient(values: tuple[float, ...], share: float, *, steps: bool = False) -> float:
    """The value at a share of the way through some values at equal distances, f64.

    Args:
        values: At least one.
        share: 0..1.
        steps: Take the value before the place instead of the line between two.
    """
    scaled = share * (len(values) - 1)
    place = int(scaled)
    low, high = values[place], values[min(place + 1, len(values) - 1)]
    if steps:
        return low
    part = scaled - place
    # Rounding may lead beyond both ends by a unit, and so out of the field's range.
    return min(max((1.0 - part) * low + part * high, min(low, high)), max(low, high))


def _settle(rule: Rule, old: Any, share: float, settled: set[tuple[str, int | None]]) -> Any:
    """The field's value with what a rule adds to it; entries that an earlier rule settled stay."""
    if not isinstance(old, tuple):
        if (rule.field, None) in settled:
            return old
        settled.add((rule.field, None))
        value = gradient(rule.values, share, steps=isinstance(old, bool))
        return bool(value) if isinstance(old, bool) else value
    value = gradient(rule.values, share)
    entries = list(old)
    for place in range(len(entries)) if rule.parent is None else (rule.parent,):
        if (rule.field, place) not in settled:
            settled.add((rule.field, place))
            entries[place] = value
    return tuple(entries)


def _only(inputs: Inputs, names: list[str]) -> Inputs:
    parents = tuple(Subset(parent, names) for parent in inputs.parents)
    return replace(inputs, base=Subset(inputs.base, names), parents=parents)
