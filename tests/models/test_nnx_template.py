"""Taking NNX modules apart: which leaf goes where, and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from boltax.errors import ModelError
from boltax.models._nnx_template import make_template, mark_arrays

KEY = jax.random.key(0)


class LowRank(nnx.LoRAParam):
    """A subclass of a subclass of Param."""


class HTTPCount(nnx.Variable):
    """A name with capitals in a row."""


class Everything(nnx.Module):
    """Every way to hold an array."""

    def __init__(self):
        self.low_rank = LowRank(jnp.ones(2))
        self.count = HTTPCount(jnp.zeros((), jnp.int32))
        self.cache = nnx.Cache(jnp.zeros(3))
        self.statistic = nnx.BatchStat(jnp.ones(1))
        self.nothing = nnx.Param(None)
        self.traced = jnp.arange(3.0) * 2.0
        self.fixed = np.arange(4, dtype=np.float32)
        self.number = nnx.data(1.5)
        self.inside = nnx.data({"a": [jnp.ones(2)]})
        self.items = nnx.List([jnp.zeros(1), nnx.Param(jnp.ones(2))])
        self.rngs = nnx.Rngs(0)
        self.text = "static"


def build() -> nnx.Module:
    return mark_arrays(Everything())


def test_every_leaf_has_its_collection() -> None:
    template, _ = make_template("Everything", build)
    variables = jax.jit(lambda: template.variables(build()))()
    shapes = jax.tree.map(jnp.shape, variables, is_leaf=lambda leaf: isinstance(leaf, jax.Array))
    assert shapes == {
        "params": {"low_rank": (2,), "items": {"1": (2,)}},
        "http_count": {"count": ()},
        "cache": {"cache": (3,)},
        "batch_stats": {"statistic": (1,)},
        "arrays": {
            "traced": (3,),
            "fixed": (4,),
            "number": (),
            "inside": {"a": {"0": (2,)}},
            "items": {"0": (1,)},
        },
    }


def test_a_module_comes_back_with_its_variables() -> None:
    template, _ = make_template("Everything", build)
    variables = jax.jit(lambda: template.variables(build()))()
    module = template.module(variables, lambda _: KEY)
    assert module.text == "static"
    assert module.nothing.get_value() is None
    np.testing.assert_array_equal(module.traced, [0.0, 2.0, 4.0])
    again = template.variables(module)
    jax.tree.map(np.testing.assert_array_equal, again, variables)


def test_the_abstract_module_holds_shapes() -> None:
    _, model = make_template("Everything", build)
    assert model.traced.shape == (3,)
    assert model.low_rank.get_value() == jax.ShapeDtypeStruct((2,), jnp.float32)


def test_streams_start_from_the_given_keys() -> None:
    template, _ = make_template("Everything", build)
    variables = template.variables(build())
    modules = [template.module(variables, lambda _, k=k: jax.random.key(k)) for k in (0, 0, 1)]
    draws = [float(jax.random.uniform(module.rngs())) for module in modules]
    assert draws[0] == draws[1] != draws[2]


def test_variables_that_lack_a_leaf_are_an_error() -> None:
    template, _ = make_template("Everything", build)
    variables = template.variables(build())
    del variables["cache"]
    with pytest.raises(ModelError, match=r"without cache/cache; .* has only: params,"):
        template.module(variables, lambda _: KEY)
