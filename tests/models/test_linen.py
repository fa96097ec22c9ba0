"""Linen behind the adapter: initialisation as Flax does it, collections, streams, modes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import errors as flax_errors
from flax.core import freeze

from boltax.errors import ModelError
from boltax.models._adapter import adapt
from boltax.models._linen import LinenAdapter
from boltax.models._view import ModelView
from model_dummies import INPUTS, KINDS, Autoencoder, Kind, NormDropout

KEY = jax.random.key(0)
STREAMS = {"params": jax.random.key(1), "dropout": jax.random.key(2), "noise": jax.random.key(3)}
LINEN = {name: kind for name, kind in KINDS.items() if kind.is_linen}


def init(adapter: LinenAdapter, *calls: str | None, **kwargs):
    variables = {}
    for method in calls or (None,):
        _, variables = adapter.apply(
            variables,
            (INPUTS,),
            kwargs,
            train=True,
            keys=STREAMS.__getitem__,
            method=method,
            initializing=True,
        )
    return variables


def assert_same(a, b) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("kind", LINEN.values(), ids=LINEN)
def test_initialisation_equals_that_of_flax(kind: Kind) -> None:
    adapter = adapt(kind.model_class, kind.hparams, rng_streams=("noise",))
    mode = {
        "linen norm dropout": {"train": True},
        "linen collection stream": {"training": True},
        "linen setup": {"deterministic": False},
        "linen deterministic": {"deterministic": False},
    }.get(next(name for name, row in LINEN.items() if row is kind), {})
    expected = adapter.model.init(STREAMS, INPUTS, **mode)
    assert_same(init(adapter), expected)


def test_several_initialising_calls_make_the_variables_of_one() -> None:
    adapter = adapt(Autoencoder, {})
    variables = init(adapter, "encode")
    assert list(variables["params"]) == ["encoder"]
    _, variables = adapter.apply(
        variables,
        (jnp.ones((1, 2)),),
        {},
        train=True,
        keys=STREAMS.__getitem__,
        method="decode",
        initializing=True,
    )
    assert_same(variables, init(adapter))


def test_an_initialising_call_leaves_what_exists() -> None:
    adapter = adapt(NormDropout, {})
    assert_same(init(adapter, None, None), init(adapter))


def test_a_submodule_may_be_called_by_name() -> None:
    view = ModelView(adapt(Autoencoder, {}), {}, KEY, train=True, initializing=True)
    assert view(INPUTS, method="encoder").shape == (6, 2)
    assert list(view.params) == ["encoder"]


class Sowing(nn.Module):
    """Sows into a collection of its own and into Flax's, and keeps a carry that is a tuple."""

    @nn.compact
    def __call__(self, x):
        carry = self.variable("carry", "state", lambda: (jnp.zeros(3), jnp.zeros(3)))
        x = self.perturb("hidden", nn.Dense(3)(x))
        self.sow("losses", "size", jnp.sum(x**2))
        self.sow("intermediates", "hidden", x)
        if not self.is_initializing():
            carry.value = (x.mean(0), carry.value[0])
        return x


def test_what_is_sown_is_no_variable() -> None:
    variables = init(adapt(Sowing, {}))
    assert set(variables) == {"params", "carry"}


def test_what_is_sown_is_handed_out_on_request() -> None:
    adapter = adapt(Sowing, {})
    view = ModelView(adapter, init(adapter), KEY, train=True)
    outputs, sown = view(INPUTS, mutable=["losses", "intermediates"])
    assert outputs.shape == (6, 3)
    assert set(sown) == {"losses", "intermediates"}
    assert len(sown["losses"]["size"]) == 1
    assert set(view.variables) == {"params", "carry"}
    assert view(INPUTS).shape == (6, 3)


def test_other_batch_sizes_follow_a_perturbation() -> None:
    adapter = adapt(Sowing, {})
    assert ModelView(adapter, init(adapter), KEY, train=True)(INPUTS[:2]).shape == (2, 3)


def test_a_collection_that_is_asked_for_changes_in_evaluation_too() -> None:
    adapter = adapt(Sowing, {})
    variables = init(adapter)
    view = ModelView(adapter, variables, KEY, train=False)
    _, changed = view(INPUTS, mutable=["carry"])
    assert_same(view.variables["carry"], changed["carry"])
    assert np.any(view.variables["carry"]["state"][0] != 0)


class Growing(nn.Module):
    """Changes the shape of its state."""

    @nn.compact
    def __call__(self, x):
        state = self.variable("state", "last", lambda: jnp.zeros(1))
        if not self.is_initializing():
            state.value = jnp.concatenate([state.value, jnp.zeros(1)])
        return nn.Dense(1)(x)


def test_a_state_that_changes_its_shape_is_an_error() -> None:
    adapter = adapt(Growing, {})
    view = ModelView(adapter, init(adapter), KEY, train=True)
    with pytest.raises(
        ModelError, match=r"(?s)'state' of Growing after.*float32\[2\].*float32\[1\]"
    ):
        view(INPUTS)


class Unguarded(nn.Module):
    """Writes to its state in evaluation too, and asks for a variable in training only."""

    is_late: bool = False

    @nn.compact
    def __call__(self, x):
        if self.is_late and not self.is_initializing():
            self.variable("late", "value", lambda: jnp.zeros(1))
        count = self.variable("state", "count", lambda: jnp.zeros((), jnp.int32))
        count.value = count.value + 1
        return nn.Dense(1)(x)


def test_writing_in_evaluation_says_what_to_write() -> None:
    adapter = adapt(Unguarded, {})
    view = ModelView(adapter, init(adapter), KEY, train=False)
    with pytest.raises(flax_errors.ModifyScopeVariableError, match="state") as error:
        view(INPUTS)
    assert any("Guard the update by your train argument" in note for note in error.value.__notes__)


def test_a_variable_that_initialisation_did_not_make_says_what_to_write() -> None:
    adapter = adapt(Unguarded, {"is_late": True})
    view = ModelView(adapter, init(adapter), KEY, train=True)
    with pytest.raises(flax_errors.FlaxError, match="late") as error:
        view(INPUTS)
    assert any("make every call of the model there" in note for note in error.value.__notes__)


class Old(nn.Module):
    """Is told its mode by a field and by which streams there are."""

    deterministic: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.Dropout(0.5, deterministic=self.deterministic)(x)
        return nn.Dropout(0.5, deterministic=not self.has_rng("dropout"))(x)


def test_a_field_may_tell_the_mode() -> None:
    adapter = adapt(Old, {})
    np.testing.assert_array_equal(ModelView(adapter, {}, KEY, train=False)(INPUTS), INPUTS)
    assert np.any(ModelView(adapter, {}, KEY, train=True)(INPUTS) != INPUTS)
    np.testing.assert_array_equal(adapter.bind({})(INPUTS), INPUTS)


def test_a_field_that_the_user_chose_stays() -> None:
    adapter = adapt(Old, {"deterministic": False})
    assert np.any(ModelView(adapter, {}, KEY, train=False)(INPUTS) != INPUTS)


class Weighted(nn.Module):
    """Starts its parameters from a stream of its own, boxed for sharding."""

    @nn.compact
    def __call__(self, x):
        ones = nn.with_partitioning(nn.initializers.ones, ("in", "out"))
        kernel = self.param("kernel", ones, (x.shape[-1], 2))
        self.variable("noise", "start", lambda: jax.random.normal(self.make_rng("start"), (2,)))
        return x @ kernel


def test_named_streams_are_independent_and_boxes_are_opened() -> None:
    named, unnamed = adapt(Weighted, {}, rng_streams=("start",)), adapt(Weighted, {})
    views = [ModelView(a, {}, KEY, train=True, initializing=True) for a in (named, unnamed)]
    for view in views:
        view(INPUTS)
        assert isinstance(view.params["kernel"], jax.Array)
    starts = [view.variables["noise"]["start"] for view in views]
    assert not np.array_equal(*starts)


def test_frozen_variables_are_taken() -> None:
    adapter = adapt(NormDropout, {})
    view = ModelView(adapter, dict(freeze(init(adapter))), KEY, train=True)
    assert view(INPUTS).shape == (6, 3)
