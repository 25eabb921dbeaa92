"""Training with torch, for workers only: rows in, weights out. The lab itself never imports what stands on torch.

``rows`` reads slices and draws batches, ``plan`` holds what a run may do, ``network`` is the pre-norm decoder of the SLM1
format, ``learn`` the three ways of training. ``backend`` is the one place that imports torch; it is None without the
extra ``train``. Budgets are steps, never seconds. One thread and deterministic kernels: two runs on machines of one
environment class give the same bytes, and nothing is promised beyond that class.
"""

from __future__ import annotations

__all__: list[str] = []
