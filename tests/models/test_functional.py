"""Plain functions as models: what they take is read from their arguments, and checked."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.example_libraries import stax

from boltax.errors import CheckpointError, ModelError
from boltax.models._adapter import adapt
from boltax.models._calls import Call
from boltax.models._functional import Functional
from boltax.models._summary import summarize
from boltax.models._view import ModelView
from boltax.models._vmap import Vmap
from dummies import Classifier, classes, classifier
from functional_dummies import NET, NOISY, STAX, Net, noisy, noisy_init
from model_dummies import INPUTS

KEY = jax.random.key(0)


def initial(model, hparams=None):
    adapter = adapt(model, hparams or {})
    view = ModelView(adapter, adapter.empty(KEY), KEY, train=True, initializing=True)
    view(INPUTS)
    return adapter, view.variables


def test_the_outputs_are_those_of_the_functions() -> None:
    adapter, variables = initial(Vmap(STAX))
    w, b, w2, b2 = (np.asarray(x) for x in jax.tree.leaves(variables["params"]))
    expected = np.maximum(np.asarray(INPUTS) @ w + b, 0) @ w2 + b2
    np.testing.assert_allclose(adapter.bind(variables)(INPUTS), expected, rtol=1e-4, atol=1e-6)
    assert [type(part) for part in variables["params"]] == [tuple] * 3
    adapter, variables = initial(Vmap(NET), {"width": 7})
    assert type(variables["params"]) is Net
    assert variables["params"].layers[0].weight.shape == (4, 7)
    expected = [NET.apply(variables["params"], x) for x in INPUTS]
    np.testing.assert_allclose(adapter.bind(variables)(INPUTS), np.stack(expected), rtol=1e-5)


def test_init_gets_one_example_where_the_model_takes_one() -> None:
    shapes = []

    def init(key, x):
        shapes.append(x.shape)
        return [jnp.ones(x.shape)]

    initial(Vmap(Functional(init, lambda params, x: params[0] * x)))
    assert shapes == [(4,)]


def test_names_and_parameters_before_the_inputs() -> None:
    assert (NET.__name__, STAX.__name__, NOISY.__name__) == ("net", "Functional", "noisy")
    assert NOISY.leading == ["state", "key"]
    assert STAX.key_name == "rng"


@pytest.mark.parametrize(
    ("init", "apply", "message"),
    [
        (noisy_init, lambda params, state, x: x, r"a ArrayImpl.* from apply.*\(outputs, state\)"),
        (lambda key, x: [jnp.ones(3)], noisy, r"apply takes state; expected \(params, state\)"),
        (lambda key: {"n": 3}, lambda params, x: x, r"params\['n'\] of int from init"),
        (lambda key: ["relu"], lambda params, x: x, r"params\[0\] of str from init"),
        (
            noisy_init,
            lambda params, state, x: (x, {**state, "more": x}),
            r"the collection 'state' .* after a call as .*Have apply return a state",
        ),
        (
            noisy_init,
            lambda params, state, x: (x, {**state, "calls": jnp.ones(2, jnp.int32)}),
            r"state\['calls'\]: int32\[2\].*expected it to be as before",
        ),
    ],
)  # fmt: skip
def test_functions_that_do_not_fit_are_refused(init, apply, message) -> None:
    with pytest.raises(ModelError, match=f"(?s){message}"):
        initial(Functional(init, apply))


def test_misspelt_hyperparameters_pairs_and_methods_are_told() -> None:
    with pytest.raises(ModelError, match=r"'widht'; expected.*Did you mean 'width'"):
        adapt(Vmap(NET), {"widht": 3})
    with pytest.raises(ModelError, match=r"model_class=boltax.models.Functional\(init, apply\)"):
        adapt(stax.Relu, {})
    adapter, variables = initial(NOISY)
    view = ModelView(adapter, variables, KEY, train=False)
    with pytest.raises(ModelError, match="a pair of plain functions; expected a call of the model"):
        view(INPUTS, method="encode")


def test_the_summary_is_a_table_of_the_parameters() -> None:
    text = summarize(adapt(STAX, {}), Call((jax.ShapeDtypeStruct((6, 4), "float32"),), {}))
    assert "params/2/1" in text
    assert "43 (172 B)" in text
    assert "no table" not in text


HPARAMS = {"optimizer": "adamw", "lr": 0.1, "schedule": "constant", "decay_mask": "weight$"}


def test_a_trainer_of_named_tuples_freezes_decays_stores_and_comes_back(tmp_path) -> None:
    hparams = {**HPARAMS, "weight_decay": 0.1, "lr_scale": {"bias": 2}, "freeze": "^layers/0/w"}
    trainer = classifier(tmp_path, Functionals, Vmap(NET), optimizer_hparams=hparams)
    before = jax.device_get(trainer.state.params)
    data = classes(12)
    trainer.train_model([data], num_epochs=1)
    after = jax.device_get(trainer.state.params)
    np.testing.assert_array_equal(after.layers[0].weight, before.layers[0].weight)
    (weight, bias), grads = after.layers[1], jax.grad(_loss)(before, data).layers[1]
    start = before.layers[1]
    # the first step of Adam is the sign of the gradient; the decay is 0.1 * 0.1 of the weights
    step = 0.1 * np.sign(grads.weight) * (np.abs(grads.weight) > 1e-6)
    np.testing.assert_allclose(weight, start.weight * 0.99 - step, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(bias, start.bias - 0.2 * np.sign(grads.bias), rtol=1e-3, atol=1e-4)
    again = Functionals.load_from_checkpoint(trainer.log_dir)
    assert again.model_class == Vmap(NET)
    jax.tree.map(np.testing.assert_array_equal, again.state.params, trainer.state.params)
    again.train_model([data], num_epochs=2, resume=True)
    assert int(again.state.step) == 2


def _loss(params, batch):
    logits = jax.vmap(lambda x: NET.apply(params, x))(batch[0])
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()


class Functionals(Classifier):
    """In this module, whose names a run may look up."""


def test_state_and_keys_train_and_evaluate(tmp_path) -> None:
    trainer = classifier(tmp_path, Functionals, NOISY)
    trainer.train_model([classes(12)] * 3, num_epochs=1)
    assert int(trainer.state.collections["state"]["calls"]) == 3
    model = trainer.bind_model()
    x = classes(5)[0]
    ((weight, bias),) = trainer.state.params
    expected = x @ np.asarray(weight) + np.asarray(bias)
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(trainer.predict_model([(x,)]), model(x), rtol=1e-5)


def test_functions_without_a_name_are_told_before_training_and_asked_for_at_loading(
    tmp_path, capsys
) -> None:
    model = Functional(lambda key: [jnp.ones((4, 3))], lambda params, x: x @ params[0])
    trainer = classifier(tmp_path, Functionals, model, enable_progress_bar=True)
    text = " ".join(capsys.readouterr().out.split())
    assert "Received model_class.init = <function" in text
    assert "load_from_checkpoint(folder, model_class=...)" in text
    trainer.train_model([classes(12)], num_epochs=1)
    with pytest.raises(CheckpointError, match=r"load_from_checkpoint\(folder, model_class=\.\.\."):
        Functionals.load_from_checkpoint(trainer.log_dir)
    again = Functionals.load_from_checkpoint(trainer.log_dir, model_class=model)
    np.testing.assert_array_equal(again.state.params[0], trainer.state.params[0])


def test_transformed_pairs_of_haiku_train_with_their_state_and_keys(tmp_path) -> None:
    hk = pytest.importorskip("haiku")

    def forward(x, is_training):
        x = hk.Linear(4, name="first")(x)
        mean = hk.get_state("mean", (4,), init=jnp.zeros)
        if is_training:
            hk.set_state("mean", 0.9 * mean + 0.1 * x.mean(0))
            x = x + jax.random.normal(hk.next_rng_key(), x.shape)
        return hk.Linear(3, name="last")(jax.nn.relu(x - mean[None]))

    pair = hk.transform_with_state(forward)
    trainer = classifier(tmp_path, model_class=Functional(*pair), optimizer_hparams={"lr": 0.01})
    trainer.train_model([classes(12)], [classes(6)], num_epochs=1)
    params, (state,) = trainer.state.params, trainer.state.collections.values()
    assert {name: params[name]["w"].shape for name in params} == {"first": (4, 4), "last": (4, 3)}
    assert all(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(state))  # training moves it
    inputs = classes(5)[0]
    expected, _ = pair.apply(params, state, None, inputs, False)  # by Haiku alone
    np.testing.assert_allclose(trainer.predict_model([(inputs,)]), expected, rtol=1e-4, atol=1e-6)
    plain = hk.without_apply_rng(hk.transform(lambda x: jnp.tanh(hk.Linear(3)(x))))
    adapter, variables = initial(Functional(*plain))
    expected = plain.apply(variables["params"], INPUTS)
    np.testing.assert_allclose(adapter.bind(variables)(INPUTS), expected, rtol=1e-6)
