from __future__ import annotations

from collections.abc import Iterator

import pytest

from runtime_fixtures import Shelf
from studbook.errors import OutOfOrder, OverBudget, UsageError
from studbook.models.sampling import Sampling
from studbook.models.tokenizers import BOS
from studbook.runtime.arenas import Arena
from studbook.runtime.handles import ENGINE, Artifacts, Module, Runtime
from studbook.runtime.installing import Wish
from studbook.runtime.staging import stage


@pytest.fixture
def module(shelf: Shelf) -> Iterator[Module]:
    package = shelf.package("handled", 5, wish=Wish(positions=16, sessions=2, text_bytes=12))
    arena = Arena("host", 4 << 20, Runtime(metered=True))
    (module,) = stage(package, arena, Artifacts())
    yield module
    module.free()
    assert arena.allowed_bytes == 0


def test_resetting_the_context_forgets_keys_and_values_and_keeps_what_was_said(module: Module) -> None:
    with module.session() as session:
        first = session.feed([BOS, 97, 98])
        session.reset()
        assert session.length == 0
        assert session.transcript == [BOS, 97, 98]
        assert (session.feed([BOS, 97, 98]) == first).all()


def test_clearing_the_transcript_keeps_keys_and_values(module: Module) -> None:
    with module.session() as session, module.session() as other:
        session.feed([BOS, 97])
        session.clear()
        assert session.transcript == []
        assert session.length == 2
        other.feed([BOS, 97])
        assert (session.feed([98]) == other.feed([98])).all()


def test_freeing_the_model_ends_its_sessions_and_keeps_the_artifact(shelf: Shelf) -> None:
    package, artifacts = shelf.package("freed", 6), Artifacts()
    artifacts.hold(package.artifact.path, package.artifact.sha256)
    arena = Arena("host", 4 << 20)
    (module,) = stage(package, arena, artifacts)
    session = module.session()
    session.feed([BOS])
    module.free()
    assert arena.allowed_bytes == 0
    assert session.transcript == [BOS]
    for act in (session.reset, session.clear, module.session, lambda: session.feed([97])):
        with pytest.raises(OutOfOrder):
            act()
    session.close()
    assert artifacts.references(package.artifact.sha256) == 1
    (again,) = stage(package, arena, artifacts)
    assert again.session().feed([BOS]).shape == (260,)
    again.free()


def test_a_session_goes_back_empty(module: Module) -> None:
    with module.session() as session:
        first = session.feed([BOS, 99])
    with pytest.raises(OutOfOrder):
        session.feed([97])
    with module.session() as another:
        assert (another.length, another.transcript) == (0, [])
        assert (another.feed([BOS, 99]) == first).all()


def test_memory_does_not_grow_whatever_is_asked(module: Module) -> None:
    for positions in (1, 16, 7, 3):
        with module.session(positions) as one, module.session() as two:
            ids = module.encode("abcdefghijkl"[:positions], eos=False)[:positions]
            written, finite = one.write_on(ids, positions - len(ids) + 1, Sampling(temperature=1.0, top_k=30))
            assert finite
            assert len(one.transcript) == len(ids) + len(written)
            two.feed([BOS] * 16)
            module.decode_text(ids)
    assert module.memory_bytes == module.staged_bytes


def test_what_is_beyond_its_use_is_refused_before_the_engine_is_asked(module: Module) -> None:
    with pytest.raises(UsageError) as caught:
        module.session(17)
    assert caught.value.reason == "resident.positions"
    with module.session(), module.session():
        with pytest.raises(OverBudget) as many:
            module.session()
        assert many.value.reason == "resident.sessions"
    with module.session(2) as session:
        session.feed([BOS, 97])
        with pytest.raises(UsageError) as full:
            session.feed([98])
        assert full.value.reason == "engine.context"
    with pytest.raises(OverBudget) as text:
        module.encode("twelve bytes and more")
    assert text.value.reason == "resident.text"
    with pytest.raises(OverBudget):
        module.decode_text([97] * 17)


def test_a_module_says_what_ran_it(module: Module) -> None:
    before = module.fuel_used
    with module.session() as session:
        session.feed([BOS])
    assert module.fuel_used > before
    assert Runtime().engine == ENGINE
    assert len(module.cache_key) == 64
