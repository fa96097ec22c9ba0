"""Sums over a data set."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from boltax.errors import MetricsError
from boltax.metrics import Sum, confusion_matrix
from boltax.metrics._accumulate import compute, merge, start


def test_confusion_matrix_counts_over_batches_like_sklearn():
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    predicted, true = rng.integers(0, 4, (2, 60)).astype(np.int32)
    parts = [
        start(
            {
                "m": confusion_matrix(
                    jnp.asarray(predicted[i : i + 25]), jnp.asarray(true[i : i + 25]), 4
                )
            },
            25,
        )
        for i in (0, 25, 50)
    ]
    total = compute(merge(merge(parts[0], parts[1]), parts[2]))["m"]
    np.testing.assert_array_equal(total, sklearn.confusion_matrix(true, predicted))


def counted(predictions, labels, classes):
    """The matrix in NumPy."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (np.ravel(labels).astype(int), np.ravel(predictions).astype(int)), 1)
    return matrix


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int32, np.int64])
@pytest.mark.parametrize("shape", [(40,), (4, 5, 6), (0,)])
def test_classes_of_any_dtype_and_shape_are_counted(dtype, shape):
    rng = np.random.default_rng(0)
    predictions, labels = rng.integers(0, 2, (2, *shape)).astype(dtype)
    forms = [lambda x: x]
    forms += [jnp.asarray] if dtype != np.int64 else []
    forms += [lambda x: x.tolist()] if predictions.size else []
    for given in forms:
        matrix = confusion_matrix(given(predictions), given(labels), 2).compute()
        np.testing.assert_array_equal(matrix, counted(predictions, labels, 2))


@pytest.mark.parametrize("ignore_label", [-1, 255, 0])
def test_an_ignored_label_is_left_out_whatever_is_predicted_there(ignore_label):
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 3, (2, 8, 8)).astype(np.int32)
    labels[:3], predictions[:2] = ignore_label, np.where(ignore_label == 0, 0, 99)
    is_left = labels != ignore_label
    matrix = jax.jit(lambda p, y: confusion_matrix(p, y, 3, ignore_label=ignore_label))(
        predictions, labels
    )
    expected = counted(predictions[is_left], labels[is_left], 3)
    np.testing.assert_array_equal(matrix.compute(), expected)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, -1, 2, -1], r"Received 2 labels .* 3 classes: the smallest is -1; .*ignore_label=-1"),
        ([0, 255, 2, 1], r"Received 1 labels .*: the largest is 255; .* 0 to 2.*ignore_label=255"),
        ([3, -7, 2, 1], r"Received 2 labels .*: the smallest is -7, the largest is 3; expected"),
        ([2**32, 0, 1, 2], r"Received 1 labels .*: the largest is 2147483647; expected"),
    ],
)
def test_labels_that_are_no_class_are_an_error_with_their_number(labels, message):
    step = confusion_matrix(np.array([0, 1, 2, 0]), np.array(labels), 3)
    good = confusion_matrix(np.array([0, 1]), np.array([0, 1]), 3)
    with pytest.raises(MetricsError, match=message):
        compute(merge(start({"m": step}, 4), start({"m": good}, 2)))


def test_predictions_that_are_no_class_are_an_error():
    matrix = jax.jit(lambda p, y: confusion_matrix(p, y, 3))(jnp.array([0, 7]), jnp.array([0, 1]))
    with pytest.raises(MetricsError, match="Received 1 predictions that are no class"):
        matrix.compute()


@pytest.mark.parametrize(
    ("predictions", "labels", "classes", "message"),
    [
        (np.zeros((4, 1), int), np.zeros(4, int), 3, r"predictions int64\[4, 1\] and labels"),
        (np.zeros((4, 3), np.float32), np.zeros(4, int), 3, r"float32\[4, 3\].*argmax\(-1\)"),
        (np.zeros(4, int), np.zeros(4, np.float32), 3, r"labels float32\[4\].*astype\(int\)"),
        (np.zeros(4, int), np.zeros(4, int), 0, "num_classes=0.*positive integer"),
        (np.zeros(4, int), np.zeros(4, int), 2.0, "num_classes=2.0"),
    ],
)
def test_what_is_no_pair_of_classes_is_refused(predictions, labels, classes, message):
    with pytest.raises(MetricsError, match=message):
        confusion_matrix(predictions, labels, classes)


def test_counts_and_sums_are_exact_beyond_int32():
    hit = jnp.ones(1000, jnp.int32)
    batch = {"confusion": confusion_matrix(hit, hit, 2), "tokens": Sum(jnp.int32(2**31 - 1))}
    one = start(batch, 1000)
    total = jax.jit(lambda b: lax.fori_loop(1, 3_000_000, lambda _, m: merge(m, b), b))(one)
    found = compute(total)
    np.testing.assert_array_equal(found["confusion"], [[0, 0], [0, 3_000_000_000]])
    assert found["tokens"] == (2**31 - 1) * 3_000_000  # above 2**52


def test_a_sum_of_floats_does_not_drift():
    one = start({"s": Sum(jnp.float32(0.1))}, 1)
    total = jax.jit(lambda b: lax.fori_loop(1, 1_000_000, lambda _, m: merge(m, b), b))(one)
    assert compute(total)["s"] == pytest.approx(1e6 * np.float64(np.float32(0.1)), rel=1e-9)


def test_a_sum_takes_numbers_of_python_and_vectors():
    np.testing.assert_array_equal(Sum(jnp.arange(3)).merge(Sum(jnp.arange(3))).compute(), [0, 2, 4])
    assert Sum(2**40).merge(Sum(1)).compute() == 2**40 + 1
    with pytest.raises(MetricsError, match=r"Received list for boltax.metrics.Sum"):
        Sum([1, 2])
