import dataclasses
import functools
import json
import math
from pathlib import Path

import equinox as eqx
import flax.core
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import checkpoint_project as project
from boltax._base._options import CheckpointOptions, LoopOptions
from boltax.checkpoint._decode import decode
from boltax.checkpoint._encode import NotStored, encode
from boltax.checkpoint._names import Lookup
from boltax.errors import HyperparameterError
from boltax.models._functional import Functional
from boltax.models._vmap import Vmap

LOOKUP = Lookup(project.Trainer)

STORED = [
    (None, None),
    (True, True),
    (3, 3),
    (-(2**200), -(2**200)),
    (0.1, 0.1),
    ("text", "text"),
    ("__tuple__", "__tuple__"),
    ([1, [2]], [1, [2]]),
    ({}, {}),
    ({"a": {"b": 1}}, {"a": {"b": 1}}),
    ((3, (3,)), {"__tuple__": [3, {"__tuple__": [3]}]}),
    ((), {"__tuple__": []}),
    ({"__tuple__": [1]}, {"__key____tuple__": [1]}),
    ({"__key__x": 1, "x": 2}, {"__key____key__x": 1, "x": 2}),
    (math.inf, {"__float__": "inf"}),
    (-math.inf, {"__float__": "-inf"}),
    (Path("runs/x"), {"__path__": "runs/x"}),
    (np.dtype("int8"), {"__dtype__": "int8"}),
    (np.float32, {"__scalar_type__": "float32"}),
    (jnp.bfloat16.dtype.type, {"__scalar_type__": "bfloat16"}),
    (float, {"__type__": "float"}),
    (jnp.bfloat16, {"__name__": "jax.numpy:bfloat16"}),
    (nn.relu, {"__name__": "flax.linen:relu"}),
    (nn.BatchNorm, {"__name__": "flax.linen:BatchNorm"}),
    (optax.nadam, {"__name__": "optax:nadam"}),
    (project.Mlp, {"__name__": "trainer:Mlp"}),
    (project.swish, {"__name__": "trainer:swish"}),
    (project.Mode.EXACT, {"__enum__": ["trainer:Mode", "EXACT"]}),
    (jax.lax.Precision.HIGHEST, {"__enum__": ["jax.lax:Precision", "HIGHEST"]}),
    (NotStored("a trial"), {"__not_stored__": "a trial"}),
    (
        CheckpointOptions(keep_best=3),
        {
            "__dataclass__": {
                "name": "boltax:CheckpointOptions",
                "fields": {
                    "every_steps": None,
                    "every_minutes": 5,
                    "every_epochs": None,
                    "keep_last": 2,
                    "keep_best": 3,
                },
            }
        },
    ),
    (
        project.Widths(first=2),
        {
            "__dataclass__": {
                "name": "trainer:Widths",
                "fields": {"first": 2, "rest": {"__tuple__": [4, 4]}},
            }
        },
    ),
]


@pytest.mark.parametrize(("value", "stored"), STORED)
def test_a_value_has_one_form_as_json(value, stored):
    assert encode(value, "x", LOOKUP) == stored
    assert json.loads(json.dumps(stored, allow_nan=False)) == stored


@pytest.mark.parametrize(("value", "stored"), STORED)
def test_what_is_stored_comes_back_equal_and_of_the_same_type(value, stored):
    decoded = decode(stored, LOOKUP)
    assert decoded == value
    assert type(decoded) is type(value)
    if callable(value):
        assert decoded is value


def test_loop_options_come_back():
    options = LoopOptions(log_every=7, limit_val_batches=2)
    assert decode(encode(options, "loop", LOOKUP), LOOKUP) == options


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.1), float(np.float32(0.1))),
        (np.int64(3), 3),
        (np.bool_(False), False),
        (np.str_("a"), "a"),
        (jnp.bfloat16.dtype.type(0.5), 0.5),
        (flax.core.freeze({"a": 1}), {"a": 1}),
    ],
)
def test_scalars_and_mappings_become_those_of_python(value, expected):
    decoded = decode(json.loads(json.dumps(encode(value, "x", LOOKUP))), LOOKUP)
    assert decoded == expected
    assert type(decoded) is type(expected)


@pytest.mark.parametrize(
    "array",
    [
        np.array([[0.1, math.nan], [math.inf, -0.0]], np.float32),
        np.arange(6, dtype=np.int8).reshape(2, 3),
        np.zeros((0, 3), np.float16),
        np.array(True),
        jnp.array([0.1, 3.0], jnp.bfloat16),
        np.ones(1000),
    ],
)
def test_a_small_array_comes_back_bitwise(array):
    decoded = decode(json.loads(json.dumps(encode(array, "x", LOOKUP), allow_nan=False)), LOOKUP)
    assert (decoded.dtype, decoded.shape) == (array.dtype, array.shape)
    assert decoded.tobytes() == np.asarray(array).tobytes()


def test_nan_comes_back():
    assert math.isnan(decode(encode(math.nan, "x", LOOKUP), LOOKUP))


def test_a_partial_of_a_library_function_comes_back_and_is_not_called():
    value = functools.partial(nn.leaky_relu, negative_slope=0.2)
    decoded = decode(encode(value, "x", LOOKUP), LOOKUP)
    assert (decoded.func, decoded.args, decoded.keywords) == (
        value.func,
        value.args,
        value.keywords,
    )
    nested = functools.partial(nn.Dense, 4, kernel_init=nn.initializers.ones)
    assert decode(encode(nested, "x", LOOKUP), LOOKUP).keywords == nested.keywords


def local_function(x):
    return x


class LocalModule(nn.Module):
    """In a module that is not that of the trainer."""


MODULES = [
    nn.Dense(3),
    nn.Dense(3, use_bias=False, name="head"),
    nn.Sequential([nn.Conv(4, (3, 3)), nn.relu, nn.Sequential([project.Mlp(features=7)])]),
    nn.Dense(2, kernel_init=nn.initializers.zeros),
]


@pytest.mark.parametrize("module", MODULES)
def test_modules_of_linen_are_stored_by_class_and_fields(module):
    encoded = encode({"layers": [module]}, "x", LOOKUP)
    assert decode(json.loads(json.dumps(encoded)), LOOKUP) == {"layers": [module]}


def test_a_functional_is_stored_by_its_name_or_its_functions():
    assert encode(project.LINE, "x", LOOKUP) == {"__name__": "trainer:LINE"}
    other = dataclasses.replace(project.LINE, name="other")
    for model in (project.LINE, other, Vmap(other, in_axes=(0, None))):
        assert decode(encode(model, "x", LOOKUP), LOOKUP) == model
    with pytest.raises(HyperparameterError, match=r"x\.init = <function"):
        encode(Functional(lambda key: [], project.swish), "x", LOOKUP)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda x: x, r"x = <function <lambda>> \(function\), which cannot be stored"),
        (local_function, "module 'checkpoint_project', where the trainer is, has at its top level"),
        (nn.initializers.xavier_uniform(), "a function or class of jax, flax or optax"),
        (project.system, "a function or class of jax, flax or optax"),
        (functools.partial(project.swish, 1), "a partial of a function of jax, flax or optax"),
        (functools.partial(lambda x: x), "a partial of a function of jax, flax or optax"),
        (object(), r"x = <object object> \(object\)"),
        (eqx.nn.Linear(2, 2, key=jax.random.key(0)), "no module that is built already. Write its"),
        (LocalModule(), "or write its class and its arguments"),
        (project.Pair(1, 2), "Convert it to one of these"),
        ({1: "a"}, r"x as a key = 1 \(int\).*Write '1'"),
        ({1, 2}, "numbers, strings, lists"),
        (b"bytes", "numbers, strings, lists"),
        (1j, "numbers, strings, lists"),
        (np.ones(1001), "at most 1000 elements"),
        (np.array([1j]), "an array of real numbers"),
        (np.array([None]), "an array of real numbers"),
        (2**5000, "at most 1024 bits"),
        (jax.random.key(0), "an array of real numbers"),
        (project.os, r"x = <module 'os'"),
    ],
)
def test_what_cannot_be_stored_is_refused_in_three_parts(value, message):
    with pytest.raises(HyperparameterError, match=message) as caught:
        encode(value, "x", LOOKUP)
    assert str(caught.value).startswith("Received x")
    assert "; expected " in str(caught.value)
    assert " at 0x" not in str(caught.value)


def test_the_place_of_a_refused_value_is_named():
    value = {"layers": [{"act_fn": nn.relu}, {"act_fn": (lambda x: x,)}]}
    with pytest.raises(
        HyperparameterError, match=r"model_hparams\['layers'\]\[1\]\['act_fn'\]\[0\]"
    ):
        encode(value, "model_hparams", LOOKUP)


def test_a_lenient_store_keeps_what_can_be_kept():
    value = {"lr": 0.1, "tx": [optax.sgd, local_function], "trial": object()}
    decoded = decode(encode(value, "hparams", LOOKUP, lenient=True), LOOKUP)
    assert decoded == {
        "lr": 0.1,
        "tx": [optax.sgd, NotStored("<function local_function>")],
        "trial": NotStored("<object object>"),
    }
    assert encode(object(), "x", LOOKUP, lenient=True) == {"__not_stored__": "<object object>"}


@pytest.mark.parametrize("lenient", [False, True])
def test_a_value_that_contains_itself_is_refused(lenient):
    value = {}
    value["a"] = [value, value]
    if lenient:
        assert set(encode(value, "x", LOOKUP, lenient=True)) == {"__not_stored__"}
    else:
        with pytest.raises(HyperparameterError, match=r"at most 64 levels.*contain itself"):
            encode(value, "x", LOOKUP)
