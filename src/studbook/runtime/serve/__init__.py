"""The request path: models behind OpenAI's HTTP interface, on this machine alone unless clients have keys.

A request is read by `openai` within the limits of `app` and `protocol`, given to the `dispatch`er's choice of model by
`service`, queued in `pool`, written as `work` by one of its threads, and told as it grows (`text`). `server` puts it
together and stops it without loss; `control` is a second terminal's way in; `access` says who may ask; `metrics` counts.
Whose models they are and what a command does is the caller's business. See docs/serving.md.
"""

from __future__ import annotations

from studbook.runtime.serve.access import Access, new_key
from studbook.runtime.serve.control import ask
from studbook.runtime.serve.dispatch import Aside, Champion, Dispatcher, Outcome, Plan
from studbook.runtime.serve.requests import Asked, Limits, Model, Wanted
from studbook.runtime.serve.server import Address, House, serve
from studbook.runtime.serve.service import SERVED, Arrangement

__all__ = [
    "SERVED",
    "Access",
    "Address",
    "Arrangement",
    "Aside",
    "Asked",
    "Champion",
    "Dispatcher",
    "House",
    "Limits",
    "Model",
    "Outcome",
    "Plan",
    "Wanted",
    "ask",
    "new_key",
    "serve",
]
