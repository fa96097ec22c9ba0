"""Equinox behind the adapter: the numbers are those of a bare program, and errors say why."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from boltax.errors import ModelError
from boltax.models._adapter import adapt
from boltax.models._calls import Call
from boltax.models._equinox import BoundEquinox, EquinoxAdapter
from boltax.models._summary import summarize
from boltax.models._view import ModelView
from boltax.models._vmap import Vmap
from dummies import Classifier, EqxMlp, classes, classifier, loader
from equinox_dummies import EqxBatched, EqxNormDropout, eqx_blocks
from model_dummies import EQX_MLP, INPUTS, Mlp

KEY = jax.random.key(0)
EQX = {"model_class": Vmap(EqxMlp)}


class Static(eqx.Module):
    """An array where nothing would train it."""

    inner: eqx.Module

    class Inner(eqx.Module):
        weight: jax.Array = eqx.field(static=True)

    def __init__(self, *, key):
        self.inner = self.Inner(jax.random.normal(key, (3,)))


class NoKey(eqx.Module):
    weight: jax.Array


class Forgets(EqxNormDropout):
    """Has BatchNorm, and gives no state back."""

    def __call__(self, x, state, *, key):
        return super().__call__(x, state, key=key)[0]


class Partly(EqxNormDropout):
    """Gives a part of its state back."""

    spare: eqx.nn.StateIndex

    def __init__(self, *, key):
        super().__init__(key=key)
        self.spare = eqx.nn.StateIndex(jnp.zeros(()))

    def __call__(self, x, state, *, key):
        return super().__call__(x, state.substate(self.norm), key=key)


def test_a_step_is_that_of_a_bare_equinox_program() -> None:
    adapter = adapt(Vmap(EqxNormDropout), {})
    variables = adapter.empty(KEY)
    module, state = eqx.nn.make_with_state(EqxNormDropout)(key=KEY)

    def bare(module, state, key):
        def loss(module, state):
            keys = jax.random.split(key, 6)
            call = jax.vmap(
                lambda x, s, k: module(x, s, key=k), (0, None, 0), (0, None), axis_name="batch"
            )
            out, state = call(INPUTS, state, keys)
            return jnp.mean(out**2), state

        (value, state), grads = eqx.filter_value_and_grad(loss, has_aux=True)(module, state)
        return value, eqx.apply_updates(module, jax.tree.map(lambda g: -0.1 * g, grads)), state

    def ours(variables, key):
        def loss(params):
            new = {**variables, "params": params}
            out, after = adapter.apply(new, (INPUTS,), {}, train=True, keys=lambda _: key)
            return jnp.mean(out**2), after

        (value, after), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        params = jax.tree.map(lambda p, g: p - 0.1 * g, variables["params"], grads)
        return value, {**after, "params": params}

    key = jax.random.key(5)
    value, module, state = eqx.filter_jit(bare)(module, state, key)
    mine, variables = jax.jit(ours)(variables, key)
    np.testing.assert_allclose(mine, value, rtol=1e-6)
    np.testing.assert_allclose(
        variables["params"]["dense"]["weight"], module.dense.weight, rtol=1e-5, atol=1e-7
    )
    mean, variance = state.get(module.norm.ema_state_index)
    stats = variables["batch_stats"]["norm"]["ema_state_index"]
    np.testing.assert_allclose(stats["0"], mean, rtol=1e-6)
    np.testing.assert_allclose(stats["1"], variance, rtol=1e-6)
    costs = [
        jax.jit(f).lower(*a).compile().cost_analysis()["flops"]
        for f, a in ((ours, (variables, key)), (_functional(bare, module, state), (key,)))
    ]
    assert costs[0] <= costs[1] * 1.001


def _functional(bare, module, state):
    arrays, static = eqx.partition((module, state), eqx.is_array)

    def run(key, arrays=arrays):
        value, new, state = bare(*eqx.combine(arrays, static), key)
        return value, eqx.filter((new, state), eqx.is_array)

    return jax.jit(lambda key: run(key, jax.lax.optimization_barrier(arrays)))


def test_arrays_are_split_from_what_is_static() -> None:
    adapter = adapt(EqxBatched, {"size": 3})
    variables = adapter.empty(KEY)
    assert set(variables["params"]) == {"weight", "bias"}
    assert variables["arrays"]["order"].dtype == jnp.int32
    assert variables["state"] == {"calls": 0}
    assert all(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(adapter.model.weight))
    module, _ = eqx.nn.make_with_state(EqxBatched)(3, key=KEY)
    np.testing.assert_array_equal(variables["params"]["weight"], module.weight)


def test_batch_norms_averages_are_averaged_once_more_and_its_counted_sums_are_not() -> None:
    assert set(adapt(Vmap(EqxNormDropout), {}).empty(KEY)) == {"params", "batch_stats"}
    counted = adapt(Vmap(EqxNormDropout), {"mode": "batch"}).empty(KEY)
    assert set(counted) == {"params", "state"}
    assert set(counted["state"]["norm"]) == {"batch_counter", "batch_state_index"}


def test_a_function_makes_a_model_with_or_without_its_state() -> None:
    def with_state(features, *, key):
        return eqx.nn.make_with_state(EqxNormDropout)(features, key=key)

    one, other = (adapt(Vmap(f), {"features": 2}) for f in (with_state, EqxNormDropout))
    jax.tree.map(np.testing.assert_array_equal, one.empty(KEY), other.empty(KEY))
    assert isinstance(one, EquinoxAdapter)
    assert one.name == "with_state"


def test_a_method_is_called_as_it_takes_its_arguments() -> None:
    adapter = adapt(EqxBatched, {"size": 3})
    variables = adapter.empty(KEY)
    view = ModelView(adapter, variables, KEY, train=True)
    expected = adapter.bind(variables).encode(INPUTS)
    np.testing.assert_allclose(view.encode(INPUTS), expected, rtol=1e-6)
    np.testing.assert_allclose(view(INPUTS, method=EqxBatched.encode), expected, rtol=1e-6)
    np.testing.assert_allclose(view(INPUTS, train=False), expected, rtol=1e-6)
    with pytest.raises(AttributeError, match=r"model\.weight; expected a method of EqxBatched"):
        _ = view.weight


def test_a_bound_model_is_an_equinox_module() -> None:
    hparams = {"width_size": 5, "depth": 1, "in_size": 4, "out_size": 3}
    plain = adapt(eqx.nn.MLP, hparams)
    bound = plain.bind(plain.empty(KEY))
    assert type(bound) is eqx.nn.MLP
    made = eqx.nn.MLP(**hparams, key=KEY)
    np.testing.assert_array_equal(bound.layers[0].weight, made.layers[0].weight)
    adapter = adapt(Vmap(EqxNormDropout), {})
    model = adapter.bind(adapter.empty(KEY))
    assert isinstance(model, BoundEquinox)
    assert isinstance(model, eqx.Module)
    assert isinstance(model.unwrapped, EqxNormDropout)
    assert model.norm.inference
    np.testing.assert_allclose(eqx.filter_jit(model)(INPUTS), model(INPUTS), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "hparams", "message"),
    [
        (
            Static,
            {},
            r"Static of Equinox, whose static field inner\.weight .* \(float32\[3\]\)",
        ),
        (NoKey, {"weight": 1.0}, r"NoKey of Equinox, whose constructor takes no key; expected one"),
        (EqxMlp, {"key": KEY}, "boltax hands in key itself"),
        (EqxMlp, {"featurs": 2}, r"expected one of: dropout, features"),
        (
            lambda size, *, key: key,
            {"size": 3},
            "from the function <lambda>; expected",
        ),
        (Vmap(Mlp), {}, r"Received Vmap\(Mlp\); expected an Equinox model"),
        (EqxMlp(key=KEY), {}, r"EqxMlp of Equinox that is built already; expected its class"),
    ],
)
def test_models_that_cannot_be_trained_are_refused(make, hparams, message) -> None:
    with pytest.raises(ModelError, match=rf"(?s){message}.*(Write|Leave|Did you mean)"):
        adapt(make, hparams)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Forgets, "no eqx.nn.State from Forgets"),
        (Partly, "State of the whole model"),
    ],
)
def test_state_that_does_not_come_back_is_an_error(make, message) -> None:
    adapter = adapt(Vmap(make), {})
    view = ModelView(adapter, adapter.empty(KEY), KEY, train=True)
    with pytest.raises(ModelError, match=message):
        view(INPUTS)


def test_a_users_own_vmap_is_refused_only_where_keys_or_state_would_be_wrong() -> None:
    adapter = adapt(EqxMlp, {})
    view = ModelView(adapter, adapter.empty(KEY), KEY, train=True)
    with pytest.raises(ModelError, match=r"inside of jax.vmap.*models.Vmap\(EqxMlp"):
        jax.vmap(view, axis_name="batch")(INPUTS)
    plain = adapt(eqx.nn.Linear, {"in_features": 4, "out_features": 3})
    variables = plain.empty(KEY)

    def loss(params):
        own = ModelView(plain, {"params": params}, KEY, train=True)
        return jnp.sum(jax.vmap(own)(INPUTS))

    expected = np.asarray(INPUTS).sum(0)
    grads = jax.grad(loss)(variables["params"])["weight"]
    np.testing.assert_allclose(grads, np.tile(expected, (3, 1)), rtol=1e-5)
    dropout = adapt(lambda *, key: eqx.nn.Dropout(0.5), {})
    view = ModelView(dropout, dropout.empty(KEY), KEY, train=True)
    with pytest.raises(RuntimeError, match="requires a key"):
        jax.vmap(view)(INPUTS)
    keys = jax.random.split(KEY, 6)
    rows = jax.vmap(lambda x, key: view(x, key=key, mutable=False))(jnp.ones((6, 4)), keys)
    assert len({tuple(row) for row in np.asarray(rows).tolist()}) > 1


@pytest.mark.parametrize(
    ("model", "note"),
    [
        (eqx.nn.MLP, r"If MLP takes one example, .* model_class=boltax.models.Vmap\(MLP\)"),
        (Vmap(EqxNormDropout, "axis"), "EqxNormDropout is mapped under 'axis'"),
    ],
)
def test_a_forgotten_vmap_and_another_axis_are_explained(model, note) -> None:
    adapter = adapt(model, EQX_MLP if model is eqx.nn.MLP else {})
    view = ModelView(adapter, adapter.empty(KEY), KEY, train=True)
    with pytest.raises((TypeError, NameError)) as error:
        view(INPUTS)
    assert any(re.search(note, text) for text in error.value.__notes__)


def test_the_summary_shows_modules_with_shapes_of_one_example() -> None:
    adapter = adapt(Vmap(EqxNormDropout), {})
    text = summarize(adapter, Call((jax.ShapeDtypeStruct((6, 4), "float32"),), {}))
    (row,) = [line for line in text.splitlines() if "BatchNorm" in line]
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "norm", "BatchNorm", "float32[8]", "float32[8]", "weight: float32[8]"
    ]  # fmt: skip
    assert "Total Parameters: 83 (332 B)" in text
    assert "BatchNorm" not in summarize(adapter, Call((INPUTS,), {}), depth=0)
    assert eqx.nn.BatchNorm.__call__.__module__.startswith("equinox")


def test_a_trainer_freezes_scales_and_loads_by_path_and_remakes_the_model(tmp_path) -> None:
    hparams = {"optimizer": "sgd", "lr": 0.1, "schedule": "constant", "gradient_clip": None}
    own = {**hparams, "freeze": "^first/weight", "lr_scale": {"last/": 0.5}}
    trainers = [
        classifier(tmp_path, model_hparams={"dropout": 0.0}, optimizer_hparams=o, **EQX)
        for o in (hparams, own)
    ]
    before = jax.device_get(trainers[0].state.params)
    for trainer in trainers:
        trainer.train_model([classes(12)], num_epochs=1)
    whole, part = (jax.device_get(t.state.params) for t in trainers)
    np.testing.assert_array_equal(part["first"]["weight"], before["first"]["weight"])
    steps = [(p["last"]["bias"] - before["last"]["bias"]) for p in (whole, part)]
    np.testing.assert_allclose(steps[1], 0.5 * steps[0], rtol=1e-5)
    again = Classifier.load_from_checkpoint(trainers[1].log_dir)
    outputs = [trainer.bind_model()(classes(5)[0]) for trainer in (again, trainers[1])]
    np.testing.assert_array_equal(*outputs)
    trainers[0].load_weights(trainers[1].log_dir, only=["params"])
    loaded = trainers[0].state.params["last"]["weight"]
    np.testing.assert_array_equal(loaded, part["last"]["weight"])


def test_a_resumed_run_is_bitwise_the_uninterrupted_one(tmp_path) -> None:
    hparams = {"optimizer": "adam", "lr": 0.1, "schedule": "constant"}
    whole, part = (classifier(tmp_path, optimizer_hparams=hparams, **EQX) for _ in range(2))
    whole.train_model([classes(12)], num_epochs=2)
    part.train_model([classes(12)], num_epochs=1)
    again = Classifier.load_from_checkpoint(part.log_dir)
    again.train_model([classes(12)], num_epochs=2, resume=True)
    for name in ("params", "batch_stats", "opt_state", "step"):
        jax.tree.map(
            np.testing.assert_array_equal, getattr(again.state, name), getattr(whole.state, name)
        )


def test_a_library_class_is_stored_by_its_name(tmp_path) -> None:
    hparams = {**EQX_MLP, "activation": jax.nn.tanh}
    trainer = classifier(tmp_path, model_class=Vmap(eqx.nn.MLP), model_hparams=hparams)
    trainer.train_model([classes(12)], num_epochs=1)
    again = Classifier.load_from_checkpoint(trainer.log_dir)
    assert again.model_class == Vmap(eqx.nn.MLP)
    expected = trainer.predict_model(loader(6, 6))
    np.testing.assert_array_equal(again.predict_model(loader(6, 6)), expected)


def test_ten_layers_keep_their_order() -> None:
    adapter = adapt(Vmap(eqx_blocks), {"depth": 11})
    variables = adapter.empty(KEY)
    expected = jax.vmap(eqx_blocks(11, key=KEY))(INPUTS)
    np.testing.assert_allclose(adapter.bind(variables)(INPUTS), expected, rtol=1e-5)
    assert optax.tree.size(variables["params"]) == 12 * 20
