"""What must hold between the files of a checkpoint: index, shards, and types that can be computed with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studbook.errors import BytesLie, UsageError
from studbook.models.checkpoint_folder import FileStore
from studbook.models.safetensors import STORAGE, SafetensorsFile
from studbook.models.safetensors_layout import INDEX
from studbook.models.strict_json import read_object

__all__ = ["check_dtypes", "check_index", "check_shards", "find_homes", "read_index"]

_INTEGERS = frozenset({"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"})
# Integers under these names are weights somebody packed, and not positions or masks.
_PACKED = frozenset({"weight", "qweight", "qzeros", "scales", "weight_packed", "weight_scale", "weight_format"})


def read_index(store: FileStore) -> dict[str, str]:
    """Tensor -> file name, from the index.

    Raises:
        BytesLie: if it is not an index.
    """
    place = store.files[INDEX]
    found = read_object(store.read(INDEX), place, "checkpoint.index.json").get("weight_map")
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise BytesLie("has no weight_map of names", where=place, reason="checkpoint.index.weight-map")
    return found


def check_shards(named: set[str], there: set[str], where: Path) -> None:
    """Refuse an index that names files that are not there, or leaves some unnamed.

    Raises:
        BytesLie: naming one of them.
    """
    if missing := named - there:
        raise BytesLie(f"names {min(missing)[:80]!r}, which is missing", where=where, reason="checkpoint.index.shard")
    if extra := there - named:
        advice = "Move the file away if it is not part of the model."
        message = f"does not name {min(extra)!r}, which lies beside it"
        raise BytesLie(message, where=where, advice=advice, reason="checkpoint.index.extra")


def check_index(index: Mapping[str, str], weights: Mapping[str, SafetensorsFile], where: Path) -> None:
    """Refuse an index that disagrees with the headers of the shards.

    Raises:
        BytesLie: naming a tensor.
    """
    for name, path in index.items():
        if name not in weights[path].entries:
            raise BytesLie(f"says {name[:80]!r} is in {path}; it is not", where=where, reason="checkpoint.index.tensor")
    for path, file in weights.items():
        if unnamed := sorted(name for name in file.entries if index.get(name) != path):
            message = f"does not say that {unnamed[0][:80]!r} is in {path}"
            raise BytesLie(message, where=where, reason="checkpoint.index.unnamed")


def find_homes(weights: Mapping[str, SafetensorsFile]) -> dict[str, SafetensorsFile]:
    """Which file holds a tensor; no two may.

    Raises:
        BytesLie: naming a tensor that two files hold.
    """
    found: dict[str, SafetensorsFile] = {}
    for file in weights.values():
        for name in file.entries:
            if name in found:
                message = f"is in {found[name].path.name} too"
                raise BytesLie(message, where=f"{file.path}: {name[:80]}", reason="checkpoint.twice")
            found[name] = file
    return found


def check_dtypes(found: Mapping[str, str], config: Mapping[str, Any], homes: Mapping[str, SafetensorsFile]) -> None:
    """Refuse early what cannot be combined: packed or quantised weights, and types nobody trains in.

    Args:
        found: Tensor -> dtype as the file spells it.
        config: config.json.
        homes: Which file holds a tensor.

    Raises:
        UsageError: naming a tensor.
    """
    for name, dtype in found.items():
        packed = name.rpartition(".")[2] in _PACKED or config.get("quantization_config") is not None
        if dtype not in STORAGE and (dtype not in _INTEGERS or packed):
            raise UsageError(
                f"is stored as {dtype}; only F32, F16 and BF16 weights can be combined",
                where=f"{homes[name].path}: {name[:80]}",
                advice="Use the checkpoint it was quantised from, or convert it to one of the three.",
                reason="checkpoint.storage",
            )
    if not any(dtype in STORAGE for dtype in found.values()):
        raise UsageError("holds no weights", where=next(iter(homes.values())).path, reason="checkpoint.weights")
