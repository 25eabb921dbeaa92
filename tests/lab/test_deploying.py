"""Bringing a channel outside: whole releases, a hook that may say no, and a link that moves in one step or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from bundle_fixtures import STACK
from lab_fixtures import CLUSTER, PERSON, Place, problems, rewrite, run_cli
from release_fixtures import change_policy, refused
from studbook import files
from studbook.errors import Busy, OutOfOrder, OverBudget, StudbookError
from studbook.files import lock_folder
from studbook.lab import Lab
from studbook.lab.deploying import Deployed, Wanted, deploy, follow
from studbook.lab.deployments import deployment_of
from studbook.lab.hooks import Hook
from studbook.lab.packages import Wanted as Stacked
from studbook.records import ChampionPromotion, Revocation, RevokedSubject


class Killed(BaseException): ...


@pytest.fixture
def place(released_lab: Place, tmp_path: Path) -> Place:
    """A copy of a lab whose champion was bred by a routed operator."""
    return released_lab.copy(tmp_path / "copy")


@pytest.fixture
def lab(place: Place) -> Iterator[Lab]:
    with place.open() as opened:
        yield opened


def script(folder: Path, text: str, name: str = "hook") -> Path:
    """A hook."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def hooked(folder: Path, text: str, seconds: float = 60) -> Wanted:
    return Wanted(Hook(script(folder, text), seconds))


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder, and every link, but for the lock's note."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file() and not name.endswith(".studbook/lock"):
            found[name] = sha256(path.read_bytes()).hexdigest()
    return found


def label(folder: Path) -> Any:
    return json.loads((folder / "current" / "deployment.json").read_bytes())


def check_whole(folder: Path) -> None:
    """What is in force is whole, and so is every release beside it."""
    assert (folder / "current").is_dir()
    for release in (folder / "releases").iterdir():
        told = json.loads((release / "deployment.json").read_bytes())
        held = {str(p.relative_to(release)) for p in release.rglob("*") if p.is_file()}
        assert held == {f["path"] for f in told["files"]} | {"deployment.json"}
        for one in told["files"]:
            data = (release / one["path"]).read_bytes()
            assert (sha256(data).hexdigest(), len(data)) == (one["sha256"], one["size"])


def test_a_release_holds_the_model_and_says_what_it_is(lab: Lab, tmp_path: Path) -> None:
    entries = len(lab.desk.entries())
    found = lab.deploy("champion", tmp_path / "out")
    assert found.outcome == "deployed"
    state, told = lab.desk.channels()["champion"], label(tmp_path / "out")
    assert (told["model"], told["record"], told["channel"]) == (state.artifact, state.record, "champion")
    assert told["ledger"] == {"entries": entries, "root": lab.desk.workspace.ledger.tree.root(entries).hex()}
    assert told["deployment"]["package"] == state.deployment.package
    assert told["licence"] == "CC0-1.0"
    model = next(one for one in told["files"] if one["path"].endswith(".slm"))
    assert model["sha256"] == lab.desk.champion()
    assert (tmp_path / "out" / "current").readlink() == Path("releases") / found.release
    check_whole(tmp_path / "out")
    # What a host runs is for the host to say.
    assert len(lab.desk.entries()) == entries


def test_the_same_state_again_does_nothing_and_says_so(lab: Lab, tmp_path: Path) -> None:
    wanted = hooked(tmp_path, f"echo called >> {tmp_path}/calls")
    first = lab.deploy("champion", tmp_path / "out", wanted)
    before = tree(tmp_path / "out")
    again = lab.deploy("champion", tmp_path / "out", wanted)
    assert (first.outcome, again.outcome) == ("deployed", "unchanged")
    assert again.release == first.release
    assert tree(tmp_path / "out") == before
    assert (tmp_path / "calls").read_text() == "called\n"


def test_a_rollback_brings_the_old_release_back_with_equal_digests(lab: Lab, tmp_path: Path) -> None:
    out = tmp_path / "out"
    move = next(e.sequence for e in reversed(lab.desk.entries()) if e.record == lab.desk.channels()["champion"].record)
    # The lab as it was before its promotion.
    first = deploy(lab.desk.at(move), "champion", out, Wanted())
    before = tree(out / "releases" / first.release)
    second = lab.deploy("champion", out)
    assert second.artifact == lab.desk.champion() != first.artifact
    lab.rollback("champion", "it does not please")
    back = lab.deploy("champion", out)
    assert (back.release, back.artifact, back.outcome) == (first.release, lab.desk.champion(), "deployed")
    assert (out / "current").readlink().name == first.release
    assert tree(out / "releases" / first.release) == before
    assert {p.name for p in (out / "releases").iterdir()} == {first.release, second.release}
    check_whole(out)


def test_it_reads_only_and_leaves_the_lab_as_it_was(place: Place, tmp_path: Path) -> None:
    before = tree(place.path)
    with place.open(writer=False) as lab:
        lab.deploy("champion", tmp_path / "out")
    assert tree(place.path) == before
    assert problems(place) == []


def test_adapter_packages_lie_beside_the_model_in_their_order(lab: Lab, tmp_path: Path) -> None:
    state = lab.desk.channels()["champion"]
    assert state.artifact is not None and state.record is not None
    lab.packages.contract(PERSON)
    lab.packages.make("stacked", state.artifact, Stacked(version="1.0.0", clusters=(CLUSTER,), adapters=STACK))
    # The move as the lab would write it.
    beside = deployment_of(lab.desk, state.artifact)
    move = lab.desk.workspace.get(state.record, ChampionPromotion)
    again = structs.replace(move, deployment=beside, rollback=state.back)
    lab.desk.workspace.commit(again, owner=PERSON)
    assert lab.desk.channels()["champion"].deployment.stack == beside.stack
    found = lab.deploy("champion", tmp_path / "out")
    laid = sorted((tmp_path / "out" / "current" / "adapters").iterdir())
    assert [path.name for path in laid] == ["1-dense.adp1", "2-sparse.asp1", "3-factors.alr1"]
    assert tuple(sha256(path.read_bytes()).hexdigest() for path in laid) == beside.stack
    assert label(tmp_path / "out")["deployment"]["cache"] == beside.cache
    with refused("deploy.stack"):
        lab.deploy("champion", tmp_path / "out", Wanted(gguf=True))
    # The same model without them is another release.
    lab.rollback("champion", "back")
    assert lab.deploy("champion", tmp_path / "out").release != found.release
    check_whole(tmp_path / "out")


def test_only_the_newest_releases_stay_and_the_one_in_force(lab: Lab, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = lab.deploy("champion", out, Wanted(keep=1))
    lab.rollback("champion", "back")
    second = lab.deploy("champion", out, Wanted(keep=1))
    assert second.removed == (first.release,)
    assert [p.name for p in (out / "releases").iterdir()] == [second.release]
    check_whole(out)


# -- what may not go outside -------------------------------------------------------------------------------------


def revoke(lab: Lab, kind: str, digest: str) -> None:
    subject = RevokedSubject(type=kind, digest=digest)  # type: ignore[arg-type]
    record = Revocation(header=lab.desk.header, subject=subject, reason="found wanting", since=len(lab.desk.entries()))
    lab.desk.workspace.commit(record, owner=PERSON)


def test_nothing_that_may_not_go_outside_is_deployed(lab: Lab, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with refused("deploy.empty"):
        lab.rollback("shadow", "emptied", "nothing")
        lab.deploy("shadow", out)
    child = lab.desk.champion()
    blob = lab.desk.workspace.blob_path(child)
    data = blob.read_bytes()
    rewrite(blob, data[:-1] + b"x")
    with refused("deploy.damaged"):
        lab.deploy("champion", out)
    blob.unlink()
    with refused("deploy.missing"):
        lab.deploy("champion", out)
    blob.write_bytes(data)
    assert not out.exists()
    lab.deploy("champion", out)
    before = tree(out)
    revoke(lab, "artifact", child)
    with refused("deploy.revoked"):
        lab.deploy("champion", out)
    assert tree(out) == before


def test_what_an_offline_operator_made_stays_inside(lived_lab: Place, tmp_path: Path) -> None:
    with lived_lab.copy(tmp_path / "copy").open() as lab:
        lab.promote(PERSON, "again")
        with pytest.raises(StudbookError) as caught:
            lab.deploy("champion", tmp_path / "out")
        assert caught.value.reason == "deploy.offline"
        assert not (tmp_path / "out").exists()
        # What was not bred here was somebody else's operator.
        lab.rollback("champion", "back")
        assert lab.deploy("champion", tmp_path / "out").outcome == "deployed"


def test_a_licence_that_the_policy_lists_no_longer_stays_inside(lab: Lab, tmp_path: Path) -> None:
    listed = [rule for rule in lab.policies.show()["licences"] if rule["spdx"] != "CC0-1.0"]
    for rule in listed:
        rule["combines_with"] = [spdx for spdx in rule["combines_with"] if spdx != "CC0-1.0"]
    change_policy(lab, tmp_path, licences=listed)
    with refused("parents.licence"):
        lab.deploy("champion", tmp_path / "out")


def test_a_stop_lets_nothing_out_but_a_way_back(lab: Lab, tmp_path: Path) -> None:
    lab.stop("smoke in the room")
    with refused("order.stopped"):
        lab.deploy("champion", tmp_path / "out")
    lab.rollback("champion", "out of here")
    assert lab.deploy("champion", tmp_path / "out").artifact == lab.desk.champion()


# -- the hook ----------------------------------------------------------------------------------------------------


def test_a_hook_sees_the_whole_release_before_it_is_in_force(lab: Lab, tmp_path: Path) -> None:
    text = f'ls "$1" > {tmp_path}/seen; ls {tmp_path}/out >> {tmp_path}/seen; echo "$#"; env | grep STUDBOOK; pwd; true'
    found = lab.deploy("champion", tmp_path / "out", hooked(tmp_path, text))
    seen = (tmp_path / "seen").read_text().split()
    assert "deployment.json" in seen
    assert "current" not in seen
    assert found.said[0] == "1"
    assert not any("STUDBOOK" in line for line in found.said)


def test_a_hook_that_says_no_leaves_what_was_in_force(lab: Lab, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = lab.deploy("champion", out)
    lab.rollback("champion", "back")
    with pytest.raises(OutOfOrder, match=r"ended with code 3: one \| the disk is on fire") as caught:
        lab.deploy("champion", out, hooked(tmp_path, "echo one; echo the disk is on fire >&2; exit 3"))
    assert caught.value.reason == "deploy.hook"
    assert (out / "current").readlink().name == first.release
    check_whole(out)
    # It is asked again, and about the same release.
    found = lab.deploy("champion", out, hooked(tmp_path, 'basename "$1"'))
    assert found.said == (found.release,)
    assert found.outcome == "deployed"


def test_a_first_hook_that_says_no_leaves_nothing_in_force(lab: Lab, tmp_path: Path) -> None:
    with refused("deploy.hook"):
        lab.deploy("champion", tmp_path / "out", hooked(tmp_path, "exit 1"))
    assert not os.path.lexists(tmp_path / "out" / "current")


def test_a_hook_that_hangs_is_ended_with_all_that_it_started(lab: Lab, tmp_path: Path) -> None:
    text = f"sleep 600 & echo $! > {tmp_path}/child; echo waiting; wait"
    with pytest.raises(OverBudget, match="did not end within 1 s: waiting") as caught:
        lab.deploy("champion", tmp_path / "out", hooked(tmp_path, text, 1))
    assert caught.value.reason == "deploy.hook"
    assert ended(int((tmp_path / "child").read_text()))
    assert not os.path.lexists(tmp_path / "out" / "current")


def test_a_hook_that_fails_takes_what_it_started_with_it(lab: Lab, tmp_path: Path) -> None:
    with refused("deploy.hook"):
        lab.deploy("champion", tmp_path / "out", hooked(tmp_path, f"sleep 600 & echo $! > {tmp_path}/child; exit 1"))
    assert ended(int((tmp_path / "child").read_text()))


def test_what_a_good_hook_started_lives_on_and_is_not_waited_for(lab: Lab, tmp_path: Path) -> None:
    found = lab.deploy("champion", tmp_path / "out", hooked(tmp_path, "sleep 600 & echo $!"))
    child = int(found.said[0])
    assert not ended(child, 1)
    os.kill(child, signal.SIGKILL)


def ended(process: int, looks: int = 200) -> bool:
    """Whether a process that is nobody's child here has ended."""
    for _ in range(looks):
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def test_of_a_hook_that_floods_only_the_end_is_kept(lab: Lab, tmp_path: Path) -> None:
    text = "i=0; while [ $i -lt 40000 ]; do echo line $i padding padding padding; i=$((i+1)); done; printf '\\033[31mend\\n'"
    found = lab.deploy("champion", tmp_path / "out", hooked(tmp_path, text))
    assert len(found.said) <= 12
    assert found.said[-1].endswith("[31mend")
    assert all(line.isprintable() or "\N{REPLACEMENT CHARACTER}" in line for line in found.said)
    assert "\x1b" not in "".join(found.said)


@pytest.mark.parametrize(
    ("mode", "text"), [(0o644, "#!/bin/sh\nexit 0\n"), (0o755, "no program at all\n"), (None, "")], ids=str
)
def test_what_is_no_program_is_refused(lab: Lab, tmp_path: Path, mode: int | None, text: str) -> None:
    hook = tmp_path / "hook"
    if mode is not None:
        hook.write_text(text)
        hook.chmod(mode)
    with refused("usage.hook"):
        lab.deploy("champion", tmp_path / "out", Wanted(Hook(hook)))
    assert not os.path.lexists(tmp_path / "out" / "current")


def test_a_hook_may_not_change_what_it_is_shown(lab: Lab, tmp_path: Path) -> None:
    with refused("deploy.changed"):
        lab.deploy("champion", tmp_path / "out", hooked(tmp_path, 'touch "$1/more"'))
    assert not os.path.lexists(tmp_path / "out" / "current")
    # The release is written anew, for nothing that is in force would be taken away.
    assert lab.deploy("champion", tmp_path / "out").outcome == "deployed"
    check_whole(tmp_path / "out")


def test_a_hook_has_no_shell_between(lab: Lab, tmp_path: Path) -> None:
    out = tmp_path / "out; touch x $(touch y)"
    found = lab.deploy("champion", out, hooked(tmp_path, 'echo "$1"'))
    assert found.said == (str(out / "releases" / found.release),)


# -- the folder --------------------------------------------------------------------------------------------------


def in_the_way(out: Path, elsewhere: Path, what: str) -> None:
    """Put something into a folder that was deployed to."""
    release = next((out / "releases").iterdir())
    if what == "a stray":
        (out / "notes.txt").write_text("mine")
    elif what == "a link for releases":
        (out / "releases").rename(elsewhere)
        (out / "releases").symlink_to(elsewhere)
    elif what == "a link for a release":
        release.rename(elsewhere)
        release.symlink_to(elsewhere)
    elif what == "a link for the lock":
        (out / ".studbook").rename(elsewhere)
        (out / ".studbook").symlink_to(elsewhere)
    elif what == "a link outside":
        (out / "current").unlink()
        (out / "current").symlink_to(elsewhere)
    elif what == "a link upwards":
        (out / "current").unlink()
        (out / "current").symlink_to("releases/../../elsewhere")
    elif what == "a folder for the link":
        (out / "current").unlink()
        (out / "current").mkdir()
    else:
        (out / "releases" / "mine").mkdir()


@pytest.mark.parametrize(
    "what",
    [
        "a stray",
        "a link for releases",
        "a link for a release",
        "a link for the lock",
        "a link outside",
        "a link upwards",
        "a folder for the link",
        "a stray release",
    ],
)
def test_a_folder_with_something_in_the_way_is_left_alone(lab: Lab, tmp_path: Path, what: str) -> None:
    lab.deploy("champion", tmp_path / "out")
    in_the_way(tmp_path / "out", tmp_path / "elsewhere", what)
    lab.rollback("champion", "something to deploy")
    before = tree(tmp_path)
    with refused("usage.folder"):
        lab.deploy("champion", tmp_path / "out")
    assert tree(tmp_path) == before


def test_a_place_that_is_no_folder_or_the_labs_own_is_refused(lab: Lab, place: Place, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(place.path / "release")
    for folder in (tmp_path / "file", place.path / "out", place.path.parent, tmp_path / "link" / "out"):
        with refused("usage.folder"):
            lab.deploy("champion", folder)
    assert problems(place) == []


def test_a_link_to_the_folder_itself_is_followed(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    lab.deploy("champion", tmp_path / "out")
    check_whole(tmp_path / "disk")


def test_every_channel_has_a_folder_of_its_own(lab: Lab, tmp_path: Path) -> None:
    lab.deploy("champion", tmp_path / "out")
    assert lab.desk.channels()["shadow"].artifact is not None
    with refused("usage.folder"):
        lab.deploy("shadow", tmp_path / "out")


def test_a_release_in_force_that_was_changed_is_named_and_not_repaired_underfoot(lab: Lab, tmp_path: Path) -> None:
    out = tmp_path / "out"
    lab.deploy("champion", out)
    model = next((out / "current").glob("*.slm"))
    rewrite(model, b"something else")
    with refused("deploy.changed"):
        lab.deploy("champion", out)
    (out / "current").unlink()
    assert lab.deploy("champion", out).outcome == "deployed"
    check_whole(out)


def test_a_lab_that_was_put_back_does_not_go_on_with_a_folder_it_does_not_know(
    released_lab: Place, lab: Lab, tmp_path: Path
) -> None:
    older = released_lab.copy(tmp_path / "older")
    lab.rollback("champion", "back")
    lab.deploy("champion", tmp_path / "out")
    with older.open() as before, refused("deploy.fork"):
        before.deploy("champion", tmp_path / "out")


def test_two_at_once_are_one_and_a_refusal(lab: Lab, tmp_path: Path) -> None:
    out = tmp_path / "out"
    lab.deploy("champion", out)
    lab.rollback("champion", "something to deploy")
    before = tree(out)
    lock = lock_folder(out / ".studbook", out / ".studbook" / "lock", exclusive=True)
    try:
        with pytest.raises(Busy, match="process"):
            lab.deploy("champion", out)
    finally:
        os.close(lock)
    assert tree(out) == before


def test_a_deployment_cut_short_at_any_step_leaves_a_whole_release_in_force(
    released_lab: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, out = released_lab.copy(tmp_path / "copy"), tmp_path / "out"
    with place.open() as lab:
        old = lab.deploy("champion", out).release
        lab.rollback("champion", "something to deploy")
    cuts = 0
    while True:
        left = cuts

        def step(_name: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed

        with place.open(writer=False) as lab, monkeypatch.context() as patched:
            patched.setattr(files, "boundary", step)
            try:
                found = lab.deploy("champion", out, Wanted(keep=1))
            except Killed:
                check_whole(out)
                held = (out / "current").readlink().name
                assert held == old or lab.desk.champion() == label(out)["model"]
                cuts += 1
                continue
        break
    assert cuts > 5
    assert found.artifact == label(out)["model"]
    check_whole(out)


# -- following ---------------------------------------------------------------------------------------------------


def test_following_tells_every_move_and_every_new_trouble_once(monkeypatch: pytest.MonkeyPatch) -> None:
    trouble = OutOfOrder("the hook said no", reason="deploy.hook")

    def told(release: str, outcome: str) -> Deployed:
        return Deployed("champion", "0" * 64, "child", "out", release, outcome, (), ())

    script: list[Any] = [told("a", "unchanged"), told("a", "unchanged"), trouble, trouble, told("b", "deployed")]
    looks, said = iter([*script, told("b", "unchanged"), trouble]), []

    def look() -> Deployed:
        found = next(looks, Killed())
        if isinstance(found, BaseException):
            raise found
        return found

    with pytest.raises(Killed):
        follow(look, 0, lambda found: said.append(found.release), lambda error: said.append(error.reason))
    assert said == ["a", "deploy.hook", "b", "deploy.hook"]


def test_a_follower_goes_after_every_move_and_ends_when_it_is_told(place: Place, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "studbook", "--json", "--lab", str(place.path), "--keys", str(place.keys)]
    command += ["deploy", "champion", str(out), "--follow", "0.2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for act in ("nothing", "back"):
            # Nobody is kept out between two looks.
            with place.open() as lab:
                if act == "back":
                    lab.rollback("champion", act)
                model = lab.desk.champion()
            told = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
            assert (told["artifact"], told["outcome"]) == (model, "deployed")
            assert label(out)["model"] == model
        process.send_signal(signal.SIGTERM)
        said, trouble = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, said, "Traceback" in trouble) == (0, "", False), trouble
    check_whole(out)
    assert not (out / ".studbook" / "work").exists() or not any((out / ".studbook" / "work").iterdir())
    assert problems(place) == []


def test_a_follower_that_is_told_to_end_takes_a_hanging_hook_with_it(place: Place, tmp_path: Path) -> None:
    out, child = tmp_path / "out", tmp_path / "child"
    hook = script(tmp_path, f"sleep 600 & echo $! > {child}.new; mv {child}.new {child}; wait")
    command = [sys.executable, "-m", "studbook", "--lab", str(place.path), "--keys", str(place.keys)]
    command += ["deploy", "champion", str(out), "--follow", "1", "--hook", str(hook)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while not child.exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, trouble = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, "Traceback" in trouble) == (0, False)
    assert ended(int(child.read_text()))
    assert not os.path.lexists(out / "current")


@pytest.mark.parametrize("words", [("--follow", "nan"), ("--follow", "0"), ("--hook-seconds", "5"), ("--keep", "0")])
def test_options_that_mean_nothing_are_refused(place: Place, tmp_path: Path, words: tuple[str, str]) -> None:
    found = run_cli(place, "deploy", "champion", str(tmp_path / "out"), *words)
    assert found.returncode == 2
    assert words[0] in found.stderr
    assert not (tmp_path / "out").exists()


def test_the_verb_says_what_it_did(place: Place, tmp_path: Path) -> None:
    hook = script(tmp_path, "echo looks well")
    first = run_cli(place, "deploy", "champion", str(tmp_path / "out"), "--hook", str(hook))
    assert first.returncode == 0, first.stderr
    assert "hook: looks well" in first.stdout
    assert "deployed: champion" in first.stdout
    again = run_cli(place, "deploy", "champion", str(tmp_path / "out"), "--hook", str(hook))
    assert "nothing new" in again.stdout
    wrong = run_cli(place, "deploy", "champion", str(tmp_path / "out"), "--hook", str(tmp_path))
    assert wrong.returncode == 2
    assert "what to do" in wrong.stderr
