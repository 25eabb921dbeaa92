"""What comes in from other tools and goes out to them.

`mergekit` reads the merge files of mergekit, `mergekit_yaml`, `mergekit_config`, `mergekit_settings`, `mergekit_views`
and `mergekit_methods` are its steps, in that order. The room writes plain JSON values and knows no operator: whoever
breeds from them checks them.
"""

from __future__ import annotations

from studbook.exchange.mergekit import MergekitRecipe, read_mergekit, translate_mergekit

__all__ = ["MergekitRecipe", "read_mergekit", "translate_mergekit"]
