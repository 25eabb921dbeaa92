"""The output ensemble: the mean log-probability of several models, against the definition written out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lab_fixtures import PARENTS, founder, shipped_items
from studbook.errors import ParentsDoNotFit, UsageError
from studbook.models.decoder import Decoder
from studbook.models.forward import Forward, Pair
from studbook.models.joint import Joint
from studbook.models.shape import SlmShape
from studbook.models.slm import Slm, read_slm

MakeShape = Callable[..., SlmShape]
MakeModel = Callable[..., Slm]


def parents() -> list[Slm]:
    return [read_slm(founder(name) / f"{name}.slm") for name in PARENTS]


def pairs(model: Slm) -> list[Pair]:
    encode = model.tokenizer.encode
    items = shipped_items("development", "rot")
    return [(encode(i["prompt"], bos=True, eos=False), encode(i["expected"], bos=False, eos=True)) for i in items]


def written_out(models: list[Slm], prompt: list[int], answer: list[int]) -> tuple[float, bool]:
    """Sum over tokens of the mean log p, brought back to a distribution; and whether the largest is always the answer's."""
    ids = np.array([[*prompt, *answer[:-1]]])
    rows = []
    for model in models:
        decoder = Decoder(model)
        logits = decoder.logits(decoder.run(ids))[len(prompt) - 1 :].astype(np.float64)
        rows.append(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))
    mean = np.mean(rows, axis=0)
    mean -= np.log(np.exp(mean).sum(axis=1, keepdims=True))
    places = np.arange(len(answer))
    return float(mean[places, answer].sum()), bool((mean.argmax(axis=1) == answer).all())


def test_an_ensemble_gives_the_mean_log_probability_brought_back_to_a_distribution() -> None:
    models = parents()
    held = pairs(models[0])
    scores = Joint(models).score(held)
    for place, (prompt, answer) in enumerate(held):
        loglik, exact = written_out(models, list(prompt), list(answer))
        assert scores.loglik[place] == pytest.approx(loglik, abs=1e-4)
        assert bool(scores.exact[place]) == exact
    assert scores.finite.all() and (scores.calls == 1).all()


def test_a_model_beside_itself_answers_as_it_does_alone() -> None:
    model = parents()[0]
    alone, twice = Forward(model).score(pairs(model)), Joint([model, model]).score(pairs(model))
    assert (alone.exact == twice.exact).all()
    assert np.allclose(alone.loglik, twice.loglik, atol=1e-6)


def test_models_of_another_shape_do_not_answer_together(make_shape: MakeShape, make_model: MakeModel) -> None:
    first, second = make_model(make_shape(layer_count=1)), make_model(make_shape(layer_count=2))
    with pytest.raises(ParentsDoNotFit) as caught:
        Joint([first, second])
    assert caught.value.reason == "parents.ensemble" and caught.value.where and caught.value.advice


def test_an_ensemble_does_not_write() -> None:
    model = parents()[0]
    with pytest.raises(UsageError) as caught:
        Joint([model, model]).generate([[1, 2]], 2)
    assert caught.value.reason == "forward.ensemble"
