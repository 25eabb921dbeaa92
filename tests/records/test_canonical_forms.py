"""The short way to write a record gives the bytes of RFC 8785, or is not taken."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from studbook.errors import RecordRefused
from studbook.records import canonical

TEXT = st.text(alphabet=st.characters(codec="utf-8"), max_size=20) | st.sampled_from(
    ["", "1.5", "null", '"', "\\", "\x7f", "\x00", "/", "123456789012345678", "é", "\U0001f600"]
)
NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


class Box(msgspec.Struct, frozen=True):
    zeta: Any
    alpha: Any = 0


@given(VALUES, VALUES)
def test_a_struct_is_written_as_rfc_8785_says(zeta: Any, alpha: Any) -> None:
    assert canonical(Box(zeta, alpha)) == rfc8785.dumps({"alpha": alpha, "zeta": zeta})


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, 2**53, -(2**53), 2**70, "\ud800", {"\udfff": 1}], ids=repr
)
def test_what_json_cannot_say_is_refused_wherever_it_stands(value: Any) -> None:
    for box in (Box(value), Box([{"deep": [value]}]), Box("é", value), Box(1.5, value)):
        with pytest.raises(RecordRefused) as caught:
            canonical(box)
        assert caught.value.reason == "record.value"
