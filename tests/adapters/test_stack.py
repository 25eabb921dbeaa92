"""A resident model with packages: all or none, in order, off without a trace; and the operator that builds them in."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from studbook.adapters.layout import MAX_FILE_BYTES
from studbook.adapters.reader import Adapter, parse_adapter, read_adapter
from studbook.adapters.rules import AdapterRule
from studbook.adapters.source import SlmSource, chain
from studbook.adapters.stack import Stack, state_sha256
from studbook.breeding.operators import AdapterFuse, Inputs
from studbook.breeding.operators.run import compute
from studbook.breeding.sources import as_inputs
from studbook.errors import AdapterRefused, BytesLie, DigestDiffers, ParentsDoNotFit, UsageError
from studbook.models.decoder import Cache, Decoder
from studbook.models.slm import Slm

WQ = "layers.0.wq.weight"


@pytest.fixture(scope="module")
def f32(cases_tool: ModuleType) -> Slm:
    return cases_tool.MODELS["f32"]


@pytest.fixture(scope="module")
def shelf(cases_tool: ModuleType) -> dict[str, Adapter]:
    return {name: parse_adapter(data) for name, data in cases_tool.PACKAGES.items()}


def test_packages_put_on_one_by_one_and_together_are_the_same_assembly(f32: Slm, shelf: dict[str, Adapter]) -> None:
    together, single = Stack(f32), Stack(f32)
    adapters = [shelf["sparse"], shelf["low-rank-3"], shelf["dense-three-tensors"]]
    all_at_once = together.apply(*adapters)
    for adapter in adapters:
        one_by_one = single.apply(adapter)
    assert one_by_one.fused == all_at_once.fused
    assert one_by_one.state_sha256 == all_at_once.state_sha256
    assert (all_at_once.generation, one_by_one.generation) == (1, 3)


def test_the_assembly_checksum_is_over_raw_digests_base_first(f32: Slm, shelf: dict[str, Adapter]) -> None:
    stack, adapter = Stack(f32), shelf["dense"]
    bare = stack.diagnostics()
    assert bare.state_sha256 == hashlib.sha256(bytes.fromhex(f32.sha256)).hexdigest()
    found = stack.apply(adapter)
    both = bytes.fromhex(f32.sha256) + bytes.fromhex(adapter.sha256)
    assert found.state_sha256 == hashlib.sha256(both).hexdigest() == state_sha256(f32.sha256, [adapter.sha256])
    assert stack.model().sha256 == found.state_sha256
    assert stack.detach().state_sha256 == bare.state_sha256
    assert stack.base is f32


def test_every_change_of_the_weights_voids_older_caches(f32: Slm, shelf: dict[str, Adapter]) -> None:
    stack = Stack(f32)
    seen = [stack.diagnostics().generation, stack.apply(shelf["dense"]).generation, stack.detach().generation]
    assert seen == [0, 1, 2]
    with pytest.raises(AdapterRefused):
        stack.apply(shelf["dense-large"], shelf["dense-large"])
    assert stack.diagnostics().generation == 2


def test_a_model_with_a_package_on_it_runs_and_says_something_else(f32: Slm, shelf: dict[str, Adapter]) -> None:
    stack, ids = Stack(f32), np.array([[256, 104, 105]])

    def logits() -> np.ndarray:
        model = stack.model()
        decoder = Decoder(model)
        return decoder.logits(decoder.run(ids, cache=Cache(model, 1, 8)))

    before = logits()
    stack.apply(shelf["low-rank-3"])
    assert not np.array_equal(logits(), before)
    stack.detach()
    assert np.array_equal(logits(), before)


def test_a_package_is_read_from_disk_under_the_digest_that_was_promised(tmp_path: Path, shelf: dict[str, Adapter],
                                                                        cases_tool: ModuleType) -> None:  # fmt: skip
    path = tmp_path / "a.adp"
    path.write_bytes(cases_tool.PACKAGES["dense"])
    assert read_adapter(path).sha256 == read_adapter(path, shelf["dense"].sha256).sha256 == shelf["dense"].sha256
    with pytest.raises(DigestDiffers):
        read_adapter(path, shelf["sparse"].sha256)
    with pytest.raises(UsageError):
        read_adapter(tmp_path / "none.adp")
    (tmp_path / "link.adp").symlink_to(path)
    with pytest.raises(BytesLie):
        read_adapter(tmp_path / "link.adp")


def test_a_file_that_is_too_long_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "long.adp"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 64)
    with pytest.raises(AdapterRefused) as refused:
        read_adapter(path)
    assert refused.value.reason == AdapterRule.SIZE
    assert "long.adp" in refused.value.where


@pytest.mark.parametrize("kind", ["f32", "q8_0", "q4_0"])
def test_the_operator_builds_in_what_the_stack_has_on(
    kind: str, shelf: dict[str, Adapter], cases_tool: ModuleType
) -> None:
    model = cases_tool.MODELS[kind]
    accepted = {model.sha256: cases_tool.MODELS["f32"].sha256}
    adapters = [shelf["low-rank-3"], shelf["dense-three-tensors"], shelf["sparse"]]
    stack = Stack(model, accepted)
    stack.apply(*adapters)
    parents = chain(model, adapters, accepted)
    inputs = Inputs(base=parents[0], parents=parents)
    operator = AdapterFuse()
    child = compute(operator, inputs, chunk=37, threads=2)
    distance = 0.0
    for name in model.tensors:
        assert child[name].tobytes() == stack.model().dense(name).tobytes(), name
        distance += float(((child[name].astype(np.float64) - model.dense(name)) ** 2).sum())
    assert distance**0.5 <= operator.delta_bound(inputs) <= 1.01 * distance**0.5 + 1e-3
    assert [p.sha256 for p in parents] == [model.sha256, *(a.sha256 for a in adapters)]
    assert operator.storage == "f32"


def test_packages_in_another_order_than_they_were_opened_in_are_refused(f32: Slm, shelf: dict[str, Adapter]) -> None:
    model, first, second = chain(f32, [shelf["dense"], shelf["low-rank-3"]])
    for parents in ((model, second, first), (model, second), (first, second)):
        inputs = Inputs(base=model, parents=parents)
        if parents == (first, second):
            AdapterFuse().check(inputs)  # a model with a package built in may stand first
            continue
        with pytest.raises(ParentsDoNotFit) as refused:
            compute(AdapterFuse(), inputs)
        assert refused.value.reason == "parents.adapter-order"


def test_a_model_in_the_place_of_a_package_is_refused_and_not_copied(cases_tool: ModuleType, f32: Slm) -> None:
    other = cases_tool.MODELS["other-weights"]
    for inputs in (
        as_inputs(f32, [f32, other]),
        Inputs(base=SlmSource(f32), parents=(SlmSource(f32), SlmSource(other))),
    ):
        with pytest.raises(ParentsDoNotFit) as refused:
            compute(AdapterFuse(), inputs)
        assert refused.value.reason == "parents.adapter-kind"
        with pytest.raises(ParentsDoNotFit):
            AdapterFuse().delta_bound(inputs)


def test_a_package_for_another_model_is_refused_when_it_is_opened(
    cases_tool: ModuleType, shelf: dict[str, Adapter]
) -> None:
    with pytest.raises(AdapterRefused):
        chain(cases_tool.MODELS["other-weights"], [shelf["dense"]])


def test_a_fused_value_that_overflows_is_refused_by_tensor(f32: Slm, shelf: dict[str, Adapter]) -> None:
    parents = chain(f32, [shelf["dense-large"], shelf["dense-large"]])
    with pytest.raises(ParentsDoNotFit, match=r"norm\.weight") as refused:
        compute(AdapterFuse(), Inputs(base=parents[0], parents=parents))
    assert refused.value.reason == "parents.non-finite"


def test_a_source_gives_the_models_values_in_canonical_order(f32: Slm) -> None:
    source = SlmSource(f32)
    assert source.names == tuple(spec.name for spec in f32.shape.tensors())
    for name in source.names:
        assert source.flat(name).tobytes() == f32.dense(name).tobytes()
        assert source.dims(name) == f32.tensors[name].dims
    out = np.empty(5, np.float32)
    source.fill(WQ, 3, out)
    assert out.tobytes() == f32.dense(WQ).reshape(-1)[3:8].tobytes()
