"""Accumulated metrics out of checkpoints of earlier versions go on as if they were of today."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltax.errors import MetricsError
from boltax.metrics import Sum, confusion_matrix
from boltax.metrics._accumulate import SavedMetrics, compute, empty_like, merge, rebuilt, start
from dummies import Lowest

CLASSES = np.array([0, 1, 1, 2], np.int32)


def step(scale=1.0):
    return {
        "acc": jnp.array([True, False, True, True]),
        "confusion": confusion_matrix(CLASSES, CLASSES, 3),
        "loss": jnp.full(4, 0.5 * scale, jnp.float32),
        "lowest": Lowest(jnp.float32(3.0)),
        "pair": (jnp.bfloat16(1.5), jnp.int32(2)),
        "sum": Sum(jnp.int32(7)),
        "tokens": jnp.int32(100),
        "vector": jnp.ones((4, 3), jnp.float32),
    }


def older_leaves(members=()):
    """What the version before has saved after two such batches, in the order of its tree."""
    leaves = [
        np.int32(6),  # acc: total and count
        np.int32(8),
        np.diag([2, 4, 2]).astype(np.int32),
        np.float32(4.0),  # loss
        np.int32(8),
        np.float32(2.0),  # lowest
        np.asarray(jnp.bfloat16(3.0)),  # pair
        np.int32(4),
        np.int32(14),  # sum
        np.int32(800),  # tokens
        np.int32(8),
        np.array([8.0, 8.0, 8.0], np.float32),  # vector: a mean for each of three
        np.int32(8),
        np.int32(8),  # examples, batches, left out
        np.int32(2),
        np.int32(0),
    ]
    return [np.broadcast_to(leaf, (*members, *leaf.shape)) for leaf in leaves]


def test_a_run_of_the_version_before_goes_on_exactly():
    new = start(step(), 4)
    for like in (jax.eval_shape(lambda: new), empty_like(new)):
        metrics = rebuilt(SavedMetrics(older_leaves()), like)
        assert jax.tree.structure(metrics) == jax.tree.structure(new)
        assert [(x.shape, x.dtype) for x in jax.tree.leaves(metrics)] == [
            (x.shape, x.dtype) for x in jax.tree.leaves(new)
        ]
        found = compute(merge(metrics, new))
        np.testing.assert_array_equal(found.pop("confusion"), np.diag([3, 6, 3]))
        assert found == {
            "acc": 0.75,
            "loss": 0.5,
            "lowest": 2.0,
            "pair": 0.75,
            "sum": 21,
            "tokens": 100,
            "vector": 1.0,
        }
        assert int(merge(metrics, new).examples) == 12


def test_a_population_of_the_version_before_goes_on_exactly():
    members = jax.vmap(lambda scale: start(step(scale), 4))(jnp.array([1.0, 2.0]))
    metrics = rebuilt(SavedMetrics(older_leaves(members=(2,))), jax.eval_shape(lambda: members))
    both = jax.vmap(merge)(metrics, members)
    second = compute(jax.tree.map(lambda leaf: leaf[1], jax.device_get(both)))
    assert (second["loss"], second["tokens"], second["sum"]) == (8.0 / 12, 100, 21)
    np.testing.assert_array_equal(second["confusion"], np.diag([3, 6, 3]))


def test_metrics_of_today_come_back_bitwise():
    new = merge(start(step(), 4), start(step(3.0), 4))
    again = rebuilt(SavedMetrics(jax.device_get(jax.tree.leaves(new))), empty_like(new))
    jax.tree.map(np.testing.assert_array_equal, again, new)


@pytest.mark.parametrize("change", ["fewer", "more", "dtype", "shape"])
def test_older_metrics_of_another_loss_are_refused(change):
    leaves = older_leaves()
    if change == "fewer":
        del leaves[:2]
    elif change == "more":
        leaves.append(np.int32(0))
    elif change == "dtype":
        leaves[3] = np.int32(4)
    else:
        leaves[2] = np.zeros((4, 4), np.int32)
    with pytest.raises(MetricsError, match="Received a checkpoint whose metrics hold"):
        rebuilt(SavedMetrics(leaves), start(step(), 4))
