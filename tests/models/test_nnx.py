"""NNX behind the adapter: nothing of it is left in a compiled step; modes, streams, sown values."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from boltax._base._keys import fold_name
from boltax.errors import ModelError
from boltax.models._adapter import adapt
from boltax.models._bound import BoundModel
from boltax.models._view import ModelView
from model_dummies import INPUTS, Mlp, NnxExplicit, NnxMlp, NnxNormDropout

KEY = jax.random.key(0)


def make_step(adapter):
    def step(variables, inputs):
        def loss(params):
            view = ModelView(adapter, {**variables, "params": params}, KEY, train=True)
            return jnp.mean(view(inputs) ** 2), view.variables

        grads, new = jax.grad(loss, has_aux=True)(variables["params"])
        return {**new, "params": jax.tree.map(lambda p, g: p - g, variables["params"], grads)}

    return jax.jit(step)


def test_running_a_step_splits_and_merges_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    for name in ("split", "merge", "state", "update", "iter_graph"):
        original = getattr(nnx, name)
        monkeypatch.setattr(
            nnx, name, lambda *a, n=name, f=original, **k: (used.append(n), f(*a, **k))[1]
        )
    adapter = adapt(NnxNormDropout, {})
    variables, step = adapter.empty(KEY), make_step(adapter)
    variables = step(variables, INPUTS)
    assert {"split", "merge"} <= set(used)
    used.clear()
    for _ in range(3):
        variables = step(variables, INPUTS)
    assert used == []


def test_a_step_compiles_to_what_a_functional_one_does() -> None:
    adapter = adapt(NnxMlp, {})
    variables = adapter.empty(KEY)

    def by_hand(variables, inputs):
        def loss(p):
            hidden = nnx.relu(inputs @ p["first"]["kernel"] + p["first"]["bias"][None])
            return jnp.mean((hidden @ p["second"]["kernel"] + p["second"]["bias"][None]) ** 2)

        grads = jax.grad(loss)(variables["params"])
        return {"params": jax.tree.map(lambda p, g: p - g, variables["params"], grads)}

    costs = [
        f.lower(variables, INPUTS).compile().cost_analysis()
        for f in (make_step(adapter), jax.jit(by_hand))
    ]
    assert costs[0]["flops"] == costs[1]["flops"]
    assert costs[0]["bytes accessed"] == costs[1]["bytes accessed"]


def test_a_merge_leaves_the_template_as_it_was() -> None:
    adapter = adapt(NnxNormDropout, {})
    before = str(nnx.graphdef(adapter.model))
    make_step(adapter)(adapter.empty(KEY), INPUTS)
    adapter.bind(adapter.empty(KEY))
    assert str(nnx.graphdef(adapter.model)) == before
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(adapter.model))


def test_initial_values_are_those_of_the_constructor() -> None:
    streams = {name: fold_name(KEY, name) for name in ("default", "params", "dropout")}
    module = NnxMlp(rngs=nnx.Rngs(**streams))
    params = jax.jit(adapt(NnxMlp, {}).empty)(KEY)["params"]
    np.testing.assert_allclose(params["first"]["kernel"], module.first.kernel[...], rtol=1e-6)


def test_the_mode_of_a_call_may_be_given_as_in_linen() -> None:
    adapter = adapt(NnxNormDropout, {})
    variables = adapter.empty(KEY)
    view = ModelView(adapter, variables, KEY, train=True)
    expected = ModelView(adapter, variables, KEY, train=False)(INPUTS)
    np.testing.assert_array_equal(view(INPUTS, train=False), expected)
    np.testing.assert_array_equal(view(INPUTS, deterministic=True), expected)
    assert np.any(view(INPUTS) != expected)


@pytest.mark.parametrize("inputs", [(INPUTS, False), (INPUTS,)], ids=["position", "name"])
def test_an_explicit_mode_wins(inputs: tuple) -> None:
    adapter = adapt(NnxExplicit, {})
    view = ModelView(adapter, adapter.empty(KEY), KEY, train=True)
    kwargs = {} if len(inputs) == 2 else {"train": False}
    np.testing.assert_array_equal(view(*inputs, **kwargs), view(*inputs, **kwargs))


class Streams(nnx.Module):
    """Three dropouts that share a stream by name, and no argument `rngs` that is kept."""

    def __init__(self, *, rngs):
        self.a = nnx.Dropout(0.5, rngs=rngs)
        self.b = nnx.Dropout(0.5, rngs=rngs)
        self.stacked = stack(rngs)

    def __call__(self, x):
        @nnx.vmap(in_axes=(0, 0))
        def each(dropout, x):
            return dropout(x)

        return self.a(x), self.b(x), *each(self.stacked, jnp.stack([x, x]))


def stack(rngs):
    @nnx.split_rngs(splits=2)
    @nnx.vmap
    def make(rngs):
        return nnx.Dropout(0.5, rngs=rngs)

    return make(rngs)


def test_no_two_streams_share_a_key() -> None:
    adapter = adapt(Streams, {})
    view = ModelView(adapter, adapter.empty(KEY), KEY, train=True)
    outputs = [np.asarray(y) for y in view(jnp.ones((8, 8)))]
    assert len({y.tobytes() for y in outputs}) == len(outputs) == 4


class Plain(nnx.Module):
    """Takes no `rngs`."""

    def __init__(self, scale: float = 2.0):
        self.scale = nnx.Param(jnp.asarray(scale))

    def __call__(self, x):
        return x * self.scale[...]

    def half(self, x):
        return self(x) * 0.5


class Sowing(Plain):
    """Sows what it gets."""

    def __call__(self, x):
        self.sow(nnx.Intermediate, "inputs", x)
        return super().__call__(x)


def test_a_constructor_without_streams_works() -> None:
    adapter = adapt(Plain, {"scale": 3.0})
    variables = jax.jit(adapter.empty)(KEY)
    assert variables == {"params": {"scale": 3.0}}
    np.testing.assert_array_equal(adapter.bind(variables)(INPUTS), INPUTS * 3)


def test_sown_values_last_one_call_and_are_handed_out_on_request() -> None:
    adapter = adapt(Sowing, {})
    view = ModelView(adapter, adapter.empty(KEY), KEY, train=True)
    np.testing.assert_array_equal(view(INPUTS), INPUTS * 2)
    _, sown = view(INPUTS, mutable=["intermediates"])
    np.testing.assert_array_equal(sown["intermediates"]["inputs"][0], INPUTS)
    assert set(view.variables) == {"params"}


@pytest.mark.parametrize("method", ["half", Plain.half], ids=["name", "function"])
def test_methods_may_be_called(method) -> None:
    adapter = adapt(Plain, {})
    view = ModelView(adapter, adapter.empty(KEY), KEY, train=True)
    np.testing.assert_array_equal(view(INPUTS, method=method), INPUTS)
    np.testing.assert_array_equal(view.half(INPUTS), INPUTS)


class Lazy(nnx.Module):
    """Makes a variable in its first call, or loses one."""

    def __init__(self, *, adds: bool):
        self.adds = adds
        self.kept = nnx.Param(jnp.ones(()))

    def __call__(self, x):
        if self.adds:
            self.late = nnx.Cache(x)
        else:
            del self.kept
        return x


@pytest.mark.parametrize(
    "adds, message",
    [
        (True, r"with late \(Cache\), which a call added.*Create it in __init__"),
        (False, "without kept"),
    ],
)
def test_a_call_that_changes_the_graph_is_an_error(adds: bool, message: str) -> None:
    adapter = adapt(Lazy, {"adds": adds})
    with pytest.raises(ModelError, match=message):
        ModelView(adapter, adapter.empty(KEY), KEY, train=True)(INPUTS)


def test_binding_gives_the_module_itself_unless_it_needs_an_argument() -> None:
    plain, explicit = adapt(NnxMlp, {}), adapt(NnxExplicit, {})
    assert type(plain.bind(plain.empty(KEY))) is NnxMlp
    assert isinstance(explicit.bind(explicit.empty(KEY)), BoundModel)


def test_apply_fn_follows_the_keys_that_it_gets() -> None:
    adapter = adapt(NnxNormDropout, {})
    variables = adapter.empty(KEY)
    outputs = [
        adapter.apply_fn(variables, INPUTS, train=True, rngs={"dropout": jax.random.key(k)})
        for k in (0, 0, 1)
    ]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert np.any(outputs[0] != outputs[2])


def test_linen_and_nnx_modules_live_under_one_loss() -> None:
    def loss(model):
        return jnp.mean(model(INPUTS) ** 2)

    for model_class in (Mlp, NnxMlp):
        adapter = adapt(model_class, {})
        view = ModelView(adapter, adapter.empty(KEY), KEY, train=True, initializing=True)
        assert loss(view).shape == ()
        assert isinstance(view.params, dict)
    assert not issubclass(NnxMlp, nn.Module)
