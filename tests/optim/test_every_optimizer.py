"""The contract that every optimizer keeps: builds by name, trains, keeps types, compiles once.

It resumes bitwise, too, and trains members of a population side by side.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from boltax import optim
from boltax.checkpoint._arrays import read_arrays, write_arrays
from boltax.errors import OptimizerError

PARAMS: dict[str, Any] = {
    "Dense_0": {
        "kernel": np.linspace(-2.0, 2.0, 6).reshape(3, 2).astype(jnp.bfloat16),
        "bias": np.full(2, 0.5, np.float32),
    }
}

# Step-size estimates that start from next to nothing are given a start that shows in a few steps.
HEAD_START = {
    "dadapt_adamw": {"estim_lr0": 1e-2},
    "dog": {"init_step": ["distance", 0.1]},
    "prodigy": {"estim_lr0": 1e-2},
}
WITHOUT_LR = {"lbfgs", "polyak_sgd"}
EXACTLY_DECOUPLED = sorted(
    name
    for name, entry in optim.optimizers().items()
    if entry.has_decay
    and name not in {"dadapt_adamw", "lamb", "momo", "momo_adam", "novograd", "prodigy"}
)
DEFINED_BY_METHOD = ["dadapt_adamw", "lamb", "momo", "momo_adam", "novograd", "prodigy"]
# Learned optimizers need their weights; `test_learned.py` has their contract.
LEARNED = {name for name, entry in optim.optimizers().items() if entry.takes_total_steps}
WITHOUT_DECAY = sorted(
    name
    for name, entry in optim.optimizers().items()
    if not entry.has_decay and name not in LEARNED
)
every_optimizer = pytest.mark.parametrize("name", sorted(optim.optimizers().keys() - LEARNED))
# What takes a compilation more for each is left to the slow tests, but for a few of all kinds.
QUICK = {"adamw", "lbfgs", "muon", "noisy_sgd", "prodigy", "rprop", "schedule_free_sgd", "sgd"}
every_optimizer_slowly = pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(optim.optimizers().keys() - LEARNED)
    ],
)


def hparams_of(name: str, **more: Any) -> dict[str, Any]:
    default_lr = optim.optimizers()[name].default_lr
    lr = {} if name in WITHOUT_LR else {"lr": max(default_lr, 1e-2)}
    return {"optimizer": name, **lr, **HEAD_START.get(name, {}), **more}


def loss_of(params: Any) -> jax.Array:
    leaves = [leaf.astype(jnp.float32) for leaf in jax.tree.leaves(params)]
    return sum((jnp.sum(jnp.square(leaf - 0.25)) for leaf in leaves), start=jnp.zeros(()))


def step_function(
    tx: optax.GradientTransformationExtraArgs, traces: list[int]
) -> Callable[[Any, Any], Any]:
    def step(params: Any, state: Any) -> Any:
        traces.append(1)
        return update_of(tx)(params, state)

    return jax.jit(step)


def update_of(tx: optax.GradientTransformationExtraArgs) -> Callable[[Any, Any], Any]:
    def update(params: Any, state: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_of)(params)
        extra = {"value": loss, "loss": loss, "grad": grads, "value_fn": loss_of}
        updates, state = tx.update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), state, updates, loss

    return update


def dtypes(tree: Any) -> list[Any]:
    return [leaf.dtype for leaf in jax.tree.leaves(tree)]


def train(step: Any, params: Any, state: Any, steps: int) -> tuple[Any, Any, list[Any]]:
    losses: list[Any] = []
    for _ in range(steps):
        params, state, _, loss = step(params, state)
        losses.append(loss)
    return params, state, losses


def restored(folder: Path, tree: Any) -> Any:
    """A tree as a resume checkpoint gives it back."""
    folder.mkdir()
    write_arrays(folder, "arrays", tree)
    return read_arrays(folder, "arrays", template=jax.tree.map(jnp.asarray, tree))


def compiled(name: str) -> tuple[Any, Any, list[int]]:
    """The optimizer, a step with it, and a list that has an item for each time it was traced."""
    tx, traces = optim.build(hparams_of(name), total_steps=50).tx, list[int]()
    return tx, step_function(tx, traces), traces


def bits(tree: Any) -> list[np.ndarray]:
    leaves = jax.tree.leaves(tree)
    is_key = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    raw = [jax.random.key_data(x) if key else x for x, key in zip(leaves, is_key, strict=True)]
    return [np.asarray(leaf) for leaf in raw]


@every_optimizer
def test_trains_keeps_types_compiles_once_and_resumes_bitwise(name: str, tmp_path: Path) -> None:
    tx, step, traces = compiled(name)
    state = tx.init(PARAMS)
    before = dtypes(state)
    *saved, first = train(step, PARAMS, state, 3)
    *final, last = train(step, *saved, 3)
    *resumed, _ = train(step, *restored(tmp_path / "saved", saved), 3)
    assert last[-1] < first[0]
    assert [dtypes(tree) for tree in final] == [dtypes(PARAMS), before]
    assert all(map(np.array_equal, bits(resumed), bits(final)))
    assert len(traces) == 1


# Those whose learning rate is not in the state, so that the members of a population share it.
SHARED_LR = {
    "lbfgs": "its line search finds it",
    "polyak_sgd": "it has none",
    "rprop": "it is read once, where the state is made",
}


def with_lr(state: Any, lr: float) -> Any:
    """The state of a member with this learning rate."""

    def replace(path: Any, leaf: Any) -> Any:
        is_lr = jax.tree_util.keystr(path).endswith((".base", ".hyperparams['learning_rate']"))
        return jnp.asarray(lr, leaf.dtype) if is_lr else leaf

    return jax.tree_util.tree_map_with_path(replace, state)


@every_optimizer_slowly
def test_members_of_a_population_are_single_runs(name: str) -> None:
    """Members that differ in their start and learning rate are the same program, one axis wider."""
    tx, step, traces = compiled(name)
    starts = [jax.tree.map(lambda leaf, k=k: jnp.asarray(leaf) * k, PARAMS) for k in (1.0, 0.5)]
    states = [tx.init(params) for params in starts]
    if name not in SHARED_LR:
        states[1] = with_lr(states[1], 0.5 * hparams_of(name)["lr"])
    members = list(zip(starts, states, strict=True))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    together = train(jax.jit(jax.vmap(update_of(tx))), *stacked, 3)[0]
    for index, member in enumerate(members):
        single = train(step, *member, 3)[0]
        for leaf, expected in zip(*map(jax.tree.leaves, (together, single)), strict=True):
            found = leaf[index].astype(jnp.float32)
            np.testing.assert_allclose(found, expected.astype(jnp.float32), rtol=1e-2, atol=1e-5)
    assert len(traces) == 1


@every_optimizer
def test_learning_rate_is_readable(name: str) -> None:
    state = optim.build(hparams_of(name, gradient_clip=1.0), total_steps=50).tx.init(PARAMS)
    found = optim.learning_rate(state)
    if name == "polyak_sgd":  # it has none
        assert found is None
    elif name == "lbfgs":  # that of the line search
        assert found is not None
        assert found == 1.0
    else:
        assert found == pytest.approx(hparams_of(name)["lr"])


@every_optimizer
def test_defaults_can_be_built_for_a_run_of_known_length(name: str) -> None:
    optimizer = optim.build({"optimizer": name}, total_steps=50)
    assert optimizer.describe.startswith(name)
    assert optimizer.l2_regularization == 0.0


# Optimizer x {nothing, weight_decay, l2_regularization, both}: what is applied is the formula, or
# an error says what to write.


def two_updates(name: str, tx: optax.GradientTransformation, l2: float = 0.0) -> list[Any]:
    """Two updates in a row at the same parameters: what enters a momentum shows in the second.

    With `l2` as the steps of a trainer have it, whose loss holds the penalty.
    """
    tx, keys = optax.with_extra_args_support(tx), optim.optimizers()[name].needs
    params = {"kernel": jnp.asarray([[1.0, -2.0], [3.0, 0.5]]), "bias": jnp.asarray([2.0, -1.0])}
    grads = {"kernel": jnp.asarray([[0.3, 0.2], [-0.1, 0.4]]), "bias": jnp.asarray([0.1, 0.2])}
    if l2:
        of_penalty = jax.grad(optim.l2_penalty)(params, l2)
        grads = jax.tree.map(jnp.add, grads, of_penalty)
    state, found = tx.init(params), []
    for _ in range(2):
        extra = {"value": jnp.asarray(0.9), "grad": grads, "value_fn": loss_of, "obj_fn": loss_of}
        updates, state = tx.update(grads, state, params, **{key: extra[key] for key in keys})
        found.append(updates)
    return found


def constant(name: str, **more: Any) -> dict[str, Any]:
    more = {"gradient_clip": None, **more}
    return hparams_of(name, **({} if name in WITHOUT_LR else {"schedule": "constant"}), **more)


@functools.cache
def plain_updates(name: str) -> list[Any]:
    """`two_updates` of the optimizer alone, which several tests compare with."""
    return two_updates(name, optim.build(constant(name), None).tx)


def arguments_of_optax(name: str) -> dict[str, Any]:
    entry = optim.optimizers()[name]
    start = HEAD_START.get(name, {})
    lr = {"learning_rate": hparams_of(name)["lr"]} if name not in WITHOUT_LR else {}
    return {**lr, **start, **entry.presets}


@every_optimizer
def test_nothing_decays_unless_asked(name: str) -> None:
    entry = optim.optimizers()[name]
    off = {"weight_decay": 0.0} if entry.decay == "argument" else {}
    plain = entry.factory(**arguments_of_optax(name), **off)
    with jax.numpy_dtype_promotion("standard"):
        expected = two_updates(name, plain)
    found = plain_updates(name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), found, expected)


@pytest.mark.parametrize("name", EXACTLY_DECOUPLED)
def test_weight_decay_is_decoupled_and_scaled_by_the_learning_rate(name: str) -> None:
    plain = plain_updates(name)
    decayed = two_updates(name, optim.build(constant(name, weight_decay=0.1), None).tx)
    params = {"kernel": np.asarray([[1.0, -2.0], [3.0, 0.5]]), "bias": np.asarray([2.0, -1.0])}
    # Schedule-free methods average their iterates, so that only the first update is the bare one.
    for one, other in list(zip(plain, decayed, strict=True))[: 1 if "free" in name else 2]:
        for key, value in params.items():
            expected = -hparams_of(name)["lr"] * 0.1 * value
            np.testing.assert_allclose(other[key] - one[key], expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", DEFINED_BY_METHOD)
def test_weight_decay_follows_the_method_where_it_defines_its_own(name: str) -> None:
    plain = optim.optimizers()[name].factory(**arguments_of_optax(name), weight_decay=0.1)
    with jax.numpy_dtype_promotion("standard"):
        expected = two_updates(name, plain)
    found = two_updates(name, optim.build(constant(name, weight_decay=0.1), None).tx)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), found, expected)


@pytest.mark.parametrize("name", WITHOUT_DECAY)
def test_weight_decay_is_an_error_where_there_is_none(name: str) -> None:
    with pytest.raises(OptimizerError, match=r"Write .*l2_regularization=0\.1"):
        optim.check_hparams(hparams_of(name, weight_decay=0.1))


@every_optimizer
def test_l2_is_in_the_gradients_once_and_alone(name: str) -> None:
    """The optimizer of optax, given ``g + c * p``, does the same."""
    entry = optim.optimizers()[name]
    optimizer = optim.build(constant(name, l2_regularization=0.1), total_steps=50)
    assert optimizer.l2_regularization == 0.1
    off = {"weight_decay": 0.0} if entry.decay == "argument" else {}
    plain = entry.factory(**arguments_of_optax(name), **off)
    with jax.numpy_dtype_promotion("standard"):
        by_hand = two_updates(name, _with_coupled(plain, 0.1))
    found = two_updates(name, optimizer.tx, l2=optimizer.l2_regularization)
    # fromage takes a difference of parameters near 3: its updates are exact to their last bit only.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=5e-7)
    jax.tree.map(close, found, by_hand)
    with pytest.raises(OptimizerError, match="shrink the parameters twice"):
        optim.build(hparams_of(name, l2_regularization=0.1, weight_decay=0.1), total_steps=50)


def _with_coupled(tx: optax.GradientTransformation, l2: float) -> optax.GradientTransformation:
    tx = optax.with_extra_args_support(tx)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        updates = jax.tree.map(lambda grad, param: grad + l2 * param, updates, params)
        return tx.update(
            updates, state, params, **(extra | {"grad": updates} if "grad" in extra else extra)
        )

    return optax.GradientTransformationExtraArgs(tx.init, update)


@every_optimizer
def test_decay_mask_spares_biases_or_says_that_it_cannot(name: str) -> None:
    entry = optim.optimizers()[name]
    masked = constant(name, weight_decay=0.1, decay_mask="kernels")
    if not entry.takes_mask:
        with pytest.raises(OptimizerError, match=r"Write|Leave decay_mask out"):
            optim.check_hparams(masked)
        return
    plain = plain_updates(name)[0]
    decayed = two_updates(name, optim.build(masked, None).tx)[0]
    np.testing.assert_allclose(decayed["bias"], plain["bias"], rtol=1e-6)
    assert not np.allclose(decayed["kernel"], plain["kernel"], rtol=1e-4)
