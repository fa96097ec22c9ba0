"""Variables come from one run on the example; what does not fit is explained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltax._step._initialise import call_model, first_keys, forward_bytes, initialise
from boltax.errors import LossError
from boltax.models._adapter import adapt
from dummies import Mlp, NnxMlp, classes

EXAMPLE = classes(4)[:1]
KEY = jax.random.key(3)
KINDS = pytest.mark.parametrize("model", [Mlp, NnxMlp], ids=["linen", "nnx"])


def made(model, run=call_model, example=EXAMPLE, **options):
    given = {"hparams": {}, "traced_hparams": {}, **options}
    return initialise(adapt(model, {}), run, example, KEY, **given)


@KINDS
def test_a_run_on_the_example_makes_the_variables(model):
    variables, calls = made(model)
    kernels = [x for x in jax.tree.leaves(variables["params"]) if x.ndim == 2]
    assert sorted(kernel.shape for kernel in kernels) == [(4, 8), (8, 3)]
    assert all(np.asarray(kernel).std() > 0.1 for kernel in kernels)
    (call,) = calls
    assert call.args[0].shape == (4, 4)


@KINDS
def test_the_same_key_makes_the_same_variables_and_shapes_cost_no_numbers(model):
    one, other = made(model)[0], made(model)[0]
    jax.tree.map(np.testing.assert_array_equal, one, other)
    shapes, _ = made(model, is_abstract=True)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), one) == jax.tree.map(
        lambda x: (x.shape, x.dtype), shapes
    )
    assert {type(leaf) for leaf in jax.tree.leaves(shapes)} == {jax.ShapeDtypeStruct}


def test_the_loss_sees_hyperparameters_and_only_those_that_vary_are_traced():
    seen = {}

    def run(view, example):
        seen.update(view.hparams)
        view(*example)

    made(Mlp, run, hparams={"scale": 0.5, "name": "a"}, traced_hparams={"scale": jnp.float32(0.5)})
    assert seen["name"] == "a"
    assert isinstance(seen["scale"], jax.core.Tracer)


def test_an_example_that_does_not_fit_is_described():
    def run(view, example):
        return view(example[0]) @ jnp.ones((5, 5))

    with pytest.raises(LossError, match=r"TypeError.*exmp_input\[0\]: float32\[4, 4\]") as raised:
        made(Mlp, run)
    assert "return view(example[0]) @ jnp.ones((5, 5))" in str(raised.value)
    assert "as the loader gives it" in str(raised.value)


def test_an_attribute_that_is_not_there_yet_is_noted():
    def run(view, example):
        raise AttributeError("'Trainer' object has no attribute 'scale'")

    with pytest.raises(AttributeError, match="scale") as raised:
        made(Mlp, run)
    assert any("must be set before super().__init__()" in note for note in raised.value.__notes__)


@pytest.mark.parametrize("seed", [0, 42, 2**31 - 1])
def test_first_keys_are_the_halves_of_the_seed(seed):
    for found, wanted in zip(first_keys(seed), jax.random.split(jax.random.key(seed)), strict=True):
        np.testing.assert_array_equal(jax.random.key_data(found), jax.random.key_data(wanted))


def test_a_pass_is_measured_without_being_run():
    def run(view, example):
        return view(example[0])

    small = forward_bytes(adapt(Mlp, {}), run, EXAMPLE, {})
    wide = (np.zeros((400, 4), np.float32),)
    assert forward_bytes(adapt(Mlp, {}), run, wide, {}) > 20 * small > 0


@KINDS
@pytest.mark.parametrize("again", [False, True], ids=["once", "again outside"])
def test_a_model_may_be_called_first_in_the_body_of_a_loop(model, again):
    def run(view, example):
        def body(total, x):
            return total + view(x[None], mutable=False).sum(), None

        total, _ = jax.lax.scan(body, jnp.float32(0), example[0])
        return total + (view(example[0]).sum() if again else 0.0)

    variables, calls = made(model, run)
    jax.tree.map(np.testing.assert_array_equal, variables["params"], made(model)[0]["params"])
    assert calls[0].args[0].shape == (1, 4)
