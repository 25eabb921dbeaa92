"""What a server holds in memory: one budget, leases while there is work, swaps that free, refusals that change nothing."""

from __future__ import annotations

import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab_fixtures import Place
from runtime_fixtures import shape_of, tensors_of, words_of
from serve_fixtures import PROMPT, House, Running, founder_model, kept, long_model, post, running
from studbook.errors import DigestDiffers, OverBudget, StudbookError
from studbook.lab.residence import served_model
from studbook.lab.serving import Serving
from studbook.models.slm import Slm, parse_slm
from studbook.models.slm_writer import write_slm
from studbook.models.tokenizers import ByteTokenizer
from studbook.records import LogitDigest, ResidentSetRecord
from studbook.runtime.installing import Wish, prepare
from studbook.runtime.serve import Address, Aside, Limits, Model, Outcome, Plan, ask
from studbook.runtime.serve.stock import wish_for

ASKED = {"model": "champion", "prompt": PROMPT}
ONE = Wish(text_bytes=64)


def least(model: Model) -> int:
    """Bytes of one copy with one session."""
    return prepare("x", "0" * 64, model.artifact, wish=ONE).total


def wide_model(seed: int) -> Model:
    """A model of some megabytes."""
    shape = shape_of(hidden_size=256, head_count=4, kv_head_count=4, head_dim=64, ffn_size=512, layer_count=3)
    data = write_slm(shape, ByteTokenizer(), tensors_of(shape, seed))
    return Model(f"{seed:064x}", f"wide-{seed}", kept(data))


def gauge(server: Running) -> int:
    page = server.call("/metrics")[1]
    return int(next(line.split()[1] for line in page.splitlines() if line.startswith("studbook_resident_bytes ")))


def resident_bytes() -> int:
    """Bytes of this process that lie in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_budget_for_one_model_refuses_the_second_and_the_first_goes_on(tmp_path: Path) -> None:
    first, second = founder_model(), founder_model("cap-rot")
    house = House(first)
    with running(tmp_path, house, Limits(memory_bytes=least(first) + least(second) - 1)) as server:
        before = server.call("/v1/completions", ASKED)[1]
        house.models = (second,)
        with pytest.raises(OverBudget, match=r"host\.specialists: \d+ would be needed, at most \d+") as refused:
            ask(server.folder, "reload")
        assert refused.value.reason == "resident.pinned"
        assert server.call("/v1/completions", ASKED)[1]["choices"] == before["choices"]
        memory = server.status()["memory"]
        assert [row["revision"] for row in memory["residents"]] == [first.revision]
        assert memory["bytes"] == memory["residents"][0]["bytes"] == gauge(server) == least(first)
    assert [record.act for record in house.records] == ["activate", "settle"]


def test_a_champion_that_does_not_fit_is_refused_at_the_start_with_the_arithmetic(tmp_path: Path) -> None:
    model = founder_model()
    house = House(model)
    most = least(model) - 1
    message = rf"host\.specialists: {least(model)} would be needed, at most {most}"
    with pytest.raises(OverBudget, match=message) as refused, running(tmp_path, house, Limits(memory_bytes=most)):
        pass
    assert refused.value.reason == "resident.host"
    assert house.records == []


def test_spares_come_as_far_as_there_is_room_and_the_rest_is_told(tmp_path: Path) -> None:
    champion, *spares = (
        founder_model(),
        *(founder_model(n)._replace(spare=True) for n in ("cap-rot", "dup-odd", "brk")),
    )
    room = 6 * least(champion)
    house = House(champion, *spares)
    with running(tmp_path, house, Limits(memory_bytes=room, workers=1)) as server:
        memory = server.status()["memory"]
        assert [row["model"] for row in memory["residents"]] == ["base", "cap-rot", "dup-odd"]
        assert list(memory["absent"]) == [spares[-1].revision]
        assert "for what replaces the first model" in memory["absent"][spares[-1].revision]
        assert sum(row["bytes"] for row in memory["residents"]) == memory["bytes"] <= room - least(champion)
        assert server.call("/v1/completions", ASKED)[0] == 200
        house.models = (spares[-1]._replace(spare=False), *spares[:-1])
        assert ask(server.folder, "reload")["model"] == "brk"
        assert server.status()["memory"]["absent"] == {}
    assert house.set is not None
    assert house.set.bytes_held() == {"host": 0, "device": 0}


def test_a_model_that_is_not_what_was_promised_leaves_what_is_served(tmp_path: Path) -> None:
    first, second = founder_model(), founder_model("cap-rot")
    house = House(first)
    with running(tmp_path, house) as server:
        before = server.call("/v1/completions", ASKED)[1]["choices"], gauge(server)
        lies: list[tuple[Model, type[StudbookError]]] = [
            (second._replace(smoke=LogitDigest(positions=3, sha256="0" * 64)), DigestDiffers),
            (second._replace(artifact=second.artifact._replace(path=first.artifact.path)), DigestDiffers),
        ]
        for model, error in lies:
            house.models = (model,)
            with pytest.raises(error):
                ask(server.folder, "reload")
            assert (server.call("/v1/completions", ASKED)[1]["choices"], gauge(server)) == before
        house.models = (second,)
        assert ask(server.folder, "reload")["model"] == "cap-rot"


def test_the_old_one_is_freed_when_its_last_work_has_ended(tmp_path: Path) -> None:
    first, second = long_model(), founder_model()
    house = House(first)
    with running(tmp_path, house, Limits(workers=1, parallel=2, response_tokens=3000)) as server:
        with server.connect() as there:
            there.sendall(post(ASKED | {"max_tokens": 400}))
            while not server.status()["running"]:
                pass
            house.models = (second,)
            ask(server.folder, "reload")
            assert [row["model"] for row in server.status()["memory"]["residents"]] == ["long", "base"]
            assert server.call("/v1/completions", ASKED)[1]["system_fingerprint"] == f"fp_{second.revision[:16]}"
            assert f"fp_{first.revision[:16]}".encode() in server.rest_of_answer(there)
        while len(server.status()["memory"]["residents"]) > 1:
            pass
        assert gauge(server) == server.status()["memory"]["residents"][0]["bytes"]
    acts = [(record.act, len(record.after)) for record in house.records]
    assert acts == [("activate", 1), ("settle", 1), ("activate", 2), ("evict", 1), ("settle", 1)]
    assert house.records[-1].known_good is not None
    assert house.records[-1].known_good.revisions == (second.revision,)


class Late:
    """Has another model run beside each answer, as long as it is told to."""

    def __init__(self, answering: Model, beside: Model) -> None:
        self.plan = Plan(answering.revision, (Aside(beside.revision),))
        self.seen: list[tuple[Outcome, ...]] = []
        self.answers: list[Outcome] = []
        self.told = threading.Event()

    def dispatch(self, asked: Any) -> Plan:
        return self.plan

    def answered(self, asked: Any, answer: Outcome) -> None:
        self.answers.append(answer)

    def observe(self, asked: Any, answer: Outcome, asides: tuple[Outcome, ...]) -> None:
        self.seen.append(asides)
        self.told.set()


def test_what_was_to_run_beside_an_answer_still_runs_after_a_change(tmp_path: Path) -> None:
    first, shadow = long_model(), founder_model()
    late = Late(first, shadow)
    house = House(first, shadow, dispatcher=late)
    with running(tmp_path, house, Limits(workers=1, parallel=2, response_tokens=3000)) as server:
        with server.connect() as there:
            there.sendall(post(ASKED | {"max_tokens": 400}))
            while not server.status()["running"]:
                pass
            house.models, house.dispatcher = (first,), None
            ask(server.folder, "reload")
            server.rest_of_answer(there)
            late.told.wait()
        assert [outcome.failure for outcome in late.seen[0]] == [""]
        while len(server.status()["memory"]["residents"]) > 1:
            pass


def test_a_swap_gives_real_memory_back(tmp_path: Path) -> None:
    models = [wide_model(seed) for seed in (1, 2)]
    house = House(models[0])
    with running(tmp_path, house, Limits(workers=2, parallel=4)) as server:
        grown = []
        for turn in range(12):
            house.models = (models[turn % 2],)
            ask(server.folder, "reload")
            assert server.call("/v1/completions", ASKED)[0] == 200
            assert len(server.status()["memory"]["residents"]) == 1
            gc.collect()
            grown.append(resident_bytes())
        assert house.set is not None
        assert house.set.bytes_held()["host"] == gauge(server)
        # Were one model left behind at every turn it would be eight of them.
        assert grown[-1] - grown[3] < 2 * gauge(server)


def test_a_worker_holds_a_lease_as_long_as_it_has_work_and_no_longer(tmp_path: Path) -> None:
    house = House(long_model())
    with running(tmp_path, house, Limits(workers=2, parallel=2, response_tokens=3000)) as server:
        assert house.set is not None
        assert house.set.leased == 0
        with server.connect() as there:
            there.sendall(post(ASKED | {"max_tokens": 2000}))
            while not server.status()["running"]:
                pass
            assert house.set.leased == 1
        server.idle()
        while house.set.leased:
            pass
        assert server.call("/v1/completions", ASKED | {"max_tokens": 2})[0] == 200
        while house.set.leased:
            pass


def test_two_workers_share_one_copy_with_one_session_and_nobody_is_refused(tmp_path: Path) -> None:
    model, mirrored = founder_model(), founder_model("cap-rot")
    late = Late(model, mirrored)
    house = House(model, mirrored, dispatcher=late)
    limits = Limits(workers=2, parallel=4, memory_bytes=least(model) + least(mirrored))
    with running(tmp_path, house, limits) as server:
        assert [(r["copies"], r["sessions"]) for r in server.status()["memory"]["residents"]] == [(1, 1)] * 2
        with ThreadPoolExecutor(8) as clients:
            found = list(clients.map(lambda _: server.call("/v1/completions", ASKED), range(40)))
        server.idle()
    assert {status for status, _, _ in found} == {200}
    assert len({body["choices"][0]["text"] for _, body, _ in found}) == 1
    assert {outcome.failure for asides in late.seen for outcome in asides} == {""}
    assert len(late.seen) == len(late.answers) == 40


def test_models_come_and_go_under_load_and_nobody_is_refused(tmp_path: Path) -> None:
    models = [founder_model(name) for name in ("base", "cap-rot", "dup-odd")]
    house = House(models[0], models[1])
    limits = Limits(workers=2, parallel=3, memory_bytes=8 * least(models[0]))
    stopped = threading.Event()

    def client(_: int) -> set[tuple[int, str]]:
        found = set()
        while not stopped.is_set():
            status, body, _ = server.call("/v1/completions", ASKED)
            found.add((status, body.get("system_fingerprint", str(body))))
        return found

    with running(tmp_path, house, limits) as server, ThreadPoolExecutor(6) as clients:
        told = [clients.submit(client, number) for number in range(6)]
        for turn in range(1, 25):
            answering, beside = models[turn % 3], models[(turn + 1) % 3]
            house.models, house.dispatcher = (answering, beside), Late(answering, beside)
            assert ask(server.folder, "reload")["revision"] == answering.revision
            found = server.call("/v1/completions", ASKED)[1]
            assert found["system_fingerprint"] == f"fp_{answering.revision[:16]}"
        stopped.set()
        seen = set().union(*(each.result() for each in told))
        while len(server.status()["memory"]["residents"]) > 2:
            pass
        assert server.status()["memory"]["bytes"] <= limits.memory_bytes
    assert seen <= {(200, f"fp_{model.revision[:16]}") for model in models}
    assert house.set is not None
    assert house.set.leased == 0


def model_with(context: int, words: int) -> Slm:
    tokenizer = words_of(words, shuffled=False) if words else ByteTokenizer()
    shape = shape_of(vocab_size=tokenizer.vocab_size, max_context=context)
    return parse_slm(write_slm(shape, tokenizer, tensors_of(shape)))


@settings(deadline=None, max_examples=40)
@given(
    workers=st.integers(1, 5),
    parallel=st.integers(1, 32),
    share=st.integers(0, 1 << 24),
    context=st.sampled_from([1, 32, 300]),
    words=st.sampled_from([0, 5]),
)
def test_a_model_takes_its_share_or_the_least_there_is(
    workers: int, parallel: int, share: int, context: int, words: int
) -> None:
    slm, limits = model_with(context, words), Limits(workers=workers, parallel=parallel)
    wish = wish_for(slm, limits, share)
    artifact = kept(write_slm(slm.shape, slm.tokenizer, tensors_of(slm.shape)))
    smoke = LogitDigest(positions=slm.shape.smoke_positions, sha256="0" * 64)

    def total(copies: int, sessions: int) -> int:
        wished = wish._replace(copies=copies, sessions=sessions)
        return prepare("x", "0" * 64, artifact, smoke=smoke, wish=wished).total

    assert 1 <= wish.copies <= workers
    assert 1 <= wish.sessions <= parallel
    assert total(wish.copies, wish.sessions) <= share or (wish.copies, wish.sessions) == (1, 1)
    if wish.sessions < parallel:
        assert total(wish.copies, wish.sessions + 1) > share
    assert wish.text_bytes >= context * (2 if words else 1)


# -- the lab behind it -------------------------------------------------------------------------------------------------


def test_a_labs_server_enters_what_it_holds(host: Place) -> None:
    seen: list[dict[str, Any]] = []
    with host.open() as lab:
        champion, moved = lab.desk.champion(), lab.desk.channels()["champion"].record
        assert moved is not None
        assert served_model(lab.desk, champion, moved).smoke is not None

        def ready(url: str) -> None:
            folder = host.path / "cache"
            seen.append(ask(folder, "status"))
            threading.Thread(target=ask, args=(folder, "stop")).start()

        lab.serve(Serving(Address(port=0), limits=Limits(workers=1)), lambda url: threads.append(started(ready, url)))
        for thread in threads:
            thread.join()
        records = [record for _, record in lab.desk.all(ResidentSetRecord)]
        assert lab.verify().problems == ()
    held = {row["revision"] for row in seen[0]["memory"]["residents"]}
    # No router leads to the packages that are installed here.
    assert held == {champion}
    assert records[0].brought == (moved,)
    assert records[-1].after == (moved,)
    assert records[-1].act == "settle"
    assert records[-1].host_bytes == seen[0]["memory"]["bytes"]


threads: list[threading.Thread] = []


def started(act: Any, *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=act, args=arguments)
    thread.start()
    return thread
