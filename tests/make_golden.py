"""Make the lab that this version leaves to all later ones: small, lived in, and verified for ever after by the tests.

    python tests/make_golden.py [--folder tests/golden]

Writes ``<folder>/v<version>/``: ``lab`` without its cache, ``keys/root.sha256`` (the pin; private keys are thrown away),
``bundle``, the champion with packages as it was assembled, and ``SHA256SUMS`` over all of it. A folder that is there
already is never replaced: what an earlier version made stays.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE))

from bundle_fixtures import STACK, register_packages  # noqa: E402
from lab_fixtures import CLUSTER, PERSON, founder, prepare  # noqa: E402
from producer_fixtures import curve_key, digests, public_file  # noqa: E402
from studbook.errors import StudbookError  # noqa: E402
from studbook.exchange import sign_files  # noqa: E402
from studbook.lab import Lab  # noqa: E402
from studbook.lab.assembling import Wanted  # noqa: E402
from studbook.lab.founding import PIN  # noqa: E402
from studbook.lab.producers import Producer  # noqa: E402

SUMS = "SHA256SUMS"


def main(arguments: list[str] | None = None) -> int:
    """Make the golden lab of this version; returns the exit code."""
    parser = argparse.ArgumentParser(description="Make the golden lab of this version.")
    parser.add_argument("--folder", type=Path, default=HERE / "golden")
    options = parser.parse_args(arguments)
    target: Path = options.folder / f"v{version('studbook')}"
    if target.exists():
        print(f"{target} is there already; a golden lab is never made again", file=sys.stderr)
        return 1
    # The ledger names the machine; whose this was is nobody's business.
    platform.node = lambda: "golden"
    with tempfile.TemporaryDirectory() as folder:
        try:
            place = prepare(Path(folder) / "life")
            live(Lab(place.path, place.keys), Path(folder))
        except StudbookError as error:
            print(f"{error}\n{error.advice}", file=sys.stderr)
            return error.exit_code
        shutil.copytree(place.path, target / "lab", ignore=shutil.ignore_patterns("cache"))
        shutil.copytree(Path(folder) / "bundle", target / "bundle")
        (target / "keys").mkdir()
        shutil.copyfile(place.keys / PIN, target / "keys" / PIN)
    for path in target.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    (target / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sums(target).items()))
    print(f"wrote {target}: {sum(p.stat().st_size for p in target.rglob('*') if p.is_file())} bytes")
    return 0


def sums(folder: Path) -> dict[str, str]:
    """Path -> SHA-256 of every file of a golden lab, but the list itself; sorted by path."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != SUMS)
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def live(lab: Lab, folder: Path) -> None:
    """Everything that leaves a record: a signed source, a promotion with approvals, another policy and other keys, an
    honest no-op, a publication, a bundle, the way back, room made by ``gc``, and a withdrawal."""
    with lab:
        (folder / "brk.sig").write_bytes(sign_files("brk", digests(founder("brk")), curve_key()))
        signer = Producer(public_file(folder / "producer.pem", curve_key()), folder / "brk.sig")
        lab.register(founder("brk"), producer=signer)
        first = lab.round(CLUSTER)
        assert first.released is not None, first.record.no_op.reasons
        lab.approve(first.released, PERSON, ["champion"], reason="looked at its review")
        lab.release(first.released, "champion", PERSON, "won the first round")
        fields = lab.policies.show()
        (folder / "policy.json").write_text(json.dumps(fields | {"policy_version": 2, "notes": "The second policy."}))
        lab.policies.sign(folder / "policy.json", PERSON)
        lab.keys.rotate(PERSON, "process/candidate/candidate")
        assert lab.round(CLUSTER).record.action == "no-op"
        lab.ready()
        lab.policies.route("champion", PERSON)
        lab.publish(folder / "public")
        lab.review()
        lab.parents(CLUSTER, keep=True)
        register_packages(lab, folder / "packages")
        lab.assemble("champion", folder / "bundle", Wanted(STACK))
        lab.rollback("champion", "the way back is tested")
        cleared = lab.gc().candidates
        # One comes back, so that later versions hold its bytes against its records; the others stay gone.
        lab.reproduce(cleared[0], restore=True)
        lab.withdraw("brk", PERSON, "to show what a withdrawal leaves")


if __name__ == "__main__":
    sys.exit(main())
