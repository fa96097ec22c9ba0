"""The contract that every schedule keeps: trains, compiles once, resumes bitwise, populations."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltax import optim
from boltax.checkpoint._arrays import read_arrays, write_arrays

PARAMS = {"w": jnp.asarray([1.0, -2.0])}

# What a schedule must be given, for a run of 20 steps.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "exponential_decay": {"decay_rate": 0.5},
    "linear_schedule": {"end_value": 0.0},
    "piecewise": {"boundaries": {0.5: 0.1}},
    "piecewise_interpolate_schedule": {
        "interpolate_type": "linear",
        "boundaries_and_scales": {10: 0.5},
    },
    "polynomial_schedule": {"end_value": 0.0, "power": 2},
    "sgdr_schedule": {
        "cosine_kwargs": [
            {"init_value": 0.05, "peak_value": 0.1, "warmup_steps": 2, "decay_steps": 10}
        ]
    },
    "warmup_exponential_decay_schedule": {"decay_rate": 0.5},
}
OWN_LR = {"sgdr_schedule"}  # their values are all in their arguments


def hparams_of(name: str) -> dict[str, Any]:
    lr = {} if name in OWN_LR else {"lr": 0.1}
    schedule = {"name": name, **ARGUMENTS.get(name, {})}
    return {"optimizer": "sgd", "schedule": schedule, "gradient_clip": None, **lr}


@pytest.mark.parametrize("name", optim.schedules())
def test_trains_compiles_once_resumes_bitwise_and_in_populations(name: str, tmp_path: Path) -> None:
    tx, traces = optim.build(hparams_of(name), total_steps=20).tx, list[int]()

    def step(params: Any, state: Any) -> tuple[Any, Any]:
        traces.append(1)
        loss = jnp.sum(jnp.square(params["w"]))
        updates, state = tx.update({"w": 2.0 * params["w"]}, state, params, value=loss)
        return jax.tree.map(jnp.add, params, updates), state

    def run(step: Any, params: Any, state: Any) -> tuple[Any, Any]:
        for _ in range(4):
            params, state = step(params, state)
        return params, state

    single = jax.jit(step)
    saved = run(single, PARAMS, tx.init(PARAMS))
    write_arrays(tmp_path, "arrays", saved)
    final = run(single, *saved)
    resumed = run(single, *read_arrays(tmp_path, "arrays", template=saved))
    jax.tree.map(np.testing.assert_array_equal, resumed, final)
    assert jnp.abs(final[0]["w"]).sum() < jnp.abs(PARAMS["w"]).sum()
    assert final[0]["w"].dtype == jnp.float32
    assert len(traces) == 1

    state, slow = tx.init(PARAMS), optim.build(hparams_of(name), total_steps=20).tx.init(PARAMS)
    slow = jax.tree_util.tree_map_with_path(_halved, slow)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), (PARAMS, state), (PARAMS, slow))
    together = run(jax.jit(jax.vmap(step)), *stacked)[0]["w"]
    alone = [run(single, PARAMS, each)[0]["w"] for each in (state, slow)]
    np.testing.assert_allclose(together, jnp.stack(alone), rtol=1e-5)
    assert not np.allclose(*alone)


def _halved(path: Any, leaf: Any) -> Any:
    is_lr = jax.tree_util.keystr(path).endswith((".base", ".hyperparams['learning_rate']"))
    return leaf * 0.5 if is_lr else leaf
