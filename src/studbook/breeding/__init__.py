"""From approved parents to a bounded descendant: declared before the run, made in a worker, compared with what came out.

`template` declares, `worker` computes, `produce` runs the worker and checks its output against the template,
`recompute` does it again from the receipt alone. `operators` holds one file an operator.
"""

from __future__ import annotations
