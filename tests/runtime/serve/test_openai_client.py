"""What the stock client of the interface asks, and understands."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from serve_fixtures import PROMPT, House, Running, founder_model, running
from studbook.models.engine import Engine
from studbook.models.sampling import Sampling
from studbook.models.tokenizers import EOS
from studbook.runtime.serve import Limits


@pytest.fixture(scope="module")
def client(shared_server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{shared_server.url}/v1", api_key="none", max_retries=0) as found:
        yield found


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(founder_model().artifact.path.read_bytes()) as found:
        yield found


def written(engine: Engine, prompt: str, sampling: Sampling, most: int = 64) -> list[int]:
    return engine.decode([engine.encode(prompt, eos=False)], most, sampling).ids[0]


def test_a_completion_is_what_the_engine_writes(client: openai.OpenAI, engine: Engine) -> None:
    for prompt in (PROMPT, "srt cab>", "brk ([]{>", "ü"):
        found = client.completions.create(model="champion", prompt=prompt)
        ids = written(engine, prompt, Sampling())
        (choice,) = found.choices
        assert choice.text == bytes(i for i in ids if i < 256).decode("utf-8", "replace")
        assert choice.finish_reason == ("stop" if ids[-1] == EOS else "length")
        assert found.usage is not None
        assert found.usage.completion_tokens == len(ids)
        assert found.usage.prompt_tokens == len(engine.encode(prompt, eos=False))
        assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens


def test_token_ids_and_one_text_in_a_list_are_prompts_too(client: openai.OpenAI, engine: Engine) -> None:
    text = client.completions.create(model="champion", prompt=PROMPT).choices[0].text
    ids = engine.encode(PROMPT, eos=False)
    assert client.completions.create(model="champion", prompt=ids).choices[0].text == text
    assert client.completions.create(model="champion", prompt=[PROMPT]).choices[0].text == text


@pytest.mark.parametrize("seed", [0, 7, -1])
def test_a_draw_with_a_seed_is_the_engines_draw(client: openai.OpenAI, engine: Engine, seed: int) -> None:
    found = client.completions.create(
        model="champion", prompt=PROMPT, temperature=1.5, top_p=0.9, seed=seed, max_tokens=12
    )
    ids = written(engine, PROMPT, Sampling(1.5, 1024, 0.9, seed % 2**64), 12)
    assert found.choices[0].text == bytes(i for i in ids if i < 256).decode("utf-8", "replace")


def test_parts_put_together_are_the_whole(client: openai.OpenAI) -> None:
    for seed in range(8):
        asked = {"model": "champion", "prompt": PROMPT, "temperature": 2.0, "seed": seed, "stop": ["b", "ca"]}
        whole = client.completions.create(**asked)
        parts = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
        *texts, last = parts
        assert "".join(part.choices[0].text for part in texts) == whole.choices[0].text
        assert [p.choices[0].finish_reason for p in texts] == [None] * (len(texts) - 1) + [
            whole.choices[0].finish_reason
        ]
        assert (last.choices, last.usage) == ([], whole.usage)
        assert {part.id for part in parts} == {last.id}


def test_a_chat_is_answered_by_its_last_message_alone(client: openai.OpenAI) -> None:
    text = client.completions.create(model="champion", prompt=PROMPT).choices[0].text
    before = [{"role": "system", "content": "Be kind."}, {"role": "assistant", "content": "Yes?"}]
    for messages in ([], before):
        asked = {"model": "base", "messages": [*messages, {"role": "user", "content": PROMPT}]}
        found = client.chat.completions.create(**asked)
        assert (found.choices[0].message.role, found.choices[0].message.content) == ("assistant", text)
        assert found.usage is not None
        assert found.usage.prompt_tokens == len(PROMPT) + 1
        parts = list(client.chat.completions.create(**asked, stream=True))
        assert parts[0].choices[0].delta.role == "assistant"
        assert "".join(part.choices[0].delta.content or "" for part in parts) == text
        assert parts[-1].choices[0].finish_reason == "stop"
    part = [{"type": "text", "text": PROMPT[:4]}, {"type": "text", "text": PROMPT[4:]}]
    found = client.chat.completions.create(model="champion", messages=[{"role": "user", "content": part}])
    assert found.choices[0].message.content == text


def test_models_are_listed_and_known_by_name_and_digest(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.owned_by, model.created) == ("champion", "studbook", 1_700_000_000)
    assert client.models.retrieve("champion") == model
    assert client.completions.create(model=founder_model().revision, prompt=PROMPT).model == founder_model().revision
    with pytest.raises(openai.NotFoundError) as refused:
        client.completions.create(model="swan", prompt=PROMPT)
    assert refused.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("swan")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("logprobs", 3),
        ("echo", True),
        ("best_of", 2),
        ("suffix", "x"),
        ("presence_penalty", 0.5),
        ("logit_bias", {"65": 1}),
        ("max_tokens", 0),
        ("temperature", 2.5),
        ("top_p", 0),
        ("stop", ["a"] * 5),
        ("stop", ""),
        ("prompt", ["one", "two"]),
        ("prompt", [1, "two"]),
        ("prompt", [300]),
        ("prompt", []),
        ("prompt", "x" * 99),
        ("stream_options", {"include_usage": True}),
    ],
)
def test_what_is_not_offered_is_refused_by_name(client: openai.OpenAI, field: str, value: object) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(**{"model": "champion", "prompt": PROMPT, field: value})
    assert refused.value.param is not None
    assert refused.value.param.startswith(field)
    assert refused.value.type == "invalid_request_error"


def test_unknown_fields_and_odd_chats_are_refused(client: openai.OpenAI) -> None:
    user = {"role": "user", "content": PROMPT}
    for changes in (
        {"messages": []},
        {"messages": [user, {"role": "assistant", "content": "no"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        {"messages": [user], "tools": [{"type": "function", "function": {"name": "f"}}]},
        {"messages": [user], "max_tokens": 3, "max_completion_tokens": 4},
        {"messages": [user], "extra_body": {"swan": 1}},
    ):
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(**{"model": "champion"} | changes)


async def text_of(found: Any) -> str:
    if isinstance(found, openai.AsyncStream):
        return "".join([part.choices[0].text async for part in found])
    return str(found.choices[0].text)


def test_thirty_two_clients_at_once_get_what_each_would_get_alone(tmp_path, engine: Engine) -> None:
    prompts = [
        f"{skill} {word}>"
        for skill in ("rev", "srt", "cap", "rot")
        for word in ["abc", "bca", "xyz", "edc", "gfh", "kl", "m", "pqrs"]
    ]

    async def ask(url: str) -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            asked = [
                client.completions.create(model="champion", prompt=p, stream=i % 2 == 0) for i, p in enumerate(prompts)
            ]
            found = await asyncio.gather(*asked)
            return [await text_of(one) for one in found]

    with running(tmp_path, House(), Limits(workers=2, parallel=8)) as server:
        texts = asyncio.run(ask(server.url))
    alone = [bytes(i for i in written(engine, p, Sampling()) if i < 256).decode("utf-8", "replace") for p in prompts]
    assert texts == alone
