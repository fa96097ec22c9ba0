"""A saved state with other settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltax import optim
from boltax.optim._resettings import changed_settings, with_settings


@pytest.mark.parametrize(
    ("saved", "now", "names"),
    [
        ({"lr": 0.1}, {"lr": 0.1}, []),
        (None, {"lr": 0.1}, ["lr"]),
        ({"lr": 0.1, "warmup": 3}, {"lr": 0.1}, ["warmup"]),
        (
            {"optimizers": {"a": {"lr": 1.0}, "b": {"lr": 1.0}}},
            {"optimizers": {"a": {"lr": 1.0}, "b": {"lr": 2.0}}},
            ["optimizers.b.lr"],
        ),
        ("GradientTransformation(...)", {"lr": 0.1}, []),
    ],
)
def test_what_has_changed_is_named(saved, now, names):
    assert changed_settings(saved, now) == names


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_updates_go_on_with_the_moments_and_the_new_rate(schedule):
    params, grads = {"w": jnp.ones(3)}, {"w": jnp.asarray([1.0, -2.0, 0.5])}

    def built(lr):
        settings = {"optimizer": "sgd", "momentum": 0.5, "lr": lr, "schedule": schedule}
        return optim.build({**settings, "gradient_clip": None}, 4).tx

    old, new = built(0.1), built(0.01)
    state = old.init(params)
    _, state = old.update(grads, state, params)
    state = with_settings(state, new.init(params), ["lr"])
    updates, _ = new.update(grads, state, params)
    factor = 1.0 if schedule == "constant" else 0.5 * (1 + np.cos(np.pi / 4))
    # the trace of two equal gradients: g, then g + 0.5 g
    expected = -0.01 * factor * 1.5 * np.asarray(grads["w"])
    tolerance = 1e-6 if schedule == "constant" else 0.03  # boltax ends at 1 %, and not at 0
    np.testing.assert_allclose(updates["w"], expected, rtol=tolerance)
    assert not jax.tree.leaves(with_settings(state, new.init(params), []))[0].shape
