"""Operators: one file and one line in ``PlainOperator`` or ``TrainedOperator`` each, and nothing else to register.

`parameters` holds the vocabulary of their fields, `base` what an operator is, `bounds` the provable size of a change,
`run` the loop over tensors. A record becomes an operator through `decode_operator` and in no other way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_args, get_origin

import msgspec

from studbook.breeding.operators.adapter_fuse import AdapterFuse
from studbook.breeding.operators.adapter_train import AdapterTrain
from studbook.breeding.operators.base import Operator, Survey
from studbook.breeding.operators.blend import Blend
from studbook.breeding.operators.breadcrumbs import Breadcrumbs
from studbook.breeding.operators.crossover import Crossover
from studbook.breeding.operators.crossover_split import CrossoverSplit
from studbook.breeding.operators.dare import Dare
from studbook.breeding.operators.dare_norm_matched import DareNormMatched
from studbook.breeding.operators.dare_ties import DareTies
from studbook.breeding.operators.della import Della
from studbook.breeding.operators.dequantise import Dequantise
from studbook.breeding.operators.distil import Distil
from studbook.breeding.operators.federated_round import ClientData, FederatedRound
from studbook.breeding.operators.federated_update import FederatedUpdate
from studbook.breeding.operators.fine_tune import FineTune
from studbook.breeding.operators.inputs import Inputs
from studbook.breeding.operators.linear_sum import LinearSum
from studbook.breeding.operators.model_stock import ModelStock
from studbook.breeding.operators.multislerp import Multislerp
from studbook.breeding.operators.mutation import Mutation
from studbook.breeding.operators.nearswap import Nearswap
from studbook.breeding.operators.passthrough import Passthrough
from studbook.breeding.operators.prune import Prune
from studbook.breeding.operators.quantise import Quantise
from studbook.breeding.operators.scheduled import Scheduled
from studbook.breeding.operators.sign_aware_merge import SignAwareMerge
from studbook.breeding.operators.slerp import Slerp
from studbook.breeding.operators.soup import Soup
from studbook.breeding.operators.sparse_task_delta import SparseTaskDelta
from studbook.breeding.operators.task_delta import TaskDelta
from studbook.breeding.operators.ties import Ties
from studbook.breeding.operators.tokenizer_extend import TokenizerExtend
from studbook.breeding.operators.tokenizer_prune import TokenizerPrune
from studbook.breeding.operators.trained import Learned, Trained
from studbook.errors import OutsideAllowlist, RecordRefused
from studbook.records.doors import canonical

__all__ = [
    "AdapterFuse",
    "AdapterTrain",
    "AnyOperator",
    "Blend",
    "Breadcrumbs",
    "ClientData",
    "Crossover",
    "CrossoverSplit",
    "Dare",
    "DareNormMatched",
    "DareTies",
    "Della",
    "Dequantise",
    "Distil",
    "FederatedRound",
    "FederatedUpdate",
    "FineTune",
    "Inputs",
    "Learned",
    "LinearSum",
    "ModelStock",
    "Multislerp",
    "Mutation",
    "Nearswap",
    "Operator",
    "Passthrough",
    "PlainOperator",
    "Prune",
    "Quantise",
    "Scheduled",
    "SignAwareMerge",
    "Slerp",
    "Soup",
    "SparseTaskDelta",
    "Survey",
    "TaskDelta",
    "Ties",
    "TokenizerExtend",
    "TokenizerPrune",
    "Trained",
    "TrainedOperator",
    "decode_operator",
    "every_type",
    "operator_names",
    "operator_types",
    "trained_types",
]

# Every operator that a schedule can hold.
PlainOperator = (
    Blend
    | TaskDelta
    | SignAwareMerge
    | Dare
    | Crossover
    | Mutation
    | Prune
    | Quantise
    | Slerp
    | Multislerp
    | Nearswap
    | ModelStock
    | Soup
    | FederatedUpdate
    | CrossoverSplit
    | Dequantise
    | LinearSum
    | TokenizerPrune
    | TokenizerExtend
    | Breadcrumbs
    | DareNormMatched
    | DareTies
    | Della
    | Passthrough
    | SparseTaskDelta
    | Ties
    | AdapterFuse
)
# Every operator that trains: its child follows from slices of rows too, and its bytes from the environment.
TrainedOperator = FineTune | Distil | AdapterTrain
AnyOperator = PlainOperator | Scheduled[PlainOperator] | TrainedOperator | FederatedRound

# Characters of somebody's own words that a refusal repeats.
_TOLD = 200


def operator_types() -> tuple[type[Operator], ...]:
    """Every operator class whose child follows from base and parents alone, in the order of ``AnyOperator``."""
    kinds = (get_origin(kind) or kind for kind in get_args(AnyOperator))
    return tuple(kind for kind in kinds if not issubclass(kind, Learned))


def trained_types() -> tuple[type[Trained], ...]:
    """Every operator class that trains on the slices of one cluster, in the order of ``TrainedOperator``."""
    return tuple(get_args(TrainedOperator))


def every_type() -> tuple[type[Operator], ...]:
    """Every operator class, in the order of ``AnyOperator``."""
    return (*operator_types(), *trained_types(), FederatedRound)


def operator_names() -> tuple[str, ...]:
    """Tag of every operator, such as ``blend/1``, sorted."""
    return tuple(sorted(kind.tag() for kind in every_type()))


def decode_operator(record: Mapping[str, Any]) -> AnyOperator:
    """An operator from its record as plain JSON values, exactly.

    Args:
        record: The fields, with the tag under ``operator``.

    Raises:
        OutsideAllowlist: if the tag names no operator of this version, or a value is out of its range.
        ParentsDoNotFit: if the record's lists cannot fit any number of parents.
        RecordRefused: if a field is missing, unknown or of another type, naming it.
    """
    tag = record.get("operator")
    if isinstance(tag, str) and tag not in operator_names():
        raise OutsideAllowlist(
            f"{tag[:_TOLD]!r} is no operator of this version",
            where="operator",
            advice=f"Use one of {', '.join(operator_names())}, or the version of Studbook that wrote this record.",
            reason="operator.unknown",
        )
    try:
        operator: AnyOperator = msgspec.convert(record, AnyOperator, strict=True)
    except msgspec.ValidationError as error:
        raise _refused(tag, str(error)) from error
    operator.validate()
    # Catches what conversion would round or read differently, such as an integer that no f64 holds.
    if canonical(operator) != canonical(dict(record)):
        raise _refused(tag, "does not read back as what was written")
    return operator


def _refused(tag: object, message: str) -> RecordRefused:
    # msgspec names the field as "... field `x`" or as a path "... - at `$.x[0]`".
    text, _, path = message.partition(" - at `$.")
    field = re.search(r" field `([^`]*)`", text)
    place = (path.rstrip("`") or (field[1] if field else ""))[:_TOLD]
    named = tag if tag and isinstance(tag, str) else "operator record"
    return RecordRefused(
        text[:_TOLD],
        where=f"{named}: {place}" if place else named,
        advice="Write every field of the operator, no other, each of the documented type.",
        reason="operator.record",
    )
