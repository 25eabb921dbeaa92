"""A second terminal's way to a running server: one JSON line over a socket that only its owner can open.

``{"command": NAME, "arguments": {...}}`` goes in, ``{"ok": true, "answer": ...}`` or ``{"ok": false, "error": {...}}`` comes
back. What a command means is for whoever gives the handlers; they run one after the other, in the order they came in.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from studbook import errors
from studbook.errors import OutOfOrder, RecordRefused, StudbookError, UsageError
from studbook.records import canonical, read_plain_json

__all__ = ["SOCKET", "Control", "Handler", "ask"]

SOCKET: Final = "control.sock"
Handler = Callable[[Mapping[str, Any]], Awaitable[Any]]
_LINE: Final = 1 << 20
_SECONDS: Final = 10.0


class _Command(Struct, frozen=True, forbid_unknown_fields=True):
    command: str
    arguments: dict[str, Any] = {}


class Control:
    """The server's side.

    Args:
        folder: Where the socket lies; whoever calls holds the folder's lock, so one that lies there is left from a crash.
        handlers: Command -> what it does with its arguments.
    """

    def __init__(self, folder: Path, handlers: Mapping[str, Handler]) -> None:
        self._folder, self._handlers = folder, handlers
        self._turn = asyncio.Lock()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._silent: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: if the system refuses the socket.
        """
        (self._folder / SOCKET).unlink(missing_ok=True)
        handle = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Nobody else can open it, not even between these two lines.
            before = os.umask(0o177)
            try:
                listening.bind(_address(handle))
            finally:
                os.umask(before)
            self._server = await asyncio.start_unix_server(self._serve, sock=listening, limit=_LINE)
        except BaseException:
            listening.close()
            raise
        finally:
            os.close(handle)

    async def stop(self) -> None:
        """Listen no longer."""
        if self._server is not None:
            (self._folder / SOCKET).unlink(missing_ok=True)
            self._server.close()
            for task in self._silent:
                task.cancel()
            if self._open:
                _, left = await asyncio.wait(self._open, timeout=_SECONDS)
                for task in left:
                    task.cancel()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        self._silent.add(task)
        # Cancelled is what stands open when the server ends, and then there is nobody to tell.
        with suppress(OSError, TimeoutError, asyncio.CancelledError):
            try:
                async with asyncio.timeout(_SECONDS):
                    line = await reader.readuntil(b"\n")
            except (ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                line = b""
            self._silent.discard(task)
            answer = canonical(await self._answer(line)) + b"\n"
            async with asyncio.timeout(_SECONDS):
                writer.write(answer)
                await writer.drain()
        self._open.discard(task)
        self._silent.discard(task)
        writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            asked = _convert(line)
            handler = self._handlers.get(asked.command)
            if handler is None:
                known = ", ".join(sorted(self._handlers))
                message = f"{asked.command!r} is no command of this server"
                raise UsageError(message, reason="control.command", advice=f"It knows {known}.")
            async with self._turn:
                return {"ok": True, "answer": await handler(asked.arguments)}
        except StudbookError as error:
            return {"ok": False, "error": _told(error)}
        except Exception as error:
            return {
                "ok": False,
                "error": _told(StudbookError(f"{type(error).__name__}: {error}", reason="control.fault")),
            }


def ask(folder: Path, command: str, arguments: Mapping[str, Any] | None = None, seconds: float = 120.0) -> Any:
    """Have a running server do something.

    Args:
        folder: Where its socket lies.
        command: What it shall do.
        arguments: What the command takes.
        seconds: Longest to wait for the answer.

    Returns:
        What the command gives.

    Raises:
        OutOfOrder: if no server runs; ``control.nobody``. If it does not answer in time, or ended before it did;
            ``control.silent``, ``control.cut``: whether it was done, the ledger says.
        StudbookError: whatever the server refused with.
    """
    data = canonical({"command": command, "arguments": dict(arguments or {})}) + b"\n"
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as there:
                there.settimeout(seconds)
                there.connect(_address(handle))
                line = _exchange(there, data)
        finally:
            os.close(handle)
    except TimeoutError as error:
        raise OutOfOrder(
            "the server does not answer", where=folder, reason="control.silent", advice="Look at it."
        ) from error
    except OSError as error:
        advice = "Start one: studbook serve"
        raise OutOfOrder("no server runs for this lab", where=folder, reason="control.nobody", advice=advice) from error
    if not line:
        advice = "Look what it did before: studbook log"
        raise OutOfOrder("the server ended before it answered", where=folder, reason="control.cut", advice=advice)
    answer = read_plain_json(line, "the server's answer")
    if not answer["ok"]:
        raise _raised(answer["error"])
    return answer["answer"]


def _exchange(there: socket.socket, data: bytes) -> bytes:
    """Send a line and wait for the answer; empty where the other side ended."""
    try:
        there.sendall(data)
        with there.makefile("rb") as answers:
            return answers.readline(_LINE)
    except ConnectionError:
        return b""


def _address(folder: int) -> str:
    """The socket's path by way of an open folder: a path of its own may be longer than an address can be."""
    return f"/proc/self/fd/{folder}/{SOCKET}"


def _convert(line: bytes) -> _Command:
    found = read_plain_json(line, "the command")
    known = isinstance(found, dict) and {"command"} <= found.keys() <= {"command", "arguments"}
    if not (known and isinstance(found["command"], str) and isinstance(found.get("arguments", {}), dict)):
        advice = 'Send {"command": NAME, "arguments": {...}} in one line.'
        raise RecordRefused("is no command", where="the command", reason="control.line", advice=advice)
    return _Command(found["command"], found.get("arguments", {}))


def _told(error: StudbookError) -> dict[str, str]:
    told = {"kind": type(error).__name__, "message": error.message, "where": error.where}
    return told | {"advice": error.advice, "reason": error.reason}


def _raised(told: Mapping[str, str]) -> StudbookError:
    kind = vars(errors).get(told["kind"], StudbookError)
    found: StudbookError = kind(told["message"], where=told["where"], advice=told["advice"], reason=told["reason"])
    return found
