from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from studbook.errors import ParentsDoNotFit  # noqa: E402
from studbook.models.forward import forward64  # noqa: E402
from studbook.models.shape import SlmShape  # noqa: E402
from studbook.models.slm import parse_slm  # noqa: E402
from studbook.models.slm_writer import write_slm  # noqa: E402
from studbook.models.tokenizers import ByteTokenizer  # noqa: E402
from studbook.training.learn import Plan, distil, factors, tune  # noqa: E402
from studbook.training.network import logits  # noqa: E402
from studbook.training.optimise import AdamW  # noqa: E402
from studbook.training.rows import Row, Slices, encode  # noqa: E402

pytestmark = pytest.mark.train
TIED = SlmShape(260, 16, 2, 4, 4, 4, 24, 32, 10000.0, 1e-5, True)
SHAPES = {
    "tied": TIED,
    "grouped": replace(TIED, kv_head_count=2, where=""),
    "untied": replace(TIED, tied=False, where=""),
}
ROWS = [Row(prompt=f"{a}{b}>", expected=f"{b}{a}") for a in "abcd" for b in "wxyz"]
SLICES = Slices((encode(ROWS, ByteTokenizer(), 32),), ())
PLAN = Plan(steps=30, rate=1e-2, batch=16, rehearsal=0.0, seed=3)


def model(shape: SlmShape = TIED, seed: int = 0):
    rng = np.random.default_rng(seed)
    tensors = {s.name: (rng.normal(size=s.dims) * 0.2 + (len(s.dims) == 1)).astype(np.float32) for s in shape.tensors()}
    return parse_slm(write_slm(shape, ByteTokenizer(), tensors))


def dense(slm) -> dict[str, np.ndarray]:
    return {spec.name: slm.dense(spec.name) for spec in slm.shape.tensors()}


def rebuilt(slm, tensors):
    return parse_slm(write_slm(slm.shape, slm.tokenizer, tensors))


def cost(slm) -> float:
    """Mean negative log-likelihood of the answers, by the lab's own forward pass."""
    found = []
    for row in SLICES.own[0]:
        said = forward64(slm, list(row.ids[:-1]))[row.start - 1 :]
        told = (
            said
            - np.log(np.exp(said - said.max(-1, keepdims=True)).sum(-1, keepdims=True))
            - said.max(-1, keepdims=True)
        )
        found += [-told[i, t] for i, t in enumerate(row.ids[row.start :])]
    return float(np.mean(found))


@pytest.mark.parametrize("kind", SHAPES)
def test_the_network_is_the_labs_forward_pass(kind):
    slm = model(SHAPES[kind])
    ids = slm.tokenizer.encode("abc>cba", eos=False)
    weights = {name: torch.from_numpy(value.copy()) for name, value in dense(slm).items()}
    with torch.no_grad():
        said = logits(slm.shape, weights, torch.tensor([ids]))[0].numpy()
    assert np.allclose(said, forward64(slm, ids), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adamw_is_the_librarys(decay):
    start = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    ours, theirs = start.clone(), torch.nn.Parameter(start.clone())
    mine = AdamW([ours], (0.9, 0.98), decay)
    other = torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.98), eps=1e-8, weight_decay=decay)
    for step in range(5):
        mine.step([torch.sin(ours * (step + 1))], 0.01)
        theirs.grad = torch.sin(theirs.detach() * (step + 1))
        other.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("kind", SHAPES)
def test_tuning_learns_the_rows_and_gives_the_same_bytes_twice(kind):
    slm = model(SHAPES[kind])
    first, second = (tune(slm, PLAN, SLICES) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert cost(rebuilt(slm, first)) < 0.7 * cost(slm)
    assert cost(slm) == cost(model(SHAPES[kind]))


def test_another_seed_draws_other_rows():
    first, second = (tune(model(), PLAN._replace(seed=seed, steps=2), SLICES) for seed in (1, 2))
    assert any(not np.array_equal(first[name], second[name]) for name in first)


def test_a_student_learns_from_the_teacher_that_knows_the_row():
    fresh = model()
    teacher = rebuilt(fresh, tune(fresh, PLAN._replace(steps=60), SLICES))
    student = model(seed=1)

    def taught(teachers) -> float:
        made = distil(student, teachers, PLAN, SLICES, imitation=1.0, temperature=2.0)
        return cost(rebuilt(student, made))

    good, both, bad = taught([teacher]), taught([fresh, teacher]), taught([fresh])
    assert good < 0.7 * cost(student)
    assert both == pytest.approx(good, rel=0.05)
    assert bad > 1.5 * good


def test_factors_learn_and_keep_to_the_declared_norm():
    slm = model()
    names = [spec.name for spec in slm.shape.tensors() if len(spec.dims) == 2 and spec.name.startswith("layers.")]

    def made(most: float):
        found = factors(slm, PLAN, SLICES, rank=4, alpha=8.0, names=names, most=most)
        change = {n: (np.float64(f.alpha) / 4) * (f.b.astype(np.float64) @ f.a) for n, f in found.items()}
        size = float(np.sqrt(sum(np.square(c).sum() for c in change.values())))
        tuned = {n: (w + change.get(n, 0)).astype(np.float32) for n, w in dense(slm).items()}
        return size, cost(rebuilt(slm, tuned)), {f.alpha for f in found.values()}

    free, held = made(1e9), made(0.5)
    assert free[1] < 0.9 * cost(slm)
    assert free[2] == {8.0}
    assert held[0] == pytest.approx(0.5, rel=1e-3)
    assert held[0] <= 0.5 < free[0]
    assert len(held[2]) == 1


def test_a_run_that_diverges_is_refused_and_named():
    with pytest.raises(ParentsDoNotFit) as caught:
        tune(model(), PLAN._replace(rate=1e30), SLICES)
    assert caught.value.reason == "training.diverged"
