"""From a merge method and its settings to an operator record: one small function a method, and one table.

A record is plain JSON values; whether its numbers are in range is for whoever decodes it. Where parameters change with
layers or names the record is wrapped in ``scheduled/1``. Source of names, scopes and defaults: mergekit 0.1.5,
``merge_methods/``; how close the results are stands in docs/mergekit.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from studbook.exchange.mergekit_config import Config
from studbook.exchange.mergekit_settings import ANY, Parameter, Rule, Setting, constant
from studbook.exchange.mergekit_yaml import Node

__all__ = ["METHODS", "REFUSED", "Asked", "Built", "Method", "operator_record"]

# What a setting of a flag, a sum to one, or a number that has to be one, may be off by.
_CLOSE = 1e-9
Role = Literal["every", "parents", "arc", "around", "stack"]


@dataclass(frozen=True)
class Asked:
    """What a file asks of a method.

    Attributes:
        config: The file.
        shared: Settings that hold for every input.
        each: Settings of the parents, in order.
        around_base: Whether the base is an input.
        seed: Seed of random masks.
        notes: What the translation does otherwise than the file's reader may expect; methods add to it.
    """

    config: Config
    shared: Mapping[str, Setting]
    each: Mapping[str, tuple[Setting, ...]]
    around_base: bool
    seed: int
    notes: list[str] = field(default_factory=list)

    @property
    def node(self) -> Node:
        """Where the method is named."""
        return self.config.method_node

    def fixed(self, name: str) -> float:
        """The value of a parameter that may not change between tensors.

        Raises:
            OutsideAllowlist: if it does.
        """
        value = constant(self.shared[name])
        if value is None:
            self.node.outside(f"{name} differs between tensors", "gradient", "Give it one value.")
        return value

    def flag(self, name: str) -> bool:
        """The value of a flag; see `fixed`."""
        return self.fixed(name) == 1.0

    def require(self, name: str, wanted: float, why: str) -> None:
        """Refuse every value but one of a parameter.

        Raises:
            OutsideAllowlist: if it has another value.
        """
        if self.fixed(name) != wanted:
            self.node.outside(f"{name} other than {wanted:g}: {why}", "parameter")

    def drawn(self) -> int:
        """The seed, with a note that the masks are the seed's."""
        self.notes.append(f"random masks are drawn from seed {self.seed}, the same on every machine")
        return self.seed


class Method(NamedTuple):
    """A merge method that can be translated.

    Attributes:
        role: Who the operator's parents are: ``every`` input; ``parents`` without the base, which there has to be;
            ``arc``: the base and one other; ``around``: without the base, if there is one; ``stack``: a model a slice.
        parameters: What can be set.
        build: Makes the operator's fields: those that may change with the tensor, and those that may not.
    """

    role: Role
    parameters: tuple[Parameter, ...]
    build: Callable[[Asked], Built]


class Built(NamedTuple):
    """Tag and fields of an operator."""

    tag: str
    graded: Mapping[str, Setting | tuple[Setting, ...]]
    plain: Mapping[str, Any]


def operator_record(built: Built, layers: Callable[[], int]) -> dict[str, Any]:
    """The operator record, wrapped in ``scheduled/1`` where a field changes with layers or names.

    Args:
        built: Tag and fields.
        layers: Number of layers of the child; called only where it is needed.
    """
    inner: dict[str, Any] = {"operator": built.tag}
    rules: list[dict[str, Any]] = []
    for name, found in built.graded.items():
        # A tuple of rules, or a tuple of such tuples: one a parent.
        many = not found or isinstance(found[0][0], tuple)
        settings: Sequence[tuple[int | None, Any]] = list(enumerate(found)) if many else [(None, found)]
        values = []
        for parent, setting in settings:
            rules += _rules(name, parent, setting)
            values.append(setting[-1].values[0])
        inner[name] = values if many else values[0]
    inner.update(built.plain)
    if not rules:
        return inner
    return {"operator": "scheduled/1", "inner": inner, "layers": layers(), "rules": rules}


def _rules(name: str, parent: int | None, setting: Setting) -> list[dict[str, Any]]:
    """Rules of a setting; the value of a last rule without a gradient stands in the inner operator already."""
    if constant(setting) is not None:
        return []
    kept = setting if len(setting[-1].values) > 1 else setting[:-1]
    return [{"field": name, "parent": parent, "filter": rule.filter, "values": list(rule.values)} for rule in kept]


def _linear(asked: Asked) -> Built:
    weights, normalize = asked.each["weight"], asked.flag("normalize")
    if _sums_to_one(weights):
        return Built("blend/1", {"weights": weights}, {})
    if (
        normalize
        and all(constant(w) is not None for w in weights)
        and not math.fsum(constant(w) or 0.0 for w in weights)
    ):
        asked.node.wrong("the weights sum to 0, so they cannot be normalised", "weights")
    return Built("linear-sum/1", {"weights": weights}, {"normalize": normalize})


def _sums_to_one(weights: Sequence[Setting]) -> bool:
    """Whether every node of the gradients sums to 1; between nodes of equal lists the sum is linear too."""
    shapes = {tuple((rule.filter, len(rule.values)) for rule in setting) for setting in weights}
    if len(shapes) != 1:
        return False
    sums = [
        math.fsum(column)
        for rules in zip(*weights, strict=True)
        for column in zip(*(r.values for r in rules), strict=True)
    ]
    return all(abs(total - 1.0) <= _CLOSE for total in sums)


def _slerp(asked: Asked) -> Built:
    return Built("slerp/1", {"t": asked.shared["t"]}, {"skip": []})


def _nearswap(asked: Asked) -> Built:
    return Built("nearswap/1", {"t": asked.shared["t"]}, {})


def _model_stock(asked: Asked) -> Built:
    return Built("model-stock/1", {}, {"filter_wise": asked.flag("filter_wise")})


def _multislerp(asked: Asked) -> Built:
    asked.require("normalize_weights", 1.0, "the method is defined for weights that sum to 1")
    asked.require("eps", 1e-8, "zero vectors are left out here instead")
    return Built("multislerp/1", {"weights": asked.each["weight"]}, {"around_base": asked.around_base})


def _task_arithmetic(asked: Asked) -> Built:
    asked.require("rescale", 0.0, "task_arithmetic drops nothing, so it has nothing to rescale")
    for density in asked.each["density"]:
        if constant(density) != 1.0:
            asked.node.outside("task_arithmetic drops nothing; a density has no effect", "parameter", "Leave it out.")
    if not asked.flag("normalize") and constant(asked.shared["lambda"]) == 1.0:
        return Built("task-delta/1", {"scales": asked.each["weight"]}, {"skip": []})
    parents = len(asked.each["weight"])
    everything = {"densities": (_one(1.0),) * parents, "gammas": (_one(0.0),) * parents}
    return _combined(asked, "breadcrumbs/1", everything, elect=False)


def _one(value: float) -> Setting:
    return (Rule(ANY, (value,)),)


def _combined(
    asked: Asked, tag: str, graded: Mapping[str, Setting | tuple[Setting, ...]], **plain: bool | int
) -> Built:
    """An operator that weighs, normalises and scales what it keeps of the parents' changes."""
    shared = {**graded, "weights": asked.each["weight"], "scale": asked.shared["lambda"]}
    return Built(tag, shared, {"normalize": asked.flag("normalize"), "skip": [], **plain})


def _ties(asked: Asked) -> Built:
    asked.require("rescale", 0.0, "ties/1 keeps the sizes of what it keeps")
    return _combined(asked, "ties/1", {"densities": asked.each["density"]})


def _breadcrumbs(elect: bool) -> Callable[[Asked], Built]:
    def build(asked: Asked) -> Built:
        asked.require("rescale", 0.0, "breadcrumbs/1 keeps the sizes of what it keeps")
        graded = {"densities": asked.each["density"], "gammas": asked.each["gamma"]}
        return _combined(asked, "breadcrumbs/1", graded, elect=elect)

    return build


def _della(elect: bool) -> Callable[[Asked], Built]:
    def build(asked: Asked) -> Built:
        graded = {"densities": asked.each["density"], "epsilons": asked.each["epsilon"]}
        return _combined(asked, "della/1", graded, elect=elect, rescale=asked.flag("rescale"), seed=asked.drawn())

    return build


def _dare_ties(asked: Asked) -> Built:
    graded = {"densities": asked.each["density"]}
    return _combined(asked, "dare-ties/1", graded, rescale=asked.flag("rescale"), seed=asked.drawn())


def _dare_linear(asked: Asked) -> Built:
    densities = asked.each["density"]
    plain = not asked.flag("normalize") and constant(asked.shared["lambda"]) == 1.0 and asked.flag("rescale")
    if plain and len(set(densities)) == 1:
        graded: Mapping[str, Setting | tuple[Setting, ...]] = {"keep": densities[0], "scales": asked.each["weight"]}
        return Built("dare/1", graded, {"seed": asked.drawn(), "skip": []})
    # Magnitude says nothing where epsilon is 0: every element of a parent is kept with the same probability.
    nothing = (_one(0.0),) * len(densities)
    by_rank = {"densities": densities, "epsilons": nothing}
    return _combined(asked, "della/1", by_rank, elect=False, rescale=asked.flag("rescale"), seed=asked.drawn())


def _passthrough(asked: Asked) -> Built:
    if any(constant(scale) != 1.0 for scale in asked.each["scale"]):
        asked.node.outside("passthrough does not scale tensors here", "scale", "Leave scale out.")
    return Built("passthrough/1", {}, {})


def _arithmetic(normalize: bool, rescale: bool, *more: Parameter) -> tuple[Parameter, ...]:
    """Parameters of the methods that add task vectors."""
    return (
        Parameter("weight", None, "parent"),
        Parameter("density", 1.0, "parent"),
        Parameter("lambda", 1.0),
        Parameter("normalize", float(normalize), flag=True),
        Parameter("rescale", float(rescale), flag=True),
        # Only says how masks are held in memory.
        Parameter("int8_mask", 0.0, flag=True),
        *more,
    )


_GAMMA = Parameter("gamma", 0.01, "parent")
_EPSILON = Parameter("epsilon", 0.15, "parent")
METHODS: Mapping[str, Method] = {
    "linear": Method("every", (Parameter("weight", None, "input"), Parameter("normalize", 1.0, flag=True)), _linear),
    "slerp": Method("arc", (Parameter("t", None),), _slerp),
    "nearswap": Method("parents", (Parameter("t", None),), _nearswap),
    "model_stock": Method("parents", (Parameter("filter_wise", 0.0, flag=True),), _model_stock),
    "multislerp": Method(
        "around",
        (
            Parameter("weight", None, "parent"),
            Parameter("normalize_weights", 1.0, flag=True),
            Parameter("eps", 1e-8),
        ),
        _multislerp,
    ),
    "task_arithmetic": Method("parents", _arithmetic(False, False), _task_arithmetic),
    "ties": Method("parents", _arithmetic(True, False), _ties),
    "dare_linear": Method("parents", _arithmetic(False, True), _dare_linear),
    "dare_ties": Method("parents", _arithmetic(False, True), _dare_ties),
    "breadcrumbs": Method("parents", _arithmetic(False, False, _GAMMA), _breadcrumbs(False)),
    "breadcrumbs_ties": Method("parents", _arithmetic(False, False, _GAMMA), _breadcrumbs(True)),
    "della": Method("parents", _arithmetic(True, True, _EPSILON), _della(True)),
    "della_linear": Method("parents", _arithmetic(False, True, _EPSILON), _della(False)),
    "passthrough": Method("stack", (Parameter("scale", 1.0, "input"),), _passthrough),
}
REFUSED: Mapping[str, str] = {
    "nuslerp": "its arc begins where slerp/1 goes straight, and it can go row by row",
    "karcher": "it iterates until a tolerance is met, so its result depends on the arithmetic of every step",
    "arcee_fusion": "it ranks elements by a divergence of softmaxes, which no operator computes",
    "sce": "it selects elements by their variance over the parents, which no operator computes",
    "ram": "it weighs elements by how many parents changed them, which no operator computes",
    "ramplus_tl": "it weighs elements by how many parents changed them, which no operator computes",
}
