"""The server as a whole: it listens, answers, is told what to do through its control socket, and stops without loss.

Told to stop, it takes no new connection and no new request; what was taken is answered. What is not done when the grace ends
is told so. Then memory is given back and the process may end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import uvicorn

from studbook.errors import OutOfOrder, StudbookError, UsageError
from studbook.runtime.arenas import Budgets
from studbook.runtime.resident import ResidentSet
from studbook.runtime.serve.access import Access
from studbook.runtime.serve.app import application
from studbook.runtime.serve.control import Control
from studbook.runtime.serve.protocol import guarded
from studbook.runtime.serve.requests import Limits
from studbook.runtime.serve.service import Arrangement, Service
from studbook.runtime.serve.stock import Stock, budgets_of

__all__ = ["Address", "House", "serve"]

_UNREAD_BYTES = 64 << 10
# Beyond the grace, until what was ended has been told.
_LAST_SECONDS = 5
_LOOK_SECONDS = 1.0
_LOG = logging.getLogger("studbook.serve")


class Address(NamedTuple):
    """Where the server listens.

    Attributes:
        host: Name or address of this machine.
        port: Its port; 0 for any that is free.
    """

    host: str = "127.0.0.1"
    port: int = 8000


class House(Protocol):
    """Whose models are served; everything here is called in one thread that belongs to it, never in two at a time."""

    def residents(self, budgets: Budgets) -> ResidentSet:
        """Where models shall lie, with nothing in it; asked for once. What it writes is written in the same thread."""

    def arrange(self) -> Arrangement:
        """What shall be served now; asked for at the beginning, after every command and when `look` says so."""

    def look(self) -> bool:
        """Do what is due by the clock; called about once a second. Whether something else shall be served now."""

    def lost(self, revision: str, error: Exception) -> None:
        """A model does not load, and `arrange` shall not name it; never the first one."""

    def commands(self) -> Mapping[str, Callable[[Mapping[str, Any]], Any]]:
        """What the control socket can ask for beside ``status``, ``reload`` and ``stop``; what comes back is JSON."""


class _Quiet(uvicorn.Server):
    """Signals are the business of whoever runs it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(
    house: House, address: Address, limits: Limits, access: Access, folder: Path, ready: Callable[[str], None]
) -> None:
    """Serve until told to stop, by SIGTERM, SIGINT or the control socket.

    Args:
        house: Whose models are served.
        address: Where to listen.
        limits: The limits.
        access: Who may ask.
        folder: Where the control socket lies.
        ready: Called once with the address, when requests are answered.

    Raises:
        UsageError: if nobody can listen there; ``serve.address``.
        StudbookError: if a model does not load.
    """
    asyncio.run(_Server(house, limits, access, folder).run(address, ready))


class _Server:
    """One run of the server."""

    def __init__(self, house: House, limits: Limits, access: Access, folder: Path) -> None:
        self._house, self._limits, self._access, self._folder = house, limits, access, folder
        self._thread = ThreadPoolExecutor(1, "studbook-lab")
        self._stop = asyncio.Event()
        self._arranging = asyncio.Lock()
        self._since = time.time()

    async def run(self, address: Address, ready: Callable[[str], None]) -> None:
        """Until told to stop."""
        listening = _listen(address)
        host, port = listening.getsockname()[:2]
        self._url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        stock = Stock(await self._in_house(lambda: self._house.residents(budgets_of(self._limits))), self._limits)
        service = self._service = Service(self._limits, stock, self._in_house)
        try:
            await self._reload()
            control = Control(self._folder, await self._handlers())
            await control.start()
            looking = asyncio.create_task(self._look())
            try:
                await self._listen(service, listening, ready)
            finally:
                looking.cancel()
                await control.stop()
        finally:
            listening.close()
            await service.close()
            self._thread.shutdown()

    async def _listen(self, service: Service, listening: socket.socket, ready: Callable[[str], None]) -> None:
        server = _Quiet(self._config(application(service, self._access)))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        stopped = asyncio.create_task(self._stop.wait())
        with _signals(self._stop):
            while not server.started and not serving.done():
                await asyncio.sleep(0.01)
            ready(self._url)
            await asyncio.wait((stopped, serving), return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            service.stopping = server.should_exit = True
            ended, _ = await asyncio.wait((serving,), timeout=self._limits.grace_seconds)
            if not ended:
                service.abandon()
            await serving

    def _config(self, application: Any) -> uvicorn.Config:
        # What matters is told by this package's own log; the library's is for those who write servers.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        return uvicorn.Config(
            application,
            http=guarded(self._limits),
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            h11_max_incomplete_event_size=self._limits.header_bytes,
            timeout_keep_alive=int(max(1, self._limits.idle_seconds)),
            timeout_graceful_shutdown=int(self._limits.grace_seconds) + _LAST_SECONDS,
        )

    async def _handlers(self) -> dict[str, Callable[[Mapping[str, Any]], Awaitable[Any]]]:
        commands = await self._in_house(self._house.commands)
        found = {name: self._followed(command) for name, command in commands.items()}
        return {**found, "status": self._status, "reload": self._reloaded, "stop": self._stopped}

    def _followed(self, command: Callable[[Mapping[str, Any]], Any]) -> Callable[[Mapping[str, Any]], Awaitable[Any]]:
        async def handler(arguments: Mapping[str, Any]) -> Any:
            found = await self._in_house(partial(command, arguments))
            try:
                await self._reload()
            except StudbookError as error:
                message = f"was done, but what was served before is served still: {error}"
                raise OutOfOrder(message, reason="serve.reload", advice=error.advice) from error
            return found

        return handler

    async def _status(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        model = self._service.model
        waiting, running = self._service.load
        return {
            "address": self._url,
            "process": os.getpid(),
            "since": int(self._since),
            "model": model.name,
            "revision": model.revision,
            "waiting": waiting,
            "running": running,
            "stopping": self._service.stopping,
            "closed": self._service.closed,
            "memory": self._service.memory,
        }

    async def _reloaded(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        await self._reload()
        return await self._status(arguments)

    async def _stopped(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        self._stop.set()
        return {**await self._status(arguments), "stopping": True}

    async def _reload(self) -> None:
        """Serve what shall be served, without the models that do not load."""
        async with self._arranging:
            while refused := await self._service.arrange(await self._in_house(self._house.arrange)):
                for revision, error in refused.items():
                    await self._in_house(partial(self._house.lost, revision, error))

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                if await self._in_house(self._house.look):
                    await self._reload()
            except Exception:
                # What was served is served on; the next look may go better.
                _LOG.exception("what is due could not be done")

    async def _in_house(self, act: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, act)


@contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    """SIGTERM and SIGINT stop the server; a second one is a second wish for the same."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    wanted = (signal.SIGTERM, signal.SIGINT)
    for number in wanted:
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in wanted:
            loop.remove_signal_handler(number)


def _listen(address: Address) -> socket.socket:
    advice = "Choose another --port, or an address of this machine as --host."
    place = f"{address.host}:{address.port}"
    try:
        family, kind, number, _, found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, number)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "no name of a machine"
        raise UsageError(f"is no address: {why}", where=place, reason="serve.address", advice=advice) from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # What a client leaves unread shall soon be noticed, and not fill the system's memory.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNREAD_BYTES)
        listening.bind(found)
        listening.listen(socket.SOMAXCONN)
    except OSError as error:
        listening.close()
        message = f"nobody can listen there: {error.strerror}"
        raise UsageError(message, where=place, reason="serve.address", advice=advice) from error
    return listening
