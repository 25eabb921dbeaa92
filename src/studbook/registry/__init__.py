"""Sources in, parents out: what is registered, who approved it, and whether parents fit together.

`sources` reads models, data manifests and licences from disk into drafts of SourceManifests; `approval` selects the
parents of a round; `compatibility` compares them before any merge-style operator may start.
"""

from __future__ import annotations
