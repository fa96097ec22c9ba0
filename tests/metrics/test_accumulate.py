"""Accumulated metrics equal those computed at once over all examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from jax import lax

from boltax.errors import MetricsError
from boltax.metrics import Sum
from boltax.metrics._accumulate import compute, empty_like, extend, merge, start


def accumulate(batches, step):
    metrics = None
    for batch in batches:
        new = start(step(batch), len(batch))
        metrics = extend(
            empty_like(jax.eval_shape(lambda n=new: n)) if metrics is None else metrics, new
        )
    return compute(metrics)


def split(values, size):
    return [jnp.asarray(values[i : i + size]) for i in range(0, len(values), size)]


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 32])
@pytest.mark.parametrize(
    "step",
    [
        pytest.param(lambda x: {"m": x}, id="per example"),
        pytest.param(lambda x: {"m": jnp.mean(x)}, id="scalar mean"),
        pytest.param(lambda x: {"m": (jnp.sum(x), jnp.int32(len(x)))}, id="total and count"),
        pytest.param(lambda x: {"m": jnp.stack([x, 2 * x], axis=1)[:, 0]}, id="column"),
    ],
)
def test_every_form_of_mean_is_exact_for_ragged_batches(batch_size, step):
    values = np.random.default_rng(0).normal(size=10).astype(np.float32)
    assert accumulate(split(values, batch_size), step)["m"] == pytest.approx(
        values.mean(), abs=1e-6
    )


def test_booleans_are_counted_as_integers():
    hits = np.arange(1001) % 3 == 0
    assert accumulate(split(hits, 100), lambda x: {"acc": x})["acc"] == hits.sum() / 1001


@pytest.mark.parametrize("shape", [(10, 3), (10, 2, 4), (10, 1), (10, 0)])
def test_values_per_token_give_the_mean_over_all_of_them(shape):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    mean = accumulate(split(values, 4), lambda x: {"m": x})["m"]
    expected = values.astype(np.float64).mean() if values.size else np.nan
    assert mean == pytest.approx(expected, rel=1e-6, nan_ok=True)


def test_pixels_are_counted_exactly_in_a_run_of_any_length():
    hits = jnp.arange(1000) % 10 != 0
    batch = start({"acc": hits.reshape(10, 10, 10)}, 10)
    thousand = jax.jit(lambda b: lax.fori_loop(0, 10**7, lambda _, m: merge(m, b), empty_like(b)))
    metrics = jax.device_get(thousand(batch))
    assert compute(metrics)["acc"] == 0.9  # of 10**10
    assert int(metrics.examples) == 10**8


def test_examples_are_counted_beyond_int32():
    batch = start({"m": jnp.float32(2.0)}, 2**30)
    metrics = merge(merge(batch, batch), merge(batch, batch))
    assert int(metrics.examples) == 2**32
    assert compute(metrics)["m"] == 2.0


def test_a_large_integer_for_each_batch_is_exact():
    tokens = [1_000_000, 999_999, 2**31 - 1]
    step = iter(tokens)
    batches = [np.zeros(6400)] * 3
    found = accumulate(batches, lambda _: {"tokens": jnp.int32(next(step))})["tokens"]
    assert found == sum(tokens) / 3


@pytest.mark.parametrize("number", [2**40 + 1, np.int64(2**40 + 1), np.array(2**40 + 1)])
def test_integers_of_python_and_numpy_that_int32_does_not_hold_are_exact(number):
    found = accumulate([np.zeros(4)] * 3, lambda _: {"n": number, "pair": (number, 2)})
    assert found == {"n": 2**40 + 1, "pair": (2**40 + 1) / 2}


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_pairs_do_not_add_up_in_their_own_dtype(dtype):
    total = jnp.asarray(0.1, dtype)
    batch = start({"m": (total, jnp.asarray(1, dtype))}, 4)
    many = jax.jit(lambda b: lax.fori_loop(0, 3000, lambda _, m: merge(m, b), empty_like(b)))
    expected = float(np.asarray(total, np.float64))
    assert compute(many(batch))["m"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("count", [257, np.int32(257), np.float64(257), jnp.int32(257), 257.0])
@pytest.mark.parametrize("total", [3, 3.0, np.float32(3), jnp.bfloat16(3), True])
def test_pairs_of_numbers_of_any_kind_keep_their_counts(total, count):
    found = accumulate([np.zeros(4)] * 3, lambda _: {"m": (total, count)})["m"]
    assert found == pytest.approx(float(total) / 257, rel=1e-6)


def test_pairs_of_arrays_give_a_value_for_each_entry():
    """Such as a recall for each class: the vectors that are no mean over examples."""
    values = np.random.default_rng(0).integers(0, 9, (12, 3)).astype(np.int32)
    found = accumulate(
        split(values, 5), lambda x: {"each": (x.sum(0), (x > 4).sum(0)), "one": (x.sum(0), len(x))}
    )
    np.testing.assert_allclose(found["each"], values.sum(0) / (values > 4).sum(0), rtol=1e-12)
    np.testing.assert_allclose(found["one"], values.mean(0), rtol=1e-12)


def test_an_example_that_only_fills_up_leaves_out_all_its_entries():
    values = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    metrics = start({"m": jnp.asarray(values), "hit": jnp.asarray(values > 0)}, 8, jnp.int32(3))
    found = compute(metrics)
    assert int(metrics.examples) == 3
    assert found["m"] == pytest.approx(values[:3].astype(np.float64).mean(), rel=1e-6)
    assert found["hit"] == (values[:3] > 0).mean()


def test_with_x64_the_values_are_the_same():
    values = np.random.default_rng(0).normal(size=(10, 3))
    with jax.enable_x64(True):
        found = accumulate(
            split(values, 4), lambda x: {"m": x, "pair": (x.sum(), x.size), "n": jnp.int64(2**40)}
        )
    assert found["m"] == pytest.approx(values.mean(), rel=1e-14)
    assert found["pair"] == pytest.approx(values.mean(), rel=1e-14)
    assert found["n"] == 2**40


def test_low_precision_values_are_summed_in_float32():
    values = np.full(4096, 0.1, np.float32)
    mean = accumulate(split(values, 512), lambda x: {"m": x.astype(jnp.bfloat16)})["m"]
    assert mean == pytest.approx(float(jnp.bfloat16(0.1)), rel=1e-5)


def test_an_object_whose_empty_state_is_not_zero_starts_with_its_first_batch():
    class Smallest:
        def __init__(self, value):
            self.value = value

        def merge(self, other):
            return Smallest(jnp.minimum(self.value, other.value))

        def compute(self):
            return self.value

    jax.tree_util.register_pytree_node(
        Smallest, lambda s: ((s.value,), None), lambda _, v: Smallest(*v)
    )
    values = np.arange(5, 15).astype(np.float32)
    assert accumulate(split(values, 4), lambda x: {"least": Smallest(x.min())})["least"] == 5.0


def test_metrics_that_differ_between_steps_name_the_difference():
    with pytest.raises(
        MetricsError, match=r"\['acc', 'loss'\] after metrics \['loss'\] \(new \['acc'\]\)"
    ):
        merge(start({"loss": jnp.ones(2)}, 2), start({"loss": jnp.ones(2), "acc": jnp.ones(2)}, 2))


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"m": jnp.ones((5, 2))}, r"metric 'm' with float32\[5, 2\] for a batch of 4"),
        ({"m": "high"}, "metric 'm' of type str; expected numbers"),
        ({"m": None}, "metric 'm' of type NoneType; expected numbers"),
        ({"m": {"a": 1.0}}, "metric 'm' of type dict; expected numbers"),
        ({"m": jnp.ones(4, jnp.complex64)}, r"metric 'm' of complex64\[4\]; expected numbers"),
        ({"m": 2**70}, "metric 'm' of type int; expected numbers"),
        ({"m": (1.0, 2, 3)}, r"metric 'm' as a tuple of float, int, int; expected"),
        ({"m": (jnp.ones(()), jnp.ones(4))}, r"tuple of float32\[\], float32\[4\]; expected"),
        ({"m": ("a", 1)}, "metric 'm' of type str; expected numbers"),
        ({3: jnp.ones(4)}, "metric named 3; expected a string"),
        ([1.0], "metrics of type list; expected a dict"),
    ],
)
def test_a_value_that_is_no_metric_says_what_would_be(metrics, message):
    with pytest.raises(MetricsError, match=message):
        start(metrics, 4)


def test_clu_and_metrax_metrics_equal_sklearn(monkeypatch):
    clu, metrax = pytest.importorskip("clu.metrics"), pytest.importorskip("metrax")
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    scores, labels = rng.random(500).astype(np.float32), rng.integers(0, 2, 500).astype(np.int32)

    def step(batch):
        s, y = batch[:, 0], batch[:, 1].astype(jnp.int32)
        return {
            "accuracy": clu.Accuracy.from_model_output(logits=jnp.stack([1 - s, s], 1), labels=y),
            # Dice is F1; metrax's FBetaScore cannot merge
            "f1": metrax.Dice.from_model_output(
                (s > 0.5).astype(jnp.float32), y.astype(jnp.float32)
            ),
            "auroc": metrax.AUCROC.from_model_output(predictions=s, labels=y, num_thresholds=2000),
        }

    rows = np.stack([scores, labels.astype(np.float32)], 1)
    with (
        jax.numpy_rank_promotion("allow"),
        jax.numpy_dtype_promotion("standard"),
    ):  # neither library is strict inside
        result = accumulate(split(rows, 64), step)
    assert result["accuracy"] == pytest.approx(sklearn.accuracy_score(labels, scores > 0.5))
    assert result["f1"] == pytest.approx(sklearn.f1_score(labels, scores > 0.5), abs=1e-5)
    assert result["auroc"] == pytest.approx(sklearn.roc_auc_score(labels, scores), abs=2e-3)


def test_a_metric_that_grows_is_refused_with_what_to_use_instead():
    clu = pytest.importorskip("clu.metrics")

    collecting = clu.CollectingMetric.from_outputs(("scores",))
    new = start({"all": collecting.from_model_output(scores=jnp.ones(4))}, 4)
    with pytest.raises(MetricsError, match="fixed size"):
        merge(new, new)


def test_a_metric_whose_form_changes_from_batch_to_batch_is_named():
    before, now = (start({"a": jnp.ones(4), "m": (jnp.ones(n), 1)}, 4) for n in (3, 4))
    with pytest.raises(MetricsError, match=r"'m' as sums float32\[4\] and int32\[\] in one batch"):
        merge(before, now)
    with pytest.raises(MetricsError, match=r"'m' as an object in one batch after sums"):
        merge(start({"m": jnp.ones(4)}, 4), start({"m": Sum(1)}, 4))


def test_a_metric_object_that_computes_no_number_is_named():
    @struct.dataclass
    class Named:
        value: jax.Array

        def merge(self, other):
            return other

        def compute(self):
            return "high"

    with pytest.raises(MetricsError, match=r"Received str from compute\(\) of metric 'val/m'"):
        compute(start({"m": Named(jnp.ones(()))}, 4), "val/")
