"""Half precision stays inside the calls of a model."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltax as bx
from boltax.errors import ConfigurationError
from boltax.models._adapter import adapt
from boltax.models._precision import in_precision
from dummies import Classifier, GuideRegressor, Linear, Mlp, NnxMlp, classes, classifier, to_host

SEEN = {}


class Looking(nn.Module):
    """Notes the dtypes that it meets."""

    @nn.compact
    def __call__(self, x, train=True, scale=None):
        x = nn.Dense(3)(x)
        SEEN.update(dense=x.dtype, scale=None if scale is None else scale.dtype)
        return nn.BatchNorm(use_running_average=not train)(x)


class Half(Classifier):
    def loss_function(self, model, batch, train):
        loss, metrics = super().loss_function(model, batch, train)
        SEEN.update(batch=batch[0].dtype, params=model.params, loss=loss.dtype)
        return loss, metrics


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", jnp.bfloat16), ("fp16", jnp.float16)])
def test_the_model_computes_in_half_precision_and_nothing_else_does(tmp_path, precision, dtype):
    loop = bx.LoopOptions(precision=precision)
    trainer = classifier(tmp_path, Half, Looking, loop=loop)
    trainer.init_optimizer(1, 1)
    state, metrics = trainer.train_step(trainer.state, jax.device_put(classes(8)))
    assert SEEN["dense"] == dtype
    assert SEEN["batch"] == SEEN["loss"] == metrics["grad_norm"].dtype == jnp.float32
    trees = (SEEN["params"], state.params, state.batch_stats, state.opt_state)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(trees)}
    assert dtypes <= {jnp.dtype(jnp.float32), jnp.dtype(jnp.int32)}


def test_inputs_by_name_are_rounded_and_what_is_no_float_is_passed_on():
    adapter = in_precision(adapt(Looking, {}), "bf16")
    key = jax.random.key(0)
    variables = adapt(Looking, {}).apply(
        {}, (jnp.ones((2, 4)),), {}, train=True, keys=lambda _: key, initializing=True
    )[1]
    outputs, after = adapter.apply(
        variables,
        (np.ones((2, 4), np.float32),),
        {"scale": jnp.ones(2)},
        train=True,
        keys=lambda _: key,
    )
    assert (SEEN["scale"], outputs.dtype) == (jnp.bfloat16, jnp.float32)
    assert after["params"] is variables["params"]


@pytest.mark.parametrize(
    ("model_class", "precision"), [(Mlp, "bf16"), (NnxMlp, "fp16")], ids=["linen", "nnx"]
)
def test_it_trains_like_float32(tmp_path, model_class, precision):
    losses = {}
    data = bx.data.ArrayLoader(classes(48), 16)
    for name in ("float32", precision):
        loop = bx.LoopOptions(precision=name)
        trainer = classifier(
            tmp_path, model_class=model_class, loop=loop, model_hparams={"dropout": 0.0}
        )
        trainer.train_model(data, data, num_epochs=3)
        losses[name] = trainer.run.history[-1]["val/loss"]
        loaded = Classifier.load_from_checkpoint(trainer.log_dir)
        assert loaded.eval_model(data)["loss"] == pytest.approx(trainer.run.best["val/loss"])
    assert losses[precision] == pytest.approx(losses["float32"], rel=0.05)
    assert losses[precision] != losses["float32"]


def test_what_a_trainer_gives_away_is_in_full_precision(tmp_path):
    trainer = classifier(tmp_path, loop=bx.LoopOptions(precision="bf16"))
    inputs = classes(4)[0]
    full, half = trainer.bind_model()(inputs), trainer.predict_model([classes(4)])
    assert half.dtype == np.float32
    np.testing.assert_allclose(full, half, rtol=0.1, atol=0.05)
    assert not np.array_equal(full, half)


def test_masters_keep_what_half_precision_would_lose(tmp_path):
    hparams = {"optimizer": "sgd", "lr": 1e-4, "schedule": "constant", "gradient_clip": None}
    loop = bx.LoopOptions(precision="bf16")
    trainer = classifier(tmp_path, loop=loop, optimizer_hparams=hparams)
    before = to_host(trainer.state.params)
    trainer.train_model([classes(16)], num_epochs=1)
    after = to_host(trainer.state.params)
    kernels = (tree["Dense_0"]["kernel"] for tree in (before, after))
    old, new = (np.asarray(kernel) for kernel in kernels)
    assert (old != new).mean() > 0.9
    assert (old.astype(jnp.bfloat16) == new.astype(jnp.bfloat16)).mean() > 0.9


def test_a_precision_that_there_is_not_is_refused():
    with pytest.raises(ConfigurationError, match=r"precision='bfloat16'.*float32, bf16, fp16"):
        bx.LoopOptions(precision="bfloat16")


def test_own_steps_have_their_own_precision(tmp_path):
    with pytest.raises(ConfigurationError, match=r"precision='bf16'\) for GuideRegressor"):
        classifier(tmp_path, GuideRegressor, Linear, loop=bx.LoopOptions(precision="bf16"))
