"""How a call is told its mode, and what is called."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from boltax.errors import ModelError
from boltax.models._calls import (
    Call,
    abstract,
    constructor_parameters,
    explicit_mode,
    select_method,
    takes_mode,
    trace_abstractly,
    with_mode,
    without_mode,
)


def no_mode(x): ...
def by_train(x, train): ...
def by_training(x, *, training=False): ...
def by_is_training(x, is_training=True): ...
def by_deterministic(x, deterministic=None): ...
def by_running_average(x, use_running_average=None): ...
def by_anything(x, **kwargs): ...
def by_both(x, train=True, **kwargs): ...


MODES = [
    (no_mode, {}),
    (by_train, {"train": False}),
    (by_training, {"training": False}),
    (by_is_training, {"is_training": False}),
    (by_deterministic, {"deterministic": True}),
    (by_running_average, {"use_running_average": True}),
    (by_anything, {"train": False}),
    (by_both, {"train": False}),
    (nn.Dropout(0.5), {"deterministic": True}),
    (nn.Sequential([]), {}),
    (nnx.Sequential(), {}),
    (len, {}),
    (object(), {}),
]


@pytest.mark.parametrize("function, expected", MODES)
def test_the_mode_goes_to_who_takes_it(function, expected: dict) -> None:
    assert with_mode(function, (1,), {}, train=False) == expected
    assert with_mode(function, (1,), {}, train=True) == {k: not v for k, v in expected.items()}
    assert takes_mode(function) == bool(expected)


@pytest.mark.parametrize(
    "function, args, kwargs",
    [
        (by_train, (1, "mine"), {}),
        (by_train, (1,), {"train": "mine"}),
        (by_anything, (1,), {"deterministic": "mine"}),
        (by_both, (1,), {"train": "mine", "other": 1}),
    ],
)
def test_what_the_caller_says_wins(function, args: tuple, kwargs: dict) -> None:
    assert with_mode(function, args, kwargs, train=True) == kwargs


@pytest.mark.parametrize(
    "args, kwargs, expected",
    [
        ((1,), {}, None),
        ((1, False), {}, False),
        ((1,), {"train": True}, True),
        ((1,), {"deterministic": True}, False),
        ((1,), {"train": None}, None),
    ],
)
def test_an_explicit_mode_is_seen(args: tuple, kwargs: dict, expected: bool | None) -> None:
    assert explicit_mode(by_train, args, kwargs) is expected


def test_a_mode_that_is_not_taken_is_left_out() -> None:
    assert without_mode(no_mode, {"train": True, "mask": 1}) == {"mask": 1}
    assert without_mode(by_train, {"train": True, "mask": 1}) == {"train": True, "mask": 1}
    assert without_mode(by_anything, {"train": True}) == {"train": True}


class Counter:
    """An object with methods."""

    def __call__(self):
        return "called"

    def twice(self, x):
        return 2 * x


def test_methods_are_selected() -> None:
    counter = Counter()
    assert select_method(counter, None) is counter
    for method in ("twice", Counter.twice, Counter().twice):
        assert select_method(counter, method)(2) == 4
    assert select_method(counter, lambda module, x: module.twice(x))(3) == 6


def test_a_method_of_another_kind_is_refused() -> None:
    with pytest.raises(ModelError, match=r"method=3 of type int; expected .* Write model\(x, m"):
        select_method(Counter(), 3)


def test_constructor_parameters_leave_out_self() -> None:
    class WithOne:
        def __init__(self, size, *, rngs): ...

    assert list(constructor_parameters(WithOne)) == ["size", "rngs"]
    assert constructor_parameters(object) == {}


def test_abstract_keeps_what_is_no_array() -> None:
    tree = {"x": np.ones((2, 3), np.float32), "key": jax.random.key(0), "flag": True, "name": "a"}
    shapes = abstract(tree)
    assert shapes["x"] == jax.ShapeDtypeStruct((2, 3), jnp.float32)
    assert shapes["key"].dtype == tree["key"].dtype
    assert (shapes["flag"], shapes["name"]) == (True, "a")


def test_calls_are_traced_with_their_flags() -> None:
    calls = [Call((abstract(np.ones(3)), 2), {"flag": True}, "encode")]

    def function(calls):
        (call,) = calls
        assert (call.args[1], call.kwargs, call.method) == (2, {"flag": True}, "encode")
        return call.args[0][None]

    assert trace_abstractly(function, calls).shape == (1, 3)
