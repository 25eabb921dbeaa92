"""The provenance sidecar of a container: what kind of source it came from and what is claimed of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from studbook.files import read_file
from studbook.models.keyvalue import MAX_MANIFEST_BYTES, format_manifest, parse_manifest, take
from studbook.records.base import Rung

__all__ = ["KNOWN_VALUES", "Provenance", "check_known", "parse_provenance", "read_provenance"]

KNOWN_VALUES: Mapping[str, tuple[str, ...]] = {
    "source_kind": ("deterministic-smoke", "converted-trained"),
    "quality_claim": ("runtime-execution-smoke-only",),
    "trained_quality_claim": ("not-claimed",),
    "quality_decision": ("accepted-for-assistant-quality",),
    "selector_model_byte_budget": ("33554432",),
}


@dataclass(frozen=True)
class Provenance:
    """A provenance manifest; keys nobody knows are kept and mean nothing.

    Attributes:
        values: All lines, in order; those with known keys hold known values.
    """

    values: Mapping[str, str]

    @property
    def source_kind(self) -> str:
        """``deterministic-smoke`` or ``converted-trained``."""
        return self.values["source_kind"]

    @property
    def claimed_rung(self) -> Rung:
        """The highest rung of the gate ladder the manifest claims; whether evidence reaches it is not decided here."""
        if "quality_decision" in self.values:
            return Rung.ASSISTANT
        return Rung.TRAINED if self.source_kind == "converted-trained" else Rung.SMOKE

    def encode(self) -> bytes:
        """The bytes of the manifest.

        Raises:
            ManifestRefused: if a line cannot be written, or a known key holds an unknown value.
        """
        check_known(self.values, "")
        return format_manifest(self.values)


def check_known(values: Mapping[str, str], where: object) -> None:
    """Check that a source kind is named and every known key holds one of its known values.

    Raises:
        ManifestRefused: naming the key.
    """
    take(values, "source_kind", where)
    for key in KNOWN_VALUES.keys() & values.keys():
        take(values, key, where, KNOWN_VALUES[key])


def parse_provenance(data: bytes, where: object = "") -> Provenance:
    """Read a provenance manifest from its bytes.

    Raises:
        ManifestRefused: if a line, or a known key's value, breaks a rule.
    """
    values = parse_manifest(data, where)
    check_known(values, where)
    return Provenance(values)


def read_provenance(path: Path | str) -> Provenance:
    """Read a provenance manifest, such as ``model.slm.manifest``, from disk.

    Raises:
        UsageError: if there is no such file.
        BytesLie: if it is not a regular file.
        OverBudget: if it is too long.
        ManifestRefused: if it breaks a rule.
    """
    return parse_provenance(read_file(Path(path), MAX_MANIFEST_BYTES), path)
