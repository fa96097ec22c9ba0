"""The average of the parameters: its formula, and that it is what is evaluated and saved."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltax as bx
from boltax._step._ema import evaluated, first_ema
from boltax.errors import ConfigurationError
from boltax.models._vmap import Vmap
from dummies import (
    Classifier,
    EqxMlp,
    GuideRegressor,
    Linear,
    Mlp,
    NnxMlp,
    classes,
    classifier,
    line,
    loader,
    to_host,
)

EMA = bx.LoopOptions(ema=0.9)


def averaged(values, decay):
    """The formula of the guide: weights (1 - decay) * decay^(t - k), over their sum."""
    weights = decay ** np.arange(len(values))[::-1]
    return jax.tree.map(
        lambda *leaves: sum(w * x for w, x in zip(weights, leaves, strict=True)) / weights.sum(),
        *values,
    )


def states_of(trainer, steps):
    trainer.init_optimizer(1, steps)
    batch, states = jax.device_put(classes(12)), []
    for _ in range(steps):
        trainer.state, _ = trainer.train_step(trainer.state, batch)
        states.append(to_host(trainer.state.replace(rng=None)))
    return states


@pytest.mark.parametrize(
    "model_class", [Mlp, NnxMlp, Vmap(EqxMlp)], ids=["linen", "nnx", "equinox"]
)
def test_the_average_is_that_of_the_formula_statistics_included(tmp_path, model_class):
    states = states_of(classifier(tmp_path, model_class=model_class, loop=EMA), 4)
    for name in ("params", "batch_stats"):
        expected = averaged([getattr(state, name) for state in states], 0.9)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            getattr(evaluated(states[-1]), name),
            expected,
        )
    first = states[0]
    jax.tree.map(np.testing.assert_array_equal, evaluated(first).params, first.params)


def test_parameters_in_half_precision_are_averaged_in_float32():
    params = {"w": jnp.ones(2, jnp.bfloat16)}
    state = bx.TrainState(0, None, params, None, None)
    state = state.replace(ema=first_ema(state, 0.999))
    changed = state.replace(params={"w": jnp.full(2, 1.0625, jnp.bfloat16)})
    ema = state.ema.updated(state)
    for _ in range(3):
        ema = ema.updated(changed)
    assert ema.variables["params"]["w"].dtype == jnp.float32
    expected = (1 + 1.0625 * (0.999**-1 + 0.999**-2 + 0.999**-3)) / sum(0.999**-k for k in range(4))
    np.testing.assert_allclose(ema.variables["params"]["w"], expected, rtol=1e-5)
    assert evaluated(changed.replace(ema=ema)).params["w"].dtype == jnp.bfloat16


def test_it_is_evaluated_predicted_bound_saved_and_loaded(tmp_path):
    trainer = classifier(tmp_path, loop=EMA)
    data = loader(48, 16)
    trainer.train_model(data, data, num_epochs=2)
    raw = to_host(trainer.state.params)
    average = to_host(evaluated(trainer.state).replace(rng=None))
    by_hand = trainer._made.adapter.bind(
        {"params": average.params, "batch_stats": average.batch_stats}
    )
    inputs = classes(8)[0]
    np.testing.assert_array_equal(trainer.bind_model()(inputs), by_hand(inputs))
    np.testing.assert_allclose(
        trainer.predict_model([classes(8)]), by_hand(inputs), rtol=1e-4, atol=1e-5
    )
    last = trainer.run.history[-1]["val/loss"]
    assert trainer.eval_model(data)["loss"] == pytest.approx(last)
    loaded = Classifier.load_from_checkpoint(trainer.log_dir)
    if trainer.run.best_steps[-1] == trainer.run.step:
        jax.tree.map(np.testing.assert_array_equal, to_host(loaded.state.params), average.params)
    assert loaded.eval_model(data)["loss"] == pytest.approx(trainer.run.best["val/loss"], rel=1e-5)
    difference = jax.tree.map(lambda a, b: np.abs(a - b).max(), raw, average.params)
    assert max(jax.tree.leaves(difference)) > 1e-3
    trainer.load_model()
    assert trainer.eval_model(data)["loss"] == pytest.approx(trainer.run.best["val/loss"], rel=1e-5)


def test_training_is_the_same_with_and_without_up_to_rounding(tmp_path):
    sgd = {"optimizer": "sgd", "lr": 0.1}  # Adam divides a gradient that is 0 by its rounding
    with_average, without = (
        classifier(tmp_path, loop=loop, optimizer_hparams=sgd) for loop in (EMA, bx.LoopOptions())
    )
    for trainer in (with_average, without):
        trainer.train_model(loader(), num_epochs=1)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7),
        to_host(with_average.state.params),
        to_host(without.state.params),
    )


@pytest.mark.parametrize("debug", [False, True], ids=["compiled", "debug"])
def test_own_steps_are_averaged_too(tmp_path, debug):
    x, y = line()
    trainer = classifier(
        tmp_path, GuideRegressor, Linear, exmp_input=[x[:4]], loop=EMA, debug=debug
    )
    trainer.train_model([(x, y)] * 3, [(x, y)], num_epochs=1)
    raw, average = trainer.state.params, evaluated(trainer.state).params
    assert np.abs(raw["Dense_0"]["kernel"] - average["Dense_0"]["kernel"]).max() > 1e-3
    assert float(trainer.state.ema.total) == pytest.approx(1 - 0.9**3, rel=1e-5)


@pytest.mark.parametrize("decay", [1, 0.0, 1.0, -0.5, True, "0.999"])
def test_a_decay_that_cannot_be_is_refused(decay):
    with pytest.raises(ConfigurationError, match=r"LoopOptions\(ema=.*expected a decay between"):
        bx.LoopOptions(ema=decay)


def test_a_state_without_an_average_is_an_error_and_not_raw_parameters(tmp_path):
    class Own(Classifier):
        def init_optimizer(self, num_epochs, num_steps_per_epoch):
            super().init_optimizer(num_epochs, num_steps_per_epoch)
            self.state = self.state.replace(ema=None)

    with pytest.raises(ConfigurationError, match=r"without an average.*super\(\).init_optimizer"):
        classifier(tmp_path, Own, loop=EMA).train_model(loader(), num_epochs=1)


def test_steps_that_are_compiled_elsewhere_cannot_be_averaged(tmp_path):
    class Own(Classifier):
        def create_jitted_functions(self):
            self.train_step, self.eval_step = map(jax.jit, self.create_functions())

    with pytest.raises(ConfigurationError, match=r"ema=0.9\) for Own.*create_jitted_functions"):
        classifier(tmp_path, Own, loop=EMA)


@pytest.mark.parametrize("precision", ["float32", "fp16"])
def test_swa_is_the_equal_mean_of_the_steps_that_count(tmp_path, precision):
    loop = bx.LoopOptions(ema=bx.SWA(start=3, every=2), precision=precision)
    states = states_of(classifier(tmp_path, loop=loop), 6)
    for number, counted in ((1, [1]), (2, [2]), (3, [3]), (4, [3]), (5, [3, 5]), (6, [3, 5])):
        for name in ("params", "batch_stats"):
            expected = jax.tree.map(
                lambda *leaves: np.mean(leaves, axis=0),
                *(getattr(states[step - 1], name) for step in counted),
            )
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
                getattr(evaluated(states[number - 1]), name),
                expected,
            )


def test_a_run_with_swa_is_evaluated_stored_and_resumed(tmp_path):
    loop = bx.LoopOptions(ema=bx.SWA(start=2))
    data = loader(32, 16)

    def make():
        params = {"log_dir": str(tmp_path / "run"), "logger_type": "none"}
        return classifier(tmp_path, loop=loop, logger_params=params)

    make().train_model(data, data, num_epochs=1)
    resumed, whole = make(), classifier(tmp_path / "whole", loop=loop)
    resumed.train_model(data, data, num_epochs=2, resume=True)
    whole.train_model(data, data, num_epochs=2)
    jax.tree.map(
        np.testing.assert_array_equal,
        to_host(resumed.state.ema.variables),
        to_host(whole.state.ema.variables),
    )
    assert int(whole.state.ema.number) == 3
    stored = Classifier.load_from_checkpoint(whole.log_dir)
    assert stored.loop.ema == bx.SWA(start=2, every=1)
    assert stored.eval_model(data)["loss"] == pytest.approx(whole.run.best["val/loss"], rel=1e-5)


@pytest.mark.parametrize("options", [{"start": 0}, {"start": None}, {"start": 5, "every": 1.5}])
def test_swa_of_steps_that_cannot_be_is_refused(options):
    with pytest.raises(ConfigurationError, match=r"Received SWA\("):
        bx.SWA(**options)
