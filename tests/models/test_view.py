"""The `model` of a loss function."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltax.models._adapter import adapt
from boltax.models._calls import Call
from boltax.models._view import ModelView
from model_dummies import INPUTS, Autoencoder, Mlp, NnxMlp, NormDropout

KEY = jax.random.key(0)


def initialised(model_class: type, **hparams: object) -> ModelView:
    adapter = adapt(model_class, hparams)
    view = ModelView(adapter, adapter.empty(KEY), KEY, train=True, initializing=True)
    view(INPUTS)
    return view


def view_of(model_class: type, *, train: bool = True, **options: object) -> ModelView:
    view = initialised(model_class)
    return ModelView(view._adapter, view.variables, KEY, train=train, **options)


def test_keys_differ_by_name_order_and_step() -> None:
    adapter = adapt(Mlp, {})
    views = [ModelView(adapter, {}, jax.random.key(k), train=True) for k in (0, 1)]
    drawn = [view.rng(name) for view in views for name in ("default", "mix", "default", "mix")]
    assert len({jax.random.key_data(key).tobytes() for key in drawn}) == 8
    assert views[0].rng().dtype == KEY.dtype
    again = ModelView(adapter, {}, jax.random.key(0), train=True).rng()
    assert jax.random.key_data(again).tobytes() == jax.random.key_data(drawn[0]).tobytes()


def test_draws_for_one_purpose_do_not_move_those_for_another() -> None:
    adapter = adapt(Mlp, {})
    first, second = (ModelView(adapter, {}, KEY, train=True) for _ in range(2))
    first.rng("mix")
    assert jax.random.key_data(first.rng()).tolist() == jax.random.key_data(second.rng()).tolist()


def test_traced_hyperparameters_reach_the_loss() -> None:
    adapter = adapt(Mlp, {})

    @jax.jit
    @jax.grad
    def slope(alpha):
        return ModelView(adapter, {}, KEY, train=True, hparams={"a": alpha}).hparams["a"] ** 2

    assert float(slope(jnp.float32(3.0))) == 6.0


def test_hyperparameters_cannot_be_written() -> None:
    view = ModelView(adapt(Mlp, {}), {}, KEY, train=True, hparams={"a": 1})
    with pytest.raises(TypeError, match="does not support item assignment"):
        view.hparams["a"] = 2


def test_the_mode_is_there_and_can_be_overridden() -> None:
    view = view_of(NormDropout)
    assert view.train is True
    np.testing.assert_array_equal(view(INPUTS, train=False), view(INPUTS, False))
    assert np.any(view(INPUTS) != view(INPUTS))


def test_gradients_flow_through_the_parameters() -> None:
    view = initialised(Mlp)

    def penalty(params):
        model = ModelView(view._adapter, {"params": params}, KEY, train=True)
        return jnp.sum(model.params["Dense_0"]["kernel"] ** 2)

    grads = jax.grad(penalty)(view.params)
    np.testing.assert_array_equal(grads["Dense_0"]["kernel"], 2 * view.params["Dense_0"]["kernel"])


def test_methods_are_attributes() -> None:
    view = view_of(Autoencoder, train=False)
    codes = view.encode(INPUTS)
    np.testing.assert_array_equal(codes, view(INPUTS, method="encode"))
    np.testing.assert_array_equal(codes, view(INPUTS, method=Autoencoder.encode))
    np.testing.assert_array_equal(view.decode(codes), view(INPUTS))


@pytest.mark.parametrize("model_class, name", [(Mlp, "encode"), (Mlp, "init"), (NnxMlp, "eval")])
def test_other_attributes_say_what_there_is(model_class: type, name: str) -> None:
    with pytest.raises(
        AttributeError, match=rf"model\.{name}; expected a method of {model_class.__name__}"
    ):
        getattr(initialised(model_class), name)


def test_calls_are_recorded_in_initialisation_only() -> None:
    view = initialised(Autoencoder)
    view.encode(INPUTS, deterministic=True)
    shape = jax.ShapeDtypeStruct((6, 4), jnp.float32)
    assert view.calls[0] == Call((shape,), {}, None)
    assert view.calls[1] == Call((shape,), {"deterministic": True}, "encode")
    later = view_of(Autoencoder)
    later(INPUTS)
    assert later.calls == []


def test_a_model_that_is_not_called_has_no_parameters() -> None:
    view = ModelView(adapt(Mlp, {}), {}, KEY, train=True, initializing=True)
    assert view.params == {}
    assert view.calls == []


class Failing(nn.Module):
    """Raises in its own code."""

    def __call__(self, x, scale):
        raise KeyError("mine")


def test_an_exception_of_the_model_keeps_its_type() -> None:
    view = ModelView(adapt(Failing, {}), {}, KEY, train=True)
    with pytest.raises(KeyError, match="mine") as error:
        view(INPUTS, scale=jnp.ones(2))
    note = "(with args[0]: float32[6, 4], kwargs['scale']: float32[2])"
    assert error.value.__notes__ == [f"raised in a call of Failing {note}"]


def test_a_gradient_of_the_outputs_may_be_part_of_the_loss() -> None:
    view = view_of(NormDropout)

    @jax.jit
    def penalty(variables):
        model = ModelView(view._adapter, variables, KEY, train=True)
        slopes = jax.grad(lambda x: model(x, mutable=False).sum())(INPUTS)
        model(INPUTS)
        return jnp.sum(slopes**2), model.variables

    assert np.isfinite(penalty(view.variables)[0])
