"""The HTTP side: routes, bodies within their limits and their time, answers in one piece or as server-sent events."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from studbook.errors import OverBudget, UsageError
from studbook.runtime.serve import openai
from studbook.runtime.serve.access import Access
from studbook.runtime.serve.problems import CLOSED, problem
from studbook.runtime.serve.requests import Finished
from studbook.runtime.serve.service import SERVED, Answer, Service

__all__ = ["application"]

_LOG = logging.getLogger("studbook.serve")
# How much of a body that is too large is read and thrown away, so that a client that only listens afterwards hears why.
_SPILT_SECONDS: Final = 1.0
_PATHS: Final = {"/v1/completions": openai.completion_request, "/v1/chat/completions": openai.chat_request}


def application(service: Service, access: Access) -> ASGIApp:
    """The application.

    Args:
        service: What answers.
        access: Who may ask.
    """
    routes = [
        *(Route(path, _Completing(service, access, read)) for path, read in _PATHS.items()),
        Route("/v1/models", _guarded(service, access, _models)),
        Route("/v1/models/{name}", _guarded(service, access, _model)),
        Route("/metrics", _guarded(service, access, _metrics)),
        Route("/health", _guarded(service, None, _health)),
    ]
    served = Starlette(routes=routes, exception_handlers={HTTPException: _lost})
    served.router.redirect_slashes = False
    return served


Page = Callable[[Service, Request], Response]


def _guarded(service: Service, access: Access | None, page: Page) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            if access is not None:
                access.check(request.scope["headers"])
            return page(service, request)
        except Exception as error:
            return _told(error)

    return endpoint


def _models(service: Service, request: Request) -> Response:
    return JSONResponse(openai.model_list([service.model], SERVED))


def _model(service: Service, request: Request) -> Response:
    service.check_model(request.path_params["name"])
    return JSONResponse(openai.model_list([service.model], SERVED)["data"][0])


def _metrics(service: Service, request: Request) -> Response:
    waiting, running = service.load
    gauges = {"waiting": waiting, "running": running, "up": not (service.stopping or service.closed)}
    gauges["resident_bytes"] = service.resident_bytes
    return PlainTextResponse(service.metrics.page(gauges), media_type="text/plain; version=0.0.4")


def _health(service: Service, request: Request) -> Response:
    if service.stopping or service.closed:
        return JSONResponse({"status": "stopping" if service.stopping else "stopped"}, 503)
    return JSONResponse({"status": "ok"})


async def _lost(request: Request, error: Exception) -> Response:
    """No such path, or not with this method."""
    assert isinstance(error, HTTPException)
    reason = "serve.method" if error.status_code == 405 else "serve.path"
    advice = f"GET /v1/models, /health or /metrics, POST {' or '.join(_PATHS)}."
    found = UsageError(f"{request.method} {request.url.path} is not served", reason=reason, advice=advice)
    return JSONResponse(problem(found).body, error.status_code, headers=error.headers)


def _told(error: Exception, retry: int = 0) -> Response:
    status, body = problem(error)
    if status == 500:
        _LOG.error("a request failed", exc_info=error)
    # Whatever of the body was not read is not waited for.
    headers = {"connection": "close"} if status in (401, 403, 408, 413, 503) else {}
    headers |= {"www-authenticate": "Bearer"} if status == 401 else {}
    headers |= {"retry-after": str(max(1, retry))} if status in (429, 503) else {}
    return JSONResponse(body, status, headers=headers)


class _Completing:
    """``POST`` of a completion or a chat, as an ASGI application of its own: it listens while it answers."""

    def __init__(self, service: Service, access: Access, read: Callable[[bytes], openai.Request]) -> None:
        self._service, self._access, self._read = service, access, read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        began, status = time.monotonic(), CLOSED
        sending = _Sending(send)
        try:
            status = await self._answer(Request(scope, receive), sending)
        except ClientDisconnect:
            # Nobody is there to be told.
            pass
        except Exception as error:
            status = problem(error).status
            await sending.fail(scope, receive, error, self._retry())
        finally:
            self._service.metrics.count("requests", str(status))
            self._service.metrics.time("answer_seconds", time.monotonic() - began)

    async def _answer(self, request: Request, sending: _Sending) -> int:
        if request.method != "POST":
            raise HTTPException(405, headers={"allow": "POST"})
        self._access.check(request.scope["headers"])
        asked = self._read(await _body(request, self._service))
        self._service.check_model(asked.model)
        answer = self._service.answer(asked.wanted, parts=asked.stream)
        way = self._stream if asked.stream else self._whole
        work = asyncio.ensure_future(way(asked, answer, sending))
        await _while_there(request.receive, work, sending)
        return 200

    async def _whole(self, asked: openai.Request, answer: Answer, sending: _Sending) -> None:
        async with aclosing(answer.events()) as events:
            async for event in events:
                if isinstance(event, Finished):
                    self._count(event)
                    await sending.whole(openai.Form(asked, answer.revision).whole(event))

    async def _stream(self, asked: openai.Request, answer: Answer, sending: _Sending) -> None:
        began, parts = time.monotonic(), 0
        async with aclosing(answer.events()) as events:
            async for event in events:
                if not parts:
                    self._service.metrics.time("first_seconds", time.monotonic() - began)
                    form = openai.Form(asked, answer.revision)
                    await sending.stream()
                parts += 1
                if not isinstance(event, Finished):
                    await sending.event(form.part(event.text))
                    continue
                self._count(event)
                if event.text or parts == 1:
                    await sending.event(form.part(event.text))
                await sending.event(form.part("", event.reason))
                if asked.usage:
                    await sending.event(form.usage(event))
                await sending.done(b"data: [DONE]\n\n")

    def _count(self, end: Finished) -> None:
        self._service.metrics.count("tokens", "prompt", end.prompt_tokens)
        self._service.metrics.count("tokens", "written", end.tokens)

    def _retry(self) -> int:
        waiting, _ = self._service.load
        return 1 + waiting // (4 * self._service.limits.workers)


async def _while_there(receive: Receive, work: asyncio.Future[None], sending: _Sending) -> None:
    """Do the work as long as the client is there.

    Raises:
        ClientDisconnect: if it left.
    """

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    leaving = asyncio.ensure_future(gone())
    try:
        await asyncio.wait((work, leaving), return_when=asyncio.FIRST_COMPLETED)
        if work.done() or sending.ended:
            return await work
        raise ClientDisconnect
    finally:
        for each in (work, leaving):
            each.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await each


async def _body(request: Request, service: Service) -> bytes:
    """The body, within its limit and its time.

    Raises:
        OverBudget: if it is too large; ``serve.large``.
        UsageError: if it is not declared to be JSON, or does not come; ``serve.type``, ``serve.slow``.
    """
    limits = service.limits
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        advice = "Send Content-Type: application/json."
        raise UsageError(
            "the body is not declared to be JSON", where="Content-Type", reason="serve.type", advice=advice
        )
    large = OverBudget(
        f"the body has more than {limits.request_bytes} bytes", reason="serve.large", advice="Send a shorter prompt."
    )
    declared = request.headers.get("content-length", "0")
    if int(declared) > limits.request_bytes:
        await _spill(request)
        raise large
    data = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in request.stream():
                data += chunk
                if len(data) > limits.request_bytes:
                    break
    except TimeoutError as error:
        message = f"the body was not there within {limits.body_seconds:g} seconds"
        raise UsageError(message, reason="serve.slow", advice="Send it at once.") from error
    if len(data) > limits.request_bytes:
        await _spill(request)
        raise large
    return bytes(data)


async def _spill(request: Request) -> None:
    if request.headers.get("expect", "").lower() == "100-continue":
        return
    with suppress(TimeoutError, RuntimeError):
        async with asyncio.timeout(_SPILT_SECONDS):
            while (await request.receive()).get("more_body"):
                pass


class _Sending:
    """What was sent of a response."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._begun = self.ended = False

    async def whole(self, value: dict[str, Any]) -> None:
        """The whole response."""
        data = json.dumps(value, ensure_ascii=False).encode()
        await self._head((b"content-type", b"application/json"), (b"content-length", b"%d" % len(data)))
        await self.done(data)

    async def stream(self) -> None:
        """The head of a response in parts."""
        kind, kept = (b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")
        await self._head(kind, kept, (b"x-accel-buffering", b"no"))

    async def event(self, value: dict[str, Any]) -> None:
        """One server-sent event."""
        data = b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def done(self, data: bytes) -> None:
        """The end of the body."""
        self.ended = True
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def fail(self, scope: Scope, receive: Receive, error: Exception, retry: int) -> None:
        """Tell what went wrong: as a response, or as the last event of one that has begun."""
        if isinstance(error, HTTPException):
            return await (await _lost(Request(scope), error))(scope, receive, self._send)
        response = _told(error, retry)
        if not self._begun:
            return await response(scope, receive, self._send)
        if not self.ended:
            await self.event(problem(error).body)
            await self.done(b"")
        return None

    async def _head(self, *headers: tuple[bytes, bytes]) -> None:
        self._begun = True
        await self._send({"type": "http.response.start", "status": 200, "headers": list(headers)})
