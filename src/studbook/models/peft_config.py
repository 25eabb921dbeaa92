"""adapter_config.json of a PEFT LoRA: what can be fused exactly is read, everything else is refused by name.

Fields and their defaults: PEFT's LoraConfig. A field this reader does not know may stand there as long as it is off:
one that is on could change what the factors mean.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from studbook.errors import BytesLie, UsageError
from studbook.models.strict_json import read_object

__all__ = ["LoraConfig", "read_config"]

# Fields that say how the adapter was trained or loaded, and nothing about what it adds.
_HARMLESS: Final = frozenset(
    {
        "auto_mapping", "base_model_name_or_path", "ensure_weight_tying", "exclude_modules", "inference_mode",
        "layers_pattern", "layers_to_transform", "lora_dropout", "megatron_core", "peft_version",
        "qalora_group_size", "revision", "runtime_config", "target_modules", "task_type", "eva_config",
    }
)  # fmt: skip
_READ: Final = frozenset(
    {
        "peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "bias",
        "init_lora_weights",
    }
)  # fmt: skip
# Ways to start training that leave the base as it is; the others subtract something from it.
_STARTS: Final = (True, False, None, "gaussian", "eva", "orthogonal")
_PLAIN = re.compile(r"\^?[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*\Z")
_MOST_RANK = 1 << 16
_MOST_ALPHA = 1 << 53


@dataclass(frozen=True)
class LoraConfig:
    """What a LoRA's config says.

    Attributes:
        r: Rank, where no pattern says otherwise.
        lora_alpha: Alpha, where no pattern says otherwise.
        rank_stabilised: Scale by alpha / sqrt(r) and not by alpha / r.
        fan_in_fan_out: The base's matrices are stored with inputs as rows.
        rank_pattern: Module or end of a module's name -> its rank; the first that matches counts.
        alpha_pattern: The same for alpha.
        base_name: What it calls its base; empty where it does not say.
    """

    r: int
    lora_alpha: float
    rank_stabilised: bool
    fan_in_fan_out: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    base_name: str

    def rank(self, module: str) -> int:
        """Rank of one module of the base, such as ``model.layers.0.self_attn.q_proj``."""
        return next((r for key, r in self.rank_pattern.items() if _matches(key, module)), self.r)

    def alpha(self, module: str) -> float:
        """Alpha of one module of the base."""
        return next((a for key, a in self.alpha_pattern.items() if _matches(key, module)), self.lora_alpha)


def read_config(data: bytes, where: object) -> LoraConfig:
    """Read and check adapter_config.json.

    Raises:
        BytesLie: if it is not JSON, or a field is not of its type.
        UsageError: naming a field that asks for something that cannot be fused exactly.
    """
    fields = read_object(data, where, "peft.config")
    if fields.get("peft_type") != "LORA":
        raise _unsupported(where, "peft_type", f"{str(fields.get('peft_type'))[:40]!r} is not LORA")
    for field, value in fields.items():
        if field not in _HARMLESS | _READ and value not in (None, False, "", [], {}):
            raise _unsupported(where, field, "is on; only plain LoRA is fused")
    if fields.get("bias", "none") != "none":
        raise _unsupported(where, "bias", "trains biases; only 'none' is fused")
    start = fields.get("init_lora_weights", True)
    if (isinstance(start, int | float) and not isinstance(start, bool)) or start not in _STARTS:
        raise _unsupported(where, "init_lora_weights", f"{str(start)[:40]!r} changes the base as well")
    base = fields.get("base_model_name_or_path")
    return LoraConfig(
        r=_rank(fields.get("r", 8), where, "r"),
        lora_alpha=_number(fields.get("lora_alpha", 8), where, "lora_alpha"),
        rank_stabilised=_flag(fields, "use_rslora", where),
        fan_in_fan_out=_flag(fields, "fan_in_fan_out", where),
        rank_pattern={k: _rank(v, where, f"rank_pattern.{k}") for k, v in _pattern(fields, "rank_pattern", where)},
        alpha_pattern={k: _number(v, where, f"alpha_pattern.{k}") for k, v in _pattern(fields, "alpha_pattern", where)},
        base_name=base if isinstance(base, str) else "",
    )


def _matches(key: str, module: str) -> bool:
    return module == key.removeprefix("^") or (not key.startswith("^") and module.endswith(f".{key}"))


def _pattern(fields: Mapping[str, Any], field: str, where: object) -> list[tuple[str, Any]]:
    value = fields.get(field) or {}
    if not isinstance(value, dict):
        raise _broken(where, field, "is not an object")
    for key in value:
        # Patterns are regular expressions to PEFT; a foreign one is never run.
        if not _PLAIN.match(key):
            raise _unsupported(where, field, f"{key[:80]!r} is no plain name of a module")
    return list(value.items())


def _rank(value: object, where: object, field: str) -> int:
    if type(value) is not int or not 1 <= value <= _MOST_RANK:
        raise _broken(where, field, f"{str(value)[:40]!r} is not a rank from 1 to {_MOST_RANK}")
    return value


def _number(value: object, where: object, field: str) -> float:
    plain = isinstance(value, float) or (type(value) is int and abs(value) <= _MOST_ALPHA)
    if not plain or not math.isfinite(value):  # type: ignore[arg-type]
        raise _broken(where, field, f"{str(value)[:40]!r} is not a finite number")
    return float(value)  # type: ignore[arg-type]


def _flag(fields: Mapping[str, Any], field: str, where: object) -> bool:
    value = fields.get(field)
    if value is not None and not isinstance(value, bool):
        raise _broken(where, field, "is neither true nor false")
    return bool(value)


def _broken(where: object, field: str, message: str) -> BytesLie:
    return BytesLie(message, where=f"{where}: field {field[:120]}", reason="peft.config")


def _unsupported(where: object, field: str, message: str) -> UsageError:
    return UsageError(
        message,
        where=f"{where}: field {field[:120]}",
        advice="Merge it into its base with the tool that made it, or train a plain LoRA.",
        reason="peft.unsupported",
    )
