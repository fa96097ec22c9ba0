"""What every kind of model has in common, and which models are refused."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from boltax._base._keys import fold_name
from boltax.errors import ModelError
from boltax.models._adapter import ModelAdapter, adapt
from boltax.models._linen import LinenAdapter
from boltax.models._nnx import NnxAdapter
from boltax.models._view import ModelView
from model_dummies import INPUTS, KINDS, Kind, Mlp, NnxMlp, NormDropout

KEY = jax.random.key(0)
EACH_KIND = pytest.mark.parametrize("name", KINDS)


def keys(name: str) -> jax.Array:
    return fold_name(KEY, name)


def init(adapter: ModelAdapter) -> Any:
    """Variables made as a trainer makes them: compiled."""

    @jax.jit
    def run(key, inputs):
        view = ModelView(adapter, adapter.empty(key), key, train=True, initializing=True)
        view(inputs)
        return view.variables

    return run(KEY, INPUTS)


@functools.cache
def built(name: str) -> tuple[Kind, ModelAdapter, Any]:
    """A row of the table with its adapter and variables."""
    kind = KINDS[name]
    adapter = adapt(kind.model_class, kind.hparams)
    return kind, adapter, init(adapter)


@functools.cache
def compiled_call(adapter: ModelAdapter, *, train: bool):
    @jax.jit
    def run(variables, key):
        view = ModelView(adapter, variables, key, train=train)
        return view(INPUTS), view.variables

    return run


def make_step(adapter: ModelAdapter, traces: list[None]):
    """A compiled training step, which notes when it is traced."""

    @jax.jit
    def step(variables, key):
        traces.append(None)

        def loss(params):
            view = ModelView(adapter, {**variables, "params": params}, key, train=True)
            return jnp.mean(view(INPUTS) ** 2), view.variables

        (value, new), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        params = jax.tree.map(lambda p, g: p - 0.1 * g, variables["params"], grads)
        return {**new, "params": params}, value

    return step


def call(adapter: ModelAdapter, variables: Any, key: jax.Array, *, train: bool):
    return compiled_call(adapter, train=train)(variables, key)


def assert_same(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def differs(a: Any, b: Any) -> bool:
    return any(
        not np.array_equal(x, y)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def assert_plain(tree: Any) -> None:
    if isinstance(tree, dict):
        assert all(type(key) is str for key in tree)
        for value in tree.values():
            assert_plain(value)
    else:
        assert_strong(tree)


def assert_strong(array: Any) -> None:
    assert isinstance(array, jax.Array)
    assert not array.weak_type


@EACH_KIND
def test_initialisation_gives_plain_dicts_of_arrays(name: str) -> None:
    kind, adapter, variables = built(name)
    assert set(variables) == {"params", *kind.collections, *kind.constants}
    assert jax.tree.leaves(variables["params"])
    if kind.is_functional:  # any container that the user made
        jax.tree.map(assert_strong, variables)
    else:
        assert_plain(variables)
    assert adapter.name == kind.module_class.__name__
    if isinstance(kind.module_class, type):
        assert isinstance(adapter.model, kind.module_class)


@EACH_KIND
def test_initialisation_is_a_function_of_the_key(name: str) -> None:
    _, adapter, variables = built(name)
    assert_same(init(adapter), variables)


@EACH_KIND
def test_training_is_traced_once_and_lowers_the_loss(name: str) -> None:
    kind, adapter, variables = built(name)
    traces: list[None] = []
    step, losses = make_step(adapter, traces), []
    for i in range(8):
        variables, loss = step(variables, jax.random.fold_in(KEY, i))
        losses.append(float(loss))
    assert len(traces) == 1
    assert np.isfinite(losses).all()
    assert kind.is_random or losses[-1] < losses[0]


@EACH_KIND
def test_every_parameter_has_a_gradient(name: str) -> None:
    _, adapter, variables = built(name)

    def loss(params):
        view = ModelView(adapter, {**variables, "params": params}, KEY, train=False)
        return jnp.sum(view(INPUTS) * jnp.arange(1.0, 7.0)[:, None] ** 2)

    grads = jax.jit(jax.grad(loss))(variables["params"])
    last_bias = [leaf for leaf in jax.tree.leaves(grads) if leaf.ndim == 1]
    assert jax.tree.structure(grads) == jax.tree.structure(variables["params"])
    assert any(np.any(leaf != 0) for leaf in last_bias)


@EACH_KIND
def test_a_training_call_changes_collections_and_an_evaluating_call_does_not(name: str) -> None:
    kind, adapter, variables = built(name)
    _, trained = call(adapter, variables, KEY, train=True)
    _, evaluated = call(adapter, variables, KEY, train=False)
    assert_same(evaluated, variables)
    assert_same(trained["params"], variables["params"])
    assert all(differs(trained[name], variables[name]) for name in kind.collections)


@EACH_KIND
def test_randomness_follows_the_key_in_training_and_is_absent_in_evaluation(name: str) -> None:
    kind, adapter, variables = built(name)
    train = [call(adapter, variables, jax.random.key(k), train=True)[0] for k in (0, 0, 1)]
    evaluated = [call(adapter, variables, jax.random.key(k), train=False)[0] for k in (0, 1)]
    assert_same(train[0], train[1])
    assert differs(train[0], train[2]) == kind.is_random
    assert_same(evaluated[0], evaluated[1])


@EACH_KIND
def test_two_calls_thread_collections_and_draw_anew(name: str) -> None:
    kind, adapter, variables = built(name)

    @jax.jit
    def run(variables):
        view = ModelView(adapter, variables, KEY, train=True)
        first, after_first = view(INPUTS), dict(view.variables)
        second = view(INPUTS)
        view(2 * INPUTS)  # the statistics of the same inputs may stay what they are
        return first, after_first, second, view.variables

    first, after_first, second, after_second = run(variables)
    assert differs(first, second) == kind.is_random
    assert all(differs(after_second[name], after_first[name]) for name in kind.collections)


@EACH_KIND
def test_a_call_may_discard_its_changes(name: str) -> None:
    _, adapter, variables = built(name)

    def run(variables):
        view = ModelView(adapter, variables, KEY, train=True)
        view(INPUTS, mutable=False)
        return view.variables

    assert_same(jax.jit(run)(variables), variables)


@EACH_KIND
def test_the_bound_model_evaluates(name: str) -> None:
    _, adapter, variables = built(name)
    expected, _ = call(adapter, variables, KEY, train=False)
    model = adapter.bind(variables)
    np.testing.assert_allclose(model(INPUTS), expected, rtol=1e-6)
    np.testing.assert_allclose(model(INPUTS), expected, rtol=1e-6)


@EACH_KIND
def test_apply_fn_takes_variables_and_inputs(name: str) -> None:
    _, adapter, variables = built(name)
    expected, _ = call(adapter, variables, KEY, train=False)
    mode = {"linen norm dropout": {"train": False}, "linen collection stream": {"training": False}}
    deterministic = {
        name: {"deterministic": True} for name in ("linen setup", "linen deterministic")
    }
    outputs = adapter.apply_fn(variables, INPUTS, **{**mode, **deterministic}.get(name, {}))
    np.testing.assert_allclose(outputs, expected, rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in KINDS if not KINDS[name].is_functional])
def test_variables_of_another_model_are_refused(name: str) -> None:
    _, adapter, variables = built(name)
    wrong = {**variables, "params": {"other": variables["params"]}}
    with pytest.raises(Exception, match=r"(?s)without params/|Could not find parameter"):
        ModelView(adapter, wrong, KEY, train=False)(INPUTS)


@EACH_KIND
def test_inputs_that_do_not_fit_are_described(name: str) -> None:
    _, adapter, variables = built(name)
    view = ModelView(adapter, variables, KEY, train=False)
    with pytest.raises(
        (TypeError, ValueError, nn.module.errors.FlaxError), match=r"shape|dot"
    ) as e:
        view(INPUTS[:, :3])
    assert f"raised in a call of {adapter.name} (with args[0]: float32[6, 3])" in e.value.__notes__


def test_adapters_are_chosen_by_the_class() -> None:
    assert isinstance(adapt(Mlp, {}), LinenAdapter)
    assert isinstance(adapt(NnxMlp, {}), NnxAdapter)


def test_a_partial_counts_as_its_class() -> None:
    adapter = adapt(functools.partial(Mlp, features=7), {})
    assert (adapter.name, adapter.model.features) == ("Mlp", 7)
    assert adapt(functools.partial(Mlp, features=7), {"features": 2}).model.features == 2


def test_a_linen_module_may_be_built_already() -> None:
    assert adapt(Mlp(features=4), {}).model.features == 4
    with pytest.raises(ModelError, match=r"(?s)Mlp that is built already.*Write model_class=Mlp"):
        adapt(Mlp(), {"features": 4})


def test_an_nnx_module_may_not_be_built_already() -> None:
    with pytest.raises(ModelError, match=r"(?s)NnxMlp of NNX that is built already; expected its"):
        adapt(NnxMlp(rngs=nnx.Rngs(0)), {})


@pytest.mark.parametrize("received", [int, "ResNet", lambda x: x, functools.partial(Mlp, 3)])
def test_what_is_no_model_is_refused(received: object) -> None:
    with pytest.raises(ModelError, match=r"(?s)model_class=.*expected a class of Flax Linen"):
        adapt(received, {})


@pytest.mark.parametrize("model_class", [Mlp, KINDS["nnx custom"].model_class])
def test_misspelt_hyperparameters_get_a_suggestion(model_class: type) -> None:
    with pytest.raises(ModelError, match=r"(?s)'feature'; expected.*Did you mean 'features'\?"):
        adapt(model_class, {"feature": 3})


def test_missing_hyperparameters_are_named() -> None:
    with pytest.raises(
        ModelError, match=r"expected features too.*Write model_hparams=\{'features'"
    ):
        adapt(nn.Dense, {})


def test_random_streams_are_no_hyperparameter() -> None:
    with pytest.raises(ModelError, match="boltax hands in rngs itself"):
        adapt(NnxMlp, {"rngs": nnx.Rngs(0)})


@pytest.mark.parametrize("base", [nn.Module, nnx.Module], ids=["linen", "nnx"])
def test_an_exception_of_the_constructor_keeps_its_type(base: type) -> None:
    class Broken(base):
        def __init__(self, size):
            raise KeyError(size)

    with pytest.raises(KeyError, match="3") as error:
        adapt(Broken, {"size": 3})
    assert any("the constructor of Broken" in note for note in error.value.__notes__)


def test_linen_and_nnx_take_the_same_options() -> None:
    for model_class in (NormDropout, KINDS["nnx norm dropout"].model_class):
        adapter = adapt(model_class, {})
        variables = init(adapter)
        outputs, changed = adapter.apply_fn(
            variables, INPUTS, train=True, rngs={"dropout": KEY}, mutable=["batch_stats"]
        )
        assert outputs.shape == (6, 3)
        assert list(changed) == ["batch_stats"]
