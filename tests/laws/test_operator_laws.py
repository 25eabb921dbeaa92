"""What every operator must obey. Operators are found through ``AnyOperator``, so a new one is tested without an edit."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Mapping

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from studbook.breeding.operators import (
    Inputs,
    Operator,
    decode_operator,
    every_type,
    operator_names,
    operator_types,
)
from studbook.breeding.operators.base import in_turn
from studbook.breeding.operators.parameters import range_of
from studbook.breeding.operators.run import compute
from studbook.errors import OutsideAllowlist, ParentsDoNotFit, RecordRefused, UsageError
from studbook.records.doors import canonical, decode_json
from studbook.tensors.sources import ArraySource, TensorSource

SHAPES = {
    "tok_embeddings.weight": (61, 70),
    "layers.0.attn_norm.weight": (70,),
    "layers.0.wq.weight": (70, 70),
    "layers.1.wq.weight": (2, 34),
    "norm.weight": (2,),
}
TALL = {"tok_embeddings.weight": (300, 256), "layers.0.wq.weight": (256, 258), "norm.weight": (70,)}
TINY = {"tok_embeddings.weight": (3, 4), "layers.0.wq.weight": (4, 6), "norm.weight": (4,)}


def several(kind: type[Operator]) -> int:
    """Three parents where the operator takes that many."""
    fewest, most = kind.parents_needed
    return max(fewest, min(3, most))


CASES = [
    pytest.param(op, id=f"{op.tag()}#{i}") for k in operator_types() for i, op in enumerate(k.examples(several(k)))
]
KINDS = [pytest.param(kind, id=kind.tag()) for kind in operator_types()]
operators = pytest.mark.parametrize("operator", CASES)
kinds = pytest.mark.parametrize("kind", KINDS)
AMOUNTS = ("scales", "scale", "strength", "fraction")
# Families that add up whole parents: products and sums of a mean round, where a change of nothing does not.
MEANS = ("blend", "linear-sum", "slerp", "multislerp", "soup")


def operators_with(*fields: str) -> pytest.MarkDecorator:
    """Only the operators that have one of these parameters."""
    return pytest.mark.parametrize(
        "operator", [c for c in CASES if not set(fields).isdisjoint(c.values[0].__struct_fields__)]
    )


merges = pytest.mark.parametrize("operator", [c for c in CASES if c.values[0].parents_needed[1] > 1])


def name_of(place: int) -> str:
    return hashlib.sha256(b"model %d" % place).hexdigest()


def family(shapes: Mapping[str, tuple[int, ...]], parents: int, seed: int = 0) -> Inputs:
    """A base and fine-tuned parents, with zeros of both signs and ties among the values."""
    rng = np.random.default_rng(seed)
    base = {name: np.round(rng.normal(size=dims), 2).astype(np.float32) for name, dims in shapes.items()}
    for array in base.values():
        array[rng.random(array.shape) < 0.02] = -0.0
    tuned = []
    for _ in range(parents):
        change = {n: np.round(rng.normal(size=d) * 0.1, 2) * (rng.random(d) < 0.8) for n, d in shapes.items()}
        tuned.append({n: (base[n] + change[n]).astype(np.float32) for n in shapes})
    sources = [ArraySource(name_of(i), tensors) for i, tensors in enumerate([base, *tuned])]
    return Inputs(base=sources[0], parents=tuple(sources[1:]))


def for_operator(operator: Operator, shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> Inputs:
    return family(shapes, several(type(operator)))


def child_bytes(child: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in child.items()}


def flat_bytes(source: ArraySource) -> dict[str, bytes]:
    return {name: source.flat(name).tobytes() for name in source.names}


def beyond(high: float) -> float:
    """A number above a range's end, told from it in f64 however large it is."""
    return high + max(1, high)


def start_of(inputs: Inputs, operator: Operator) -> ArraySource:
    """What a change of nothing leaves: the base, or the parent for operators of one parent."""
    return inputs.parents[0] if operator.parents_needed == (1, 1) else inputs.base


# -- the same bytes --------------------------------------------------------------------------------------------------


@operators
@pytest.mark.parametrize("chunk", [17, 1024, 1 << 20])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_chunks_and_threads_never_show_in_the_bytes(operator, chunk, threads):
    inputs = for_operator(operator)
    assert child_bytes(compute(operator, inputs, chunk=chunk, threads=threads)) == child_bytes(
        compute(operator, inputs)
    )


@operators
def test_tensors_of_several_reduction_blocks_are_no_exception(operator):
    inputs = for_operator(operator, TALL)
    whole = child_bytes(compute(operator, inputs))
    for chunk, threads in ((7001, 2), (65_536, 1), (65_537, 5)):
        assert child_bytes(compute(operator, inputs, chunk=chunk, threads=threads)) == whole


@operators
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_range_of_a_tensor_can_be_computed_alone(operator, data):
    inputs = for_operator(operator)
    surveys = operator.survey_model(inputs, in_turn)
    reference = operator.reference(inputs)
    name = data.draw(st.sampled_from(reference.names))
    start = data.draw(st.integers(0, reference.size(name)))
    stop = data.draw(st.integers(start, min(reference.size(name), start + 200)))
    whole = operator.rows(name, 0, reference.size(name), inputs, surveys[name])
    part = operator.rows(name, start, stop, inputs, surveys[name])
    assert part.dtype == np.float32
    assert part.tobytes() == whole[start:stop].tobytes()


ELSEWHERE = """
import hashlib, json, sys
import numpy as np
from studbook.breeding.operators import Inputs, operator_types
from studbook.breeding.operators.run import compute
from studbook.tensors.philox import stream_for
from studbook.tensors.sources import ArraySource

shapes = {"tok_embeddings.weight": (40, 64), "layers.0.wq.weight": (64, 64), "layers.1.wq.weight": (1100, 62)}
shapes["norm.weight"] = (64,)

def model(place, base=None):
    digest = hashlib.sha256(b"%d" % place).digest()
    tensors = {}
    for name, dims in shapes.items():
        noise = stream_for(place, digest, name).noise(0, int(np.prod(dims))).reshape(dims)
        tensors[name] = noise if base is None else base[name] + noise * np.float32(0.05)
    return digest.hex(), tensors

base = model(0)
parents = [model(i, base[1]) for i in (1, 2, 3)]
out = {}
for kind in operator_types():
    count = max(kind.parents_needed[0], min(3, kind.parents_needed[1]))
    for place, operator in enumerate(kind.examples(count)):
        inputs = Inputs(base=ArraySource(*base), parents=tuple(ArraySource(*p) for p in parents[:count]))
        child = compute(operator, inputs, chunk=int(sys.argv[1]), threads=int(sys.argv[2]))
        digest = hashlib.sha256(b"".join(child[name].tobytes() for name in child)).hexdigest()
        out[f"{kind.tag()}#{place}"] = [digest, operator.delta_bound(inputs).hex()]
json.dump(out, sys.stdout)
"""


def elsewhere(folder, chunk: int, threads: int, **environment: str) -> dict[str, list[str]]:
    """Digest and bound of every example, computed by another process in another folder."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ELSEWHERE, str(chunk), str(threads)],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return elsewhere(tmp_path_factory.mktemp("reference"), 1 << 20, 1, PYTHONHASHSEED="0")


def dispatched_features() -> list[str]:
    """The instruction sets numpy chose at run time on this machine, beyond its baseline."""
    core = np._core._multiarray_umath
    return [name for name in core.__cpu_dispatch__ if core.__cpu_features__.get(name)]


@pytest.mark.parametrize("hash_seed", ["1", "4242"])
def test_hash_seed_folder_and_process_never_show_in_the_bytes(reference, tmp_path, hash_seed):
    assert elsewhere(tmp_path, 5000, 2, PYTHONHASHSEED=hash_seed) == reference


@pytest.mark.skipif(not dispatched_features(), reason="numpy runs on its baseline instruction set here")
def test_the_instruction_set_never_shows_in_the_bytes(reference, tmp_path):
    plain = elsewhere(tmp_path, 1 << 20, 1, NPY_DISABLE_CPU_FEATURES=" ".join(dispatched_features()))
    assert plain == reference


def test_every_example_makes_another_child(reference):
    # A guard for the tests above: equal digests would mean that they compare nothing.
    assert len({digest for digest, _ in reference.values()}) >= len(reference) // 2


# -- what comes out --------------------------------------------------------------------------------------------------


@operators
def test_children_are_finite_f32_of_the_references_shapes(operator):
    inputs = for_operator(operator)
    child, reference = compute(operator, inputs), operator.reference(inputs)
    assert tuple(child) == reference.names
    for name, array in child.items():
        assert (array.shape, array.dtype) == (reference.dims(name), np.float32)
        assert np.isfinite(array).all()
        assert not array.flags.writeable


@operators
def test_inputs_are_never_written(operator):
    inputs = for_operator(operator)
    before = [flat_bytes(source) for source in (inputs.base, *inputs.parents)]
    compute(operator, inputs, chunk=100, threads=2)
    operator.delta_bound(inputs)
    assert [flat_bytes(source) for source in (inputs.base, *inputs.parents)] == before


@merges
def test_parents_that_all_are_the_base_give_the_base_back(operator):
    base = family(SHAPES, 1).base
    inputs = Inputs(base=base, parents=(base,) * several(type(operator)))
    child, reference = compute(operator, inputs), operator.reference(inputs)
    for name in reference.names:
        flat = reference.flat(name)
        roundings = 2.0**-23 * (len(inputs.parents) + 1) * np.abs(flat)
        assert (np.abs(child[name].reshape(-1) - flat) <= roundings).all()
        if operator.family not in MEANS:
            assert child[name].tobytes() == flat.tobytes()


@operators_with(*AMOUNTS)
def test_zero_scale_zero_strength_and_zero_fraction_change_no_bit(operator):
    zeroed = {
        field: (0.0,) * len(value) if isinstance(value, tuple) else 0.0
        for field in AMOUNTS
        if (value := getattr(operator, field, None)) is not None
    }
    inputs = for_operator(operator)
    child = compute(msgspec.structs.replace(operator, **zeroed), inputs)
    assert child_bytes(child) == flat_bytes(start_of(inputs, operator))


@operators_with("skip")
def test_a_skipped_tensor_keeps_its_bits_and_the_others_do_not_notice(operator):
    inputs = for_operator(operator)
    start = flat_bytes(start_of(inputs, operator))
    everything = compute(msgspec.structs.replace(operator, skip=("*",)), inputs)
    assert child_bytes(everything) == start
    one = child_bytes(compute(msgspec.structs.replace(operator, skip=("tok_embeddings.weight",)), inputs))
    none = child_bytes(compute(msgspec.structs.replace(operator, skip=()), inputs))
    assert one["tok_embeddings.weight"] == start["tok_embeddings.weight"]
    if getattr(operator, "scope", "tensor") != "global" and not hasattr(operator, "clip"):
        assert {n: b for n, b in one.items() if n[0] != "t"} == {n: b for n, b in none.items() if n[0] != "t"}


# -- the declared bound ----------------------------------------------------------------------------------------------

ordinary = st.floats(-2.0, 2.0, width=32)
strange = st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 1.17e-38, -3e-39, 1e-20, 3e4, -6e18, 1e30, -1e36]).map(np.float32)
# Whole models below the normal range: there a product errs by half a unit whatever its size.
subnormal = st.integers(-9, 9).map(lambda units: np.float32(units * 2.0**-149))


def distance(child: Mapping[str, np.ndarray], base: TensorSource) -> float:
    """||child - base|| with exactly rounded sums."""
    terms = (
        (float(c) - float(b)) ** 2
        for name in base.names
        for c, b in zip(child[name].reshape(-1), base.flat(name), strict=True)
    )
    return math.sqrt(math.fsum(terms))


@st.composite
def models(draw, parents: int) -> Inputs:
    """Unrelated models of ordinary and strange values; sometimes a parent is the base."""
    elements = draw(st.sampled_from([ordinary, strange, ordinary | strange, subnormal]))
    sources = []
    for place in range(parents + 1):
        tensors = {n: draw(hnp.arrays(np.float32, d, elements=elements)) for n, d in TINY.items()}
        sources.append(ArraySource(name_of(place), tensors))
    if draw(st.booleans()):
        sources[1] = sources[0]
    return Inputs(base=sources[0], parents=tuple(sources[1:]))


@operators
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_the_change_stays_below_the_bound_declared_before_the_run(operator, data):
    inputs = data.draw(models(several(type(operator))))
    bound = operator.delta_bound(inputs)
    assert math.isfinite(bound)
    assert distance(compute(operator, inputs), operator.reference(inputs)) <= bound


@operators
def test_the_bound_is_worth_declaring(operator):
    # A bound of 10^30 would also hold; on related models it must be of the size of the models' own differences.
    inputs = for_operator(operator)
    norm = distance({n: np.zeros(d, np.float32) for n, d in SHAPES.items()}, inputs.base)
    assert operator.delta_bound(inputs) <= 2.5 * norm


# -- refusals --------------------------------------------------------------------------------------------------------


@operators
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_a_value_that_is_not_finite_is_refused_by_model_and_tensor(operator, bad, place):
    inputs = for_operator(operator, TINY)
    sources = [inputs.base, *inputs.parents]
    tensors = {n: sources[place].flat(n).reshape(TINY[n]).copy() for n in TINY}
    tensors["layers.0.wq.weight"][1, 2] = bad
    sources[place] = ArraySource(name_of(place), tensors)
    who = f"parent {place - 1}" if place else "base"
    with pytest.raises(ParentsDoNotFit, match=rf"{who}: layers\.0\.wq\.weight") as caught:
        compute(operator, Inputs(base=sources[0], parents=tuple(sources[1:])))
    assert caught.value.reason == "parents.non-finite"


@kinds
def test_a_child_that_overflows_is_refused_by_tensor(kind):
    count = several(kind)
    huge = {n: np.full(d, 3.4e38, np.float32) for n, d in TINY.items()}
    huge["norm.weight"] = np.ones(4, np.float32)
    lower = {n: -array for n, array in huge.items()}
    inputs = Inputs(base=ArraySource(name_of(0), lower), parents=(ArraySource(name_of(1), huge),) * count)
    for operator in kind.examples(count):
        try:
            child = compute(operator, inputs)
        except ParentsDoNotFit as error:
            assert re.search(r"child of .*: (tok_embeddings|layers\.0\.wq)\.weight", str(error))
        else:
            assert all(np.isfinite(array).all() for array in child.values())


@operators
def test_parents_of_other_names_or_shapes_are_refused_before_any_work(operator):
    inputs = for_operator(operator, TINY)
    good = {n: inputs.parents[0].flat(n).reshape(TINY[n]) for n in TINY}
    others = {
        "names": {("x" + n if n == "norm.weight" else n): a for n, a in good.items()},
        "order": dict(reversed(good.items())),
        "fewer": {n: a for n, a in good.items() if n != "norm.weight"},
        "shape": {n: (a.T if n == "layers.0.wq.weight" else a) for n, a in good.items()},
        "empty": {n: (a[:0] if n == "norm.weight" else a) for n, a in good.items()},
    }
    for tensors in others.values():
        wrong = (ArraySource(name_of(1), tensors), *inputs.parents[1:])
        for act in (compute, type(operator).delta_bound):
            with pytest.raises(ParentsDoNotFit, match="parent 0"):
                act(operator, Inputs(base=inputs.base, parents=wrong))
    with pytest.raises(ParentsDoNotFit, match="not a SHA-256"):
        compute(operator, Inputs(base=inputs.base, parents=(ArraySource("me", good), *inputs.parents[1:])))


@kinds
def test_another_number_of_parents_is_refused(kind):
    fewest, most = kind.parents_needed
    count = several(kind)
    operator = kind.examples(count)[0]
    operator.validate()
    operator.validate(count)
    for wrong in {fewest - 1, most + 1} | ({count + 1} if kind.per_parent else set()):
        with pytest.raises(ParentsDoNotFit) as caught:
            operator.validate(wrong)
        assert kind.tag() in str(caught.value)
    with pytest.raises(ParentsDoNotFit):
        compute(operator, family(TINY, most + 1))


@operators
def test_a_number_out_of_its_range_is_refused_by_field(operator):
    for field in operator.__struct_fields__:
        if not (bounds := range_of(type(operator), field)):
            continue
        value = getattr(operator, field)
        for bad in (bounds[0] - 1, beyond(bounds[1]), math.nan, math.inf, -math.inf):
            changed = (*value[:-1], bad) if isinstance(value, tuple) else bad
            with pytest.raises(OutsideAllowlist, match=field):
                msgspec.structs.replace(operator, **{field: changed}).validate()


@kinds
def test_every_number_has_a_range(kind):
    for field in kind.__struct_fields__:
        if any(
            isinstance(v, int | float) and not isinstance(v, bool)
            for v in np.ravel(getattr(kind.examples(several(kind))[0], field)).tolist()
        ):
            assert range_of(kind, field) is not None, field


@operators
@pytest.mark.parametrize(("chunk", "threads"), [(0, 1), (1, 0), (-5, 1)])
def test_no_chunk_and_no_thread_are_refused(operator, chunk, threads):
    with pytest.raises(UsageError):
        compute(operator, for_operator(operator, TINY), chunk=chunk, threads=threads)


# -- records ---------------------------------------------------------------------------------------------------------


@operators
def test_an_operator_survives_its_record(operator):
    record = decode_json(canonical(operator))
    assert decode_operator(record) == operator
    assert canonical(decode_operator(record)) == canonical(operator)
    assert record["operator"] == operator.tag()


@operators
def test_a_record_with_a_missing_unknown_or_mistyped_field_is_refused_by_name(operator):
    record = decode_json(canonical(operator))
    for field in operator.__struct_fields__:
        with pytest.raises(RecordRefused, match=field):
            decode_operator({k: v for k, v in record.items() if k != field})
        with pytest.raises(RecordRefused, match=field):
            decode_operator({**record, field: None})
        with pytest.raises(RecordRefused, match=field):
            decode_operator({**record, field: 1 if isinstance(record[field], bool) else True})
    with pytest.raises(RecordRefused, match="lambda"):
        decode_operator({**record, "lambda": 1})
    with pytest.raises(RecordRefused):
        decode_operator({k: v for k, v in record.items() if k != "operator"})


@operators
def test_a_record_with_a_value_out_of_range_is_refused_by_field(operator):
    record = decode_json(canonical(operator))
    for field in operator.__struct_fields__:
        if bounds := range_of(type(operator), field):
            bad = beyond(bounds[1])
            value = [*record[field][:-1], bad] if isinstance(record[field], list) else bad
            with pytest.raises(OutsideAllowlist, match=field):
                decode_operator({**record, field: value})


@pytest.mark.parametrize("tag", ["slerp/99", "blend", "Blend/1", ""])
def test_an_operator_of_another_version_is_refused_with_the_known_ones(tag):
    with pytest.raises(OutsideAllowlist) as caught:
        decode_operator({"operator": tag})
    assert all(name in caught.value.advice for name in operator_names())


@kinds
def test_no_parameter_has_a_default_and_every_class_says_what_it_is(kind):
    assert kind.__struct_defaults__ == ()
    assert kind.tag().split("/")[1].isdigit()
    assert kind.family
    assert 1 <= kind.parents_needed[0] <= kind.parents_needed[1]
    assert len(kind.examples(several(kind))) >= (2 if kind.__struct_fields__ else 1)
    for field in kind.per_parent:
        assert field in kind.__struct_fields__


def test_names_and_families_are_unique():
    every = every_type()
    assert len(set(operator_names())) == len(every)
    assert len({kind.family for kind in every}) == len(every)


@operators
def test_operators_are_values(operator):
    assert hash(operator) == hash(decode_operator(decode_json(canonical(operator))))
    with pytest.raises(AttributeError):
        setattr(operator, (*operator.__struct_fields__, "family")[0], None)
