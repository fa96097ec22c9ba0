"""The steps that are made from a loss are the textbook's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import boltax as bx
from boltax.errors import LossError, MetricsError
from boltax.tune import Population
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


class Tokens(bx.TrainerModule):
    """A loss for each token, `[batch, seq]`, in the form that an attribute names."""

    form = "per token"

    def loss_function(self, model, batch, train):
        inputs, targets = batch
        error = (model(inputs)[..., 0] - targets) ** 2
        count = int(np.prod(error.shape))
        loss = {
            "per token": error,
            "python": (error.sum(), count),
            "numpy": (error.sum(), np.int64(count)),
            "float": (error.sum(), float(count)),
            "bfloat16": (error.sum().astype(jnp.bfloat16), count),
            "mean": error.mean(),
        }[self.form]
        return loss, {
            "error": error,
            "close": error < 1.0,
            "python": (error.sum(), count),
            "tokens": (count, 1),
            "exact": (2**40 + 1, np.int64(2)),
        }


def tokens(examples: int, seq: int = 100) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(examples)
    inputs = rng.normal(size=(examples, seq, 4)).astype(np.float32)
    return inputs, rng.normal(size=(examples, seq)).astype(np.float32)


def errors_of(params, data):
    kernel, bias = (np.asarray(params["Dense_0"][n], np.float64) for n in ("kernel", "bias"))
    return ((data[0].astype(np.float64) @ kernel + bias)[..., 0] - data[1]) ** 2


@pytest.mark.parametrize("microbatches", [1, 3])
@pytest.mark.parametrize("form", ["per token", "python", "numpy", "float", "bfloat16"])
def test_a_loss_per_token_and_its_metrics_are_means_over_all_tokens(tmp_path, form, microbatches):
    data = tokens(8)
    kind = type("Tokens", (Tokens,), {"form": form})
    trainer = classifier(
        tmp_path,
        kind,
        Linear,
        exmp_input=data,
        optimizer_hparams=SGD,
        loop=bx.LoopOptions(microbatches=microbatches),
    )
    before = to_host(trainer.state.params)
    errors, rel = errors_of(before, data), 4e-3 if form == "bfloat16" else 2e-6
    trainer.train_model([data], num_epochs=1)
    row = trainer.run.history[-1]
    assert row["train/loss"] == pytest.approx(errors.mean(), rel=rel)
    assert row["train/error"] == pytest.approx(errors.mean(), rel=2e-6)
    assert row["train/close"] == (errors < 1.0).mean()
    assert row["train/python"] == pytest.approx(errors.mean(), rel=2e-6)
    assert row["train/tokens"] == 800 / len(range(0, 8, -(-8 // microbatches)))
    assert row["train/exact"] == (2**40 + 1) / 2
    residual = (data[0] @ before["Dense_0"]["kernel"] + before["Dense_0"]["bias"])[..., 0] - data[1]
    gradient = 2 * np.einsum("bs,bsf->f", residual, data[0].astype(np.float64)) / residual.size
    after = to_host(trainer.state.params)["Dense_0"]["kernel"][:, 0]
    expected = before["Dense_0"]["kernel"][:, 0] - 0.1 * gradient
    np.testing.assert_allclose(after, expected, rtol=max(rel, 1e-5), atol=1e-5)


def test_values_per_token_are_exact_where_a_smaller_batch_is_filled_up(tmp_path):
    data = tokens(19)
    trainer = classifier(tmp_path, PerTokenOnly, Linear, exmp_input=tokens(4))
    found = trainer.eval_model(bx.data.ArrayLoader(data, 8))
    errors = errors_of(to_host(trainer.state.params), data)
    assert trainer._made.steps.padding.is_exact
    assert found["loss"] == pytest.approx(errors.mean(), rel=2e-6)
    assert found["close"] == (errors < 1.0).mean()


class PerTokenOnly(Tokens):
    """Without pairs, so that examples may be left out."""

    def loss_function(self, model, batch, train):
        loss, metrics = super().loss_function(model, batch, train)
        return loss, {"close": metrics["close"]}


def test_members_of_a_population_count_as_exactly(tmp_path):
    data = tokens(8)
    trainer = classifier(tmp_path, Tokens, Linear, exmp_input=data, optimizer_hparams=SGD)
    population = Population(trainer, [{"lr": 0.1}, {"lr": 0.2}])
    population.train_model([data, data], [data], num_epochs=1)
    for member in population.members:
        assert member.metrics["train/exact"] == (2**40 + 1) / 2
        assert member.metrics["train/tokens"] == 800


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("high", "metric 'm' of type str"),
        (None, "metric 'm' of type NoneType"),
        (jnp.zeros((3, 4)), r"metric 'm' with float32\[3, 4\] for a batch of 8"),
        ((jnp.zeros(()), jnp.zeros(8)), r"tuple of float32\[\], float32\[8\]"),
    ],
)
def test_a_value_that_is_no_metric_is_known_before_the_first_step(tmp_path, value, message):
    class Wrong(Tokens):
        def loss_function(self, model, batch, train):
            return super().loss_function(model, batch, train)[0], {"m": value}

    with pytest.raises(MetricsError, match=message):
        classifier(tmp_path, Wrong, Linear, exmp_input=tokens(8))


def test_a_loss_of_another_first_axis_is_refused_before_the_first_step(tmp_path):
    class Wrong(Tokens):
        def loss_function(self, model, batch, train):
            return super().loss_function(model, batch, train)[0].T

    with pytest.raises(LossError, match=r"float32\[100, 8\].*shape \[\] or \[8, \.\.\.\]"):
        classifier(tmp_path, Wrong, Linear, exmp_input=tokens(8))
