"""No reader does more with broken bytes than refuse them by type: good files broken at random, and every finding kept.

The same readers are driven by coverage in `tools/fuzz.py`; what it finds lies in ``regressions/READER/`` as bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.harnesses import HARNESSES, Finding, Harness, check, mutable
from fuzz.trees import LONGEST, mutated
from studbook.errors import BytesLie

REGRESSIONS = Path(__file__).parent / "regressions"
KEPT = sorted(REGRESSIONS.glob("*/*"))
# Readers that open files, or build a whole recipe or policy, take milliseconds an input.
SLOW = {
    "slm",
    "engine-slm",
    "engine-section",
    "checkpoint-folder",
    "policy",
    "mergekit",
    "peft-folder",
    "trained-source",
    "publication",
    "publication-signed",
    "lm-eval-task",
    "suite-folder",
}
EXTREMES = (b"\0", b"\xff" * 4, b"\xff" * 8, b"\0" * 8, b"\1\0\0\0", b"\0\0\0\x80", b"\xc0\xff\xff\xff\xff\xff\xff\xff")


@st.composite
def broken(draw: st.DrawFn, name: str) -> bytes:
    """A good input after one to four changes; of JSON, often changes of its tree."""
    good, begin = draw(st.sampled_from(mutable(name))), HARNESSES[name].json
    if begin is not None and draw(st.booleans()):
        return mutated(good, begin, draw(st.randoms(use_true_random=False)))
    data = bytearray(good)
    pieces = st.sampled_from((*EXTREMES, *HARNESSES[name].words)) | st.binary(min_size=1, max_size=4)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        how = draw(st.sampled_from(("write", "insert", "cut", "repeat", "end")))
        if how == "write":
            piece = draw(pieces)
            data[at : at + len(piece)] = piece
        elif how == "insert":
            data[at:at] = draw(pieces)
        elif how == "cut":
            del data[at : at + draw(st.integers(1, 40))]
        elif how == "repeat":
            data[at:at] = data[at : at + draw(st.integers(1, 200))]
        else:
            del data[at:]
    return bytes(data)


@pytest.mark.parametrize("name", HARNESSES)
def test_a_broken_file_is_refused_by_type_and_costs_no_more_than_it_is_worth(name: str) -> None:
    mutable(name)  # what is compiled or imported on first use is not the input's cost

    @settings(
        deadline=None, max_examples=25 if name in SLOW else 100, database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip
    @given(broken(name))
    def run(data: bytes) -> None:
        check(name, data)

    run()


@pytest.mark.parametrize("path", KEPT, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_what_was_once_found_is_not_found_again(path: Path) -> None:
    mutable(path.parent.name)
    check(path.parent.name, path.read_bytes())


def test_every_kept_finding_belongs_to_a_reader() -> None:
    assert {path.parent.name for path in KEPT} <= HARNESSES.keys()


def _blow_up(data: bytes) -> None:
    bytes(512 * len(data) + (8 << 20))


def _refuse_without_reason(_data: bytes) -> None:
    raise BytesLie("", reason="none at all")


@pytest.mark.parametrize(
    ("read", "error"),
    [(_blow_up, Finding), (_refuse_without_reason, Finding), (lambda data: data[len(data)], IndexError)],
    ids=["memory", "an error without its parts", "an error of another type"],
)
def test_the_check_sees_what_it_looks_for(
    read: object, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(HARNESSES, "bad", Harness(lambda: [b"x"], read))  # type: ignore[arg-type]
    with pytest.raises(error):
        check("bad", b"x")


def test_changes_of_a_tree_stay_small_however_lists_repeat_within_each_other() -> None:
    nested = json.dumps([[[["x" * 4000]]]]).encode()
    longest = max(len(mutated(nested, 0, Random(seed))) for seed in range(3000))
    # One change repeats a list at most 20 times; three of them in a row would be 8,000 times as long.
    assert 4 * LONGEST < longest < 40 * LONGEST
