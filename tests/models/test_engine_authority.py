"""The engine as the authority on files: its verdicts and the Python readers' are one, case by case and on broken bytes."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import re
import struct
import sys
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_fixtures import PAGE, Door
from studbook.adapters.changes import Change, Dense, LowRank, Sparse
from studbook.adapters.fit import check_against
from studbook.adapters.meta import retention_text
from studbook.adapters.reader import parse_adapter
from studbook.adapters.rules import AdapterRule
from studbook.adapters.stack import Stack
from studbook.adapters.writer import write_adapter
from studbook.errors import StudbookError, TokenizerRefused
from studbook.models.bpe import BpeTokenizer
from studbook.models.checksum import checksum64, fnv1a64
from studbook.models.engine import Engine
from studbook.models.rules import SlmRule
from studbook.models.shape import SlmShape
from studbook.models.slm import parse_slm, write_slm
from studbook.models.tokenizers import ByteTokenizer, TokenizerRule
from studbook.records import canonical

ROOT = Path(__file__).resolve().parents[2]
ADAPTERS: dict[str, Any] = json.loads((ROOT / "tests" / "adapters" / "cases.json").read_text(encoding="utf-8"))
CONTAINERS: dict[str, Any] = json.loads((ROOT / "tests" / "models" / "slm_cases.json").read_text(encoding="utf-8"))
BASES = {name: base64.b64decode(data, validate=True) for name, data in CONTAINERS["bases"].items()}
PACKAGES = {name: base64.b64decode(data, validate=True) for name, data in ADAPTERS["packages"].items()}
GOOD = sorted({name for case in ADAPTERS["cases"] if "fused" in case for name in case["packages"]})
adapter_cases = pytest.mark.parametrize("case", ADAPTERS["cases"], ids=lambda case: case["id"])
Verdict = Callable[[bytes], str]


@cache
def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where its dataclasses look for their types
    spec.loader.exec_module(module)
    return module


@cache
def built() -> dict[str, bytes]:
    build = tool("adapter_cases").build_model
    return {name: build(recipe) for name, recipe in ADAPTERS["models"].items()}


@pytest.fixture(scope="module")
def models() -> dict[str, bytes]:
    return built()


@pytest.fixture(scope="module")
def door() -> Door:
    """An instance for checks that install nothing."""
    return Door()


@pytest.fixture(scope="module")
def loaded() -> Door:
    """An instance with a model that stays as it is."""
    return opened(built()["f32"])


def python(read: Callable[[bytes], object], data: bytes) -> str:
    """Reason of a Python reader, as the engine gives it: empty if it has nothing against the bytes."""
    try:
        read(data)
    except StudbookError as refused:
        return str(refused.reason)
    return ""


def opened(model: bytes) -> Door:
    found = Door()
    assert found.load(model) == ""
    return found


# -- the shared tables ------------------------------------------------------------------------------------------------


def container(case: dict[str, Any]) -> bytes:
    """The file of a case, as any host puts it together."""
    out = []
    for piece in case["pieces"]:
        if isinstance(piece, str):
            out.append(base64.b64decode(piece, validate=True))
        elif isinstance(piece[0], str):
            out.append(base64.b64decode(piece[0], validate=True) * piece[1])
        else:
            out.append(BASES[case["base"]][piece[0] : piece[1]])
    return b"".join(out)


def test_the_table_of_containers_is_what_its_tool_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = tool("slm_cases").main
    assert main(["--check"]) == 0, capsys.readouterr().out
    (tmp_path / "slm_cases.json").write_text("{}", encoding="utf-8")
    assert main(["--check", "--folder", str(tmp_path)]) == 1


def test_every_rule_of_containers_and_sections_is_broken_by_itself_and_beside_another() -> None:
    cases = CONTAINERS["cases"]
    assert len({case["id"] for case in cases}) == len(cases)
    alone = {case["refused"] for case in cases if "refused" in case and "+" not in case["id"]}
    beside = {case["refused"] for case in cases if "refused" in case and "+" in case["id"]}
    on_use = {TokenizerRule.TEXT, TokenizerRule.ID, TokenizerRule.LIMIT, TokenizerRule.UTF8}
    assert alone == (set(SlmRule) - {SlmRule.ODD_ROW}) | (set(TokenizerRule) - on_use)
    # Their files are long, and stand in the table once.
    assert alone - beside == {SlmRule.SIZE, TokenizerRule.MERGE_LONG}


def test_engine_and_python_come_to_the_stated_verdict_on_every_container(door: Door) -> None:
    stated = {case["id"]: case.get("refused", "") for case in CONTAINERS["cases"]}
    data = {case["id"]: container(case) for case in CONTAINERS["cases"]}
    assert {name: door.check_model(file) for name, file in data.items()} == stated
    assert {name: python(parse_slm, file) for name, file in data.items()} == stated


@pytest.mark.parametrize("case", [c for c in CONTAINERS["cases"] if "read" in c], ids=lambda case: case["id"])
def test_what_is_read_has_the_stated_identities_in_both(case: dict[str, Any]) -> None:
    data, stated = container(case), case["read"]
    found = parse_slm(data)
    assert (found.sha256, found.tokenizer_sha256) == (stated["sha256"], stated["tokenizer_sha256"])
    assert (found.layout_sha256, found.shape.parameter_count) == (stated["layout_sha256"], stated["parameter_count"])
    instance = opened(data)
    info = instance.call("model_info") & 0xFFFFFFFF
    vocab, hidden, layers, heads, shared, head_dim, ffn, context, theta, epsilon, tied, count, parameters = (
        struct.unpack("<8I2f2IQ", instance.read(info, 56))
    )
    shape = found.shape
    assert (vocab, hidden, layers, heads) == (shape.vocab_size, shape.hidden_size, shape.layer_count, shape.head_count)
    assert (shared, head_dim, ffn, context) == (shape.kv_head_count, shape.head_dim, shape.ffn_size, shape.max_context)
    assert (theta, epsilon, tied) == (shape.rope_theta, shape.rms_norm_epsilon, shape.tied)
    assert (count, parameters) == (shape.tensor_count, shape.parameter_count)
    digests = instance.read(info + 72, 96).hex()
    assert digests == stated["sha256"] + stated["tokenizer_sha256"] + stated["layout_sha256"]


@adapter_cases
def test_the_engine_does_with_every_case_of_adapters_what_the_table_says(
    case: dict[str, Any], models: dict[str, bytes]
) -> None:
    instance = opened(models[case["model"]])
    base = ADAPTERS["models"][case["model"]]["sha256"]
    if base in case["accepted"]:
        instance.accept(case["accepted"][base])
    session = instance.call("session_open", 8)
    bare, before = instance.feed([256, 97], session), instance.standing()
    reason = instance.apply([PACKAGES[name] for name in case["packages"]])
    if "refused" in case:
        assert (reason, instance.place()) == (case["refused"]["rule"], case["refused"]["package"])
        # What was fed stays fed: the third token comes after the two before the refusal.
        assert instance.standing() == before
        assert instance.call("session_length", session) == 2
        instance.call("session_reset", session)
        assert instance.feed([256, 97], session) == bare
        return
    found = instance.standing()
    assert reason == ""
    assert found.fused == {fnv1a64(name): digest for name, digest in case["fused"].items()}
    assert found.applied == [hashlib.sha256(PACKAGES[name]).hexdigest() for name in case["packages"]]
    assert (found.state, found.generation) == (case["state_sha256"], before.generation + 1)
    assert instance.call("session_length", session) == 0
    instance.detach()
    assert instance.standing() == before._replace(generation=before.generation + 2)
    assert instance.feed([256, 97], session) == bare


@pytest.mark.parametrize("case", [c for c in ADAPTERS["cases"] if "refused" in c], ids=lambda case: case["id"])
def test_a_package_alone_is_refused_only_for_what_the_file_alone_shows(case: dict[str, Any], door: Door) -> None:
    name, stage = case["packages"][case["refused"]["package"]], case["refused"]["stage"]
    assert door.check_adapter(PACKAGES[name]) == (case["refused"]["rule"] if stage == "read" else "")


def test_a_package_that_is_put_on_changes_what_the_model_says_and_order_matters(models: dict[str, bytes]) -> None:
    said = []
    for names in (["dense"], ["dense", "low-rank-3"], ["low-rank-3", "dense"], []):
        instance = opened(models["f32"])
        assert instance.apply([PACKAGES[name] for name in names]) == ""
        said.append(instance.feed([256, 97, 98], instance.call("session_open", 8)))
    assert len(set(said)) == 4


STORED = ("f32", "q8_0", "q4_0")


@settings(deadline=None, max_examples=30)
@given(
    storage=st.sampled_from(STORED), hidden=st.sampled_from((6, 24, 34)), seed=st.integers(0, 2**32 - 1),
    rank=st.integers(1, 6), alpha=st.floats(-1e3, 1e3, width=32), twice=st.booleans(),
)  # fmt: skip
def test_tensors_of_any_width_are_fused_to_the_bits_of_python(
    storage: str, hidden: int, seed: int, rank: int, alpha: float, twice: bool
) -> None:
    shape = SlmShape(260, hidden, 1, 1, 1, hidden, 46, 8, 10000.0, 1e-5, False)
    random = np.random.default_rng(seed)

    def drawn(*dims: int) -> Any:
        return (random.standard_normal(dims) * 10.0 ** random.integers(-9, 9, dims)).astype(np.float32)

    dims = {spec.name: spec.dims for spec in shape.tensors()}
    model = write_slm(shape, ByteTokenizer(), {name: drawn(*d) for name, d in dims.items()}, storage)
    some = np.sort(random.choice(46 * hidden, 40, replace=False)).astype(np.uint32)
    w1, wq, output, norm = "layers.0.w1.weight", "layers.0.wq.weight", "output.weight", "norm.weight"
    changes: list[tuple[dict[str, Change], str]] = [
        ({wq: Dense(drawn(hidden, hidden)), norm: Dense(drawn(hidden))}, ""),
        ({w1: Sparse((46, hidden), some, drawn(40)), norm: Sparse((hidden,), some[:1] % 1, drawn(1))}, "by-hand"),
        (
            {
                name: LowRank(drawn(rank, d[1]), drawn(d[0], rank), alpha)
                for name, d in dims.items()
                if name in (w1, output)
            },
            "",
        ),
    ]
    base = "b" * 64
    packages = [
        write_adapter(
            shape, ByteTokenizer().sha256, change, base_sha256=base, licence="CC0-1.0", kind="trained",
            digests={"data_sha256": base}, rule=rule, seed=None,
        )
        for change, rule in changes
    ] * (2 if twice else 1)  # fmt: skip
    slm = parse_slm(model)
    wanted = Stack(slm, {slm.sha256: base}).apply(*(parse_adapter(package) for package in packages))
    instance = opened(model)
    instance.accept(base)
    assert instance.apply(packages) == ""
    found = instance.standing()
    assert found.fused == {fnv1a64(name): digest for name, digest in wanted.fused.items()}
    assert (found.state, found.generation) == (wanted.state_sha256, wanted.generation)


def test_the_engine_knows_the_rules_of_the_readers_and_no_others() -> None:
    source = (files("studbook.models.engine") / "source" / "reasons.h").read_text(encoding="utf-8")
    stated = set(re.findall(r'"((?:slm|tokenizer|adapter)\.[a-z0-9_.-]+)"', source))
    assert stated == {*SlmRule, *TokenizerRule, *AdapterRule} - {SlmRule.ODD_ROW}


# -- broken bytes -----------------------------------------------------------------------------------------------------


EXTREMES = (b"\0", b"\xff" * 4, b"\xff" * 8, b"\0" * 8, b"\1\0\0\0", b"\0\0\0\x80", b"\xc0\xff\xff\xff\xff\xff\xff\xff")


@st.composite
def broken(draw: st.DrawFn, good: st.SearchStrategy[bytes], at: int | None) -> bytes:
    """Good bytes after one to four changes, with a true checksum where there is one."""
    data = bytearray(draw(good))
    for _ in range(draw(st.integers(1, 4))):
        # Half of the changes fall into headers and directories.
        where = draw(st.integers(0, len(data)) | st.integers(0, min(960, len(data))))
        piece = draw(st.sampled_from(EXTREMES) | st.binary(min_size=1, max_size=4))
        how = draw(st.sampled_from(("write", "flip", "insert", "cut")))
        if how == "write":
            data[where : where + len(piece)] = piece
        elif how == "flip" and where < len(data):
            data[where] ^= 1 << draw(st.integers(0, 7))
        elif how == "insert":
            data[where:where] = piece
        else:
            del data[where : where + draw(st.integers(1, 80))]
    if at is None or draw(st.integers(0, 9)) == 0:
        return bytes(data)
    data += bytes(-len(data) % 64)
    if len(data) >= at + 8:
        struct.pack_into("<Q", data, at, checksum64(bytes(data), at))
    return bytes(data)


@settings(deadline=None, max_examples=400)
@given(data=broken(st.sampled_from(sorted(BASES.values())), 100))
def test_broken_containers_get_one_verdict(door: Door, data: bytes) -> None:
    assert door.check_model(data) == python(parse_slm, data)


@settings(deadline=None, max_examples=400)
@given(data=broken(st.sampled_from([PACKAGES[name] for name in GOOD]), 120))
def test_broken_packages_get_one_verdict_alone_and_on_a_model(door: Door, loaded: Door, data: bytes) -> None:
    alone = python(parse_adapter, data)
    assert door.check_adapter(data) == alone
    slm = parse_slm(built()["f32"])
    whole = alone or python(lambda bytes_: check_against(parse_adapter(bytes_), slm), data)
    assert loaded.apply([data]) == whole
    if not whole:
        loaded.detach()


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_broken_sections_get_one_verdict(door: Door, data: st.DataObject) -> None:
    section = data.draw(broken(st.sampled_from(_sections()), None))
    vocab = int.from_bytes(section[8:12], "little") if len(section) >= 12 else 260
    slm = tool("slm_cases")
    file = slm.made("f32", lambda f: f.section.update(raw=section), lambda f: f.head.update(vocab=max(vocab, 260)))
    assert door.check_model(file) == python(parse_slm, file)


TEXT = st.text(max_size=6) | st.sampled_from(("kind", "base_sha256", "\x1f", "\x7f", "\ud7ff", "\ue000", "\U00010000"))
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**54), 2**54) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=500)
@given(data=st.data())
def test_any_json_as_a_meta_block_gets_one_verdict(door: Door, data: st.DataObject) -> None:
    cases = tool("adapter_cases")
    sparse = data.draw(st.booleans())
    meta = dict(cases.SPARSE_META if sparse else cases.META)
    for key in data.draw(st.lists(st.sampled_from([*meta, "note"]), max_size=2)):
        meta[key] = data.draw(VALUES)
    value = data.draw(st.just(meta) | VALUES)
    try:
        text = canonical(value)
    except StudbookError:  # what has no canonical form is written as others would
        text = json.dumps(value).encode()
    if data.draw(st.booleans()) and text:
        at, piece = (
            data.draw(st.integers(0, len(text))),
            data.draw(st.sampled_from((b" ", b"\\", b'"', b"\\u0041", b",", b"0"))),
        )
        text = text[:at] + piece + text[at:]
    package = cases.package(cases.F32, [cases.S if sparse else cases.D], meta=text)
    assert door.check_adapter(package) == python(parse_adapter, package)


@settings(deadline=None, max_examples=300)
@given(
    parameters=st.integers(1, 2**63) | st.integers(1, 40),
    indices=st.sets(st.integers(0, 63), min_size=1, max_size=9),
    stated=st.text("0123456789.", max_size=11),
)
def test_shares_are_counted_and_rounded_alike(door: Door, parameters: int, indices: set[int], stated: str) -> None:
    cases = tool("adapter_cases")
    share = retention_text(len(indices), max(parameters, len(indices)))
    for text in (share, stated):
        entries = cases.indexed(*sorted(indices))
        package = cases.package(cases.F32, entries, parameter_count=parameters, keys={"retention": text})
        assert door.check_adapter(package) == python(parse_adapter, package)


@cache
def _sections() -> list[bytes]:
    words = (b"ab", b"abc", b"\xc3\xa4", b"abab")
    merges = [(97, 98, 260, 3), (260, 99, 261, 1), (0xC3, 0xA4, 262, 2**32 - 1), (260, 260, 263, 0)]
    return [
        ByteTokenizer().section(),
        BpeTokenizer.build(words, merges).section(),
        BpeTokenizer.build((), ()).section(),
    ]


# -- text -------------------------------------------------------------------------------------------------------------


@st.composite
def tokenizers(draw: st.DrawFn) -> BpeTokenizer:
    """Merges of bytes of a few letters and of each other, in any order of rank."""
    texts = {token: bytes((token,)) for token in b"abc\xc3\xa4"}
    words: list[bytes] = []
    merges: list[tuple[int, int, int, int]] = []
    count = draw(st.integers(0, 8))
    ranks = draw(st.permutations(range(0, 7 * count, 7)))
    for step in range(count):
        left, right = (draw(st.sampled_from(sorted(texts))) for _ in range(2))
        if any(merge[:2] == (left, right) for merge in merges):
            continue
        token = 260 + len(words)
        texts[token] = texts[left] + texts[right]
        words.append(texts[token])
        merges.append((left, right, token, ranks[step]))
    return BpeTokenizer.build(words, draw(st.permutations(merges)))


def speaking(tokenizer: ByteTokenizer | BpeTokenizer) -> Door:
    section = tokenizer.section()
    vocab = tokenizer.vocab_size
    slm = tool("slm_cases")
    base = slm.model_file(vocab, {"raw": section}, [(slm.F32, 0)])
    return opened(slm.assembled(base))


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_texts_become_the_ids_that_python_gives_and_come_back(data: st.DataObject) -> None:
    tokenizer: Any = data.draw(st.just(ByteTokenizer()) | tokenizers())
    instance = speaking(tokenizer)
    for text in data.draw(st.lists(st.text("abcä", max_size=40) | st.text(max_size=10), max_size=4)):
        for bos, eos in ((True, True), (True, False), (False, False)):
            assert instance.encode(text.encode(), bos=bos, eos=eos) == tokenizer.encode(text, bos=bos, eos=eos)
        assert instance.decode(tokenizer.encode(text)) == text.encode()
    for ids in data.draw(st.lists(st.lists(st.integers(0, 270) | st.integers(0, 2**32 - 1), max_size=8), max_size=4)):
        assert _as_text(instance.decode(ids)) == _decoded(tokenizer, ids)


def _decoded(tokenizer: ByteTokenizer | BpeTokenizer, ids: list[int]) -> str:
    try:
        return tokenizer.decode(ids)
    except TokenizerRefused as refused:
        return f"refused: {refused.reason}"


def _as_text(found: bytes | str) -> str:
    return f"refused: {found}" if isinstance(found, str) else found.decode()


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.sampled_from(b"a\x7f\x80\x8f\x90\x9f\xa0\xbf\xc0\xc1\xc2\xdf\xe0\xe1\xed\xee\xef\xf0\xf1\xf4\xf5\xff"),
        max_size=8,
    )
)
def test_bytes_are_text_for_the_engine_where_they_are_for_python(loaded: Door, found: list[int]) -> None:
    try:
        bytes(found).decode()
        wanted: list[int] | str = found
    except UnicodeDecodeError:
        wanted = TokenizerRule.TEXT
    assert loaded.encode(bytes(found), bos=False, eos=False) == wanted
    assert _as_text(loaded.decode(found)) == _decoded(ByteTokenizer(), found)


@pytest.mark.parametrize(
    ("ids", "wanted"),
    [
        ([97] * 65_536, ""),
        ([97] * 65_537, TokenizerRule.LIMIT),
        ([97] * 65_537 + [999], TokenizerRule.LIMIT),
        ([97] * 65_536 + [999], TokenizerRule.ID),
        ([0xFF] * 65_537, TokenizerRule.LIMIT),
        ([0xFF, 999], TokenizerRule.ID),
        ([0xC3, 256, 0xA4], ""),
        ([0xC3, 259, 0xA4], TokenizerRule.UTF8),
    ],
)
def test_what_does_not_decode_is_refused_for_the_first_reason(loaded: Door, ids: list[int], wanted: str) -> None:
    found = loaded.decode(ids)
    assert (found if isinstance(found, str) else "") == wanted
    assert python(lambda _: ByteTokenizer().decode(ids), b"") == wanted


def test_text_is_cut_at_the_room_there_is_and_the_whole_length_told(models: dict[str, bytes]) -> None:
    instance = opened(models["f32"])
    ids, text = instance.put(struct.pack("<5I", *b"abcde")), instance.put(b"abcde")
    out = instance.put(b"........" * 8)
    assert instance.call("decode", ids, 5, out, 3) == 5
    assert instance.read(out, 8) == b"abc....."
    assert instance.call("encode", text, 5, out, 1, 1, 1) == 7
    assert instance.read(out, 8) == struct.pack("<I", 256) + b"...."


@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 119, 120, 4096])
def test_digests_are_those_of_the_standard_whole_and_in_pieces(size: int, door: Door) -> None:
    data = bytes(i * 7 % 256 for i in range(size))
    source, out, state = door.put(data), door.call("alloc", 32), door.call("alloc", 104)
    door.call("sha256", source, size, out)
    assert door.read(out, 32) == hashlib.sha256(data).digest()
    for step in (1, 17, 64, 100):
        door.call("sha256_begin", state)
        for at in range(0, size, step):
            door.call("sha256_update", state, source + at, min(step, size - at))
        door.call("sha256_end", state, out)
        assert door.read(out, 32) == hashlib.sha256(data).digest()


# -- refusals change nothing ------------------------------------------------------------------------------------------


def test_a_refused_model_leaves_the_one_before_with_its_packages_and_sessions(models: dict[str, bytes]) -> None:
    instance = opened(models["f32"])
    assert instance.apply([PACKAGES["dense"]]) == ""
    session = instance.call("session_open", 8)
    instance.feed([256], session)
    before = instance.standing()
    for data in (
        b"",
        b"\0" * 128,
        models["f32"][:-64],
        models["q8_0"][:-1] + b"\1",
        container(CONTAINERS["cases"][30]),
    ):
        assert instance.load(data) == python(parse_slm, data) != ""
        assert instance.standing() == before
        assert instance.call("session_length", session) == 1
    other = opened(models["f32"])
    assert other.apply([PACKAGES["dense"]]) == ""
    again = other.call("session_open", 8)
    other.feed([256], again)
    assert instance.feed([97], session) == other.feed([97], again)


def test_another_model_begins_without_packages_and_without_what_was_accepted(models: dict[str, bytes]) -> None:
    instance = opened(models["q8_0"])
    instance.accept(ADAPTERS["models"]["f32"]["sha256"])
    assert instance.apply([PACKAGES["dense"]]) == ""
    assert instance.load(models["q8_0"]) == ""
    assert instance.standing()[:2] == ([], {})
    assert instance.apply([PACKAGES["dense"]]) == AdapterRule.MODEL_BASE


def test_caches_are_keyed_by_model_tokenizer_and_ordered_stack(models: dict[str, bytes]) -> None:
    dense, again = PACKAGES["dense"], PACKAGES["dense-again"]
    with Engine(models["f32"]) as engine, Engine(models["q8_0"]) as quantised:
        empty, other = engine.cache_key, quantised.cache_key
        with engine.session(4) as session:
            session.feed([256, 1])
            engine.apply(dense, again)
            assert session.length == 0
            stacked = engine.cache_key
            engine.detach()
            assert engine.cache_key == empty
            engine.apply(again, dense)
            assert len({empty, other, stacked, engine.cache_key}) == 4


def test_without_a_model_there_is_nothing_to_speak_to_or_to_stack_on() -> None:
    instance = Door()
    assert instance.call("stack_info") == instance.call("model_info") == 0
    assert instance.apply([PACKAGES["dense"]]) == "engine.no-model"
    assert instance.encode(b"a") == instance.decode([97]) == "engine.no-model"
    assert instance.call("stack_detach") == -1


class Full(Door):
    """An instance whose memory is all taken, to be given back line by line."""

    def __init__(self, pages: int) -> None:
        super().__init__(pages)
        self.taken: list[int] = []

    def fill(self) -> None:
        while at := self.call("alloc", 64) & 0xFFFFFFFF:
            self.taken.append(at)

    def until_done(self, act: Callable[[], str]) -> int:
        """Give back one line more after every refusal for want of memory; returns how many it took."""
        given = 0
        while (reason := act()) == "engine.memory":
            self.call("free", self.taken.pop())
            given += 1
        assert reason == ""
        return given


def test_a_container_is_checked_with_whatever_memory_there_is_or_refused_for_want_of_it() -> None:
    data = BASES["mixed"]
    instance = Full(12)
    at = instance.put(data)
    instance.fill()

    def act() -> str:
        return instance.reason() if instance.call("model_check", at, len(data)) < 0 else ""

    given = instance.until_done(act)
    assert given > 8
    instance.fill()
    # All of it came back, refusal by refusal: the same lines are free again.
    assert instance.until_done(act) == given


def test_a_stack_that_does_not_fit_the_memory_changes_nothing(models: dict[str, bytes]) -> None:
    instance = Full(12)
    assert instance.load(models["f32"]) == ""
    session = instance.call("session_open", 8)
    bare, before = instance.feed([256, 97], session), instance.standing()
    blocks = [(instance.put(PACKAGES[name]), len(PACKAGES[name])) for name in ("dense-three-tensors", "low-rank-3")]
    table = instance.put(struct.pack("<4I", *(n for block in blocks for n in block)))
    room = instance.call("alloc", 4 * 260)
    ids = instance.put(struct.pack("<2I", 256, 97))
    instance.fill()

    def act() -> str:
        if instance.call("stack_apply", table, 2) == 0:
            return ""
        assert instance.standing()[:3] == before[:3]
        assert instance.call("session_reset", session) == 0
        assert instance.call("feed", session, ids, 2, room, 0) == 0
        assert instance.read(room, 4 * 260) == bare
        return instance.reason()

    given = instance.until_done(act)
    assert given > 8
    assert len(instance.standing().applied) == 2
    instance.detach()
    instance.fill()
    assert instance.until_done(act) <= given


def test_a_model_that_does_not_fit_the_memory_is_refused_and_the_one_before_answers(models: dict[str, bytes]) -> None:
    for pages in range(6, 14):
        instance = Door(pages)
        if instance.load(models["f32"]) == "engine.memory":
            continue
        session = instance.call("session_open", 4)
        first = instance.feed([256], session)
        reason = instance.load(models["q8_0"])
        assert reason in ("", "engine.memory")
        if reason:
            instance.call("session_reset", session)
            assert instance.feed([256], session) == first
        else:
            assert instance.feed([256], instance.call("session_open", 4)) != first
            return
    pytest.fail("no memory was enough")


def test_a_thousand_refusals_and_changes_take_no_memory_for_good(models: dict[str, bytes]) -> None:
    instance = opened(models["f32"])
    wrong = [PACKAGES[name] for name in ("mask-of-another", "low-rank-large", "entries-out-of-order")]

    def turn() -> None:
        for data in wrong:
            assert instance.apply([PACKAGES["dense"], data]) != ""
        assert instance.apply([PACKAGES["dense"], PACKAGES["sparse"]]) == ""
        assert instance.load(models["f32"][:-64]) != ""
        assert instance.check_model(models["q4_0"]) == ""
        assert instance.load(models["q4_0"]) == ""
        assert instance.load(models["f32"]) == ""

    for _ in range(3):
        turn()
    pages = instance.pages
    for _ in range(60):
        turn()
    assert instance.pages == pages


# -- hostile sizes ----------------------------------------------------------------------------------------------------


def many_merges(count: int) -> bytes:
    """Words of one letter, merged with one other: ranks and pairs in no order."""
    slm = tool("slm_cases")
    words = [slm.word(260, b"aa"), *(slm.word(261 + i, b"a") for i in range(count))]
    merges = [(261 + i * 7919 % count, 97, 260, i * 2654435761 % 2**32) for i in range(count)]
    return bytes(slm.made("f32", lambda f: f.section.update(words=words, merges=merges)))


def many_entries(count: int) -> bytes:
    """Changes of as many vectors of one element, in no order, the first of them twice at the end."""
    cases = tool("adapter_cases")
    entries = [cases.Entry(str(i * 7919 % count), 1, (1,), b"\0\0\0\0") for i in range(count)]
    return bytes(cases.package(cases.F32, [*entries, entries[0]], tensor_count=count + 1))


def deep_meta(count: int) -> bytes:
    cases = tool("adapter_cases")
    return bytes(cases.package(cases.F32, [cases.D], meta=b"[" * count))


def long_text(count: int) -> bytes:
    return b"ab" * count


@pytest.mark.parametrize(
    ("make", "check", "size"),
    [
        (many_merges, "model_check", 3000),
        (many_entries, "adapter_check", 1500),
        (deep_meta, "adapter_check", 30_000),
        (long_text, "encode", 5000),
    ],
)
def test_twice_as_much_of_a_hostile_file_is_little_more_than_twice_the_work(
    make: Callable[[int], bytes], check: str, size: int
) -> None:
    used = []
    for count in (size, 2 * size):
        data, instance = make(count), Door(metered=True)
        if check == "encode":
            words = BpeTokenizer.build(
                (b"ab", b"ba", b"abab"), [(97, 98, 260, 2), (98, 97, 261, 1), (260, 260, 262, 0)]
            )
            slm = tool("slm_cases")
            assert instance.load(slm.assembled(slm.model_file(263, {"raw": words.section()}, [(slm.F32, 0)]))) == ""
        at, out = instance.put(data), instance.call("alloc", 4 * len(data) + PAGE)
        before = instance.fuel_used
        extra = (out, len(data), 0, 0) if check == "encode" else ()
        instance.call(check, at, len(data), *extra)
        used.append((instance.fuel_used - before) / len(data))
    assert used[1] < 1.2 * used[0]
