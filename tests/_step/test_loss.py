"""The steps that are made from a loss are the textbook's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import boltax as bx
from dummies import Classifier, Linear, classes, classifier, line, to_host

SGD = {"optimizer": "sgd", "lr": 0.1, "schedule": "constant", "gradient_clip": None}


class Regression(bx.TrainerModule):
    def loss_function(self, model, batch, train):
        return ((model(batch[0]) - batch[1]) ** 2).mean(-1)


def test_a_step_is_one_step_of_gradient_descent(tmp_path):
    inputs, targets = line(16)
    trainer = classifier(
        tmp_path, Regression, Linear, exmp_input=(inputs, targets), optimizer_hparams=SGD
    )
    start = to_host(trainer.state.params)["Dense_0"]

    def loss(params):
        return jnp.mean((inputs @ params["kernel"] + params["bias"][None] - targets) ** 2)

    expected = jax.tree.map(lambda p, g: p - 0.1 * g, start, jax.grad(loss)(start))
    trainer.train_model(bx.data.ArrayLoader((inputs, targets), 16), num_epochs=1)
    jax.tree.map(
        lambda new, old: np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-6),
        to_host(trainer.state.params)["Dense_0"],
        expected,
    )


def test_the_loss_itself_reaches_the_optimizer(tmp_path):
    seen = []

    def update(updates, state, params=None, **extra):
        seen.append(extra["value"])
        return updates, state

    spy = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    trainer = classifier(tmp_path, optimizer_hparams=spy)
    trainer.train_model(bx.data.ArrayLoader(classes(8), 8), num_epochs=1)
    assert seen[0].shape == ()


def test_random_streams_differ_between_steps_and_names_and_repeat_in_evaluation(tmp_path):
    class Drawing(Classifier):
        def loss_function(self, model, batch, train):
            loss, _ = super().loss_function(model, batch, train)
            return loss, {
                "a": jax.random.uniform(model.rng("a")),
                "b": jax.random.uniform(model.rng("b")),
            }

    trainer = classifier(tmp_path, Drawing)
    trainer.init_optimizer(1, 2)
    batch = jax.device_put(classes(8))
    state, first = trainer.train_step(trainer.state, batch)
    _, second = trainer.train_step(state, batch)
    assert len({float(first["a"]), float(first["b"]), float(second["a"]), float(second["b"])}) == 4
    data = bx.data.ArrayLoader(classes(16), 8)
    assert trainer.eval_model(data) == trainer.eval_model(data)


def test_each_evaluation_batch_draws_its_own_numbers(tmp_path):
    class Drawing(Classifier):
        def loss_function(self, model, batch, train):
            loss, _ = super().loss_function(model, batch, train)
            number = jax.random.uniform(model.rng("a"))
            return loss, {"mean": number, "square": number**2}

    metrics = classifier(tmp_path, Drawing).eval_model(bx.data.ArrayLoader(classes(16), 8))
    assert metrics["square"] - metrics["mean"] ** 2 > 1e-6
