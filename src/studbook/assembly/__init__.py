"""A bundle: what was admitted, as a chain of ordinary files that a page verifies before it fetches a model byte.

`manifests` says what model and packages are, `building` makes registry, receipts and plan of them, `plan` what follows
from a name alone. `policy`, `registry`, `receipts`, `meaning` hold a bundle against all of it, `verify` in which order.
"""
