from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from assembly.drafts import sha
from assembly.drifts import EVIL
from studbook.errors import UsageError
from studbook.lab.bundles import Bundles

PLAN = 'export const PLAN = {{sha256: "{}", size: {}}};\n'


@pytest.fixture
def bundle(good_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good_bundle, tmp_path / "bundle"))


def planned(folder: Path, data: bytes) -> None:
    """Let the page trust other bytes as its plan."""
    (folder / "plan.json").write_bytes(data)
    (folder / "bundle.js").write_text(PLAN.format(sha(data), len(data)))


def test_what_is_no_folder_is_a_usage_error(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "gone", tmp_path / "file"):
        with pytest.raises(UsageError):
            Bundles.verify(path)


def test_an_empty_folder_has_no_plan(tmp_path, refused):
    assert refused(tmp_path).reason == "plan.digest-missing"


@pytest.mark.parametrize("name", ["registry.json", "models", "index.html"])
def test_a_link_is_never_followed(bundle, refused, tmp_path, name):
    target = tmp_path / "elsewhere"
    (bundle / name).rename(target)
    (bundle / name).symlink_to(target)
    assert refused(bundle).reason == "folder.type"


def test_a_fifo_in_place_of_a_model_keeps_nobody_waiting(bundle, refused):
    model = next((bundle / "models").iterdir())
    model.unlink()
    os.mkfifo(model)
    assert refused(bundle).reason == "folder.type"


def test_a_link_swapped_in_after_the_first_look_is_not_followed_either(bundle, tmp_path):
    from studbook.assembly.folder import Folder
    from studbook.errors import BytesLie

    (bundle / "plan.json").rename(tmp_path / "plan")
    (bundle / "plan.json").symlink_to(tmp_path / "plan")
    with pytest.raises(BytesLie, match="link") as caught:
        Folder(bundle).read("plan.json", 1 << 20)
    assert caught.value.reason == "file.type"


def test_a_file_that_nobody_planned_is_named(bundle, refused):
    (bundle / "models" / "extra.slm").write_bytes(b"x")
    found = refused(bundle)
    assert (found.reason, "models/extra.slm" in found.detail) == ("folder.stray", True)


def test_a_file_of_the_page_that_is_another_is_named(bundle, refused):
    with (bundle / "index.html").open("ab") as page:
        page.write(b"<script>alert(1)</script>")
    found = refused(bundle)
    assert (found.reason, "index.html" in found.detail) == ("folder.page", True)


def test_more_files_than_any_bundle_has_are_not_walked_through(bundle, refused):
    for number in range(5000):
        (bundle / f"{number}").touch()
    assert refused(bundle).reason == "folder.stray"


def test_a_huge_file_is_read_no_further_than_planned(bundle, refused):
    model = next((bundle / "models").iterdir())
    os.truncate(model, 1 << 40)
    assert refused(bundle).reason == "fetch.bytes"
    os.truncate(bundle / "plan.json", 1 << 40)
    assert refused(bundle).reason == "plan.size"


@pytest.mark.parametrize("name", ["empty", ".git", "models/deeper"])
def test_a_folder_that_nobody_planned_is_named(bundle, refused, name):
    (bundle / name).mkdir()
    found = refused(bundle)
    assert (found.reason, name in found.detail) == ("folder.stray", True)


def test_folders_in_folders_without_end_are_not_walked_through(bundle, refused):
    root = os.open(bundle, os.O_RDONLY)
    below = root
    for _ in range(40):
        os.mkdir("d" * 200, dir_fd=below)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=below)
    assert refused(bundle).reason == "folder.stray"


@pytest.mark.parametrize(
    ("name", "reason"),
    [("plan.json", "fetch.missing"), ("registry.json", "fetch.missing"), ("index.html", "folder.page")],
)
def test_a_folder_in_place_of_a_file_is_no_such_file(bundle, refused, name, reason):
    (bundle / name).unlink()
    (bundle / name).mkdir()
    assert refused(bundle).reason == reason


def test_a_file_in_place_of_a_folder_holds_none(bundle, refused):
    shutil.rmtree(bundle / "models")
    (bundle / "models").write_bytes(b"x")
    assert refused(bundle).reason == "fetch.missing"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'{"kind":"module-plan/1","kind":"module-plan/1"}',
        b'{"kind":"module-plan/1","modules":1e400}',
        b"\xef\xbb\xbf{}",
        b'{"kind":"module-plan/1","route":"\\ud800"}',
    ],
    ids=["empty", "no-utf8", "null", "deep-lists", "deep-objects", "twice", "infinite", "mark", "half"],
)
def test_a_plan_that_is_a_bomb_is_refused_by_its_form(bundle, refused, data):
    if not data:
        planned(bundle, b" ")
    else:
        planned(bundle, data)
    found = refused(bundle)
    assert (found.step, found.reason) == ("plan", "plan.form")


@pytest.mark.parametrize(
    "name", ["../secret.js", "/etc/passwd", "bundle.js", "plan.json", "a/b.js", "", "x\\y.js", "A.js"]
)
def test_a_page_has_plain_names(bundle, refused, name):
    plan = json.loads((bundle / "plan.json").read_bytes())
    plan["page"]["files"] = [{"path": name, "sha256": EVIL, "size": 1}]
    planned(bundle, json.dumps(plan, sort_keys=True, separators=(",", ":")).encode())
    assert refused(bundle).reason == "plan.page"
