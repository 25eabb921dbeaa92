import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import pytest

from authority_fixtures import HEADER, ROOT, made
from routing_fixtures import AUTHORITY, HOST_KEY, MODULES, known, router
from studbook.errors import DigestDiffers, NotAuthorised, OutOfOrder, OverBudget, RecordRefused, StudbookError
from studbook.records import RouteCost, canonical, read_struct, replace
from studbook.records.routes import RouteRecord
from studbook.runtime import routelog
from studbook.runtime.routelog import SEAL_LINES, RouteLog, Tail, segment_files, segments, verify_segment
from studbook.runtime.routing.router import Router, RouteRequest
from studbook.runtime.routing.running import Run
from studbook.runtime.routing.tell import arranged, finished, replay, route_record
from studbook.runtime.routing.thresholds import margin_threshold
from studbook.seal import Authority, seal

PROMPTS = ("rev abc>", "cap abc>", "brk ([>", "rve abc>", "nobody knows", "two\nlines", "bell \x07", "half \ud800")


def record_of(prompt: str, *, keep: bool = True, rules: bool = True, held: str | None = None) -> RouteRecord:
    asked = RouteRequest(prompt, permissions=("clock",), held=held)
    decided = router(rules=rules).route(asked, MODULES)
    return route_record(HEADER, router(rules=rules), asked, decided, keep_prompt=keep)


def log_of(folder: Path, **more: object) -> RouteLog:
    return RouteLog(folder, HEADER, HOST_KEY, AUTHORITY, **more)


def verified(folder: Path, number: int = 1, authority: Authority = AUTHORITY):
    lines, seals = segment_files(folder, number)
    return verify_segment(number, lines.read_bytes() if lines.exists() else b"", seals.read_bytes(), authority, "log")


def filled(folder: Path, count: int = 5, *, close: bool = True) -> RouteLog:
    log = log_of(folder)
    for number in range(count):
        log.append(record_of(PROMPTS[number % len(PROMPTS)]))
    if close:
        log.close()
    return log


def test_every_decision_comes_back_from_disk_and_replays_to_the_same_choice(tmp_path):
    filled(tmp_path, len(PROMPTS))
    found = verified(tmp_path)
    assert (found.sealed, found.closed, len(found.records)) == (len(PROMPTS), True, len(PROMPTS))
    # What restarts reads state and log anew.
    fresh = Router(known(rules=True))
    for prompt, record in zip(PROMPTS, found.records, strict=True):
        kept = record.prompt is not None
        assert kept == (not {"\x07", "\ud800"} & set(prompt))
        replayed = replay(record, fresh)
        assert replayed == (("prompt" if kept else "scores"), record.selected)


def test_without_prompts_the_choice_is_derived_from_scores_and_with_the_prompt_from_that(tmp_path):
    for prompt in PROMPTS:
        record = record_of(prompt, keep=False, rules=False, held="cap")
        assert record.prompt is None
        assert replay(record, router()).depth == "scores"
        assert replay(record, router(), prompt).depth == "prompt"
    with pytest.raises(DigestDiffers) as caught:
        replay(record_of("rev abc>"), router(rules=True), "cap abc>")
    assert caught.value.reason == "route.replay-prompt"


def test_a_record_of_another_state_or_threshold_does_not_replay():
    threshold = margin_threshold(HEADER, [0.5], [True], 0.5, encoder=known(rules=True).digest)
    for other in (router(), Router(known(rules=True), threshold)):
        with pytest.raises(DigestDiffers) as caught:
            replay(record_of("rev abc>"), other)
        assert caught.value.reason == "route.replay-state"


CHANGES = {
    "selected": "0" * 64,
    "how": "fallback",
    "rule": 1,
    "margin": 0.25,
    "ties": ["cap", "rev"],
    "reason": "route.other",
    "estimated": 7,
    "fallback": None,
    "request": "1" * 64,
    "prompt": "cap abc>",
    "state": "2" * 64,
}


@pytest.mark.parametrize("field", CHANGES)
@pytest.mark.parametrize("prompt", ["rev abc>", "rve abc>"])
def test_a_changed_field_does_not_replay(field, prompt):
    plain = json.loads(canonical(record_of(prompt)))
    assert plain[field] != CHANGES[field]
    forged = read_struct(canonical(plain | {field: CHANGES[field]}), RouteRecord)
    with pytest.raises(StudbookError):
        replay(forged, router(rules=True))


def test_changed_scores_and_candidates_do_not_replay_from_the_prompt():
    record = record_of("rve abc>")
    *others, last = record.candidates
    assert last.id == "rev"
    for changes in ({"score": 0.9}, {"score": None}, {"cost": 1}, {"excluded": "route.budget"}, {"clusters": ("cap",)}):
        candidates = (*others, replace(last, **changes))
        with pytest.raises(DigestDiffers):
            replay(replace(record, candidates=candidates), router(rules=True))


@pytest.mark.parametrize(
    "tamper",
    [
        lambda lines: lines[1:],
        lambda lines: lines[:-1],
        lambda lines: [lines[1], lines[0], *lines[2:]],
        lambda lines: [lines[0], lines[0], *lines[1:]],
        lambda lines: [lines[0].replace(b'"outcome":"routed"', b'"outcome":"failed"'), *lines[1:]],
        lambda lines: [*lines[:-1], lines[-1].replace(b'"outcome":"routed"', b'"outcome":"failed"')],
        lambda lines: [*lines, lines[-1]],
        lambda lines: [b" " + lines[0], *lines[1:]],
    ],
)
def test_any_line_changed_moved_added_or_cut_off_is_found(tmp_path, tamper):
    filled(tmp_path)
    path = segment_files(tmp_path, 1)[0]
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"".join(line + b"\n" for line in tamper(lines)))
    with pytest.raises((DigestDiffers, RecordRefused)):
        verified(tmp_path)


def test_a_log_written_anew_by_somebody_without_the_key_is_found(tmp_path):
    filled(tmp_path / "real")
    forger = made(98)
    log = RouteLog(tmp_path / "forged", HEADER, forger, AUTHORITY)
    log.append(record_of("cap abc>"))
    log.close()
    with pytest.raises(NotAuthorised):
        verified(tmp_path / "forged")
    with pytest.raises(NotAuthorised):
        verified(tmp_path / "real", authority=Authority(ROOT))


def test_a_seal_of_another_segment_or_out_of_order_is_found(tmp_path):
    filled(tmp_path, SEAL_LINES + 1)
    path = segment_files(tmp_path, 1)[1]
    seals = path.read_bytes().splitlines()
    assert len(seals) == 3
    lines = segment_files(tmp_path, 1)[0].read_bytes()
    for wrong in ([seals[1], seals[0], seals[2]], [seals[2], seals[1]], [*seals, seals[-1]], []):
        with pytest.raises(DigestDiffers) as caught:
            verify_segment(1, lines, b"".join(s + b"\n" for s in wrong), AUTHORITY)
        assert caught.value.reason == "route.seal"
    with pytest.raises(DigestDiffers):
        verify_segment(2, lines, path.read_bytes(), AUTHORITY)
    line = seal(replace(verified(tmp_path).records[0], header=HEADER), HOST_KEY) + b"\n"
    with pytest.raises(NotAuthorised):
        verify_segment(1, lines, line, AUTHORITY)


def test_seals_come_after_so_many_lines_and_after_a_second(tmp_path):
    now = datetime(2026, 1, 1, tzinfo=UTC)
    log = log_of(tmp_path, clock=lambda: now)
    for _ in range(SEAL_LINES):
        assert verified(tmp_path).sealed == 0
        log.append(record_of("rev abc>"))
    assert verified(tmp_path).sealed == SEAL_LINES
    log.append(record_of("rev abc>"))
    assert not log.tick()
    now += timedelta(seconds=1)
    assert log.tick()
    assert not log.tick()
    assert verified(tmp_path).sealed == SEAL_LINES + 1


def test_what_a_crash_left_is_sealed_as_found_and_a_new_segment_follows_it(tmp_path):
    filled(tmp_path, 3, close=False)
    lines, _ = segment_files(tmp_path, 1)
    with lines.open("ab") as file:
        file.write(b'{"torn":')
    log = log_of(tmp_path)
    found = verified(tmp_path)
    assert (found.closed, found.sealed, found.recovered, found.torn) == (True, 3, 3, 0)
    assert log.number == 2
    placed = log.append(record_of("rev abc>"))
    assert (placed.sequence, placed.previous) == (0, found.head)
    log.close()
    assert verified(tmp_path, 2).begins == found.head
    assert segments(tmp_path) == (1, 2)


def test_a_crash_before_the_first_seal_leaves_nothing_to_close(tmp_path):
    log_of(tmp_path, after=Tail(4, "d" * 64))
    seals = segment_files(tmp_path, 5)[1]
    seals.write_bytes(seals.read_bytes()[:40])
    log = log_of(tmp_path, after=Tail(4, "d" * 64))
    assert log.number == 5
    log.close()
    assert verified(tmp_path, 5).begins == "d" * 64


def test_a_log_whose_lines_were_changed_is_not_continued(tmp_path):
    filled(tmp_path, 3)
    lines, _ = segment_files(tmp_path, 1)
    lines.write_bytes(lines.read_bytes().replace(b'"outcome":"routed"', b'"outcome":"failed"', 1))
    with pytest.raises(DigestDiffers):
        log_of(tmp_path)


def test_a_log_whose_seals_were_removed_is_not_continued(tmp_path):
    filled(tmp_path, 3, close=False)
    lines, seals = segment_files(tmp_path, 1)
    seals.unlink()
    assert segments(tmp_path) == (1,)
    with pytest.raises(DigestDiffers) as caught:
        log_of(tmp_path)
    assert caught.value.reason == "route.seal"
    assert not seals.exists()
    assert len(lines.read_bytes().splitlines()) == 3


def test_no_line_is_entered_before_its_segment_has_a_seal(tmp_path, monkeypatch):
    monkeypatch.setattr(routelog, "MAX_LINES", 2)
    log, append = filled(tmp_path, 1, close=False), routelog.append_line

    def full(path: Path, line: bytes) -> None:
        if path.name == "000002.seals":
            raise OverBudget("there is no room for it", where=path, reason="disk.full")
        append(path, line)

    monkeypatch.setattr(routelog, "append_line", full)
    for _ in range(2):
        with pytest.raises(OverBudget):
            log.append(record_of("rev abc>"))
    assert segments(tmp_path) == (1,)
    monkeypatch.setattr(routelog, "append_line", append)
    log.append(record_of("cap abc>"))
    log.close()
    assert [len(verified(tmp_path, number).records) for number in segments(tmp_path)] == [2, 1]


def test_a_closed_log_takes_nothing_more(tmp_path):
    log = filled(tmp_path, 2)
    log.close()
    assert not log.tick()
    with pytest.raises(OutOfOrder) as caught:
        log.append(record_of("rev abc>"))
    assert caught.value.reason == "route.closed"
    assert len(verified(tmp_path).records) == 2


def test_several_threads_write_one_chain(tmp_path):
    log = log_of(tmp_path)
    records = [record_of(prompt) for prompt in PROMPTS]
    threads = [Thread(target=lambda: [log.append(r) for r in records]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert len(verified(tmp_path).records) == 4 * len(PROMPTS)


def test_a_full_segment_is_closed_and_the_next_one_follows(tmp_path, monkeypatch):
    monkeypatch.setattr(routelog, "MAX_LINES", 3)
    filled(tmp_path, 7)
    found = [verified(tmp_path, number) for number in segments(tmp_path)]
    assert [len(s.records) for s in found] == [3, 3, 1]
    assert all(s.closed for s in found)
    assert [s.begins for s in found[1:]] == [s.head for s in found[:-1]]


def test_what_became_of_a_request_stands_in_its_record():
    cost = RouteCost(active_bytes=10, prompt_tokens=8, tokens=4, fuel=None)
    answered = finished(record_of("rev abc>"), Run("cba", "e" * 64, "route.accepted", (), cost))
    assert (answered.outcome, answered.failure, answered.observed) == ("answered", None, cost)
    failed = finished(record_of("rev abc>"), Run(None, None, "engine.context", (), cost))
    assert (failed.outcome, failed.failure, failed.answer) == ("failed", "engine.context", None)
    assert replay(answered, router(rules=True)).selected == answered.selected
    together = arranged(answered, "committee", Run("cba", "e" * 64, "route.majority", (), cost), 30, "f" * 64)
    assert (together.how, together.evidence, together.estimated) == ("committee", "f" * 64, 30)
    with pytest.raises(OutOfOrder) as caught:
        replay(together, router(rules=True))
    assert caught.value.reason == "route.replay-kind"
