"""Many clients at once, in a process of their own: what bench_serve.py asks both servers with.

    python benchmarks/serve_client.py HOST PORT CLIENTS REQUESTS TOKENS PROMPTS MODEL

Every client has one connection, asks for a completion, reads it, and asks again until all requests were made. Printed: one
line of JSON with seconds, tokens, statuses, and the latency of every request.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any


class Load:
    """What is asked, and what came of it."""

    def __init__(self, host: str, port: str, total: str, tokens: str, prompts: str, model: str) -> None:
        self.host, self.port, self.left, self.tokens, self.model = host, int(port), int(total), int(tokens), model
        self.prompts: list[str] = json.loads(Path(prompts).read_text())["texts"]
        self.latencies: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.written = 0

    async def client(self) -> None:
        """One connection, until everything was asked."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        while self.left:
            self.left -= 1
            began = time.perf_counter()
            asked = {"model": self.model, "prompt": self.prompts[self.left % len(self.prompts)][:15], "temperature": 0}
            body = json.dumps(asked | {"max_tokens": self.tokens}).encode()
            head = f"POST /v1/completions HTTP/1.1\r\nHost: {self.host}\r\nContent-Type: application/json\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            status, found = await answer(reader)
            self.latencies.append(time.perf_counter() - began)
            self.statuses[status] += 1
            self.written += found["usage"]["completion_tokens"] if status == 200 else 0
        writer.close()


async def answer(reader: asyncio.StreamReader) -> tuple[int, Any]:
    """Status and JSON of an answer, whole or in chunks."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
    if "content-length" in fields:
        data = await reader.readexactly(int(fields["content-length"]))
    else:
        data = b""
        while size := int(await reader.readline(), 16):
            data += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    return int(head.split()[1]), json.loads(data)


async def main() -> None:
    """All clients at once."""
    host, port, clients, *more = sys.argv[1:]
    load = Load(host, port, *more)
    began = time.perf_counter()
    await asyncio.gather(*(load.client() for _ in range(int(clients))))
    seconds = time.perf_counter() - began
    told = {"seconds": seconds, "tokens": load.written, "latencies": load.latencies, "statuses": load.statuses}
    print(json.dumps(told))


asyncio.run(main())
