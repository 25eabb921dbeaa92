"""The door to manifests: line-based text, provenance sidecars and trained sources, under one name.

`keyvalue` reads lines, `provenance` knows the sidecar of a container, `trained_source` knows the manifest that lists
one file a tensor, `trained_files` reads and writes those files.
"""

from __future__ import annotations

from studbook.models.keyvalue import ManifestRule, format_manifest, parse_manifest
from studbook.models.provenance import Provenance, parse_provenance, read_provenance
from studbook.models.trained_files import convert_trained_source, trained_source_manifest, write_trained_source
from studbook.models.trained_source import (
    FileEntry,
    TrainedSource,
    check_trained_source,
    parse_trained_source,
    read_trained_source,
)

__all__ = [
    "FileEntry",
    "ManifestRule",
    "Provenance",
    "TrainedSource",
    "check_trained_source",
    "convert_trained_source",
    "format_manifest",
    "parse_manifest",
    "parse_provenance",
    "parse_trained_source",
    "read_provenance",
    "read_trained_source",
    "trained_source_manifest",
    "write_trained_source",
]
