"""Sums over a data set."""

import jax.numpy as jnp
import numpy as np
import pytest

from boltax.metrics import confusion_matrix
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
