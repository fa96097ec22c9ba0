"""Tests of `boltax.optim._by_path`: learning rates and frozen parts by pattern."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from boltax import optim
from boltax._base._trees import tree_bytes
from boltax.errors import OptimizerError
from boltax.optim._by_path import frozen_in, trained_in

PARAMS: dict[str, Any] = {
    "encoder": {"kernel": jnp.asarray([[1.0, -2.0], [3.0, 0.5]]), "bias": jnp.asarray([2.0, -0.0])},
    "head": {"kernel": jnp.asarray([[0.5], [1.5]]), "bias": jnp.asarray([-1.0])},
}
GRADS = jax.tree.map(lambda leaf: 0.1 + 0.5 * leaf, PARAMS)
PLAIN = {"schedule": "constant", "gradient_clip": None}
DIFFERING = {name: entry for name, entry in optim.optimizers().items() if not entry.lr_is_whole}
# A few of all kinds; the slow tests have the others.
QUICK = {"adamw", "galore", "lbfgs", "muon", "novograd", "prodigy", "schedule_free_sgd", "sgd"}
WHOLE = sorted(optim.optimizers().keys() - DIFFERING.keys())


def slowly(names: Any) -> Any:
    slow = pytest.mark.slow
    params = [name if name in QUICK else pytest.param(name, marks=slow) for name in names]
    return pytest.mark.parametrize("name", params)


def loss_of(params: Any) -> jax.Array:
    return sum((jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(params)), jnp.zeros(()))


def update(tx: Any, state: Any, params: Any = PARAMS, grads: Any = GRADS) -> Any:
    value = jnp.asarray(0.9)
    extra = {"value": value, "loss": value, "grad": grads, "value_fn": loss_of}
    return tx.update(grads, state, params, **extra)


def updates_of(hparams: dict[str, Any], steps: int = 2) -> list[Any]:
    tx = optim.build(hparams, total_steps=50).tx
    state, found = tx.init(PARAMS), []
    for _ in range(steps):
        updates, state = update(tx, state)
        found.append(updates)
    return found


@slowly(DIFFERING)
def test_a_scaled_learning_rate_is_that_learning_rate(name: str) -> None:
    hparams = {"optimizer": name, "lr": 0.1, **PLAIN}
    if DIFFERING[name].has_decay:
        hparams["weight_decay"] = 0.1
    found = updates_of({**hparams, "lr_scale": {"encoder/": 0.25}})
    whole, slow = updates_of(hparams), updates_of({**hparams, "lr": 0.025})
    for one, fast, other in zip(found, whole, slow, strict=True):
        assert_same(one["head"], fast["head"])
        assert_same(one["encoder"], other["encoder"])


@pytest.mark.parametrize("name", WHOLE)
def test_scaling_is_an_error_where_it_is_no_learning_rate(name: str) -> None:
    with pytest.raises(OptimizerError, match=r"expected one learning rate .*Leave lr_scale out"):
        optim.check_hparams({"optimizer": name, "lr_scale": {"encoder/": 0.1}})


def test_the_first_pattern_counts_and_zero_stops() -> None:
    hparams = {"optimizer": "sgd", "lr": 1.0, **PLAIN}
    scale = {"encoder/bias": 0.5, "encoder/": 0.0}
    (found,) = updates_of({**hparams, "lr_scale": scale}, steps=1)
    np.testing.assert_allclose(found["encoder"]["bias"], -0.5 * GRADS["encoder"]["bias"])
    assert not found["encoder"]["kernel"].any()
    np.testing.assert_allclose(found["head"]["kernel"], -GRADS["head"]["kernel"])


# Learned optimizers need their weights.
@slowly(name for name, entry in optim.optimizers().items() if not entry.takes_total_steps)
def test_frozen_parameters_are_not_there_for_the_optimizer(name: str) -> None:
    """The rest trains as if it were alone; what is frozen has no memory, and keeps every bit."""
    optimizer = optim.build({"optimizer": name, "freeze": "^encoder/"}, total_steps=50)
    alone = optim.build({"optimizer": name}, total_steps=50).tx
    head, head_grads = {"head": PARAMS["head"]}, {"head": GRADS["head"]}
    state, state_alone = optimizer.tx.init(PARAMS), alone.init(head)
    assert tree_bytes(state) == tree_bytes(state_alone)
    assert optimizer.describe.endswith("frozen /^encoder//")
    updates, _ = update(optimizer.tx, state)
    expected, _ = alone.update(
        head_grads,
        state_alone,
        head,
        value=jnp.asarray(0.9),
        grad=head_grads,
        value_fn=lambda head: loss_of({**PARAMS, **head}),
    )
    assert_same(updates["head"], expected["head"])
    for path, leaf in jax.tree_util.tree_leaves_with_path(PARAMS["encoder"]):
        added = leaf + updates["encoder"][path[0].key]
        assert np.asarray(added).tobytes() == np.asarray(leaf).tobytes()


def test_several_patterns_or_a_function_freeze() -> None:
    def biases(params: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.ndim == 1, params)

    for freeze in (["encoder/bias", "head/bias"], biases):
        (found,) = updates_of({"optimizer": "sgd", "freeze": freeze, **PLAIN}, steps=1)
        still = {path for path, leaf in paths_of(found) if not np.any(leaf)}
        assert still == {"encoder/bias", "head/bias"}


def test_what_is_frozen_does_not_decay_and_does_not_enter_the_norm() -> None:
    hparams = {"optimizer": "sgd", "lr": 1.0, "weight_decay": 0.1, "schedule": "constant"}
    (found,) = updates_of({**hparams, "freeze": "encoder/", "gradient_clip": 1e-3}, steps=1)
    assert not np.any(found["encoder"]["kernel"])
    clipped = jax.tree.map(
        lambda update, param: update + 0.1 * param, found["head"], PARAMS["head"]
    )
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(clipped)))
    assert norm == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(
    ("hparams", "match"),
    [
        ({"freeze": "encodr/"}, r"freeze='encodr/', which matches no parameter.*encoder/bias"),
        ({"freeze": ["head/", "encodr/"]}, r"freeze='encodr/', which matches no parameter"),
        ({"freeze": "."}, r"freezes every parameter.*Write for instance freeze="),
        ({"lr_scale": {"encodr/": 0.1}}, r"lr_scale='encodr/', which matches no parameter.*head/k"),
        ({"lr_scale": {"encoder/": 0.1}, "freeze": "encoder/"}, "lr_scale='encoder/', which match"),
    ],
)
def test_a_pattern_without_a_match_lists_the_paths(hparams: dict[str, Any], match: str) -> None:
    with pytest.raises(OptimizerError, match=match):
        optim.build(hparams, total_steps=50).tx.init(PARAMS)


@pytest.mark.parametrize(
    ("hparams", "match"),
    [
        ({"freeze": "("}, r"freeze='\('.*expected one or several regular expressions"),
        ({"freeze": 3}, r"freeze=3 .*Write for instance freeze="),
        ({"freeze": []}, r"freeze=\[\]; expected one or several"),
        ({"lr_scale": {"(": 0.1}}, r"lr_scale='\('.*expected a dict"),
        ({"lr_scale": 0.1}, r"lr_scale=0\.1 \(float\); expected a dict"),
        ({"lr_scale": {"encoder/": -1.0}}, r"lr_scale\['encoder/'\]=-1\.0"),
        ({"lr_scales": {"encoder/": 1.0}}, "Did you mean 'lr_scale'"),
    ],
)
def test_bad_values_say_what_to_write(hparams: dict[str, Any], match: str) -> None:
    with pytest.raises((OptimizerError, ValueError), match=match):
        optim.check_hparams(hparams)


def paths_of(tree: Any) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(p, simple=True, separator="/"), leaf) for p, leaf in leaves]


def assert_same(found: Any, expected: Any) -> None:
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), found, expected
    )


def test_which_parameters_are_frozen_is_known_of_one_optimizer_and_of_several() -> None:
    one = optim.build({"optimizer": "sgd", "freeze": "^encoder/"}, total_steps=5).tx
    parts = {"encoder": {"optimizer": "sgd", "freeze": "kernel"}, "head": {"optimizer": "sgd"}}
    several = optim.build({"optimizers": parts}, total_steps=5).tx
    none = optim.build({"optimizer": "sgd"}, total_steps=5).tx
    same = one._replace(init=one.init)

    def left(tx: Any) -> set[str]:
        return {path for path, _ in paths_of(trained_in(tx, PARAMS))}

    heads = {"head/kernel", "head/bias"}
    assert left(one) == left(same) == heads
    assert left(several) == {"encoder/bias", *heads}
    assert left(none) == left(optax.sgd(0.1)) == {path for path, _ in paths_of(PARAMS)}
    assert frozen_in(none, PARAMS) is None
