"""Model summaries: Flax's own where there is one."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from boltax.models._adapter import adapt
from boltax.models._summary import summarize, summarize_variables
from boltax.models._view import ModelView
from model_dummies import INPUTS, KINDS, Autoencoder, Kind, NnxExplicit, NnxMlp, NormDropout

KEY = jax.random.key(0)
HAS_FLAX_TABLE = [name for name in KINDS if name != "nnx custom"]


def called(kind: Kind):
    adapter = adapt(kind.model_class, kind.hparams)
    views = []

    def init(key, inputs):
        view = ModelView(adapter, adapter.empty(key), key, train=True, initializing=True)
        view(inputs)
        views.append(view)

    jax.eval_shape(init, KEY, INPUTS)
    return adapter, views[0].calls


def assert_plain_text(text: str, width: int) -> None:
    assert text.endswith("\n")
    for line in text.splitlines():
        assert line == line.rstrip()
        assert len(line) <= width
        assert line.isprintable()


@pytest.mark.parametrize("name", HAS_FLAX_TABLE)
def test_the_table_is_that_of_flax(name: str) -> None:
    adapter, calls = called(KINDS[name])
    text = summarize(adapter, calls)
    assert_plain_text(text, 160)
    assert f"{adapter.name} Summary" in text
    assert "Total Parameters" in text
    assert "float32[6,4]" in text


@pytest.mark.parametrize("name", ["linen norm dropout", "nnx norm dropout"])
def test_depth_limits_the_table(name: str) -> None:
    adapter, calls = called(KINDS[name])
    assert "BatchNorm" in summarize(adapter, calls)
    assert "BatchNorm" not in summarize(adapter, calls[0], depth=0)


def test_the_width_is_kept() -> None:
    adapter, calls = called(Kind(NormDropout))
    assert_plain_text(summarize(adapter, calls, width=60), 60)


def test_all_calls_of_a_linen_model_are_in_the_table() -> None:
    adapter = adapt(Autoencoder, {})
    view = ModelView(adapter, {}, KEY, train=True, initializing=True)
    view.decode(view.encode(INPUTS))
    text = summarize(adapter, view.calls)
    assert "encoder/layers_0" in text
    assert "decoder" in text


@pytest.mark.parametrize("name", ["nnx custom"])
def test_without_a_table_of_flax_the_variables_are_listed(name: str) -> None:
    adapter, calls = called(KINDS[name])
    text = summarize(adapter, calls)
    assert_plain_text(text, 160)
    assert "params/dense/kernel" in text
    assert "arrays/scale" in text
    assert "Flax made no table of NnxCustom: KeyError" in text


def test_a_model_that_was_not_called_is_listed_too() -> None:
    adapter = adapt(NnxMlp, {})
    assert "params/first/kernel" in summarize(adapter, [])


def test_a_table_that_fails_leaves_the_classes_alone() -> None:
    class Failing(NnxExplicit):
        def __call__(self, x, train=True):
            raise ValueError("mine")

    adapter = adapt(Failing, {})
    classes = (Failing, NnxExplicit, nnx.Linear, nnx.Dropout)
    before = [dict(vars(cls)) for cls in classes]
    _, calls = called(Kind(NnxExplicit))
    with pytest.raises(ValueError, match="mine"):
        adapter.tabulate(calls, depth=None, console={})
    assert [dict(vars(cls)) for cls in classes] == before


def test_variables_are_listed_with_sizes() -> None:
    kernel = jax.ShapeDtypeStruct((1000, 250), jnp.float32)
    text = summarize_variables(
        {"params": {"dense": {"kernel": kernel}}, "stats": {"n": jnp.ones(2)}}
    )
    assert_plain_text(text, 160)
    assert "params/dense/kernel │ (1000, 250) │ float32" in text
    assert "250,000" in text
    assert "params: 250,000 (1.0 MB)" in text
    assert "250,002 (1.0 MB)" in text
    assert "stats: 2 (8 B)" in text
