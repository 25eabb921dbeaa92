"""One answer in the making: what was asked, what is written, and where it goes."""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Callable
from typing import TypeAlias

from studbook.errors import OverBudget, StudbookError, UsageError
from studbook.models.engine import Line
from studbook.models.tokenizers import EOS, Tokenizer
from studbook.runtime.handles import Module, Session
from studbook.runtime.serve.requests import Failed, Finished, Limits, Reason, Text, Wanted
from studbook.runtime.serve.text import Composer

__all__ = ["Event", "Work"]

Event: TypeAlias = Text | Finished | Failed
"""What comes of a work; the last two end it."""


class Work:
    """One answer in the making; a worker's thread drives it, `cancel` may come from anywhere.

    Args:
        revision: The model that answers.
        wanted: What it shall write.
        limits: The limits.
        deliver: Given every event, in the worker's thread.
        parts: Whether the text is wanted as it grows.
        aside: Whether it runs beside the answers.

    Attributes:
        line: What the engine writes on; None until it began.
        began: When its seconds begin, by the monotonic clock: what runs beside answers waits for nobody's sake.
    """

    def __init__(
        self,
        revision: str,
        wanted: Wanted,
        limits: Limits,
        deliver: Callable[[Event], None],
        *,
        parts: bool = False,
        aside: bool = False,
    ) -> None:
        self.revision, self.wanted, self.deliver, self.aside = revision, wanted, deliver, aside
        self.line: Line | None = None
        self._limits, self._parts = limits, parts
        self.began = time.monotonic()
        self._error: StudbookError | None = None
        self._session: Session | None = None
        self._ids: list[int] = []
        self._said: list[str] = []

    def cancel(self, error: StudbookError) -> None:
        """Have it end at the next token, with this error."""
        self._error = error

    def due(self) -> StudbookError | None:
        """Why it shall end now; None as long as it may go on."""
        if self._error is None and time.monotonic() > self.began + self._limits.answer_seconds:
            # For what there never was room says nothing about its model.
            self._error = OverBudget(
                f"no answer within {self._limits.answer_seconds:g} seconds",
                reason="serve.dropped" if self.aside and self.line is None else "serve.timeout",
                advice="Ask for fewer tokens, or ask again when less is going on.",
            )
        return self._error

    def begin(self, module: Module, tokenizer: Tokenizer) -> None:
        """Feed the prompt.

        Raises:
            OverBudget: if all sessions of the module are open.
            UsageError: if the prompt does not fit the model.
            TokenizerRefused: if it is no text.
        """
        if self.aside:
            self.began = time.monotonic()
        ids = self._ids_of(self.wanted.prompt, module)
        # The last token written is never fed, so one more fits than the context has room for.
        room = module.use.positions - len(ids) + 1
        if not ids or room < 1:
            raise _too_long(f"{len(ids)} tokens", module)
        if not all(token < module.vocab_size for token in ids):
            message = f"holds a token that is not in the model's vocabulary of {module.vocab_size}"
            raise UsageError(message, where="prompt", reason="serve.context", advice="Send the text instead.")
        self._most = min(room, self._limits.response_tokens, self.wanted.most or room)
        self._prompt_tokens = len(ids)
        self._text = Composer(tokenizer, self.wanted.stops, self._limits.response_bytes)
        self._session = module.session(len(ids) + self._most - 1)
        try:
            self.line = self._session.begin(ids, self.wanted.sampling)
        except BaseException:
            self.close()
            raise

    def take(self) -> bool:
        """Take the token that its line has picked; whether that was the last one."""
        assert self.line is not None
        if not self.line.finite:
            raise StudbookError(
                "wrote logits that are no finite numbers", reason="serve.broken", advice="Roll it back."
            )
        token = self.line.token
        self._ids.append(token)
        ended = token == EOS
        if not ended and (text := self._text.add(token)):
            if self._parts:
                self.deliver(Text(text))
            else:
                self._said.append(text)
        ended = ended or self._text.stopped
        if not (ended or self._text.full or len(self._ids) == self._most):
            return False
        self._said.append(self._text.end())
        ended = ended or self._text.stopped
        packed = struct.pack(f"<{len(self._ids)}I", *self._ids)
        digest = hashlib.sha256(packed).hexdigest()
        reason: Reason = "stop" if ended else "length"
        self.deliver(Finished("".join(self._said), reason, self._prompt_tokens, len(self._ids), digest))
        return True

    @staticmethod
    def _ids_of(prompt: str | tuple[int, ...], module: Module) -> list[int]:
        if not isinstance(prompt, str):
            return list(prompt)
        if (size := len(prompt.encode(errors="surrogatepass"))) > module.use.text_bytes:
            raise _too_long(f"{size} bytes", module)
        return module.encode(prompt, eos=False)

    def close(self) -> None:
        """Give its session back."""
        if self._session is not None:
            self._session.close()
        self._session = self.line = None


def _too_long(size: str, module: Module) -> UsageError:
    message = f"has {size}; the model's context holds 1 to {module.use.positions} tokens"
    return UsageError(message, where="prompt", reason="serve.context", advice="Shorten the prompt.")
