"""The one place that imports torch; what needs it asks here and is refused in plain words where it is missing."""

from __future__ import annotations

from typing import Any

from studbook.errors import UsageError

torch: Any
try:
    import torch as _torch

    torch = _torch
except ImportError:
    torch = None

__all__ = ["require_torch", "torch"]


def require_torch(what: str = "training") -> Any:
    """Torch with one thread and deterministic kernels, for this process and for good.

    Args:
        what: Who asks for it.

    Raises:
        UsageError: if torch is not installed; ``usage.extra``.
    """
    if torch is None:
        raise UsageError(
            f"{what} needs torch, which is not installed",
            where=what,
            advice="Install the extra: pip install 'studbook[train]'",
            reason="usage.extra",
        )
    torch.set_num_threads(1)
    # The plainer `use_deterministic_algorithms` also loads the compiler, which makes folders.
    torch.set_deterministic_debug_mode("error")
    return torch
