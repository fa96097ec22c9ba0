"""Keys are functions of (root, name, step)."""

import jax
import numpy as np

from boltax._base._keys import fold_name, step_key


def test_phases_steps_and_names_give_independent_keys():
    root = jax.random.key(0)
    keys = [step_key(root, phase, step) for phase in ("train", "eval") for step in range(3)]
    keys += [fold_name(root, name) for name in ("dropout", "noise")]
    assert len({tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in keys}) == len(keys)


def test_the_same_place_gives_the_same_key_under_jit():
    root = jax.random.key(0)
    traced = jax.jit(lambda step: jax.random.key_data(step_key(root, "train", step)))(7)
    np.testing.assert_array_equal(traced, jax.random.key_data(step_key(root, "train", 7)))
