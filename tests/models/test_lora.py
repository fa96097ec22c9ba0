"""Low-rank pairs: what they compute, that they alone train, and that they leave merged."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import boltax as bx
from boltax.errors import ModelError
from boltax.models._adapter import adapt
from boltax.models._lora import Lora
from boltax.models._summary import summarize
from boltax.models._view import ModelView
from boltax.models._vmap import Vmap
from boltax.tune import Population
from dummies import Classifier, Plain, classes, classifier, to_host
from model_dummies import INPUTS, KINDS

KEY = jax.random.key(0)
SGD = {"optimizer": "sgd", "lr": 0.1, "schedule": "constant", "gradient_clip": None}
PATTERNS = {
    "linen norm dropout": "Dense_0/kernel",
    "nnx norm dropout": "dense/kernel",
    "equinox norm dropout": "dense/weight",
    "functional mapped": "layers/0/weight",
}


def initial(model, hparams=None, make=lambda run: jax.jit(run)(KEY)):
    adapter = adapt(model, hparams or {})

    def run(key):
        view = ModelView(adapter, adapter.empty(key), key, train=True, initializing=True)
        view(INPUTS)
        return view.variables

    return adapter, make(run)


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pair_begins_as_no_change_and_adds_its_product(name: str) -> None:
    kind = KINDS[name]
    plain, own = initial(kind.model_class, kind.hparams)
    adapter, variables = initial(Lora(kind.model_class, PATTERNS[name], 2, 6.0), kind.hparams)
    jax.tree.map(np.testing.assert_array_equal, variables["base"], own["params"])
    (pair,) = _pairs(variables["params"])
    sides = {name: np.any(np.asarray(pair[name])) for name in ("a", "b")}
    assert sides == ({"a": False, "b": True} if "equinox" in name else {"a": True, "b": False})
    expected = plain.bind(own)(INPUTS)
    np.testing.assert_array_equal(adapter.bind(variables)(INPUTS), expected)
    rng = np.random.default_rng(0)
    new = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), variables["params"]
    )
    (pair,) = _pairs(new)
    change = 3.0 * np.asarray(pair["a"]) @ np.asarray(pair["b"])  # 6 / 2
    merged = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf + change if _path(path) == PATTERNS[name] else leaf, own["params"]
    )
    variables = {**variables, "params": new}
    expected = plain.bind({**own, "params": merged})(INPUTS)
    np.testing.assert_allclose(adapter.bind(variables)(INPUTS), expected, rtol=1e-4, atol=1e-5)
    view = ModelView(adapter, variables, KEY, train=False)
    np.testing.assert_allclose(jax.jit(view)(INPUTS), expected, rtol=1e-4, atol=1e-5)


def _pairs(params):
    if set(params) == {"a", "b"}:
        return [params]
    return [pair for child in params.values() for pair in _pairs(child)]


def _path(path):
    return jax.tree_util.keystr(path, simple=True, separator="/")


def test_weights_of_more_axes_are_split_where_the_sides_are_small() -> None:
    class Convolutions(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(16, (3, 3))(x.reshape(-1, 2, 2, 1))
            x = nn.Conv(4, (3, 3))(x).reshape(-1, 4, 4)
            return nn.MultiHeadDotProductAttention(2)(x)

    lora = Lora(Convolutions, ("Conv_1/kernel", "query|out"), rank=1)
    _, variables = initial(lora, make=lambda run: jax.eval_shape(run, KEY))
    pairs = variables["params"]
    shapes = {name: leaf.shape for name, leaf in pairs["Conv_1"]["kernel"].items()}
    assert shapes == {"a": (144, 1), "b": (1, 4)}
    attention = pairs["MultiHeadDotProductAttention_0"]
    assert set(attention) == {"query", "out"}
    assert attention["query"]["kernel"]["a"].shape == (4, 1)
    assert attention["out"]["kernel"]["b"].shape == (1, 4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A plain run, and one that trains pairs beside its weights."""
    folder = tmp_path_factory.mktemp("lora")
    plain = classifier(folder, model_class=Plain, optimizer_hparams=SGD, seed=1)
    plain.train_model([classes(12)], num_epochs=1)
    trainer = classifier(
        folder, model_class=Lora(Plain, "Dense_0/kernel", 2), optimizer_hparams=SGD
    )
    trainer.load_weights(plain.log_dir)
    before = to_host(trainer.state.replace(rng=None))
    trainer.train_model([classes(12)], num_epochs=1)
    return plain, trainer, before


def test_pairs_alone_train_by_the_gradient_of_the_formula(trained) -> None:
    plain, trainer, before = trained
    base = before.collections["base"]
    jax.tree.map(np.testing.assert_array_equal, base, jax.device_get(plain.state.params))
    jax.tree.map(np.testing.assert_array_equal, trainer.state.collections["base"], base)
    pair = before.params["Dense_0"]["kernel"]

    def loss(params):
        inputs, labels = classes(12)
        logits = Plain().apply({"params": params}, inputs)
        return -jax.nn.log_softmax(logits)[jnp.arange(12), labels].mean()

    grad = np.asarray(jax.grad(loss)(base)["Dense_0"]["kernel"])
    new = trainer.state.params["Dense_0"]["kernel"]
    # d loss / d B = alpha / rank * A^T G, and that of A is 0 while B is
    np.testing.assert_allclose(new["b"], -0.1 * 8.0 * pair["a"].T @ grad, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(new["a"], pair["a"])
    assert sum(leaf.size for leaf in jax.tree.leaves(trainer.state.params)) == 6 * 2 + 2 * 3


def test_it_comes_back_goes_on_and_is_bound_merged(trained) -> None:
    _, trainer, before = trained
    again = Classifier.load_from_checkpoint(trainer.log_dir)
    assert again.model_class == Lora(Plain, "Dense_0/kernel", 2)
    for name in ("params", "collections"):
        jax.tree.map(
            np.testing.assert_array_equal, getattr(again.state, name), getattr(trainer.state, name)
        )
    pair = trainer.state.params["Dense_0"]["kernel"]
    kernel = before.collections["base"]["Dense_0"]["kernel"]
    expected = kernel + 8.0 * np.asarray(pair["a"]) @ np.asarray(pair["b"])
    bound = trainer.bind_model().unwrapped.variables["params"]["Dense_0"]["kernel"]
    np.testing.assert_allclose(bound, expected, rtol=1e-5, atol=1e-6)
    inputs = classes(5)[0]
    outputs = trainer.predict_model([(inputs,)])
    np.testing.assert_allclose(trainer.bind_model()(inputs), outputs, rtol=1e-4, atol=1e-5)


def test_it_is_exported_merged(trained, tmp_path) -> None:
    pytest.importorskip("flatbuffers")
    _, trainer, _ = trained
    folder = trainer.export(tmp_path / "exported")
    weights = load_file(folder / "weights.safetensors")
    assert set(weights) == {f"params/Dense_{n}/{w}" for n in (0, 1) for w in ("kernel", "bias")}
    bound = trainer.bind_model().unwrapped.variables["params"]
    np.testing.assert_array_equal(weights["params/Dense_0/kernel"], bound["Dense_0"]["kernel"])
    assert json.loads((folder / "signature.json").read_text())["arrays"] == 4
    from boltax._export._standalone import load

    inputs = classes(5)[0]
    expected = trainer.predict_model([(inputs,)])
    np.testing.assert_allclose(load(folder)(inputs), expected, rtol=1e-4, atol=1e-5)


def test_half_precision_rounds_the_sum_and_not_its_parts(tmp_path) -> None:
    loop = bx.LoopOptions(precision="bf16")
    trainer = classifier(tmp_path, model_class=Lora(Plain, "kernel", 1), loop=loop)
    trainer.train_model([classes(12)], num_epochs=1)
    assert trainer.state.params["Dense_0"]["kernel"]["a"].dtype == jnp.float32
    bound = trainer.bind_model()(classes(5)[0])
    np.testing.assert_allclose(trainer.predict_batch((classes(5)[0],)), bound, rtol=0.05, atol=0.05)


def test_the_summary_says_what_trains() -> None:
    adapter, _ = initial(Lora(Plain, "kernel", 1))
    from boltax.models._calls import Call

    text = summarize(adapter, Call((jax.ShapeDtypeStruct((6, 4), "float32"),), {}))
    assert "Dense_1" in text
    assert "Only pairs of rank 1 train, for /kernel/" in text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: initial(Lora(Plain, "kernels")), "matches no weight of Plain.*Dense_0/kernel"),
        (lambda: initial(Lora(Plain, "bias")), "matches no weight of Plain"),
        (lambda: initial(Lora(Plain, "kernel", 4)), r"rank=4 for Dense_0/kernel of shape \(6, 3\)"),
        (lambda: Lora(Plain, "("), r"Received Lora\(pattern='\('"),
        (lambda: Lora(Plain, "kernel", rank=0), "a whole number of at least 1"),
        (lambda: Lora(Plain, "kernel", alpha=0.0), "a number above 0"),
        (lambda: adapt(Vmap(Lora(Plain, "kernel")), {}), r"Write Lora\(Vmap\(Plain\), \.\.\.\)"),
    ],
)
def test_what_cannot_be_adapted_is_refused(make, message) -> None:
    with pytest.raises(ModelError, match=f"(?s){message}"):
        make()


@pytest.mark.parametrize("size", [1, 2])
def test_members_of_a_population_are_single_runs_that_begin_with_the_loaded_weights(
    trained, tmp_path, size: int
) -> None:
    plain = trained[0]

    def make(lr, seed):
        model = Lora(Plain, "Dense_0/kernel", 2)
        optimizer = {**SGD, "lr": lr}
        trainer = classifier(tmp_path, model_class=model, optimizer_hparams=optimizer, seed=seed)
        trainer.load_weights(plain.log_dir)
        return trainer

    members = [{"seed": 7, "lr": 0.1}, {"seed": 8, "lr": 0.3}]
    population = Population(make(0.1, 7), members, members_per_step=size)
    population.train_model([classes(12)], [classes(12)], num_epochs=1)
    member, alone = population.member(1), make(0.3, 8)
    alone.train_model([classes(12)], num_epochs=1)
    jax.tree.map(
        np.testing.assert_array_equal, member.state.collections["base"], plain.state.params
    )
    tolerance = {"rtol": 0, "atol": 0} if size == 1 else {"rtol": 2e-5, "atol": 2e-6}
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, **tolerance),
        member.state.params,
        alone.state.params,
    )
    first = population.member(0).state.params["Dense_0"]["kernel"]
    assert not np.array_equal(first["a"], member.state.params["Dense_0"]["kernel"]["a"])
