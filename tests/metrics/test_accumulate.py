"""Accumulated metrics equal those computed at once over all examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltax.errors import MetricsError
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


def test_per_example_vectors_give_a_vector_of_means():
    values = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    np.testing.assert_allclose(
        accumulate(split(values, 4), lambda x: {"m": x})["m"], values.mean(0), rtol=1e-6
    )


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
