"""What comes in from other tools and goes out to them.

In: `mergekit` reads the merge files of mergekit, `mergekit_yaml`, `mergekit_config`, `mergekit_settings`,
`mergekit_views` and `mergekit_methods` are its steps, in that order. It writes plain JSON values and knows no operator:
whoever breeds from them checks them. `oms.check_producer_signature` holds a folder against its producer's signature, a
model signature or an in-toto link (`links`, `producer`).

Out: the lab fills a `Dossier` from its records; `card` (Markdown), `cyclonedx` (bill of materials), `slsa` (sealed build
provenance) and `minimodel` (manifest v0) write from it, with the numbers of `figures`. `gguf` writes the model itself once
more, in a worker (`gguf_worker`). `oms` signs a whole folder.
"""

from __future__ import annotations

from studbook.exchange.card import write_card
from studbook.exchange.cyclonedx import write_bom
from studbook.exchange.dossier import Dossier
from studbook.exchange.mergekit import MergekitRecipe, read_mergekit, translate_mergekit
from studbook.exchange.minimodel import read_minimodel, write_minimodel
from studbook.exchange.oms import check_producer_signature, sign_files
from studbook.exchange.slsa import read_provenance, write_provenance

__all__ = [
    "Dossier",
    "MergekitRecipe",
    "check_producer_signature",
    "read_mergekit",
    "read_minimodel",
    "read_provenance",
    "sign_files",
    "translate_mergekit",
    "write_bom",
    "write_card",
    "write_minimodel",
    "write_provenance",
]
