from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import network  # noqa: E402
import optimise  # noqa: E402
import recipe  # noqa: E402
import shipping  # noqa: E402
import skills  # noqa: E402
import train as founders_train  # noqa: E402

from studbook.models.forward import Forward, forward64  # noqa: E402
from studbook.models.slm import parse_slm, read_slm  # noqa: E402

pytestmark = pytest.mark.train
FOUNDERS = Path(__file__).resolve().parents[2] / "examples" / "founders"


def quiet(line: str) -> None:
    """Take a line of progress and say nothing."""


def test_one_training_step_gives_the_same_bytes_twice_and_changes_every_matrix() -> None:
    first = recipe.train(recipe.BASE, 3, None, 1, quiet)
    second = recipe.train(recipe.BASE, 3, None, 1, quiet)
    assert shipping.container(first.tensors) == shipping.container(second.tensors)
    assert first.rows_sha256 == second.rows_sha256
    fresh = network.Network(3).tensors()
    changed = {name for name, value in first.tensors.items() if not np.array_equal(value, fresh[name])}
    # A block whose way out is zero passes no gradient to its inside yet: wo, w2 and the last norm move first.
    assert {"tok_embeddings.weight", "norm.weight", "layers.0.wo.weight", "layers.2.w2.weight"} <= changed


def test_another_seed_gives_other_weights_and_other_rows() -> None:
    first, second = (recipe.train(recipe.BASE, seed, None, 1, quiet) for seed in (3, 4))
    assert first.rows_sha256 != second.rows_sha256
    assert shipping.container(first.tensors) != shipping.container(second.tensors)


def test_a_specialist_starts_from_the_base_it_is_given() -> None:
    slm = read_slm(FOUNDERS / "base" / "base.slm")
    base = {name: slm.dense(name) for name in slm.tensors}
    trained = recipe.train(replace(recipe.SPECIALISTS[0], matrix_lr=0.0, vector_lr=0.0), 1, base, 1, quiet)
    assert shipping.container(trained.tensors) == shipping.container(base)


def test_the_shipped_base_gives_the_same_logits_in_torch_and_in_the_lab() -> None:
    slm = read_slm(FOUNDERS / "base" / "base.slm")
    net = network.Network(0)
    net.load({name: slm.dense(name) for name in slm.tensors})
    ids = slm.tokenizer.encode("rot abcdef>bcdefa", eos=False)
    with torch.no_grad():
        logits = net(torch.tensor([ids]))[0].numpy()
    assert np.allclose(logits, forward64(slm, ids), rtol=1e-4, atol=1e-4)


def test_teacher_forced_answers_agree_with_the_lab() -> None:
    rng = skills.seeded(5, "agreement")
    rows = [skills.draw_row(rng, skill, "train") for skill in skills.SKILLS for _ in range(30)]
    slm = read_slm(FOUNDERS / "base" / "base.slm")
    net = network.Network(0)
    net.load({name: slm.dense(name) for name in slm.tensors})
    pairs = [(slm.tokenizer.encode(r.prompt, eos=False), slm.tokenizer.encode(r.expected, bos=False)) for r in rows]
    ours = net.right([(row.prompt, row.expected) for row in rows])
    assert ours == Forward(slm).score(pairs).exact.tolist()
    assert 0 < sum(ours) < len(ours)


def test_loss_is_taken_on_answer_bytes_and_end_only() -> None:
    inputs, targets = network.encode_batch([("rev ab>", "ba"), ("brk (((>", ")))")])
    kept = [[token for token in row if token != -100] for row in targets.tolist()]
    assert kept == [[*b"ba", network.EOS], [*b")))", network.EOS]]
    assert inputs[:, 0].tolist() == [network.BOS, network.BOS]
    assert inputs[0, -1] == network.PAD


@pytest.mark.parametrize("plan", recipe.RECIPES.values(), ids=lambda plan: plan.name)
def test_a_curriculum_keeps_to_the_train_split_and_to_its_shares(plan: recipe.Recipe) -> None:
    stream = recipe.Stream(plan, 11)
    rows = [row for _ in range(30) for row in stream.batch()]
    assert {skills.split_of(prompt) for prompt, _ in rows} == {"train"}
    clean = [skills.clean_prompt(prompt) for prompt, _ in rows]
    assert all(expected == skills.answer(text[:3], text[4:-1]) for text, (_, expected) in zip(clean, rows, strict=True))
    share = Counter(prompt != text for text, (prompt, _) in zip(clean, rows, strict=True))[True] / len(rows)
    assert share == pytest.approx(0.15, abs=0.03)
    rehearsed = sum(text[:3] not in plan.own for text in clean) / len(rows)
    assert rehearsed == pytest.approx(plan.rehearsal, abs=0.04)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adamw_agrees_with_the_one_in_torch(decay: float) -> None:
    start = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    mine = optimise.AdamW({"w": ours}, (0.9, 0.98), decay)
    other = torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.98), eps=1e-8, weight_decay=decay)
    for step in range(5):
        for weight in (ours, theirs):
            weight.grad = torch.sin(weight.detach() * (step + 1))
        mine.step(0.01)
        other.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 8), (12, 6), (6, 12)])
def test_newton_schulz_keeps_directions_and_evens_out_their_strength(shape: tuple[int, int]) -> None:
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(2))
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    got = left.T @ optimise.newton_schulz(matrix, 5) @ right.T
    strengths = got.diagonal()
    assert torch.allclose(got - torch.diag(strengths), torch.zeros_like(got), atol=1e-4)
    assert strengths.min() > 0.5
    assert strengths.max() < 1.3


def test_muon_agrees_with_the_one_in_torch() -> None:
    start = torch.randn(12, 6, generator=torch.Generator().manual_seed(3))
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    mine = optimise.Muon({"w": ours}, 0.95, 5)
    other = torch.optim.Muon([theirs], lr=0.02, momentum=0.95, nesterov=True, ns_steps=5, weight_decay=0.0)
    for step in range(4):
        for weight in (ours, theirs):
            weight.grad = torch.cos(weight.detach() * (step + 1))
        mine.step(0.02)
        other.step()
    # torch runs Newton-Schulz in bfloat16, we in f32: same direction, three digits.
    moved, wanted = (ours - start).flatten(), (theirs - start).flatten()
    assert torch.nn.functional.cosine_similarity(moved, wanted, dim=0) > 0.999
    assert float(moved.detach().norm() / wanted.detach().norm()) == pytest.approx(1.0, abs=0.02)


def test_retraining_is_reported_as_equal_or_another_machine_class_or_differing(tmp_path: Path) -> None:
    here = shipping.environment_class()
    (tmp_path / "base").mkdir()
    (tmp_path / shipping.LOCK).write_bytes(shipping.lock_text({"base/base.slm": b"shipped"}))

    def verdict(payload: bytes, environment: dict[str, str]) -> str:
        (tmp_path / "base" / "training.json").write_text(json.dumps({"environment_class": environment}))
        return founders_train.compare({"base/base.slm": payload}, tmp_path)[0][1]

    assert verdict(b"shipped", here) == "equal"
    assert verdict(b"shipped", {**here, "torch": "0.1"}) == "equal"
    other = verdict(b"other", {**here, "cpu_capability": "VSX"})
    assert other.startswith("different machine class")
    assert "VSX" in other
    assert here["cpu_capability"] in other
    assert verdict(b"other", here).startswith("DIFFERS")


@pytest.mark.proof
def test_training_the_shipped_family_again_gives_its_bytes_on_this_class_of_machine(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert founders_train.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == sorted(recipe.RECIPES)
    shipped = json.loads((FOUNDERS / "base" / "training.json").read_bytes())["environment_class"]
    if shipping.environment_class() == shipped:
        assert all(line.endswith(": equal") for line in lines)


def test_a_container_holds_the_tensors_it_was_given() -> None:
    tensors = network.Network(9).tensors()
    slm = parse_slm(shipping.container(tensors))
    assert list(slm.tensors) == list(tensors)
    assert all(np.array_equal(slm.dense(name), value) for name, value in tensors.items())
