"""What may become a bundle, what is recorded of it, and when it counts no longer."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundle_fixtures import STACK, package_folder, packages
from lab_fixtures import BLEND, CLUSTER, PARENTS, PERSON, PRUNE, Place, founder, problems, run_cli
from studbook import files
from studbook.assembly import rules
from studbook.errors import (
    NotAuthorised,
    OutOfOrder,
    OutsideAllowlist,
    OverBudget,
    ParentsDoNotFit,
    StudbookError,
    UsageError,
)
from studbook.lab import Lab, assembling, bundle_evidence, evaluators
from studbook.lab.assembling import Wanted
from studbook.lab.bundles import Bundles
from studbook.records import (
    BundleRelease,
    ModulePlan,
    ParentPool,
    PopulationReview,
    Revocation,
    RevokedSubject,
    RuntimeSmoke,
)


@pytest.fixture
def place(released_lab: Place, tmp_path: Path) -> Place:
    """A copy of a lab whose champion may be assembled."""
    return released_lab.copy(tmp_path / "copy")


@pytest.fixture
def ready(place: Place) -> Iterator[Lab]:
    """The same, opened."""
    with place.open() as lab:
        yield lab


def refusal(lab: Lab, folder: Path, adapters: tuple[str, ...] = (), channel: str = "champion") -> StudbookError:
    """Why a channel is not assembled; nothing is written then."""
    entries = len(lab.desk.entries())
    with pytest.raises(StudbookError) as caught:
        lab.assemble(channel, folder, Wanted(adapters))
    assert len(lab.desk.entries()) == entries
    assert not folder.exists() or not any(folder.iterdir())
    assert caught.value.advice
    return caught.value


def revoke(lab: Lab, kind: str, digest: str) -> None:
    subject = RevokedSubject(type=kind, digest=digest)  # type: ignore[arg-type]
    record = Revocation(header=lab.desk.header, subject=subject, reason="found wanting", since=len(lab.desk.entries()))
    lab.desk.workspace.commit(record, owner=PERSON)


def newest(lab: Lab, kind: type) -> str:
    return list(lab.desk.all(kind))[-1][0]


def test_a_bundle_is_recorded_whole_and_the_lab_verifies(place: Place, tmp_path: Path) -> None:
    with place.open() as lab:
        found = lab.assemble("champion", tmp_path / "bundle", Wanted(STACK))
        release = list(lab.desk.all(BundleRelease))[-1]
        assert release[0] == found.release
        assert (release[1].plan, release[1].artifact) == (found.plan, lab.desk.champion())
        plan = lab.desk.workspace.get(found.plan, ModulePlan)
        assert {m.sha256 for m in plan.modules if m.family == "evidence"} <= {e.record for e in lab.desk.entries()}
        assert found.visible == "local"
    assert Bundles.verify(tmp_path / "bundle", place.path).ok
    assert problems(place) == []


def test_without_packages_it_is_a_bundle_too(ready: Lab, tmp_path: Path) -> None:
    ready.assemble("champion", tmp_path / "bundle")
    found = Bundles.verify(tmp_path / "bundle")
    assert found.ok, found.refusal
    assert not (tmp_path / "bundle" / "adapters").exists()


def test_the_winner_in_shadow_is_assembled_from_its_admission(prepared_lab: Place, tmp_path: Path) -> None:
    place = prepared_lab.copy(tmp_path / "copy")
    with place.open() as lab:
        winner = lab.round(CLUSTER).released
        assert winner is not None
        assert refusal(lab, tmp_path / "bundle", channel="shadow").reason == "assembly.offline"
        lab.policies.route("shadow", PERSON)
        assert refusal(lab, tmp_path / "bundle", channel="shadow").reason == "assembly.review"
        lab.review()
        assert refusal(lab, tmp_path / "bundle", channel="shadow").reason == "assembly.recipe"
        lab.parents(CLUSTER, keep=True)
        # The first champion was installed, not bred: nothing admitted it.
        assert refusal(lab, tmp_path / "bundle").reason == "assembly.admitted"
        lab.assemble("shadow", tmp_path / "bundle")
    found = Bundles.verify(tmp_path / "bundle")
    assert found.ok, found.refusal
    assert problems(place) == []


def test_the_same_channel_is_assembled_twice_with_two_plans_that_both_count(ready: Lab, tmp_path: Path) -> None:
    first = ready.assemble("champion", tmp_path / "first")
    second = ready.assemble("champion", tmp_path / "second", Wanted(STACK[:1]))
    assert first.plan != second.plan
    lab = ready.desk.workspace.path
    ready.close()
    assert Bundles.verify(tmp_path / "first", lab).ok
    assert Bundles.verify(tmp_path / "second", lab).ok


def test_an_empty_channel_is_no_bundle(ready: Lab, tmp_path: Path) -> None:
    ready.rollback("shadow", "to empty it")
    found = refusal(ready, tmp_path / "bundle", channel="shadow")
    assert (type(found), found.reason) == (OutOfOrder, "assembly.empty")


def test_a_revoked_champion_is_refused_and_its_bundle_counts_no_longer(ready: Lab, tmp_path: Path) -> None:
    ready.assemble("champion", tmp_path / "bundle")
    revoke(ready, "artifact", ready.desk.champion())
    assert refusal(ready, tmp_path / "again").reason == "order.revoked"
    lab = ready.desk.workspace.path
    ready.close()
    found = Bundles.verify(tmp_path / "bundle", lab).refusal
    assert found is not None and found.reason == "lab.revoked"
    assert Bundles.verify(tmp_path / "bundle").ok


def test_a_package_that_was_withdrawn_goes_into_no_bundle_and_out_of_those_there_are(
    ready: Lab, tmp_path: Path
) -> None:
    ready.assemble("champion", tmp_path / "bundle", Wanted(STACK))
    ready.withdraw(STACK[1], PERSON, "somebody else's")
    assert refusal(ready, tmp_path / "again", STACK).reason == "order.revoked"
    place = Place(ready.desk.workspace.path, ready.desk.workspace.keys.folder)
    ready.close()
    told = Bundles.verify(tmp_path / "bundle", place.path).refusal
    assert told is not None and (told.reason, STACK[1] in told.detail) == ("lab.revoked", True)
    # Its bytes are gone by leave, so the release is explained and no problem.
    assert problems(place) == []


def test_nothing_that_a_bundle_needs_is_cleared(ready: Lab, tmp_path: Path) -> None:
    ready.assemble("champion", tmp_path / "bundle", Wanted(STACK))
    ready.gc()
    assert ready.verify().ok
    assert Bundles.verify(tmp_path / "bundle").ok
    ready.assemble("champion", tmp_path / "again", Wanted(STACK))


def test_a_copy_of_the_lab_stands_by_its_bundles(place: Place, tmp_path: Path) -> None:
    with place.open() as lab:
        lab.assemble("champion", tmp_path / "bundle", Wanted(STACK))
        lab.backup(tmp_path / "backup")
    assert Bundles.verify(tmp_path / "bundle", tmp_path / "backup").ok


def test_a_bundle_release_that_was_revoked_counts_no_longer(ready: Lab, tmp_path: Path) -> None:
    found = ready.assemble("champion", tmp_path / "bundle")
    revoke(ready, "record", found.release)
    lab = ready.desk.workspace.path
    ready.close()
    told = Bundles.verify(tmp_path / "bundle", lab).refusal
    assert told is not None and told.reason == "lab.release"


def test_another_lab_does_not_stand_by_a_bundle(good_bundle: Path, prepared_lab: Place) -> None:
    told = Bundles.verify(good_bundle, prepared_lab.path).refusal
    assert told is not None and (told.step, told.reason) == ("lab", "lab.release")


def test_a_bundle_whose_candidate_cannot_be_made_again_is_refused(ready: Lab, tmp_path: Path) -> None:
    ready.assemble("champion", tmp_path / "bundle")
    desk = ready.desk
    parent = desk.workspace.blob_path(desk.find_model(PARENTS[0]))
    ready.close()
    parent.chmod(0o644)
    parent.write_bytes(parent.read_bytes()[:-4] + b"\0\0\0\0")
    told = Bundles.verify(tmp_path / "bundle", desk.workspace.path).refusal
    assert told is not None and told.reason == "lab.candidate"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(PopulationReview, "assembly.review"), (ParentPool, "assembly.recipe"), (RuntimeSmoke, "order.smoke")],
)
def test_a_record_that_was_revoked_is_missed(ready: Lab, tmp_path: Path, kind: type, reason: str) -> None:
    champion = ready.desk.champion()
    for digest, record in list(ready.desk.all(kind)):
        if kind is not RuntimeSmoke or record.artifact == champion:
            revoke(ready, "record", digest)
    assert refusal(ready, tmp_path / "bundle").reason == reason


def test_a_model_that_another_evaluator_smoked_is_refused(
    ready: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_evidence, "in_force", lambda _: "e" * 64)
    assert refusal(ready, tmp_path / "bundle").reason == "order.smoke"
    monkeypatch.setattr(evaluators, "evaluator_sha256", lambda: "e" * 64)
    assert refusal(ready, tmp_path / "bundle").reason == "evaluator.unadmitted"


def test_a_model_over_the_budget_of_pages_is_refused(
    ready: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "MODEL_BUDGET", 1000)
    found = refusal(ready, tmp_path / "bundle")
    assert (type(found), found.reason) == (OverBudget, "assembly.model-budget")


def test_packages_over_the_budget_are_refused(ready: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "ADAPTER_BUDGET", 50_000)
    found = refusal(ready, tmp_path / "bundle", STACK)
    assert (type(found), found.reason) == (OverBudget, "assembly.adapter-budget")
    monkeypatch.setattr(rules, "MAX_ADAPTERS", 1)
    assert refusal(ready, tmp_path / "bundle", STACK[1:]).reason == "assembly.adapter-budget"


def test_a_package_of_another_base_an_unapproved_or_unknown_one_is_refused(ready: Lab, tmp_path: Path) -> None:
    other = ready.desk.model(ready.desk.find_model("base"))
    data = packages(other)["factors"]
    ready.register(package_folder(tmp_path / "other", "other", other, data))
    ready.approve("other", PERSON)
    found = refusal(ready, tmp_path / "bundle", ("other",))
    assert (type(found), found.reason) == (ParentsDoNotFit, "assembly.adapter-base")
    champion = ready.desk.model(ready.desk.champion())
    name = "unsigned"
    ready.register(package_folder(tmp_path / name, name, champion, _again(champion)))
    assert type(refusal(ready, tmp_path / "bundle", (name,))) is OutOfOrder
    assert type(refusal(ready, tmp_path / "bundle", ("base",))) is UsageError
    assert type(refusal(ready, tmp_path / "bundle", ("nobody",))) is UsageError


def _again(champion: object) -> bytes:
    """A package of the same base that is none of the three."""
    from studbook.adapters.make import random_delta
    from studbook.models.slm import read_slm

    return random_delta(champion, read_slm(founder("base") / "base.slm"), licence="CC0-1.0", keep=0.01, seed=3)  # type: ignore[arg-type]


def made(lab: Lab, folder: Path, tuned: str) -> str:
    """A registered, approved package of what somebody made of the champion; its name."""
    (manifest,) = lab.register(lab.adapters.make("champion", tuned, folder).folder / "source.manifest")
    lab.approve(manifest.name, PERSON)
    return manifest.name


def test_a_package_of_what_may_not_be_offered_itself_is_refused(ready: Lab, tmp_path: Path) -> None:
    pruned, blended = ready.breed(CLUSTER, PRUNE), ready.breed(CLUSTER, {**BLEND, "weights": [0.75, 0.25]})
    offline = made(ready, tmp_path / "pruned", pruned)
    found = refusal(ready, tmp_path / "bundle", (offline,))
    assert (type(found), found.reason) == (OutsideAllowlist, "assembly.offline")
    # Its operator is routed, but no round ever chose it.
    unadmitted = made(ready, tmp_path / "blended", blended)
    found = refusal(ready, tmp_path / "bundle", (unadmitted,))
    assert (type(found), found.reason) == (OutOfOrder, "assembly.admitted")


def test_a_release_with_such_a_package_is_found_by_the_lab(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with place.open() as lab:
        offline = made(lab, tmp_path / "pruned", lab.breed(CLUSTER, PRUNE))
        # Whoever holds the key can assemble with a program of their own.
        with monkeypatch.context() as lax:
            lax.setattr(assembling, "require_offered", lambda *_: None)
            lab.assemble("champion", tmp_path / "bundle", Wanted((offline,)))
        (found,) = lab.verify().problems
    assert "which is offline" in str(found)


def test_a_package_of_a_model_that_was_withdrawn_is_refused(ready: Lab, tmp_path: Path) -> None:
    ready.register(founder("rev-srt"))
    tuned = made(ready, tmp_path / "tuned", "rev-srt")
    ready.assemble("champion", tmp_path / "before", Wanted((tuned,)))
    ready.withdraw("rev-srt", PERSON, "somebody else's")
    found = refusal(ready, tmp_path / "after", (tuned,))
    assert (type(found), found.reason) == (OutOfOrder, "order.revoked")


def test_a_package_twice_is_refused(ready: Lab, tmp_path: Path) -> None:
    assert refusal(ready, tmp_path / "bundle", (STACK[0], STACK[0])).reason == "usage.twice"


def test_a_folder_that_is_not_empty_is_left_alone(ready: Lab, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "mine").write_text("mine")
    with pytest.raises(UsageError):
        ready.assemble("champion", tmp_path / "bundle")
    assert [p.name for p in (tmp_path / "bundle").iterdir()] == ["mine"]


def test_the_order_of_the_stack_is_the_order_of_the_words(ready: Lab, tmp_path: Path) -> None:
    forth = ready.assemble("champion", tmp_path / "forth", Wanted(STACK))
    back = ready.assemble("champion", tmp_path / "back", Wanted(STACK[::-1]))
    plans = [ready.desk.workspace.get(found.plan, ModulePlan) for found in (forth, back)]
    assert plans[0].stack == plans[1].stack[::-1]
    assert Bundles.verify(tmp_path / "back").ok


def test_nothing_is_recorded_without_the_key_for_it(ready: Lab, tmp_path: Path) -> None:
    (ready.desk.workspace.keys.folder / "process" / "release" / "bundle.pem").unlink()
    assert type(refusal(ready, tmp_path / "bundle")) is NotAuthorised


def test_the_verbs_say_what_was_written_and_what_was_verified(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    made = run_cli(
        place, "--json", "assemble", "champion", "-o", str(folder), *(w for n in STACK for w in ("--adapter", n))
    )
    assert made.returncode == 0, made.stderr
    told = json.loads(made.stdout)
    seen = run_cli(place, "bundle", "verify", str(folder), "--lab", str(place.path))
    assert seen.returncode == 0, seen.stderr
    assert told["plan"] in seen.stdout and "ready" in seen.stdout
    with (folder / "registry.json").open("ab") as file:
        file.write(b" ")
    wrong = run_cli(place, "--json", "bundle", "verify", str(folder))
    assert wrong.returncode == 22 and "Traceback" not in wrong.stderr
    assert json.loads(wrong.stdout)["refusal"]["reason"] == "fetch.bytes"


def test_a_bundle_that_cannot_be_written_is_not_recorded_and_leaves_nothing(
    ready: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(step: str) -> None:
        if step == "create worker.js":
            raise OSError(errno.ENOSPC, "No space left on device")

    entries = len(ready.desk.entries())
    monkeypatch.setattr(files, "boundary", full)
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "new", tmp_path / "empty"):
        with pytest.raises(OSError, match="No space"):
            ready.assemble("champion", folder, Wanted(single=tmp_path / "one.html"))
    assert len(ready.desk.entries()) == entries
    assert [p.name for p in tmp_path.iterdir() if p.name in ("new", "empty", "one.html.partial")] == ["empty"]
    monkeypatch.undo()
    ready.assemble("champion", tmp_path / "new")
    assert Bundles.verify(tmp_path / "new").ok


def test_a_folder_that_was_cut_short_is_no_bundle(ready: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException): ...

    def cut(step: str) -> None:
        if step == "create bundle.js":
            raise Killed

    monkeypatch.setattr(files, "boundary", cut)
    with pytest.raises(Killed):
        ready.assemble("champion", tmp_path / "bundle")
    monkeypatch.undo()
    refused = Bundles.verify(tmp_path / "bundle").refusal
    assert refused is not None
    assert refused.reason == "plan.digest-missing"


def test_the_one_page_lies_neither_in_the_bundle_nor_in_the_lab(ready: Lab, tmp_path: Path) -> None:
    lab, bundle = ready.desk.workspace.path, tmp_path / "bundle"
    entries = len(ready.desk.entries())
    for single in (bundle / "one.html", bundle, lab / "one.html", tmp_path / "gone" / "one.html"):
        with pytest.raises(UsageError) as caught:
            ready.assemble("champion", bundle, Wanted(single=single))
        assert caught.value.reason == "usage.folder"
    assert not bundle.exists()
    assert len(ready.desk.entries()) == entries
