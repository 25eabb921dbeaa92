"""The wire: bodies of requests as values, answers and errors as JSON, in the form that OpenAI's clients know.

Of that interface what a small task model can do is taken, and everything else is refused by name rather than ignored.
What is left out of a request means: as the model was judged, greedily and up to what the context holds.
"""

from __future__ import annotations

import secrets
import time
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct

from studbook.errors import RecordRefused, UsageError
from studbook.models.sampling import MAX_TOP_K, Sampling
from studbook.records import read_plain_json
from studbook.runtime.serve.requests import Finished, Model, Wanted

__all__ = ["ChatBody", "CompletionBody", "Form", "Request", "chat_request", "completion_request", "model_list"]

_B = TypeVar("_B", bound="_Body")
_MOST_STOPS = 4
_WHOLE = 2**53 - 1
Positive = Annotated[int, Meta(ge=1, le=_WHOLE)]
Stop = Annotated[str, Meta(min_length=1, max_length=256)]


class _StreamOptions(Struct, frozen=True, forbid_unknown_fields=True):
    include_usage: bool = False
    include_obfuscation: bool = False


class _Body(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What both kinds of requests may say. Of the fields below ``seed`` only the value that changes nothing is taken."""

    model: str
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: Positive | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=1, le=MAX_TOP_K)] | None = None
    stop: Stop | Annotated[list[Stop], Meta(max_length=_MOST_STOPS)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    n: Literal[1] | None = None
    presence_penalty: Annotated[float, Meta(ge=0, le=0)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=0, le=0)] | None = None
    logit_bias: Annotated[dict[str, float], Meta(max_length=0)] | None = None


class CompletionBody(_Body, frozen=True, kw_only=True):
    """Body of ``POST /v1/completions``.

    Attributes:
        prompt: Text, one text in a list, or token ids.
    """

    prompt: str | Annotated[list[str | int], Meta(min_length=1)]
    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None
    logprobs: Literal[0] | None = None
    suffix: Literal[""] | None = None


class _Part(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="text"):
    text: str


class _Message(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_Part]
    name: str | None = None
    refusal: None = None


class ChatBody(_Body, frozen=True, kw_only=True):
    """Body of ``POST /v1/chat/completions``.

    Attributes:
        messages: The text of the last one, which is the user's, is the prompt as it stands; the model sees no other.
        max_completion_tokens: The same as ``max_tokens``.
    """

    messages: Annotated[list[_Message], Meta(min_length=1)]
    max_completion_tokens: Positive | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Literal[0] | None = None
    store: Literal[False] | None = None


class Request(NamedTuple):
    """A request as the server takes it.

    Attributes:
        model: The name it asks for.
        wanted: What shall be written.
        stream: Whether in parts.
        usage: Whether parts are followed by the counts of tokens.
        chat: Whether it is a chat.
    """

    model: str
    wanted: Wanted
    stream: bool
    usage: bool
    chat: bool


def completion_request(data: bytes) -> Request:
    """A completion from the body of its request.

    Raises:
        UsageError: naming the field that is wrong or means something that is not offered.
        RecordRefused: if it is not JSON.
    """
    body = _read(data, CompletionBody)
    prompt = body.prompt
    if isinstance(prompt, str):
        return _request(body, prompt, body.max_tokens, chat=False)
    texts = [part for part in prompt if isinstance(part, str)]
    if len(texts) == len(prompt) == 1:
        return _request(body, texts[0], body.max_tokens, chat=False)
    ids = tuple(part for part in prompt if isinstance(part, int) and 0 <= part < 2**31)
    if len(ids) != len(prompt):
        raise _refused("prompt", "is neither one text nor token ids", "Send one prompt a request.")
    return _request(body, ids, body.max_tokens, chat=False)


def chat_request(data: bytes) -> Request:
    """A chat from the body of its request; see `ChatBody` for what the model is shown.

    Raises:
        UsageError: naming the field that is wrong or means something that is not offered.
        RecordRefused: if it is not JSON.
    """
    body = _read(data, ChatBody)
    if body.max_tokens and body.max_completion_tokens and body.max_tokens != body.max_completion_tokens:
        raise _refused("max_tokens", "differs from max_completion_tokens", "Give one of the two.")
    last = body.messages[-1]
    if last.role != "user":
        raise _refused("messages", f"end with one of {last.role}", "End with a message of the user: it is the prompt.")
    content = last.content if isinstance(last.content, str) else "".join(part.text for part in last.content)
    return _request(body, content, body.max_completion_tokens or body.max_tokens, chat=True)


def model_list(models: list[Model], name: str) -> dict[str, Any]:
    """What is served, under one name."""
    rows = [
        {
            "id": name,
            "object": "model",
            "created": m.created,
            "owned_by": "studbook",
            "name": m.name,
            "sha256": m.revision,
        }
        for m in models
    ]
    return {"object": "list", "data": rows}


class Form:
    """One answer as JSON.

    Args:
        request: What was asked.
        revision: The model that answers.
    """

    def __init__(self, request: Request, revision: str) -> None:
        self._chat = request.chat
        kind = "chat.completion" if request.chat else "text_completion"
        self._head: dict[str, Any] = {
            "id": f"{'chatcmpl' if request.chat else 'cmpl'}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": request.model,
            "system_fingerprint": f"fp_{revision[:16]}",
        }
        self._whole = {**self._head, "object": kind}
        self._part = {**self._head, "object": "chat.completion.chunk" if request.chat else kind}
        self._first = True

    def whole(self, end: Finished) -> dict[str, Any]:
        """The answer at once."""
        text = {"message": {"role": "assistant", "content": end.text}} if self._chat else {"text": end.text}
        return {**self._whole, "choices": [_choice(text, end.reason)], "usage": _usage(end)}

    def part(self, text: str, reason: str | None = None) -> dict[str, Any]:
        """A part of the answer; the last one gives the reason."""
        if not self._chat:
            return {**self._part, "choices": [_choice({"text": text}, reason)]}
        delta: dict[str, str] = {"role": "assistant"} if self._first else {}
        self._first = False
        if text or reason is None:
            delta["content"] = text
        return {**self._part, "choices": [_choice({"delta": delta}, reason)]}

    def usage(self, end: Finished) -> dict[str, Any]:
        """What follows the last part where it was asked for."""
        return {**self._part, "choices": [], "usage": _usage(end)}


def _choice(text: dict[str, Any], reason: str | None) -> dict[str, Any]:
    return {"index": 0, **text, "logprobs": None, "finish_reason": reason}


def _usage(end: Finished) -> dict[str, int]:
    total = end.prompt_tokens + end.tokens
    return {"prompt_tokens": end.prompt_tokens, "completion_tokens": end.tokens, "total_tokens": total}


def _read(data: bytes, kind: type[_B]) -> _B:
    try:
        return msgspec.convert(read_plain_json(data, "the body"), kind)
    except msgspec.ValidationError as error:
        words, _, place = str(error).partition(" - at `$")
        field = place.strip("`").lstrip(".") or _quoted(words)
        advice = (
            "See docs/serving.md for what is taken; what is not offered may only be left out or stand at its default."
        )
        raise UsageError(words[:1].lower() + words[1:], where=field, reason="serve.field", advice=advice) from error
    except RecordRefused as error:
        raise UsageError(error.message, where="body", reason="serve.json", advice=error.advice) from error


def _quoted(words: str) -> str:
    """The field that a message names, as in: Object missing required field `model`."""
    return words.split("`")[1] if words.count("`") > 1 else ""


def _request(body: _Body, prompt: str | tuple[int, ...], most: int | None, *, chat: bool) -> Request:
    stops = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    wanted = Wanted(prompt, _sampling(body), most, stops)
    usage = body.stream_options is not None and body.stream_options.include_usage
    if body.stream_options is not None and not body.stream:
        raise _refused("stream_options", "means something only for a stream", "Leave it out, or ask for a stream.")
    return Request(body.model, wanted, bool(body.stream), usage, chat)


def _sampling(body: _Body) -> Sampling:
    if not body.temperature:
        return Sampling()
    seed = secrets.randbits(64) if body.seed is None else body.seed % 2**64
    return Sampling(body.temperature, body.top_k or MAX_TOP_K, body.top_p or 1.0, seed)


def _refused(field: str, message: str, advice: str) -> UsageError:
    return UsageError(message, where=field, reason="serve.field", advice=advice)
