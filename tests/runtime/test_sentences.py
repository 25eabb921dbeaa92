"""Sentence encoders as far as nothing has to run one: records, whole numbers, and folders that are refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authority_fixtures import HEADER
from routing_fixtures import MODULES, RULES, known, revision
from studbook.errors import BytesLie, DigestDiffers, OutOfOrder, OverBudget, StudbookError, UsageError
from studbook.records import Blob, RouterState, SentenceModel, canonical, digest, replace
from studbook.records.doors import read_struct
from studbook.runtime.routing import sentences
from studbook.runtime.routing.embeddings import cosines, learn_vectors, rounded
from studbook.runtime.routing.ngrams import I16, squares
from studbook.runtime.routing.router import Router, RouteRequest, decide
from studbook.runtime.routing.sentences import SentenceEncoder, sentence_model
from studbook.runtime.routing.state import Known, examples_sha256, open_state
from studbook.runtime.routing.tell import replay, route_record

CLUSTERS = ("brk", "cap", "rev")
DIMENSION = 24
FILE = Blob(sha256="a" * 64, size=1)
MODEL = SentenceModel(
    header=HEADER,
    config=FILE,
    tokenizer=FILE,
    weights=FILE,
    dimension=DIMENSION,
    pooling="mean",
    longest=128,
    reach=2048,
)


def vectors(seed: int, count: int) -> list[I16]:
    """Rounded vectors of length 1, around one of their own."""
    draw = np.random.default_rng(seed)
    drawn = draw.normal(size=DIMENSION) + 0.5 * draw.normal(size=(count, DIMENSION))
    return [rounded((row / np.linalg.norm(row)).astype(np.float32)) for row in drawn]


def state_of(rows: I16) -> tuple[RouterState, bytes]:
    data = rows.astype("<i2").tobytes()
    state = RouterState(
        header=HEADER,
        rules=RULES,
        encoder=digest(MODEL),
        centroids=Blob(sha256=hashlib.sha256(data).hexdigest(), size=len(data)),
        clusters=CLUSTERS,
        fitted_on=examples_sha256({c: ["x"] for c in CLUSTERS}),
        fallback="all",
    )
    return state, data


@pytest.fixture(scope="module")
def opened() -> Known:
    return open_state(*state_of(learn_vectors([vectors(seed, 4) for seed in range(3)])))


def test_states_of_n_grams_are_the_bytes_they_were_before_there_were_sentences():
    assert known().digest == "76e73432d97bfcf1bd88b65bfa4b1ae7ddb6e5eb1965d2abbf293bdf3b0d52de"
    assert known(rules=True).digest == "1bafa8b0abeb34fbbd17b7774cc2d49e3e1d00012f873d9096a02edb11384913"


def test_a_state_that_names_an_encoder_comes_back_and_cites_it(opened):
    state = opened.state
    assert read_struct(canonical(state), RouterState) == state
    assert state.references() == (digest(MODEL),)
    assert read_struct(canonical(MODEL), SentenceModel) == MODEL
    other = digest(replace(MODEL, weights=Blob(sha256="b" * 64, size=1)))
    assert digest(replace(state, encoder=other)) != opened.digest


def test_centroids_and_scores_are_whole_numbers_and_the_likest_is_the_own_cluster():
    groups = [vectors(seed, 5) for seed in range(3)]
    rows = learn_vectors(groups)
    assert rows.dtype == np.int16
    assert np.array_equal(np.abs(rows).max(axis=1), [32767] * 3)
    assert np.array_equal(learn_vectors([group[::-1] for group in groups]), rows)
    norms = squares(rows)
    for own, group in enumerate(groups):
        for vector in group:
            found = cosines(vector, rows, norms)
            exact = [float(row.astype(float) @ vector / np.sqrt(float(n) * float(vector @ vector.astype(np.int64))))
                     for row, n in zip(rows, norms, strict=True)]  # fmt: skip
            assert found == pytest.approx(exact, abs=1e-12)
            assert int(np.argmax(found)) == own


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_what_another_kernel_rounds_otherwise_changes_no_whole_number_away_from_the_middle(seed):
    draw = np.random.default_rng(seed)
    steps = draw.integers(-60, 61, size=DIMENSION)
    away = draw.uniform(-0.49, 0.49, size=DIMENSION)
    vector = ((steps + away) / 256).astype(np.float32)
    noise = draw.uniform(-2e-7, 2e-7, size=DIMENSION).astype(np.float32)
    assert np.array_equal(rounded(vector), steps)
    assert np.array_equal(rounded(vector + noise), steps)


def test_clusters_of_the_same_vectors_cannot_be_told_apart():
    group = vectors(1, 3)
    with pytest.raises(UsageError) as caught:
        learn_vectors([group, group])
    assert caught.value.reason == "route.examples"


def test_without_its_encoder_a_router_decides_by_rules_and_refuses_to_score(opened):
    router = Router(opened)
    assert not router.reads
    assert Router(known()).reads
    found = router.route(RouteRequest("rev abc>"), MODULES)
    assert (found.how, found.selected) == ("rule", revision("rev"))
    assert router.cluster("cap abc>") == "cap"
    for ask in (lambda: router.route(RouteRequest("brk ([>"), MODULES), lambda: router.cluster("brk ([>")):
        with pytest.raises(OutOfOrder, match="not open") as caught:
            ask()
        assert caught.value.reason == "route.encoder"


def test_recorded_scores_replay_without_the_encoder_and_a_changed_rule_does_not(opened):
    router, prompt = Router(opened), "what is this?"
    asked = RouteRequest(prompt)
    scored = {"rev": 0.5, "cap": 0.25, "brk": -0.125}
    told = decide(router, asked, MODULES, scored, None)
    assert (told.how, told.selected, told.margin) == ("sentences", revision("rev"), 0.25)
    record = route_record(HEADER, router, asked, told, keep_prompt=True)
    assert replay(record, router) == ("scores", revision("rev"))
    assert replay(replace(record, prompt=None), router).depth == "scores"
    with pytest.raises(DigestDiffers, match="rule"):
        replay(replace(record, rule=0), router)
    low = replace(record, candidates=tuple(replace(c, score=0.0 if c.score else None) for c in record.candidates))
    with pytest.raises(DigestDiffers):
        replay(low, router)


def test_a_state_of_an_encoder_does_not_open_with_rows_that_do_not_fit():
    state, data = state_of(learn_vectors([vectors(seed, 4) for seed in range(3)]))
    for wrong in (b"", data[:-2], data + b"\0\0"):
        blob = Blob(sha256=hashlib.sha256(wrong).hexdigest(), size=len(wrong))
        with pytest.raises(BytesLie) as caught:
            open_state(replace(state, centroids=blob), wrong)
        assert caught.value.reason == "route.centroids"
    with pytest.raises(DigestDiffers):
        open_state(state, data[:-1] + bytes([data[-1] ^ 1]))


def test_without_the_extras_an_encoder_is_refused_and_they_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sentences, "_LIBRARIES", ("a-library-that-nobody-wrote",))
    with pytest.raises(UsageError) as caught:
        SentenceEncoder(tmp_path, MODEL)
    assert caught.value.reason == "usage.extra"
    assert "studbook[train,hf]" in caught.value.advice


def folder_of(path: Path) -> Path:
    """Three files that might be a model: one tensor of one number."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (path / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 24}))
    (path / "tokenizer.json").write_text("{}")
    (path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    return path


def test_the_record_of_a_folder_names_its_three_files_and_no_other(tmp_path):
    (folder_of(tmp_path) / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    found = sentence_model(HEADER, tmp_path)
    assert found.dimension == 24
    named = {"config.json": found.config, "tokenizer.json": found.tokenizer, "model.safetensors": found.weights}
    for name, blob in named.items():
        data = (tmp_path / name).read_bytes()
        assert blob == Blob(sha256=hashlib.sha256(data).hexdigest(), size=len(data))


def pickle_alone(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def pickle_renamed(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x80\x04\x95" + bytes(61))


def link(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder / "elsewhere")
    (folder / "tokenizer.json").symlink_to(folder / "elsewhere")


def config(text: str):
    return lambda folder: (folder / "config.json").write_text(text)


@pytest.mark.parametrize(
    ("spoil", "kind", "reason"),
    [
        (pickle_alone, UsageError, "route.encoder"),
        (pickle_renamed, BytesLie, "route.encoder"),
        (link, BytesLie, "bytes"),
        (lambda folder: (folder / "tokenizer.json").unlink(), UsageError, "file.missing"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), BytesLie, "route.encoder"),
        (config("[1]"), BytesLie, "route.encoder"),
        (config('{"hidden_size": 1e9}'), BytesLie, "route.encoder"),
        (config('{"hidden_size": 1000000000}'), BytesLie, "route.encoder"),
        (config("{}"), BytesLie, "route.encoder"),
        (config("{" + " " * (1 << 16) + "}"), OverBudget, "file.size"),
    ],
)
def test_a_folder_that_lies_has_no_record(tmp_path, spoil, kind, reason):
    spoil(folder_of(tmp_path))
    with pytest.raises(StudbookError) as caught:
        sentence_model(HEADER, tmp_path)
    assert type(caught.value) is kind
    assert caught.value.reason == reason
