"""The hook between gradients and optimizer: before clipping, behind microbatches and loss scale."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import boltax as bx
from boltax.errors import ConfigurationError, MetricsError, TrainingError
from boltax.tune import Population
from dummies import Classifier, GuideRegressor, Linear, Plain, classes, classifier, line, to_host


class Scaled(Classifier):
    """Multiplies the gradients by a hyperparameter, and says what it saw."""

    def on_gradients(self, gradients, *, loss, state, updates):
        scaled = jax.tree.map(lambda leaf: leaf * state.hparams["factor"], gradients)
        seen = {"seen": optax.tree.norm(gradients), "seen_loss": loss}
        return scaled, {**seen, "ahead": optax.tree.norm(updates(scaled))}


SGD = {"optimizer": "sgd", "lr": 0.1, "schedule": "constant", "gradient_clip": None}


def make(folder, cls=Scaled, factor=3.0, **options):
    settings = {"model_class": Plain, "optimizer_hparams": SGD, "factor": factor}
    return classifier(folder, cls, **{**settings, **options})


def one_step(trainer):
    """The gradients before a step by `trainer.gradients`, the change of parameters, its metrics."""
    trainer.init_optimizer(1, 1)
    before = to_host(trainer.state.params)
    raw = trainer.gradients(classes(12))[1]
    trainer.state, metrics = trainer.train_step(trainer.state, jax.device_put(classes(12)))
    change = jax.tree.map(np.subtract, to_host(trainer.state.params), before)
    return raw, change, metrics


def norm(tree):
    return np.sqrt(sum((np.asarray(leaf) ** 2).sum() for leaf in jax.tree.leaves(tree)))


@pytest.mark.parametrize("options", [{}, {"microbatches": 3}, {"precision": "fp16"}], ids=str)
def test_it_gets_the_mean_gradients_and_the_optimizer_what_it_returns(tmp_path, options):
    trainer = make(tmp_path, loop=bx.LoopOptions(**options))
    loss = trainer.eval_model([classes(12)])["loss"]
    raw, change, metrics = one_step(trainer)
    bound = 1e-2 if "precision" in options else 1e-5
    expected = jax.tree.map(lambda leaf: -0.1 * 3 * leaf, raw)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=bound, atol=bound / 10), change, expected
    )
    assert metrics["seen"][0] == pytest.approx(norm(raw), rel=bound)
    assert metrics["grad_norm"] == pytest.approx(3 * norm(raw), rel=bound)
    assert metrics["ahead"][0] == pytest.approx(norm(change), rel=1e-4)
    assert metrics["seen_loss"][0] == pytest.approx(loss, rel=bound)


def test_clipping_comes_behind_it(tmp_path):
    clipped = {**SGD, "gradient_clip": 0.5}
    _, change, metrics = one_step(make(tmp_path, factor=100.0, optimizer_hparams=clipped))
    assert norm(change) == pytest.approx(0.1 * 0.5, rel=1e-4)
    assert metrics["ahead"][0] == pytest.approx(0.1 * 0.5, rel=1e-4)


def test_an_overflow_is_seen_though_the_hook_hides_it(tmp_path):
    class Hiding(Classifier):
        def loss_function(self, model, batch, train):
            loss, metrics = super().loss_function(model, batch, train)
            return 1e4 * loss, metrics

        def on_gradients(self, gradients, *, loss, state, updates):
            return jax.tree.map(jnp.nan_to_num, gradients)

    trainer = make(tmp_path, Hiding, loop=bx.LoopOptions(precision="fp16"))
    _, change, _ = one_step(trainer)
    assert norm(change) == 0
    assert int(trainer.state.loss_scale.overflows) == 1


def test_a_member_of_a_population_is_its_single_run(tmp_path):
    data = bx.data.ArrayLoader(classes(24), 8)
    members = Population(make(tmp_path / "many"), [{"factor": 0.5}, {"factor": 2.0}])
    members.train_model(data, num_epochs=1)
    single = make(tmp_path / "one", factor=2.0)
    single.train_model(data, num_epochs=1)
    for name in ("train/seen", "train/ahead", "train/loss"):
        found = members.members[1].metrics[name]
        assert found == pytest.approx(single.run.history[-1][name], rel=1e-5)


def test_each_step_counts_once_whatever_its_batch(tmp_path):
    class Counting(Classifier):
        def on_gradients(self, gradients, *, loss, state, updates):
            return gradients, {"steps": state.step.astype(jnp.float32)}

    trainer = make(tmp_path, Counting)
    trainer.train_model([classes(12), classes(12), classes(4)], num_epochs=1)
    assert trainer.run.history[-1]["train/steps"] == pytest.approx((0 + 1 + 2) / 3)


def returning(result):
    class Odd(Classifier):
        def on_gradients(self, gradients, *, loss, state, updates):
            return result(gradients)

    return Odd


@pytest.mark.parametrize(
    ("result", "error", "words"),
    [
        (lambda g: {"other": 1.0}, TrainingError, r"on_gradients of Odd.*others for gradients\['"),
        (lambda g: jax.tree.map(jnp.sum, g), TrainingError, r"float32\[\] for float32\["),
        (lambda g: (g, {"grad_norm": 1.0}), MetricsError, "'grad_norm' from on_gradients of Odd"),
        (lambda g: (g, {"acc": 1.0}), MetricsError, "'acc' from on_gradients.*there already"),
        (lambda g: (g, 1.0), MetricsError, r"expected \(gradients, metrics\)"),
    ],
)
def test_what_it_must_not_return(tmp_path, result, error, words):
    with pytest.raises(error, match=words):
        one_step(make(tmp_path, returning(result)))


def test_own_steps_have_to_call_it_themselves(tmp_path):
    class Unheard(GuideRegressor):
        def on_gradients(self, gradients, *, loss, state, updates):
            return gradients

    with pytest.raises(ConfigurationError, match="on_gradients and without loss_function"):
        classifier(tmp_path, Unheard, model_class=Linear, exmp_input=[line()[0][:4]])
