"""Numbers of optimizers as values in their state: the same updates, and one program for all."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from boltax.optim import build, optimizers
from boltax.optim._traced import TracedOptimizer, default_value, traceable

PARAMS = {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.array([0.1, -0.3])}
NEEDED = {"momo": {}, "noisy_sgd": {"eta": 0.01, "gamma": 0.5, "key": 0}}


def loss(params):
    return 0.5 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))


def trained(tx, opt_state, steps=3):
    params = PARAMS
    for _ in range(steps):
        value, grads = jax.value_and_grad(loss)(params)
        updates, opt_state = tx.update(
            grads, opt_state, params, value=value, loss=value, grad=grads, value_fn=loss
        )
        params = jax.tree.map(lambda p, u: p + u, params, updates)
    return params


def able():
    """Every optimizer with the numbers of its own that it says can be traced."""
    for name, entry in optimizers().items():
        if entry.required - {"key"} - set(NEEDED.get(name, {})):
            continue
        if entry.has_lr and entry.default_lr is not None:
            yield name


QUICK = {"adamw", "lion", "rprop", "schedule_free_adamw", "sgd"}
ABLE = [
    pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in sorted(able())
]


@pytest.mark.parametrize("name", ABLE)
def test_a_population_of_any_optimizer_equals_each_alone(name):
    hparams = {"optimizer": name, "schedule": "constant", **NEEDED.get(name, {})}
    names = ["lr"]
    if traceable(hparams, []).get("weight_decay"):
        names.append("weight_decay")
    rate = default_value(hparams, "lr")
    each = [{"lr": rate, "weight_decay": 0.0}, {"lr": rate / 2, "weight_decay": 0.1}]
    each = [{key: value[key] for key in names} for value in each]
    traced = TracedOptimizer({**hparams, **each[0]}, 10, names)
    columns = {key: jnp.array([value[key] for value in each]) for key in names}
    together = jax.vmap(
        lambda values: trained(traced.optimizer.tx, traced.init(PARAMS, values), steps=2)
    )(columns)
    for number, values in enumerate(each):
        tx = build({**hparams, **values}, 10).tx
        alone = trained(tx, tx.init(PARAMS), steps=2)
        own = jax.tree.map(lambda leaf, number=number: leaf[number], together)
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), own, alone
        )


@pytest.mark.parametrize(
    ("hparams", "values"),
    [
        ({"optimizer": "adam"}, {"b1": 0.5, "b2": 0.9, "eps": 1e-3}),
        ({"optimizer": "sgd", "momentum": 0.9}, {"momentum": 0.5}),
        ({"optimizer": "rmsprop", "gradient_clip": 1.0}, {"decay": 0.5, "gradient_clip": 0.1}),
    ],
)
def test_own_arguments_and_clipping_can_be_values(hparams, values):
    names = [*values, "lr"]
    base = {**hparams, **{n: default_value(hparams, n) for n in names}}
    traced = TracedOptimizer(base, 10, names)
    wanted = {**values, "lr": 0.3}
    tx = build({**hparams, **wanted}, 10).tx
    alone = trained(tx, tx.init(PARAMS))
    fresh = trained(traced.optimizer.tx, traced.init(PARAMS, wanted))
    state = traced.optimizer.tx.init(PARAMS)
    changed = trained(traced.optimizer.tx, traced.with_values(state, wanted))
    for params in (fresh, changed):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4), params, alone)


def test_what_counts_or_chooses_is_no_value():
    found = traceable({"optimizer": "adamw"}, ["b1", "nesterov", "mu_dtype"])
    assert found["b1"]
    assert found["weight_decay"]
    assert not any(found[n] for n in ("nesterov", "mu_dtype", "optimizer", "schedule", "warmup"))
    assert not traceable({"optimizer": "lbfgs"}, ["memory_size"])["memory_size"]
    assert not traceable({"optimizer": "adam"}, [])["weight_decay"]


def test_a_transformation_of_the_user_offers_what_it_injects():
    tx = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.inject_hyperparams(optax.adam)(learning_rate=0.1, b1=0.8),
    )
    assert {"lr", "b1"} <= set(traceable(tx, []))
    traced = TracedOptimizer(tx, 10, ["lr"])
    alone = optax.chain(
        optax.clip_by_global_norm(1.0), optax.inject_hyperparams(optax.adam)(0.3, b1=0.8)
    )
    own = trained(traced.optimizer.tx, traced.init(PARAMS, {"lr": 0.3}))
    other = build(alone, None).tx
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6),
        own,
        trained(other, other.init(PARAMS)),
    )
