"""Publishing what the channels offer, and taking it on a machine that knows a root of keys and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from consumer_fixtures import BACK, BASE, FRESH, PROMOTED, ROTATED, Shop, copied, files_of, refused, serving
from lab_fixtures import Place, problems, run_cli
from studbook import files
from studbook.errors import OutOfOrder, StudbookError, UsageError
from studbook.lab import Lab, publish
from studbook.lab.publication import tile_names
from studbook.lab.pull import Request
from studbook.ledger import check_inclusion
from studbook.records import ChannelSnapshot, canonical, replace
from studbook.seal import open_root


class Killed(BaseException):
    """The process ends here."""


def kill_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """End at one step of the file layer."""
    steps = iter(range(number + 1))

    def step(_name: str) -> None:
        if next(steps, None) == number:
            raise Killed

    monkeypatch.setattr(files, "boundary", step)


def test_a_folder_and_a_root_are_enough_to_get_the_champion(shop: Shop, tmp_path: Path) -> None:
    found = shop.pull(tmp_path / "here", PROMOTED)
    assert (found.outcome, found.artifact, found.version) == ("installed", shop.child, 2)
    assert sha256(Path(found.file).read_bytes()).hexdigest() == shop.child
    assert found.moved_by == "champion-promotion/1"
    assert found.notes == ()


def test_the_same_comes_over_http_from_this_machine(shop: Shop, tmp_path: Path) -> None:
    with serving(shop.folders[BACK]) as address:
        over_http = shop.pull(tmp_path / "http", f"{address}/")
    shop.pull(tmp_path / "folder", BACK)
    assert over_http.outcome == "installed"
    from_http, from_folder = files_of(tmp_path / "http"), files_of(tmp_path / "folder")
    for found in (from_http, from_folder):
        del found[".studbook/state.json"]
    assert from_http == from_folder


def test_a_whole_life_is_followed_step_by_step(shop: Shop, tmp_path: Path) -> None:
    here = tmp_path / "here"
    steps = [shop.pull(here, stage) for stage in (BASE, PROMOTED, ROTATED, BACK)]
    assert [s.artifact for s in steps] == [shop.base, shop.child, shop.child, shop.base]
    assert [s.outcome for s in steps] == ["installed", "installed", "refreshed", "installed"]
    assert [s.root_version for s in steps] == [1, 1, 2, 2]
    assert [s.version for s in steps] == [1, 2, 3, 4]


def test_an_honest_way_back_has_a_higher_version_and_is_told_in_words(shop: Shop, tmp_path: Path) -> None:
    shop.pull(tmp_path, PROMOTED)
    found = shop.pull(tmp_path, BACK)
    assert found.artifact == shop.base and found.moved_by == "rollback-record/1"
    assert any("went back" in note and "it forgets" in note for note in found.notes)


def test_a_second_pull_finds_nothing_new_and_changes_nothing(shop: Shop, tmp_path: Path) -> None:
    shop.pull(tmp_path, BACK)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file() and p.name != "lock"}
    again = Lab.pull(Request("champion", tmp_path, shop.pin))
    assert again.outcome == "unchanged"
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file() and p.name != "lock"} == before


def test_both_channels_can_lie_in_one_folder(shop: Shop, tmp_path: Path) -> None:
    champion, shadow = (shop.pull(tmp_path, BACK, channel) for channel in ("champion", "shadow"))
    assert (champion.artifact, shadow.artifact) == (shop.base, shop.child)
    assert {"champion.slm", "shadow.slm", "champion.records.json"} <= {p.name for p in tmp_path.iterdir()}


def test_an_artifact_that_was_changed_here_is_fetched_again(shop: Shop, tmp_path: Path) -> None:
    file = Path(shop.pull(tmp_path, BACK).file)
    file.chmod(0o644)
    file.write_bytes(b"something else")
    assert shop.pull(tmp_path, BACK).outcome == "installed"
    assert sha256(file.read_bytes()).hexdigest() == shop.base


def test_the_records_can_be_checked_by_somebody_who_has_only_them_and_the_root(shop: Shop, tmp_path: Path) -> None:
    found = shop.pull(tmp_path, PROMOTED)
    root, _ = open_root(shop.pin.read_bytes())
    papers = json.loads(Path(found.records).read_text())
    assert papers["kind"] == "channel-records/1"
    assert len(papers["records"]) >= 5
    for row in papers["records"]:
        _, entry = check_inclusion(row["proof"].encode(), row["line"].encode(), root)
        assert entry.record == row["record"]
        assert sha256(canonical(row["envelope"])).hexdigest() == entry.envelope.sha256


def test_a_later_root_is_as_good_a_pin_as_the_first(shop: Shop, tmp_path: Path) -> None:
    pin = shop.folders[BACK] / "roots" / "2.json"
    assert Lab.pull(Request("champion", tmp_path / "a", pin, str(shop.folders[BACK]))).root_version == 2
    with refused("pull.pin"):
        Lab.pull(Request("champion", tmp_path / "b", pin, str(shop.folders[BASE])))


def test_a_pull_killed_between_any_two_steps_is_finished_by_the_next(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tmp_path / "first"
    shop.pull(first, PROMOTED)
    whole = (shop.base, shop.child)
    for number in range(1000):
        here = copied(first, tmp_path / f"kill-{number}")
        kill_at(monkeypatch, number)
        try:
            shop.pull(here, BACK)
            break
        except Killed:
            pass
        assert sha256((here / "champion.slm").read_bytes()).hexdigest() in whole
        monkeypatch.undo()
        assert shop.pull(here, BACK).artifact == shop.base
        assert sha256((here / "champion.slm").read_bytes()).hexdigest() == shop.base
        assert not list(here.rglob("*.partial"))
    assert number > 10


def test_a_publication_killed_between_any_two_steps_leaves_the_one_before_it_whole(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files_ = {n: (shop.folders[BACK] / n) for n in files_of(shop.folders[BACK])}
    content = {n: path.read_bytes() for n, path in files_.items() if n != "snapshot.json"}
    content["snapshot.json"] = files_["snapshot.json"].read_bytes()
    folder = copied(shop.folders[PROMOTED], tmp_path / "live")
    for number in range(1000):
        kill_at(monkeypatch, number)
        try:
            publish.write(folder, content)
            break
        except Killed:
            monkeypatch.undo()
        replaced = (folder / "snapshot.json").read_bytes() == content["snapshot.json"]
        assert shop.pull(tmp_path / f"to-{number}", folder).version == (4 if replaced else 2)
        publish.write(folder, content)
        assert shop.pull(tmp_path / f"to-{number}", folder).version == 4
        folder = copied(shop.folders[PROMOTED], tmp_path / f"live-{number}")
    assert number > 10


def test_two_pulls_at_once_into_one_folder_are_refused(shop: Shop, tmp_path: Path) -> None:
    shop.pull(tmp_path, BASE)
    lock = files.lock_folder(tmp_path / ".studbook", tmp_path / ".studbook" / "lock", exclusive=True)
    with pytest.raises(StudbookError, match="held by") as caught:
        shop.pull(tmp_path, BASE)
    assert caught.value.exit_code == 11
    files.os.close(lock)


def test_a_publication_never_leaves_the_lab_and_never_takes_a_folder_of_others(old_lab: Place, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("mine")
    with old_lab.open() as lab:
        count = len(lab.desk.entries())
        for folder in (old_lab.path / "release", old_lab.path.parent, tmp_path / "taken"):
            with pytest.raises(UsageError):
                lab.publish(folder)
        for days in (0, 367):
            with pytest.raises(UsageError, match="days"):
                lab.publish(tmp_path / "new", days)
        assert len(lab.desk.entries()) == count
        assert not (tmp_path / "new").exists()


def test_a_lab_put_back_to_an_older_copy_does_not_publish_over_what_it_forgot(shop: Shop, tmp_path: Path) -> None:
    older = shop.place.copy(tmp_path / "older")
    newer = shop.place.copy(tmp_path / "newer")
    with newer.open() as lab:
        lab.publish(tmp_path / "live")
    with older.open() as lab, refused("snapshot.fork"):
        lab.publish(tmp_path / "live")


def test_every_publication_is_a_record_that_verify_draws_again(shop: Shop, tmp_path: Path) -> None:
    place = shop.place.copy(tmp_path)
    with place.open() as lab:
        assert [s.snapshot_version for _, s in lab.desk.all(ChannelSnapshot)] == [1, 2, 3, 4, 5]
        year, more = ((datetime.now(UTC) + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ") for days in (366, 367))
        true = publish.draw(lab.desk, year)
        publish.check_snapshot(lab.desk, true)
        for field, value in (("snapshot_version", 9), ("previous", None), ("channels", ()), ("tree", "0" * 64)):
            with refused("snapshot.field"):
                publish.check_snapshot(lab.desk, replace(true, **{field: value}))
        with refused("snapshot.expires"):
            publish.check_snapshot(lab.desk, replace(true, expires=more))
    assert problems(place) == []


def test_a_channel_that_was_never_moved_offers_nothing(prepared_lab: Place, tmp_path: Path) -> None:
    place = prepared_lab.copy(tmp_path)
    with place.open() as lab:
        found = lab.publish(tmp_path / "live")
    assert [c.channel for c in found.channels] == ["champion"]
    pin = tmp_path / "live" / "roots" / "1.json"
    first = Lab.pull(Request("champion", tmp_path / "here", pin, str(tmp_path / "live")))
    assert first.outcome == "installed" and first.moved_by == "champion-promotion/1"
    with pytest.raises(OutOfOrder, match="offers nothing in shadow"):
        Lab.pull(Request("shadow", tmp_path / "here", pin, str(tmp_path / "live")))


def test_the_folder_of_the_last_pull_is_found_again_from_anywhere(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied(shop.folders[FRESH], tmp_path / "public")
    monkeypatch.chdir(tmp_path)
    assert shop.pull(tmp_path / "to", Path("public")).outcome == "installed"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert shop.pull(tmp_path / "to", "").outcome == "unchanged"


def test_the_first_pull_has_to_say_where_from(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing was pulled here before"):
        Lab.pull(Request("champion", tmp_path, shop.pin))


def test_both_verbs_work_from_the_command_line(prepared_lab: Place, tmp_path: Path) -> None:
    place = prepared_lab.copy(tmp_path)
    live, here = tmp_path / "live", tmp_path / "here"
    run = run_cli(place, "publish", str(live), "--days", "3")
    assert run.returncode == 0, run.stderr
    assert "hand over" in run.stdout and str(live / "roots" / "1.json") in run.stdout
    nowhere = Place(tmp_path / "no-lab", tmp_path / "no-keys")
    wanted = ["pull", "champion", str(here), "--root", str(live / "roots" / "1.json"), "--from", str(live)]
    run = run_cli(nowhere, "--json", *wanted)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["outcome"] == "installed"
    run = run_cli(nowhere, *wanted)
    assert run.returncode == 0 and "nothing new" in run.stdout


def test_nothing_that_speaks_to_a_network_is_loaded_before_an_address_is_named() -> None:
    code = "import studbook.cli.commands, studbook.lab.pull, sys; print('studbook.fetch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_tiles_are_named_as_in_transparency_logs() -> None:
    assert list(tile_names(0)) == []
    assert list(tile_names(256)) == [("tile/0/000", 256)]
    assert list(tile_names(300)) == [("tile/0/000", 256), ("tile/0/001.p/44", 44)]
    last = list(tile_names(1_001 * 256 + 1))[-3:]
    assert last == [("tile/0/999", 256), ("tile/0/x001/000", 256), ("tile/0/x001/001.p/1", 1)]
