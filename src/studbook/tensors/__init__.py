"""Numbers that come out the same everywhere: the numeric contract and what keeps it.

`contract` states the rules and their digest, `philox` is the keyed random stream, `reductions` sums in a fixed order,
`selection` keeps exactly the largest magnitudes, `sources` is how an operator sees a model. Everything is surveyed once
per tensor and then computed for any range of elements, so chunk size and threads never show in the bytes.
"""

from __future__ import annotations
