"""Getting files over HTTP: the one module that may open a connection, loaded when somebody names an address.

What comes is never believed here; whoever asks says how much of it they take. Only this machine is asked unless leave
was given; no proxy, no redirect, no cookie, no compression, and no server that takes its time.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from threading import Timer
from time import monotonic
from urllib.parse import SplitResult, urlsplit

from studbook.errors import BytesLie, OutsideAllowlist, OverBudget, StudbookError, UsageError, printable

__all__ = ["HttpMirror"]

_CHUNK = 1 << 16
_SILENCE = 20.0
# A file may take this long, and longer by its size at a rate that any line reaches.
_SECONDS, _RATE = 30.0, 32 << 10
_REDIRECTS = range(300, 400)
_MISSING = (404, 410)
_HEADERS = {"Accept-Encoding": "identity", "Connection": "close", "User-Agent": "studbook"}


class HttpMirror:
    """A published folder behind an address.

    Args:
        address: ``http://HOST[:PORT]/PATH`` or https.
        allow_remote: Take other hosts than this machine too.
        silence: Seconds without a byte after which a server is given up.
        seconds: Seconds that one file may take, besides what its size adds.

    Raises:
        UsageError: if it is not such an address; ``fetch.address``.
        OutsideAllowlist: if it is another machine's, and no leave was given; ``fetch.remote``.
    """

    def __init__(
        self, address: str, *, allow_remote: bool = False, silence: float = _SILENCE, seconds: float = _SECONDS
    ) -> None:
        self._parts = _split(address)
        self._host, self._port = self._parts.hostname or "", self._parts.port
        self._silence, self._seconds = silence, seconds
        if not _is_here(self._host) and not allow_remote:
            raise OutsideAllowlist(
                f"{printable(self._host)} is not this machine",
                where=printable(address),
                advice="Say so if another machine shall be asked: --allow-remote.",
                reason="fetch.remote",
            )

    def open(self, name: str, limit: int) -> Iterator[bytes]:
        """The bytes of one file as they arrive.

        Args:
            name: Its path below the address.
            limit: Bytes it may have; a server that announces more is not read.

        Raises:
            UsageError: if there is no such file; ``fetch.missing``.
            BytesLie: if the server sends its reader elsewhere, or less than it announced; ``fetch.redirect``,
                ``fetch.answer``, ``fetch.length``.
            OverBudget: if it announces too much, or takes too long; ``fetch.size`` or ``fetch.slow``.
            StudbookError: if it cannot be reached, or the line breaks; ``fetch.failed``.
        """
        where = printable(f"{self._parts.scheme}://{self._parts.netloc}{self._path(name)}")
        until = monotonic() + self._seconds + limit / _RATE
        try:
            with self._connected(until) as connection:
                connection.request("GET", self._path(name), headers=_HEADERS)
                with connection.getresponse() as response:
                    _check(response, limit, where)
                    while chunk := response.read1(_CHUNK):
                        yield chunk
                    if monotonic() > until:
                        raise _slow(where)
                    if response.length:
                        text = f"ends {response.length} bytes too early"
                        raise BytesLie(text, where=where, advice="Try again.", reason="fetch.length")
        except TimeoutError as error:
            raise _slow(where) from error
        except (OSError, HTTPException) as error:
            if monotonic() > until:
                raise _slow(where) from error
            text = f"could not be fetched: {printable(str(error) or type(error).__name__)}"
            advice = "Look whether the server runs, then try again; nothing was changed."
            raise StudbookError(text, where=where, advice=advice, reason="fetch.failed") from error

    @contextmanager
    def _connected(self, until: float) -> Iterator[HTTPConnection]:
        """An open connection, cut at a moment whatever it does by then."""
        # Names are not looked up where this machine is meant.
        host = "127.0.0.1" if self._host == "localhost" else self._host
        kind = HTTPSConnection if self._parts.scheme == "https" else HTTPConnection
        with closing(kind(host, self._port)) as connection:
            connection.sock = line = _connect(host, connection.port, self._silence, until)
            if kind is HTTPSConnection:
                connection.sock = line = _context().wrap_socket(
                    line, server_hostname=host, do_handshake_on_connect=False
                )
            with _cut_at(until, line):
                if isinstance(line, ssl.SSLSocket):
                    line.do_handshake()
                yield connection

    def _path(self, name: str) -> str:
        return f"{self._parts.path.rstrip('/')}/{name}"


def _split(address: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        plain = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and address.isascii()
    except ValueError:
        plain = False
    if not plain or parts.username or parts.password or parts.query or parts.fragment or not address.isprintable():
        text = f"{printable(address)!r} is not the address of a published folder"
        advice = "Write http://HOST:PORT/PATH, without a user, a query or a fragment."
        raise UsageError(text, where="--from", advice=advice, reason="fetch.address")
    return parts


def _is_here(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _check(response: HTTPResponse, limit: int, where: str) -> None:
    if response.status in _REDIRECTS:
        text = f"sends its reader elsewhere: {printable(response.getheader('Location', 'nowhere'))}"
        advice = "No redirect is followed. Name the address where the files lie."
        raise BytesLie(text, where=where, advice=advice, reason="fetch.redirect")
    if response.status in _MISSING:
        advice = "Name the folder that `studbook publish` wrote; if it is the right one, it is not whole."
        raise UsageError("no such file", where=where, advice=advice, reason="fetch.missing")
    if response.status != 200 or response.getheader("Content-Encoding", "identity") != "identity":
        text = f"was answered with {response.status} {printable(response.reason)}, not with the plain file"
        raise BytesLie(text, where=where, advice="Ask whoever runs the server.", reason="fetch.answer")
    if response.length is not None and response.length > limit:
        text = f"{response.length} bytes; at most {limit} are taken"
        advice = "Do not use this server: it offers something else than what was published."
        raise OverBudget(text, where=where, advice=advice, reason="fetch.size")


def _connect(host: str, port: int, silence: float, until: float) -> socket.socket:
    """A line to the first address of a host that answers."""
    found: OSError = TimeoutError()
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        line = socket.socket(family, kind, protocol)
        try:
            left = until - monotonic()
            if left <= 0:
                raise TimeoutError
            line.settimeout(min(silence, left))
            line.connect(address)
            line.settimeout(silence)
            return line
        except OSError as error:
            line.close()
            found = error
    raise found


def _context() -> ssl.SSLContext:
    """As the standard library's own connection has it: certificates and names are checked."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


@contextmanager
def _cut_at(until: float, line: socket.socket) -> Iterator[None]:
    """Cut a line at a moment: a timeout restarts with every byte, and would never end a server that drips."""

    def cut() -> None:
        with suppress(OSError):
            # Not the method of a TLS line: it drops the session under the thread that reads it.
            socket.socket.shutdown(line, socket.SHUT_RDWR)

    cutter = Timer(max(until - monotonic(), 0.0), cut)
    cutter.daemon = True
    cutter.start()
    try:
        yield
    finally:
        cutter.cancel()


def _slow(where: str) -> OverBudget:
    advice = "Try again later, or from another place; nothing was changed."
    return OverBudget("takes too long", where=where, advice=advice, reason="fetch.slow")
