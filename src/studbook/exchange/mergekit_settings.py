"""What a mergekit file sets a parameter to: numbers, gradients over the layers, and filters over tensor names.

A setting is a list of rules; the first whose filter is part of a tensor's name gives the value, and the last one takes
every name. A rule's values are spread evenly over the layers of a slice and interpolated between them. Source: mergekit
0.1.5, ``config.py`` (``evaluate_setting``), ``parameter_resolver.py`` and ``plan.py`` (where t comes from).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from studbook.exchange.mergekit_config import Slice
from studbook.exchange.mergekit_yaml import Node
from studbook.tensors.views import comes_before

__all__ = ["ANY", "Names", "Parameter", "Rule", "Setting", "at", "constant", "joined", "settle"]

ANY = "*"
Names = Callable[[], Sequence[str]]
_LONGEST = 1024
_FILTER = re.compile(r"[\x21-\x7e]{1,120}")


class Parameter(NamedTuple):
    """A parameter of a merge method.

    Attributes:
        name: As the file writes it.
        default: What holds where nothing is set; None where something has to be.
        scope: ``shared``; ``input``: one value an input; ``parent``: one an input other than the base.
        flag: Whether it is true or false, kept as 1 and 0.
    """

    name: str
    default: float | None
    scope: str = "shared"
    flag: bool = False


class Rule(NamedTuple):
    """Values for the tensors a filter takes.

    Attributes:
        filter: ``*``, or a part of a tensor's name.
        values: One value, or several spread over the layers.
    """

    filter: str
    values: tuple[float, ...]


Setting = tuple[Rule, ...]


def settle(parameter: Parameter, scopes: Sequence[Mapping[str, Node]], node: Node) -> Setting:
    """The setting of one parameter for one slice, and one input where it has one an input.

    Args:
        parameter: What is looked up.
        scopes: Where it may be set, the nearest first.
        node: What is blamed where it has to be set and is not.

    Raises:
        UsageError: if a value is of another kind, or none is set for some tensor.
        OutsideAllowlist: if a flag is graded over the layers.
    """
    rules: list[Rule] = []
    for scope in scopes:
        if parameter.name in scope:
            rules += _rules(scope[parameter.name], parameter)
            if rules[-1].filter == ANY:
                return tuple(rules)
    if parameter.default is None:
        advice = "Set it, or add an entry without a filter behind the ones with filters."
        node.wrong(f"{parameter.name} is set for no tensor, or not for every one", "missing", advice)
    return (*rules, Rule(ANY, (parameter.default,)))


def at(rule: Rule, t: float) -> float:
    """Value of a rule at a share of the way through its layers, f64, as mergekit interpolates it.

    Args:
        rule: Values at equal distances.
        t: 0..1.
    """
    scaled = t * (len(rule.values) - 1)
    below = int(scaled)
    above = min(len(rule.values) - 1, below + 1)
    share = scaled - below
    return (1 - share) * rule.values[below] + share * rule.values[above]


def constant(setting: Setting) -> float | None:
    """The one value of a setting, or None where it differs between tensors."""
    values = {value for rule in setting for value in rule.values}
    return values.pop() if len(values) == 1 else None


def joined(settings: Sequence[Setting], slices: Sequence[Slice], name: str, outside: Names) -> Setting:
    """One setting over all layers of the child from one a slice.

    Args:
        settings: One a slice.
        slices: The slices; without layers where whole models are merged.
        name: The parameter, for messages.
        outside: Names of the tensors before and behind the layers; called only where they need values of their own.

    Raises:
        OutsideAllowlist: if the slices' filters differ.
        UsageError: as ``outside`` does.
    """
    if len(settings) == 1 or (len(set(settings)) == 1 and _even(settings[0])):
        return settings[0]
    filters = [tuple(rule.filter for rule in setting) for setting in settings]
    for place, found in enumerate(filters):
        if found != filters[0]:
            slices[place].node.outside(f"{name} has other filters here than in the first slice", "slice-filters")
    rules = tuple(
        Rule(
            key,
            tuple(
                value for setting, piece in zip(settings, slices, strict=True) for value in _spread(setting[k], piece)
            ),
        )
        for k, key in enumerate(filters[0])
    )
    return (*_ends(rules, settings[0], settings[-1], outside), *rules)


def _even(setting: Setting) -> bool:
    """Whether no rule changes from layer to layer."""
    return all(len(rule.values) == 1 for rule in setting)


def _spread(rule: Rule, piece: Slice) -> list[float]:
    """The value of every layer of a slice; t of a slice of one layer is 1, as in mergekit."""
    first, last = piece.sources[0].layers or (0, 1)
    count = last - first
    return [at(rule, i / (count - 1) if count > 1 else 1.0) for i in range(count)]


def _ends(rules: Setting, first: Setting, last: Setting, outside: Names) -> list[Rule]:
    """Rules for tensors outside the layers: mergekit takes the first value of the first and of the last slice for them.

    A schedule over all layers would give both the value of the first layer.
    """
    if all(at(f, 0.0) == at(e, 0.0) == rule.values[0] for rule, f, e in zip(rules, first, last, strict=True)):
        return []
    found = []
    for name in outside():
        number = next(i for i, rule in enumerate(rules) if rule.filter == ANY or rule.filter in name)
        value = at((first if comes_before(name) else last)[number], 0.0)
        if value != rules[number].values[0]:
            found.append(Rule(name, (value,)))
    return found


def _rules(node: Node, parameter: Parameter) -> list[Rule]:
    if isinstance(node.value, dict):
        return [_conditional(node, parameter)]
    if isinstance(node.value, list) and any(isinstance(entry.value, dict) for entry in node.value):
        return _until_any([_conditional(entry, parameter) for entry in node.sequence()])
    return [Rule(ANY, _values(node, parameter))]


def _until_any(rules: list[Rule]) -> list[Rule]:
    """The rules up to the first that takes every name; none behind it is ever reached."""
    last = next((i for i, rule in enumerate(rules) if rule.filter == ANY), len(rules))
    return rules[: last + 1]


def _conditional(node: Node, parameter: Parameter) -> Rule:
    fields = node.mapping(("filter", "value"))
    if "value" not in fields:
        node.wrong("has no value", "missing")
    filtered = fields["filter"].value if "filter" in fields else ANY
    if not isinstance(filtered, str) or not _FILTER.fullmatch(filtered or ANY):
        fields["filter"].wrong("is no part of a tensor's name", "filter")
    return Rule(filtered or ANY, _values(fields["value"], parameter))


def _values(node: Node, parameter: Parameter) -> tuple[float, ...]:
    if isinstance(node.value, list):
        if parameter.flag:
            node.outside(f"{parameter.name} cannot change from layer to layer", "gradient")
        found = tuple(entry.number() for entry in node.sequence())
        if len(found) > _LONGEST:
            node.wrong(f"{len(found)} values; at most {_LONGEST} are read", "size")
        return found
    return (float(node.flag()) if parameter.flag else node.number(),)
