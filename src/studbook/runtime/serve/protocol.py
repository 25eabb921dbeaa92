"""HTTP on a connection, with the patience of the server bounded: for a head to come, and for what was sent to be read."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

from studbook.runtime.serve.requests import Limits

__all__ = ["guarded"]

_PIECE = 1024


def guarded(limits: Limits) -> type[H11Protocol]:
    """The protocol of one server.

    Args:
        limits: What it grants a connection.
    """

    class Guarded(_Guarded):
        bounds = limits

    return Guarded


class _Guarded(H11Protocol):
    """What the library leaves open: a head that never comes, an answer that is never read, too many connections."""

    bounds: Limits
    _head: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.bounds.connections:
            transport.abort()
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # The library bounds a head only while it is incomplete, so one that comes at once is shown to it in pieces.
        while len(data) > _PIECE and not self.transport.is_closing() and self._head is not None:
            super().data_received(data[:_PIECE])
            data = data[_PIECE:]
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            self._await_head()
        elif self._head is not None:
            self._head.cancel()
            self._head = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self.bounds.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            # It closes once everything was read, whenever that may be.
            self.loop.call_later(self.bounds.write_seconds, self.transport.abort)

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _await_head(self) -> None:
        if self._head is None:
            self._head = self.loop.call_later(self.bounds.header_seconds, self._no_head)

    def _no_head(self) -> None:
        self._head = None
        if not self.transport.is_closing():
            self.transport.abort()
